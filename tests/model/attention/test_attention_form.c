// Every form of attention from normed input to heads' output and back, by one body that takes the
// form, against the oracle of its model: projections row after row, then the whole T x T softmax.
// The latent form has the oracle of the expanded one: they are the same function.
#include "tests/support/testing.h"

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
    int P, d_kv; // d_kv 0: original attention
    SvdKind svd;
} Case;

typedef struct Layer {
    const AttentionForm *form;
    Model model, grads;
    AttentionContext context;
    AttentionWidths widths;
    AttentionSaved saved;
    int64_t N;
    Rows normed, d_out, d_qkv, d_normed;
} Layer;

// Rows whose numbers are NaN.
static Rows nan_rows(int64_t n, int width)
{
    return rows_f32(ref_nans(n * width), width);
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
    return shape;
}

static Model make_model(const ModelShape *shape, uint64_t seed)
{
    Model model;
    assert_ok(model_create(&model, shape));
    testing_fill(model.params.flat, model.params.count, 0.3, seed);
    for (int j = 0; j < shape->n_kv_heads; j++)
        choose_pairs(model.rope_pairs + (int64_t)j * shape->rope_pairs, shape->rope_pairs,
                     shape->head_dim / 2, (uint64_t)j);
    return model;
}

// One block per buffer of exactly the stated size, so that the sanitizer sees an overrun. The
// caller sets the pointers to the layer's own models: start_layer().
static Layer make_layer(const AttentionForm *form, const Case *c)
{
    const ModelShape shape = shape_of(c);
    Layer l = {.form = form, .widths = form->widths(&shape), .N = (int64_t)c->B * c->T};
    l.model = make_model(&shape, 1);
    l.grads = make_model(&shape, 2);
    const int half = c->E / 2, Q = shape_dim(&shape, DIM_Q);
    float *cos_table = ref_nans(c->T * half), *sin_table = ref_nans(c->T * half);
    rope_table(cos_table, sin_table, c->T, c->E, shape.rope_theta);
    l.saved = (AttentionSaved){.qkv = nan_rows(l.N, l.widths.qkv),
                               .latent = nan_rows(l.N, l.widths.latent),
                               .values = nan_rows(l.N, l.widths.values),
                               .out = nan_rows(l.N, Q),
                               .lse = ref_nans(l.N * shape.n_heads)};
    l.context =
        (AttentionContext){.cos_table = cos_table,
                           .sin_table = sin_table,
                           .B = c->B,
                           .T = c->T,
                           .projected = nan_rows(l.N, l.widths.projected),
                           .expanded = nan_rows(l.N, l.widths.expanded),
                           .tiles = ref_nans(form->tile_bytes(&shape, COMPUTE_FLOAT32, c->B, c->T,
                                                              omp_get_max_threads(), true) /
                                             (int64_t)sizeof(float)),
                           .add_gradients = true};
    l.normed = rows_f32(ref_random(l.N * c->D, 1.0, 3), c->D);
    l.d_out = rows_f32(ref_random(l.N * Q, 1.0, 4), Q);
    l.d_qkv = nan_rows(l.N, l.widths.qkv);
    l.d_normed = nan_rows(l.N, c->D);
    return l;
}

static void release_layer(Layer *l)
{
    const AttentionContext *c = &l->context;
    free((void *)(uintptr_t)c->cos_table);
    free((void *)(uintptr_t)c->sin_table);
    void *all[] = {l->saved.qkv.data, l->saved.latent.data, l->saved.values.data, l->saved.out.data,
                   l->saved.lse,      c->projected.data,    c->expanded.data,     c->tiles,
                   l->normed.data,    l->d_out.data,        l->d_qkv.data,        l->d_normed.data};
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
    l->form->project(&l->saved, l->normed, context);
    l->form->attend(&l->saved, context);
}

