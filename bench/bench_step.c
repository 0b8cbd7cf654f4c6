// Time of one training step - forward, backward, reduce, clipping, AdamW, gather - for a model of
// random weights, part by part, as a share of the sgemm rate measured in alternation with it
// (square matrices of side 2048, by all ranks at once, each with its threads); of a step in
// bfloat16 also as a share of the rate of the program's own products of such matrices in bfloat16.
// A CPU without instructions for these is said to have none, which is no error. Each rank runs one
// sequence of T tokens of its own and exchanges gradients and parameters as `mha2mla train` does.
// Seconds are medians over the rounds of means over the ranks.
//
//     export OMP_NUM_THREADS=1
//     build/release/bench/bench_step smollm-135m 2048 mla 5
//     mpirun -n 2 --bind-to none build/release/bench/bench_step smollm-135m 2048 mla 5
//     OMP_NUM_THREADS=2 build/release/bench/bench_step --compute bfloat16 smollm-135m 2048 mla 5
//
// Shapes: smollm-135m, smollm-360m, llama-2-7b-layer. Attention: the original's, MLA per KV head,
// or in the shared form with as many numbers in the cache. LAYERS, for a quick look, replaces their
// number of layers (with few of them the head weighs too much). --row adds the figures as one line
// to a file, in the columns of bench_all.sh.
// One rank with one thread is timed by the CPU time it got, so that what else the machine runs is
// left out, unless --clock says otherwise; more are timed by the wall clock. The peak is the
// step's: the sgemm's matrices lie where logits do. --kernels takes the slower of the instructions
// that a CPU has for bfloat16, as if it were an older one.
#include "bench/step_run.h"
#include "model/kernels/compute.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"

#include <errno.h>
#include <getopt.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 1 << 20, MAX_LAYERS = 128 };

static const char usage[] = "usage: bench_step [--compute float32|bfloat16] "
                            "[--kernels amx|avx512-bf16] [--clock cpu|wall] [--row FILE] SHAPE T "
                            "mha|mla|shared ROUNDS [LAYERS]";

static const struct {
    const char *name;
    ModelShape shape;
    int rope_pairs, d_kv;
} shapes[] = {
    {"smollm-135m",
     {30, 576, 9, 3, 64, 1536, 49152, 2048, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     4,
     16},
    {"smollm-360m",
     {32, 960, 15, 5, 64, 2560, 49152, 2048, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     4,
     16},
    {"llama-2-7b-layer",
     {1, 4096, 32, 32, 128, 11008, 32000, 4096, 64, 0, SVD_JOINT, false, 1e4, 1e-5},
     8,
     32},
};

typedef enum Attention { ATTENTION_ORIGINAL, ATTENTION_PER_HEAD, ATTENTION_SHARED } Attention;

static const char *const attention_names[] = {"mha", "mla", "shared", NULL};

// Shapes are written out here, as a benchmark must not depend on a model's files.
static Status find_shape(StepSetting *setting, const char *name, Attention attention, int n_layers)
{
    size_t n_shapes = sizeof shapes / sizeof shapes[0], i = 0;
    while (i < n_shapes && strcmp(shapes[i].name, name) != 0)
        i++;
    if (i == n_shapes)
        return fail(BAD_INPUT, "bench_step: unknown shape '%s'; there are %s, %s, %s", name,
                    shapes[0].name, shapes[1].name, shapes[2].name);
    setting->shape_name = shapes[i].name;
    setting->shape = shapes[i].shape;
    const ModelShape *original = &shapes[i].shape;
    const int pairs = shapes[i].rope_pairs, d_kv = shapes[i].d_kv, K = original->n_kv_heads;
    if (attention == ATTENTION_PER_HEAD)
        TRY(shape_convert(&setting->shape, original, pairs, d_kv, SVD_JOINT));
    if (attention == ATTENTION_SHARED)
        TRY(shape_convert_shared(&setting->shape, original, K * pairs, K * d_kv, false));
    if (n_layers > 0)
        setting->shape.n_layers = n_layers;
    return OK;
}

static Status parse_count(int *out, const char *name, const char *text, int max)
{
    char *end;
    errno = 0;
    const long number = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || number < 1 || number > max)
        return fail(BAD_INPUT, "bench_step: %s is '%s', allowed are 1 to %d; %s", name, text, max,
                    usage);
    *out = (int)number;
    return OK;
}

typedef struct Request {
    bool wants_help;
    const char *compute, *kernels, *clock, *row_path; // NULL: not given
} Request;

static Status parse_options(Request *out, int argc, char **argv)
{
    static const struct option options[] = {
        {"compute", required_argument, NULL, 't'}, {"kernels", required_argument, NULL, 'k'},
        {"clock", required_argument, NULL, 'c'},   {"row", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},          {0}};
    int option;
    *out = (Request){0};
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        if (option == 'h')
            out->wants_help = true;
        else if (option == 't')
            out->compute = optarg;
        else if (option == 'k')
            out->kernels = optarg;
        else if (option == 'c')
            out->clock = optarg;
        else if (option == 'r')
            out->row_path = optarg;
        else
            return fail(BAD_INPUT, "bench_step: '%s' is no option or lacks its value; %s",
                        argv[optind - 1], usage);
    }
    return OK;
}

