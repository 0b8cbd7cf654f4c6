// Memory that the ranks of a host share, by MPI-3's shared windows (MPI_Win_allocate_shared).
// Within a window ranks read and write by plain loads and stores; MPI only makes the segment and,
// with MPI_Win_sync and a barrier, orders accesses. The window stays in one passive epoch
// (MPI_Win_lock_all) from its making to its end, which is what the standard asks for around loads
// and stores by other ranks.
#define _GNU_SOURCE // for madvise
#include "train/parallel/comm_shared.h"

#include "base/log.h"
#include "train/parallel/comm_mpi.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ALIGN_BYTES = 64, DIRECTORY_BYTES = 1024 };

// How often a waiting rank looks at a counter before it lets other processes have its core.
enum { SPINS = 2000 };

struct CommGroupMpi {
    MPI_Comm members; // ranks of the group
    MPI_Comm across;  // ranks with this number in their groups
};

struct CommWindowMpi {
    MPI_Win win;
};

// ---- windows -----------------------------------------------------------------------------------

// Where Open MPI keeps the files of shared windows, as its control variable says; other MPIs use
// /dev/shm.
static void find_directory(char out[DIRECTORY_BYTES])
{
    // MPI's tool interface (MPI_T) has initialization of its own and works beside MPI's.
    int provided, index, length;
    MPI_T_cvar_handle handle;
    snprintf(out, DIRECTORY_BYTES, "/dev/shm");
    if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS)
        return;
    if (MPI_T_cvar_get_index("osc_sm_backing_directory", &index) == MPI_SUCCESS &&
        MPI_T_cvar_handle_alloc(index, NULL, &handle, &length) == MPI_SUCCESS) {
        if (length < DIRECTORY_BYTES)
            MPI_T_cvar_read(handle, out);
        MPI_T_cvar_handle_free(&handle);
    }
    out[DIRECTORY_BYTES - 1] = '\0';
    MPI_T_finalize();
}

// Without this check too little space shows as SIGBUS where the memory is first written, or as
// ranks that wait for ever for the one that makes the window.
static Status check_space(const CommGroup *group, int64_t size_bytes)
{
    enum { SPARE_BYTES = 8 << 20 }; // per rank: MPI's own message buffers (4 MiB) grow there, too
    char directory[DIRECTORY_BYTES];
    struct statvfs space;
    find_directory(directory);
    if (statvfs(directory, &space) != 0)
        return fail(FAILED, "%s: %s", directory, strerror(errno));
    const double free_bytes = (double)space.f_bavail * (double)space.f_frsize;
    const double needed_bytes =
        ((double)size_bytes + (double)SPARE_BYTES * group->size) * group->n_on_host;
    const bool is_unlimited = space.f_blocks == 0; // as a tmpfs mounted without a size reports
    if (is_unlimited || free_bytes >= needed_bytes)
        return OK;
    return fail(
        FAILED,
        "%s has %.1f MiB free, shared parameters and messages need %.1f MiB; make it larger",
        directory, free_bytes / (1 << 20), needed_bytes / (1 << 20));
}

// Touches this rank's part of the memory now, so that it cannot run out later and is placed in the
// NUMA domains of all ranks. MADV_POPULATE_WRITE (Linux 5.14) reports a lack of memory as an error.
static Status populate(const CommWindow *window, const CommGroup *group)
{
    int64_t first, count;
    comm_range((window->size_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES, group->rank, group->size,
               &first, &count);
    char *begin = (char *)window->bytes + first * ALIGN_BYTES;
    const size_t size = (size_t)count * ALIGN_BYTES;
#ifdef MADV_POPULATE_WRITE
    // madvise() wants the beginning of a page. EINVAL: the kernel is older than the header; then
    // the memset() below touches the pages, without a check.
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), in_page = (uintptr_t)begin % page;
    if (size > 0 && madvise(begin - in_page, size + in_page, MADV_POPULATE_WRITE) != 0 &&
        errno != EINVAL)
        return fail(FAILED, "shared memory of %.1f MiB cannot be had: %s",
                    (double)window->size_bytes / (1 << 20), strerror(errno));
#endif
    memset(begin, 0, size);
    return OK;
}

