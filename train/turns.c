#include "train/turns.h"

#include "base/status.h"

Turns turns_make(int n_micro_batches, int n_groups, int n_ranks)
{
    CHECK(1 <= n_ranks && n_ranks <= n_groups && n_groups <= n_micro_batches,
          "%d ranks, %d groups of %d micro-batches", n_ranks, n_groups, n_micro_batches);
    return (Turns){n_micro_batches, n_groups, n_ranks, (n_groups + n_ranks - 1) / n_ranks};
}

int turns_senders(const Turns *turns, int round)
{
    const int left = turns->n_groups - round * turns->n_ranks;
    return left < turns->n_ranks ? left : turns->n_ranks;
}

void turns_group(const Turns *turns, int round, int rank, int *first, int *count)
{
    *first = *count = 0;
    if (rank >= turns_senders(turns, round))
        return;
    const int64_t group = (int64_t)round * turns->n_ranks + rank;
    *first = (int)(group * turns->n_micro_batches / turns->n_groups);
    *count = (int)((group + 1) * turns->n_micro_batches / turns->n_groups) - *first;
}
