// DeepSeek's format against the model's own: scores, values and norms from the written tensors, by
// plain loops in double; config.json; what cannot be written.
#include "tests/support/testing_hf.h"

#include "base/log.h"
#include "model/deepseek/deepseek.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 64, MAX_WIDTH = 64 };

static const double deepseek_eps = 1e-6;

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%.10g, expected %.10g", got, want);
}

// A model of each form, with pairs that differ between its layers.
static void make_model(Model *out, bool is_shared, bool latent_norm, SvdKind svd)
{
    ModelShape shape = testing_hf_mla(svd);
    if (is_shared)
        assert_ok(shape_convert_shared(&shape, &testing_hf_shape, 2, 10, latent_norm));
    assert_ok(model_create(out, &shape));
    testing_fill(out->params.flat, out->params.count, 0.3, 11);
    for (int64_t i = 0; i < model_n_pairs(&shape); i++)
        out->rope_pairs[i] = (int32_t)(2 * (i % 2) + (i / 2) % 2);
}

static void save(const Model *model, DType dtype, char dir[PATH_BYTES])
{
    Deepseek deepseek;
    testing_hf_new_dir(dir);
    assert_ok(deepseek_create(&deepseek, model, DEEPSEEK_HF, false));
    assert_ok(deepseek_save(&deepseek, NULL, dtype, dir));
    deepseek_release(&deepseek);
}

static double frequency(const ModelShape *s, int pair)
{
    return pow(s->rope_theta, -2.0 * pair / s->head_dim);
}

static double dot(const float *row, const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += row[i] * x[i];
    return sum;
}

// out [rows] = W x
static void multiply(double *out, const float *W, const double *x, int rows, int cols)
{
    for (int r = 0; r < rows; r++)
        out[r] = dot(W + (int64_t)r * cols, x, cols);
}

static void normalize(double *c, const float *weight, int n, double eps)
{
    double square = 0;
    for (int i = 0; i < n; i++)
        square += c[i] * c[i] / n;
    for (int i = 0; i < n; i++)
        c[i] *= weight[i] / sqrt(square + eps);
}

// The rotated part of a score: pair (a0, a1) at one position, (b0, b1) `distance` before it.
static double rotated_score(double a0, double a1, double b0, double b1, double angle)
{
    return (a0 * b0 + a1 * b1) * cos(angle) + (a1 * b0 - a0 * b1) * sin(angle);
}

// What head h of a layer makes of a query x and of a key and value y, `distance` positions before.
typedef struct HeadResult {
    double score, value[MAX_WIDTH];
} HeadResult;

static HeadResult own_result(const Model *model, int layer, int h, const double *x, const double *y,
                             int distance)
{
    const ModelShape *s = &model->shape;
    const LayerParams *w = &model->params.layers[layer];
    const int D = s->d_model, P = s->rope_pairs, E = s->head_dim, n = shape_head_nope(s);
    const int R = shape_dim(s, DIM_LATENT), read = shape_dim(s, DIM_UP_INPUT);
    const int j = h * shape_rope_heads(s) / s->n_heads, u = h * shape_up_heads(s) / s->n_heads;
    const int32_t *pairs = model_pairs(model, layer, j);
    HeadResult result = {0};
    double q[MAX_ROWS], k[MAX_ROWS], c[MAX_WIDTH], up[MAX_WIDTH];
    multiply(q, w->q + (int64_t)h * 2 * P * D, x, 2 * P, D);
    multiply(k, w->k_r + (int64_t)j * 2 * P * D, y, 2 * P, D);
    for (int i = 0; i < P; i++)
        result.score +=
            rotated_score(q[i], q[P + i], k[i], k[P + i], distance * frequency(s, pairs[i]));
    multiply(c, w->down_kv, y, R, D);
    if (s->latent_norm)
        normalize(c, w->latent_norm, R, s->rms_eps);
    multiply(q, w->q + ((int64_t)s->n_heads * 2 * P + (int64_t)h * n) * D, x, n, D);
    multiply(up, w->up_k + (int64_t)u * n * read, c, n, read);
    for (int i = 0; i < n; i++)
        result.score += q[i] * up[i];
    multiply(result.value, w->up_v + (int64_t)u * E * read, c + R - read, E, read);
    result.score /= sqrt(E);
    return result;
}

