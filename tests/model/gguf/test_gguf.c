// GGUF files, read by the format's words: shapes, places and numbers of the tensors of both
// architectures against the model's own, what cannot be written, and a full disk.
#include "tests/support/testing_gguf.h"
#include "tests/support/testing_hf.h"

#include "base/log.h"
#include "model/gguf/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// 32 and 64 columns, so that rows are whole blocks of Q8_0; those of o have 32 too.
static const ModelShape llama_shape = {
    .n_layers = 2,
    .d_model = 32,
    .n_heads = 4,
    .n_kv_heads = 2,
    .head_dim = 8,
    .d_ffn = 64,
    .vocab_size = 31,
    .max_positions = 64,
    .rope_pairs = 4,
    .tied_head = false,
    .rope_theta = 10000.0,
    .rms_eps = 1e-5,
};

static const char *new_file(void)
{
    return testing_path(testing_dir(), "model.gguf");
}

// Saves the model and opens the file, alone in its directory.
static void save_and_read(GgufRead *out, const Model *model, GgufType type)
{
    const char *path = new_file();
    Gguf gguf;
    assert_ok(gguf_create(&gguf, model, type, false));
    assert_ok(gguf_save(&gguf, NULL, path));
    gguf_release(&gguf);
    testing_no_temporaries(path);
    testing_gguf_read(out, path);
}

// The shared form with `slots` slots, pairs 0 and 2 of a head, in both layers.
static void make_shared(Model *out, bool latent_norm, double rms_eps)
{
    ModelShape original = llama_shape, shape;
    original.rms_eps = rms_eps;
    assert_ok(shape_convert_shared(&shape, &original, 2, 10, latent_norm));
    assert_ok(model_create(out, &shape));
    testing_fill(out->params.flat, out->params.count, 0.3, 5);
    for (int64_t i = 0; i < model_n_pairs(&shape); i++)
        out->rope_pairs[i] = (int32_t)(2 * (i % 2));
}

static void assert_values(const GgufRead *file, const char *name, const float *expected,
                          double within)
{
    const GgufInfo *info = testing_gguf_tensor(file, name);
    float *values = testing_gguf_values(file, name);
    for (int64_t i = 0; i < info->count; i++)
        if (!(fabs((double)values[i] - expected[i]) <= within * (1 + fabs((double)expected[i]))))
            fail_msg("%s[%lld] is %g, expected %g", name, (long long)i, (double)values[i],
                     (double)expected[i]);
    free(values);
}

// ---- llama -------------------------------------------------------------------------------------

// Row 2p of a head is row p of the model's, row 2p + 1 row p + E/2.
static void assert_interleaved(const GgufRead *file, const char *name, const float *rows, int heads,
                               double within)
{
    const int E = llama_shape.head_dim, D = llama_shape.d_model;
    float *expected = malloc((size_t)(heads * E * D) * sizeof *expected);
    for (int h = 0; h < heads; h++)
        for (int p = 0; p < E / 2; p++)
            for (int c = 0; c < D; c++) {
                expected[(h * E + 2 * p) * D + c] = rows[(h * E + p) * D + c];
                expected[(h * E + 2 * p + 1) * D + c] = rows[(h * E + p + E / 2) * D + c];
            }
    assert_values(file, name, expected, within);
    free(expected);
}

// `within`: what the type rounds numbers of about 0.1 to.
static void check_llama(GgufType type, uint32_t file_type, double within)
{
    Model model;
    GgufRead file;
    testing_hf_random(&model, &llama_shape);
    const LayerParams *w = &model.params.layers[1];
    save_and_read(&file, &model, type);
    assert_int_equal(file.n_tensors, 2 * 9 + 3);
    testing_gguf_assert_text(&file, "general.architecture", "llama");
    testing_gguf_assert_u32(&file, "general.file_type", file_type);
    testing_gguf_assert_u32(&file, "llama.attention.head_count_kv", 2);
    testing_gguf_assert_u32(&file, "llama.rope.dimension_count", 8);
    testing_gguf_assert_text(&file, "tokenizer.ggml.model", "none");
    const GgufInfo *gate = testing_gguf_tensor(&file, "blk.1.ffn_gate.weight");
    assert_int_equal(gate->type, type);
    assert_int_equal(gate->n_dims, 2);
    assert_int_equal(gate->dims[0], 32); // columns first
    assert_int_equal(gate->dims[1], 64);
    assert_int_equal(testing_gguf_tensor(&file, "blk.1.attn_norm.weight")->type, GGUF_F32);
    assert_interleaved(&file, "blk.1.attn_q.weight", w->q, 4, within);
    assert_interleaved(&file, "blk.1.attn_k.weight", w->k, 2, within);
    assert_values(&file, "blk.1.attn_v.weight", w->v, within);
    assert_values(&file, "blk.1.attn_output.weight", w->o, within);
    assert_values(&file, "blk.1.ffn_norm.weight", w->ffn_norm, 0);
    assert_values(&file, "blk.1.ffn_down.weight", w->down, within);
    assert_values(&file, "token_embd.weight", model.params.embed, within);
    assert_values(&file, "output.weight", model.params.head, within);
    testing_gguf_release(&file);
    model_release(&model);
}

