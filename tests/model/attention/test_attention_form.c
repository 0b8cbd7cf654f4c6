// Every form of attention from normed input to heads' output and back, by one body that takes the
// form and the way that products compute, against the oracle of its model: projections row after
// row, then the whole T x T softmax. The latent form has the oracle of the expanded one: they are
// the same function.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "base/random.h"
#include "model/attention/attention.h"
#include "model/attention/attention_form.h"
#include "model/kernels/rope.h"
#include "model/model.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Case {
    int B, T, K, G, E, D;
    int P, d_kv; // d_kv 0: original attention, or the shared form
    SvdKind svd;
    int latent; // 0: not the shared form
    bool latent_norm;
} Case;

typedef struct Layer {
    const TestingCompute *way;
    const AttentionForm *form;
    Model model, grads;
    AttentionContext context;
    AttentionWidths widths;
    AttentionSaved saved;
    int64_t N;
    float *normed, *d_out; // the oracle's inputs
    Rows normed_rows, d_out_rows, d_qkv, d_normed;
} Layer;

// Slots of a layer, ascending: any pair may occur again.
static void choose_slots(int32_t *pairs, int P, int half)
{
    for (int p = 0; p < P; p++)
        pairs[p] = (int32_t)((int64_t)p * p * half / ((int64_t)P * P));
}

// P of the E/2 pairs, ascending: each pair is taken with the chance that leaves enough of them.
static void choose_pairs(int32_t *pairs, int P, int half, uint64_t row)
{
    uint64_t key = random_key(row, "pairs");
    int taken = 0;
    for (int p = 0; p < half && taken < P; p++)
        if ((int)(random_bits(key, (uint64_t)p) % (uint64_t)(half - p)) < P - taken)
            pairs[taken++] = p;
}

