// The shared form at inference: a model per KV head, whose rotated keys and up-projections are
// written out as a layer's slots and every query head's own, gives the logits that it gives per KV
// head: nothing is added to its sums but zeros. And models with norms of the latent give what
// PyTorch computed in float64, their latents rotated or not.
#include "tests/support/testing.h"

#include "infer/infer.h"
#include "model/model.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_model.h"

#include <stdio.h>
#include <string.h>

enum { T = 150, V = 97 };

static const ModelShape per_head = {.n_layers = 3,
                                    .d_model = 40,
                                    .n_heads = 6,
                                    .n_kv_heads = 2,
                                    .head_dim = 8,
                                    .d_ffn = 56,
                                    .vocab_size = V,
                                    .max_positions = 256,
                                    .rope_pairs = 3,
                                    .d_kv = 6,
                                    .rope_theta = 500,
                                    .rms_eps = 1e-5};

// Pairs of the two KV heads of each layer: some are the same ones.
static const int32_t pairs[3][2][3] = {
    {{0, 1, 2}, {1, 2, 3}}, {{0, 2, 3}, {0, 2, 3}}, {{0, 1, 3}, {1, 2, 3}}};

// A slot of a layer: pair `index` of KV head `head`.
typedef struct Source {
    int head, index;
} Source;

// The slots of a layer in the order of their pairs.
static void sort_slots(Source slots[6], int32_t of_slots[6], int layer)
{
    int n = 0;
    for (int32_t pair = 0; pair < 4; pair++)
        for (int j = 0; j < 2; j++)
            for (int i = 0; i < 3; i++)
                if (pairs[layer][j][i] == pair) {
                    slots[n] = (Source){j, i};
                    of_slots[n++] = pair;
                }
    assert_int_equal(n, 6);
}

static void copy_row(float *to, int64_t row, const float *from, int64_t from_row, int width)
{
    memcpy(to + row * width, from + from_row * width, (size_t)width * sizeof *to);
}

// Rows of k_r, and of the query heads that read each slot; the other heads' stay 0.
static void copy_rotated(LayerParams *to, const LayerParams *from, const Source slots[6])
{
    const int D = per_head.d_model;
    for (int s = 0; s < 6; s++)
        for (int half = 0; half < 2; half++) {
            const int slot = half * 6 + s, kept = half * 3 + slots[s].index, j = slots[s].head;
            copy_row(to->k_r, slot, from->k_r, j * 6 + kept, D);
            for (int h = 3 * j; h < 3 * j + 3; h++)
                copy_row(to->q, h * 12 + slot, from->q, h * 6 + kept, D);
        }
}

// The E - 2P = 2 dims without position of each head, with 6 more of zeros; values.
static void copy_others(LayerParams *to, const LayerParams *from)
{
    const int D = per_head.d_model, R = shape_dim(&per_head, DIM_LATENT);
    for (int h = 0; h < 6; h++) {
        for (int e = 0; e < 2; e++) {
            copy_row(to->q, 6 * 12 + h * 8 + e, from->q, 6 * 6 + h * 2 + e, D);
            copy_row(to->up_k, h * 8 + e, from->up_k, h / 3 * 2 + e, R);
        }
        for (int e = 0; e < 8; e++)
            copy_row(to->up_v, h * 8 + e, from->up_v, h / 3 * 8 + e, R);
    }
}

// All tensors that both have in the same shape.
static void copy_equal_tensors(Model *to, const Model *from)
{
    for (int t = 0; t < params_n_tensors(&to->shape); t++) {
        const ParamInfo info = params_info(&to->shape, t);
        ParamInfo same;
        assert_true(params_find(&same, &from->shape, info.name));
        if (same.rows == info.rows && same.cols == info.cols)
            memcpy(to->params.flat + info.offset, from->params.flat + same.offset,
                   (size_t)info.rows * (size_t)info.cols * sizeof(float));
    }
}

static void make_models(Model *original, Model *shared)
{
    ModelShape shape = shape_original(&per_head);
    assert_ok(shape_convert_shared(&shape, &shape, 6, shape_dim(&per_head, DIM_LATENT), false));
    assert_ok(model_create(original, &per_head));
    assert_ok(model_create(shared, &shape));
    model_init_random(original, 0.15, 7);
    memcpy(original->rope_pairs, pairs, sizeof pairs);
    copy_equal_tensors(shared, original);
    for (int l = 0; l < shape.n_layers; l++) {
        Source slots[6];
        LayerParams *to = &shared->params.layers[l];
        const LayerParams *from = &original->params.layers[l];
        memset(to->q, 0, (size_t)(shape_dim(&shape, DIM_QUERY) * shape.d_model) * sizeof *to->q);
        memset(to->up_k, 0,
               (size_t)(shape_dim(&shape, DIM_K_NOPE) * shape.latent) * sizeof *to->up_k);
        sort_slots(slots, shared->rope_pairs + l * 6, l);
        copy_rotated(to, from, slots);
        copy_others(to, from);
    }
}

static InferWeights weights_of(const Model *model, DType dtype)
{
    InferWeights weights;
    const WeightSource source = testing_model_weights(model);
    assert_ok(infer_weights_read(&weights, &source, model->rope_pairs, dtype, COMPUTE_FLOAT32));
    return weights;
}

