// Who computes which micro-batches of a step, and when: micro-batches are cut into groups, a rank
// computes one group per round, and each round ends in a reduce-scatter.
//
//     BatchSchedule schedule =
//         batch_schedule_make(global_batch / micro_batch, sum_groups, n_ranks);
//     for (int round = 0; round < schedule.n_rounds; round++) {
//         MicroBatches group = batch_schedule_group(&schedule, round, comm.rank);
//         ... add up the gradients of these, from 0 ...
//         exchange_reduce(...);    // of the first batch_schedule_senders(&schedule, round) ranks
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

// Micro-batches first, first + 1, ... of a step.
typedef struct MicroBatches {
    int first, count;
} MicroBatches;

// A rank's group in this round; {0, 0} if no group is left for it in the last round.
MicroBatches batch_schedule_group(const BatchSchedule *schedule, int round, int rank);

// Ranks 0..n-1 have a group in this round.
int batch_schedule_senders(const BatchSchedule *schedule, int round);

#endif
