#include "train/cost.h"

#include "model/params.h"
#include "train/partition.h"
#include "train/turns.h"

// Micro-batches one after another: in each round the largest group counts.
static int64_t serial_micro_batches(const Turns *turns)
{
    int64_t n = 0;
    for (int round = 0; round < turns->n_rounds; round++) {
        int most = 0;
        for (int rank = 0; rank < turns_senders(turns, round); rank++) {
            int first, count;
            turns_group(turns, round, rank, &first, &count);
            most = count > most ? count : most;
        }
        n += most;
    }
    return n;
}

static double memory_bytes(const Partition *partition, const Turns *turns, int64_t n_params)
{
    enum { CLEAR = 1, ADD = 2, SQUARE = 1, ADAMW = 7 }; // floats read and written for each
    const double own = (double)partition->own_count, whole = (double)n_params;
    double floats = own * (SQUARE + ADAMW);
    for (int round = 0; round < turns->n_rounds; round++)
        floats += whole * CLEAR + own * (ADD + turns_senders(turns, round));
    return floats * sizeof(float);
}

static double messages_seconds(const Partition *partition, const Turns *turns, int64_t n_params,
                               const Rates *rates)
{
    const double N = turns->n_ranks, collectives = turns->n_rounds + 1.0;
    const double bytes = (N - 1) / N * (double)n_params * sizeof(float);
    return collectives *
           (bytes / rates->network_bytes + partition->n_buckets * (N - 1) * rates->latency_s);
}

static double validation_passes(const Config *config)
{
    const int steps = config->train.steps, every = config->data.validation.every;
    const int later = every > 0 ? steps / every + (steps % every != 0) : steps > 0;
    return config->data.validation.given ? 1.0 + later : 0;
}

// A forward alone is a third of forward and backward. Sequences are shared among the ranks.
static double forward_seconds(const ModelShape *shape, const Plan *plan, int T, double sequences,
                              double flops_per_s)
{
    return shape_train_flops(shape, T) / 3 * sequences / plan->n_ranks / flops_per_s;
}

Status cost_make(Cost *out, const Plan *plan, const Config *config, const Rates *rates,
                 double efficiency)
{
    const TrainConfig *train = &config->train;
    const ConvertConfig *convert = &config->model.convert;
    const int T = config->data.seq_len;
    const double flops_per_s = rates->sgemm_flops * efficiency;
    const double sequence_flops = shape_train_flops(&plan->shape, T);
    const double valid_sequences =
        config->data.validation.given ? config->data.validation.sequences : 0;
    Partition partition;
    TRY(partition_create(&partition, &plan->shape, plan->n_ranks, 0)); // the largest share
    const Turns turns =
        turns_make(train->global_batch / train->micro_batch, train->sum_groups, plan->n_ranks);
    const int64_t n_params = params_count(&plan->shape);
    Cost cost = {.step_flops = sequence_flops * train->global_batch};
    cost.products_s =
        (double)serial_micro_batches(&turns) * train->micro_batch * sequence_flops / flops_per_s;
    cost.memory_s = memory_bytes(&partition, &turns, n_params) / rates->memory_bytes;
    if (plan->n_ranks > 1)
        cost.messages_s = messages_seconds(&partition, &turns, n_params, rates);
    partition_release(&partition);
    cost.step_s = cost.products_s + cost.memory_s + cost.messages_s;
    cost.steps_s = cost.step_s * train->steps;
    cost.validation_s = forward_seconds(&plan->shape, plan, T,
                                        validation_passes(config) * valid_sequences, flops_per_s);
    if (convert->given)
        cost.original_s = forward_seconds(
            &plan->original, plan, T,
            valid_sequences + (plan_calibrates(config) ? convert->samples : 0), flops_per_s);
    cost.run_s = cost.steps_s + cost.validation_s + cost.original_s;
    *out = cost;
    return OK;
}
