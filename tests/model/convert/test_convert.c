// Conversion: converted layers against the rows they come from and against what PyTorch makes of
// the same models (golden/mla/make_mla_golden.py).
#include "tests/support/testing.h"

#include "model/convert/rope_select.h"
#include "model/hf/safetensors.h"
#include "tests/reference/ref.h"
#include "tests/support/testing_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(int64_t count, size_t size_bytes)
{
    void *block = calloc((size_t)count, size_bytes);
    assert_non_null(block);
    return block;
}

static void convert_all(Model *mla, const Model *original)
{
    const WeightSource source = testing_model_weights(original);
    testing_convert(mla, &source);
}

// The shapes of golden/models.
static const ModelShape gqa_tied = {.n_layers = 2,
                                    .d_model = 32,
                                    .n_heads = 4,
                                    .n_kv_heads = 2,
                                    .head_dim = 8,
                                    .d_ffn = 44,
                                    .vocab_size = 64,
                                    .max_positions = 128,
                                    .rope_pairs = 4,
                                    .tied_head = true,
                                    .rope_theta = 1e4,
                                    .rms_eps = 1e-5};
static const ModelShape mha_untied = {.n_layers = 2,
                                      .d_model = 40,
                                      .n_heads = 4,
                                      .n_kv_heads = 4,
                                      .head_dim = 10,
                                      .d_ffn = 36,
                                      .vocab_size = 51,
                                      .max_positions = 128,
                                      .rope_pairs = 5,
                                      .rope_theta = 1e4,
                                      .rms_eps = 1e-5};
static const ModelShape mqa_head_dim = {.n_layers = 2,
                                        .d_model = 36,
                                        .n_heads = 3,
                                        .n_kv_heads = 1,
                                        .head_dim = 16,
                                        .d_ffn = 40,
                                        .vocab_size = 71,
                                        .max_positions = 128,
                                        .rope_pairs = 8,
                                        .tied_head = true,
                                        .rope_theta = 1e4,
                                        .rms_eps = 1e-5};

// An original model of random weights and an empty MLA model of its shape, whose KV heads keep
// different pairs: starting at layer + head, every second one, around.
static void make_pair(Model *original, Model *mla, const ModelShape *shape, int P, int d_kv,
                      SvdKind svd)
{
    ModelShape converted;
    assert_ok(shape_convert(&converted, shape, P, d_kv, svd));
    assert_ok(model_create(original, shape));
    assert_ok(model_create(mla, &converted));
    testing_fill(original->params.flat, original->params.count, 0.1, 6);
    const int half = shape->head_dim / 2;
    RopeScores scores;
    assert_ok(rope_scores_create(&scores, shape));
    *scores.n_tokens = 1;
    for (int i = 0; i < shape->n_layers * shape->n_heads * half; i++)
        scores.q_norm[i] = 1;
    for (int l = 0; l < shape->n_layers; l++)
        for (int h = 0; h < shape->n_kv_heads; h++)
            for (int p = 0; p < half; p++)
                scores.k_norm[(l * shape->n_kv_heads + h) * half + (l + h + 2 * p) % half] += p + 1;
    assert_ok(rope_select(mla->rope_pairs, shape, P, ROPE_2NORM, &scores));
    rope_scores_release(&scores);
}

static void release_pair(Model *original, Model *mla)
{
    model_release(original);
    model_release(mla);
}

static bool is_kept(const Model *mla, int layer, int kv_head, int dim)
{
    const int32_t *pairs = model_pairs(mla, layer, kv_head);
    for (int i = 0; i < mla->shape.rope_pairs; i++)
        if (pairs[i] == dim % (mla->shape.head_dim / 2))
            return true;
    return false;
}