static KvCache *start_cache(const ModelShape *shape, const KvFormat *format)
{
    KvCache *cache;
    assert_ok(kv_cache_create(&cache, shape, format, 0));
    return cache;
}

// Logits of tokens [count], in chunks.
static void run(float *logits, const InferWeights *weights, const KvFormat *format,
                const int32_t *tokens, int count, int chunk)
{
    KvCache *cache = start_cache(&weights->shape, format);
    KvSequence *sequence;
    Infer *infer;
    assert_ok(kv_sequence_create(&sequence, cache));
    assert_ok(infer_create(&infer, weights, chunk, 1));
    for (int first = 0; first < count; first += chunk) {
        const int n = count - first < chunk ? count - first : chunk;
        assert_ok(infer_forward(infer, &(InferSegment){sequence, tokens + first, n}, 1));
        infer_logits(infer, logits + first * weights->shape.vocab_size, infer_hidden(infer, 0), n);
    }
    infer_release(infer);
    kv_sequence_release(sequence);
    kv_cache_release(cache);
}

// Both models' logits over caches of a format, in chunks of one size for both.
static void compare(DType dtype, const KvFormat *format, int chunk, double tolerance)
{
    Model original, shared;
    int32_t tokens[T];
    for (int t = 0; t < T; t++)
        tokens[t] = (t * 31 + t * t * 7) % V;
    make_models(&original, &shared);
    InferWeights weights[2] = {weights_of(&original, dtype), weights_of(&shared, dtype)};
    float *logits[2];
    for (int i = 0; i < 2; i++) {
        logits[i] = test_malloc(T * V * sizeof *logits[i]);
        run(logits[i], &weights[i], format, tokens, T, chunk);
        infer_weights_release(&weights[i]);
    }
    testing_assert_close("logits", logits[1], logits[0], T * V, tolerance);
    test_free(logits[0]);
    test_free(logits[1]);
    model_release(&original);
    model_release(&shared);
}

static void a_model_per_head_gives_its_logits_in_the_shared_form(void **state)
{
    (void)state;
    static const int chunks[] = {1, 7, 64, T};
    const KvFormat floats = kv_format_plain(KV_FLOAT32), halves = kv_format_plain(KV_BFLOAT16);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        compare(DTYPE_F32, &floats, chunks[i], 1e-5); // observed 0
    compare(DTYPE_F16, &floats, 64, 1e-5);
    // Should sums be in another order, the cache's rounding makes 2^-9 of a last bit; observed 0.
    compare(DTYPE_BF16, &halves, 64, 0.02);
}

// Channels are quantized each for itself, so their order and number do not matter. Observed 0.
static void quantized_channels_are_the_same_in_both_forms(void **state)
{
    (void)state;
    static const KvFormat formats[] = {{KV_FLOAT32, KV_CHANNEL, false, 8, 8, 0},
                                       {KV_FLOAT32, KV_CHANNEL, false, 4, 4, 0},
                                       {KV_FLOAT32, KV_QUANTO, false, 8, 8, -1}};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        compare(DTYPE_F32, &formats[i], 16, 0.02);
}

typedef Status LoadWeights(InferWeights *out, const char *dir, ComputeType compute);

// Both sequences of a golden file, over a float32 cache.
static void check_golden(const char *name, LoadWeights *load, int chunk)
{
    Golden golden;
    InferWeights weights;
    char file[64], directory[64];
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    snprintf(file, sizeof file, "mla/%s", name);
    snprintf(directory, sizeof directory, "models/%s", name);
    golden_open(&golden, file);
    assert_ok(load(&weights, testing_path(GOLDEN_DIR, directory), COMPUTE_FLOAT32));
    const int vocab = weights.shape.vocab_size;
    const int64_t count = (int64_t)GOLDEN_TOKENS * vocab;
    float *expected = test_malloc((size_t)count * sizeof *expected),
          *logits = test_malloc((size_t)count * sizeof *logits);
    assert_ok(safetensors_read_f32(&golden.file, "logits", (int[]){GOLDEN_B, GOLDEN_T, vocab}, 3,
                                   expected));
    for (int b = 0; b < GOLDEN_B; b++)
        run(logits + (int64_t)b * GOLDEN_T * vocab, &weights, &format, golden.inputs + b * GOLDEN_T,
            GOLDEN_T, chunk);
    testing_assert_close(name, logits, expected, count, 5e-6); // observed 7e-7
    test_free(expected);
    test_free(logits);
    infer_weights_release(&weights);
    golden_close(&golden);
}

static void directories_give_the_logits_of_pytorch(void **state)
{
    (void)state;
    static const char *const names[] = {"shared_gqa", "shared_norm_gqa", "shared_norm_mha"};
    for (int i = 0; i < 3; i++)
        for (int chunk = 1; chunk <= GOLDEN_T; chunk += GOLDEN_T - 1) {
            check_golden(names[i], infer_weights_load, chunk);
            check_golden(names[i], infer_weights_load_rotated, chunk);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_per_head_gives_its_logits_in_the_shared_form),
        cmocka_unit_test(quantized_channels_are_the_same_in_both_forms),
        cmocka_unit_test(directories_give_the_logits_of_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
