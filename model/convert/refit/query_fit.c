// The normal equations of a head have n D unknowns, too many to be written down. Conjugate
// gradients apply them window by window, as attention does its products, and are preconditioned by
// the Kronecker product of the two mean second moments, which they would be themselves if keys and
// inputs were independent.
//
//     a product:  y = x W^T, rotated | u = y k^T | g = a (u - mean) | v = g k, rotated back | v^T x
#include "model/convert/refit/query_fit.h"

#include "base/intmath.h"
#include "model/kernels/bias.h"
#include "model/kernels/rmsnorm.h"
#include "model/kernels/rope.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

enum { MAX_ITERATIONS = 24 };

#define RIDGE .01 // lambda

static int key_width(const ModelShape *mla)
{
    return 2 * mla->rope_pairs + shape_head_nope(mla);
}

static void place(QueryFit *fit, Arena *arena, const ModelShape *s)
{
    const int64_t D = s->d_model, E = s->head_dim, n = key_width(s), T = fit->T;
    const int64_t widest = max_int64(max_int64(n, E), shape_dim(s, DIM_LATENT));
    fit->all_pairs = arena_place(arena, E / 2, sizeof *fit->all_pairs);
    fit->cos_table = arena_floats(arena, T * (E / 2));
    fit->sin_table = arena_floats(arena, T * (E / 2));
    fit->x = arena_floats(arena, fit->n_windows * T * D);
    fit->x_moment = arena_place(arena, D * D, sizeof *fit->x_moment);
    fit->x_inverse = arena_floats(arena, D * D);
    fit->keys = arena_floats(arena, fit->n_windows * T * n);
    fit->weights = arena_floats(arena, fit->n_windows * T * T);
    fit->scores = arena_floats(arena, T * T);
    fit->queries = arena_floats(arena, T * widest);
    fit->others = arena_floats(arena, T * widest);
    float **vectors[] = {&fit->w,       &fit->change, &fit->residual,   &fit->direction,
                         &fit->product, &fit->scaled, &fit->half_scaled};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        *vectors[i] = arena_floats(arena, n * D);
    fit->key_moment = arena_place(arena, n * n, sizeof *fit->key_moment);
    fit->ridge = arena_floats(arena, n * n);
    fit->key_inverse = arena_floats(arena, n * n);
    fit->mass = arena_floats(arena, T);
    fit->bias = arena_floats(arena, n);
}

int64_t query_fit_bytes(const ModelShape *mla, int n_windows, int T)
{
    QueryFit fit = {.n_windows = n_windows, .T = T, .arena = arena_start("query fit")};
    place(&fit, &fit.arena, mla);
    return fit.arena.peak_bytes;
}

// The iterations are nearly all of it.
double query_fit_flops(const ModelShape *mla, int n_windows, int T)
{
    const double n = key_width(mla), D = mla->d_model, tokens = (double)n_windows * T;
    const double product = 4 * tokens * n * (D + T) + 2 * n * D * (D + 2 * n);
    return (MAX_ITERATIONS + 1) * product;
}

Status query_fit_start(QueryFit *out, const Model *mla, const Model *original, int n_windows, int T)
{
    const ModelShape *s = &mla->shape;
    *out = (QueryFit){.mla = mla,
                      .original = original,
                      .n_windows = n_windows,
                      .T = T,
                      .max_iterations = MAX_ITERATIONS,
                      .tolerance = 1e-4, // with 1e-7 losses are the same to .002
                      .arena = arena_start("query fit")};
    place(out, &out->arena, s);
    TRY(arena_allocate(&out->arena));
    place(out, &out->arena, s);
    for (int p = 0; p < s->head_dim / 2; p++)
        out->all_pairs[p] = p;
    return OK;
}

void query_fit_release(QueryFit *fit)
{
    arena_release(&fit->arena);
}

// ---- linear algebra ----------------------------------------------------------------------------

// y [T, n], rows `ld` apart, = x [T, D] w^T + bias; bias may be NULL.
static void project(float *y, int ld, const float *x, const float *w, const float *bias, int T,
                    int n, int D)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, T, n, D, 1, x, D, w, D, 0, y, ld);
    if (bias != NULL)
        bias_forward(rows_f32(y, ld), bias, T, n);
}

// The inverse of a moment [n, n], of which the lower triangle is read and which is used up, with
// `shrink` mean diagonals added to its diagonal. False if it has none.
static bool invert(float *inverse, double *moment, double mean, double shrink, int n)
{
    for (int64_t i = 0; i < n; i++)
        moment[i * n + i] += shrink * mean;
    // Rows' lower triangle is columns' upper one, for which LAPACKE needs no copy.
    if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', n, moment, n) != 0 ||
        LAPACKE_dpotri(LAPACK_COL_MAJOR, 'U', n, moment, n) != 0)
        return false;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++)
            inverse[i * n + j] = inverse[j * n + i] = (float)moment[i * n + j];
    return true;
}