static void test_llama_has_the_models_numbers_in_every_type(void **state)
{
    (void)state;
    check_llama(GGUF_F32, 0, 0);
    check_llama(GGUF_F16, 1, 1e-3);   // observed 2.2e-4
    check_llama(GGUF_BF16, 32, 4e-3); // observed 1.6e-3
    check_llama(GGUF_Q8_0, 7, 3e-3);  // observed 1.5e-3: half of 0.4 / 127
}

// A model of the shape is not saved, for its first tensor that llama.cpp's architecture lacks.
static void assert_no_place_for(const char *tensor, const ModelShape *shape)
{
    char text[128];
    Model model;
    Gguf gguf;
    snprintf(text, sizeof text, "no place for %s in llama.cpp's", tensor);
    testing_hf_random(&model, shape);
    assert_ok(gguf_create(&gguf, &model, GGUF_F32, false));
    assert_fails(BAD_INPUT, text, gguf_save(&gguf, NULL, new_file()));
    gguf_release(&gguf);
    model_release(&model);
}

static void test_biases_go_with_their_rows(void **state)
{
    (void)state;
    ModelShape shape = llama_shape;
    Model model;
    GgufRead file;
    shape.attention_bias = BIAS_QKV_OUT;
    testing_hf_random(&model, &shape);
    const LayerParams *w = &model.params.layers[1];
    save_and_read(&file, &model, GGUF_Q8_0);
    assert_int_equal(file.n_tensors, 2 * 13 + 3);
    assert_int_equal(testing_gguf_tensor(&file, "blk.1.attn_q.bias")->type, GGUF_F32);
    float *q = testing_gguf_values(&file, "blk.1.attn_q.bias");
    float *k = testing_gguf_values(&file, "blk.1.attn_k.bias");
    for (int p = 0; p < 4; p++) { // of the last heads
        assert_true(q[24 + 2 * p] == w->q_bias[24 + p] && q[25 + 2 * p] == w->q_bias[28 + p]);
        assert_true(k[8 + 2 * p] == w->k_bias[8 + p] && k[9 + 2 * p] == w->k_bias[12 + p]);
    }
    free(q);
    free(k);
    assert_values(&file, "blk.1.attn_v.bias", w->v_bias, 0);
    assert_values(&file, "blk.1.attn_output.bias", w->o_bias, 0);
    testing_gguf_release(&file);
    model_release(&model);
    shape.qk_norm = true;
    assert_no_place_for("model.layers.0.self_attn.o_proj.bias", &shape);
}

// llama.cpp rotates rows p and p + E/2 there, so that none is moved.
static void test_norms_of_heads_make_a_qwen3(void **state)
{
    (void)state;
    ModelShape shape = llama_shape;
    Model model;
    Gguf gguf;
    GgufRead file;
    shape.qk_norm = true;
    testing_hf_random(&model, &shape);
    save_and_read(&file, &model, GGUF_F32);
    assert_int_equal(file.n_tensors, 2 * 11 + 3);
    testing_gguf_assert_text(&file, "general.architecture", "qwen3");
    testing_gguf_assert_u32(&file, "qwen3.attention.key_length", 8);
    assert_values(&file, "blk.1.attn_q.weight", model.params.layers[1].q, 0);
    assert_values(&file, "blk.1.attn_q_norm.weight", model.params.layers[1].q_norm, 0);
    assert_values(&file, "blk.1.attn_k_norm.weight", model.params.layers[1].k_norm, 0);
    testing_gguf_release(&file);
    model.shape.rope_scaling = (RopeScaling){8, 1, 4, 32};
    assert_fails(BAD_INPUT, "no scaled frequencies (llama3, factor 8) for models with qk_norm",
                 gguf_create(&gguf, &model, GGUF_F32, false));
    model_release(&model);
}

