// Inference through the cache against the forward of training, which computes every position anew:
// chunks of any size, single tokens, batches of sequences of different lengths, shared beginnings;
// and greedy answers against those of independent programs.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "base/json.h"
#include "eval/forward_pass.h"
#include "infer/infer.h"
#include "model/hf/hf.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_model.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { T = 150, V = 97 };

// E is 8 or 12; MLA where d_kv or the latent of the shared form is not 0.
#define SHAPE(h, k, e, p, d, kind, ...)                                                            \
    {                                                                                              \
        .n_layers = 3, .d_model = 40, .n_heads = (h), .n_kv_heads = (k), .head_dim = (e),          \
        .d_ffn = 56, .vocab_size = V, .max_positions = 256, .rope_pairs = (p), .d_kv = (d),        \
        .svd = (kind), .rope_theta = 500, .rms_eps = 1e-5, __VA_ARGS__                             \
    }

static const ModelShape shapes[] = {
    SHAPE(6, 2, 8, 4, 0, SVD_JOINT),  // GQA
    SHAPE(3, 3, 12, 6, 0, SVD_JOINT), // MHA
    SHAPE(4, 1, 8, 4, 0, SVD_JOINT),  // MQA
    SHAPE(6, 2, 8, 1, 4, SVD_JOINT),
    SHAPE(6, 2, 8, 2, 6, SVD_SPLIT),
    SHAPE(3, 3, 12, 2, 9, SVD_JOINT),
    SHAPE(4, 2, 8, 4, 5, SVD_JOINT),   // no dims without RoPE
    SHAPE(3, 3, 12, 3, 13, SVD_JOINT), // a latent wider than the heads
    SHAPE(6, 2, 8, 3, 0, SVD_JOINT, .latent = 10),
    SHAPE(6, 2, 8, 7, 0, SVD_JOINT, .latent = 9, .latent_norm = true), // slots with equal pairs
    SHAPE(3, 3, 12, 2, 0, SVD_JOINT, .latent = 40, .latent_norm = true),
    // What architectures besides Llama have.
    SHAPE(6, 2, 8, 2, 6, SVD_JOINT, .rope_scaling = {8, 1, 4, 64}, .attention_bias = BIAS_QKV),
    SHAPE(6, 2, 12, 6, 0, SVD_JOINT, .qk_norm = true),
    SHAPE(6, 2, 8, 1, 4, SVD_JOINT, .qk_norm = true),
    SHAPE(3, 3, 12, 2, 6, SVD_SPLIT, .qk_norm = true),
    SHAPE(4, 2, 8, 4, 5, SVD_JOINT, .qk_norm = true), // factors alone, no dims without RoPE
    SHAPE(6, 2, 8, 4, 0, SVD_JOINT, .attention_bias = BIAS_QKV),
    SHAPE(6, 2, 8, 3, 0, SVD_JOINT, .latent = 10, .attention_bias = BIAS_QKV_OUT),
    SHAPE(6, 2, 8, 4, 0, SVD_JOINT, .no_rope = {{2}}), // the second layer
    SHAPE(6, 2, 8, 2, 6, SVD_JOINT, .no_rope = {{5}}), // the first and the third
    SHAPE(6, 2, 8, 3, 0, SVD_JOINT, .latent = 10, .no_rope = {{2}}),
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

// A random model, and the logits of T tokens in the forward of training.
typedef struct Case {
    Model model;
    InferWeights weights;
    int32_t tokens[T];
    float logits[T * V]; // expected
} Case;

// Pairs of a head: P ascending numbers of E/2, different ones in neighbouring heads. Of the shared
// form spread over all pairs, each as often as it takes.
static void choose_pairs(Model *model)
{
    const ModelShape *s = &model->shape;
    const int P = s->rope_pairs, half = s->head_dim / 2, spare = half - P;
    for (int64_t i = 0; i < model_n_pairs(s); i++) {
        const int row = (int)(i / P), slot = (int)(i % P);
        model->rope_pairs[i] = shape_is_shared(s) ? (slot * half + row) / P % half
                                                  : slot + (spare > 0 ? row % (spare + 1) : 0);
    }
}

// Biases are 0 and norms of the latent and of heads 1 in a random model.
static void vary_vectors(Model *model)
{
    const ModelShape *s = &model->shape;
    for (int t = 0; t < params_n_tensors(s); t++) {
        const ParamInfo info = params_info(s, t);
        for (int i = 0; i < info.rows && info.is_bias; i++)
            model->params.flat[info.offset + i] = 0.0625f * (float)((7 * i + t) % 11 - 5);
    }
    for (int l = 0; l < s->n_layers && s->qk_norm; l++)
        for (int e = 0; e < s->head_dim; e++) {
            model->params.layers[l].q_norm[e] = 0.5f + 0.25f * (float)((3 * e + l) % 7);
            model->params.layers[l].k_norm[e] = 1.75f - 0.25f * (float)((5 * e + l) % 11);
        }
    for (int l = 0; l < s->n_layers && s->latent_norm; l++)
        for (int i = 0; i < s->latent; i++)
            model->params.layers[l].latent_norm[i] = 0.5f + 0.125f * (float)((5 * i + l) % 9);
}

static Case *start_case_as(const ModelShape *shape, DType dtype, ComputeType compute)
{
    Case *c = calloc(1, sizeof *c);
    ForwardPass pass;
    assert_non_null(c);
    assert_ok(model_create(&c->model, shape));
    model_init_random(&c->model, 0.15, 7);
    choose_pairs(&c->model);
    vary_vectors(&c->model);
    const WeightSource source = testing_model_weights(&c->model);
    assert_ok(infer_weights_read(&c->weights, &source, c->model.rope_pairs, dtype, compute));
    for (int t = 0; t < T; t++)
        c->tokens[t] = (t * 31 + t * t * 7) % V;
    assert_ok(forward_pass_start(&pass, &c->model, T, COMPUTE_FLOAT32));
    transformer_forward(&pass.ws, &c->model, c->tokens, NULL);
    transformer_logits(&pass.ws, &c->model, 0, T, c->logits);
    forward_pass_release(&pass);
    return c;
}

static Case *start_case(const ModelShape *shape, DType dtype)
{
    return start_case_as(shape, dtype, COMPUTE_FLOAT32);
}

static void end_case(Case *c)
{
    infer_weights_release(&c->weights);
    model_release(&c->model);
    free(c);
}

static KvCache *start_cache(const ModelShape *shape, KvType type)
{
    KvCache *cache;
    const KvFormat format = {.type = type, .scheme = KV_PLAIN};
    assert_ok(kv_cache_create(&cache, shape, &format, 0));
    return cache;
}

// The logits of `count` tokens from position `first` on, which are the last rows of a forward.
static void check_rows(Infer *infer, const Case *c, int first_row, int first, int count,
                       double tolerance, const char *what)
{
    float *logits = malloc((size_t)count * V * sizeof *logits);
    infer_logits(infer, logits, infer_hidden(infer, first_row), count);
    testing_assert_close(what, logits, c->logits + first * V, (int64_t)count * V, tolerance);
    free(logits);
}

// Chunks of 1, of sizes on both sides of a cache block, and of everything at once.
static void chunks_give_the_logits_of_a_full_forward(void **state)
{
    (void)state;
    static const int chunks[] = {1, 7, 63, 64, 65, T};
    for (int i = 0; i < N_SHAPES; i++) {
        Case *c = start_case(&shapes[i], DTYPE_F32);
        for (size_t k = 0; k < sizeof chunks / sizeof chunks[0]; k++) {
            KvCache *cache = start_cache(&shapes[i], KV_FLOAT32);
            KvSequence *sequence;
            Infer *infer;
            assert_ok(kv_sequence_create(&sequence, cache));
            assert_ok(infer_create(&infer, &c->weights, chunks[k], 1));
            for (int first = 0; first < T; first += chunks[k]) {
                const int n = T - first < chunks[k] ? T - first : chunks[k];
                assert_ok(infer_forward(infer, &(InferSegment){sequence, c->tokens + first, n}, 1));
                check_rows(infer, c, 0, first, n, 2e-5, "logits of a chunk"); // seen: 3e-6
            }
            assert_int_equal(kv_sequence_length(sequence), T);
            kv_sequence_release(sequence);
            kv_cache_release(cache);
            infer_release(infer);
        }
        end_case(c);
    }
}

// Three sequences at positions of their own: prompts of different lengths as segments of one
// forward, then a token each.
static void a_batch_gives_the_logits_of_its_sequences(void **state)
{
    (void)state;
    enum { N = 3, STEPS = 20 };
    static const int lengths[N] = {1, 62, 110};
    for (int i = 0; i < N_SHAPES; i++) {
        Case *c = start_case(&shapes[i], DTYPE_F32);
        KvCache *cache = start_cache(&shapes[i], KV_FLOAT32);
        KvSequence *sequences[N];
        InferSegment segments[N];
        Infer *infer;
        assert_ok(infer_create(&infer, &c->weights, T + 50, N));
        for (int k = 0; k < N; k++) {
            assert_ok(kv_sequence_create(&sequences[k], cache));
            segments[k] = (InferSegment){sequences[k], c->tokens, lengths[k]};
        }
        assert_ok(infer_forward(infer, segments, N));
        check_rows(infer, c, 1, 0, lengths[1], 2e-5, "logits of a segment");
        for (int step = 0; step < STEPS; step++) {
            for (int k = 0; k < N; k++)
                segments[k] = (InferSegment){sequences[k], c->tokens + lengths[k] + step, 1};
            assert_ok(infer_forward(infer, segments, N));
            for (int k = 0; k < N; k++)
                check_rows(infer, c, k, lengths[k] + step, 1, 2e-5, "logits of a step");
        }
        for (int k = 0; k < N; k++)
            kv_sequence_release(sequences[k]);
        kv_cache_release(cache);
        infer_release(infer);
        end_case(c);
    }
}

// Two continuations of one beginning, which ends within a block: neither sees the other's tokens.
static void forks_share_their_beginning_and_nothing_else(void **state)
{
    (void)state;
    enum { BEGINNING = 70, END = 100 };
    for (int i = 0; i < N_SHAPES; i++) {
        Case *c = start_case(&shapes[i], DTYPE_F32);
        KvCache *cache = start_cache(&shapes[i], KV_FLOAT32);
        KvSequence *sequence, *other;
        Infer *infer;
        int32_t zeros[END] = {0};
        assert_ok(infer_create(&infer, &c->weights, 32, 2));
        assert_ok(kv_sequence_create(&sequence, cache));
        assert_ok(infer_prefill(infer, sequence, c->tokens, BEGINNING));
        assert_ok(kv_sequence_fork(&other, sequence));
        const int n = END - BEGINNING;
        assert_ok(infer_prefill(infer, other, zeros, n));
        assert_ok(infer_prefill(infer, sequence, c->tokens + BEGINNING, n));
        check_rows(infer, c, 0, BEGINNING, n, 2e-5, "logits after a fork");
        kv_sequence_release(sequence);
        kv_sequence_release(other);
        kv_cache_release(cache);
        infer_release(infer);
        end_case(c);
    }
}

// Logits do not depend on the number of threads but for the order of a few sums.
static void threads_change_the_last_digits_alone(void **state)
{
    (void)state;
    const int before = omp_get_max_threads();
    for (int threads = 1; threads <= 4; threads++) {
        omp_set_num_threads(threads);
        Case *c = start_case(&shapes[3], DTYPE_F32);
        KvCache *cache = start_cache(&shapes[3], KV_FLOAT32);
        KvSequence *sequence;
        Infer *infer;
        assert_ok(infer_create(&infer, &c->weights, 100, 1));
        assert_ok(kv_sequence_create(&sequence, cache));
        assert_ok(infer_prefill(infer, sequence, c->tokens, T - 1));
        assert_ok(infer_forward(infer, &(InferSegment){sequence, c->tokens + T - 1, 1}, 1));
        check_rows(infer, c, 0, T - 1, 1, 2e-5, "logits on threads");
        kv_sequence_release(sequence);
        kv_cache_release(cache);
        infer_release(infer);
        end_case(c);
    }
    omp_set_num_threads(before);
}

// The last logits, after a prompt in chunks and one single token.
static void last_logits(float logits[V], const Case *c, KvType type)
{
    KvCache *cache = start_cache(&c->model.shape, type);
    KvSequence *sequence;
    Infer *infer;
    assert_ok(infer_create(&infer, &c->weights, 100, 1));
    assert_ok(kv_sequence_create(&sequence, cache));
    assert_ok(infer_prefill(infer, sequence, c->tokens, T - 1));
    assert_ok(infer_forward(infer, &(InferSegment){sequence, c->tokens + T - 1, 1}, 1));
    infer_logits(infer, logits, infer_hidden(infer, -1), 1);
    kv_sequence_release(sequence);
    kv_cache_release(cache);
    infer_release(infer);
}

// Weights and cache in half precision: close to float32, and different from it, or they were not
// used.
static void half_precision_is_near_float32(void **state)
{
    (void)state;
    static const DType dtypes[] = {DTYPE_BF16, DTYPE_F16};
    for (int i = 0; i < N_SHAPES; i++)
        for (int d = 0; d < 2; d++) {
            Case *c = start_case(&shapes[i], dtypes[d]);
            float logits[V];
            last_logits(logits, c, KV_BFLOAT16);
            const double error = testing_error(logits, c->logits + (T - 1) * V, V, 1e-6);
            assert_true(error < 0.03); // seen: 0.004 to 0.012
            assert_true(error > 1e-5);
            end_case(c);
        }
}

// Products in bfloat16 by every kernel that this machine has: close to float32, and to one another.
static void bfloat16_products_are_near_float32(void **state)
{
    (void)state;
    const Bf16Kernel best = bf16_kernel();
    for (int i = 0; i < N_SHAPES; i++) {
        Case *c = start_case_as(&shapes[i], DTYPE_F32, COMPUTE_BFLOAT16);
        float logits[N_BF16_KERNELS][V];
        for (int kernel = -1; testing_next_kernel(&kernel);) {
            last_logits(logits[kernel], c, KV_FLOAT32);
            const double error = testing_error(logits[kernel], c->logits + (T - 1) * V, V, 1e-6);
            assert_in_range(1e6 * error, 10, 30000);
            testing_assert_close("logits of a kernel", logits[kernel], logits[BF16_EMULATED], V,
                                 0.02);
        }
        end_case(c);
    }
    bf16_force_kernel(best);
}

// A cache without memory for all segments refuses, and every sequence goes on as before.
static void a_full_cache_leaves_the_sequences_as_they_were(void **state)
{
    (void)state;
    Case *c = start_case(&shapes[0], DTYPE_F32);
    const int64_t block = 64 * shape_cache_numbers(&shapes[0]) * (int64_t)sizeof(float);
    const KvFormat format = {.type = KV_FLOAT32, .scheme = KV_PLAIN};
    KvCache *cache;
    KvSequence *sequence;
    Infer *infer;
    assert_ok(kv_cache_create(&cache, &shapes[0], &format, block));
    assert_ok(infer_create(&infer, &c->weights, 64, 1));
    assert_ok(kv_sequence_create(&sequence, cache));
    assert_ok(infer_forward(infer, &(InferSegment){sequence, c->tokens, 60}, 1));
    const InferSegment ten = {sequence, c->tokens + 60, 10};
    assert_true(infer_forward(infer, &ten, 1) != OK);
    assert_int_equal(kv_sequence_length(sequence), 60);
    assert_ok(infer_forward(infer, &(InferSegment){sequence, c->tokens + 60, 4}, 1));
    check_rows(infer, c, 0, 60, 4, 2e-5, "logits after a refusal");
    kv_sequence_release(sequence);
    kv_cache_release(cache);
    infer_release(infer);
    end_case(c);
}

// ---- Greedy answers ----

static int largest(const float *logits, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

// n ids after the prompt, decoded one by one.
static void decode_greedily(int32_t *ids, int n, const char *dir, const int32_t *prompt,
                            int n_prompt)
{
    InferWeights weights;
    KvSequence *sequence;
    Infer *infer;
    assert_ok(infer_weights_load(&weights, dir, COMPUTE_FLOAT32));
    KvCache *cache = start_cache(&weights.shape, KV_FLOAT32);
    float *logits = malloc((size_t)weights.shape.vocab_size * sizeof *logits);
    assert_ok(infer_create(&infer, &weights, 64, 1));
    assert_ok(kv_sequence_create(&sequence, cache));
    assert_ok(infer_prefill(infer, sequence, prompt, n_prompt));
    for (int i = 0; i < n; i++) {
        infer_logits(infer, logits, infer_hidden(infer, -1), 1);
        ids[i] = largest(logits, weights.shape.vocab_size);
        assert_ok(infer_forward(infer, &(InferSegment){sequence, &ids[i], 1}, 1));
    }
    free(logits);
    kv_sequence_release(sequence);
    kv_cache_release(cache);
    infer_release(infer);
    infer_weights_release(&weights);
}

// A JSON list of ids; returns how many.
static int read_ids(int32_t *ids, int most, const json_t *list)
{
    const int n = (int)json_array_size(list);
    assert_true(n > 0 && n <= most);
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

// Written by an implementation of its own (assets/golden); the least margin of a token is 0.004.
static void greedy_answers_are_those_of_the_golden_file(void **state)
{
    (void)state;
    enum { MOST = 512 };
    json_t *golden;
    int32_t prompt[MOST], expected[MOST], ids[MOST];
    const char *path = testing_asset("golden/mla260K/decode.json");
    assert_ok(json_read(&golden, path));
    int n_prompt = read_ids(prompt, MOST, json_object_get(golden, "prompt_ids"));
    int n = read_ids(expected, MOST, json_object_get(golden, "greedy_ids"));
    decode_greedily(ids, n, testing_asset("golden/mla260K"), prompt, n_prompt);
    assert_memory_equal(ids, expected, (size_t)n * sizeof *ids);

    const json_t *original = json_object_get(golden, "stories260K_greedy");
    n = read_ids(expected, MOST, json_object_get(original, "ids"));
    prompt[0] = 1; // BOS
    decode_greedily(ids, n, testing_asset("models/stories260K"), prompt, 1);
    assert_memory_equal(ids, expected, (size_t)n * sizeof *ids);
    json_decref(golden);
}

// One token at a time through the cache, against what transformers computes from all of them.
static void every_architecture_decodes_as_transformers_does(void **state)
{
    (void)state;
    for (int i = 0; golden_architectures[i] != NULL; i++) {
        char name[64];
        Golden golden;
        InferWeights weights;
        Infer *infer;
        snprintf(name, sizeof name, "models/%s", golden_architectures[i]);
        golden_open(&golden, name);
        assert_ok(infer_weights_load(&weights, testing_path(GOLDEN_DIR, name), COMPUTE_FLOAT32));
        assert_ok(infer_create(&infer, &weights, 1, 1));
        const int n_vocab = weights.shape.vocab_size;
        const int64_t count = (int64_t)GOLDEN_TOKENS * n_vocab;
        float *got = malloc((size_t)count * sizeof *got),
              *expected = malloc((size_t)count * sizeof *got);
        assert_true(got != NULL && expected != NULL);
        assert_ok(safetensors_read_f32(&golden.file, "logits", (int[]){GOLDEN_B, GOLDEN_T, n_vocab},
                                       3, expected));
        KvCache *cache = start_cache(&weights.shape, KV_FLOAT32);
        for (int b = 0; b < GOLDEN_B; b++) {
            KvSequence *sequence;
            assert_ok(kv_sequence_create(&sequence, cache));
            for (int n = b * GOLDEN_T; n < (b + 1) * GOLDEN_T; n++) {
                assert_ok(infer_forward(infer, &(InferSegment){sequence, golden.inputs + n, 1}, 1));
                infer_logits(infer, got + (int64_t)n * n_vocab, infer_hidden(infer, 0), 1);
            }
            kv_sequence_release(sequence);
        }
        testing_assert_close(name, got, expected, count, 2e-5); // seen 1.6e-6
        kv_cache_release(cache);
        infer_release(infer);
        infer_weights_release(&weights);
        golden_close(&golden);
        free(got);
        free(expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_give_the_logits_of_a_full_forward),
        cmocka_unit_test(a_batch_gives_the_logits_of_its_sequences),
        cmocka_unit_test(forks_share_their_beginning_and_nothing_else),
        cmocka_unit_test(threads_change_the_last_digits_alone),
        cmocka_unit_test(half_precision_is_near_float32),
        cmocka_unit_test(bfloat16_products_are_near_float32),
        cmocka_unit_test(a_full_cache_leaves_the_sequences_as_they_were),
        cmocka_unit_test(every_architecture_decodes_as_transformers_does),
        cmocka_unit_test(greedy_answers_are_those_of_the_golden_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
