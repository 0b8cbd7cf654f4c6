// model/mha and model/rope: projections and rotation against their oracles.
#include "tests/support/testing.h"

#include "model/attention/mha.h"
#include "model/kernels/rope.h"
#include "model/model.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Data {
    Model model, grads, expected_grads;
    int B, T;
    int64_t n_qkv, n_normed;
    float *cos_table, *sin_table, *normed, *d_qkv;
    float *qkv, *expected_qkv, *d_normed, *expected_d_normed;
} Data;

static Model make_model(const ModelShape *shape, uint64_t seed)
{
    Model model;
    assert_ok(model_create(&model, shape));
    testing_fill(model.params.flat, model.params.count, 0.3, seed);
    return model;
}

static Data make_data(int B, int T, int K, int G, int E, int D)
{
    ModelShape shape = {.n_layers = 1,
                        .d_model = D,
                        .n_heads = K * G,
                        .n_kv_heads = K,
                        .head_dim = E,
                        .d_ffn = 1,
                        .vocab_size = 1,
                        .rope_pairs = E / 2,
                        .tied_head = true,
                        .rope_theta = 1e4,
                        .rms_eps = 1e-5};
    Data d = {.model = make_model(&shape, 1), .B = B, .T = T};
    d.grads = make_model(&shape, 2);
    d.expected_grads = make_model(&shape, 2);
    d.n_qkv = (int64_t)B * T * (K * G + 2 * K) * E;
    d.n_normed = (int64_t)B * T * D;
    d.cos_table = ref_nans((int64_t)T * E / 2);
    d.sin_table = ref_nans((int64_t)T * E / 2);
    rope_table(d.cos_table, d.sin_table, T, E, shape.rope_theta);
    d.normed = ref_random(d.n_normed, 1.0, 3);
    d.d_qkv = ref_random(d.n_qkv, 1.0, 4);
    d.qkv = ref_nans(d.n_qkv);
    d.expected_qkv = ref_nans(d.n_qkv);
    d.d_normed = ref_nans(d.n_normed);
    d.expected_d_normed = ref_nans(d.n_normed);
    return d;
}

static void release_data(Data *d)
{
    float *all[] = {d->cos_table, d->sin_table,    d->normed,   d->d_qkv,
                    d->qkv,       d->expected_qkv, d->d_normed, d->expected_d_normed};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    model_release(&d->model);
    model_release(&d->grads);
    model_release(&d->expected_grads);
}

static void compare(int B, int T, int K, int G, int E, int D)
{
    Data d = make_data(B, T, K, G, E, D);
    const LayerParams *w = &d.model.params.layers[0];
    const ModelShape *s = &d.model.shape;
    mha_project(d.qkv, d.normed, w, s, B * T);
    ref_mha_project(d.expected_qkv, d.normed, w, s, B * T);
    testing_assert_close("projected", d.qkv, d.expected_qkv, d.n_qkv, 2e-6); // seen 2.4e-7
    memcpy(d.expected_qkv, d.qkv, (size_t)d.n_qkv * sizeof(float));
    mha_rotate(d.qkv, d.cos_table, d.sin_table, d.model.rope_pairs, s, B, T, 1.0f);
    ref_mha_rotate(d.expected_qkv, d.cos_table, d.sin_table, NULL, s, B, T, 1.0f);
    testing_assert_close("rotated", d.qkv, d.expected_qkv, d.n_qkv, 2e-7); // seen 1.0e-7
    mha_rotate(d.qkv, d.cos_table, d.sin_table, d.model.rope_pairs, s, B, T, -1.0f);
    ref_mha_rotate(d.expected_qkv, d.cos_table, d.sin_table, NULL, s, B, T, -1.0f);
    testing_assert_close("rotated back", d.qkv, d.expected_qkv, d.n_qkv, 4e-7); // seen 1.2e-7

    mha_project_backward(d.d_normed, &d.grads.params.layers[0], d.d_qkv, d.normed, w, s, B * T,
                         true);
    ref_mha_project_backward(d.expected_d_normed, &d.expected_grads.params.layers[0], d.d_qkv,
                             d.normed, w, s, B * T);
    testing_assert_close("d_normed", d.d_normed, d.expected_d_normed, d.n_normed,
                         2e-6); // seen 7.3e-7
    // All parameters: those of other tensors must be untouched.
    testing_assert_close("grads", d.grads.params.flat, d.expected_grads.params.flat,
                         d.grads.params.count, 2e-6); // seen 3.1e-7
    release_data(&d);
}

