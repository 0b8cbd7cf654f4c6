// The whole model against the golden files: logits, loss and the gradient of every parameter, for
// original attention and MLA in both its forms; and what must not change them: threads,
// micro-batches, logits.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "model/hf/hf.h"
#include "model/hf/safetensors.h"
#include "model/kernels/gemm.h"
#include "model/paper/paper_import.h"
#include "model/trainable.h"
#include "model/transformer/transformer.h"
#include "tests/reference/ref.h"
#include "tests/support/testing_golden.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 2, B = GOLDEN_B, T = GOLDEN_T };

// The conversions that bring their weights, and the model whose shape was converted.
static const char *const conversions[][2] = {
    {"mla/gqa_2norm_joint", "gqa_tied"},     {"mla/gqa_uniform_split", "gqa_tied"},
    {"mla/mha_uniform_joint", "mha_untied"}, {"mla/mqa_2norm_joint", "mqa_head_dim"},
    {"mla/qwen3_2norm_joint", "qwen3_gqa"},  {"mla/qwen3_low_split", "qwen3"},
    {"mla/qwen2_2norm_joint", "qwen2"}};

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

// A model with a workspace and gradients; the model is borrowed.
typedef struct Run {
    const Model *model;
    Model grads; // a gradient has the parameters' layout
    Arena activations, scratch;
    Workspace ws;
} Run;

static Run start_typed_run(const Model *model, int n_sequences, int n_tokens,
                           ActivationPolicy policy, ComputeType compute)
{
    Run run = {.model = model,
               .activations = arena_start("activations"),
               .scratch = arena_start("scratch")};
    assert_ok(model_create(&run.grads, &model->shape));
    for (int pass = 0; pass < 2; pass++) {
        workspace_place(&run.ws, &run.activations, &run.scratch, &model->shape, n_sequences,
                        n_tokens, MOST_THREADS, policy, compute);
        if (pass == 0) {
            assert_ok(arena_allocate(&run.activations));
            assert_ok(arena_allocate(&run.scratch));
        }
    }
    transformer_start(&run.ws, model);
    return run;
}

static Run start_run(const Model *model, int n_sequences, int n_tokens, ActivationPolicy policy)
{
    return start_typed_run(model, n_sequences, n_tokens, policy, COMPUTE_FLOAT32);
}

static void release_run(Run *run)
{
    model_release(&run->grads);
    arena_release(&run->activations);
    arena_release(&run->scratch);
}

// Adds to the run's gradients; returns the loss's sum.
static double add_gradients(Run *run, const int32_t *inputs, const int32_t *targets, float scale)
{
    transformer_forward(&run->ws, run->model, inputs, NULL);
    double sum = transformer_loss(&run->ws, run->model, targets, scale, &run->grads.params);
    transformer_backward(&run->ws, run->model, inputs, &run->grads.params);
    return sum;
}

// ---- Golden files ----

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
    Run run = start_typed_run(model, B, T, FORWARD_ONLY, compute);
    transformer_forward(&run.ws, model, golden->inputs, NULL);
    transformer_logits(&run.ws, model, 0, 5, logits); // not all at once: places must fit
    transformer_logits(&run.ws, model, 5, B * T - 5, logits + 5 * V);
    ref_assert_error(golden->name, largest_difference(logits, expected, B * T * V),
                     precisions[compute].logits);
    release_run(&run);
    free(expected);
    free(logits);
}

// Computes gradients too.
static void check_loss(Run *run, const Golden *golden, ComputeType compute)
{
    float expected;
    assert_ok(safetensors_read_f32(&golden->file, "loss", (int[]){1}, 1, &expected));
    double loss = add_gradients(run, golden->inputs, golden->targets, 1.0f / (B * T)) / (B * T);
    ref_assert_error("loss", fabs(loss / (double)expected - 1.0), precisions[compute].loss);
}

