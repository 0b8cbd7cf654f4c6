// Queries that are refitted to the original's scores, against the least squares problem written
// down as one: every pair of query and key is a row, and LAPACK solves the whole at once.
#include "tests/support/testing.h"

#include "model/convert/refit/query_fit.h"
#include "model/kernels/rope.h"

#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_WINDOWS = 3, T = 10, LAYER = 1 };

static const ModelShape original_shape = {.n_layers = 2,
                                          .d_model = 16,
                                          .n_heads = 4,
                                          .n_kv_heads = 2,
                                          .head_dim = 8,
                                          .d_ffn = 8,
                                          .vocab_size = 8,
                                          .max_positions = 64,
                                          .rope_pairs = 4,
                                          .rope_theta = 100,
                                          .rms_eps = 1e-5};

// An original and a model of the converted shape that has nothing to do with it.
typedef struct Models {
    Model original, mla;
    QueryFit fit;
} Models;

static void start(Models *m, const ModelShape *original, const ModelShape *mla)
{
    assert_ok(model_create(&m->original, original));
    assert_ok(model_create(&m->mla, mla));
    testing_fill(m->original.params.flat, m->original.params.count, .5, 1);
    testing_fill(m->mla.params.flat, m->mla.params.count, .4, 2);
    const int64_t n_rows = model_n_pairs(mla) / mla->rope_pairs;
    for (int64_t row = 0; row < n_rows; row++)
        for (int p = 0; p < mla->rope_pairs; p++)
            m->mla.rope_pairs[row * mla->rope_pairs + p] = (int32_t)(p + row % 2);
    assert_ok(query_fit_start(&m->fit, &m->mla, &m->original, N_WINDOWS, T));
    testing_fill(m->fit.x, (int64_t)N_WINDOWS * T * mla->d_model, 1, 3);
    assert_ok(query_fit_layer(&m->fit, LAYER));
}

static void end(Models *m)
{
    query_fit_release(&m->fit);
    model_release(&m->original);
    model_release(&m->mla);
}

// ---- the problem by its definition -------------------------------------------------------------

// y [n] = w [n, D] x + bias.
static void product(double *y, const float *w, const float *bias, const float *x, int n, int D)
{
    for (int i = 0; i < n; i++) {
        y[i] = bias != NULL ? bias[i] : 0;
        for (int d = 0; d < D; d++)
            y[i] += (double)w[i * D + d] * x[d];
    }
}

static void turn(double *y, const int32_t *pairs, int P, int position, const ModelShape *s,
                 double direction)
{
    if (!shape_rotates(s, LAYER))
        return;
    for (int p = 0; p < P; p++) {
        const int pair = pairs != NULL ? pairs[p] : p;
        const double angle = direction * position * pow(s->rope_theta, -2.0 * pair / s->head_dim);
        const double a = y[p], b = y[P + p];
        y[p] = a * cos(angle) - b * sin(angle);
        y[P + p] = b * cos(angle) + a * sin(angle);
    }
}

typedef struct Head {
    const Models *m;
    int head, kv_head, n, rope;
} Head;

static Head head_of(const Models *m, int head)
{
    const ModelShape *s = &m->mla.shape;
    const int rope = 2 * s->rope_pairs;
    return (Head){m, head, head / (s->n_heads / s->n_kv_heads), rope + shape_head_nope(s), rope};
}

// The converted key [n] of a token, over sqrt E, rotated.
static void find_key(double *key, const Head *h, const float *x, int position)
{
    const ModelShape *s = &h->m->mla.shape;
    const LayerParams *w = &h->m->mla.params.layers[LAYER];
    const int D = s->d_model, R = shape_dim(s, DIM_LATENT), nope = h->n - h->rope;
    const int rows = shape_is_shared(s) ? 0 : h->kv_head * h->rope;
    const float *up = w->up_k + (shape_is_shared(s) ? h->head : h->kv_head) * nope * R;
    double latent[32], square = 0;
    product(key, w->k_r + rows * D, w->k_r_bias != NULL ? w->k_r_bias + rows : NULL, x, h->rope, D);
    turn(key, model_pairs(&h->m->mla, LAYER, h->kv_head), s->rope_pairs, position, s, 1);
    product(latent, w->down_kv, NULL, x, R, D);
    for (int r = 0; r < R; r++)
        square += latent[r] * latent[r] / R;
    for (int r = 0; r < R && s->latent_norm; r++)
        latent[r] *= w->latent_norm[r] / sqrt(square + s->rms_eps);
    for (int i = 0; i < nope; i++) {
        key[h->rope + i] = 0;
        for (int r = 0; r < R; r++)
            key[h->rope + i] += up[i * R + r] * latent[r];
    }
    for (int i = 0; i < h->n; i++)
        key[i] /= sqrt(s->head_dim);
}