// Where dim `dim` of a head lies: rows 0..2P-1 are its RoPE rows, the others its NoPE rows.
static int stored_row(const Model *mla, int layer, int kv_head, int dim)
{
    int half = mla->shape.head_dim / 2, P = mla->shape.rope_pairs, kept_before = 0;
    for (int p = 0; p < dim % half; p++)
        kept_before += is_kept(mla, layer, kv_head, p);
    if (is_kept(mla, layer, kv_head, dim))
        return kept_before + (dim < half ? 0 : P);
    int kept_in_first_half = dim < half ? 0 : P;
    return 2 * P + dim - kept_before - kept_in_first_half;
}

static void assert_queries_reordered(const Model *mla, const Model *original, int layer)
{
    const ModelShape *s = &mla->shape;
    int D = s->d_model, E = s->head_dim, n_rope = 2 * s->rope_pairs;
    for (int h = 0; h < s->n_heads; h++) {
        for (int dim = 0; dim < E; dim++) {
            int row = stored_row(mla, layer, h * s->n_kv_heads / s->n_heads, dim);
            int at = row < n_rope ? h * n_rope + row
                                  : s->n_heads * n_rope + h * (E - n_rope) + row - n_rope;
            assert_memory_equal(mla->params.layers[layer].q + at * D,
                                original->params.layers[layer].q + (h * E + dim) * D,
                                (size_t)D * sizeof(float));
        }
    }
}

// Puts W_k together again from k_r (exact) and up_k times down_kv; W_v is up_v times down_kv.
static void assert_keys_values_kept(const Model *mla, const Model *original, int layer)
{
    const ModelShape *s = &mla->shape;
    const LayerParams *from = &original->params.layers[layer], *to = &mla->params.layers[layer];
    int D = s->d_model, E = s->head_dim, n_rope = 2 * s->rope_pairs,
        R1 = shape_dim(s, DIM_UP_INPUT);
    float *w_kc = allocate((int64_t)s->n_kv_heads * E * D, sizeof *w_kc);
    float *w = allocate((int64_t)s->n_kv_heads * E * D, sizeof *w);
    if (to->up_k != NULL)
        ref_multiply(w_kc, to->up_k, to->down_kv, s->n_kv_heads * (E - n_rope), D, R1);
    for (int h = 0; h < s->n_kv_heads; h++) {
        for (int dim = 0; dim < E; dim++) {
            int row = stored_row(mla, layer, h, dim);
            const float *source = row < n_rope ? to->k_r + (h * n_rope + row) * D
                                               : w_kc + (h * (E - n_rope) + row - n_rope) * D;
            memcpy(w + (h * E + dim) * D, source, (size_t)D * sizeof *w);
            if (row < n_rope)
                assert_memory_equal(source, from->k + (h * E + dim) * D, (size_t)D * sizeof *w);
        }
    }
    testing_assert_close("W_k", w, from->k, (int64_t)s->n_kv_heads * E * D, 2e-7); // seen 6e-8
    const float *down_v = to->down_kv + (s->svd == SVD_SPLIT ? R1 * D : 0);
    ref_multiply(w, to->up_v, down_v, s->n_kv_heads * E, D, R1);
    testing_assert_close("W_v", w, from->v, (int64_t)s->n_kv_heads * E * D, 2e-7); // seen 6e-8
    free(w_kc);
    free(w);
}

static void assert_full_rank_keeps_all(const ModelShape *shape, int P, int d_kv, SvdKind svd)
{
    Model original, mla;
    make_pair(&original, &mla, shape, P, d_kv, svd);
    convert_all(&mla, &original);
    for (int layer = 0; layer < shape->n_layers; layer++) {
        assert_queries_reordered(&mla, &original, layer);
        assert_keys_values_kept(&mla, &original, layer);
    }
    release_pair(&original, &mla);
}

static void test_full_rank_keeps_every_row(void **state)
{
    (void)state;
    assert_full_rank_keeps_all(&gqa_tied, 2, 12, SVD_JOINT);     // 24 rows of 32
    assert_full_rank_keeps_all(&mha_untied, 2, 10, SVD_JOINT);   // 64 rows, 40 wide
    assert_full_rank_keeps_all(&mqa_head_dim, 3, 26, SVD_JOINT); // 26 rows of 36
}

