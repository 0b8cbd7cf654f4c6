// Nothing is estimated that can be measured: the sizes of the arenas come from the code that places
// them, run without memory behind it; the process and its libraries from the kernel, after they
// have been used once. Only what HDF5 and MPI allocate for themselves is a constant, with what was
// seen beside it.
#include "train/plan/plan.h"

#include "base/checksum.h"
#include "base/log.h"
#include "base/paths.h"
#include "infer/cache/kv_format.h"
#include "infer/cache/kv_table.h"
#include "model/hf/hf.h"
#include "model/kernels/gemm.h"
#include "model/kernels/head.h"
#include "train/distill/distill.h"
#include "train/memory.h"
#include "train/parallel/partition.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"
#include "train/plan/conversion_plan.h"
#include "train/plan/evaluation_memory.h"
#include "train/teacher/teacher.h"

#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    MAX_TOKENS = 1 << 24, // in a micro-batch: loops count tokens x heads in int
    // HDF5 keeps a hash table of 512 KiB for each open file, its headers, and a chunk. Seen: 0.74
    // MB each with 100 files of 1.7 M tokens, all of them read.
    OPEN_FILE_BYTES = 750000,
    // MPI's requests, what they page in, and the thread that asks for them. Seen: 0.9 MB.
    EXCHANGE_BYTES = 1 << 20,
};

// From /proc/self/statm (proc(5)), in pages; 0 where it cannot be read.
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

// ru_maxrss is in KiB on Linux (getrusage(2)).
int64_t plan_peak_resident_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss * 1024 : 0;
}

// Linux, proc(5): 5 sets the peak to what is resident now. Where a container has /proc read-only,
// the peak stays.
int64_t plan_restart_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "we");
    if (file != NULL) {
        fputc('5', file);
        fclose(file);
    }
    return plan_peak_resident_bytes();
}

// `original` is given where model.base is gone and a checkpoint has its shape.
static Status find_shapes(Plan *plan, const ModelShape *original, const Config *config)
{
    const Trainable trained = config_trained(config);
    if (original != NULL)
        plan->original = *original;
    else if (config->model.init.given)
        plan->original = config->model.init.shape;
    else
        TRY(hf_load_shape(&plan->original, config->model.base));
    plan->shape = plan->original;
    const ConvertConfig *convert = &config->model.convert;
    if (convert->given) {
        TRY(recipe_check(&convert->recipe, &plan->original, "model.convert.method"));
        TRY(convert_target_shape(&plan->shape, &plan->original, &convert->target));
    }
    plan->has_teacher = teacher_is_needed(&config->train);
    plan->teaching = plan->original;
    if (plan->has_teacher && config->train.teacher != NULL)
        TRY(teacher_load_shape(&plan->teaching, config, &plan->shape));
    return trainable_check(&trained, &plan->shape);
}