// The original's score of two tokens.
static double original_score(const Head *h, const float *xi, int i, const float *xj, int j)
{
    const ModelShape *s = &h->m->original.shape;
    const LayerParams *w = &h->m->original.params.layers[LAYER];
    const int E = s->head_dim, D = s->d_model;
    double q[8], k[8], sum = 0;
    product(q, w->q + h->head * E * D, w->q_bias != NULL ? w->q_bias + h->head * E : NULL, xi, E,
            D);
    product(k, w->k + h->kv_head * E * D, w->k_bias != NULL ? w->k_bias + h->kv_head * E : NULL, xj,
            E, D);
    turn(q, NULL, E / 2, i, s, 1);
    turn(k, NULL, E / 2, j, s, 1);
    for (int e = 0; e < E; e++)
        sum += q[e] * k[e];
    return sum / sqrt(E);
}

// The head's rows of W_q [n, D] and of its bias [n].
static void find_rows(float *w, float *bias, const Head *h)
{
    const ModelShape *s = &h->m->mla.shape;
    const LayerParams *from = &h->m->mla.params.layers[LAYER];
    const int D = s->d_model, nope = h->n - h->rope;
    const int first[] = {h->head * h->rope, s->n_heads * h->rope + h->head * nope};
    const int count[] = {h->rope, nope}, to[] = {0, h->rope};
    for (int part = 0; part < 2; part++) {
        memcpy(w + to[part] * D, from->q + first[part] * D, (size_t)(count[part] * D) * sizeof *w);
        for (int i = 0; i < count[part]; i++)
            bias[to[part] + i] = from->q_bias != NULL ? from->q_bias[first[part] + i] : 0;
    }
}

// hessian [n D, n D] and pull [n D] of the change of W_q: sums of a (f - mean)(f - mean)^T and of
// a (f - mean) e, f = key rotated back to the query's place (x) x, and the ridge.
typedef struct Problem {
    int size;
    double *hessian, *pull;
} Problem;

static void add_query(Problem *p, double *keys, double *x_square, const Head *h, const float *w,
                      const float *bias, const float *window, int i)
{
    const ModelShape *s = &h->m->mla.shape;
    const int n = h->n, D = s->d_model;
    double a[T], e[T], key[T][32], mean_key[32] = {0}, mean = 0, sum = 0, query[32];
    const float *xi = window + i * D;
    product(query, w, bias, xi, n, D);
    for (int j = 0; j <= i; j++) {
        e[j] = original_score(h, xi, i, window + j * D, j);
        sum += a[j] = exp(e[j]);
        find_key(key[j], h, window + j * D, j);
    }
    turn(query, model_pairs(&h->m->mla, LAYER, h->kv_head), s->rope_pairs, i, s, 1);
    for (int j = 0; j <= i; j++) {
        a[j] /= sum;
        for (int c = 0; c < n; c++) {
            e[j] -= query[c] * key[j][c];
            mean_key[c] += a[j] * key[j][c];
        }
        mean += a[j] * e[j];
    }
    for (int j = 0; j <= i; j++) {
        double centred[32];
        for (int c = 0; c < n; c++)
            centred[c] = key[j][c] - mean_key[c];
        for (int c = 0; c < n; c++)
            for (int d = 0; d < n; d++)
                keys[c * n + d] += a[j] * centred[c] * centred[d];
        turn(centred, model_pairs(&h->m->mla, LAYER, h->kv_head), s->rope_pairs, i, s, -1);
        for (int c = 0; c < n * D; c++) {
            const double fc = centred[c / D] * xi[c % D];
            p->pull[c] += a[j] * fc * (e[j] - mean);
            for (int d = 0; d < n * D; d++)
                p->hessian[(int64_t)c * p->size + d] += a[j] * fc * centred[d / D] * xi[d % D];
        }
    }
    for (int d = 0; d < D; d++)
        *x_square += (double)xi[d] * xi[d] / D;
}

static Problem write_down(const Head *h, const float *w, const float *bias)
{
    const int n = h->n, D = h->m->mla.shape.d_model, size = n * D;
    const double n_tokens = N_WINDOWS * T;
    Problem p = {size, calloc((size_t)(size * size), sizeof(double)),
                 calloc((size_t)size, sizeof(double))};
    double *keys = calloc((size_t)(n * n), sizeof *keys), x_square = 0, mean = 0;
    assert_true(p.hessian != NULL && p.pull != NULL && keys != NULL);
    for (int i = 0; i < N_WINDOWS; i++)
        for (int t = 0; t < T; t++)
            add_query(&p, keys, &x_square, h, w, bias, h->m->fit.x + (int64_t)i * T * D, t);
    for (int c = 0; c < n; c++)
        mean += keys[c * n + c] / n;
    for (int c = 0; c < n; c++)
        keys[c * n + c] += 1e-3 * mean;
    for (int c = 0; c < n; c++)
        for (int b = 0; b < n; b++)
            for (int d = 0; d < D; d++)
                p.hessian[(int64_t)(c * D + d) * size + b * D + d] +=
                    .01 * keys[c * n + b] * x_square / n_tokens;
    free(keys);
    return p;
}