static void test_split_at_full_rank_keeps_every_row(void **state)
{
    (void)state;
    ModelShape shape = gqa_tied;
    shape.d_model = 10; // the rank of both the 12 key rows and the 16 value rows: R/2
    assert_full_rank_keeps_all(&shape, 1, 10, SVD_SPLIT);
}

static void test_all_pairs_kept_leaves_only_values_to_factorize(void **state)
{
    (void)state;
    Model original, mla;
    make_pair(&original, &mla, &gqa_tied, 4, 8, SVD_JOINT);
    assert_null(mla.params.layers[1].up_k);
    const WeightSource source = testing_model_weights(&original);
    assert_ok(convert_layer(&mla, &source, 1, &testing_paper, NULL, NULL));
    assert_queries_reordered(&mla, &original, 1);
    assert_keys_values_kept(&mla, &original, 1);
    release_pair(&original, &mla);
}

// The tensors both tables have are copied, but for the queries.
static void assert_rest_copied(const ModelShape *shape)
{
    Model original, mla;
    make_pair(&original, &mla, shape, 2, 4, SVD_JOINT);
    convert_all(&mla, &original);
    const Params *from = &original.params, *to = &mla.params;
    size_t row = (size_t)shape->d_model * sizeof(float), V = (size_t)shape->vocab_size;
    size_t F = (size_t)shape->d_ffn, Q = (size_t)(shape->n_heads * shape->head_dim);
    assert_memory_equal(to->embed, from->embed, V * row);
    assert_memory_equal(to->head, from->head, V * row);
    assert_memory_equal(to->norm, from->norm, row);
    for (int l = 0; l < shape->n_layers; l++) {
        const LayerParams *a = &to->layers[l], *b = &from->layers[l];
        assert_memory_equal(a->attn_norm, b->attn_norm, row);
        assert_memory_equal(a->ffn_norm, b->ffn_norm, row);
        assert_memory_equal(a->o, b->o, Q * row);
        assert_memory_equal(a->gate, b->gate, F * row);
        assert_memory_equal(a->up, b->up, F * row);
        assert_memory_equal(a->down, b->down, F * row);
    }
    release_pair(&original, &mla);
}

static void test_everything_else_is_copied(void **state)
{
    (void)state;
    assert_rest_copied(&gqa_tied);
    assert_rest_copied(&mha_untied);
}

static void test_weight_that_is_not_finite_is_refused_with_its_layer(void **state)
{
    (void)state;
    Model original, mla;
    make_pair(&original, &mla, &mha_untied, 2, 4, SVD_SPLIT);
    original.params.layers[1].v[3 * 40 + 7] = NAN;
    const WeightSource source = testing_model_weights(&original);
    assert_ok(convert_layer(&mla, &source, 0, &testing_paper, NULL, NULL));
    assert_fails(BAD_INPUT, "layer 1: matrix: value at row 3, column 7 is nan",
                 convert_layer(&mla, &source, 1, &testing_paper, NULL, NULL));
    release_pair(&original, &mla);
}

static Status fail_to_read(const void *context, const ParamInfo *info, float *values)
{
    (void)context;
    (void)values;
    return fail(BAD_INPUT, "%s: no such tensor", info->name);
}

static void test_errors_of_the_source_are_passed_on(void **state)
{
    (void)state;
    Model original, mla;
    make_pair(&original, &mla, &mha_untied, 2, 4, SVD_JOINT);
    const WeightSource source = {&original.shape, NULL, fail_to_read};
    assert_fails(BAD_INPUT, "model.embed_tokens.weight: no such tensor",
                 convert_outside_layers(&mla, &source));
    assert_fails(BAD_INPUT, "model.layers.1.input_layernorm.weight: no such tensor",
                 convert_layer(&mla, &source, 1, &testing_paper, NULL, NULL));
    release_pair(&original, &mla);
}

