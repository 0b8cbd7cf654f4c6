// The whole model against the golden files: logits, loss and the gradient of every parameter, for
// original attention and MLA in both its forms, by every kernel.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_transformer.h"

#include "model/hf/hf.h"
#include "model/hf/safetensors.h"
#include "model/paper/paper_import.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = GOLDEN_B, T = GOLDEN_T };

// The conversions that bring their weights, and the model whose shape was converted.
static const char *const conversions[][2] = {
    {"mla/gqa_2norm_joint", "gqa_tied"},     {"mla/gqa_uniform_split", "gqa_tied"},
    {"mla/mha_uniform_joint", "mha_untied"}, {"mla/mqa_2norm_joint", "mqa_head_dim"},
    {"mla/qwen3_2norm_joint", "qwen3_gqa"},  {"mla/qwen3_low_split", "qwen3"},
    {"mla/qwen2_2norm_joint", "qwen2"},      {"mla/smollm3_2norm_joint", "smollm3"}};

static const char *const shared_models[] = {"shared_gqa", "shared_norm_gqa", "shared_norm_mha"};

enum {
    N_CONVERSIONS = sizeof conversions / sizeof conversions[0],
    N_SHARED = sizeof shared_models / sizeof shared_models[0]
};

// How far numbers may be from what PyTorch computes in float64, by the type of products.
static const struct Precision {
    double logits;         // up to 10
    double loss, gradient; // relative; a gradient's to the largest of its tensor
} precisions[N_COMPUTE_TYPES] = {
    [COMPUTE_FLOAT32] = {1e-4, 1e-6, 2e-5}, // seen 1.9e-5, 9.1e-8, 3.7e-6
    [COMPUTE_BFLOAT16] = {0.4, 4e-3, 0.12}, // seen 0.21, 2.2e-3, 0.064
};

// Reads the tensor "kind.<parameter>" (kind: weight or grad) of every parameter.
static void read_parameters(float *flat, const ModelShape *shape, const SafeTensors *file,
                            const char *kind)
{
    for (int i = 0; i < params_n_tensors(shape); i++) {
        ParamInfo info = params_info(shape, i);
        char name[PARAM_NAME_BYTES + 16];
        snprintf(name, sizeof name, "%s.%s", kind, info.name);
        assert_ok(safetensors_read_f32(file, name, (int[]){info.rows, info.cols},
                                       info.is_vector ? 1 : 2, flat + info.offset));
    }
}

static Model load_conversion(const Golden *golden, const char *base)
{
    Model original = golden_load_model(base), model;
    const ModelShape *s = &original.shape;
    const int P = golden->rope_pairs;
    ModelShape shape;
    assert_ok(shape_convert(&shape, s, P, golden->d_kv, golden->svd));
    assert_ok(model_create(&model, &shape));
    assert_ok(safetensors_read_i32(&golden->file, "pairs", (int[]){s->n_layers, s->n_kv_heads, P},
                                   3, model.rope_pairs));
    read_parameters(model.params.flat, &shape, &golden->file, "weight");
    model_release(&original);
    return model;
}

static double largest_difference(const float *a, const float *b, int64_t count)
{
    double worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (isnan(difference))
            return difference;
        worst = fmax(worst, difference);
    }
    return worst;
}

static void check_logits(const Model *model, const Golden *golden, ComputeType compute)
{
    int V = model->shape.vocab_size;
    float *expected = ref_nans(B * T * V), *logits = ref_nans(B * T * V);
    assert_ok(safetensors_read_f32(&golden->file, "logits", (int[]){B, T, V}, 3, expected));
    ModelRun run = testing_run_model(model, B, T, FORWARD_ONLY, compute);
    transformer_forward(&run.ws, model, golden->inputs, NULL);
    transformer_logits(&run.ws, model, 0, 5, logits); // not all at once: places must fit
    transformer_logits(&run.ws, model, 5, B * T - 5, logits + 5 * V);
    ref_assert_error(golden->name, largest_difference(logits, expected, B * T * V),
                     precisions[compute].logits);
    testing_release_model_run(&run);
    free(expected);
    free(logits);
}

// Computes gradients too.
static void check_loss(ModelRun *run, const Golden *golden, ComputeType compute)
{
    float expected;
    assert_ok(safetensors_read_f32(&golden->file, "loss", (int[]){1}, 1, &expected));
    double loss =
        testing_add_gradients(run, golden->inputs, golden->targets, 1.0f / (B * T)) / (B * T);
    ref_assert_error("loss", fabs(loss / (double)expected - 1.0), precisions[compute].loss);
}