// Fits one head and compares the change of its rows with the solution, in the problem's own norm.
static void check_head(Models *m, int head, double tolerance)
{
    const Head h = head_of(m, head);
    const int size = h.n * m->mla.shape.d_model;
    float before[512], after[512], bias[32];
    double difference[512], error = 0, whole = 0;
    find_rows(before, bias, &h);
    const Problem p = write_down(&h, before, bias);
    double *factor = malloc((size_t)(size * size) * sizeof *factor);
    double *solution = malloc((size_t)size * sizeof *solution);
    assert_true(factor != NULL && solution != NULL);
    memcpy(factor, p.hessian, (size_t)(size * size) * sizeof *factor);
    memcpy(solution, p.pull, (size_t)size * sizeof *solution);
    assert_int_equal(LAPACKE_dposv(LAPACK_ROW_MAJOR, 'L', size, 1, factor, size, solution, 1), 0);
    query_fit_head(&m->fit, head);
    find_rows(after, bias, &h);
    for (int i = 0; i < size; i++)
        difference[i] = after[i] - before[i] - solution[i];
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            error += difference[i] * p.hessian[i * size + j] * difference[j];
            whole += solution[i] * p.hessian[i * size + j] * solution[j];
        }
    assert_true(whole > 0);
    if (!(error <= tolerance * whole))
        fail_msg("head %d: error %g of %g", head, error, whole);
    free(factor);
    free(solution);
    free(p.hessian);
    free(p.pull);
}

// Solved to the end the change is the solution; as far as the program does it, nearly.
static void check(const ModelShape *original, const ModelShape *mla, bool to_the_end)
{
    Models m;
    start(&m, original, mla);
    if (to_the_end) {
        m.fit.max_iterations = 2000;
        m.fit.tolerance = 1e-13;
    }
    float *others = malloc((size_t)m.mla.params.count * sizeof *others);
    assert_non_null(others);
    for (int head = 0; head < mla->n_heads; head++) {
        memcpy(others, m.mla.params.flat, (size_t)m.mla.params.count * sizeof *others);
        check_head(&m, head, to_the_end ? 1e-7 : .05);
        int64_t changed = 0;
        for (int64_t i = 0; i < m.mla.params.count; i++)
            changed += others[i] != m.mla.params.flat[i];
        assert_int_equal(changed,
                         head_of(&m, head).n * mla->d_model); // no other tensor, no other head
    }
    free(others);
    end(&m);
}

static void test_pairs_of_every_kv_head(void **state)
{
    (void)state;
    ModelShape mla;
    assert_ok(shape_convert(&mla, &original_shape, 2, 4, SVD_JOINT));
    check(&original_shape, &mla, true);
    check(&original_shape, &mla, false);
}

static void test_shared_slots(void **state)
{
    (void)state;
    ModelShape mla;
    for (int norm = 0; norm < 2; norm++) {
        assert_ok(shape_convert_shared(&mla, &original_shape, 3, 6, norm));
        check(&original_shape, &mla, true);
        check(&original_shape, &mla, false);
    }
}

static void test_biases(void **state)
{
    (void)state;
    ModelShape original = original_shape, mla;
    original.attention_bias = BIAS_QKV;
    assert_ok(shape_convert(&mla, &original, 2, 4, SVD_JOINT));
    check(&original, &mla, true);
}

static void test_a_layer_without_rope(void **state)
{
    (void)state;
    ModelShape original = original_shape, mla;
    layer_set_put(&original.no_rope, LAYER, true);
    assert_ok(shape_convert(&mla, &original, 2, 4, SVD_JOINT));
    check(&original, &mla, true);
}

// Keys or inputs of which nothing can be told, and such as are too large for float32.
static void test_what_cannot_be_fitted_stays(void **state)
{
    (void)state;
    static const float sizes[] = {0, 1e-30F, 1e25F, INFINITY};
    ModelShape mla;
    assert_ok(shape_convert_shared(&mla, &original_shape, 3, 6, false));
    for (int i = 0; i < 8; i++) {
        Models m;
        start(&m, &original_shape, &mla);
        const LayerParams *w = &m.mla.params.layers[LAYER];
        const float size = sizes[i / 2];
        for (int64_t k = 0; i % 2 == 0 && k < (int64_t)N_WINDOWS * T * mla.d_model; k++)
            m.fit.x[k] *= size;
        for (int64_t k = 0; i % 2 == 1 && k < shape_dim(&mla, DIM_K_ROPE) * mla.d_model; k++)
            w->k_r[k] *= size;
        for (int64_t k = 0; i % 2 == 1 && k < shape_dim(&mla, DIM_LATENT) * mla.d_model; k++)
            w->down_kv[k] *= size;
        assert_ok(query_fit_layer(&m.fit, LAYER));
        for (int head = 0; head < mla.n_heads; head++)
            query_fit_head(&m.fit, head);
        for (int64_t k = 0; k < shape_dim(&mla, DIM_QUERY) * mla.d_model; k++)
            assert_true(w->q[k] - w->q[k] == 0); // finite
        end(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_of_every_kv_head),
        cmocka_unit_test(test_shared_slots),
        cmocka_unit_test(test_biases),
        cmocka_unit_test(test_a_layer_without_rope),
        cmocka_unit_test(test_what_cannot_be_fitted_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