static void run_backward(Layer *l)
{
    const AttentionContext *context = context_of(l);
    LayerParams *grads = &l->grads.params.layers[0];
    if (l->widths.remakes_out) // layers share one: backward must not read what forward left
        memset(l->saved.out.data, 0xff,
               (size_t)(l->N * shape_dim(context->shape, DIM_Q)) * sizeof(float));
    l->form->attend_backward(l->d_qkv, grads, l->d_out, &l->saved, context);
    l->form->project_backward(l->d_normed, grads, l->d_qkv, l->normed, &l->saved, context);
}

// ---- against the oracle ----

typedef struct Oracle {
    Model grads;
    float *qkv, *latent, *out, *lse, *d_qkv, *d_normed;
} Oracle;

static Oracle run_oracle(Layer *l)
{
    const AttentionContext *context = context_of(l);
    const ModelShape *s = context->shape;
    const AttentionDims dims = {context->B, context->T, s->n_heads, s->n_kv_heads, s->head_dim};
    const int64_t n_qkv = l->N * attention_row(&dims);
    Oracle o = {.grads = make_model(s, 2),
                .qkv = ref_nans(n_qkv),
                .latent = ref_nans(l->N * s->n_kv_heads * s->d_kv),
                .out = ref_nans(l->N * s->n_heads * s->head_dim),
                .lse = ref_nans(l->N * s->n_heads),
                .d_qkv = ref_nans(n_qkv),
                .d_normed = ref_nans(l->N * s->d_model)};
    LayerParams *grads = &o.grads.params.layers[0];
    if (shape_is_mla(s))
        ref_mla_forward(o.qkv, o.latent, l->normed.data, context);
    else
        ref_mha_forward(o.qkv, l->normed.data, context);
    ref_attention_forward(o.out, o.lse, o.qkv, NULL, &dims);
    ref_attention_backward(o.d_qkv, l->d_out.data, NULL, NULL, o.qkv, NULL, &dims);
    if (shape_is_mla(s))
        ref_mla_backward(o.d_normed, grads, o.d_qkv, NULL, l->normed.data, context);
    else
        ref_mha_backward(o.d_normed, grads, o.d_qkv, l->normed.data, context);
    return o;
}

static void release_oracle(Oracle *o)
{
    float *all[] = {o->qkv, o->latent, o->out, o->lse, o->d_qkv, o->d_normed};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    model_release(&o->grads);
}

static void compare(const AttentionForm *form, const Case *c)
{
    Layer l = make_layer(form, c);
    Oracle o = run_oracle(&l);
    const ModelShape *s = &l.model.shape;
    const int64_t n_out = l.N * shape_dim(s, DIM_Q);
    run_forward(&l);
    testing_assert_close("out", l.saved.out.data, o.out, n_out, 5e-6);       // seen 1.3e-6
    testing_assert_close("lse", l.saved.lse, o.lse, l.N * s->n_heads, 2e-6); // seen 2.9e-7
    run_backward(&l);
    testing_assert_close("out after backward", l.saved.out.data, o.out, n_out, 5e-6); // seen 1.3e-6
    testing_assert_close("d_normed", l.d_normed.data, o.d_normed, l.N * s->d_model,
                         8e-6); // seen 1.7e-6
    // All parameters: those of other tensors must be untouched.
    for (int i = 0; i < params_n_tensors(s); i++) {
        ParamInfo info = params_info(s, i);
        testing_assert_close(info.name, l.grads.params.flat + info.offset,
                             o.grads.params.flat + info.offset, (int64_t)info.rows * info.cols,
                             1e-5); // seen 2.5e-6
    }
    release_oracle(&o);
    release_layer(&l);
}

// Every form a model of this shape can be computed in, whatever is faster.
static void compare_all(const Case *c)
{
    if (c->d_kv == 0) {
        compare(&attention_forms[ATTENTION_MHA], c);
        return;
    }
    compare(&attention_forms[ATTENTION_MLA_LATENT], c);
    compare(&attention_forms[ATTENTION_MLA_EXPANDED], c);
}

static void test_mha_gqa_and_mqa(void **state)
{
    (void)state;
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
        compare_all(&cases[i]);
}