static void allocate(CommWindow *window, const CommGroup *group)
{
    MPI_Win *win = &window->mpi->win;
    MPI_Aint size;
    char *base;
    int unit;
    // One segment, that of the group's first rank: the others map it. Spare bytes are for
    // alignment.
    const int64_t bytes = group->rank == 0 ? window->size_bytes + 2 * ALIGN_BYTES : 0;
    // No failure to agree on: check_space() has found enough memory, so an error here aborts the
    // job.
    BLOCKING(MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, group->mpi->members, &base, win),
             "allocating shared memory (train.ranks_per_copy=1 does without)");
    comm_check_code(MPI_Win_set_errhandler(*win, MPI_ERRORS_RETURN), "MPI_Win_set_errhandler");
    comm_check_code(MPI_Win_shared_query(*win, 0, &size, &unit, &base), "MPI_Win_shared_query");
    BLOCKING(MPI_Win_lock_all(MPI_MODE_NOCHECK, *win), "MPI_Win_lock_all");
    // A page is mapped at an address of its own in each rank, so the remainder is the same in all.
    window->bytes = base + (ALIGN_BYTES - (uintptr_t)base % ALIGN_BYTES) % ALIGN_BYTES;
}

// Both phases that can fail on one rank alone, the space and the first write, end in an agreement,
// so all ranks of the job return the same answer. Where they return false the window is closed
// again: its file must not outlive the attempt.
bool comm_window_open(CommWindow *out, const Comm *comm, CommGroup *group, int64_t size_bytes)
{
    CommWindow window = {.size_bytes = size_bytes, .mpi = calloc(1, sizeof *window.mpi)};
    *out = (CommWindow){0};
    Status status = window.mpi != NULL ? OK : fail(FAILED, "no memory for a window");
    if (status == OK && group->rank == 0)
        status = check_space(group, size_bytes);
    TRY_GOTO(give_up, comm_agree_of(comm, group->rank == 0, status));
    allocate(&window, group);
    status = comm_agree(comm, populate(&window, group));
    if (status == OK) {
        *out = window;
        return true;
    }
    comm_window_close(&window);
give_up:
    log_warn("every rank keeps its own parameters: %s", fail_text());
    free(window.mpi);
    group->shares = false;
    return false;
}

// The standard's pattern for shared windows: MPI_Win_sync completes this rank's stores, the barrier
// orders the ranks, the second MPI_Win_sync makes the others' stores visible to its loads.
void comm_window_sync(const CommWindow *window, const CommGroup *group)
{
    comm_check_code(MPI_Win_sync(window->mpi->win), "MPI_Win_sync");
    BLOCKING(MPI_Barrier(group->mpi->members), "barrier");
    comm_check_code(MPI_Win_sync(window->mpi->win), "MPI_Win_sync");
}

void comm_window_close(CommWindow *window)
{
    if (window->mpi != NULL) {
        comm_check_code(MPI_Win_unlock_all(window->mpi->win), "MPI_Win_unlock_all");
        BLOCKING(MPI_Win_free(&window->mpi->win), "MPI_Win_free");
    }
    free(window->mpi);
    *window = (CommWindow){0};
}

// Opens and closes a small window: MPI's code for windows is paged in before anybody measures what
// the program takes.
static void warm_up_windows(const Comm *comm, const CommGroup *group)
{
    CommWindow window = {.size_bytes = ALIGN_BYTES, .mpi = calloc(1, sizeof *window.mpi)};
    const bool has_space = group->rank != 0 || check_space(group, ALIGN_BYTES) == OK;
    if (comm_all(comm, window.mpi != NULL && has_space)) {
        allocate(&window, group);
        comm_window_close(&window);
    }
    free(window.mpi);
}

// ---- groups ------------------------------------------------------------------------------------

// Splits all ranks by host, and the ranks of a host into groups.
static void split(MPI_Comm *members, int *n_on_host, const Comm *comm, int max_ranks)
{
    // MPI_COMM_TYPE_SHARED: ranks that can map the same memory. The key keeps the order of the
    // ranks.
    MPI_Comm host;
    int rank, size;
    BLOCKING(
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &host),
        "splitting by host");
    comm_check_code(MPI_Comm_rank(host, &rank), "MPI_Comm_rank");
    comm_check_code(MPI_Comm_size(host, &size), "MPI_Comm_size");
    const int part = max_ranks == 0 ? size : max_ranks;
    *n_on_host = (size + part - 1) / part;
    BLOCKING(MPI_Comm_split(host, rank / part, rank, members), "splitting of a host");
    comm_check_code(MPI_Comm_free(&host), "MPI_Comm_free");
}

