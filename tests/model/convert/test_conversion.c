// A conversion from end to end, as training starts: calibration pass, choice of pairs,
// factorization, forward; against what PyTorch computes in double from the same models
// (golden/mla/make_mla_golden.py), and at full rank against the original itself.
#include "tests/support/testing.h"

#include "base/intmath.h"
#include "model/transformer/transformer.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_model.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = GOLDEN_B, T = GOLDEN_T };

// The cases, and the model each converts.
static const char *const cases[][2] = {
    {"mla/gqa_high_joint", "gqa_tied"},      {"mla/gqa_2norm_joint", "gqa_tied"},
    {"mla/gqa_uniform_split", "gqa_tied"},   {"mla/gqa_full", "gqa_tied"},
    {"mla/mha_low_split", "mha_untied"},     {"mla/mha_2norm_split", "mha_untied"},
    {"mla/mha_uniform_joint", "mha_untied"}, {"mla/mha_full", "mha_untied"},
    {"mla/mqa_2norm_joint", "mqa_head_dim"}, {"mla/qwen3_2norm_joint", "qwen3_gqa"},
    {"mla/qwen3_low_split", "qwen3"},        {"mla/qwen3_full", "qwen3_gqa"},
    {"mla/qwen2_2norm_joint", "qwen2"},      {"mla/llama_bias_low_split", "llama_bias"},
    {"mla/smollm3_2norm_joint", "smollm3"},  {"mla/smollm3_low_split", "smollm3"},
    {"mla/smollm3_full", "smollm3"},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

// Runs the model over [b, t] tokens. logits [b t, V] and scores may be NULL; returns the mean loss,
// or 0 without targets.
static double run_model(const Model *model, const int32_t *inputs, const int32_t *targets, int b,
                        int t, float *logits, RopeScores *scores)
{
    Workspace ws;
    Arena arena = arena_start("test");
    workspace_place(&ws, &arena, &arena, &model->shape, b, t, omp_get_max_threads(), FORWARD_ONLY,
                    COMPUTE_FLOAT32);
    assert_ok(arena_allocate(&arena));
    workspace_place(&ws, &arena, &arena, &model->shape, b, t, omp_get_max_threads(), FORWARD_ONLY,
                    COMPUTE_FLOAT32);
    transformer_start(&ws, model);
    transformer_forward(&ws, model, inputs, scores);
    if (logits != NULL)
        transformer_logits(&ws, model, 0, b * t, logits);
    double loss = targets != NULL ? transformer_loss(&ws, model, targets, 0, NULL) / (b * t) : 0;
    arena_release(&arena);
    return loss;
}

static float *new_logits(const Model *model)
{
    float *logits = calloc((size_t)(B * T) * (size_t)model->shape.vocab_size, sizeof *logits);
    assert_non_null(logits);
    return logits;
}

// Means over the calibration tokens against the golden ones.
static void check_means(const char *name, const double *sums, double n_tokens,
                        const SafeTensors *file, const int dims[3])
{
    int64_t count = (int64_t)dims[0] * dims[1] * dims[2];
    float *expected = malloc((size_t)count * sizeof *expected);
    float *means = malloc((size_t)count * sizeof *means);
    assert_non_null(expected);
    assert_non_null(means);
    assert_ok(safetensors_read_f32(file, name, dims, 3, expected));
    for (int64_t i = 0; i < count; i++)
        means[i] = (float)(sums[i] / n_tokens);
    testing_assert_close(name, means, expected, count, 1e-6); // seen 1.2e-7
    free(expected);
    free(means);
}

// The pass over the golden file's `calibration` tokens, one sequence after another as the trainer
// reads them.
static void calibrate(RopeScores *scores, const Model *original, const Golden *golden)
{
    const ModelShape *s = &original->shape;
    const TensorInfo *tensor = safetensors_find(&golden->file, "calibration");
    assert_non_null(tensor);
    int n_sequences = (int)tensor->dims[0], length = (int)tensor->dims[1];
    int32_t *tokens = malloc((size_t)(n_sequences * length) * sizeof *tokens);
    assert_non_null(tokens);
    assert_ok(safetensors_read_i32(&golden->file, "calibration", (int[]){n_sequences, length}, 2,
                                   tokens));
    assert_ok(rope_scores_create(scores, s));
    for (int i = 0; i < n_sequences; i++)
        run_model(original, tokens + i * length, NULL, 1, length, NULL, scores);
    assert_true(*scores->n_tokens == (double)n_sequences * length);
    check_means("q_norm", scores->q_norm, *scores->n_tokens, &golden->file,
                (int[]){s->n_layers, s->n_heads, s->head_dim / 2});
    check_means("k_norm", scores->k_norm, *scores->n_tokens, &golden->file,
                (int[]){s->n_layers, s->n_kv_heads, s->head_dim / 2});
    free(tokens);
}

static void check_pairs(const Model *mla, const Golden *golden)
{
    const ModelShape *s = &mla->shape;
    int64_t count = (int64_t)s->n_layers * s->n_kv_heads * golden->rope_pairs;
    int32_t *expected = malloc((size_t)count * sizeof *expected);
    assert_non_null(expected);
    assert_ok(safetensors_read_i32(&golden->file, "pairs",
                                   (int[]){s->n_layers, s->n_kv_heads, golden->rope_pairs}, 3,
                                   expected));
    assert_memory_equal(mla->rope_pairs, expected, (size_t)count * sizeof *expected);
    free(expected);
}

static Model convert(const Model *original, int P, int d_kv, SvdKind svd, RopeStrategy strategy,
                     const RopeScores *scores)
{
    ModelShape shape;
    Model mla;
    assert_ok(shape_convert(&shape, &original->shape, P, d_kv, svd));
    assert_ok(model_create(&mla, &shape));
    assert_ok(rope_select(mla.rope_pairs, &shape, P, strategy, scores));
    const WeightSource source = testing_model_weights(original);
    testing_convert(&mla, &source);
    return mla;
}

static void check_forward(const Model *mla, const Golden *golden)
{
    int V = mla->shape.vocab_size;
    float *logits = new_logits(mla), *expected = new_logits(mla), expected_loss;
    assert_ok(safetensors_read_f32(&golden->file, "logits", (int[]){B, T, V}, 3, expected));
    assert_ok(safetensors_read_f32(&golden->file, "loss", (int[]){1}, 1, &expected_loss));
    double loss = run_model(mla, golden->inputs, golden->targets, B, T, logits, NULL);
    testing_assert_close(golden->name, logits, expected, B * T * V, 2e-5); // seen 2.1e-6
    double error = fabs(loss / (double)expected_loss - 1);
    if (!(error < 1e-6)) // seen 6.1e-8
        fail_msg("%s: loss %.9g, expected %.9g", golden->name, loss, (double)expected_loss);
    free(logits);
    free(expected);
}

static void test_conversions_against_pytorch(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        Golden golden;
        RopeScores scores = {0};
        golden_open(&golden, cases[i][0]);
        Model original = golden_load_model(cases[i][1]);
        if (golden.strategy == ROPE_2NORM)
            calibrate(&scores, &original, &golden);
        Model mla = convert(&original, golden.rope_pairs, golden.d_kv, golden.svd, golden.strategy,
                            &scores);
        check_pairs(&mla, &golden);
        check_forward(&mla, &golden);
        rope_scores_release(&scores);
        model_release(&mla);
        model_release(&original);
        golden_close(&golden);
    }
}