static void test_every_number_of_pairs(void **state)
{
    (void)state;
    for (int P = 1; P <= 4; P++) {
        compare_all(&(Case){2, 7, 2, 2, 8, 24, P, 6, SVD_JOINT});
        if (P < 4) // at 4 no keys are left for a latent of their own
            compare_all(&(Case){2, 7, 2, 2, 8, 24, P, 4, SVD_SPLIT});
    }
}

// ---- what must not change anything ----

static const Case long_cases[N_ATTENTION_FORMS] = {
    [ATTENTION_MHA] = {2, 300, 2, 3, 16, 24},
    [ATTENTION_MLA_LATENT] = {2, 300, 2, 3, 16, 24, 2, 5, SVD_JOINT},
    [ATTENTION_MLA_EXPANDED] = {2, 300, 2, 3, 16, 24, 2, 5, SVD_JOINT},
};

static void assert_same_bits(const float *a, const float *b, int64_t count)
{
    assert_memory_equal(a, b, (size_t)count * sizeof(float));
}

static void test_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    const int threads = omp_get_max_threads();
    for (int i = 0; i < N_ATTENTION_FORMS; i++) {
        Layer layers[2];
        for (int k = 0; k < 2; k++) {
            omp_set_num_threads(k + 1);
            layers[k] = make_layer(&attention_forms[i], &long_cases[i]);
            run_forward(&layers[k]);
            run_backward(&layers[k]);
        }
        omp_set_num_threads(threads);
        const Layer *one = &layers[0], *two = &layers[1];
        const ModelShape *s = &one->model.shape;
        assert_same_bits(one->saved.out.data, two->saved.out.data, one->N * shape_dim(s, DIM_Q));
        assert_same_bits(one->saved.lse, two->saved.lse, one->N * s->n_heads);
        assert_same_bits(one->d_normed.data, two->d_normed.data, one->N * s->d_model);
        assert_same_bits(one->grads.params.flat, two->grads.params.flat, one->grads.params.count);
        release_layer(&layers[0]);
        release_layer(&layers[1]);
    }
}

// Weights that attention does not read keep whatever is in their gradient.
static void test_gradients_are_written_where_they_are_not_added(void **state)
{
    (void)state;
    for (int i = 0; i < N_ATTENTION_FORMS; i++) {
        Layer added = make_layer(&attention_forms[i], &long_cases[i]);
        Layer written = make_layer(&attention_forms[i], &long_cases[i]);
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
    Layer l = make_layer(&attention_forms[ATTENTION_MHA], &(Case){1, T, K, G, E, 16});
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
        exact_mla_forward(qkv, latent, loss->layer->normed.data, c);
    else
        exact_mha_forward(qkv, loss->layer->normed.data, c);
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
        Layer l = make_layer(&attention_forms[is_mla ? ATTENTION_MLA_EXPANDED : ATTENTION_MHA], c);
        float *d_qkv = ref_random(l.N * l.widths.qkv, 1.0, 5);
        Params *grads = &l.grads.params;
        memset(grads->flat, 0, (size_t)grads->count * sizeof(float));
        if (is_mla)
            ref_mla_backward(l.d_normed.data, &grads->layers[0], d_qkv, NULL, l.normed.data,
                             context_of(&l));
        else
            ref_mha_backward(l.d_normed.data, &grads->layers[0], d_qkv, l.normed.data,
                             context_of(&l));
        Loss loss = {&l, d_qkv};
        const double inputs = ref_gradient_error(projected_loss, &loss, l.normed.data,
                                                 l.d_normed.data, l.N * c->D, 0.125f);
        const double weights = ref_gradient_error(projected_loss, &loss, l.model.params.flat,
                                                  grads->flat, grads->count, 0.125f);
        ref_assert_error("inputs", inputs, 1e-6);   // seen 3.8e-8
        ref_assert_error("weights", weights, 1e-6); // seen 6.9e-8
        free(d_qkv);
        release_layer(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mha_gqa_and_mqa),
        cmocka_unit_test(test_every_number_of_pairs),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_gradients_are_written_where_they_are_not_added),
        cmocka_unit_test(test_the_first_form_that_fits_is_taken),
        cmocka_unit_test(test_observer_sees_queries_and_keys_before_rope),
        cmocka_unit_test(test_oracles_against_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