static void check_loss_and_gradients(const Model *model, const Golden *golden, ComputeType compute)
{
    Run run = start_typed_run(model, B, T, RECOMPUTE_NONE, compute);
    check_loss(&run, golden, compute);
    float *expected = ref_nans(model->params.count);
    read_parameters(expected, &model->shape, &golden->file, "grad");
    for (int i = 0; i < params_n_tensors(&model->shape); i++) {
        ParamInfo info = params_info(&model->shape, i);
        testing_assert_close(info.name, run.grads.params.flat + info.offset, expected + info.offset,
                             (int64_t)info.rows * info.cols, precisions[compute].gradient);
    }
    free(expected);
    release_run(&run);
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
        Run run = start_typed_run(&model, B, T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
        check_loss(&run, &golden, COMPUTE_FLOAT32);
        release_run(&run);
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
    Run run = start_run(&model, 1, TOKENS, FORWARD_ONLY);
    transformer_forward(&run.ws, &model, tokens, NULL);
    transformer_logits(&run.ws, &model, 0, TOKENS, logits);
    ref_assert_error("stories260K", largest_difference(logits, expected, TOKENS * V),
                     1e-4); // seen 1.8e-5, logits are up to 20
    release_run(&run);
    free(expected);
    free(logits);
    safetensors_close(&file);
    model_release(&model);
}

// ---- What must not change anything ----

// The ways of attention: MLA expands keys and values unless its latent is narrow. The shared form
// without and with a norm. Last those whose heads have norms.
typedef enum Form {
    ORIGINAL,
    MLA,
    NARROW_MLA,
    SHARED,
    NARROW_SHARED,
    NORMED,
    NORMED_MLA,
    N_FORMS
} Form;

// Large enough that OpenBLAS uses its threads and attention more than one tile.
static Model make_model(Form form, bool tied_head)
{
    const int head_dim = form == NARROW_MLA || form == NARROW_SHARED ? 32 : 16;
    ModelShape shape = {.n_layers = 2,
                        .d_model = 96,
                        .n_heads = 6,
                        .n_kv_heads = 2,
                        .head_dim = head_dim,
                        .d_ffn = 200,
                        .vocab_size = 301,
                        .max_positions = 512,
                        .rope_pairs = head_dim / 2,
                        .tied_head = tied_head,
                        .rope_theta = 1e4,
                        .rms_eps = 1e-5,
                        .qk_norm = form == NORMED || form == NORMED_MLA};
    if (form == SHARED)
        assert_ok(shape_convert_shared(&shape, &shape, 9, 30, false));
    else if (form == NARROW_SHARED)
        assert_ok(shape_convert_shared(&shape, &shape, 3, 5, true));
    else if (form != ORIGINAL && form != NORMED)
        assert_ok(shape_convert(&shape, &shape, 3, form == NARROW_MLA ? 2 : 10, SVD_JOINT));
    Model model;
    assert_ok(model_create(&model, &shape));
    model_init_random(&model, 0.08, 1);
    return model;
}

enum { LONG_T = 150 };

static void fill_tokens(int32_t *tokens, int count, int vocab_size)
{
    for (int i = 0; i < count; i++)
        tokens[i] = (int32_t)((i * 7919LL + i / 3 * 31LL) % vocab_size);
}

static void test_threads_change_nothing_in_forward_and_rounding_in_gradients(void **state)
{
    (void)state;
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    int threads = omp_get_max_threads();
    for (Form form = ORIGINAL; form < N_FORMS; form++) {
        Model model = make_model(form, true);
        Run one = start_run(&model, B, LONG_T, RECOMPUTE_NONE),
            two = start_run(&model, B, LONG_T, RECOMPUTE_NONE);
        omp_set_num_threads(1);
        double loss_one = add_gradients(&one, tokens, tokens + 1, 0.01f);
        omp_set_num_threads(2);
        double loss_two = add_gradients(&two, tokens, tokens + 1, 0.01f);
        omp_set_num_threads(threads);
        size_t bytes = (size_t)B * LONG_T * (size_t)model.shape.d_model * sizeof(float);
        assert_memory_equal(one.ws.hidden, two.ws.hidden, bytes);
        assert_true(loss_one == loss_two);
        testing_assert_close("gradients", two.grads.params.flat, one.grads.params.flat,
                             model.params.count, 2e-6); // seen 0; with the dims of SmolLM-135M 8e-7
        if (gemm_kernel_name() != NULL)
            assert_memory_equal(two.grads.params.flat, one.grads.params.flat,
                                (size_t)model.params.count * sizeof(float));
        release_run(&one);
        release_run(&two);
        model_release(&model);
    }
}

// Gradients of some tensors alone are those of all.
static void check_frozen(const Model *model, const Run *all, const int32_t *tokens,
                         const Trainable *trained)
{
    const ModelShape *s = &model->shape;
    Run some = start_run(model, B, LONG_T, RECOMPUTE_NONE);
    float *flat = some.grads.params.flat;
    params_release(&some.grads.params);
    assert_ok(trainable_place(&some.grads.params, s, trained, flat));
    add_gradients(&some, tokens, tokens + 1, 0.01f);
    for (int t = 0; t < params_n_tensors(s); t++) {
        const ParamInfo info = params_info(s, t);
        const int64_t count = trainable_tensor_gradients(trained, s, t);
        const float *expected = all->grads.params.flat + info.offset;
        assert_true(count > 0 || !trainable_has(trained, info.name));
        testing_assert_close(info.name, flat, expected, count, 1e-6); // seen 0
        if (gemm_kernel_name() != NULL)
            assert_memory_equal(flat, expected, (size_t)count * sizeof(float));
        flat += count;
    }
    release_run(&some);
}

static void test_frozen_tensors_change_no_other_gradient(void **state)
{
    (void)state;
    static char attention[] = "attention", ffn[] = "*.mlp.*", embed[] = "model.embed_tokens.*",
                norms[] = "*norm*", head[] = "lm_head.weight", q[] = "*.0.self_attn.q_proj.*";
    char *const patterns[] = {attention, ffn, embed, norms, q, head};
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    for (Form form = ORIGINAL; form < N_FORMS; form++)
        for (int tied = 0; tied < 2; tied++) {
            Model model = make_model(form, tied == 1);
            Run all = start_run(&model, B, LONG_T, RECOMPUTE_NONE);
            add_gradients(&all, tokens, tokens + 1, 0.01f);
            for (int p = 0; p < (tied ? 5 : 6); p++)
                check_frozen(&model, &all, tokens, &(Trainable){&patterns[p], 1});
            release_run(&all);
            model_release(&model);
        }
}

static void test_two_micro_batches_add_up_to_one_batch(void **state)
{
    (void)state;
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    for (Form form = ORIGINAL; form < N_FORMS; form++) {
        Model model = make_model(form, false);
        Run whole = start_run(&model, 2, LONG_T, RECOMPUTE_NONE),
            half = start_run(&model, 1, LONG_T, RECOMPUTE_NONE);
        double loss = add_gradients(&whole, tokens, tokens + 1, 0.01f);
        double sum = add_gradients(&half, tokens, tokens + 1, 0.01f);
        sum += add_gradients(&half, tokens + LONG_T, tokens + LONG_T + 1, 0.01f);
        ref_assert_error("loss", fabs(sum / loss - 1.0), 1e-7); // seen 4e-16
        testing_assert_close("gradients", half.grads.params.flat, whole.grads.params.flat,
                             model.params.count, 1e-5); // seen 8.6e-7
        release_run(&whole);
        release_run(&half);
        model_release(&model);
    }
}

// Rows of `narrow` columns -> the first of `wide` columns.
static void pad(float *to, int wide, const float *from, int narrow, int rows)
{
    for (int i = 0; i < rows; i++)
        memcpy(to + i * wide, from + i * narrow, (size_t)narrow * sizeof(float));
}

// The narrow model with zeros added to its latent: the same function, too wide for the latent
// space.
static Model widen(const Model *narrow)
{
    ModelShape shape = narrow->shape;
    shape.d_kv = 14;
    Model wide;
    assert_ok(model_create(&wide, &shape));
    memcpy(wide.rope_pairs, narrow->rope_pairs,
           (size_t)(shape.n_layers * shape.n_kv_heads * shape.rope_pairs) * sizeof(int32_t));
    for (int i = 0; i < params_n_tensors(&shape); i++) {
        const ParamInfo to = params_info(&shape, i), from = params_info(&narrow->shape, i);
        pad(wide.params.flat + to.offset, to.cols, narrow->params.flat + from.offset, from.cols,
            from.rows);
    }
    return wide;
}

static void test_attention_in_the_latent_space_is_the_same_function(void **state)
{
    (void)state;
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    Model narrow = make_model(NARROW_MLA, true), wide = widen(&narrow);
    Run latent = start_run(&narrow, B, LONG_T, RECOMPUTE_NONE),
        expanded = start_run(&wide, B, LONG_T, RECOMPUTE_NONE);
    assert_ptr_equal(latent.ws.form, &attention_forms[ATTENTION_MLA_LATENT]);
    assert_ptr_equal(expanded.ws.form, &attention_forms[ATTENTION_MLA_EXPANDED]);
    const double loss = add_gradients(&latent, tokens, tokens + 1, 0.01f);
    ref_assert_error("loss", fabs(add_gradients(&expanded, tokens, tokens + 1, 0.01f) / loss - 1.0),
                     1e-7); // seen 1e-10
    for (int i = 0; i < params_n_tensors(&narrow.shape); i++) {
        const ParamInfo got = params_info(&narrow.shape, i), with = params_info(&wide.shape, i);
        const int64_t count = (int64_t)got.rows * got.cols;
        float *expected = ref_nans(count);
        for (int row = 0; row < got.rows; row++)
            memcpy(expected + (int64_t)row * got.cols,
                   expanded.grads.params.flat + with.offset + (int64_t)row * with.cols,
                   (size_t)got.cols * sizeof(float));
        testing_assert_close(got.name, latent.grads.params.flat + got.offset, expected, count,
                             1e-5); // seen 1.4e-6
        free(expected);
    }
    release_run(&latent);
    release_run(&expanded);
    model_release(&narrow);
    model_release(&wide);
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

static void test_fresh_gradients_are_written_over_whatever_was_there(void **state)
{
    (void)state;
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 301);
    for (int kind = 0; kind < 2 * N_FORMS; kind++) {
        Model model = make_model((Form)(kind / 2), kind % 2 == 1);
        Run added = start_run(&model, 1, LONG_T, RECOMPUTE_NONE),
            fresh = start_run(&model, 1, LONG_T, RECOMPUTE_NONE);
        add_gradients(&added, tokens, tokens + 1, 0.01f);
        for (int64_t i = 0; i < model.params.count; i++)
            fresh.grads.params.flat[i] = NAN;
        fresh.ws.fresh_gradients = true;
        add_gradients(&fresh, tokens, tokens + 1, 0.01f);
        for (int64_t i = 0; i < model.params.count; i++) // 0 + g may be a zero of the other sign
            assert_true(fresh.grads.params.flat[i] == added.grads.params.flat[i]);
        release_run(&added);
        release_run(&fresh);
        model_release(&model);
    }
}

// A model whose own head holds the embedding's numbers computes the same, and the two gradients
// together are the tied one's.
static void test_tied_gradient_is_the_sum_of_head_and_embedding(void **state)
{
    (void)state;
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 40); // tokens occur several times
    Model tied = make_model(ORIGINAL, true), untied = make_model(ORIGINAL, false);
    int64_t embed_floats = (int64_t)tied.shape.vocab_size * tied.shape.d_model;
    memcpy(untied.params.flat, tied.params.flat, (size_t)tied.params.count * sizeof(float));
    memcpy(untied.params.head, tied.params.embed, (size_t)embed_floats * sizeof(float));
    Run run_tied = start_run(&tied, 1, LONG_T, RECOMPUTE_NONE),
        run_untied = start_run(&untied, 1, LONG_T, RECOMPUTE_NONE);
    assert_true(add_gradients(&run_tied, tokens, tokens + 1, 0.01f) ==
                add_gradients(&run_untied, tokens, tokens + 1, 0.01f));
    float *sum = run_untied.grads.params.embed;
    for (int64_t i = 0; i < embed_floats; i++)
        sum[i] += run_untied.grads.params.head[i];
    testing_assert_close("embedding", run_tied.grads.params.embed, sum, embed_floats,
                         1e-6); // seen 1.2e-7
    release_run(&run_tied);
    release_run(&run_untied);
    model_release(&tied);
    model_release(&untied);
}