static Status choose_compute(StepSetting *setting, const char *name)
{
    for (int type = 0; name != NULL && type < N_COMPUTE_TYPES; type++) {
        if (strcmp(name, compute_names[type]) != 0)
            continue;
        setting->compute = (ComputeType)type;
        return OK;
    }
    return name == NULL ? OK
                        : fail(BAD_INPUT, "bench_step: --compute is '%s', allowed are %s and %s",
                               name, compute_names[0], compute_names[1]);
}

static Status choose_kernels(const char *name)
{
    if (name == NULL)
        return OK;
    const bool is_amx = strcmp(name, "amx") == 0;
    if (!is_amx && strcmp(name, "avx512-bf16") != 0)
        return fail(BAD_INPUT, "bench_step: --kernels is '%s', allowed are amx and avx512-bf16",
                    name);
    const Bf16Kernel kernel = is_amx ? BF16_AMX : BF16_AVX512;
    if (!bf16_kernel_is_there(kernel))
        return fail(BAD_INPUT, "bench_step: --kernels %s: this CPU has no such instructions", name);
    bf16_force_kernel(kernel);
    return OK;
}

// CPU time leaves out what other programs take of the core; with several ranks or threads it would
// leave out waiting too, which is part of a step.
static Status choose_clock(StepSetting *setting, const char *name)
{
    const bool is_alone = setting->n_ranks == 1 && setting->n_threads == 1;
    if (name != NULL && strcmp(name, "cpu") != 0 && strcmp(name, "wall") != 0)
        return fail(BAD_INPUT, "bench_step: --clock is '%s', allowed are cpu and wall", name);
    setting->is_cpu_time = name != NULL ? strcmp(name, "cpu") == 0 : is_alone;
    if (setting->is_cpu_time && !is_alone)
        return fail(BAD_INPUT,
                    "bench_step: --clock cpu is for one rank with one thread, there are %d with "
                    "%d; waiting would not count",
                    setting->n_ranks, setting->n_threads);
    return OK;
}

static Status parse_attention(Attention *out, const char *name)
{
    for (int i = 0; attention_names[i] != NULL; i++)
        if (strcmp(name, attention_names[i]) == 0) {
            *out = (Attention)i;
            return OK;
        }
    return fail(BAD_INPUT, "bench_step: attention is '%s', allowed are mha, mla and shared", name);
}