// The written tensors of a layer.
typedef struct Written {
    SafeTensors file;
    json_t *config;
    int layer, D, rho, nope, E, R, H;
    float *q, *kv_a, *kv_norm, *kv_b; // owned
} Written;

static int config_int(const json_t *config, const char *key)
{
    assert_true(json_is_integer(json_object_get(config, key)));
    return (int)json_integer_value(json_object_get(config, key));
}

static float *read_tensor(const SafeTensors *file, int layer, const char *name, int rows, int cols)
{
    char full[PARAM_NAME_BYTES];
    const int dims[2] = {rows, cols};
    float *values = malloc(sizeof *values * (size_t)rows * (size_t)(cols > 0 ? cols : 1));
    snprintf(full, sizeof full, "model.layers.%d.%s.weight", layer, name);
    assert_non_null(values);
    assert_ok(safetensors_read_f32(file, full, dims, cols > 0 ? 2 : 1, values));
    return values;
}

static void read_layer(Written *out, const char *dir, int layer)
{
    Written w = {.config = testing_hf_read_config(dir), .layer = layer};
    assert_ok(safetensors_open(&w.file, testing_path(dir, "model.safetensors")));
    w.D = config_int(w.config, "hidden_size");
    w.H = config_int(w.config, "num_attention_heads");
    w.rho = config_int(w.config, "qk_rope_head_dim");
    w.nope = config_int(w.config, "qk_nope_head_dim");
    w.E = config_int(w.config, "v_head_dim");
    w.R = config_int(w.config, "kv_lora_rank");
    w.q = read_tensor(&w.file, layer, "self_attn.q_proj", w.H * (w.nope + w.rho), w.D);
    w.kv_a = read_tensor(&w.file, layer, "self_attn.kv_a_proj_with_mqa", w.R + w.rho, w.D);
    w.kv_norm = read_tensor(&w.file, layer, "self_attn.kv_a_layernorm", w.R, 0);
    w.kv_b = read_tensor(&w.file, layer, "self_attn.kv_b_proj", w.H * (w.nope + w.E), w.R);
    *out = w;
}

static void release_layer(Written *w)
{
    free(w->q);
    free(w->kv_a);
    free(w->kv_norm);
    free(w->kv_b);
    safetensors_close(&w->file);
    json_decref(w->config);
}

// Frequency of slot i as config.json says it.
static double written_frequency(const Written *w, int slot)
{
    const json_t *scaling = json_object_get(w->config, "rope_scaling");
    const double theta = json_number_value(json_object_get(w->config, "rope_theta"));
    const double plain = pow(theta, -2.0 * slot / w->rho);
    if (json_is_null(scaling))
        return plain;
    const json_t *factors = json_object_get(scaling, "short_factor");
    assert_int_equal(json_array_size(factors), w->rho / 2);
    assert_true(json_equal(factors, json_object_get(scaling, "long_factor")));
    return plain / json_number_value(json_array_get(factors, (size_t)slot));
}

static HeadResult written_result(const Written *w, int h, const double *x, const double *y,
                                 int distance)
{
    const int width = w->nope + w->rho;
    HeadResult result = {0};
    double q[MAX_ROWS], k[MAX_ROWS], up[MAX_ROWS];
    multiply(q, w->q + (int64_t)h * width * w->D, x, width, w->D);
    multiply(k, w->kv_a, y, w->R + w->rho, w->D);
    const double *pe = k + w->R, *q_pe = q + w->nope;
    for (int i = 0; i < w->rho / 2; i++)
        result.score += rotated_score(q_pe[2 * i], q_pe[2 * i + 1], pe[2 * i], pe[2 * i + 1],
                                      distance * written_frequency(w, i));
    normalize(k, w->kv_norm, w->R, deepseek_eps);
    multiply(up, w->kv_b + (int64_t)h * (w->nope + w->E) * w->R, k, w->nope + w->E, w->R);
    for (int i = 0; i < w->nope; i++)
        result.score += q[i] * up[i];
    memcpy(result.value, up + w->nope, sizeof(double) * (size_t)w->E);
    result.score /= sqrt(width);
    return result;
}