static void test_logits_between_loss_and_backward_change_nothing(void **state)
{
    (void)state;
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 301);
    Model model = make_model(MLA, true);
    Run plain = start_run(&model, 1, LONG_T, RECOMPUTE_NONE),
        asked = start_run(&model, 1, LONG_T, RECOMPUTE_NONE);
    add_gradients(&plain, tokens, tokens + 1, 0.01f);
    float *logits = ref_nans(4 * 301);
    transformer_forward(&asked.ws, &model, tokens, NULL);
    transformer_loss(&asked.ws, &model, tokens + 1, 0.01f, &asked.grads.params);
    transformer_logits(&asked.ws, &model, LONG_T - 4, 4, logits);
    transformer_backward(&asked.ws, &model, tokens, &asked.grads.params);
    assert_memory_equal(asked.grads.params.flat, plain.grads.params.flat,
                        (size_t)model.params.count * sizeof(float));
    free(logits);
    release_run(&plain);
    release_run(&asked);
    model_release(&model);
}

static void test_workspace_without_training_gives_the_same_loss(void **state)
{
    (void)state;
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 301);
    Model model = make_model(MLA, false);
    Run training = start_run(&model, 1, LONG_T, RECOMPUTE_NONE),
        plain = start_run(&model, 1, LONG_T, FORWARD_ONLY);
    transformer_forward(&training.ws, &model, tokens, NULL);
    transformer_forward(&plain.ws, &model, tokens, NULL);
    double with = transformer_loss(&training.ws, &model, tokens + 1, 1.0f, &training.grads.params);
    assert_true(transformer_loss(&plain.ws, &model, tokens + 1, 1.0f, NULL) == with);
    assert_true(plain.activations.size_bytes < training.activations.size_bytes);
    release_run(&training);
    release_run(&plain);
    model_release(&model);
}