// `words`: SHAPE T mha|mla|shared ROUNDS [LAYERS]
static Status parse_words(StepSetting *setting, char **words, int n_words)
{
    int n_layers = 0;
    if (n_words < 4 || n_words > 5)
        return fail(BAD_INPUT, "bench_step: %d words where 4 or 5 belong; %s", n_words, usage);
    TRY(parse_count(&setting->T, "T", words[1], MAX_TOKENS));
    TRY(parse_count(&setting->n_rounds, "ROUNDS", words[3], STEP_MAX_ROUNDS));
    if (n_words == 5)
        TRY(parse_count(&n_layers, "LAYERS", words[4], MAX_LAYERS));
    Attention attention;
    TRY(parse_attention(&attention, words[2]));
    return find_shape(setting, words[0], attention, n_layers);
}

// All that a figure depends on, so that a line copied from the output can be compared later.
static void print_heading(const StepSetting *setting)
{
    char blas[BLAS_NAME_BYTES], products[COMPUTE_TEXT_BYTES];
    printf("%s, %d layer%s, %s, T %d, %d rank%s x %d thread%s, %s, %d round%s\nsgemm: %s; "
           "products: %s\n",
           setting->shape_name, setting->shape.n_layers, setting->shape.n_layers == 1 ? "" : "s",
           step_attention_name(&setting->shape), setting->T, setting->n_ranks,
           setting->n_ranks == 1 ? "" : "s", setting->n_threads, setting->n_threads == 1 ? "" : "s",
           setting->is_cpu_time ? "CPU time" : "wall clock", setting->n_rounds,
           setting->n_rounds == 1 ? "" : "s", blas_name(blas),
           compute_describe(products, setting->compute));
}

// The file for rows is opened before anything is measured for it.
static Status open_rows(FILE **out, const char *path)
{
    *out = fopen(path, "ae");
    if (*out == NULL)
        return fail(BAD_INPUT, "%s: cannot be opened for rows: %s", path, strerror(errno));
    return OK;
}

static Status report(const StepSetting *setting, const StepRound *rounds, FILE *rows)
{
    print_heading(setting);
    step_table_print(setting, rounds);
    if (rows == NULL)
        return OK;
    step_table_write_row(rows, setting, rounds);
    return fflush(rows) == 0 ? OK : fail(FAILED, "the row: %s", strerror(errno));
}

// Collective; each part that can fail on one rank alone ends in an agreement.
static Status run_words(StepSetting *setting, const Request *request, char **words, int n_words,
                        const Comm *comm)
{
    StepRound rounds[STEP_MAX_ROUNDS];
    FILE *rows = NULL;
    TRY(parse_words(setting, words, n_words));
    TRY(choose_compute(setting, request->compute));
    TRY(choose_kernels(request->kernels));
    TRY(choose_clock(setting, request->clock));
    TRY(blas_check(comm));
    // All ranks are on one machine, so that all return or none.
    if (setting->compute == COMPUTE_BFLOAT16 && bf16_kernel() == BF16_EMULATED) {
        if (comm->rank == 0)
            puts("bench_step: this CPU has neither AVX512-BF16 nor AMX-BF16; a step in bfloat16 is "
                 "not measured here");
        return OK;
    }
    Status status = OK;
    if (comm->rank == 0 && request->row_path != NULL)
        status = open_rows(&rows, request->row_path);
    status = comm_agree(comm, status);
    if (status == OK)
        status = step_run(rounds, setting, comm);
    if (status == OK)
        status = comm_agree(comm, comm->rank == 0 ? report(setting, rounds, rows) : OK);
    if (rows != NULL)
        fclose(rows);
    return status;
}

typedef struct Arguments {
    int argc;
    char **argv;
} Arguments;

static Status run(const Comm *comm, void *context)
{
    const Arguments *arguments = context;
    StepSetting setting = {
        .n_ranks = comm->size, .n_threads = omp_get_max_threads(), .sgemm_size = STEP_SGEMM_SIZE};
    Request request;
    TRY(parse_options(&request, arguments->argc, arguments->argv));
    if (!request.wants_help)
        return run_words(&setting, &request, arguments->argv + optind, arguments->argc - optind,
                         comm);
    if (comm->rank == 0)
        puts(usage);
    return OK;
}

int main(int argc, char **argv)
{
    Arguments arguments = {argc, argv};
    return (int)comm_run("bench_step", run, &arguments);
}
