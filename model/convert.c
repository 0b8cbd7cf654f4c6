// The singular vectors are those of the Gram matrix of the shorter side, in double: about a third
// of the work of a full SVD, and as exact where it counts. Squaring loses the directions below
// sqrt(epsilon) ~ 1e-8 of the largest singular value, which float weights cannot hold either; the
// product up * down stays a projection of A, so that they only cost an error of that size. Singular
// values are measured on the projected rows, not taken as square roots of eigenvalues, and a row is
// divided by no more than the root of its own length.
#include "model/convert.h"

#include "base/progress.h"

#include <cblas.h>
#include <lapacke.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static Status check_finite(const char *name, const float *a, int rows, int cols)
{
    int64_t count = (int64_t)rows * cols, bad = 0;
    while (bad < count && isfinite(a[bad]))
        bad++;
    if (bad == count)
        return OK;
    return fail(BAD_INPUT,
                "%s: value at row %lld, column %lld is %g; the weights are damaged, "
                "fetch or export the model again",
                name, (long long)(bad / cols), (long long)(bad % cols), (double)a[bad]);
}

// Everything convert_factorize() works in, in one arena.
typedef struct Workspace {
    int longer, shorter; // the sides of A
    int R;
    lapack_int n_work, n_iwork;
    double *a;           // [m, n]
    double *gram;        // [shorter, shorter]; then one eigenvector per row, ascending eigenvalues
    double *eigenvalues; // [shorter]
    double *image;       // [R, longer]: A's products with the last R eigenvectors
    double *work;        // [n_work], LAPACK's
    lapack_int *iwork;   // [n_iwork], LAPACK's
} Workspace;

static void place(Workspace *w, Arena *arena)
{
    int64_t a_count = (int64_t)w->longer * w->shorter;
    w->a = arena_place(arena, a_count, sizeof(double));
    w->gram = arena_place(arena, (int64_t)w->shorter * w->shorter, sizeof(double));
    w->eigenvalues = arena_place(arena, w->shorter, sizeof(double));
    w->image = arena_place(arena, (int64_t)w->R * w->longer, sizeof(double));
    w->work = arena_place(arena, w->n_work, sizeof(double));
    w->iwork = arena_place(arena, w->n_iwork, sizeof(lapack_int));
}

// LAPACK counts its workspace, about 2 n^2 numbers, in 32 bits.
static Status query_lapack(Workspace *w)
{
    int64_t n = w->shorter;
    if (1 + 6 * n + 2 * n * n > INT_MAX)
        return fail(FAILED, "a %d x %d matrix is too large for LAPACK's 32-bit sizes", w->longer,
                    w->shorter);
    double n_work;
    lapack_int info = LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'V', 'L', w->shorter, NULL, w->shorter,
                                          NULL, &n_work, -1, &w->n_iwork, -1);
    CHECK(info == 0 && n_work <= INT_MAX, "workspace query: info %d, %g", (int)info, n_work);
    w->n_work = (lapack_int)n_work;
    return OK;
}

// gram: A^T A if A is tall, A A^T if it is wide; then its eigenvectors.
static Status decompose(Workspace *w, int m, int n)
{
    bool tall = m >= n;
    cblas_dsyrk(CblasRowMajor, CblasUpper, tall ? CblasTrans : CblasNoTrans, w->shorter, w->longer,
                1.0, w->a, n, 0.0, w->gram, w->shorter);
    // The upper triangle by rows is the lower one by columns, and the eigenvectors, LAPACK's
    // columns, are rows for us.
    lapack_int info =
        LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'V', 'L', w->shorter, w->gram, w->shorter,
                            w->eigenvalues, w->work, w->n_work, w->iwork, w->n_iwork);
    CHECK(info >= 0, "dsyevd: argument %d", -(int)info);
    if (info > 0)
        return fail(FAILED, "the SVD of a %d x %d matrix did not converge (dsyevd: %d)", m, n,
                    (int)info);
    const double *largest = w->gram + (int64_t)(w->shorter - w->R) * w->shorter;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, tall ? CblasTrans : CblasNoTrans, w->R, w->longer,
                w->shorter, 1.0, largest, w->shorter, w->a, n, 0.0, w->image, w->longer);
    return OK;
}