// Whether all groups have the same number of ranks, more than one.
static bool is_even(const CommGroup *group)
{
    // One minimum finds both ends: the minimum of the negated sizes is the negated maximum.
    int sizes[2] = {group->size, -group->size}; // the smallest, the largest
    BLOCKING(MPI_Allreduce(MPI_IN_PLACE, sizes, 2, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "agreement");
    const int smallest = sizes[0], largest = -sizes[1];
    if (smallest != largest)
        log_info("every rank keeps its own parameters: %d to %d ranks of a host would share them; "
                 "start as many on each, or set train.ranks_per_copy to a divisor of them",
                 smallest, largest);
    return smallest == largest && smallest > 1;
}

Status comm_group_start(CommGroup *out, const Comm *comm, int max_ranks)
{
    CommGroup group = {.size = 1, .n_groups = comm->size, .n_on_host = 1};
    *out = group;
    if (comm->size == 1 || max_ranks == 1)
        return OK;
    group.peers = calloc((size_t)comm->size, sizeof *group.peers);
    group.mpi = calloc(1, sizeof *group.mpi);
    Status status = group.peers != NULL && group.mpi != NULL
                        ? OK
                        : fail(FAILED, "no memory for groups of %d ranks", comm->size);
    TRY_GOTO(release, comm_agree(comm, status));
    split(&group.mpi->members, &group.n_on_host, comm, max_ranks);
    comm_check_code(MPI_Comm_rank(group.mpi->members, &group.rank), "MPI_Comm_rank");
    comm_check_code(MPI_Comm_size(group.mpi->members, &group.size), "MPI_Comm_size");
    group.shares = is_even(&group);
    if (!group.shares) {
        comm_check_code(MPI_Comm_free(&group.mpi->members), "MPI_Comm_free");
        goto release;
    }
    // Rank k of every group meets rank k of all others: each of these communicators has one rank of
    // every group, so together they cover every share once.
    BLOCKING(MPI_Comm_split(MPI_COMM_WORLD, group.rank, comm->rank, &group.mpi->across),
             "splitting across hosts");
    group.n_groups = comm->size / group.size;
    BLOCKING(MPI_Allgather(&comm->rank, 1, MPI_INT, group.peers, 1, MPI_INT, group.mpi->across),
             "gathering of ranks");
    warm_up_windows(comm, &group);
    *out = group;
    return OK;
release:
    free(group.mpi);
    free(group.peers);
    return status;
}

void comm_group_end(CommGroup *group)
{
    if (group->mpi != NULL) {
        BLOCKING(MPI_Comm_free(&group->mpi->across), "MPI_Comm_free");
        BLOCKING(MPI_Comm_free(&group->mpi->members), "MPI_Comm_free");
    }
    free(group->mpi);
    free(group->peers);
    *group = (CommGroup){0};
}

// ---- counters ----------------------------------------------------------------------------------

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "counters are of several processes");

// Release and acquire: a rank that sees the count also sees the stores made before it was raised.
// That this holds between processes rests on C11 7.17.5, by which lock-free atomics should be
// address-free.
void comm_counter_add(CommCounter *counter)
{
    atomic_fetch_add_explicit(&counter->count, 1, memory_order_release);
}

bool comm_counter_has(CommCounter *counter, int64_t count)
{
    return atomic_load_explicit(&counter->count, memory_order_acquire) >= count;
}

void comm_counter_await(CommCounter *counter, int64_t count)
{
    // Counters are mostly there already or about to be; the watchdog need not hear of such waits.
    for (int i = 0; i < SPINS; i++)
        if (comm_counter_has(counter, count))
            return;
    watchdog_wait_begin();
    while (!comm_counter_has(counter, count))
        sched_yield();
    watchdog_wait_end();
}

// ---- between groups ----------------------------------------------------------------------------

// Among the ranks of this number in the other groups. Their shares do not fill the bucket: the
// other shares come to the ranks beside this one, in the same window, so each is written by one
// rank.
void comm_group_gather_begin(CommTransfer *transfer, const CommGroup *group, const Comm *comm,
                             const CommGather *gather)
{
    comm_gather_begin_among(transfer, comm, gather, group->peers, group->n_groups,
                            group->mpi->across);
}

void comm_group_gather_end(const CommGroup *group, const Comm *comm, const CommGather *gather)
{
    comm_gather_end_among(comm, gather, group->peers, group->n_groups);
}

void comm_group_gather(const CommGroup *group, const Comm *comm, const CommGather *gather)
{
    if (group->n_groups == 1)
        return;
    comm_group_gather_begin(comm->blocking, group, comm, gather);
    comm_transfer_wait(comm->blocking, "all-gather");
    comm_group_gather_end(group, comm, gather);
}

// Only the ranks of the sender's number take part; the others find it in their window after the
// next comm_window_sync().
void comm_group_broadcast(const CommGroup *group, const Comm *comm, void *bytes, int64_t size_bytes,
                          int from)
{
    int root = 0;
    while (root < group->n_groups && group->peers[root] != from)
        root++;
    if (group->n_groups == 1 || root == group->n_groups)
        return;
    const int64_t piece = comm->message_bytes;
    for (int64_t first = 0; first < size_bytes; first += piece) {
        const int n = (int)(size_bytes - first < piece ? size_bytes - first : piece);
        BLOCKING(MPI_Bcast((char *)bytes + first, n, MPI_BYTE, root, group->mpi->across),
                 "broadcast");
    }
}
