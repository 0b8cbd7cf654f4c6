// model/mla: stacked products and gathered heads against one row after another, joint and split,
// MHA, GQA and MQA, arbitrary pairs.
#include "tests/support/testing.h"

#include "base/random.h"
#include "model/attention/mla.h"
#include "model/kernels/rope.h"
#include "model/model.h"
#include "tests/reference/ref.h"

#include <stdlib.h>
#include <string.h>

typedef struct Data {
    Model model, grads, expected_grads;
    MlaContext context;
    int64_t n_qkv, n_latent, n_normed;
    float *cos_table, *sin_table, *normed, *d_qkv;
    float *qkv, *latent, *d_normed, *expected_qkv, *expected_latent, *expected_d_normed;
} Data;

typedef struct Case {
    int B, T, K, G, E, D, P, d_kv;
    SvdKind svd;
} Case;

// P of the E/2 pairs, ascending: each pair is taken with the chance that leaves enough of them.
static void choose_pairs(int32_t *pairs, int P, int half, uint64_t row)
{
    uint64_t key = random_key(row, "pairs");
    int taken = 0;
    for (int p = 0; p < half && taken < P; p++)
        if ((int)(random_bits(key, (uint64_t)p) % (uint64_t)(half - p)) < P - taken)
            pairs[taken++] = p;
}

static Model make_model(const ModelShape *shape, uint64_t seed)
{
    Model model;
    assert_ok(model_create(&model, shape));
    testing_fill(model.params.flat, model.params.count, 0.3, seed);
    return model;
}

static Data make_data(const Case *c)
{
    ModelShape original = {.n_layers = 1,
                           .d_model = c->D,
                           .n_heads = c->K * c->G,
                           .n_kv_heads = c->K,
                           .head_dim = c->E,
                           .d_ffn = 1,
                           .vocab_size = 1,
                           .rope_pairs = c->E / 2,
                           .tied_head = true,
                           .rope_theta = 1e4,
                           .rms_eps = 1e-5};
    ModelShape shape;
    assert_ok(shape_convert(&shape, &original, c->P, c->d_kv, c->svd));
    Data d = {.model = make_model(&shape, 1), .grads = make_model(&shape, 2)};
    d.expected_grads = make_model(&shape, 2);
    for (int j = 0; j < c->K; j++)
        choose_pairs(d.model.rope_pairs + (int64_t)j * c->P, c->P, c->E / 2, (uint64_t)j);
    int64_t N = (int64_t)c->B * c->T, half = c->E / 2;
    d.n_qkv = N * (c->K * c->G + 2 * c->K) * c->E;
    d.n_latent = N * c->K * c->d_kv;
    d.n_normed = N * c->D;
    d.cos_table = ref_nans(c->T * half);
    d.sin_table = ref_nans(c->T * half);
    rope_table(d.cos_table, d.sin_table, c->T, c->E, shape.rope_theta);
    d.normed = ref_random(d.n_normed, 1.0, 3);
    d.d_qkv = ref_random(d.n_qkv, 1.0, 4);
    d.qkv = ref_nans(d.n_qkv);
    d.latent = ref_nans(d.n_latent);
    d.d_normed = ref_nans(d.n_normed);
    d.expected_qkv = ref_nans(d.n_qkv);
    d.expected_latent = ref_nans(d.n_latent);
    d.expected_d_normed = ref_nans(d.n_normed);
    d.context = (MlaContext){.cos_table = d.cos_table,
                             .sin_table = d.sin_table,
                             .B = c->B,
                             .T = c->T,
                             .projected = ref_nans(N * mla_projected_width(&shape)),
                             .expanded = ref_nans(N * mla_expanded_width(&shape))};
    return d;
}

// The context borrows from the model, whose address is the caller's.
static const MlaContext *context_of(Data *d)
{
    d->context.weights = &d->model.params.layers[0];
    d->context.shape = &d->model.shape;
    d->context.pairs = d->model.rope_pairs;
    d->context.add_gradients = true;
    return &d->context;
}

static void release_data(Data *d)
{
    float *all[] = {d->cos_table,
                    d->sin_table,
                    d->normed,
                    d->d_qkv,
                    d->qkv,
                    d->latent,
                    d->d_normed,
                    d->expected_qkv,
                    d->expected_latent,
                    d->expected_d_normed,
                    d->context.projected,
                    d->context.expanded};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    model_release(&d->model);
    model_release(&d->grads);
    model_release(&d->expected_grads);
}