// Component r of A is sigma u v^T: unit vector `unit` on the shorter side, sigma times the other
// one in `image`. Each factor gets sqrt(sigma).
static void write_factors(float *up, float *down, const Workspace *w, int m, int n)
{
    bool tall = m >= n;
    for (int r = 0; r < w->R; r++) {
        const double *unit = w->gram + (int64_t)(w->shorter - 1 - r) * w->shorter;
        const double *image = w->image + (int64_t)(w->R - 1 - r) * w->longer;
        double sigma = cblas_dnrm2(w->longer, image, 1);
        double unit_scale = sqrt(sigma);
        double image_scale = sigma > 0 ? 1.0 / unit_scale : 0.0;
        const double *left = tall ? image : unit, *right = tall ? unit : image;
        double left_scale = tall ? image_scale : unit_scale;
        double right_scale = tall ? unit_scale : image_scale;
        for (int i = 0; i < m; i++)
            up[(int64_t)i * w->R + r] = (float)(left[i] * left_scale);
        for (int j = 0; j < n; j++)
            down[(int64_t)r * n + j] = (float)(right[j] * right_scale);
    }
}

static Workspace start_workspace(int m, int n, int R)
{
    return (Workspace){.longer = m >= n ? m : n, .shorter = m >= n ? n : m, .R = R};
}

Status convert_factorize(float *up, float *down, const float *a, int m, int n, int R)
{
    Workspace w = start_workspace(m, n, R);
    CHECK(R >= 1 && R <= w.shorter, "rank %d of a %d x %d matrix", R, m, n);
    TRY(check_finite("matrix", a, m, n));
    TRY(query_lapack(&w));
    Arena arena = arena_start("factorization");
    place(&w, &arena);
    if (arena_allocate(&arena) != OK)
        return fail(FAILED, "no memory for %.2f GiB to factorize a %d x %d matrix",
                    (double)arena.peak_bytes / (1 << 30), m, n);
    place(&w, &arena);
    for (int64_t i = 0; i < (int64_t)m * n; i++)
        w.a[i] = a[i];
    Status status = decompose(&w, m, n);
    if (status == OK)
        write_factors(up, down, &w, m, n);
    arena_release(&arena);
    return status;
}

// The rows of a head in the order MLA stores them: the kept pairs' first halves, their second
// halves, then every other dim, ascending.
static void order_rows(int *rows, const int32_t *pairs, int P, int E)
{
    int n_nope = 0, next = 0; // next: first kept pair whose dim is not passed yet
    for (int i = 0; i < P; i++) {
        CHECK(pairs[i] >= 0 && pairs[i] < E / 2 && (i == 0 || pairs[i] > pairs[i - 1]),
              "pair %d of %d is %d, head width %d", i, P, (int)pairs[i], E);
        rows[i] = pairs[i];
        rows[P + i] = pairs[i] + E / 2;
    }
    for (int dim = 0; dim < E; dim++) {
        if (dim == E / 2)
            next = 0;
        if (next < P && pairs[next] == dim % (E / 2))
            next++;
        else
            rows[2 * P + n_nope++] = dim;
    }
}

// Copies n rows of a head, named by `rows`, to consecutive rows.
static void gather_rows(float *to, const float *head, const int *rows, int n, int D)
{
    for (int i = 0; i < n; i++)
        memcpy(to + (int64_t)i * D, head + (int64_t)rows[i] * D, (size_t)D * sizeof *to);
}

static void reorder_queries(float *q, const Model *mla, const float *original, int layer, int *rows)
{
    const ModelShape *s = &mla->shape;
    int D = s->d_model, E = s->head_dim, n_rope = 2 * s->rope_pairs, n_nope = E - n_rope;
    float *nope = q + (int64_t)s->n_heads * n_rope * D;
    for (int h = 0; h < s->n_heads; h++) {
        const int32_t *pairs = model_pairs(mla, layer, h / (s->n_heads / s->n_kv_heads));
        const float *head = original + (int64_t)h * E * D;
        order_rows(rows, pairs, s->rope_pairs, E);
        gather_rows(q + (int64_t)h * n_rope * D, head, rows, n_rope, D);
        gather_rows(nope + (int64_t)h * n_nope * D, head, rows + n_rope, n_nope, D);
    }
}

static void divide_keys(float *k_r, float *k_c, const Model *mla, const float *k, int layer,
                        int *rows)
{
    const ModelShape *s = &mla->shape;
    int D = s->d_model, E = s->head_dim, n_rope = 2 * s->rope_pairs, n_nope = E - n_rope;
    for (int h = 0; h < s->n_kv_heads; h++) {
        const float *head = k + (int64_t)h * E * D;
        order_rows(rows, model_pairs(mla, layer, h), s->rope_pairs, E);
        gather_rows(k_r + (int64_t)h * n_rope * D, head, rows, n_rope, D);
        gather_rows(k_c + (int64_t)h * n_nope * D, head, rows + n_rope, n_nope, D);
    }
}