// What depends on the number of ranks, which config_check() does not know.
static Status check_batch(const Config *config, int n_ranks)
{
    const TrainConfig *train = &config->train;
    if ((int64_t)train->micro_batch * config->data.seq_len > MAX_TOKENS)
        return fail(BAD_INPUT,
                    "train.micro_batch %d of data.seq_len %d is more than %d tokens; use a smaller "
                    "micro_batch",
                    train->micro_batch, config->data.seq_len, MAX_TOKENS);
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

static Status measure_training(Plan *plan, const Config *config)
{
    const Trainable trained = config_trained(config);
    Partition partition; // of rank 0, which has the largest shares
    TRY(partition_create_trained(&partition, &plan->shape, &trained, plan->n_ranks, 0));
    TrainerMemory memory = {0};
    const TrainConfig *train = &config->train;
    BatchSchedule schedule = batch_schedule_make(train->global_batch / train->micro_batch,
                                                 train->sum_groups, plan->n_ranks);
    memory_place(&memory, &plan->shape, plan->has_teacher ? &plan->teaching : NULL, &partition,
                 &schedule, config, plan->n_threads);
    partition_release(&partition);
    plan->parameters = model_bytes(&plan->shape);
    plan->gradients = memory.gradients.peak_bytes;
    plan->moments = memory.moments.peak_bytes;
    plan->activations = memory.activations.peak_bytes;
    plan->scratch = memory.scratch.peak_bytes;
    plan->communication = memory.communication.peak_bytes;
    if (plan->has_teacher) {
        plan->teacher = teacher_weight_bytes(&plan->teaching, train);
        plan->teacher_pass = memory.teacher.peak_bytes + memory.teacher_scratch.peak_bytes +
                             teacher_own_bytes(&plan->teaching, train);
    }
    return OK;
}

// The number of files that match. A pattern without a match counts as one file, since a plan can be
// made before there are data.
static int64_t count_files(char *const *patterns, int n_patterns)
{
    int64_t n = 0;
    for (int i = 0; i < n_patterns; i++) {
        PathList list;
        const bool found = paths_expand(&list, &patterns[i], 1) == OK;
        n += found ? list.count : 1;
        if (found)
            paths_release(&list);
    }
    return n;
}

static void measure_shards(Plan *plan, const DataConfig *data)
{
    int64_t n = count_files(data->validation.shards, data->validation.n_shards);
    for (int i = 0; i < data->n_sources; i++)
        n += count_files(data->sources[i].shards, data->sources[i].n_shards);
    plan->shards = (n + 1) * OPEN_FILE_BYTES; // and the checkpoint that is written
}

// What OpenBLAS packs for y = x W^T and the two products of its backward pass: the most of the
// three. x is [tokens, n_in], W [n_out, n_in].
static int64_t linear_bytes(int64_t tokens, int n_out, int n_in)
{
    const int64_t bytes[] = {
        blas_buffer_bytes(n_out, tokens, n_in), // OpenBLAS is column-major: rows are swapped
        blas_buffer_bytes(n_in, tokens, n_out),
        blas_buffer_bytes(n_in, n_out, tokens),
    };
    int64_t max_bytes = 0;
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        max_bytes = bytes[i] > max_bytes ? bytes[i] : max_bytes;
    return max_bytes;
}

// What the kernels pack operands into: ours per thread, or OpenBLAS's for the largest product of a
// step.
static void measure_products(Plan *plan, const Config *config)
{
    const ModelShape *s = &plan->shape;
    const int64_t tokens = (int64_t)config->train.micro_batch * config->data.seq_len;
    const int64_t block = head_block(s->vocab_size);
    plan->products = gemm_buffer_bytes(config->train.compute, plan->n_threads);
    if (gemm_kernel_name() != NULL || config->train.compute == COMPUTE_BFLOAT16)
        return;
    const int64_t head = linear_bytes(tokens < block ? tokens : block, s->vocab_size, s->d_model);
    // Gate and up are one product, wider than those of attention.
    const int64_t layer = linear_bytes(tokens, 2 * s->d_ffn, s->d_model);
    plan->products = head > layer ? head : layer;
}

// Pages of a library's code and its first buffers become resident when it is first used. For a
// small model they are a large part of its memory, so they are touched before it is measured.
static void warm_up_libraries(void)
{
    char sha256[SHA256_HEX_BYTES];
    blas_warm_up_threads();
    if (checksum_sha256_bytes(sha256, "", 0) != OK)
        log_warn("%s", fail_text());
}

Status plan_make(Plan *out, const Config *config, int n_ranks, int n_threads)
{
    return plan_make_of(out, NULL, config, n_ranks, n_threads);
}

Status plan_make_of(Plan *out, const ModelShape *original, const Config *config, int n_ranks,
                    int n_threads)
{
    Plan plan = {.n_ranks = n_ranks, .n_threads = n_threads, .n_sharers = 1};
    TRY(find_shapes(&plan, original, config));
    TRY(check_batch(config, n_ranks));
    TRY(measure_training(&plan, config));
    measure_shards(&plan, &config->data);
    measure_products(&plan, config);
    plan.evaluation = evaluation_bytes(config, &plan.shape, n_ranks, n_threads);
    warm_up_libraries();
    malloc_trim(0); // what runs before this one have left in the heap
    plan.process = plan_resident_bytes() + (n_ranks > 1 ? EXCHANGE_BYTES : 0);
    if (config->model.convert.given)
        conversion_plan_memory(&plan, config);
    *out = plan;
    return OK;
}

double plan_sequence_flops(const Plan *plan, const Config *config)
{
    const Trainable trained = config_trained(config);
    const int T = config->data.seq_len;
    // A teacher's forward is a third of forward and backward.
    const double teaching = plan->has_teacher ? shape_train_flops(&plan->teaching, T) / 3 : 0;
    return trainable_flops(&trained, &plan->shape, T) + teaching;
}

// Ranks on a host form groups of equal size or do not share at all, as in comm_group_start().
int plan_sharers(const Config *config, int n_ranks, int ranks_per_host)
{
    const int per_copy = config->train.ranks_per_copy;
    const int host = ranks_per_host < n_ranks ? ranks_per_host : n_ranks;
    const int sharers = per_copy > 0 && per_copy < host ? per_copy : host;
    return n_ranks % host == 0 && host % sharers == 0 ? sharers : 1;
}

// Peak of the conversion beside the process itself; 0: nothing is converted. The original model
// goes before the layers are converted, one at a time, from its files, and comes back for
// a refit and for the distillation.
static int64_t conversion_bytes(const Plan *plan)
{
    if (plan->conversion == 0)
        return 0;
    const int64_t before = plan->original_model / plan->n_sharers + plan->original_pass;
    const int64_t after = plan->parameters / plan->n_sharers + plan->conversion;
    const int64_t converting = before > after ? before : after;
    const int64_t beside = plan->refit > plan->distill ? plan->refit : plan->distill;
    const int64_t both =
        beside > 0 ? (plan->original_model + plan->parameters) / plan->n_sharers + beside : 0;
    return converting > both ? converting : both;
}

// Training and conversion do not overlap, so the larger of the two counts.
int64_t plan_peak_bytes(const Plan *plan)
{
    int64_t training = (plan->parameters + plan->teacher) / plan->n_sharers + plan->gradients +
                       plan->moments + plan->activations + plan->scratch + plan->communication +
                       plan->evaluation + plan->teacher_pass;
    int64_t converting = conversion_bytes(plan);
    return plan->process + plan->shards + plan->products +
           (training > converting ? training : converting);
}

static void print_model(FILE *out, const Plan *plan, const Config *config)
{
    const ModelShape *s = &plan->shape, *o = &plan->original;
    const ConvertConfig *convert = &config->model.convert;
    fprintf(out, "model        %d layers, %d wide, %d heads, %d KV heads of %d, vocabulary %d\n",
            s->n_layers, s->d_model, s->n_heads, s->n_kv_heads, s->head_dim, s->vocab_size);
    if (shape_is_shared(s))
        fprintf(out, "conversion   MLA, shared form: %d slots by %s, a latent of %d%s\n",
                s->rope_pairs, rope_strategy_name(convert->rope), s->latent,
                s->latent_norm ? " with a norm" : "");
    else if (convert->given)
        fprintf(out, "conversion   MLA: d_kv %d per KV head, %d RoPE pairs of %d by %s, %s SVD\n",
                s->d_kv, s->rope_pairs, s->head_dim / 2, rope_strategy_name(convert->rope),
                shape_svd_name(s->svd));
    else
        fprintf(out, "conversion   none: the original attention is trained\n");
    fprintf(out, "parameters   %.2f M", (double)params_count(s) / 1e6);
    if (convert->given)
        fprintf(out, ", original %.2f M", (double)params_count(o) / 1e6);
    const Trainable trained = config_trained(config);
    if (!trainable_has_all(&trained, s))
        fprintf(out, ", trained %.2f M", (double)trainable_count(&trained, s) / 1e6);
    const KvFormat format = kv_format_plain(KV_BFLOAT16);
    const double after = kv_format_bytes_per_token(&format, s),
                 before = kv_format_bytes_per_token(&format, o);
    fprintf(out, "\nKV cache     %.0f bytes per token at 16 bits, original %.0f: %+.2f %%\n", after,
            before, 100.0 * (after / before - 1.0));
    kv_table_print(out, s);
}

static void print_distillation(FILE *out, const Config *config)
{
    const DistillConfig *distill = &config->distill;
    const int T = config_distill_len(config);
    fprintf(out,
            "distillation %d windows of %d tokens = %.4g M tokens, %d steps a layer = %.4g M, "
            "layers %s\n",
            distill->windows, T, (double)distill_tokens(distill, T) / 1e6, distill->steps,
            (double)distill_trained_tokens(distill, T) / 1e6,
            distill->layers == DISTILL_APART ? "apart" : "one after another");
}

static void print_statistics(FILE *out, const Plan *plan, const Config *config)
{
    const PlannedStatistics of = plan_statistics(&plan->original, config);
    const char *from =
        config_calibrates(config) ? "the training data" : config->model.convert.scores;
    fprintf(
        out,
        "statistics   %d windows of %d tokens, %d of them for attention, %d pool%s of heads, of "
        "%s\n",
        of.n_windows, of.T, of.n_attention, of.n_pools, of.n_pools == 1 ? "" : "s", from);
}

static void print_work(FILE *out, const Plan *plan, const Config *config)
{
    const TrainConfig *train = &config->train;
    int64_t step_tokens = (int64_t)train->global_batch * config->data.seq_len;
    char blas[BLAS_NAME_BYTES], products[COMPUTE_TEXT_BYTES];
    fprintf(out, "ranks        %d, %d threads each, %s\n", plan->n_ranks, plan->n_threads,
            blas_name(blas));
    fprintf(out, "products     %s\n", compute_describe(products, train->compute));
    if (config_needs_statistics(config))
        print_statistics(out, plan, config);
    if (config_distills(config))
        print_distillation(out, config);
    fprintf(out, "step         %d sequences of %d tokens = %lld tokens, micro-batches of %d\n",
            train->global_batch, config->data.seq_len, (long long)step_tokens, train->micro_batch);
    double tokens = (double)step_tokens * train->steps;
    fprintf(out, "run          %d steps = %.4g M tokens", train->steps, tokens / 1e6);
    if (config->data.pretraining_tokens > 0)
        fprintf(out, ", %.3g %% of %.4g M of pretraining",
                100 * tokens / config->data.pretraining_tokens,
                config->data.pretraining_tokens / 1e6);
    fprintf(out, ", %.3g PFLOP\n",
            plan_sequence_flops(plan, config) * train->global_batch * train->steps / 1e15);
}

// MiB, to one decimal: as `job` logs the peak that was measured.
void plan_print(FILE *out, const Plan *plan, const Config *config)
{
    print_model(out, plan, config);
    print_work(out, plan, config);
    char parameters[64] = "parameters", teacher[64] = "teacher";
    if (plan->n_sharers > 1) {
        snprintf(parameters, sizeof parameters, "parameters (shared by %d ranks)", plan->n_sharers);
        snprintf(teacher, sizeof teacher, "teacher (shared by %d ranks)", plan->n_sharers);
    }
    const struct {
        const char *name;
        int64_t bytes;
    } rows[] = {
        {parameters, plan->parameters / plan->n_sharers},
        {"gradients", plan->gradients},
        {"AdamW moments", plan->moments},
        {"activations", plan->activations},
        {"scratch", plan->scratch},
        {"communication", plan->communication},
        {teacher, plan->teacher / plan->n_sharers},
        {"pass of the teacher", plan->teacher_pass},
        {"packed operands", plan->products},
        {"program, libraries", plan->process},
        {"open HDF5 files", plan->shards},
        {"evaluation on tasks", plan->evaluation},
        {"while converting", conversion_bytes(plan)},
        {"peak", plan_peak_bytes(plan)},
    };
    fprintf(out, "memory per rank, MiB%s\n",
            plan->n_sharers > 1 ? "; shared memory counts by a rank's part" : "");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (plan->has_teacher || strstr(rows[i].name, "teacher") == NULL)
            fprintf(out, "  %-32s %10.1f\n", rows[i].name, (double)rows[i].bytes / (1 << 20));
}
