// Weights for inference: the numbers of hf_load() in the dtype of the files, joined matrices, norms
// as floats, and no more memory than was said.
#include "tests/support/testing.h"

#include "infer/weights.h"
#include "model/hf/hf.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_model.h"

#include <stdlib.h>
#include <string.h>

// Rows [first, first + rows) of a matrix are this tensor.
static void check_rows(const char *what, const WeightMatrix *w, int first, const float *expected,
                       int rows, int cols)
{
    assert_int_equal(w->n_in, cols);
    assert_true(first + rows <= w->n_out);
    float *row = malloc((size_t)cols * sizeof *row);
    assert_non_null(row);
    for (int i = 0; i < rows; i++) {
        weight_row_read(row, w, first + i);
        if (memcmp(row, expected + (int64_t)i * cols, (size_t)cols * sizeof *row) != 0)
            fail_msg("%s: row %d differs", what, first + i);
    }
    free(row);
}

static void check_attention(const InferLayer *layer, const LayerParams *params, const ModelShape *s)
{
    const int D = s->d_model, Q = shape_dim(s, DIM_QUERY), KV = shape_dim(s, DIM_KV);
    check_rows("q", &layer->qkv, 0, params->q, Q, D);
    assert_true((layer->latent_norm != NULL) == s->latent_norm);
    if (s->latent_norm)
        assert_memory_equal(layer->latent_norm, params->latent_norm,
                            (size_t)s->latent * sizeof(float));
    if (!shape_is_mla(s)) {
        assert_int_equal(layer->qkv.n_out, Q + 2 * KV);
        check_rows("k", &layer->qkv, Q, params->k, KV, D);
        check_rows("v", &layer->qkv, Q + KV, params->v, KV, D);
        assert_null(layer->up_k.values);
        assert_null(layer->up_v.values);
    } else {
        const int rope = shape_dim(s, DIM_K_ROPE), R = shape_dim(s, DIM_LATENT),
                  nope = shape_dim(s, DIM_K_NOPE), up_in = shape_dim(s, DIM_UP_INPUT);
        assert_int_equal(layer->qkv.n_out, Q + rope + R);
        check_rows("k_r", &layer->qkv, Q, params->k_r, rope, D);
        check_rows("down_kv", &layer->qkv, Q + rope, params->down_kv, R, D);
        assert_int_equal(layer->up_k.n_out, nope);
        if (nope > 0)
            check_rows("up_k", &layer->up_k, 0, params->up_k, nope, up_in);
        const int up_rows = shape_dim(s, DIM_UP_VALUE);
        check_rows("up_v", &layer->up_v, 0, params->up_v, up_rows, up_in);
        assert_int_equal(layer->up_v.n_out, up_rows);
    }
    check_rows("o", &layer->o, 0, params->o, D, shape_dim(s, DIM_Q));
}

// What was read against a model in memory, whose numbers the dtype holds exactly.
static void check_weights(const InferWeights *weights, const Model *model)
{
    const ModelShape *s = &model->shape;
    const int D = s->d_model, F = s->d_ffn, V = s->vocab_size;
    check_rows("embed", &weights->embed, 0, model->params.embed, V, D);
    check_rows("head", &weights->head, 0, model->params.head, V, D);
    assert_true((weights->head.values == weights->embed.values) == s->tied_head);
    assert_memory_equal(weights->norm, model->params.norm, (size_t)D * sizeof(float));
    for (int l = 0; l < s->n_layers; l++) {
        const InferLayer *layer = &weights->layers[l];
        const LayerParams *params = &model->params.layers[l];
        assert_memory_equal(layer->attn_norm, params->attn_norm, (size_t)D * sizeof(float));
        assert_memory_equal(layer->ffn_norm, params->ffn_norm, (size_t)D * sizeof(float));
        check_attention(layer, params, s);
        assert_int_equal(layer->gate_up.n_out, 2 * F);
        check_rows("gate", &layer->gate_up, 0, params->gate, F, D);
        check_rows("up", &layer->gate_up, F, params->up, F, D);
        check_rows("down", &layer->down, 0, params->down, D, F);
    }
    assert_memory_equal(weights->rope_pairs, model->rope_pairs,
                        (size_t)model_n_pairs(s) * sizeof(int32_t));
}

static void check_directory(const char *name, DType dtype)
{
    char directory[64];
    snprintf(directory, sizeof directory, "models/%s", name);
    Model model = golden_load_model(name);
    InferWeights weights;
    assert_ok(infer_weights_load(&weights, testing_path(GOLDEN_DIR, directory), COMPUTE_FLOAT32));
    assert_int_equal(weights.dtype, dtype);
    check_weights(&weights, &model);
    assert_int_equal(weights.size_bytes, infer_weights_bytes(&model.shape, dtype, COMPUTE_FLOAT32));
    assert_int_equal(weights.size_bytes, weights.arena.size_bytes);
    // What is not numbers of the model is padding: at most a cache line and a red zone each.
    const int64_t numbers = params_count(&model.shape) * dtype_size_bytes(dtype);
    assert_in_range(weights.size_bytes, numbers,
                    numbers + (params_n_tensors(&model.shape) + 1) * (64 + ARENA_RED_ZONE_BYTES) +
                        4 * (model.shape.n_layers * 2 + 1) * model.shape.d_model +
                        4 * model.shape.n_layers * model.shape.n_kv_heads * model.shape.rope_pairs);
    infer_weights_release(&weights);
    model_release(&model);
}

