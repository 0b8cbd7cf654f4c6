// Who computes which micro-batches of a step, and when: micro-batches are cut into groups, a rank
// computes one group per round, and each round ends in a reduce-scatter.
//
//     BatchSchedule turns = batch_schedule_make(config.train.global_batch /
//     config.train.micro_batch,
//                              config.train.sum_groups, comm.size);
//     for (int round = 0; round < schedule.n_rounds; round++) {
//         batch_schedule_group(&schedule, round, comm.rank, &first, &count);     // micro-batches
//         ... add up the gradients of these, from 0
//         exchange_reduce(...);    // of batch_schedule_senders(&schedule, round), the first ranks
//     }
//
// The gradient of a step is ((g_0 + g_1) + g_2) + ..., g_i the sum over group i, also in order: one
// fixed binary tree over the micro-batches. Groups do not depend on the number of ranks, so the
// bits of a run do not either, for any number of ranks up to that of the groups. A left-deep tree
// needs one vector beside the gradients, sharded over the ranks; a balanced one would need
// log2(groups / ranks) whole ones.
#ifndef MHA2MLA_TRAIN_PARALLEL_BATCH_SCHEDULE_H
#define MHA2MLA_TRAIN_PARALLEL_BATCH_SCHEDULE_H

#include <stdint.h>

typedef struct BatchSchedule {
    int n_micro_batches, n_groups, n_ranks, n_rounds;
} BatchSchedule;

// 1 <= n_ranks <= n_groups <= n_micro_batches.
BatchSchedule batch_schedule_make(int n_micro_batches, int n_groups, int n_ranks);

// The micro-batches [first, first + count) of a rank's group in this round; count == 0 for a rank
// that has no group left in the last round.
void batch_schedule_group(const BatchSchedule *schedule, int round, int rank, int *first,
                          int *count);

// Ranks 0..n-1 have a group in this round.
int batch_schedule_senders(const BatchSchedule *schedule, int round);

#endif
