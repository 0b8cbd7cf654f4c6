#include "train/distill/distill_order.h"

#include "base/random.h"
#include "data/order.h"

// Slots below `end` that belong to the rank.
static int slots_below(int end, int rank, int n_ranks)
{
    return end > rank ? (end - rank + n_ranks - 1) / n_ranks : 0;
}

WindowShare window_share(int n_windows, int rank, int n_ranks)
{
    const int batch = n_windows < DISTILL_BATCH ? n_windows : DISTILL_BATCH;
    const int n_slots = slots_below(batch, rank, n_ranks);
    return (WindowShare){batch, rank, n_ranks, n_slots,
                         n_windows / batch * n_slots +
                             slots_below(n_windows % batch, rank, n_ranks)};
}

// Windows are in ascending order, `n_slots` of every batch of them.
int window_of(const WindowShare *share, int own)
{
    return own / share->n_slots * share->batch + share->rank +
           own % share->n_slots * share->n_ranks;
}

int window_place(const WindowShare *share, int window)
{
    return window / share->batch * share->n_slots +
           (window % share->batch - share->rank) / share->n_ranks;
}

int window_owner(const WindowShare *share, int window)
{
    return window % share->batch % share->n_ranks;
}

int distill_order(uint64_t key, int step, int slot, int batch, int n_windows)
{
    const int n = (n_windows - slot + batch - 1) / batch; // windows of the slot
    const int epoch = (step - 1) / n, i = (step - 1) % n;
    const uint64_t own = random_bits(key, (uint64_t)epoch * (uint64_t)batch + (uint64_t)slot);
    return slot + batch * (int)order_at(own, n, i);
}
