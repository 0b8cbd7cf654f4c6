#include "train/plan.h"

#include "eval/inference.h"
#include "model/convert.h"
#include "model/hf.h"
#include "train/loop.h"
#include "train/partition.h"

#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MOST_TOKENS = 1 << 24 }; // of a micro-batch: loops count them, and heads of them, in int

int64_t plan_resident_bytes(void)
{
    long long total_pages = 0, resident_pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%lld %lld", &total_pages, &resident_pages) != 2)
        resident_pages = 0;
    fclose(file);
    return resident_pages * sysconf(_SC_PAGESIZE);
}

int64_t plan_peak_resident_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss * 1024 : 0;
}

static Status find_shapes(Plan *plan, const Config *config)
{
    if (config->model.init.given)
        plan->original = config->model.init.shape;
    else
        TRY(hf_load_shape(&plan->original, config->model.base));
    plan->shape = plan->original;
    const ConvertConfig *convert = &config->model.convert;
    if (convert->given)
        TRY(shape_convert(&plan->shape, &plan->original, convert->rope_pairs, convert->d_kv,
                          convert->svd));
    return OK;
}

static Status check_batch(const Config *config, int n_ranks)
{
    const TrainConfig *train = &config->train;
    if ((int64_t)train->micro_batch * config->data.seq_len > MOST_TOKENS)
        return fail(BAD_INPUT,
                    "train.micro_batch %d of data.seq_len %d is more than %d tokens; use a smaller "
                    "micro_batch",
                    train->micro_batch, config->data.seq_len, MOST_TOKENS);
    int n_micro_batches = train->global_batch / train->micro_batch;
    if (n_micro_batches < n_ranks)
        return fail(BAD_INPUT,
                    "train.global_batch %d / micro_batch %d gives %d micro-batches for %d "
                    "ranks; use at most %d ranks or a smaller micro_batch",
                    train->global_batch, train->micro_batch, n_micro_batches, n_ranks,
                    n_micro_batches);
    if (train->sum_groups < n_ranks)
        return fail(BAD_INPUT,
                    "train.sum_groups is %d, fewer than %d ranks; make it a multiple of the "
                    "ranks, up to %d",
                    train->sum_groups, n_ranks, n_micro_batches);
    return OK;
}

// Does the original read data before its conversion?
static bool has_original_pass(const Config *config)
{
    const ConvertConfig *convert = &config->model.convert;
    return config->data.validation.given ||
           (convert->rope == ROPE_2NORM && convert->scores == NULL);
}

static int64_t model_bytes(const ModelShape *shape)
{
    Arena arena = arena_start("model");
    model_measure(&arena, shape);
    return arena.peak_bytes;
}

static Status measure_training(Plan *plan, const Config *config)
{
    Partition partition; // rank 0 has the largest shares
    TRY(partition_create(&partition, &plan->shape, plan->n_ranks, 0));
    TrainerMemory memory = {0};
    const TrainConfig *train = &config->train;
    Turns turns =
        turns_make(train->global_batch / train->micro_batch, train->sum_groups, plan->n_ranks);
    loop_place(&memory, &plan->shape, &partition, &turns, train->micro_batch, config->data.seq_len,
               plan->n_threads);
    partition_release(&partition);
    plan->parameters = model_bytes(&plan->shape);
    plan->gradients = memory.gradients.peak_bytes;
    plan->moments = memory.moments.peak_bytes;
    plan->activations = memory.activations.peak_bytes;
    plan->scratch = memory.scratch.peak_bytes;
    plan->communication = memory.communication.peak_bytes;
    return OK;
}

static Status measure_conversion(Plan *plan, const Config *config)
{
    Arena arena = arena_start("factorization");
    TRY(convert_measure(&arena, &plan->shape));
    plan->factorization = arena.peak_bytes;
    plan->original_model = model_bytes(&plan->original);
    if (has_original_pass(config))
        plan->original_pass = inference_bytes(&plan->original, config->data.seq_len);
    return OK;
}