// ---- Full rank: nothing is lost ----

// Fails unless both models give the same logits over the model's golden tokens.
static void assert_same_logits(const char *what, const Model *a, const Model *b,
                               const int32_t *inputs, double tolerance)
{
    float *of_a = new_logits(a), *of_b = new_logits(b);
    run_model(a, inputs, NULL, B, T, of_a, NULL);
    run_model(b, inputs, NULL, B, T, of_b, NULL);
    testing_assert_close(what, of_a, of_b, (int64_t)B * T * a->shape.vocab_size, tolerance);
    free(of_a);
    free(of_b);
}

static void read_inputs(int32_t *inputs, const char *model)
{
    Golden golden;
    char name[128];
    snprintf(name, sizeof name, "models/%s", model);
    golden_open(&golden, name);
    memcpy(inputs, golden.inputs, sizeof golden.inputs);
    golden_close(&golden);
}

// All pairs kept, the latent as wide as the values' rank: the original in another form.
static void test_full_rank_with_all_pairs_is_the_original(void **state)
{
    (void)state;
    for (int i = 0; golden_models[i] != NULL; i++) {
        int32_t inputs[B * T];
        read_inputs(inputs, golden_models[i]);
        Model original = golden_load_model(golden_models[i]);
        const ModelShape *s = &original.shape;
        const int d_kv = min_int(s->head_dim, s->d_model / s->n_kv_heads);
        Model mla = convert(&original, s->head_dim / 2, d_kv, SVD_JOINT, ROPE_LOW, NULL);
        assert_same_logits(golden_models[i], &mla, &original, inputs, 2e-5); // seen 1.2e-6
        model_release(&mla);
        model_release(&original);
    }
}

