// Ranks that share memory: those of a host, or of a part of it, with one copy of what all of them
// read. Such ranks are a group; all groups have as many.
//
//     CommGroup group;
//     TRY(comm_group_start(&group, &comm, 0));             // collective
//     CommWindow window;
//     if (comm_window_open(&window, &comm, &group, size_bytes)) {
//         ... each rank writes its part of window.bytes ...
//         comm_window_sync(&window, &group);               // what was written is there
//         ... each rank reads all of it ...
//         comm_window_close(&window);
//     }
//     comm_group_end(&group);
//
// A window is memory of MPI's (MPI_Win_allocate_shared): its name is gone before anything is in it,
// so that the memory goes with the ranks, whatever ends them. Rank k of every group speaks for it
// to the ranks k of the other groups: what group members write goes to each group once.
//
// Collective over all ranks but where marked.
#ifndef MHA2MLA_TRAIN_PARALLEL_COMM_SHARED_H
#define MHA2MLA_TRAIN_PARALLEL_COMM_SHARED_H

#include "train/parallel/comm.h"

#include <stdatomic.h>

typedef struct CommGroup {
    bool shares;    // else each rank is a group, and nothing below may be called but the end
    int rank, size; // in the group
    int n_groups, n_nearby;   // nearby: on this rank's host
    int *peers;               // owned [n_groups]: the ranks with this number in their groups
    struct CommGroupMpi *mpi; // owned
} CommGroup;

// Groups of at most `most` ranks of a host; 0: of all of them, 1: nobody shares. Where groups would
// differ in size nobody shares, which is said. FAILED: no memory.
Status comm_group_start(CommGroup *out, const Comm *comm, int most);

// Collective. Of {0} it does nothing.
void comm_group_end(CommGroup *group);

typedef struct CommWindow {
    void *bytes; // [size_bytes] of the group, zero, on 64 bytes; NULL: not open
    int64_t size_bytes;
    struct CommWindowMpi *mpi; // owned
} CommWindow;

// False on all ranks if a host has no room for it (/dev/shm): from then on the group does not
// share, which a warning says.
bool comm_window_open(CommWindow *out, const Comm *comm, CommGroup *group, int64_t size_bytes);

// Waits for the group's ranks; what they wrote before is there after it. Collective in the group.
void comm_window_sync(const CommWindow *window, const CommGroup *group);

// Collective in the group. Of {0} it does nothing.
void comm_window_close(CommWindow *window);

// How often something was done by any rank of a group. Lies in a window; not collective.
typedef struct CommCounter {
    _Alignas(64) atomic_llong count;
} CommCounter;

void comm_counter_add(CommCounter *counter);

// Whether it has come to `count`: then what its ranks wrote before they added to it is there.
bool comm_counter_has(CommCounter *counter, int64_t count);

// Waits until it has; more ranks than cores are served, too.
void comm_counter_await(CommCounter *counter, int64_t count);

// comm_all_gather() of a bucket in a window: each rank's own share to the other groups. The group's
// own ranks have it when they know that its owner is done (counter or sync).
void comm_group_gather(const CommGroup *group, const Comm *comm, float *bucket, int64_t count);
void comm_group_gather_begin(CommTransfer *transfer, const CommGroup *group, const Comm *comm,
                             float *bucket, int64_t count);

// What rank `from` has written in a window, in those of the other groups.
void comm_group_broadcast(const CommGroup *group, const Comm *comm, void *bytes, int64_t size_bytes,
                          int from);

#endif