// kv: the rows of W_kc, then those of W_v.
static Status factorize_layer(LayerParams *to, const ModelShape *s, const float *kv)
{
    int D = s->d_model, R1 = shape_dim(s, DIM_LATENT_1);
    int rows_k = shape_dim(s, DIM_K_NOPE), rows_v = shape_dim(s, DIM_KV);
    if (s->svd == SVD_JOINT) {
        // up_k and up_v are neighbours in the flat vector (model/params.h): one matrix.
        float *up = rows_k > 0 ? to->up_k : to->up_v;
        return convert_factorize(up, to->down_kv, kv, rows_k + rows_v, D, R1);
    }
    TRY(convert_factorize(to->up_k, to->down_kv, kv, rows_k, D, R1));
    return convert_factorize(to->up_v, to->down_kv + (int64_t)R1 * D, kv + (int64_t)rows_k * D,
                             rows_v, D, R1);
}

// Copies the tensors of a layer (-1: of none) that both models have; the queries' rows are in the
// original's order then.
static Status copy_tensors(Model *mla, const Model *original, int layer)
{
    int n_from = params_n_tensors(&original->shape), n_to = params_n_tensors(&mla->shape);
    for (int i = 0; i < n_from; i++) {
        ParamInfo from = params_info(&original->shape, i);
        if (from.layer != layer)
            continue;
        const float *values = original->params.flat + from.offset;
        TRY(check_finite(from.name, values, from.rows, from.cols));
        for (int j = 0; j < n_to; j++) {
            ParamInfo to = params_info(&mla->shape, j);
            if (strcmp(to.name, from.name) == 0)
                memcpy(mla->params.flat + to.offset, values,
                       (size_t)from.rows * (size_t)from.cols * sizeof *values);
        }
    }
    return OK;
}

static Status measure_factorization(Arena *arena, int m, int n, int R)
{
    Workspace w = start_workspace(m, n, R);
    TRY(query_lapack(&w));
    int64_t mark = arena->used_bytes;
    place(&w, arena);
    arena_rewind(arena, mark);
    return OK;
}

Status convert_measure(Arena *arena, const ModelShape *s)
{
    int D = s->d_model, R1 = shape_dim(s, DIM_LATENT_1);
    int rows_k = shape_dim(s, DIM_K_NOPE), rows_v = shape_dim(s, DIM_KV);
    arena_floats(arena, (int64_t)(rows_k + rows_v) * D);
    if (s->svd == SVD_JOINT)
        return measure_factorization(arena, rows_k + rows_v, D, R1);
    TRY(measure_factorization(arena, rows_k, D, R1));
    return measure_factorization(arena, rows_v, D, R1);
}

static void check_pair(const Model *mla, const Model *original)
{
    const ModelShape *a = &mla->shape, *b = &original->shape;
    CHECK(shape_is_mla(a) && !shape_is_mla(b), "d_kv %d from %d", a->d_kv, b->d_kv);
    CHECK(a->n_layers == b->n_layers && a->d_model == b->d_model && a->n_heads == b->n_heads &&
              a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim &&
              a->d_ffn == b->d_ffn && a->vocab_size == b->vocab_size &&
              a->tied_head == b->tied_head,
          "the models differ in more than their attention");
}

Status convert_shared(Model *mla, const Model *original)
{
    check_pair(mla, original);
    return copy_tensors(mla, original, -1);
}

Status convert_layer(Model *mla, const Model *original, int layer)
{
    const ModelShape *s = &mla->shape;
    const LayerParams *from = &original->params.layers[layer];
    LayerParams *to = &mla->params.layers[layer];
    check_pair(mla, original);
    TRY(copy_tensors(mla, original, layer));
    Status status = OK;
    int64_t k_count = (int64_t)shape_dim(s, DIM_K_NOPE) * s->d_model;
    int64_t v_count = (int64_t)shape_dim(s, DIM_KV) * s->d_model;
    int *rows = malloc((size_t)s->head_dim * sizeof *rows);
    float *kv = malloc((size_t)(k_count + v_count) * sizeof *kv);
    if (rows == NULL || kv == NULL) {
        status = fail(FAILED, "layer %d: no memory for a copy of its keys and values", layer);
        goto free_rows;
    }
    reorder_queries(to->q, mla, from->q, layer, rows);
    divide_keys(to->k_r, kv, mla, from->k, layer, rows);
    memcpy(kv + k_count, from->v, (size_t)v_count * sizeof *kv);
    status = factorize_layer(to, s, kv);
    if (status != OK)
        status = fail_within(status, "layer %d", layer);
free_rows:
    free(rows);
    free(kv);
    return status;
}

Status convert_model(Model *mla, const Model *original)
{
    ProgressMeter meter = progress_start("conversion", "layers", mla->shape.n_layers);
    Status status = convert_shared(mla, original);
    for (int layer = 0; layer < mla->shape.n_layers && status == OK; layer++) {
        status = convert_layer(mla, original, layer);
        progress_show(&meter, layer + 1);
    }
    progress_end(&meter);
    return status;
}