// Reads every tensor of the model from the file, its name after `prefix`.
static void read_weights(Model *model, const SafeTensors *file, const char *prefix)
{
    for (int i = 0; i < params_n_tensors(&model->shape); i++) {
        ParamInfo info = params_info(&model->shape, i);
        char name[2 * PARAM_NAME_BYTES];
        snprintf(name, sizeof name, "%s%s", prefix, info.name);
        assert_ok(safetensors_read_f32(file, name, (int[]){info.rows, info.cols},
                                       info.is_vector ? 1 : 2, model->params.flat + info.offset));
    }
}

// A golden case: the original model, its conversion here, and the open file.
typedef struct Golden {
    Model original, mla;
    SafeTensors file;
    int32_t choice[4]; // strategy, SVD, P, d_kv
} Golden;

static void golden_open(Golden *g, const char *name, const char *base, const ModelShape *shape)
{
    char model[PARAM_NAME_BYTES];
    snprintf(model, sizeof model, "models/%s/model.safetensors", base);
    assert_ok(safetensors_open(&g->file, testing_path(GOLDEN_DIR, name)));
    assert_ok(safetensors_read_i32(&g->file, "case", (int[]){4}, 1, g->choice));
    ModelShape converted;
    assert_ok(shape_convert(&converted, shape, g->choice[2], g->choice[3], (SvdKind)g->choice[1]));
    assert_ok(model_create(&g->original, shape));
    assert_ok(model_create(&g->mla, &converted));
    SafeTensors weights;
    assert_ok(safetensors_open(&weights, testing_path(GOLDEN_DIR, model)));
    read_weights(&g->original, &weights, "");
    safetensors_close(&weights);
}

static void golden_close(Golden *g)
{
    release_pair(&g->original, &g->mla);
    safetensors_close(&g->file);
}

// Chooses the pairs as the case says: a 2-norm from the file's means.
static void golden_select(Golden *g)
{
    const ModelShape *s = &g->original.shape;
    const int half = s->head_dim / 2;
    RopeScores scores;
    assert_ok(rope_scores_create(&scores, s));
    *scores.n_tokens = 1;
    int64_t q_count = (int64_t)s->n_layers * s->n_heads * half;
    int64_t k_count = (int64_t)s->n_layers * s->n_kv_heads * half;
    float *norms = allocate(q_count + k_count, sizeof *norms);
    if (g->choice[0] == ROPE_2NORM) {
        assert_ok(safetensors_read_f32(&g->file, "q_norm", (int[]){s->n_layers, s->n_heads, half},
                                       3, norms));
        assert_ok(safetensors_read_f32(
            &g->file, "k_norm", (int[]){s->n_layers, s->n_kv_heads, half}, 3, norms + q_count));
    }
    for (int64_t i = 0; i < q_count + k_count; i++)
        scores.block[i] = norms[i];
    assert_ok(rope_select(g->mla.rope_pairs, s, g->choice[2], (RopeStrategy)g->choice[0], &scores));
    free(norms);
    rope_scores_release(&scores);
}

static void assert_golden_pairs(const char *name, const char *base, const ModelShape *shape)
{
    Golden g;
    int32_t pairs[2 * 4 * 8];
    golden_open(&g, name, base, shape);
    golden_select(&g);
    int dims[] = {shape->n_layers, shape->n_kv_heads, g.choice[2]};
    assert_ok(safetensors_read_i32(&g.file, "pairs", dims, 3, pairs));
    assert_memory_equal(g.mla.rope_pairs, pairs,
                        (size_t)(dims[0] * dims[1] * dims[2]) * sizeof *pairs);
    golden_close(&g);
}

