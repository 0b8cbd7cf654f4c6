// Ranks of a host that share memory, so that there is one copy of what all of them read. Such ranks
// are a group; all groups have the same number of ranks.
//
//     CommGroup group;
//     TRY(comm_group_start(&group, &comm, 0));             // collective
//     CommWindow window;
//     if (comm_window_open(&window, &comm, &group, size_bytes)) {
//         ... each rank writes its part of window.bytes ...
//         comm_window_sync(&window, &group);               // makes all writes visible
//         ... each rank reads all of it ...
//         comm_window_close(&window);
//     }
//     comm_group_end(&group);
//
// A window is shared memory of MPI (MPI_Win_allocate_shared), whose file is unlinked before
// anything is in it: the kernel frees the memory with the last rank, whatever ends it. Between
// hosts rank k of a group exchanges with the ranks k of the other groups alone, so each share is
// sent to every group once.
//
// Collective over all ranks, except where a comment says otherwise.
#ifndef MHA2MLA_TRAIN_PARALLEL_COMM_SHARED_H
#define MHA2MLA_TRAIN_PARALLEL_COMM_SHARED_H

#include "train/parallel/comm.h"

#include <stdatomic.h>

typedef struct CommGroup {
    bool shares;    // else each rank is a group of its own and only comm_group_end() may be called
    int rank, size; // in the group
    int n_groups, n_on_host;  // groups: of the job, of this rank's host
    int *peers;               // owned [n_groups]: the ranks with this number in their groups
    struct CommGroupMpi *mpi; // owned
} CommGroup;

// Groups of at most `max_ranks` ranks of a host; 0: of all of them, 1: no rank shares. Where groups
// would differ in size no rank shares, and a log line tells why. FAILED: no memory.
Status comm_group_start(CommGroup *out, const Comm *comm, int max_ranks);

// Does nothing for {0}.
void comm_group_end(CommGroup *group);

typedef struct CommWindow {
    void *bytes; // [size_bytes] of the group, zero, 64-byte aligned; NULL: not open
    int64_t size_bytes;
    struct CommWindowMpi *mpi; // owned
} CommWindow;

// False on all ranks if a host has too little shared memory (/dev/shm) for it: from then on the
// group does not share; a warning names the cause.
bool comm_window_open(CommWindow *out, const Comm *comm, CommGroup *group, int64_t size_bytes);

// A barrier of the group: what its ranks wrote before is seen by all of them after it. Collective
// in the group.
void comm_window_sync(const CommWindow *window, const CommGroup *group);

// Does nothing for {0}. Collective in the group.
void comm_window_close(CommWindow *window);

// A counter in a window that every rank of the group adds to. Not collective.
typedef struct CommCounter {
    _Alignas(64) atomic_llong count;
} CommCounter;

void comm_counter_add(CommCounter *counter);

// Whether it has reached `count`: then what ranks wrote before they added to it is seen here.
bool comm_counter_has(CommCounter *counter, int64_t count);

// Waits until it has. Gives up the core meanwhile, since there may be more ranks than cores.
void comm_counter_await(CommCounter *counter, int64_t count);

// comm_all_gather() of a bucket in a window: each rank's share to the other groups. The ranks of
// its own group see it, exactly, when they know that its owner is done (counter or sync).
void comm_group_gather(const CommGroup *group, const Comm *comm, const CommGather *gather);
void comm_group_gather_begin(CommTransfer *transfer, const CommGroup *group, const Comm *comm,
                             const CommGather *gather);

// Writes what has arrived to the window, once the transfer is done. Not collective.
void comm_group_gather_end(const CommGroup *group, const Comm *comm, const CommGather *gather);

// Copies what rank `from` has written in its group's window to the windows of the other groups.
void comm_group_broadcast(const CommGroup *group, const Comm *comm, void *bytes, int64_t size_bytes,
                          int from);

#endif