static void check_loss_and_gradients(const Model *model, const Golden *golden, ComputeType compute)
{
    ModelRun run = testing_run_model(model, B, T, RECOMPUTE_NONE, compute);
    check_loss(&run, golden, compute);
    float *expected = ref_nans(model->params.count);
    read_parameters(expected, &model->shape, &golden->file, "grad");
    for (int i = 0; i < params_n_tensors(&model->shape); i++) {
        ParamInfo info = params_info(&model->shape, i);
        testing_assert_close(info.name, run.grads.params.flat + info.offset, expected + info.offset,
                             (int64_t)info.rows * info.cols, precisions[compute].gradient);
    }
    free(expected);
    testing_release_model_run(&run);
}

// The model of a directory against the golden file of a folder.
static void check_model(const char *folder, const char *model_name, ComputeType compute)
{
    Golden golden;
    char name[128];
    snprintf(name, sizeof name, "%s/%s", folder, model_name);
    golden_open(&golden, name);
    Model model = golden_load_model(model_name);
    check_logits(&model, &golden, compute);
    check_loss_and_gradients(&model, &golden, compute);
    model_release(&model);
    golden_close(&golden);
}

static void check_models(ComputeType compute)
{
    for (int i = 0; golden_models[i] != NULL; i++)
        check_model("models", golden_models[i], compute);
    for (int i = 0; i < N_SHARED; i++)
        check_model("mla", shared_models[i], compute);
}

static void check_conversions(ComputeType compute)
{
    for (int i = 0; i < N_CONVERSIONS; i++) {
        Golden golden;
        golden_open(&golden, conversions[i][0]);
        Model model = load_conversion(&golden, conversions[i][1]);
        check_logits(&model, &golden, compute);
        check_loss_and_gradients(&model, &golden, compute);
        model_release(&model);
        golden_close(&golden);
    }
}

static void test_models_against_pytorch(void **state)
{
    (void)state;
    check_models(COMPUTE_FLOAT32);
}

static void test_conversions_against_pytorch(void **state)
{
    (void)state;
    check_conversions(COMPUTE_FLOAT32);
}

static void test_mla_directory_gives_the_same_logits(void **state)
{
    (void)state;
    Golden golden;
    golden_open(&golden, "mla/gqa_2norm_joint");
    Model model = golden_load_model("mla_gqa_2norm_joint");
    check_logits(&model, &golden, COMPUTE_FLOAT32);
    model_release(&model);
    golden_close(&golden);
}

// Directories as the paper's code saves them, made from these conversions.
static void test_models_of_the_papers_code_give_the_same_logits(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"paper/v12_2norm_joint", "mla/gqa_2norm_joint"},
        {"paper/v12_low_split", "mla/mha_low_split"},
        {"paper/v10_2norm_split", "mla/mha_2norm_split"},
        {"paper/v10_high_joint", "mla/gqa_high_joint"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[PATH_BYTES];
        Golden golden;
        Model model;
        PaperConfig paper;
        snprintf(dir, sizeof dir, "%s", testing_path(GOLDEN_DIR, cases[i][0]));
        golden_open(&golden, cases[i][1]);
        assert_ok(paper_config_read(&paper, dir));
        assert_ok(paper_load(&model, &paper, dir, &(PaperPairs){NULL, NULL}));
        assert_int_equal(model.shape.rope_pairs, golden.rope_pairs);
        assert_int_equal(model.shape.d_kv, golden.d_kv);
        check_logits(&model, &golden, COMPUTE_FLOAT32);
        ModelRun run = testing_run_model(&model, B, T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
        check_loss(&run, &golden, COMPUTE_FLOAT32);
        testing_release_model_run(&run);
        paper_config_release(&paper);
        model_release(&model);
        golden_close(&golden);
    }
}