// The original attention with the RoPE of the kept pairs only: the angles of the others are taken
// from the table, which serves all heads because `pairs` are the same for all of them.
static void run_partial_rope(float *logits, const Model *model, const int32_t *pairs, int P,
                             const int32_t *inputs)
{
    Workspace ws;
    Arena arena = arena_start("test");
    workspace_place(&ws, &arena, &arena, &model->shape, B, T, omp_get_max_threads(), FORWARD_ONLY,
                    COMPUTE_FLOAT32);
    assert_ok(arena_allocate(&arena));
    workspace_place(&ws, &arena, &arena, &model->shape, B, T, omp_get_max_threads(), FORWARD_ONLY,
                    COMPUTE_FLOAT32);
    transformer_start(&ws, model);
    for (int p = 0, half = model->shape.head_dim / 2; p < half; p++) {
        bool is_kept = false;
        for (int i = 0; i < P; i++)
            is_kept |= pairs[i] == p;
        for (int t = 0; t < T && !is_kept; t++) {
            ws.cos_table[t * half + p] = 1;
            ws.sin_table[t * half + p] = 0;
        }
    }
    transformer_forward(&ws, model, inputs, NULL);
    transformer_logits(&ws, model, 0, B * T, logits);
    arena_release(&arena);
}

static void check_full_rank(const char *what, const Model *original, int P, int d_kv, SvdKind svd,
                            const int32_t *inputs)
{
    for (RopeStrategy strategy = ROPE_HIGH; strategy <= ROPE_UNIFORM; strategy++) {
        Model mla = convert(original, P, d_kv, svd, strategy, NULL);
        float *logits = new_logits(&mla), *expected = new_logits(&mla);
        run_partial_rope(expected, original, mla.rope_pairs, P, inputs);
        run_model(&mla, inputs, NULL, B, T, logits, NULL);
        int64_t count = (int64_t)B * T * mla.shape.vocab_size;
        testing_assert_close(what, logits, expected, count, 2e-5); // seen 1.8e-6
        // The pairs that lost their rotation are missed: the comparison sees them.
        run_model(original, inputs, NULL, B, T, expected, NULL);
        assert_true(testing_error(logits, expected, count, 1e-6) > 1e-3); // seen 8.5e-3
        free(logits);
        free(expected);
        model_release(&mla);
    }
}

// The latent as wide as the rank of [W_kc; W_v], the fewer of its rows and D: only the rotations of
// the dropped pairs are lost.
static void test_full_rank_joint_is_partial_rope_alone(void **state)
{
    (void)state;
    for (int i = 0; golden_models[i] != NULL; i++) {
        int32_t inputs[B * T];
        read_inputs(inputs, golden_models[i]);
        Model original = golden_load_model(golden_models[i]);
        const ModelShape *s = &original.shape;
        int P = s->head_dim / 4, rows = s->n_kv_heads * 2 * (s->head_dim - P);
        int rank = rows < s->d_model ? rows : s->d_model;
        check_full_rank(golden_models[i], &original, P, rank / s->n_kv_heads, SVD_JOINT, inputs);
        model_release(&original);
    }
}

// Each half as wide as D: that fits only where the heads together are wider than the model.
static void test_full_rank_split_is_partial_rope_alone(void **state)
{
    (void)state;
    const ModelShape shape = {.n_layers = 2,
                              .d_model = 8,
                              .n_heads = 8,
                              .n_kv_heads = 4,
                              .head_dim = 6,
                              .d_ffn = 16,
                              .vocab_size = 23,
                              .max_positions = 64,
                              .rope_pairs = 3,
                              .rope_theta = 10000,
                              .rms_eps = 1e-5};
    Model original;
    assert_ok(model_create(&original, &shape));
    model_init_random(&original, 0.4, 7);
    int32_t inputs[B * T];
    for (int n = 0; n < B * T; n++)
        inputs[n] = n * n % 23;
    check_full_rank("split", &original, 1, 2 * 8 / 4, SVD_SPLIT, inputs);
    model_release(&original);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversions_against_pytorch),
        cmocka_unit_test(test_full_rank_with_all_pairs_is_the_original),
        cmocka_unit_test(test_full_rank_joint_is_partial_rope_alone),
        cmocka_unit_test(test_full_rank_split_is_partial_rope_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
