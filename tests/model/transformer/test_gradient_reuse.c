// Gradient memory reused for activations: each piece ends before the gradients that are written
// while it is read, and a step that reuses memory computes the same bits.
#include "tests/support/testing.h"

#include "model/params.h"
#include "model/transformer/transformer.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static const ModelShape original = {.n_layers = 5,
                                    .d_model = 24,
                                    .n_heads = 4,
                                    .n_kv_heads = 2,
                                    .head_dim = 6,
                                    .d_ffn = 20,
                                    .vocab_size = 31,
                                    .max_positions = 64,
                                    .rope_pairs = 3,
                                    .rope_theta = 10000,
                                    .rms_eps = 1e-5};

static const Trainable all = {0};

static ModelShape shape_of(bool is_mla, bool is_tied)
{
    ModelShape shape = original, mla;
    shape.tied_head = is_tied;
    assert_ok(shape_convert(&mla, &shape, 1, 4, SVD_JOINT));
    return is_mla ? mla : shape;
}

// ---- What is taken ----

static int64_t layers_end(const ModelShape *shape)
{
    int64_t first, count;
    params_layer_range(shape, shape->n_layers - 1, &first, &count);
    return first + count;
}

// Takes pieces of this many floats, three a layer; returns how many fit.
static int take_all(float *flat, const ModelShape *shape, int from_layer, int64_t count)
{
    GradientReuse reuse = gradient_reuse_start(flat, shape, &all, from_layer);
    GradientReuse measured = gradient_reuse_start(NULL, shape, &all, from_layer);
    int64_t layer_0, ignored, before = layers_end(shape);
    int n = 0;
    params_layer_range(shape, 0, &layer_0, &ignored);
    for (int i = 3 * shape->n_layers + 2; i >= 0; i--) {
        const int layer = i / 3;
        float *piece = NULL, *none = flat;
        const bool is_taken = gradient_reuse_take(&piece, &reuse, layer, count);
        assert_true(gradient_reuse_take(&none, &measured, layer, count) == is_taken);
        if (!is_taken)
            continue;
        int64_t limit = layers_end(shape);
        if (layer < shape->n_layers)
            params_layer_range(shape, layer, &limit, &ignored);
        assert_null(none);
        assert_int_equal((uintptr_t)piece % 64, 0);
        assert_true(piece - flat + count <= limit && piece - flat + count <= before);
        assert_true(piece - flat >= (shape->tied_head ? layer_0 : 0));
        assert_true(layer >= from_layer);
        assert_int_equal(reuse.lowest_layer, layer);
        assert_true(reuse.taken_from == piece - flat && measured.taken_from == reuse.taken_from);
        before = piece - flat;
        n++;
    }
    assert_true(gradient_reuse_is_used(&reuse) == (n > 0));
    return n;
}

static void test_pieces_end_before_gradients_written_meanwhile(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        const ModelShape shape = shape_of((kind & 1) != 0, (kind & 2) != 0);
        const int L = shape.n_layers, most = 3 * (L + 1);
        Arena arena = arena_start("gradients");
        arena_floats(&arena, params_count(&shape));
        assert_ok(arena_allocate(&arena));
        float *flat = arena_floats(&arena, params_count(&shape));
        // Layer 0 fits over the embedding's gradient, unless the loss writes it.
        assert_int_equal(take_all(flat, &shape, 0, 1), shape.tied_head ? most - 3 : most);
        assert_int_equal(take_all(flat, &shape, 3, 1), most - 3 * 3);
        assert_int_equal(take_all(flat, &shape, L + 1, 1), 0);
        assert_int_equal(take_all(flat, &shape, 0, 0), 0);
        assert_int_equal(take_all(flat, &shape, 0, params_count(&shape)), 0);
        for (int64_t count = 7; count < params_count(&shape); count = count * 3 / 2)
            assert_true(take_all(flat, &shape, 0, count) <= most);
        arena_release(&arena);
    }
}

static void test_nothing_is_taken_where_nothing_may_be_reused(void **state)
{
    (void)state;
    GradientReuse nothing = {0};
    float *piece;
    assert_false(gradient_reuse_take(&piece, &nothing, 0, 1));
    assert_false(gradient_reuse_is_used(&nothing));
}

// ---- A step ----

typedef struct Step {
    Model model, grads;
    Arena arena;
    Workspace ws;
    float *before; // [count]: the gradients when forward begins
    double loss;
} Step;