Status plan_make(Plan *out, const Config *config, int n_ranks, int n_threads)
{
    Plan plan = {.n_ranks = n_ranks, .n_threads = n_threads, .process = plan_resident_bytes()};
    TRY(find_shapes(&plan, config));
    TRY(check_batch(config, n_ranks));
    TRY(measure_training(&plan, config));
    if (config->model.convert.given)
        TRY(measure_conversion(&plan, config));
    *out = plan;
    return OK;
}

// Bytes beside the process while converting; 0: nothing is converted.
static int64_t conversion_bytes(const Plan *plan)
{
    if (plan->original_model == 0)
        return 0;
    int64_t after_passes = plan->parameters + plan->factorization;
    return plan->original_model +
           (plan->original_pass > after_passes ? plan->original_pass : after_passes);
}

int64_t plan_peak_bytes(const Plan *plan)
{
    int64_t training = plan->parameters + plan->gradients + plan->moments + plan->activations +
                       plan->scratch + plan->communication;
    int64_t converting = conversion_bytes(plan);
    return plan->process + (training > converting ? training : converting);
}

static void print_model(FILE *out, const Plan *plan, const Config *config)
{
    const ModelShape *s = &plan->shape, *o = &plan->original;
    const ConvertConfig *convert = &config->model.convert;
    fprintf(out, "model        %d layers, %d wide, %d heads, %d KV heads of %d, vocabulary %d\n",
            s->n_layers, s->d_model, s->n_heads, s->n_kv_heads, s->head_dim, s->vocab_size);
    if (convert->given)
        fprintf(out, "conversion   MLA: d_kv %d per KV head, %d RoPE pairs of %d by %s, %s SVD\n",
                s->d_kv, s->rope_pairs, s->head_dim / 2, rope_strategy_name(convert->rope),
                shape_svd_name(s->svd));
    else
        fprintf(out, "conversion   none: the original attention is trained\n");
    fprintf(out, "parameters   %.2f M", (double)params_count(s) / 1e6);
    if (convert->given)
        fprintf(out, ", original %.2f M", (double)params_count(o) / 1e6);
    int64_t after = shape_cache_numbers(s), before = shape_cache_numbers(o);
    fprintf(out, "\nKV cache     %lld bytes per token at 16 bits, original %lld: %+.2f %%\n",
            (long long)after * 2, (long long)before * 2,
            100.0 * ((double)after / (double)before - 1.0));
}

static void print_work(FILE *out, const Plan *plan, const Config *config)
{
    const TrainConfig *train = &config->train;
    int64_t step_tokens = (int64_t)train->global_batch * config->data.seq_len;
    fprintf(out, "ranks        %d, %d threads each\n", plan->n_ranks, plan->n_threads);
    fprintf(out, "step         %d sequences of %d tokens = %lld tokens, micro-batches of %d\n",
            train->global_batch, config->data.seq_len, (long long)step_tokens, train->micro_batch);
    fprintf(out, "run          %d steps = %.4g M tokens, %.3g PFLOP\n", train->steps,
            (double)step_tokens * train->steps / 1e6,
            shape_train_flops(&plan->shape, config->data.seq_len) * train->global_batch *
                train->steps / 1e15);
}

void plan_print(FILE *out, const Plan *plan, const Config *config)
{
    print_model(out, plan, config);
    print_work(out, plan, config);
    const struct {
        const char *name;
        int64_t bytes;
    } rows[] = {
        {"parameters", plan->parameters},
        {"gradients", plan->gradients},
        {"AdamW moments", plan->moments},
        {"activations", plan->activations},
        {"scratch", plan->scratch},
        {"communication", plan->communication},
        {"program, libraries", plan->process},
        {"while converting", conversion_bytes(plan)},
        {"peak", plan_peak_bytes(plan)},
    };
    fprintf(out, "memory per rank, MiB\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        fprintf(out, "  %-20s %10.1f\n", rows[i].name, (double)rows[i].bytes / (1 << 20));
}