static ModelShape shape_of(const Case *c)
{
    ModelShape shape = {.n_layers = 1,
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
    if (c->d_kv > 0)
        assert_ok(shape_convert(&shape, &shape, c->P, c->d_kv, c->svd));
    if (c->latent > 0)
        assert_ok(shape_convert_shared(&shape, &shape, c->P, c->latent, c->latent_norm));
    return shape;
}

static Model make_model(const ModelShape *shape, uint64_t seed)
{
    Model model;
    assert_ok(model_create(&model, shape));
    testing_fill(model.params.flat, model.params.count, 0.3, seed);
    if (shape_is_shared(shape))
        choose_slots(model.rope_pairs, shape->rope_pairs, shape->head_dim / 2);
    for (int j = 0; j < shape->n_kv_heads && !shape_is_shared(shape); j++)
        choose_pairs(model.rope_pairs + (int64_t)j * shape->rope_pairs, shape->rope_pairs,
                     shape->head_dim / 2, (uint64_t)j);
    return model;
}

static void *make_tiles(const TestingCompute *way, const AttentionForm *form,
                        const ModelShape *shape, const Case *c)
{
    const int64_t bytes =
        form->tile_bytes(shape, way->compute, c->B, c->T, omp_get_max_threads(), true);
    void *tiles = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
    assert_non_null(tiles);
    memset(tiles, 0xff, (size_t)bytes); // NaNs, of floats and of halves
    return tiles;
}

// One block per buffer of exactly the stated size, so that the sanitizer sees an overrun. The
// caller sets the pointers to the layer's own models: start_layer().
static Layer make_layer(const TestingCompute *way, const AttentionForm *form, const Case *c)
{
    const ModelShape shape = shape_of(c);
    Layer l = {.way = way, .form = form, .widths = form->widths(&shape), .N = (int64_t)c->B * c->T};
    l.model = make_model(&shape, 1);
    l.grads = make_model(&shape, 2);
    testing_round(way, l.model.params.flat, l.model.params.count);
    const int half = c->E / 2, Q = shape_dim(&shape, DIM_Q);
    float *cos_table = ref_nans(c->T * half), *sin_table = ref_nans(c->T * half);
    rope_table(cos_table, sin_table, c->T, c->E, shape.rope_theta, &shape.rope_scaling);
    l.saved = (AttentionSaved){.qkv = testing_rows(way, NULL, l.N, l.widths.qkv),
                               .latent = testing_rows(way, NULL, l.N, l.widths.latent),
                               .values = testing_rows(way, NULL, l.N, l.widths.values),
                               .out = testing_rows(way, NULL, l.N, Q),
                               .lse = ref_nans(l.N * shape.n_heads)};
    l.context = (AttentionContext){.compute = way->compute,
                                   .cos_table = cos_table,
                                   .sin_table = sin_table,
                                   .B = c->B,
                                   .T = c->T,
                                   .projected = testing_rows(way, NULL, l.N, l.widths.projected),
                                   .expanded = testing_rows(way, NULL, l.N, l.widths.expanded),
                                   .tiles = make_tiles(way, form, &shape, c),
                                   .add_gradients = true};
    l.normed = ref_random(l.N * c->D, 1.0, 3);
    l.d_out = ref_random(l.N * Q, 1.0, 4);
    testing_round(way, l.normed, l.N * c->D);
    testing_round(way, l.d_out, l.N * Q);
    l.normed_rows = testing_rows(way, l.normed, l.N, c->D);
    l.d_out_rows = testing_rows(way, l.d_out, l.N, Q);
    l.d_qkv = testing_rows(way, NULL, l.N, l.widths.qkv);
    l.d_normed = testing_rows(way, NULL, l.N, c->D);
    return l;
}

static void release_layer(Layer *l)
{
    const AttentionContext *c = &l->context;
    free((void *)(uintptr_t)c->cos_table);
    free((void *)(uintptr_t)c->sin_table);
    void *all[] = {l->saved.qkv.data,
                   l->saved.latent.data,
                   l->saved.values.data,
                   l->saved.out.data,
                   l->saved.lse,
                   c->projected.data,
                   c->expanded.data,
                   c->tiles,
                   l->normed,
                   l->d_out,
                   l->normed_rows.data,
                   l->d_out_rows.data,
                   l->d_qkv.data,
                   l->d_normed.data};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    model_release(&l->model);
    model_release(&l->grads);
}

// The context borrows from the model, whose address is the caller's.
static const AttentionContext *context_of(Layer *l)
{
    l->context.shape = &l->model.shape;
    l->context.weights = &l->model.params.layers[0];
    l->context.pairs = l->model.rope_pairs;
    return &l->context;
}

static void run_forward(Layer *l)
{
    const AttentionContext *context = context_of(l);
    l->form->project(&l->saved, l->normed_rows, context);
    l->form->attend(&l->saved, context);
}

static void run_backward(Layer *l)
{
    const AttentionContext *context = context_of(l);
    LayerParams *grads = &l->grads.params.layers[0];
    if (l->widths.remakes_out) // layers share one: backward must not read what forward left
        memset(l->saved.out.data, 0xff,
               (size_t)(l->N * shape_dim(context->shape, DIM_Q) *
                        dtype_size_bytes(l->saved.out.dtype)));
    l->form->attend_backward(l->d_qkv, grads, l->d_out_rows, &l->saved, context);
    l->form->project_backward(l->d_normed, grads, l->d_qkv, l->normed_rows, &l->saved, context);
}

// ---- against the oracle ----

typedef struct Oracle {
    Model grads;
    float *qkv, *latent, *out, *lse, *d_qkv, *d_normed;
} Oracle;

// By expanded rows of queries, keys and values.
static void run_rows(Oracle *to, Layer *l)
{
    const AttentionContext *context = context_of(l);
    const ModelShape *s = context->shape;
    const AttentionDims dims = {context->B, context->T, s->n_heads, s->n_kv_heads, s->head_dim};
    Oracle o = *to;
    LayerParams *grads = &o.grads.params.layers[0];
    if (shape_is_mla(s))
        ref_mla_forward(o.qkv, o.latent, l->normed, context);
    else
        ref_mha_forward(o.qkv, l->normed, context);
    ref_attention_forward(o.out, o.lse, o.qkv, NULL, &dims);
    ref_attention_backward(o.d_qkv, l->d_out, NULL, NULL, o.qkv, NULL, &dims);
    if (shape_is_mla(s))
        ref_mla_backward(o.d_normed, grads, o.d_qkv, NULL, l->normed, context);
    else
        ref_mha_backward(o.d_normed, grads, o.d_qkv, l->normed, context);
}

static Oracle run_oracle(Layer *l)
{
    const AttentionContext *context = context_of(l);
    const ModelShape *s = context->shape;
    const int64_t n_qkv = l->N * (s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
    Oracle o = {.grads = make_model(s, 2),
                .qkv = ref_nans(n_qkv),
                .latent = ref_nans(l->N * shape_dim(s, DIM_LATENT)),
                .out = ref_nans(l->N * s->n_heads * s->head_dim),
                .lse = ref_nans(l->N * s->n_heads),
                .d_qkv = ref_nans(n_qkv),
                .d_normed = ref_nans(l->N * s->d_model)};
    if (shape_is_shared(s)) {
        ref_shared_forward(o.out, o.lse, l->normed, context);
        ref_shared_backward(o.d_normed, &o.grads.params.layers[0], l->d_out, l->normed, context);
    } else {
        run_rows(&o, l);
    }
    return o;
}

static void release_oracle(Oracle *o)
{
    float *all[] = {o->qkv, o->latent, o->out, o->lse, o->d_qkv, o->d_normed};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    model_release(&o->grads);
}

static void compare(const TestingCompute *way, const AttentionForm *form, const Case *c)
{
    Layer l = make_layer(way, form, c);
    Oracle o = run_oracle(&l);
    const ModelShape *s = &l.model.shape;
    const int Q = shape_dim(s, DIM_Q);
    run_forward(&l);
    // Seen in float32 and in bfloat16.
    testing_assert_rows(way, "out", l.saved.out, o.out, l.N, Q, 5e-6, 4e-2); // 1.3e-6, 1.9e-2
    testing_assert_floats(way, "lse", l.saved.lse, o.lse, l.N * s->n_heads, 2e-6,
                          1e-2); // 2.9e-7, 4.3e-3
    run_backward(&l);
    testing_assert_rows(way, "out after backward", l.saved.out, o.out, l.N, Q, 5e-6,
                        4e-2); // 1.3e-6, 1.9e-2
    testing_assert_rows(way, "d_normed", l.d_normed, o.d_normed, l.N, s->d_model, 8e-6,
                        4e-2); // 1.7e-6, 1.8e-2
    // All parameters: those of other tensors must be untouched.
    for (int i = 0; i < params_n_tensors(s); i++) {
        ParamInfo info = params_info(s, i);
        // The norm's weight has a sum over tokens of products of two rounded rows.
        const bool is_norm = strstr(info.name, "latent_norm") != NULL;
        testing_assert_floats(way, info.name, l.grads.params.flat + info.offset,
                              o.grads.params.flat + info.offset, (int64_t)info.rows * info.cols,
                              1e-5, is_norm ? 1.5e-1 : 6e-2); // 2.5e-6, 7.9e-2 and 3.0e-2
    }
    release_oracle(&o);
    release_layer(&l);
}

// Every form a model of this shape can be computed in, whatever is faster.
static void compare_all(const TestingCompute *way, const Case *c)
{
    const bool is_shared = c->latent > 0;
    if (c->d_kv == 0 && !is_shared) {
        compare(way, &attention_forms[ATTENTION_MHA], c);
        return;
    }
    compare(way, &attention_forms[is_shared ? ATTENTION_SHARED_LATENT : ATTENTION_MLA_LATENT], c);
    compare(way, &attention_forms[ATTENTION_MLA_EXPANDED], c);
}

static void test_mha_gqa_and_mqa(void **state)
{
    const TestingCompute *way = testing_compute(state);
    static const Case cases[] = {
        // B, T, K, G, E, D, P, d_kv
        {1, 1, 1, 1, 2, 3},
        {2, 7, 2, 1, 8, 16},
        {1, 65, 2, 2, 8, 33},
        {3, 5, 1, 4, 16, 24},
        {1, 129, 3, 3, 4, 20},
        {2, 9, 4, 2, 64, 40},
        {1, 1, 1, 1, 2, 3, 1, 1, SVD_JOINT},
        {1, 65, 4, 1, 8, 32, 2, 8, SVD_JOINT},
        {3, 5, 4, 1, 8, 32, 3, 3, SVD_SPLIT},
        {1, 33, 3, 3, 16, 36, 4, 5, SVD_JOINT},
        {2, 9, 3, 3, 16, 36, 4, 6, SVD_SPLIT},
        {1, 129, 1, 6, 8, 20, 2, 7, SVD_JOINT},
        {2, 20, 1, 6, 8, 20, 3, 4, SVD_SPLIT},
        {1, 10, 2, 4, 64, 48, 4, 16, SVD_JOINT},
        {1, 10, 1, 1, 128, 40, 16, 20, SVD_SPLIT},
        {1, 210, 2, 2, 8, 16, 2, 2, SVD_JOINT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        compare_all(way, &cases[i]);
}

// With and without the norm; more slots than a head has pairs, a latent wider than a head.
static void test_shared(void **state)
{
    const TestingCompute *way = testing_compute(state);
    static const Case cases[] = {
        // B, T, K, G, E, D, P, d_kv, svd, latent
        {1, 1, 1, 1, 2, 3, 1, 0, SVD_JOINT, 1},     {1, 65, 4, 1, 8, 32, 2, 0, SVD_JOINT, 12},
        {3, 5, 2, 2, 8, 24, 7, 0, SVD_JOINT, 19},   {1, 33, 3, 3, 16, 36, 4, 0, SVD_JOINT, 8},
        {2, 9, 1, 7, 16, 20, 5, 0, SVD_JOINT, 20},  {1, 129, 1, 6, 8, 20, 2, 0, SVD_JOINT, 7},
        {1, 10, 2, 4, 64, 48, 32, 0, SVD_JOINT, 5}, {1, 210, 2, 2, 8, 16, 3, 0, SVD_JOINT, 2},
        {1, 20, 8, 5, 4, 16, 1, 0, SVD_JOINT, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int norm = 0; norm < 2; norm++) {
            Case c = cases[i];
            // The norm of one number is its sign: hardly any gradient is left of it.
            c.latent_norm = norm == 1 && c.latent > 1;
            compare_all(way, &c);
        }
}

static void test_every_number_of_pairs(void **state)
{
    const TestingCompute *way = testing_compute(state);
    for (int P = 1; P <= 4; P++) {
        compare_all(way, &(Case){2, 7, 2, 2, 8, 24, P, 6, SVD_JOINT});
        if (P < 4) // at 4 no keys are left for a latent of their own
            compare_all(way, &(Case){2, 7, 2, 2, 8, 24, P, 4, SVD_SPLIT});
    }
}

// ---- what must not change anything ----

static const struct {
    int form;
    Case of;
} long_cases[] = {
    {ATTENTION_MHA, {2, 300, 2, 3, 16, 24}},
    {ATTENTION_MLA_LATENT, {2, 300, 2, 3, 16, 24, 2, 5, SVD_JOINT}},
    {ATTENTION_MLA_EXPANDED, {2, 300, 2, 3, 16, 24, 2, 5, SVD_JOINT}},
    {ATTENTION_SHARED_LATENT, {2, 300, 2, 3, 16, 24, 3, 0, SVD_JOINT, 9, true}},
    {ATTENTION_MLA_EXPANDED, {2, 300, 2, 3, 16, 24, 3, 0, SVD_JOINT, 9, true}},
};

enum { N_LONG = sizeof long_cases / sizeof long_cases[0] };

static Layer make_long_layer(const TestingCompute *way, int i)
{
    return make_layer(way, &attention_forms[long_cases[i].form], &long_cases[i].of);
}

static void assert_same_rows(Rows a, Rows b, int64_t count)
{
    assert_memory_equal(a.data, b.data, (size_t)(count * dtype_size_bytes(a.dtype)));
}

static void assert_same_bits(const float *a, const float *b, int64_t count)
{
    assert_memory_equal(a, b, (size_t)count * sizeof(float));
}

static void test_bits_do_not_depend_on_threads(void **state)
{
    const TestingCompute *way = testing_compute(state);
    const int threads = omp_get_max_threads();
    for (int i = 0; i < N_LONG; i++) {
        Layer layers[2];
        for (int k = 0; k < 2; k++) {
            omp_set_num_threads(k + 1);
            layers[k] = make_long_layer(way, i);
            run_forward(&layers[k]);
            run_backward(&layers[k]);
        }
        omp_set_num_threads(threads);
        const Layer *one = &layers[0], *two = &layers[1];
        const ModelShape *s = &one->model.shape;
        assert_same_rows(one->saved.out, two->saved.out, one->N * shape_dim(s, DIM_Q));
        assert_same_bits(one->saved.lse, two->saved.lse, one->N * s->n_heads);
        assert_same_rows(one->d_normed, two->d_normed, one->N * s->d_model);
        assert_same_bits(one->grads.params.flat, two->grads.params.flat, one->grads.params.count);
        release_layer(&layers[0]);
        release_layer(&layers[1]);
    }
}

// Weights that attention does not read keep whatever is in their gradient.
static void test_gradients_are_written_where_they_are_not_added(void **state)
{
    const TestingCompute *way = testing_compute(state);
    for (int i = 0; i < N_LONG; i++) {
        Layer added = make_long_layer(way, i);
        Layer written = make_long_layer(way, i);
        memset(added.grads.params.flat, 0, (size_t)added.grads.params.count * sizeof(float));
        for (int64_t k = 0; k < written.grads.params.count; k++)
            written.grads.params.flat[k] = NAN;
        written.context.add_gradients = false;
        Layer *both[] = {&added, &written};
        for (int k = 0; k < 2; k++) {
            run_forward(both[k]);
            run_backward(both[k]);
        }
        for (int t = 0; t < params_n_tensors(&added.model.shape); t++) {
            const ParamInfo info = params_info(&added.model.shape, t);
            const bool is_read =
                strstr(info.name, "self_attn") != NULL && strstr(info.name, "o_proj") == NULL;
            for (int64_t k = 0; k < (int64_t)info.rows * info.cols; k++) {
                const float got = written.grads.params.flat[info.offset + k];
                // 0 + g may be a zero of the other sign.
                assert_true(is_read ? got == added.grads.params.flat[info.offset + k] : isnan(got));
            }
        }
        release_layer(&added);
        release_layer(&written);
    }
}

// ---- selection, observer ----

static void assert_form(int expected, Case c)
{
    const ModelShape shape = shape_of(&c);
    assert_string_equal(attention_form(&shape, COMPUTE_FLOAT32, c.T)->name,
                        attention_forms[expected].name);
}

// The latent form is for narrow latents in long sequences.
static void test_the_first_form_that_fits_is_taken(void **state)
{
    (void)state;
    assert_form(ATTENTION_MHA, (Case){1, 2048, 3, 3, 64, 576});
    assert_form(ATTENTION_MLA_LATENT, (Case){1, 2048, 3, 3, 64, 576, 4, 16, SVD_JOINT});
    assert_form(ATTENTION_MLA_LATENT, (Case){1, 2048, 3, 3, 64, 576, 4, 16, SVD_SPLIT});
    assert_form(ATTENTION_MLA_EXPANDED, (Case){1, 64, 3, 3, 64, 576, 4, 16, SVD_JOINT});
    assert_form(ATTENTION_MLA_EXPANDED, (Case){1, 4096, 32, 1, 128, 4096, 8, 16, SVD_JOINT});
    assert_form(ATTENTION_SHARED_LATENT, (Case){1, 2048, 3, 3, 64, 576, 12, 0, SVD_JOINT, 24});
    assert_form(ATTENTION_SHARED_LATENT,
                (Case){1, 2048, 3, 3, 64, 576, 12, 0, SVD_JOINT, 24, true});
    assert_form(ATTENTION_MLA_EXPANDED, (Case){1, 2048, 3, 3, 64, 576, 12, 0, SVD_JOINT, 96});
    assert_form(ATTENTION_MLA_EXPANDED, (Case){1, 32, 3, 3, 64, 576, 12, 0, SVD_JOINT, 56});
    assert_form(ATTENTION_MLA_EXPANDED, (Case){1, 4096, 32, 1, 128, 4096, 64, 0, SVD_JOINT, 896});
}

typedef struct Seen {
    float *qkv;
    int64_t count;
    int n_calls;
} Seen;

static void see(void *observer, Rows qkv)
{
    Seen *seen = observer;
    seen->n_calls++;
    memcpy(seen->qkv, qkv.data, (size_t)seen->count * sizeof(float));
    assert_int_equal(qkv.ld * 9, seen->count);
}

// At position 0 nothing rotates; anywhere pairs keep their norm.
static void test_observer_sees_queries_and_keys_before_rope(void **state)
{
    (void)state;
    enum { T = 9, K = 2, G = 2, E = 8, HEADS = K * G + 2 * K };
    float seen_qkv[T * HEADS * E];
    Seen seen = {seen_qkv, T * HEADS * E, 0};
    const QkObserver observer = {see, &seen};
    Layer l =
        make_layer(testing_way(0), &attention_forms[ATTENTION_MHA], &(Case){1, T, K, G, E, 16});
    l.context.qk_observer = &observer;
    run_forward(&l);
    assert_int_equal(seen.n_calls, 1);
    assert_same_bits(seen.qkv, l.saved.qkv.data, HEADS * E);
    double moved = 0;
    for (int i = 0; i < T * HEADS; i++)
        for (int p = 0; p < E / 2; p++) {
            const float *before = seen.qkv + i * E + p,
                        *after = (float *)l.saved.qkv.data + i * E + p;
            const double norm = hypot((double)before[0], (double)before[E / 2]);
            ref_assert_error("norm", fabs(hypot((double)after[0], (double)after[E / 2]) - norm),
                             1e-6); // seen 1.8e-7
            moved = fmax(moved, fabs((double)(after[0] - before[0])));
        }
    assert_true(moved > 0.1);
    release_layer(&l);
}

// ---- the oracles of the projections ----

typedef struct Loss {
    Layer *layer;
    const float *weights; // [N, (H + 2 K) E]
} Loss;

static double projected_loss(void *context)
{
    const Loss *loss = context;
    const AttentionContext *c = context_of(loss->layer);
    const ModelShape *s = c->shape;
    const int64_t n_qkv = loss->layer->N * (s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
    double *qkv = ref_doubles(n_qkv);
    double *latent = ref_doubles(loss->layer->N * s->n_kv_heads * s->d_kv);
    if (shape_is_mla(s))
        exact_mla_forward(qkv, latent, loss->layer->normed, c);
    else
        exact_mha_forward(qkv, loss->layer->normed, c);
    const double sum = ref_dot(qkv, loss->weights, n_qkv);
    free(qkv);
    free(latent);
    return sum;
}

static void test_oracles_against_central_differences(void **state)
{
    (void)state;
    static const Case cases[] = {{2, 3, 2, 2, 2, 5},
                                 {2, 3, 2, 2, 4, 5, 1, 2, SVD_JOINT},
                                 {2, 3, 2, 1, 6, 7, 2, 2, SVD_SPLIT},
                                 {1, 4, 1, 3, 4, 5, 2, 3, SVD_JOINT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const Case *c = &cases[i];
        const bool is_mla = c->d_kv > 0;
        Layer l = make_layer(testing_way(0),
                             &attention_forms[is_mla ? ATTENTION_MLA_EXPANDED : ATTENTION_MHA], c);
        float *d_qkv = ref_random(l.N * l.widths.qkv, 1.0, 5);
        Params *grads = &l.grads.params;
        memset(grads->flat, 0, (size_t)grads->count * sizeof(float));
        if (is_mla)
            ref_mla_backward(l.d_normed.data, &grads->layers[0], d_qkv, NULL, l.normed,
                             context_of(&l));
        else
            ref_mha_backward(l.d_normed.data, &grads->layers[0], d_qkv, l.normed, context_of(&l));
        Loss loss = {&l, d_qkv};
        const double inputs = ref_gradient_error(projected_loss, &loss, l.normed, l.d_normed.data,
                                                 l.N * c->D, 0.125f);
        const double weights = ref_gradient_error(projected_loss, &loss, l.model.params.flat,
                                                  grads->flat, grads->count, 0.125f);
        ref_assert_error("inputs", inputs, 1e-6);   // seen 3.8e-8
        ref_assert_error("weights", weights, 1e-6); // seen 6.9e-8
        free(d_qkv);
        release_layer(&l);
    }
}

static double shared_loss(void *context)
{
    const Loss *loss = context;
    const AttentionContext *c = context_of(loss->layer);
    const int64_t n_lse = loss->layer->N * c->shape->n_heads, n_out = n_lse * c->shape->head_dim;
    double *out = ref_doubles(n_out), *lse = ref_doubles(n_lse);
    exact_shared_forward(out, lse, loss->layer->normed, c);
    const double sum = ref_dot(out, loss->weights, n_out);
    free(out);
    free(lse);
    return sum;
}

static void test_shared_oracle_against_central_differences(void **state)
{
    (void)state;
    static const Case cases[] = {{2, 3, 2, 2, 2, 5, 2, 0, SVD_JOINT, 3, false},
                                 {2, 4, 2, 1, 4, 6, 3, 0, SVD_JOINT, 4, true},
                                 {1, 4, 1, 3, 4, 5, 2, 0, SVD_JOINT, 3, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Layer l = make_layer(testing_way(0), &attention_forms[ATTENTION_SHARED_LATENT], &cases[i]);
        Params *grads = &l.grads.params;
        memset(grads->flat, 0, (size_t)grads->count * sizeof(float));
        ref_shared_backward(l.d_normed.data, &grads->layers[0], l.d_out, l.normed, context_of(&l));
        Loss loss = {&l, l.d_out};
        const double inputs = ref_gradient_error(shared_loss, &loss, l.normed, l.d_normed.data,
                                                 l.N * cases[i].D, 0x1p-10f);
        const double weights = ref_gradient_error(shared_loss, &loss, l.model.params.flat,
                                                  grads->flat, grads->count, 0x1p-10f);
        ref_assert_error("inputs", inputs, 1e-5);   // seen 2.0e-6
        ref_assert_error("weights", weights, 5e-6); // seen 8.1e-7
        release_layer(&l);
    }
}

int main(void)
{
    static const struct CMUnitTest every_way[] = {
        cmocka_unit_test(test_mha_gqa_and_mqa),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_every_number_of_pairs),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_gradients_are_written_where_they_are_not_added),
    };
    static const struct CMUnitTest once[] = {
        cmocka_unit_test(test_the_first_form_that_fits_is_taken),
        cmocka_unit_test(test_observer_sees_queries_and_keys_before_rope),
        cmocka_unit_test(test_oracles_against_central_differences),
        cmocka_unit_test(test_shared_oracle_against_central_differences),
    };
    enum { N = sizeof every_way / sizeof every_way[0], N_ONCE = sizeof once / sizeof once[0] };
    struct CMUnitTest tests[N_TESTING_WAYS * N + N_ONCE];
    for (int i = 0; i < N_TESTING_WAYS * N; i++) {
        tests[i] = every_way[i % N];
        tests[i].initial_state = testing_way(i / N);
    }
    memcpy(tests + N_TESTING_WAYS * N, once, sizeof once);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
