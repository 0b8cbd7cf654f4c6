// All that the ranks add up once per step, in one vector of doubles, so that it takes one
// all-reduce: squares for the norm, losses, waits for data, phases, and how many ranks want to end.
// Each place is written by one rank and 0 on all others, except the phases and the count at the
// end, so the sum does not round and its bits do not depend on the order in which MPI adds.
#include "train/step_sums.h"

#include <math.h>
#include <string.h>

void step_sums_place(StepSums *out, Arena *arena, const Partition *partition,
                     const BatchSchedule *schedule)
{
    const int64_t n_squares = partition_n_blocks(partition);
    const int n_losses = schedule->n_micro_batches, n_ranks = schedule->n_ranks;
    *out = (StepSums){.count = n_squares + 3 * n_losses + n_ranks + N_PHASES + 1,
                      .n_squares = n_squares,
                      .n_losses = n_losses};
    out->values = arena_place(arena, out->count, sizeof *out->values);
    if (out->values == NULL) // measuring
        return;
    // [n_squares | 3 n_losses | n_ranks | N_PHASES | 1]
    out->squares = out->values;
    out->losses = out->squares + n_squares;
    out->kls = out->losses + n_losses;
    out->matches = out->kls + n_losses;
    out->data_waits_s = out->matches + n_losses;
    out->phases_s = out->data_waits_s + n_ranks;
    out->n_leaving = out->phases_s + N_PHASES;
}

void step_sums_clear(StepSums *sums)
{
    memset(sums->values, 0, (size_t)sums->count * sizeof *sums->values);
}

void step_sums_reduce(StepSums *sums, const Comm *comm)
{
    comm_sum_doubles(comm, sums->values, sums->count);
}

// From the first to the last: a fixed order, so that the sum has the same bits on every rank.
static double sum_up(const double *values, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += values[i];
    return sum;
}

double step_sums_norm(const StepSums *sums)
{
    return sqrt(sum_up(sums->squares, sums->n_squares));
}

StepLosses step_sums_losses(const StepSums *sums, const LossConfig *weights, int64_t n_tokens,
                            int64_t n_sequences)
{
    StepLosses losses = {
        .ce = sum_up(sums->losses, sums->n_losses) / (double)n_tokens,
        .kl = sum_up(sums->kls, sums->n_losses) / (double)n_tokens,
        .attention_mse = sum_up(sums->matches, sums->n_losses) / (double)n_sequences,
    };
    losses.total = weights->ce * losses.ce + weights->kl * losses.kl +
                   weights->attention_mse * losses.attention_mse;
    return losses;
}
