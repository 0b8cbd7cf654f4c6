// What ranks rely on that hold the shares of others rounded (train/replica.h): in bfloat16 a model
// whose matrices have been rounded before gives the same bits, loss and every gradient, by every
// kernel, for every form of attention.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "model/kernels/half.h"
#include "model/params.h"
#include "model/transformer/transformer.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { B = 2, T = 61, N = B * T };

// Heads of 40: the root in the softmax's scale is no power of two, so that scaling before rounding
// is another thing than after.
static const ModelShape original = {.n_layers = 2,
                                    .d_model = 48,
                                    .n_heads = 4,
                                    .n_kv_heads = 2,
                                    .head_dim = 40,
                                    .d_ffn = 72,
                                    .vocab_size = 53,
                                    .max_positions = 64,
                                    .rope_pairs = 20,
                                    .rope_theta = 10000,
                                    .rms_eps = 1e-5};

typedef struct Step {
    Model model, grads;
    Arena arena;
    Workspace ws;
    double loss;
} Step;

static void start(Step *s, const ModelShape *shape, ActivationPolicy policy)
{
    *s = (Step){.arena = arena_start("test")};
    assert_ok(model_create(&s->model, shape));
    assert_ok(model_create(&s->grads, shape));
    testing_fill(s->model.params.flat, s->model.params.count, 0.2, 7);
    for (int pass = 0; pass < 2; pass++) {
        workspace_place(&s->ws, &s->arena, &s->arena, shape, B, T, omp_get_max_threads(), policy,
                        COMPUTE_BFLOAT16);
        if (pass == 0)
            assert_ok(arena_allocate(&s->arena));
    }
    s->ws.fresh_gradients = true;
    transformer_start(&s->ws, &s->model);
}

static void release(Step *s)
{
    model_release(&s->model);
    model_release(&s->grads);
    arena_release(&s->arena);
}

static void run(Step *s)
{
    int32_t tokens[N + 1];
    for (int i = 0; i <= N; i++)
        tokens[i] = 7 * i % original.vocab_size;
    transformer_forward(&s->ws, &s->model, tokens, NULL);
    s->loss = transformer_loss(&s->ws, &s->model, tokens + 1, 1.0f / N, &s->grads.params);
    transformer_backward(&s->ws, &s->model, tokens, &s->grads.params);
}

// As an all-gather leaves the shares of other ranks.
static void round_matrices(Model *model)
{
    const int n_tensors = params_n_tensors(&model->shape);
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(&model->shape, t);
        float *values = model->params.flat + info.offset;
        const int64_t count = (int64_t)info.rows * info.cols;
        for (int64_t i = 0; i < count && !info.is_vector; i++)
            values[i] = half_bf16_to_f32(half_f32_to_bf16(values[i]));
    }
}

static void check_tensors(const Step *exact, const Step *rounded)
{
    const ModelShape *shape = &exact->model.shape;
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        const int64_t count = (int64_t)info.rows * info.cols;
        if (memcmp(exact->grads.params.flat + info.offset, rounded->grads.params.flat + info.offset,
                   (size_t)count * sizeof(float)) != 0)
            fail_msg("%s, %s: another gradient of %s", exact->ws.form->name, bf16_kernel_name(),
                     info.name);
    }
}

static void check(const ModelShape *shape, const char *form, ActivationPolicy policy)
{
    Step exact, rounded;
    start(&exact, shape, policy);
    start(&rounded, shape, policy);
    assert_string_equal(exact.ws.form->name, form);
    round_matrices(&rounded.model);
    run(&exact);
    run(&rounded);
    assert_true(isfinite(exact.loss));
    if (exact.loss != rounded.loss)
        fail_msg("%s, %s: another loss", form, bf16_kernel_name());
    check_tensors(&exact, &rounded);
    release(&exact);
    release(&rounded);
}

// The latent of 8 is worth attending in, that of 48 is not.
static void check_forms(ActivationPolicy policy)
{
    ModelShape tied = original, latent, expanded, split;
    tied.tied_head = true;
    assert_ok(shape_convert(&latent, &tied, 2, 4, SVD_JOINT));
    assert_ok(shape_convert(&split, &original, 2, 4, SVD_SPLIT));
    assert_ok(shape_convert(&expanded, &original, 2, 24, SVD_JOINT));
    check(&original, "mha", policy);
    check(&tied, "mha", policy);
    check(&latent, "mla, latent", policy);
    check(&split, "mla, latent", policy);
    check(&expanded, "mla, expanded", policy);
}

static void test_rounding_twice_is_rounding_once(void **state)
{
    (void)state;
    for (int kernel = -1; testing_next_kernel(&kernel);) {
        for (int policy = RECOMPUTE_NONE; policy <= RECOMPUTE_LAYER; policy++)
            check_forms((ActivationPolicy)policy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rounding_twice_is_rounding_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