static void compare(const Case *c)
{
    Data d = make_data(c);
    const MlaContext *x = context_of(&d);
    mla_forward(d.qkv, d.latent, d.normed, x);
    ref_mla_forward(d.expected_qkv, d.expected_latent, d.normed, x);
    testing_assert_close("qkv", d.qkv, d.expected_qkv, d.n_qkv, 2e-6);             // seen 2.4e-7
    testing_assert_close("latent", d.latent, d.expected_latent, d.n_latent, 2e-6); // seen 2.9e-7

    mla_backward(d.d_normed, &d.grads.params.layers[0], d.d_qkv, d.latent, d.normed, x);
    ref_mla_backward(d.expected_d_normed, &d.expected_grads.params.layers[0], d.d_qkv, NULL,
                     d.normed, x);
    testing_assert_close("d_normed", d.d_normed, d.expected_d_normed, d.n_normed,
                         2e-6); // seen 9.7e-7
    for (int i = 0; i < params_n_tensors(&d.model.shape); i++) {
        ParamInfo info = params_info(&d.model.shape, i);
        testing_assert_close(info.name, d.grads.params.flat + info.offset,
                             d.expected_grads.params.flat + info.offset,
                             (int64_t)info.rows * info.cols, 3e-6); // seen 3.7e-7
    }
    release_data(&d);
}

static void test_every_number_of_pairs(void **state)
{
    (void)state;
    for (int P = 1; P <= 4; P++) {
        compare(&(Case){2, 7, 2, 2, 8, 24, P, 6, SVD_JOINT});
        if (P < 4) // at 4 no keys are left for a latent of their own
            compare(&(Case){2, 7, 2, 2, 8, 24, P, 4, SVD_SPLIT});
    }
}

static void test_mha_gqa_and_mqa(void **state)
{
    (void)state;
    static const Case cases[] = {
        // B, T, K, G, E, D, P, d_kv
        {1, 1, 1, 1, 2, 3, 1, 1, SVD_JOINT},       {1, 65, 4, 1, 8, 32, 2, 8, SVD_JOINT},
        {3, 5, 4, 1, 8, 32, 3, 3, SVD_SPLIT},      {1, 33, 3, 3, 16, 36, 4, 5, SVD_JOINT},
        {2, 9, 3, 3, 16, 36, 4, 6, SVD_SPLIT},     {1, 129, 1, 6, 8, 20, 2, 7, SVD_JOINT},
        {2, 20, 1, 6, 8, 20, 3, 4, SVD_SPLIT},     {1, 10, 2, 4, 64, 48, 4, 16, SVD_JOINT},
        {1, 10, 1, 1, 128, 40, 16, 20, SVD_SPLIT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        compare(&cases[i]);
}

static double weighted_output(void *context)
{
    Data *d = context;
    double *qkv = ref_doubles(d->n_qkv), *latent = ref_doubles(d->n_latent);
    exact_mla_forward(qkv, latent, d->normed, context_of(d));
    double loss = ref_dot(qkv, d->d_qkv, d->n_qkv);
    free(qkv);
    free(latent);
    return loss;
}

static void test_oracle_against_central_differences(void **state)
{
    (void)state;
    static const Case cases[] = {{2, 3, 2, 2, 4, 5, 1, 2, SVD_JOINT},
                                 {2, 3, 2, 1, 6, 7, 2, 2, SVD_SPLIT},
                                 {1, 4, 1, 3, 4, 5, 2, 3, SVD_JOINT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Data d = make_data(&cases[i]);
        Params *grads = &d.grads.params;
        memset(grads->flat, 0, (size_t)grads->count * sizeof(float));
        ref_mla_backward(d.d_normed, &grads->layers[0], d.d_qkv, NULL, d.normed, context_of(&d));
        double inputs =
            ref_gradient_error(weighted_output, &d, d.normed, d.d_normed, d.n_normed, 0.125f);
        double weights = ref_gradient_error(weighted_output, &d, d.model.params.flat, grads->flat,
                                            grads->count, 0.125f);
        ref_assert_error("inputs", inputs, 1e-6);   // seen 3.8e-8
        ref_assert_error("weights", weights, 1e-6); // seen 8.5e-8
        release_data(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_number_of_pairs),
        cmocka_unit_test(test_mha_gqa_and_mqa),
        cmocka_unit_test(test_oracle_against_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