static void test_directories_are_read_in_their_dtype(void **state)
{
    (void)state;
    check_directory("gqa_tied", DTYPE_F32);
    check_directory("mha_untied", DTYPE_F32);
    check_directory("gqa_bf16", DTYPE_BF16);
    check_directory("gqa_f16", DTYPE_F16);
    check_directory("mqa_sharded", DTYPE_F32);
    check_directory("mla_gqa_2norm_joint", DTYPE_F32);
    check_directory("shared_gqa", DTYPE_F32);
    check_directory("shared_norm_mha", DTYPE_F32);
}

// A random model converted to MLA, with the numbers of its matrices rounded to bfloat16 first.
static void check_converted(const ModelShape *shape, ComputeType compute)
{
    Model mla;
    InferWeights weights;
    assert_ok(model_create(&mla, shape));
    model_init_random(&mla, 0.1, 5);
    for (int64_t i = 0; i < mla.params.count; i++) {
        uint16_t half;
        dtype_narrow(&half, DTYPE_BF16, &mla.params.flat[i], 1);
        dtype_widen(&mla.params.flat[i], &half, DTYPE_BF16, 1);
    }
    const WeightSource source = testing_model_weights(&mla);
    // Products in bfloat16 have their weights in it, whatever the file's dtype.
    const DType dtype = compute == COMPUTE_BFLOAT16 ? DTYPE_F32 : DTYPE_BF16;
    assert_ok(infer_weights_read(&weights, &source, mla.rope_pairs, dtype, compute));
    check_weights(&weights, &mla);
    assert_int_equal(weights.dtype, DTYPE_BF16);
    assert_int_equal(weights.size_bytes, infer_weights_bytes(&mla.shape, dtype, compute));
    infer_weights_release(&weights);
    model_release(&mla);
}

static void test_converted_models_are_narrowed(void **state)
{
    (void)state;
    Model model = golden_load_model("gqa_tied");
    const ModelShape original = model.shape;
    ModelShape shapes[5];
    model_release(&model);
    assert_ok(shape_convert(&shapes[0], &original, 2, 6, SVD_JOINT));
    assert_ok(shape_convert(&shapes[1], &original, 2, 6, SVD_SPLIT));
    assert_ok(shape_convert(&shapes[2], &original, original.head_dim / 2, 6, SVD_JOINT)); // no up_k
    assert_ok(shape_convert_shared(&shapes[3], &original, 3, 11, false));
    assert_ok(shape_convert_shared(&shapes[4], &original, 3, 11, true));
    for (int i = 0; i < 5; i++)
        for (int compute = 0; compute < N_COMPUTE_TYPES; compute++)
            check_converted(&shapes[i], (ComputeType)compute);
}

// Some matrices in float16, others in bfloat16: both are floats exactly.
static void test_mixed_dtypes_are_read_as_floats(void **state)
{
    (void)state;
    Model model = golden_load_model("gqa_f16");
    const int n_tensors = params_n_tensors(&model.shape);
    TensorSpec *specs = calloc((size_t)n_tensors, sizeof *specs);
    ParamInfo *infos = calloc((size_t)n_tensors, sizeof *infos);
    char dir[128], path[160];
    assert_non_null(specs);
    assert_non_null(infos);
    snprintf(dir, sizeof dir, "%s", testing_dir());
    assert_ok(hf_save(&model, GOLDEN_DIR "/models/gqa_f16", DTYPE_BF16, dir));
    for (int t = 0; t < n_tensors; t++) {
        infos[t] = params_info(&model.shape, t);
        specs[t] = (TensorSpec){.name = infos[t].name,
                                .dtype = t == 0 ? DTYPE_F16 : DTYPE_BF16,
                                .n_dims = infos[t].is_vector ? 1 : 2,
                                .dims = {infos[t].rows, infos[t].cols},
                                .values = model.params.flat + infos[t].offset};
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_ok(safetensors_write(path, specs, n_tensors));
    Model rounded;
    InferWeights weights;
    assert_ok(hf_load(&rounded, dir));
    assert_ok(infer_weights_load(&weights, dir, COMPUTE_FLOAT32));
    assert_int_equal(weights.dtype, DTYPE_F32);
    check_weights(&weights, &rounded);
    infer_weights_release(&weights);
    model_release(&rounded);
    model_release(&model);
    free(specs);
    free(infos);
}

static void test_what_cannot_be_read(void **state)
{
    (void)state;
    InferWeights weights;
    assert_fails(BAD_INPUT, "/absent/model: not a directory",
                 infer_weights_load(&weights, testing_absent("model"), COMPUTE_FLOAT32));
    Model model = golden_load_model("gqa_tied");
    model.params.layers[1].down[3] = -65520.0f;
    const WeightSource source = testing_model_weights(&model);
    assert_fails(
        FAILED, "layers.1.mlp.down_proj.weight' has -65520 at row 0, column 3, which F16",
        infer_weights_read(&weights, &source, model.rope_pairs, DTYPE_F16, COMPUTE_FLOAT32));
    model_release(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directories_are_read_in_their_dtype),
        cmocka_unit_test(test_converted_models_are_narrowed),
        cmocka_unit_test(test_mixed_dtypes_are_read_as_floats),
        cmocka_unit_test(test_what_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
