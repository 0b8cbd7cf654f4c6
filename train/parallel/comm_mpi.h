// What the files of train/comm*.c share: MPI, its errors and its waits. For nobody else.
#ifndef MHA2MLA_TRAIN_PARALLEL_COMM_MPI_H
#define MHA2MLA_TRAIN_PARALLEL_COMM_MPI_H

#include "train/parallel/comm.h"
#include "train/parallel/watchdog.h"

#include <mpi.h>
#include <stdatomic.h>

// A failed MPI call: peers may be gone, so there is nobody left to agree with.
void comm_must(int code, const char *what);

// Transfers that were begun and are not done: meanwhile MPI belongs to the thread that asks for
// them.
extern atomic_int comm_n_under_way;

// Waits for what was begun.
void comm_transfer_wait(CommTransfer *transfer, const char *what);

// A call in which the rank may wait for others, which the watchdog is told.
#define AWAIT(call, what)                                                                          \
    do {                                                                                           \
        CHECK(atomic_load(&comm_n_under_way) == 0, "%s: transfers are under way", what);           \
        watchdog_wait_begin();                                                                     \
        const int await_code_ = (call);                                                            \
        watchdog_wait_end();                                                                       \
        comm_must(await_code_, what);                                                              \
    } while (0)

#endif