static void check_heads(const Model *model, const char *dir)
{
    const ModelShape *s = &model->shape;
    float random[2 * MAX_WIDTH];
    double x[MAX_WIDTH], y[MAX_WIDTH];
    testing_fill(random, 2 * s->d_model, 1.0, 5);
    for (int i = 0; i < s->d_model; i++) {
        x[i] = random[i];
        y[i] = random[s->d_model + i];
    }
    for (int l = 0; l < s->n_layers; l++) {
        Written written;
        read_layer(&written, dir, l);
        for (int h = 0; h < s->n_heads; h++) {
            const HeadResult own = own_result(model, l, h, x, y, 7);
            const HeadResult got = written_result(&written, h, x, y, 7);
            assert_near(got.score, own.score, 1e-6); // seen 8e-8
            for (int i = 0; i < s->head_dim; i++)
                assert_near(got.value[i], own.value[i], 1e-6);
        }
        release_layer(&written);
    }
}

static void test_scores_and_values_are_the_models(void **state)
{
    (void)state;
    static const struct {
        bool is_shared, latent_norm;
        SvdKind svd;
    } cases[] = {{false, false, SVD_JOINT},
                 {false, false, SVD_SPLIT},
                 {true, false, SVD_JOINT},
                 {true, true, SVD_JOINT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[PATH_BYTES];
        Model model;
        make_model(&model, cases[i].is_shared, cases[i].latent_norm, cases[i].svd);
        save(&model, DTYPE_F32, dir);
        check_heads(&model, dir);
        model_release(&model);
    }
}

// Pairs 0, 2 of every layer are plain RoPE of another theta, and no slot is spare.
static void test_regular_pairs_are_plain_rope(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    make_model(&model, true, true, SVD_JOINT);
    for (int64_t i = 0; i < model_n_pairs(&model.shape); i++)
        model.rope_pairs[i] = (int32_t)(2 * (i % 2));
    save(&model, DTYPE_F32, dir);
    check_heads(&model, dir);
    json_t *config = testing_hf_read_config(dir);
    assert_true(json_is_null(json_object_get(config, "rope_scaling")));
    assert_int_equal(config_int(config, "qk_rope_head_dim"), 4);
    json_decref(config);
    model_release(&model);
}

// Layers keep pairs 0, 3 and 1, 2 (their pairs alternate): all four, as plain RoPE.
static void test_other_pairs_fill_up_to_plain_rope(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Deepseek deepseek;
    Model model;
    make_model(&model, true, true, SVD_JOINT);
    const int32_t pairs[4] = {0, 3, 1, 2};
    memcpy(model.rope_pairs, pairs, sizeof pairs);
    testing_hf_new_dir(dir);
    assert_ok(deepseek_create(&deepseek, &model, DEEPSEEK_HF, true));
    assert_int_equal(deepseek.slots.n_slots, 4);
    assert_int_equal(deepseek.slots.stride, 1);
    assert_ok(deepseek_save(&deepseek, NULL, DTYPE_F32, dir));
    deepseek_release(&deepseek);
    check_heads(&model, dir);
    model.rope_pairs[1] = 2; // 0, 2 and 1, 2 still need all up to the last, 2
    assert_ok(deepseek_create(&deepseek, &model, DEEPSEEK_HF, true));
    assert_int_equal(deepseek.slots.n_slots, 3);
    deepseek_release(&deepseek);
    model.rope_pairs[2] = 2;
    assert_fails(BAD_INPUT, "a layer has pair 2 2 times",
                 deepseek_create(&deepseek, &model, DEEPSEEK_HF, true));
    model_release(&model);
}

// What enters the residual stream has one scale, and a tied head gives it back in the last norm.
static void test_the_stream_is_scaled_to_its_eps(void **state)
{
    (void)state;
    const double scale = sqrt(deepseek_eps / testing_hf_shape.rms_eps);
    char dir[PATH_BYTES];
    Model model;
    SafeTensors file;
    make_model(&model, true, true, SVD_JOINT);
    const ModelShape *s = &model.shape;
    save(&model, DTYPE_F32, dir);
    json_t *config = testing_hf_read_config(dir);
    assert_true(json_number_value(json_object_get(config, "rms_norm_eps")) == deepseek_eps);
    assert_ok(safetensors_open(&file, testing_path(dir, "model.safetensors")));
    float *embed = malloc(sizeof *embed * (size_t)(s->vocab_size * s->d_model)), norm[MAX_WIDTH];
    assert_ok(safetensors_read_f32(&file, "model.embed_tokens.weight",
                                   (int[]){s->vocab_size, s->d_model}, 2, embed));
    assert_ok(safetensors_read_f32(&file, "model.norm.weight", (int[]){s->d_model}, 1, norm));
    float *down = read_tensor(&file, 1, "mlp.down_proj", s->d_model, s->d_ffn);
    float *o = read_tensor(&file, 1, "self_attn.o_proj", s->d_model, s->n_heads * s->head_dim);
    assert_near(embed[3], model.params.embed[3] * scale, 1e-7);
    assert_near(down[3], model.params.layers[1].down[3] * scale, 1e-7);
    assert_near(o[3], model.params.layers[1].o[3] * scale, 1e-7);
    assert_near(norm[3], model.params.norm[3] / scale, 1e-6);
    assert_null(safetensors_find(&file, "lm_head.weight"));
    free(embed);
    free(down);
    free(o);
    safetensors_close(&file);
    json_decref(config);
    model_release(&model);
}

static void test_what_cannot_be_written(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Deepseek deepseek;
    Model model;
    testing_hf_new_dir(dir);
    testing_hf_random(&model, &testing_hf_shape);
    assert_fails(BAD_INPUT, "has its original attention",
                 deepseek_create(&deepseek, &model, DEEPSEEK_HF, false));
    model_release(&model);
    make_model(&model, false, false, SVD_JOINT);
    model.shape.qk_norm = true;
    assert_fails(BAD_INPUT, "no RMSNorm of every head of queries and keys",
                 deepseek_create(&deepseek, &model, DEEPSEEK_HF, false));
    model.shape.qk_norm = false;
    layer_set_put(&model.shape.no_rope, 1, true);
    assert_fails(BAD_INPUT, "has RoPE in every layer, this model has none in 1 of 2",
                 deepseek_create(&deepseek, &model, DEEPSEEK_HF, false));
    layer_set_put(&model.shape.no_rope, 1, false);
    assert_ok(deepseek_create(&deepseek, &model, DEEPSEEK_HF, false));
    assert_fails(BAD_INPUT, "cannot be float16 for a model whose latent has no norm",
                 deepseek_save(&deepseek, NULL, DTYPE_F16, dir));
    assert_false(file_exists(dir));
    deepseek_release(&deepseek);
    model_release(&model);
    make_model(&model, true, true, SVD_JOINT);
    save(&model, DTYPE_F16, dir); // with a norm it can
    model_release(&model);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_and_values_are_the_models),
        cmocka_unit_test(test_regular_pairs_are_plain_rope),
        cmocka_unit_test(test_other_pairs_fill_up_to_plain_rope),
        cmocka_unit_test(test_the_stream_is_scaled_to_its_eps),
        cmocka_unit_test(test_what_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
