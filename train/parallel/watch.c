// The watchdogs talk by files and not by messages, since a rank that hangs inside MPI cannot answer
// a message. So before they start the ranks have to find a directory that all of them see; the rest
// of this file is the choice of it, and of the time limit.
#define _GNU_SOURCE // for getcwd
#include "train/parallel/watch.h"

#include "base/file.h"
#include "base/log.h"
#include "train/parallel/shared_dir.h"
#include "train/parallel/watchdog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double STANDARD_MINUTES = 30, MAX_MINUTES = 1e7;

typedef char Host[COMM_HOST_BYTES];

_Static_assert((int)COMM_HOST_BYTES == (int)WATCHDOG_HOST_BYTES, "hosts are handed on");

// All ranks have the same list of hosts, so all decide the same without asking.
static bool are_on_one_host(const Comm *comm, const Host *hosts)
{
    for (int r = 1; r < comm->size; r++)
        if (strcmp(hosts[r], hosts[0]) != 0)
            return false;
    return true;
}

// Rank 0's candidates for a directory that all ranks see, the best one first; "": there is none. On
// one host that is the temporary one, which is local and clean. Jobs on several hosts are mostly
// started in a directory on the cluster's shared file system.
static void candidate(char out[PATH_BYTES], int i, bool is_one_host)
{
    const char *temporary = getenv("TMPDIR");
    out[0] = '\0';
    if (i == 0 && is_one_host)
        snprintf(out, PATH_BYTES, "%s", temporary != NULL ? temporary : "/tmp");
    else if (i == 1 && getcwd(out, PATH_BYTES) == NULL)
        out[0] = '\0';
}

// A directory for the ranks' files that is not there yet, by the same absolute path on all ranks;
// false: they share none.
static bool find_dir(char out[PATH_BYTES], const Comm *comm, const Host *hosts)
{
    const bool is_one_host = are_on_one_host(comm, hosts);
    for (int i = 0; i < 2; i++) {
        char parent[PATH_BYTES];
        candidate(parent, i, is_one_host);
        comm_broadcast(comm, parent, sizeof parent, 0);
        // In a directory that the others do not see, every rank would seem silent to the rest.
        if (parent[0] == '\0' || shared_dir_check(comm, parent) != OK)
            continue;
        char name[64];
        snprintf(name, sizeof name, ".mha2mla-ranks-%lld-%ld", (long long)time(NULL),
                 (long)getpid());
        comm_broadcast(comm, name, sizeof name, 0);
        if (comm_agree(comm, file_join(out, parent, name)) == OK)
            return true;
    }
    return false;
}

Status watch_ranks(const Comm *comm, const char *dir, double minutes, const char *limit_name)
{
    char place[PATH_BYTES];
    // A command may have been watched by another limit and directory until here.
    watchdog_stop();
    if (comm->size == 1 || minutes <= 0)
        return OK;
    Host *hosts = calloc((size_t)comm->size, sizeof *hosts);
    Status status = hosts != NULL ? OK : fail(FAILED, "no memory for %d hosts", comm->size);
    TRY_GOTO(release_hosts, comm_agree(comm, status));
    comm_gather_hosts(comm, hosts);
    if (dir == NULL && !find_dir(place, comm, (const Host *)hosts)) {
        log_warn("a rank that stops answering will not be noticed: the ranks share no directory to "
                 "watch each other by; start in one that they do: %s",
                 fail_text());
        goto release_hosts;
    }
    const WatchdogSettings settings = {.dir = dir != NULL ? dir : place,
                                       .rank = comm->rank,
                                       .size = comm->size,
                                       .hosts = (const Host *)hosts,
                                       .minutes = minutes,
                                       .limit_name = limit_name,
                                       .is_temporary = dir == NULL};
    status = comm_agree(comm, watchdog_start(&settings));
release_hosts:
    free(hosts);
    return status;
}

// Rank 0's: mpirun does not hand the environment to other machines.
static Status standard_minutes(double *out)
{
    const char *text = getenv(WATCH_LIMIT_VARIABLE);
    char *end;
    *out = STANDARD_MINUTES;
    if (text == NULL || text[0] == '\0')
        return OK;
    const double minutes = strtod(text, &end);
    if (*end != '\0' || !(minutes >= 0 && minutes <= MAX_MINUTES))
        return fail(BAD_INPUT, WATCH_LIMIT_VARIABLE " is '%.100s', allowed are 0 to %.0f minutes",
                    text, MAX_MINUTES);
    *out = minutes;
    return OK;
}

// Rank 0's limit goes to all, even where they have the variable: two limits in one job would report
// each other's waits as stalls.
Status watch_command(const Comm *comm)
{
    double minutes = 0;
    const bool is_asked = comm->rank == 0;
    TRY(comm_agree_of(comm, is_asked, is_asked ? standard_minutes(&minutes) : OK));
    comm_broadcast(comm, &minutes, sizeof minutes, 0);
    return watch_ranks(comm, NULL, minutes, WATCH_LIMIT_VARIABLE);
}
