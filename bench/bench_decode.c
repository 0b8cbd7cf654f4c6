// Reading prompts and decoding, in the columns and with the options of llama.cpp's llama-bench, for
// random weights of a named shape with the original attention and with latents, or for a model.
// Behind them are the bytes a token leaves in the KV cache, and the limit: the tokens/s that the
// rates of reading memory and of sgemm allow, both measured in alternation with every repetition.
//
//     build/release/bench/bench_decode smollm-135m                    # pp512, tg128; every d_kv
//     build/release/bench/bench_decode smollm-135m --d-kv 0,16 -p 0 -n 32 -d 64,2048,8192 -t 1,2
//     build/release/bench/bench_decode llama-2-7b --layers 1 -p 0 -d 2048 --kv 16,4 -b 1,16
//     build/release/bench/bench_decode smollm-135m --shared           # and the shared form of each
//     build/release/bench/bench_decode runs/demo-dkv8/model -o jsonl
//
// SHAPE is smollm-135m, smollm-1.7b or llama-2-7b; any other word is a model's directory. Lists are
// separated by commas; a length of 0 leaves a test out. The last columns are the rate by that of
// the original attention and, of the shared form, by that of the form per KV head with the same
// cache.
#include "bench/decode_table.h"

#include "base/file.h"
#include "base/log.h"

#include <getopt.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 16, MAX_TOKENS = 1 << 20, MAX_BATCH = 1 << 12, MAX_THREADS = 1 << 10 };

static const char see_help[] = "see bench_decode --help";

static const char usage[] =
    "usage: bench_decode [-p LENGTHS] [-n LENGTHS] [-d DEPTHS] [-b BATCHES] [-t THREADS]\n"
    "           [-r REPETITIONS] [-o md|csv|json|jsonl] [--kv 32|16|8|4|3|2,...] [--d-kv LIST]\n"
    "           [--shared] [--layers N] [--dtype bfloat16|float16|float32] [--clock wall|cpu]\n"
    "           SHAPE|MODEL";

typedef struct List {
    int values[MAX_LIST], count;
} List;

typedef struct Request {
    List prompts, gens, depths, batches, threads, kv_bits, d_kv;
    int n_layers, n_repetitions;
    DType dtype;
    DecodeOutput output;
    bool is_cpu_time, wants_help, with_shared;
    const char *model;
} Request;

// What has been printed so far, and tokens/s by number of a model's test: of the original attention
// and of the last model with a latent per KV head.
typedef struct Table {
    bool is_begun;
    int test;                    // the next one of the model at hand
    double *original, *per_head; // owned; 0: not measured
} Table;

// ---- options -----------------------------------------------------------------------------------

static Status parse_list(List *out, const char *name, const char *text, int min, int max)
{
    List list = {0};
    for (const char *at = text;;) {
        char *end;
        const long value = strtol(at, &end, 10);
        if (end == at || (*end != '\0' && *end != ',') || value < min || value > max)
            return fail(BAD_INPUT, "bench_decode: %s is '%s', allowed are numbers from %d to %d",
                        name, text, min, max);
        if (list.count == MAX_LIST)
            return fail(BAD_INPUT, "bench_decode: %s has more than %d numbers", name, MAX_LIST);
        list.values[list.count++] = (int)value;
        if (*end == '\0')
            break;
        at = end + 1;
    }
    *out = list;
    return OK;
}

static Status parse_choice(int *out, const char *name, const char *text, const char *const *choices)
{
    for (int i = 0; choices[i] != NULL; i++)
        if (strcmp(text, choices[i]) == 0) {
            *out = i;
            return OK;
        }
    return fail(BAD_INPUT, "bench_decode: %s is '%s'; %s", name, text, see_help);
}

static Status parse_int(int *out, const char *name, const char *text, int max)
{
    List list;
    TRY(parse_list(&list, name, text, 1, max));
    if (list.count != 1)
        return fail(BAD_INPUT, "bench_decode: %s is '%s', one number belongs there", name, text);
    *out = list.values[0];
    return OK;
}

