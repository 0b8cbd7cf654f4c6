#include "train/parallel/batch_schedule.h"

#include "base/status.h"

BatchSchedule batch_schedule_make(int n_micro_batches, int n_groups, int n_ranks)
{
    CHECK(1 <= n_ranks && n_ranks <= n_groups && n_groups <= n_micro_batches,
          "%d ranks, %d groups of %d micro-batches", n_ranks, n_groups, n_micro_batches);
    return (BatchSchedule){n_micro_batches, n_groups, n_ranks, (n_groups + n_ranks - 1) / n_ranks};
}

int batch_schedule_senders(const BatchSchedule *schedule, int round)
{
    const int left = schedule->n_groups - round * schedule->n_ranks;
    return left < schedule->n_ranks ? left : schedule->n_ranks;
}

void batch_schedule_group(const BatchSchedule *schedule, int round, int rank, int *first,
                          int *count)
{
    *first = *count = 0;
    if (rank >= batch_schedule_senders(schedule, round))
        return;
    const int64_t group = (int64_t)round * schedule->n_ranks + rank;
    *first = (int)(group * schedule->n_micro_batches / schedule->n_groups);
    *count = (int)((group + 1) * schedule->n_micro_batches / schedule->n_groups) - *first;
}
