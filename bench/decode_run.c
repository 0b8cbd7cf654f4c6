// Each repetition is measured right after the two rates: what else the machine does moves both.
#include "bench/decode_run.h"

#include "base/intmath.h"
#include "base/random.h"
#include "base/simd.h"
#include "bench/timing.h"
#include "infer/infer.h"
#include "train/plan/serve_cost.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>

enum { SGEMM_SIZE = 1024, READ_PASSES = 2, READ_WORDS = 1 << 13 };

typedef struct Run {
    const DecodeTest *test;
    KvCache *cache;
    KvSequence **prefixes;  // [batch], owned; filled to the depth, decoding continues their forks
    InferSegment *segments; // [batch]
    int32_t *tokens;        // [batch or n_prompt]
    float *logits;          // [batch, V]
    float *matrices;        // [3, SGEMM_SIZE, SGEMM_SIZE]
    Infer *infer;
    Arena arena;
} Run;

static double now_s(const DecodeTest *test)
{
    return timing_seconds(test->is_cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC);
}

// ---- rates -------------------------------------------------------------------------------------

// Enough sums beside each other that the latency of an addition does not limit the rate.
HOT static uint64_t sum_words(const uint64_t *words, int64_t count)
{
    enum { LANES = 32 };
    uint64_t lanes[LANES] = {0}, sum = 0;
    for (int64_t i = 0; i + LANES <= count; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += words[i + lane];
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

// The weights themselves are read: the same memory, pages and caches that decoding has.
static double measure_reading(const Run *run)
{
    const Arena *block = &run->test->model->weights.arena;
    const uint64_t *words = (const uint64_t *)(const void *)block->block;
    const int64_t n_chunks = block->size_bytes / 8 / READ_WORDS;
    uint64_t sum = 0;
    const double start_s = now_s(run->test);
    for (int pass = 0; pass < READ_PASSES; pass++) {
#pragma omp parallel for schedule(static) reduction(+ : sum)
        for (int64_t i = 0; i < n_chunks; i++)
            sum += sum_words(words + i * READ_WORDS, READ_WORDS);
    }
    const double seconds = now_s(run->test) - start_s;
    CHECK(sum != 1, "the sum is looked at, so that reading is not left out");
    return READ_PASSES * (double)n_chunks * READ_WORDS * 8 / seconds;
}

static double measure_products(const Run *run)
{
    const int n = SGEMM_SIZE;
    float *a = run->matrices, *b = a + n * n, *c = b + n * n;
    const double start_s = now_s(run->test);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1.0f, a, n, b, n, 0.0f, c, n);
    return 2.0 * n * n * n / (now_s(run->test) - start_s);
}

// ---- the cache before the test -----------------------------------------------------------------

// Rows of one block, the same in every layer and block.
static Status fill(KvSequence *sequence, const ModelShape *shape, int n, const float *rows)
{
    const int key_width = kv_part_channels(kv_key_part(shape));
    const int value_width = kv_part_channels(kv_value_part(shape));
    const float *values = rows + KV_BLOCK_TOKENS * (int64_t)key_width;
    for (int first = 0; first < n; first += KV_BLOCK_TOKENS) {
        const int count = n - first < KV_BLOCK_TOKENS ? n - first : KV_BLOCK_TOKENS;
        TRY(kv_sequence_reserve(sequence, count));
        for (int layer = 0; layer < shape->n_layers; layer++)
            kv_write(sequence, layer, rows, key_width, values, value_width, count);
        TRY(kv_sequence_commit(sequence, count));
    }
    return OK;
}

static Status fill_all(Run *run)
{
    const DecodeTest *test = run->test;
    const ModelShape *shape = &test->model->weights.shape;
    const int64_t n_floats = (int64_t)KV_BLOCK_TOKENS * (kv_part_channels(kv_key_part(shape)) +
                                                         kv_part_channels(kv_value_part(shape)));
    float *rows = malloc((size_t)n_floats * sizeof *rows);
    Status status = OK;
    if (rows == NULL)
        return fail(FAILED, "bench_decode: no memory for rows of the cache");
    for (int64_t i = 0; i < n_floats; i++)
        rows[i] = (float)random_normal(1, (uint64_t)i);
    for (int i = 0; i < test->batch; i++) {
        TRY_GOTO(free_rows, kv_sequence_create(&run->prefixes[i], run->cache));
        TRY_GOTO(free_rows, fill(run->prefixes[i], shape, test->depth, rows));
    }
free_rows:
    free(rows);
    return status;
}

// ---- the test ----------------------------------------------------------------------------------

static void choose_tokens(const Run *run, int count)
{
    const int V = run->test->model->weights.shape.vocab_size;
    for (int i = 0; i < count; i++)
        run->tokens[i] = (int32_t)(random_bits(2, (uint64_t)i) % (uint64_t)V);
}

// The next token is the first sequence's best, as a program that answers has to look for it.
static Status decode(const Run *run)
{
    const DecodeTest *test = run->test;
    const int V = test->model->weights.shape.vocab_size;
    for (int step = 0; step < test->n_gen; step++) {
        TRY(infer_forward(run->infer, run->segments, test->batch));
        infer_logits(run->infer, run->logits, infer_hidden(run->infer, 0), test->batch);
        for (int i = 0; i < test->batch; i++) {
            const float *logits = run->logits + (int64_t)i * V;
            int best = 0;
            for (int v = 1; v < V; v++)
                best = logits[v] > logits[best] ? v : best;
            run->tokens[i] = best;
        }
    }
    return OK;
}

static Status read_prompt(const Run *run)
{
    TRY(infer_prefill(run->infer, run->segments[0].sequence, run->tokens, run->test->n_prompt));
    infer_logits(run->infer, run->logits, infer_hidden(run->infer, -1), 1);
    return OK;
}

// Forks of the filled sequences share their pages but for the last, so that every repetition starts
// from the same depth.
static Status repeat(double *seconds, const Run *run)
{
    const DecodeTest *test = run->test;
    Status status = OK;
    int n_forks = 0;
    for (; n_forks < test->batch; n_forks++) {
        KvSequence *sequence;
        TRY_GOTO(release, kv_sequence_fork(&sequence, run->prefixes[n_forks]));
        run->segments[n_forks] = (InferSegment){sequence, run->tokens + n_forks, 1};
    }
    choose_tokens(run, test->n_prompt > 0 ? test->n_prompt : test->batch);
    const double start_s = now_s(test);
    TRY_GOTO(release, test->n_prompt > 0 ? read_prompt(run) : decode(run));
    *seconds = now_s(test) - start_s;
release:
    for (int i = 0; i < n_forks; i++)
        kv_sequence_release(run->segments[i].sequence);
    return status;
}

// ---- results -----------------------------------------------------------------------------------

// A step at half of the tokens that are generated, or the whole prompt.
static void set_limit(DecodeResult *result, const DecodeTest *test)
{
    const InferWeights *weights = &test->model->weights;
    const Rates rates = {.product_flops = result->product_flops_per_s,
                         .attention_flops = result->product_flops_per_s,
                         .read_bytes = result->read_bytes_per_s};
    if (test->n_prompt > 0) {
        const double flops = serve_prompt_flops(&weights->shape, test->n_prompt, test->depth);
        result->limit_per_s = test->n_prompt * rates.product_flops / flops;
        result->is_compute_bound = true;
        return;
    }
    const ServeLoad load = {.context = test->depth + (test->n_gen + 1) / 2,
                            .batch = test->batch,
                            .dtype = weights->dtype,
                            .n_threads = test->n_threads};
    const ServeCost cost = serve_cost(&weights->shape, &test->format, &load, &rates, 1);
    result->limit_per_s = cost.tokens_per_s;
    result->is_compute_bound = cost.is_compute_bound;
}

static void summarize(DecodeResult *result, int n)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += result->tokens_per_s[i];
    result->mean = sum / n;
    for (int i = 0; i < n; i++)
        squares += pow(result->tokens_per_s[i] - result->mean, 2);
    result->deviation = n > 1 ? sqrt(squares / (n - 1)) : 0;
}