enum { OPTION_KV = 256, OPTION_D_KV, OPTION_SHARED, OPTION_LAYERS, OPTION_DTYPE, OPTION_CLOCK };

static Status parse_option(Request *request, int option)
{
    static const char *const dtypes[] = {"float32", "float16", "bfloat16", NULL};
    static const DType dtype_values[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const char *const clocks[] = {"wall", "cpu", NULL};
    int index = 0;
    switch (option) {
    case 'p':
        return parse_list(&request->prompts, "-p", optarg, 0, MAX_TOKENS);
    case 'n':
        return parse_list(&request->gens, "-n", optarg, 0, MAX_TOKENS);
    case 'd':
        return parse_list(&request->depths, "-d", optarg, 0, MAX_TOKENS);
    case 'b':
        return parse_list(&request->batches, "-b", optarg, 1, MAX_BATCH);
    case 't':
        return parse_list(&request->threads, "-t", optarg, 1, MAX_THREADS);
    case 'r':
        return parse_int(&request->n_repetitions, "-r", optarg, DECODE_MAX_REPETITIONS);
    case 'o':
        TRY(parse_choice(&index, "-o", optarg, decode_output_names));
        request->output = (DecodeOutput)index;
        return OK;
    case 'h':
        request->wants_help = true;
        return OK;
    case OPTION_KV:
        return parse_list(&request->kv_bits, "--kv", optarg, 2, 32);
    case OPTION_D_KV:
        return parse_list(&request->d_kv, "--d-kv", optarg, 0, 1 << 18);
    case OPTION_SHARED:
        request->with_shared = true;
        return OK;
    case OPTION_LAYERS:
        return parse_int(&request->n_layers, "--layers", optarg, 1000);
    case OPTION_DTYPE:
        TRY(parse_choice(&index, "--dtype", optarg, dtypes));
        request->dtype = dtype_values[index];
        return OK;
    case OPTION_CLOCK:
        TRY(parse_choice(&index, "--clock", optarg, clocks));
        request->is_cpu_time = index == 1;
        return OK;
    default:
        return fail(BAD_INPUT, "bench_decode: an unknown option, or one without its value; %s",
                    see_help);
    }
}

static List list_of(int value)
{
    return (List){.values = {value}, .count = 1};
}

static Status parse(Request *out, int argc, char **argv)
{
    static const struct option options[] = {
        {"kv", required_argument, NULL, OPTION_KV},
        {"d-kv", required_argument, NULL, OPTION_D_KV},
        {"shared", no_argument, NULL, OPTION_SHARED},
        {"layers", required_argument, NULL, OPTION_LAYERS},
        {"dtype", required_argument, NULL, OPTION_DTYPE},
        {"clock", required_argument, NULL, OPTION_CLOCK},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    Request request = {.prompts = list_of(512),
                       .gens = list_of(128),
                       .depths = list_of(0),
                       .batches = list_of(1),
                       .threads = list_of(omp_get_max_threads()),
                       .kv_bits = list_of(16),
                       .n_repetitions = 5,
                       .dtype = DTYPE_BF16};
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "p:n:d:b:t:r:o:h", options, NULL)) != -1;)
        TRY(parse_option(&request, option));
    if (argc - optind != 1 && !request.wants_help)
        return fail(BAD_INPUT, "bench_decode: %d words where one belongs; %s", argc - optind,
                    see_help);
    request.model = argv[optind];
    for (int i = 0; i < request.threads.count && request.is_cpu_time; i++)
        if (request.threads.values[i] != 1)
            return fail(BAD_INPUT, "bench_decode: --clock cpu is for one thread (-t 1)");
    *out = request;
    return OK;
}

// ---- tests -------------------------------------------------------------------------------------

// Of one model.
static int n_tests(const Request *r)
{
    return r->kv_bits.count * r->depths.count * r->threads.count *
           (r->prompts.count + r->gens.count * r->batches.count);
}

static double ratio(double rate, double of)
{
    return of > 0 ? rate / of : 0;
}