// llama.cpp does not rotate every 4th layer there; q and k are interleaved as those of the others.
static void test_layers_without_rope_make_a_smollm3(void **state)
{
    (void)state;
    ModelShape shape = llama_shape;
    Model model;
    Gguf gguf;
    GgufRead file;
    shape.n_layers = 4;
    layer_set_put(&shape.no_rope, 3, true);
    testing_hf_random(&model, &shape);
    save_and_read(&file, &model, GGUF_F32);
    assert_int_equal(file.n_tensors, 4 * 9 + 3);
    testing_gguf_assert_text(&file, "general.architecture", "smollm3");
    testing_gguf_assert_u32(&file, "smollm3.rope.dimension_count", 8);
    float *q = testing_gguf_values(&file, "blk.3.attn_q.weight");
    const float *own = model.params.layers[3].q;
    for (int d = 0; d < shape.d_model; d++)
        assert_true(q[shape.d_model + d] == own[4 * shape.d_model + d]);
    free(q);
    testing_gguf_release(&file);
    model.shape.rope_scaling = (RopeScaling){8, 1, 4, 32};
    assert_fails(BAD_INPUT, "for models with layers without RoPE: llama.cpp's smollm3 takes no",
                 gguf_create(&gguf, &model, GGUF_F32, false));
    model.shape.rope_scaling.factor = 0;
    layer_set_put(&model.shape.no_rope, 1, true);
    assert_fails(BAD_INPUT, "of 4 layers 2 have no RoPE; llama.cpp has models without it in every",
                 gguf_create(&gguf, &model, GGUF_F32, false));
    model_release(&model);
    shape.attention_bias = BIAS_QKV;
    assert_no_place_for("model.layers.0.self_attn.q_proj.bias", &shape);
}

static void test_a_tied_head_is_the_embedding(void **state)
{
    (void)state;
    Model model;
    GgufRead file;
    testing_hf_random(&model, &testing_hf_shape);
    save_and_read(&file, &model, GGUF_Q8_0);
    assert_null(testing_gguf_tensor(&file, "output.weight"));
    // Rows of 24 numbers are no whole blocks.
    assert_int_equal(testing_gguf_tensor(&file, "token_embd.weight")->type, GGUF_F16);
    testing_gguf_release(&file);
    model_release(&model);
}

// Frequencies of Llama 3 are a table of what the plain ones are divided by: 1 for pairs that turn
// often, the factor for those that turn seldom.
static void test_scaled_frequencies_are_a_table(void **state)
{
    (void)state;
    Model model;
    GgufRead file;
    Gguf gguf;
    ModelShape shape = llama_shape;
    shape.rope_scaling = (RopeScaling){8, 1, 4, 32};
    testing_hf_random(&model, &shape);
    save_and_read(&file, &model, GGUF_F16);
    float *table = testing_gguf_values(&file, "rope_freqs.weight");
    assert_int_equal(testing_gguf_tensor(&file, "rope_freqs.weight")->type, GGUF_F32);
    assert_int_equal(testing_gguf_tensor(&file, "rope_freqs.weight")->count, 4);
    assert_true(fabsf(table[3] - 8) < 1e-5f);
    // Pair 0 turns 32 / 2 pi = 5.09 times in 32 positions, more than 4.
    assert_true(table[0] == 1);
    free(table);
    testing_gguf_release(&file);
    model_release(&model);
    make_shared(&model, true, 1e-5);
    model.shape.rope_scaling = shape.rope_scaling;
    assert_fails(BAD_INPUT, "no scaled frequencies (llama3, factor 8) for latent attention",
                 gguf_create(&gguf, &model, GGUF_F32, false));
    model_release(&model);
}

// ---- deepseek2 ---------------------------------------------------------------------------------