// The first repetition warms up and is not counted.
static Status measure(DecodeResult *out, const Run *run)
{
    const DecodeTest *test = run->test;
    const double n_tokens = test->n_prompt > 0 ? test->n_prompt : (double)test->n_gen * test->batch;
    double reading[DECODE_MAX_REPETITIONS], products[DECODE_MAX_REPETITIONS], seconds = 0;
    DecodeResult result = {.cache_bytes_per_token = kv_format_bytes_per_token(
                               &test->format, &test->model->weights.shape)};
    for (int i = -1; i < test->n_repetitions; i++) {
        const double bytes_per_s = measure_reading(run), flops_per_s = measure_products(run);
        TRY(repeat(&seconds, run));
        if (i < 0)
            continue;
        reading[i] = bytes_per_s;
        products[i] = flops_per_s;
        result.tokens_per_s[i] = n_tokens / seconds;
    }
    result.read_bytes_per_s = timing_median(reading, test->n_repetitions);
    result.product_flops_per_s = timing_median(products, test->n_repetitions);
    summarize(&result, test->n_repetitions);
    set_limit(&result, test);
    *out = result;
    return OK;
}

// ---- memory ------------------------------------------------------------------------------------

static void place(Run *run)
{
    const DecodeTest *test = run->test;
    const int n_tokens = test->batch > test->n_prompt ? test->batch : test->n_prompt;
    run->prefixes = arena_place(&run->arena, test->batch, sizeof *run->prefixes);
    run->segments = arena_place(&run->arena, test->batch, sizeof *run->segments);
    run->tokens = arena_place(&run->arena, n_tokens, sizeof *run->tokens);
    run->logits =
        arena_floats(&run->arena, (int64_t)test->batch * test->model->weights.shape.vocab_size);
    run->matrices = arena_floats(&run->arena, 3 * SGEMM_SIZE * SGEMM_SIZE);
}

static void release(Run *run)
{
    infer_release(run->infer);
    for (int i = 0; run->prefixes != NULL && i < run->test->batch; i++)
        if (run->prefixes[i] != NULL)
            kv_sequence_release(run->prefixes[i]);
    if (run->cache != NULL)
        kv_cache_release(run->cache);
    arena_release(&run->arena);
}

static Status start(Run *run)
{
    const DecodeTest *test = run->test;
    const InferWeights *weights = &test->model->weights;
    const int chunk = min_int(test->n_prompt, SERVE_PROMPT_CHUNK);
    const int n_tokens = test->batch > chunk ? test->batch : chunk;
    place(run);
    TRY(arena_allocate(&run->arena));
    place(run);
    for (int i = 0; i < 2 * SGEMM_SIZE * SGEMM_SIZE; i++)
        run->matrices[i] = (float)(i % 7) - 3.0f;
    TRY(kv_cache_create(&run->cache, &weights->shape, &test->format, 0));
    TRY(infer_create(&run->infer, weights, n_tokens, test->batch));
    return fill_all(run);
}

Status decode_run(DecodeResult *out, const DecodeTest *test)
{
    Run run = {.test = test, .arena = arena_start("benchmark")};
    omp_set_num_threads(test->n_threads);
    Status status = start(&run);
    if (status == OK)
        status = measure(out, &run);
    release(&run);
    return status;
}