// ---- Recomputing ----

static void check_recomputing(Form form, ComputeType compute)
{
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 401);
    Model model = make_model(form, true);
    static const ActivationPolicy policies[] = {RECOMPUTE_NONE, RECOMPUTE_ATTENTION,
                                                RECOMPUTE_LAYER};
    static const int forms[N_FORMS] = {ATTENTION_MHA,           ATTENTION_MLA_EXPANDED,
                                       ATTENTION_MLA_LATENT,    ATTENTION_MLA_EXPANDED,
                                       ATTENTION_SHARED_LATENT, ATTENTION_MHA,
                                       ATTENTION_MLA_EXPANDED};
    Run runs[3];
    double losses[3];
    for (int i = 0; i < 3; i++) {
        runs[i] = start_typed_run(&model, 1, LONG_T, policies[i], compute);
        assert_ptr_equal(runs[i].ws.form, &attention_forms[forms[form]]);
        losses[i] = add_gradients(&runs[i], tokens, tokens + 1, 1.0f);
    }
    size_t bytes = (size_t)model.params.count * sizeof(float);
    for (int i = 1; i < 3; i++) {
        assert_true(losses[i] == losses[0]);
        assert_memory_equal(runs[i].grads.params.flat, runs[0].grads.params.flat, bytes);
        assert_true(runs[i].activations.size_bytes < runs[i - 1].activations.size_bytes);
    }
    for (int i = 0; i < 3; i++)
        release_run(&runs[i]);
    model_release(&model);
}

