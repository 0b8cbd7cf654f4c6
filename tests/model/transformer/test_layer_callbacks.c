// The callbacks that let the training loop exchange while it computes: forward reads no parameter
// of a layer before before_layer, and backward leaves a layer's gradients alone after
// after_backward.
#include "tests/support/testing.h"

#include "model/params.h"
#include "model/transformer/transformer.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, T = 9, MOST_CALLS = 16 };

static const ModelShape original = {.n_layers = 3,
                                    .d_model = 24,
                                    .n_heads = 4,
                                    .n_kv_heads = 2,
                                    .head_dim = 6,
                                    .d_ffn = 20,
                                    .vocab_size = 31,
                                    .max_positions = 16,
                                    .rope_pairs = 3,
                                    .rope_theta = 10000,
                                    .rms_eps = 1e-5};

typedef struct Step {
    Model model, grads;
    Arena arena;
    Workspace ws;
    float *late, *early; // [count]: parameters that come when asked for; gradients when done
    int needed[MOST_CALLS], finished[MOST_CALLS], n_needed, n_finished;
    double loss;
} Step;

static void range_of(const ModelShape *shape, int layer, int64_t *first, int64_t *count)
{
    const int L = shape->n_layers;
    if (layer >= 0 && layer < L) {
        params_layer_range(shape, layer, first, count);
        return;
    }
    int64_t layers_first, layers_end, last;
    params_layer_range(shape, 0, &layers_first, &last);
    params_layer_range(shape, L - 1, &layers_end, &last);
    layers_end += last;
    *first = layer < 0 ? 0 : layers_end;
    *count = layer < 0 ? layers_first : params_count(shape) - layers_end;
}

static void bring(void *context, int layer)
{
    Step *s = context;
    int64_t first, count;
    assert_true(s->n_needed < MOST_CALLS);
    s->needed[s->n_needed++] = layer;
    range_of(&s->model.shape, layer, &first, &count);
    memcpy(s->model.params.flat + first, s->late + first, (size_t)count * sizeof(float));
}

static void take(void *context, int layer)
{
    Step *s = context;
    int64_t first, count;
    assert_true(s->n_finished < MOST_CALLS);
    s->finished[s->n_finished++] = layer;
    range_of(&s->model.shape, layer, &first, &count);
    memcpy(s->early + first, s->grads.params.flat + first, (size_t)count * sizeof(float));
}

static void start(Step *s, const ModelShape *shape, ActivationPolicy policy)
{
    const int64_t count = params_count(shape);
    *s = (Step){.arena = arena_start("test")};
    assert_ok(model_create(&s->model, shape));
    assert_ok(model_create(&s->grads, shape));
    testing_fill(s->model.params.flat, count, 0.2, 7);
    for (int pass = 0; pass < 2; pass++) {
        workspace_place(&s->ws, &s->arena, &s->arena, shape, B, T, omp_get_max_threads(), policy,
                        COMPUTE_FLOAT32);
        s->late = arena_floats(&s->arena, count);
        s->early = arena_floats(&s->arena, count);
        if (pass == 0)
            assert_ok(arena_allocate(&s->arena));
    }
    transformer_start(&s->ws, &s->model);
}

static void run(Step *s)
{
    int32_t inputs[B * T], targets[B * T];
    for (int i = 0; i < B * T; i++) {
        inputs[i] = 7 * i % 31;
        targets[i] = 11 * i % 31;
    }
    transformer_forward(&s->ws, &s->model, inputs, NULL);
    s->loss = transformer_loss(&s->ws, &s->model, targets, 1.0f / (B * T), &s->grads.params);
    transformer_backward(&s->ws, &s->model, inputs, &s->grads.params);
}

static void release(Step *s)
{
    model_release(&s->model);
    model_release(&s->grads);
    arena_release(&s->arena);
}

static void check_shape(const ModelShape *shape, ActivationPolicy policy)
{
    const int64_t count = params_count(shape);
    const int L = shape->n_layers;
    Step plain, watched;
    start(&plain, shape, policy);
    start(&watched, shape, policy);
    memcpy(watched.late, watched.model.params.flat, (size_t)count * sizeof(float));
    for (int64_t i = 0; i < count; i++)
        watched.model.params.flat[i] = 1e30f;
    watched.ws.before_layer = (LayerCallback){bring, &watched};
    watched.ws.after_backward = (LayerCallback){take, &watched};
    run(&plain);
    run(&watched);
    assert_true(watched.loss == plain.loss);
    assert_memory_equal(watched.early, plain.grads.params.flat, (size_t)count * sizeof(float));
    assert_int_equal(watched.n_needed, L + 2);
    assert_int_equal(watched.n_finished, L + 2);
    for (int i = 0; i < L + 2; i++) {
        assert_int_equal(watched.needed[i], i - 1);
        assert_int_equal(watched.finished[i], L - i);
    }
    release(&plain);
    release(&watched);
}

static void test_callbacks_come_once_per_layer_in_turn(void **state)
{
    (void)state;
    for (int tied = 0; tied <= 1; tied++)
        for (int policy = RECOMPUTE_NONE; policy <= RECOMPUTE_LAYER; policy++) {
            ModelShape shape = original, mla;
            shape.tied_head = tied != 0;
            check_shape(&shape, (ActivationPolicy)policy);
            assert_ok(shape_convert(&mla, &shape, 1, 4, SVD_JOINT));
            check_shape(&mla, (ActivationPolicy)policy);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_callbacks_come_once_per_layer_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