static Status run_test(const Request *request, const DecodeTest *test, Table *table)
{
    DecodeResult result;
    const ModelShape *shape = &test->model->weights.shape;
    const int i = table->test++;
    TRY(decode_run(&result, test));
    if (shape_is_shared(shape))
        result.of_per_head = ratio(result.mean, table->per_head[i]);
    if (shape_is_mla(shape))
        result.of_original = ratio(result.mean, table->original[i]);
    if (!shape_is_shared(shape))
        (shape_is_mla(shape) ? table->per_head : table->original)[i] = result.mean;
    decode_table_row(stdout, request->output, test, &result, !table->is_begun);
    table->is_begun = true;
    return OK;
}

// Of one model, format, depth and number of threads. Prompts are read one at a time.
static Status run_lengths(const Request *request, DecodeTest *test, Table *table)
{
    test->batch = 1;
    for (int i = 0; i < request->prompts.count; i++) {
        test->n_prompt = request->prompts.values[i];
        if (test->n_prompt > 0)
            TRY(run_test(request, test, table));
    }
    test->n_prompt = 0;
    for (int i = 0; i < request->gens.count; i++)
        for (int b = 0; b < request->batches.count; b++) {
            test->n_gen = request->gens.values[i];
            test->batch = request->batches.values[b];
            if (test->n_gen > 0)
                TRY(run_test(request, test, table));
        }
    test->n_gen = 0;
    return OK;
}

static Status run_model(const Request *request, const DecodeModel *model, Table *table)
{
    table->test = 0;
    for (int k = 0; k < request->kv_bits.count; k++)
        for (int d = 0; d < request->depths.count; d++)
            for (int t = 0; t < request->threads.count; t++) {
                char bits[16];
                DecodeTest test = {.model = model,
                                   .depth = request->depths.values[d],
                                   .n_threads = request->threads.values[t],
                                   .n_repetitions = request->n_repetitions,
                                   .is_cpu_time = request->is_cpu_time};
                snprintf(bits, sizeof bits, "%d", request->kv_bits.values[k]);
                TRY(kv_format_parse_bits(&test.format, bits, "bench_decode: --kv"));
                TRY(run_lengths(request, &test, table));
            }
    return OK;
}

static Status run_width(const Request *request, int d_kv, bool is_shared, Table *table)
{
    DecodeModel model;
    TRY(decode_model_make(&model, request->model, request->n_layers, d_kv, is_shared,
                          request->dtype));
    const Status status = run_model(request, &model, table);
    decode_model_release(&model);
    return status;
}

static Status run_shape(const Request *request, Table *table)
{
    List widths = request->d_kv;
    int own[4];
    TRY(decode_model_widths(own, request->model));
    if (widths.count == 0) {
        memcpy(widths.values, own, sizeof own);
        widths.count = 4;
    }
    for (int i = 0; i < widths.count; i++) {
        TRY(run_width(request, widths.values[i], false, table));
        if (request->with_shared && widths.values[i] > 0)
            TRY(run_width(request, widths.values[i], true, table));
    }
    return OK;
}

static Status run_all(const Request *request, Table *table)
{
    DecodeModel model;
    if (!file_is_dir(request->model))
        return run_shape(request, table);
    TRY(decode_model_load(&model, request->model));
    const Status status = run_model(request, &model, table);
    decode_model_release(&model);
    return status;
}

static Status run(const Request *request)
{
    const size_t n = (size_t)n_tests(request);
    Table table = {.original = calloc(n, sizeof(double)), .per_head = calloc(n, sizeof(double))};
    const Status status = table.original != NULL && table.per_head != NULL
                              ? run_all(request, &table)
                              : fail(FAILED, "bench_decode: no memory");
    free(table.original);
    free(table.per_head);
    return status;
}

int main(int argc, char **argv)
{
    Request request;
    Status status = parse(&request, argc, argv);
    if (status == OK && request.wants_help)
        return puts(usage) < 0;
    if (status == OK) {
        decode_table_begin(stdout, request.output);
        status = run(&request);
        decode_table_end(stdout, request.output);
    }
    if (status != OK)
        log_failure();
    return (int)status;
}