static double mean_diagonal(const double *moment, int n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += moment[i * n + i];
    return sum / n;
}

static double dot(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

// ---- a layer -----------------------------------------------------------------------------------

Status query_fit_layer(QueryFit *fit, int layer)
{
    const ModelShape *s = &fit->mla->shape;
    const int D = s->d_model, T = fit->T;
    fit->layer = layer;
    if (shape_rotates(s, layer))
        rope_table(fit->cos_table, fit->sin_table, T, s->head_dim, s->rope_theta, &s->rope_scaling);
    else
        rope_identity(fit->cos_table, fit->sin_table, T, s->head_dim);
    memset(fit->x_moment, 0, (size_t)D * (size_t)D * sizeof *fit->x_moment);
    const double n_tokens = (double)fit->n_windows * T;
    for (int64_t i = 0; i < fit->n_windows; i++) {
        const float *x = fit->x + i * T * D;
        cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, D, T, 1, x, D, 0, fit->x_inverse, D);
        for (int64_t a = 0; a < D; a++)
            for (int64_t b = 0; b <= a; b++)
                fit->x_moment[a * D + b] += fit->x_inverse[a * D + b] / n_tokens;
    }
    fit->x_mean = mean_diagonal(fit->x_moment, D);
    if (!(fit->x_mean > 0) || isinf(fit->x_mean))
        return OK; // query_fit_head() does nothing
    if (!invert(fit->x_inverse, fit->x_moment, fit->x_mean, RIDGE, D))
        return fail(FAILED, "the second moment of attention's inputs has no inverse");
    return OK;
}

// ---- a head ------------------------------------------------------------------------------------

static void rotate(const QueryFit *fit, float *rows, int width, const int32_t *pairs, int P,
                   float direction)
{
    const int half = fit->mla->shape.head_dim / 2;
    for (int64_t t = 0; t < fit->T; t++)
        rope_rotate(rows + t * width, rows + t * width, fit->cos_table + t * half,
                    fit->sin_table + t * half, pairs, P, direction);
}

static int kv_head_of(const ModelShape *s, int head)
{
    return head / (s->n_heads / s->n_kv_heads);
}

static void rotate_head(const QueryFit *fit, float *rows, int head, float direction)
{
    const ModelShape *s = &fit->mla->shape;
    rotate(fit, rows, key_width(s), model_pairs(fit->mla, fit->layer, kv_head_of(s, head)),
           s->rope_pairs, direction);
}

// keys [T, n] of a window: the rotated ones of the head, then what it reads of the latent.
static void find_keys(QueryFit *fit, float *keys, const float *x, int head)
{
    const ModelShape *s = &fit->mla->shape;
    const LayerParams *w = &fit->mla->params.layers[fit->layer];
    const int T = fit->T, D = s->d_model, R = shape_dim(s, DIM_LATENT), rope = 2 * s->rope_pairs;
    const int nope = shape_head_nope(s), n = rope + nope, read = shape_dim(s, DIM_UP_INPUT);
    const int kv_head = kv_head_of(s, head);
    const int64_t k_r = shape_is_shared(s) ? 0 : kv_head * rope;
    const float *up = w->up_k + (int64_t)(shape_is_shared(s) ? head : kv_head) * nope * read;
    project(keys, n, x, w->k_r + k_r * D, w->k_r_bias != NULL ? w->k_r_bias + k_r : NULL, T, rope,
            D);
    project(fit->others, R, x, w->down_kv, NULL, T, R, D);
    for (int64_t t = 0; t < T && s->latent_norm; t++) {
        memcpy(fit->queries, fit->others + t * R, (size_t)R * sizeof(float));
        rmsnorm_row(fit->others + t * R, fit->queries, w->latent_norm, R, (float)s->rms_eps);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, T, nope, read, 1, fit->others, R, up, read,
                0, keys + rope, n);
    rotate_head(fit, keys, head, 1);
    cblas_sscal(T * n, 1 / sqrtf((float)s->head_dim), keys, 1);
}

