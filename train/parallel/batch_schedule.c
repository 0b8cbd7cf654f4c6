// Every rank computes the whole schedule from three numbers, without messages. Group g belongs to
// round g / n_ranks and to rank g mod n_ranks, so in a round the senders are always ranks 0..n-1
// and the groups are added in ascending order: that is the left-deep sum of the header, for any
// number of ranks.
#include "train/parallel/batch_schedule.h"

#include "base/intmath.h"
#include "base/status.h"

BatchSchedule batch_schedule_make(int n_micro_batches, int n_groups, int n_ranks)
{
    CHECK(1 <= n_ranks && n_ranks <= n_groups && n_groups <= n_micro_batches,
          "%d ranks, %d groups of %d micro-batches", n_ranks, n_groups, n_micro_batches);
    return (BatchSchedule){n_micro_batches, n_groups, n_ranks, ceil_div(n_groups, n_ranks)};
}

int batch_schedule_senders(const BatchSchedule *schedule, int round)
{
    const int left = schedule->n_groups - round * schedule->n_ranks;
    return left < schedule->n_ranks ? left : schedule->n_ranks;
}

// Group g of G takes micro-batches floor(g M / G) to floor((g + 1) M / G): sizes differ by one at
// most, and the cut does not depend on the number of ranks.
MicroBatches batch_schedule_group(const BatchSchedule *schedule, int round, int rank)
{
    if (rank >= batch_schedule_senders(schedule, round))
        return (MicroBatches){0, 0};
    // int64_t, as g M may exceed 2^31 although the quotient is an index.
    const int64_t group = (int64_t)round * schedule->n_ranks + rank;
    const int64_t M = schedule->n_micro_batches, G = schedule->n_groups;
    const int first = (int)(group * M / G), end = (int)((group + 1) * M / G);
    return (MicroBatches){first, end - first};
}