static const TensorSpec *find_spec(const TensorList *list, const char *name)
{
    for (int i = 0; i < list->n_specs; i++)
        if (strcmp(list->specs[i].name, name) == 0)
            return &list->specs[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

// The tensor as DeepSeek's own format has it, which test_deepseek.c holds against the model.
static float *own_tensor(const TensorList *list, const char *name)
{
    const TensorSpec *spec = find_spec(list, name);
    const size_t size = (size_t)tensor_spec_count(spec) * sizeof(float);
    float *scratch = malloc(size), *values = malloc(size);
    memcpy(values, tensor_spec_values(spec, scratch), size);
    free(scratch);
    return values;
}

static void assert_same_tensor(const GgufRead *file, const char *name, const TensorList *list,
                               const char *own)
{
    float *expected = own_tensor(list, own);
    assert_values(file, name, expected, 1e-7);
    free(expected);
}

// kv_b [H (n + E), R] as attn_k_b [H, R, n] and attn_v_b [H, E, R].
static void assert_up_projections(const GgufRead *file, const TensorList *list, const ModelShape *s)
{
    const int H = s->n_heads, n = s->head_dim, E = s->head_dim, R = s->latent;
    float *kv_b = own_tensor(list, "model.layers.1.self_attn.kv_b_proj.weight");
    float *k_b = testing_gguf_values(file, "blk.1.attn_k_b.weight");
    float *v_b = testing_gguf_values(file, "blk.1.attn_v_b.weight");
    const GgufInfo *info = testing_gguf_tensor(file, "blk.1.attn_k_b.weight");
    assert_int_equal(info->n_dims, 3);
    assert_true(info->dims[0] == (uint64_t)n && info->dims[1] == (uint64_t)R &&
                info->dims[2] == (uint64_t)H);
    for (int h = 0; h < H; h++)
        for (int c = 0; c < R; c++)
            for (int r = 0; r < E; r++) {
                const float *head = kv_b + h * (n + E) * R;
                assert_true(k_b[(h * R + c) * n + r] == head[r * R + c]);
                assert_true(v_b[(h * E + r) * R + c] == head[(n + r) * R + c]);
            }
    free(kv_b);
    free(k_b);
    free(v_b);
}

// With eps 1e-6 DeepSeek's own format scales nothing for it, and the numbers are the same.
static void test_deepseek2_is_deepseeks_own_format(void **state)
{
    (void)state;
    Model model;
    Deepseek own;
    TensorList list;
    GgufRead file;
    make_shared(&model, true, 1e-6);
    assert_ok(deepseek_create(&own, &model, DEEPSEEK_HF, false));
    assert_ok(deepseek_list_tensors(&list, &own, DTYPE_F32));
    save_and_read(&file, &model, GGUF_F32);
    assert_int_equal(file.n_tensors, 2 * 11 + 3);
    assert_same_tensor(&file, "blk.1.attn_q.weight", &list,
                       "model.layers.1.self_attn.q_proj.weight");
    assert_same_tensor(&file, "blk.1.attn_kv_a_mqa.weight", &list,
                       "model.layers.1.self_attn.kv_a_proj_with_mqa.weight");
    assert_same_tensor(&file, "blk.1.attn_kv_a_norm.weight", &list,
                       "model.layers.1.self_attn.kv_a_layernorm.weight");
    assert_same_tensor(&file, "blk.1.attn_output.weight", &list,
                       "model.layers.1.self_attn.o_proj.weight");
    assert_same_tensor(&file, "token_embd.weight", &list, "model.embed_tokens.weight");
    assert_same_tensor(&file, "output_norm.weight", &list, "model.norm.weight");
    assert_up_projections(&file, &list, &model.shape);
    testing_gguf_release(&file);
    tensor_list_release(&list);
    deepseek_release(&own);
    model_release(&model);
}

static void test_deepseek2_says_its_shape(void **state)
{
    (void)state;
    Model model;
    GgufRead file;
    float theta;
    make_shared(&model, true, 1e-5);
    save_and_read(&file, &model, GGUF_BF16);
    testing_gguf_assert_text(&file, "general.architecture", "deepseek2");
    testing_gguf_assert_u32(&file, "deepseek2.attention.q_lora_rank", 0);
    testing_gguf_assert_u32(&file, "deepseek2.attention.kv_lora_rank", 10);
    testing_gguf_assert_u32(&file, "deepseek2.attention.head_count_kv", 1);
    testing_gguf_assert_u32(&file, "deepseek2.attention.key_length", 14);
    testing_gguf_assert_u32(&file, "deepseek2.attention.key_length_mla", 12);
    testing_gguf_assert_u32(&file, "deepseek2.attention.value_length_mla", 8);
    testing_gguf_assert_u32(&file, "deepseek2.rope.dimension_count", 4);
    testing_gguf_assert_u32(&file, "deepseek2.leading_dense_block_count", 2);
    // Pairs 0 and 2 of 4: theta^(-2 pair / 8) = theta'^(-2 slot / 4) for theta' = theta.
    memcpy(&theta, testing_gguf_key(&file, "deepseek2.rope.freq_base")->bytes, sizeof theta);
    assert_true(fabsf(theta - 10000.0f) < 1e-2f);
    // llama.cpp has the model's own eps, so nothing is scaled for it.
    assert_values(&file, "output_norm.weight", model.params.norm, 0);
    testing_gguf_release(&file);
    model_release(&model);
}

// What makes a norm linear is too small for 16 bits: it stays in float32 in the narrow types.
static void test_a_latent_without_a_norm_keeps_its_tiny_rows(void **state)
{
    (void)state;
    static const GgufType types[] = {GGUF_F16, GGUF_Q8_0, GGUF_BF16};
    Model model;
    make_shared(&model, false, 1e-5);
    for (int i = 0; i < 3; i++) {
        GgufRead file;
        save_and_read(&file, &model, types[i]);
        float *rows = testing_gguf_values(&file, "blk.0.attn_kv_a_mqa.weight");
        float *weight = testing_gguf_values(&file, "blk.0.attn_kv_a_norm.weight");
        assert_int_equal(testing_gguf_tensor(&file, "blk.0.attn_kv_a_mqa.weight")->type,
                         types[i] == GGUF_BF16 ? GGUF_BF16 : GGUF_F32);
        // The norm of numbers far below eps: c * weight / sqrt(eps).
        const double got = (double)rows[3] * weight[0] / sqrt(1e-5);
        const double expected = (double)model.params.layers[0].down_kv[3];
        assert_true(fabs(got - expected) < 4e-3 * fabs(expected));
        free(rows);
        free(weight);
        testing_gguf_release(&file);
    }
    model_release(&model);
}

// ---- what is refused ---------------------------------------------------------------------------

static void test_what_llama_cpp_does_not_have_is_refused(void **state)
{
    (void)state;
    Gguf gguf;
    Model model;
    make_shared(&model, true, 1e-5);
    model.rope_pairs[3] = 3; // the layers have pairs 0, 2 and 0, 3
    assert_fails(BAD_INPUT, "add --plain-rope, or convert with --rope shared-uniform",
                 gguf_create(&gguf, &model, GGUF_F32, false));
    assert_ok(gguf_create(&gguf, &model, GGUF_F32, true));
    assert_int_equal(gguf.deepseek.slots.n_slots, 4);
    gguf_release(&gguf);
    model_release(&model);
    const ModelShape per_head = testing_hf_mla(SVD_JOINT);
    testing_hf_random(&model, &per_head);
    assert_fails(BAD_INPUT, "convert with --form shared",
                 gguf_create(&gguf, &model, GGUF_F32, false));
    model_release(&model);
    testing_hf_random(&model, &llama_shape);
    assert_fails(BAD_INPUT, "this one has its original attention",
                 gguf_create(&gguf, &model, GGUF_F32, true));
    model_release(&model);
}

static void test_nothing_is_left_of_a_file_that_fails(void **state)
{
    (void)state;
    const char *path = new_file();
    Gguf gguf;
    Model model;
    testing_hf_random(&model, &llama_shape);
    assert_ok(gguf_create(&gguf, &model, GGUF_F32, false));
    testing_limit_files(4096);
    assert_fails(FAILED, "File too large", gguf_save(&gguf, NULL, path));
    testing_limit_files(-1);
    assert_false(file_exists(path));
    testing_no_temporaries(path);
    gguf.type = GGUF_F16;
    model.params.layers[1].gate[33] = 1e5f;
    assert_fails(FAILED, "'blk.1.ffn_gate.weight' has 100000 at row 1, column 1, which F16",
                 gguf_save(&gguf, NULL, path));
    model.params.layers[1].gate[33] = NAN;
    gguf.type = GGUF_F32;
    assert_fails(FAILED, "'blk.1.ffn_gate.weight' has", gguf_save(&gguf, NULL, path));
    assert_false(file_exists(path));
    gguf_release(&gguf);
    model_release(&model);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_has_the_models_numbers_in_every_type),
        cmocka_unit_test(test_biases_go_with_their_rows),
        cmocka_unit_test(test_norms_of_heads_make_a_qwen3),
        cmocka_unit_test(test_layers_without_rope_make_a_smollm3),
        cmocka_unit_test(test_a_tied_head_is_the_embedding),
        cmocka_unit_test(test_scaled_frequencies_are_a_table),
        cmocka_unit_test(test_deepseek2_is_deepseeks_own_format),
        cmocka_unit_test(test_deepseek2_says_its_shape),
        cmocka_unit_test(test_a_latent_without_a_norm_keeps_its_tiny_rows),
        cmocka_unit_test(test_what_llama_cpp_does_not_have_is_refused),
        cmocka_unit_test(test_nothing_is_left_of_a_file_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