// scores [T, T] of a window by the original, and weights [T, T], zero above the diagonal.
static void attend(QueryFit *fit, float *weights, const float *x, int head)
{
    const ModelShape *s = &fit->original->shape;
    const LayerParams *w = &fit->original->params.layers[fit->layer];
    const int T = fit->T, D = s->d_model, E = s->head_dim;
    const int64_t q = (int64_t)head * E, k = (int64_t)kv_head_of(s, head) * E;
    project(fit->queries, E, x, w->q + q * D, w->q_bias != NULL ? w->q_bias + q : NULL, T, E, D);
    project(fit->others, E, x, w->k + k * D, w->k_bias != NULL ? w->k_bias + k : NULL, T, E, D);
    rotate(fit, fit->queries, E, fit->all_pairs, E / 2, 1);
    rotate(fit, fit->others, E, fit->all_pairs, E / 2, 1);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, T, T, E, 1 / sqrtf((float)E), fit->queries,
                E, fit->others, E, 0, fit->scores, T);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < T; i++) {
        const float *row = fit->scores + i * T;
        float *to = weights + i * T, largest = row[0];
        double sum = 0;
        for (int64_t j = 1; j <= i; j++)
            largest = fmaxf(largest, row[j]);
        for (int64_t j = 0; j <= i; j++)
            sum += to[j] = expf(row[j] - largest);
        for (int64_t j = 0; j <= i; j++)
            to[j] = (float)(to[j] / sum);
        memset(to + i + 1, 0, (size_t)(T - i - 1) * sizeof *to);
    }
}

// scores = weights (scores - their mean by the weights), row by row.
static void centre(float *scores, const float *weights, int T)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < T; i++) {
        float *row = scores + i * T;
        const float *a = weights + i * T;
        double mean = 0;
        for (int64_t j = 0; j <= i; j++)
            mean += (double)a[j] * row[j];
        for (int64_t j = 0; j <= i; j++)
            row[j] = a[j] * (row[j] - (float)mean);
        memset(row + i + 1, 0, (size_t)(T - i - 1) * sizeof *row);
    }
}

// out [n, D] += of scores [T, T], which are used up: what they pull the rows of W_q by.
static void add_pull(QueryFit *fit, float *out, int64_t window, int head)
{
    const int T = fit->T, n = key_width(&fit->mla->shape), D = fit->mla->shape.d_model;
    const float *x = fit->x + window * T * D, *keys = fit->keys + window * T * n;
    centre(fit->scores, fit->weights + window * T * T, T);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, T, n, T, 1, fit->scores, T, keys, n, 0,
                fit->queries, n);
    rotate_head(fit, fit->queries, head, -1);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, D, T, 1, fit->queries, n, x, D, 1, out,
                D);
}

// scores [T, T] = factor (W x + bias rotated)^T k + add scores; the bias may be NULL.
static void score(QueryFit *fit, const float *w, const float *bias, float factor, float add,
                  int64_t window, int head)
{
    const ModelShape *s = &fit->mla->shape;
    const int T = fit->T, n = key_width(s), D = s->d_model;
    project(fit->queries, n, fit->x + window * T * D, w, bias, T, n, D);
    rotate_head(fit, fit->queries, head, 1);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, T, T, n, factor, fit->queries, n,
                fit->keys + window * T * n, n, add, fit->scores, T);
}

// Adds a window's sum over queries of the keys' second moment about their mean, lower triangle.
static void add_key_moment(QueryFit *fit, int64_t window)
{
    const int T = fit->T, n = key_width(&fit->mla->shape);
    const float *a = fit->weights + window * T * T, *keys = fit->keys + window * T * n;
    const double n_tokens = (double)fit->n_windows * T;
    float *square = fit->key_inverse;
    memset(fit->mass, 0, (size_t)T * sizeof *fit->mass);
    for (int64_t i = 0; i < T; i++)
        for (int64_t j = 0; j <= i; j++)
            fit->mass[j] += a[i * T + j];
    for (int64_t t = 0; t < T; t++)
        for (int c = 0; c < n; c++)
            fit->queries[t * n + c] = sqrtf(fit->mass[t]) * keys[t * n + c];
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, n, T, 1, fit->queries, n, 0, square, n);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, T, n, T, 1, a, T, keys, n, 0,
                fit->queries, n);
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, n, T, -1, fit->queries, n, 1, square, n);
    for (int64_t c = 0; c < n; c++)
        for (int64_t d = 0; d <= c; d++)
            fit->key_moment[c * n + d] += square[c * n + d] / n_tokens;
}