static void test_many_shapes(void **state)
{
    (void)state;
    compare(1, 1, 1, 1, 2, 3);
    compare(2, 7, 2, 1, 8, 16);
    compare(1, 65, 2, 2, 8, 33);
    compare(3, 5, 1, 4, 16, 24);
    compare(1, 129, 3, 3, 4, 20);
    compare(2, 9, 4, 2, 64, 40);
}

static double projected_loss(void *context)
{
    const Data *d = context;
    double *qkv = ref_doubles(d->n_qkv);
    exact_mha_project(qkv, d->normed, &d->model.params.layers[0], &d->model.shape, d->B * d->T);
    double loss = ref_dot(qkv, d->d_qkv, d->n_qkv);
    free(qkv);
    return loss;
}

static void test_oracle_against_central_differences(void **state)
{
    (void)state;
    Data d = make_data(2, 3, 2, 2, 2, 5);
    memset(d.grads.params.flat, 0, (size_t)d.grads.params.count * sizeof(float));
    ref_mha_project_backward(d.d_normed, &d.grads.params.layers[0], d.d_qkv, d.normed,
                             &d.model.params.layers[0], &d.model.shape, d.B * d.T);
    double inputs =
        ref_gradient_error(projected_loss, &d, d.normed, d.d_normed, d.n_normed, 0.125f);
    double weights = ref_gradient_error(projected_loss, &d, d.model.params.flat,
                                        d.grads.params.flat, d.model.params.count, 0.125f);
    ref_assert_error("inputs", inputs, 1e-6);   // seen 2.8e-8
    ref_assert_error("weights", weights, 1e-6); // seen 2.3e-8
    release_data(&d);
}

// <R x, y> = <x, R^T y>: rotation by direction -1 is the backward of direction +1.
static void test_rotation_back_is_the_transpose(void **state)
{
    (void)state;
    Data d = make_data(1, 9, 2, 2, 8, 16);
    const ModelShape *s = &d.model.shape;
    testing_fill(d.qkv, d.n_qkv, 1.0, 7);
    double before = 0, after = 0;
    float *x = ref_random(d.n_qkv, 1.0, 7), *y = ref_random(d.n_qkv, 1.0, 8);
    mha_rotate(d.qkv, d.cos_table, d.sin_table, d.model.rope_pairs, s, d.B, d.T, 1.0f);
    for (int64_t i = 0; i < d.n_qkv; i++)
        before += (double)d.qkv[i] * (double)y[i];
    mha_rotate(y, d.cos_table, d.sin_table, d.model.rope_pairs, s, d.B, d.T, -1.0f);
    for (int64_t i = 0; i < d.n_qkv; i++)
        after += (double)x[i] * (double)y[i];
    ref_assert_error("transpose", fabs(before - after), 1e-5); // seen 1.6e-6; sums of about 10
    free(x);
    free(y);
    release_data(&d);
}

static void test_table_against_exact_angles(void **state)
{
    (void)state;
    enum { T = 2048, E = 64 };
    const double thetas[] = {1e4, 5e5};
    float *c = ref_nans(T * E / 2), *s = ref_nans(T * E / 2);
    for (int i = 0; i < 2; i++) {
        rope_table(c, s, T, E, thetas[i]);
        for (int t = 0; t < T; t++)
            for (int p = 0; p < E / 2; p++) {
                double angle = t * pow(thetas[i], -2.0 * p / E);
                ref_assert_error("cos", fabs((double)c[t * E / 2 + p] - cos(angle)),
                                 3e-4); // seen 1.4e-4
                ref_assert_error("sin", fabs((double)s[t * E / 2 + p] - sin(angle)),
                                 3e-4); // seen 1.3e-4
            }
    }
    free(c);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_shapes),
        cmocka_unit_test(test_oracle_against_central_differences),
        cmocka_unit_test(test_rotation_back_is_the_transpose),
        cmocka_unit_test(test_table_against_exact_angles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