static void start(Step *s, const ModelShape *shape, const Trainable *trained, int B, int T,
                  ActivationPolicy policy, ComputeType compute, const int *from_layer)
{
    *s = (Step){.arena = arena_start("test")};
    assert_ok(model_create(&s->model, shape));
    assert_ok(model_create(&s->grads, shape));
    testing_fill(s->model.params.flat, s->model.params.count, 0.2, 7);
    float *flat = s->grads.params.flat;
    params_release(&s->grads.params);
    assert_ok(trainable_place(&s->grads.params, shape, trained, flat));
    for (int pass = 0; pass < 2; pass++) {
        const GradientReuse reuse =
            from_layer != NULL
                ? gradient_reuse_start(pass == 0 ? NULL : flat, shape, trained, *from_layer)
                : (GradientReuse){0};
        workspace_place_reusing(&s->ws, &reuse, &s->arena, &s->arena, shape, B, T,
                                omp_get_max_threads(), policy, compute);
        s->before = arena_floats(&s->arena, s->grads.params.count);
        if (pass == 0)
            assert_ok(arena_allocate(&s->arena));
    }
    s->ws.fresh_gradients = true;
    transformer_start(&s->ws, &s->model);
    for (int64_t i = 0; i < s->grads.params.count; i++)
        flat[i] = s->before[i] = NAN;
}

// Who still reads the gradients before forward comes to the lowest layer that lies there may.
static void check_untouched(void *context, int layer)
{
    Step *s = context;
    if (layer < s->ws.reuse.lowest_layer)
        assert_memory_equal(s->grads.params.flat, s->before,
                            (size_t)s->grads.params.count * sizeof(float));
}

static void run(Step *s, int first_token)
{
    enum { MOST_TOKENS = 128 };
    int32_t tokens[MOST_TOKENS + 1];
    const int N = s->ws.B * s->ws.T, V = s->model.shape.vocab_size;
    assert_true(N <= MOST_TOKENS);
    for (int i = 0; i <= N; i++)
        tokens[i] = (first_token + 7 * i) % V;
    const size_t bytes = (size_t)s->grads.params.count * sizeof(float);
    memcpy(s->before, s->grads.params.flat, bytes);
    transformer_forward(&s->ws, &s->model, tokens, NULL);
    s->loss = transformer_loss(&s->ws, &s->model, tokens + 1, 1.0f / (float)N, &s->grads.params);
    transformer_backward(&s->ws, &s->model, tokens, &s->grads.params);
}

static void release(Step *s)
{
    model_release(&s->model);
    model_release(&s->grads);
    arena_release(&s->arena);
}

static void check_step(const ModelShape *shape, const Trainable *trained, int B, int T,
                       ActivationPolicy policy, ComputeType compute, int from_layer)
{
    Step apart, over;
    start(&apart, shape, trained, B, T, policy, compute, NULL);
    start(&over, shape, trained, B, T, policy, compute, &from_layer);
    assert_true(gradient_reuse_is_used(&over.ws.reuse));
    assert_true(over.arena.size_bytes < apart.arena.size_bytes);
    over.ws.before_layer = (LayerCallback){check_untouched, &over};
    for (int i = 0; i < 2; i++) { // the second forward writes over the first one's gradients
        run(&apart, i);
        run(&over, i);
        assert_true(over.loss == apart.loss);
        assert_memory_equal(over.grads.params.flat, apart.grads.params.flat,
                            (size_t)apart.grads.params.count * sizeof(float));
    }
    release(&apart);
    release(&over);
}

// With few tokens all layers fit over the gradients, with many a part of one layer.
static void check_sizes(ComputeType compute)
{
    static const int sizes[][2] = {{1, 5}, {2, 11}, {2, 64}}; // B, T
    for (int kind = 0; kind < 4; kind++) {
        const ModelShape shape = shape_of((kind & 1) != 0, (kind & 2) != 0);
        for (int policy = RECOMPUTE_NONE; policy <= RECOMPUTE_LAYER; policy++)
            for (int i = 0; i < 3; i++)
                for (int from_layer = 0; from_layer < shape.n_layers; from_layer += 3)
                    check_step(&shape, &all, sizes[i][0], sizes[i][1], (ActivationPolicy)policy,
                               compute, from_layer);
    }
}

static void test_same_bits_in_less_memory(void **state)
{
    (void)state;
    for (int compute = 0; compute < N_COMPUTE_TYPES; compute++)
        check_sizes((ComputeType)compute);
}

// Gradients of frozen tensors take no memory, so there is less to reuse.
static void test_frozen_tensors_have_no_gradients(void **state)
{
    (void)state;
    static char attention[] = "attention", odd[] = "*.[024].mlp.down_proj.*", head[] = "*.mlp.*";
    char *const patterns[] = {attention, odd, head};
    for (int kind = 0; kind < 4; kind++) {
        const ModelShape shape = shape_of((kind & 1) != 0, (kind & 2) != 0);
        for (int p = 0; p < 3; p++) {
            const Trainable trained = {&patterns[p], 1};
            assert_true(trainable_gradients(&trained, &shape) < params_count(&shape));
            for (int policy = RECOMPUTE_NONE; policy <= RECOMPUTE_LAYER; policy++)
                check_step(&shape, &trained, 1, 5, (ActivationPolicy)policy, COMPUTE_FLOAT32, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_end_before_gradients_written_meanwhile),
        cmocka_unit_test(test_nothing_is_taken_where_nothing_may_be_reused),
        cmocka_unit_test(test_same_bits_in_less_memory),
        cmocka_unit_test(test_frozen_tensors_have_no_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