static void test_recomputing_gives_the_same_bits_in_less_memory(void **state)
{
    (void)state;
    for (Form form = ORIGINAL; form < N_FORMS; form++)
        check_recomputing(form, COMPUTE_FLOAT32);
}

// ---- bfloat16 ----

// Two sequences, several tiles of attention: loss and gradients beside those of float32.
static void compare_with_float32(Form form)
{
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    Model model = make_model(form, true);
    Run exact = start_run(&model, B, LONG_T, RECOMPUTE_NONE),
        rounded = start_typed_run(&model, B, LONG_T, RECOMPUTE_NONE, COMPUTE_BFLOAT16);
    assert_true(rounded.activations.size_bytes < exact.activations.size_bytes);
    const double loss = add_gradients(&exact, tokens, tokens + 1, 0.01f);
    ref_assert_error("loss", fabs(add_gradients(&rounded, tokens, tokens + 1, 0.01f) / loss - 1.0),
                     5e-4); // seen 9.3e-5
    for (int i = 0; i < params_n_tensors(&model.shape); i++) {
        const ParamInfo info = params_info(&model.shape, i);
        testing_assert_close(info.name, rounded.grads.params.flat + info.offset,
                             exact.grads.params.flat + info.offset, (int64_t)info.rows * info.cols,
                             4e-2); // seen 0.020
    }
    release_run(&exact);
    release_run(&rounded);
    model_release(&model);
}

static void test_bfloat16_by_every_kernel_of_this_machine(void **state)
{
    (void)state;
    // Norms of heads run on no kernel of their own.
    const Form end = TESTING_IS_SANITIZED ? NORMED : N_FORMS;
    for (int kernel = -1; testing_next_kernel(&kernel);) {
        check_models(COMPUTE_BFLOAT16);
        check_conversions(COMPUTE_BFLOAT16);
        for (Form form = ORIGINAL; form < end; form++) {
            compare_with_float32(form);
            check_recomputing(form, COMPUTE_BFLOAT16);
        }
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
        cmocka_unit_test(test_threads_change_nothing_in_forward_and_rounding_in_gradients),
        cmocka_unit_test(test_frozen_tensors_change_no_other_gradient),
        cmocka_unit_test(test_two_micro_batches_add_up_to_one_batch),
        cmocka_unit_test(test_attention_in_the_latent_space_is_the_same_function),
        cmocka_unit_test(test_shared_form_with_all_pairs_and_values_is_the_original),
        cmocka_unit_test(test_fresh_gradients_are_written_over_whatever_was_there),
        cmocka_unit_test(test_tied_gradient_is_the_sum_of_head_and_embedding),
        cmocka_unit_test(test_logits_between_loss_and_backward_change_nothing),
        cmocka_unit_test(test_workspace_without_training_gives_the_same_loss),
        cmocka_unit_test(test_recomputing_gives_the_same_bits_in_less_memory),
        cmocka_unit_test(test_bfloat16_by_every_kernel_of_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