static void test_golden_pairs(void **state)
{
    (void)state;
    assert_golden_pairs("mla/gqa_2norm_joint.safetensors", "gqa_tied", &gqa_tied);
    assert_golden_pairs("mla/gqa_full.safetensors", "gqa_tied", &gqa_tied);
    assert_golden_pairs("mla/gqa_high_joint.safetensors", "gqa_tied", &gqa_tied);
    assert_golden_pairs("mla/gqa_uniform_split.safetensors", "gqa_tied", &gqa_tied);
    assert_golden_pairs("mla/mha_2norm_split.safetensors", "mha_untied", &mha_untied);
    assert_golden_pairs("mla/mha_full.safetensors", "mha_untied", &mha_untied);
    assert_golden_pairs("mla/mha_low_split.safetensors", "mha_untied", &mha_untied);
    assert_golden_pairs("mla/mha_uniform_joint.safetensors", "mha_untied", &mha_untied);
    assert_golden_pairs("mla/mqa_2norm_joint.safetensors", "mqa_head_dim", &mqa_head_dim);
}

// Components have no sign, so products are compared; the factors themselves after giving our
// component r the sign of the golden one.
static void align_signs(LayerParams *ours, const LayerParams *golden, const ModelShape *s)
{
    int D = s->d_model, R = shape_dim(s, DIM_LATENT), R1 = shape_dim(s, DIM_UP_INPUT);
    for (int r = 0; r < R; r++) {
        double dot = 0;
        for (int j = 0; j < D; j++)
            dot += (double)ours->down_kv[r * D + j] * (double)golden->down_kv[r * D + j];
        if (dot >= 0)
            continue;
        for (int j = 0; j < D; j++)
            ours->down_kv[r * D + j] *= -1;
        for (int i = 0; i < shape_dim(s, DIM_K_NOPE) && r < R1; i++)
            ours->up_k[i * R1 + r] *= -1;
        for (int i = 0; i < shape_dim(s, DIM_KV) && r >= R - R1; i++)
            ours->up_v[i * R1 + r - (R - R1)] *= -1;
    }
}

static void assert_golden_weights(const char *name, const char *base, const ModelShape *shape)
{
    Golden g;
    Model expected;
    golden_open(&g, name, base, shape);
    golden_select(&g);
    convert_all(&g.mla, &g.original);
    assert_ok(model_create(&expected, &g.mla.shape));
    read_weights(&expected, &g.file, "weight.");
    for (int l = 0; l < shape->n_layers; l++)
        align_signs(&g.mla.params.layers[l], &expected.params.layers[l], &g.mla.shape);
    for (int i = 0; i < params_n_tensors(&g.mla.shape); i++) {
        ParamInfo info = params_info(&g.mla.shape, i);
        bool factor = strstr(info.name, "kv_proj") != NULL;
        testing_assert_close(info.name, g.mla.params.flat + info.offset,
                             expected.params.flat + info.offset, (int64_t)info.rows * info.cols,
                             factor ? 1e-7 : 0); // seen 0: both are rounded from double
    }
    model_release(&expected);
    golden_close(&g);
}

static void test_golden_weights(void **state)
{
    (void)state;
    assert_golden_weights("mla/gqa_2norm_joint.safetensors", "gqa_tied", &gqa_tied);
    assert_golden_weights("mla/gqa_uniform_split.safetensors", "gqa_tied", &gqa_tied);
    assert_golden_weights("mla/mha_uniform_joint.safetensors", "mha_untied", &mha_untied);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_rank_keeps_every_row),
        cmocka_unit_test(test_split_at_full_rank_keeps_every_row),
        cmocka_unit_test(test_all_pairs_kept_leaves_only_values_to_factorize),
        cmocka_unit_test(test_everything_else_is_copied),
        cmocka_unit_test(test_weight_that_is_not_finite_is_refused_with_its_layer),
        cmocka_unit_test(test_errors_of_the_source_are_passed_on),
        cmocka_unit_test(test_golden_pairs),
        cmocka_unit_test(test_golden_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