// Ridge and preconditioner. False if the keys say nothing.
static bool find_norms(QueryFit *fit)
{
    const int n = key_width(&fit->mla->shape);
    const double mean = mean_diagonal(fit->key_moment, n);
    if (!(mean > 0) || isinf(mean) || !(fit->x_mean > 0) || isinf(fit->x_mean))
        return false;
    const double scale = (double)fit->n_windows * fit->T * RIDGE * fit->x_mean;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++)
            fit->ridge[i * n + j] = fit->ridge[j * n + i] =
                (float)(scale * (fit->key_moment[i * n + j] + (i == j ? 1e-3 * mean : 0)));
    return invert(fit->key_inverse, fit->key_moment, mean, 1e-3, n);
}

// out = the normal equations times v.
static void apply(QueryFit *fit, float *out, const float *v, int head)
{
    const int n = key_width(&fit->mla->shape), D = fit->mla->shape.d_model;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, D, n, 1, fit->ridge, n, v, D, 0, out,
                D);
    for (int64_t i = 0; i < fit->n_windows; i++) {
        score(fit, v, NULL, 1, 0, i, head);
        add_pull(fit, out, i, head);
    }
}

static void precondition(QueryFit *fit)
{
    const int n = key_width(&fit->mla->shape), D = fit->mla->shape.d_model;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, D, n, 1, fit->key_inverse, n,
                fit->residual, D, 0, fit->half_scaled, D);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, D, D, 1, fit->half_scaled, D,
                fit->x_inverse, D, 0, fit->scaled, D);
}

// change [n, D] solves the equations for the residual, which is used up.
static void solve(QueryFit *fit, int head)
{
    const int64_t count = (int64_t)key_width(&fit->mla->shape) * fit->mla->shape.d_model;
    memset(fit->change, 0, (size_t)count * sizeof *fit->change);
    precondition(fit);
    memcpy(fit->direction, fit->scaled, (size_t)count * sizeof *fit->direction);
    double size = dot(fit->residual, fit->scaled, count);
    const double target = fit->tolerance * size;
    for (int i = 0; i < fit->max_iterations && size > target; i++) {
        apply(fit, fit->product, fit->direction, head);
        const double curvature = dot(fit->direction, fit->product, count);
        if (!(curvature > 0) || isinf(curvature))
            break;
        const float step = (float)(size / curvature);
        cblas_saxpy((int)count, step, fit->direction, 1, fit->change, 1);
        cblas_saxpy((int)count, -step, fit->product, 1, fit->residual, 1);
        precondition(fit);
        const double next = dot(fit->residual, fit->scaled, count);
        cblas_sscal((int)count, (float)(next / size), fit->direction, 1);
        cblas_saxpy((int)count, 1, fit->scaled, 1, fit->direction, 1);
        size = next;
    }
}

void query_fit_head(QueryFit *fit, int head)
{
    const ModelShape *s = &fit->mla->shape;
    const LayerParams *w = &fit->mla->params.layers[fit->layer];
    const int T = fit->T, D = s->d_model, n = key_width(s), rope = 2 * s->rope_pairs;
    const int64_t first_rope = (int64_t)head * rope;
    const int64_t first_nope = (int64_t)s->n_heads * rope + (int64_t)head * (n - rope);
    float *rows[] = {w->q + first_rope * D, w->q + first_nope * D};
    const size_t bytes[] = {(size_t)rope * (size_t)D * sizeof(float),
                            (size_t)(n - rope) * (size_t)D * sizeof(float)};
    memcpy(fit->w, rows[0], bytes[0]);
    memcpy(fit->w + (int64_t)rope * D, rows[1], bytes[1]);
    const float *bias = w->q_bias != NULL ? fit->bias : NULL;
    if (bias != NULL) {
        memcpy(fit->bias, w->q_bias + first_rope, (size_t)rope * sizeof *bias);
        memcpy(fit->bias + rope, w->q_bias + first_nope, (size_t)(n - rope) * sizeof *bias);
    }
    memset(fit->residual, 0, bytes[0] + bytes[1]);
    memset(fit->key_moment, 0, (size_t)n * (size_t)n * sizeof *fit->key_moment);
    for (int64_t i = 0; i < fit->n_windows; i++) {
        const float *x = fit->x + i * T * D;
        find_keys(fit, fit->keys + i * T * n, x, head);
        attend(fit, fit->weights + i * T * T, x, head);
        score(fit, fit->w, bias, -1, 1, i, head);
        add_pull(fit, fit->residual, i, head);
        add_key_moment(fit, i);
    }
    if (!find_norms(fit))
        return;
    solve(fit, head);
    if (!isfinite(dot(fit->change, fit->change, (int64_t)n * D)))
        return;
    cblas_saxpy(n * D, 1, fit->change, 1, fit->w, 1);
    memcpy(rows[0], fit->w, bytes[0]);
    memcpy(rows[1], fit->w + (int64_t)rope * D, bytes[1]);
}
