// The handler runs on any thread, between any two instructions: it only touches lock-free atomics
// and calls what POSIX lists as safe (clock_gettime, _exit).
#define _GNU_SOURCE // sigaction
#include "train/stop.h"

#include "base/log.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const struct {
    int number;
    const char *name;
} watched[] = {{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGUSR1, "SIGUSR1"}};

enum {
    N_WATCHED = sizeof watched / sizeof watched[0],
    SAME_REQUEST_MS = 1000 // launchers forward what the process has got already
};

static double started_s, limit_s; // limit_s 0: no limit
static bool is_slurm_job;
static atomic_int first_signal;
// When the first signal came that ends the process if it is repeated; 0: none came.
static _Atomic int64_t first_end_ms;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// The first signal names the cause. Of SIGTERM and SIGINT a second one, later than what a launcher
// forwards, ends the process: someone insists. Under Slurm the site's SIGKILL does that.
static void note_request(int number)
{
    int none = 0;
    atomic_compare_exchange_strong(&first_signal, &none, number);
    if (number == SIGUSR1 || is_slurm_job)
        return;
    const int64_t now = now_ms();
    int64_t first = 0;
    if (!atomic_compare_exchange_strong(&first_end_ms, &first, now) &&
        now - first >= SAME_REQUEST_MS)
        _exit(128 + number);
}

// A signal that the parent ignores stays ignored, as nohup and shells expect of background jobs.
void stop_install(void)
{
    atomic_store(&first_signal, 0);
    atomic_store(&first_end_ms, 0);
    started_s = log_seconds();
    limit_s = 0;
    is_slurm_job = getenv("SLURM_JOB_ID") != NULL;
    // Reads and writes that a signal interrupts are restarted: a request is no error of theirs. The
    // signals block each other, so that handlers do not nest.
    struct sigaction action = {.sa_handler = note_request, .sa_flags = SA_RESTART};
    for (int i = 0; i < N_WATCHED; i++)
        sigaddset(&action.sa_mask, watched[i].number);
    for (int i = 0; i < N_WATCHED; i++) {
        struct sigaction before;
        if (sigaction(watched[i].number, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(watched[i].number, &action, NULL);
    }
}

void stop_after_minutes(double minutes)
{
    limit_s = 60 * minutes;
}

// A signal is the more urgent cause, so it is named even where the time limit has passed as well.
int stop_cause(void)
{
    const int number = atomic_load(&first_signal);
    if (number != 0)
        return number;
    return limit_s > 0 && log_seconds() - started_s >= limit_s ? STOP_MINUTES : 0;
}

bool stop_requested(void)
{
    return stop_cause() != 0;
}

Status stop_check(void)
{
    const int cause = stop_cause();
    return cause == 0 ? OK : fail(STOPPED, "%s", stop_cause_name(cause));
}

const char *stop_cause_name(int cause)
{
    for (int i = 0; i < N_WATCHED; i++)
        if (watched[i].number == cause)
            return watched[i].name;
    return cause == STOP_MINUTES ? "run.max_minutes" : "nothing";
}