static void test_stories260k_logits(void **state)
{
    (void)state;
    enum { TOKENS = 64, V = 512 };
    Model model;
    assert_ok(hf_load(&model, testing_asset("models/stories260K")));
    SafeTensors file;
    assert_ok(safetensors_open(&file, testing_path(GOLDEN_DIR, "models/stories260K.safetensors")));
    int32_t tokens[TOKENS];
    float *expected = ref_nans(TOKENS * V), *logits = ref_nans(TOKENS * V);
    assert_ok(safetensors_read_i32(&file, "tokens", (int[]){TOKENS}, 1, tokens));
    assert_ok(safetensors_read_f32(&file, "logits", (int[]){TOKENS, V}, 2, expected));
    ModelRun run = testing_run_model(&model, 1, TOKENS, FORWARD_ONLY, COMPUTE_FLOAT32);
    transformer_forward(&run.ws, &model, tokens, NULL);
    transformer_logits(&run.ws, &model, 0, TOKENS, logits);
    ref_assert_error("stories260K", largest_difference(logits, expected, TOKENS * V),
                     1e-4); // seen 1.8e-5, logits are up to 20
    testing_release_model_run(&run);
    free(expected);
    free(logits);
    safetensors_close(&file);
    model_release(&model);
}
// Slots in ascending order of their pairs: KV heads are the inner order. Slot s of q's head h is
// zero unless it is one of the head's KV head.
static void fill_rotated(Model *shared, const Model *original, int layer)
{
    const ModelShape *s = &original->shape;
    const LayerParams *from = &original->params.layers[layer], *to = &shared->params.layers[layer];
    const int E = s->head_dim, K = s->n_kv_heads, G = s->n_heads / K, P = shared->shape.rope_pairs;
    const int64_t D = s->d_model;
    for (int slot = 0; slot < P; slot++) {
        const int pair = slot / K, j = slot % K;
        shared->rope_pairs[(int64_t)layer * P + slot] = pair;
        for (int half = 0; half < 2; half++) {
            const int row = half * P + slot, dim = pair + half * (E / 2);
            memcpy(to->k_r + row * D, from->k + (j * E + dim) * D, (size_t)D * sizeof(float));
            for (int h = j * G; h < (j + 1) * G; h++)
                memcpy(to->q + (h * 2 * P + row) * D, from->q + (h * E + dim) * D,
                       (size_t)D * sizeof(float));
        }
    }
}

// Every pair of every KV head has a slot, the latent is the values, and keys need none of it.
static Model share_exactly(const Model *original)
{
    const ModelShape *s = &original->shape;
    const int E = s->head_dim, K = s->n_kv_heads, R = K * E;
    ModelShape shape;
    assert_ok(shape_convert_shared(&shape, s, K * E / 2, R, false));
    Model model;
    assert_ok(model_create(&model, &shape));
    for (int i = 0; i < params_n_tensors(&shape); i++) {
        const ParamInfo to = params_info(&shape, i);
        ParamInfo from;
        if (params_find(&from, s, to.name) && from.rows == to.rows)
            memcpy(model.params.flat + to.offset, original->params.flat + from.offset,
                   (size_t)to.rows * (size_t)to.cols * sizeof(float));
    }
    for (int l = 0; l < s->n_layers; l++) {
        const LayerParams *w = &model.params.layers[l];
        fill_rotated(&model, original, l);
        memcpy(w->down_kv, original->params.layers[l].v,
               (size_t)R * (size_t)s->d_model * sizeof(float));
        for (int e = 0; e < s->n_heads * E; e++)
            w->up_v[(int64_t)e * R + e / E / (s->n_heads / K) * E + e % E] = 1;
    }
    return model;
}

static void test_shared_form_with_all_pairs_and_values_is_the_original(void **state)
{
    (void)state;
    static const char *const names[] = {"gqa_tied", "mqa_head_dim", "gqa_theta", "llama3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Golden golden;
        char name[128];
        snprintf(name, sizeof name, "models/%s", names[i]);
        golden_open(&golden, name);
        Model original = golden_load_model(names[i]), shared = share_exactly(&original);
        check_logits(&shared, &golden, COMPUTE_FLOAT32);
        model_release(&original);
        model_release(&shared);
        golden_close(&golden);
    }
}
static void test_bfloat16_by_every_kernel_of_this_machine(void **state)
{
    (void)state;
    for (int kernel = -1; testing_next_kernel(&kernel);) {
        check_models(COMPUTE_BFLOAT16);
        check_conversions(COMPUTE_BFLOAT16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models_against_pytorch),
        cmocka_unit_test(test_conversions_against_pytorch),
        cmocka_unit_test(test_mla_directory_gives_the_same_logits),
        cmocka_unit_test(test_models_of_the_papers_code_give_the_same_logits),
        cmocka_unit_test(test_stories260k_logits),
        cmocka_unit_test(test_shared_form_with_all_pairs_and_values_is_the_original),
        cmocka_unit_test(test_bfloat16_by_every_kernel_of_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
