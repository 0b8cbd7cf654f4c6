// Each rank is assumed to have the rates to itself. That underestimates the time where several
// ranks share a host's memory bandwidth or its network card, so rates should be measured on as many
// ranks per host as the run will have.
#include "train/plan/cost.h"

#include "train/distill/distill.h"
#include "train/parallel/batch_schedule.h"
#include "train/parallel/partition.h"
#include "train/plan/conversion_plan.h"

#include <math.h>

// The micro-batches that a step takes one after another: all ranks wait for the largest group of a
// round.
static int64_t serial_micro_batches(const BatchSchedule *schedule)
{
    int64_t n = 0;
    for (int round = 0; round < schedule->n_rounds; round++) {
        int max_count = 0;
        for (int rank = 0; rank < batch_schedule_senders(schedule, round); rank++) {
            const int count = batch_schedule_group(schedule, round, rank).count;
            max_count = count > max_count ? count : max_count;
        }
        n += max_count;
    }
    return n;
}

// Bytes that a rank's own share moves through memory in a step, besides the matrix products.
static double memory_bytes(const Partition *partition, const BatchSchedule *schedule)
{
    // Floats read and written per parameter. A sum is read and written once a round, besides the
    // shares that are added to it. AdamW reads parameter, gradient and two moments, and writes all
    // but the gradient.
    enum { ADD = 2, SQUARE = 1, ADAMW = 7 };
    const double own = (double)partition->own_count;
    double floats = own * (SQUARE + ADAMW);
    for (int round = 0; round < schedule->n_rounds; round++)
        floats += own * (ADD + batch_schedule_senders(schedule, round));
    return floats * sizeof(float);
}

// Bytes that norms, residual sums, RoPE and SwiGLU move for a token, forward and backward, with
// products in bfloat16. In float32 they are a twentieth of the products and a part of `efficiency`;
// beside products that are many times as fast they are not.
static double activation_bytes(const ModelShape *s)
{
    const double D = s->d_model, F = s->d_ffn, query = shape_dim(s, DIM_QUERY),
                 KV = shape_dim(s, DIM_KV);
    // Each of a layer's two blocks reads the residual stream twice and writes it once, forward, and
    // so do its gradient and the norm's backward.
    const double residual = 2 * 6 * D * sizeof(float);
    // Normed inputs: written, made again in backward, their gradient read. Queries, keys and values
    // are read and written by RoPE, each way. SwiGLU reads 2 F and writes F; backward reads 3 F and
    // writes the gradients, 2 F, and its output again.
    const double halves = 2 * 3 * D + 4 * (query + 2 * KV) + 9 * F;
    return s->n_layers * (residual + halves * sizeof(uint16_t));
}

// A collective over some of the buckets among n_peers ranks, each of which has a share of
// 1 / n_ranks: transfer time plus latency.
static double transfer_seconds(double n_params, int n_buckets, double param_bytes, int n_peers,
                               const BatchSchedule *schedule, const Rates *rates)
{
    const double others = n_peers - 1;
    return others / schedule->n_ranks * n_params * param_bytes / rates->network_bytes +
           n_buckets * others * rates->latency_s;
}

// The messages of a step and the part of them that is exposed. The embedding is apart from the
// layers: its gradient is the last to be complete and its parameters are the first to be needed, so
// its bucket has nothing to overlap with.
static void add_messages(Cost *cost, const Partition *partition, const BatchSchedule *schedule,
                         const TrainConfig *train, int n_copies, const Rates *rates,
                         double micro_batch_s)
{
    const double forward_s = micro_batch_s / 3, backward_s = micro_batch_s - forward_s;
    const double sent_bytes = train->reduce_dtype == REDUCE_BFLOAT16 ? 2 : 4;
    // Vectors stay float32, but they are a thousandth of a model.
    const double gathered_bytes = train->compute == COMPUTE_BFLOAT16 ? 2 : 4;
    double params[2] = {0}; // embedding, all that follows it
    int buckets[2] = {0};
    for (int i = 0; i < partition->n_buckets; i++) {
        const int follows = partition->buckets[i].layer >= 0;
        params[follows] += (double)partition->buckets[i].count;
        buckets[follows]++;
    }
    double reduce_s[2], gather_s[2];
    for (int i = 0; i < 2; i++) {
        reduce_s[i] =
            transfer_seconds(params[i], buckets[i], sent_bytes, schedule->n_ranks, schedule, rates);
        gather_s[i] =
            transfer_seconds(params[i], buckets[i], gathered_bytes, n_copies, schedule, rates);
    }
    const double rounds = schedule->n_rounds;
    cost->messages_s = rounds * (reduce_s[0] + reduce_s[1]) + gather_s[0] + gather_s[1];
    // What a round leaves in transit when its backward passes end.
    const double left_s = reduce_s[0] + fmax(0, reduce_s[1] - backward_s);
    cost->exposed_s = (rounds - 1) * fmax(0, left_s - forward_s) + left_s + gather_s[0] +
                      fmax(0, gather_s[1] - forward_s);
    if (!train->overlap)
        cost->exposed_s = cost->messages_s;
}

