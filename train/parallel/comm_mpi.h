// MPI as the files comm*.c use it: its errors, and calls that wait for other ranks. For no other
// file.
#ifndef MHA2MLA_TRAIN_PARALLEL_COMM_MPI_H
#define MHA2MLA_TRAIN_PARALLEL_COMM_MPI_H

#include "train/parallel/comm.h"
#include "train/parallel/watchdog.h"

#include <mpi.h>
#include <stdatomic.h>

// Aborts the job if an MPI call failed: its peers may be gone, so there is nobody left to agree
// with. `what` is the operation in the error text.
void comm_check_code(int code, const char *what);

// Transfers that were begun and are not done. MPI is initialized for one calling thread at a time
// (MPI_THREAD_SERIALIZED), and while any is pending that is the thread which asks for them.
extern atomic_int comm_n_pending;

// Waits until a transfer that was begun is done.
void comm_transfer_wait(CommTransfer *transfer, const char *what);

// An all-gather among n ranks that are those of `members`, in this order; NULL: all ranks.
void comm_gather_begin_among(CommTransfer *transfer, const Comm *comm, const CommGather *gather,
                             const int *ranks, int n, MPI_Comm members);
void comm_gather_end_among(const Comm *comm, const CommGather *gather, const int *ranks, int n);

// An MPI call that may wait for other ranks: the watchdog is told so, because MPI waits by
// spinning, which looks like work.
#define BLOCKING(call, what)                                                                       \
    do {                                                                                           \
        CHECK(atomic_load(&comm_n_pending) == 0, "%s: transfers are pending", what);               \
        watchdog_wait_begin();                                                                     \
        const int code_ = (call);                                                                  \
        watchdog_wait_end();                                                                       \
        comm_check_code(code_, what);                                                              \
    } while (0)

#endif