// One before the first step, one at each multiple of `every`, one at the end if that is none.
static double validation_passes(const Config *config)
{
    const int steps = config->train.steps, every = config->data.validation.every;
    const int later = every > 0 ? steps / every + (steps % every != 0) : steps > 0;
    return config->data.validation.given ? 1.0 + later : 0;
}

// A forward pass is a third of the FLOP of forward and backward. The ranks share the sequences.
static double forward_seconds(const ModelShape *shape, const Plan *plan, int T, double sequences,
                              double flops_per_s)
{
    return shape_train_flops(shape, T) / 3 * sequences / plan->n_ranks / flops_per_s;
}

// Conversion computes in float32 and float64 whatever the training does. Where the rate of float32
// is not known, bfloat16's is taken to be 8 times as high: 2 times with AVX-512's instructions, 16
// times with AMX.
static double float32_flops(const Rates *rates, ComputeType compute)
{
    enum { BFLOAT16 = 8 };
    if (compute == COMPUTE_FLOAT32)
        return rates->product_flops;
    return rates->attention_flops > 0 ? rates->attention_flops : rates->product_flops / BFLOAT16;
}

Status cost_make(Cost *out, const Plan *plan, const Config *config, const Rates *rates,
                 double efficiency)
{
    const TrainConfig *train = &config->train;
    const ConvertConfig *convert = &config->model.convert;
    const int T = config->data.seq_len;
    const double flops_per_s = rates->product_flops * efficiency;
    const double sequence_flops = plan_sequence_flops(plan, config);
    const Trainable trained = config_trained(config);
    const double valid_sequences =
        config->data.validation.given ? config->data.validation.sequences : 0;
    Partition partition;
    // Rank 0 has the largest share.
    TRY(partition_create_trained(&partition, &plan->shape, &trained, plan->n_ranks, 0));
    const BatchSchedule schedule = batch_schedule_make(train->global_batch / train->micro_batch,
                                                       train->sum_groups, plan->n_ranks);
    Cost cost = {.step_flops = sequence_flops * train->global_batch};
    cost.products_s =
        (double)serial_micro_batches(&schedule) * train->micro_batch * sequence_flops / flops_per_s;
    double moved_bytes = memory_bytes(&partition, &schedule);
    if (train->compute == COMPUTE_BFLOAT16)
        moved_bytes += activation_bytes(&plan->shape) * T * train->micro_batch *
                       (double)serial_micro_batches(&schedule);
    cost.memory_s = moved_bytes / rates->memory_bytes;
    if (plan->n_ranks > 1)
        add_messages(&cost, &partition, &schedule, train, plan->n_ranks / plan->n_sharers, rates,
                     train->micro_batch * sequence_flops / flops_per_s);
    partition_release(&partition);
    cost.step_s = cost.products_s + cost.memory_s + cost.exposed_s;
    cost.steps_s = cost.step_s * train->steps;
    cost.validation_s = forward_seconds(&plan->shape, plan, T,
                                        validation_passes(config) * valid_sequences, flops_per_s);
    if (convert->given) {
        const ConversionWork work = conversion_plan_work(plan, config);
        const double own_flops_per_s = float32_flops(rates, train->compute) * efficiency;
        cost.statistics_s = work.statistics / own_flops_per_s;
        cost.convert_s = work.layers / own_flops_per_s;
        cost.original_s = forward_seconds(
            &plan->original, plan, T,
            valid_sequences + (config_calibrates(config) ? convert->samples : 0), flops_per_s);
    }
    if (config_distills(config))
        cost.distill_s = distill_flops(&plan->shape, &config->distill, config_distill_len(config),
                                       plan->n_ranks) /
                         flops_per_s;
    cost.run_s = cost.steps_s + cost.validation_s + cost.original_s + cost.statistics_s +
                 cost.convert_s + cost.distill_s;
    *out = cost;
    return OK;
}

// Solves cost_make()'s step_s = products_s / efficiency + memory_s for the efficiency, without
// messages.
Status cost_efficiency(double *out, const Plan *plan, const Config *config, const Rates *rates,
                       double compute_s)
{
    Cost cost;
    TRY(cost_make(&cost, plan, config, rates, 1));
    if (compute_s <= cost.memory_s)
        return fail(BAD_INPUT,
                    "--step-seconds is %g, but sums and AdamW alone take %.3g s at %.3g "
                    "GB/s; give --memory-bandwidth, or the seconds of %d ranks",
                    compute_s, cost.memory_s, rates->memory_bytes / 1e9, plan->n_ranks);
    *out = cost.products_s / (compute_s - cost.memory_s);
    return OK;
}
