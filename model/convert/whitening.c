// The product with the root is in double and rounded once; factorize() does the rest.
#include "model/convert/whitening.h"

#include "model/convert/factorize.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

static const double SHRINKAGE = .01; // of the mean diagonal

double whitening_shrink(double *c, int D)
{
    double sum = 0;
    for (int64_t i = 0; i < D; i++)
        sum += c[i * (D + 1)];
    const double mean = sum > 0 ? sum / D : 1;
    for (int64_t i = 0; i < (int64_t)D * D; i++)
        c[i] /= mean;
    for (int64_t i = 0; i < D; i++)
        c[i * (D + 1)] += sum > 0 ? SHRINKAGE : 1;
    return mean;
}

typedef struct Scratch {
    double *root;    // [D, D] lower Cholesky factor
    double *product; // [m, D], then [R, D]
    float *rounded;  // [m, D]
} Scratch;

static void place(Scratch *scratch, Arena *arena, int m, int D, int R)
{
    scratch->root = arena_place(arena, (int64_t)D * D, sizeof(double));
    scratch->product = arena_place(arena, (int64_t)(m > R ? m : R) * D, sizeof(double));
    scratch->rounded = arena_floats(arena, (int64_t)m * D);
}

void whitening_measure(Arena *arena, int m, int D, int R)
{
    Scratch scratch;
    const int64_t mark = arena->used_bytes;
    place(&scratch, arena, m, D, R);
    factorize_measure(arena, m, D, R);
    arena_rewind(arena, mark);
}

// The lower triangle by rows is the upper one by columns. A shrunk moment has a factor.
static Status find_root(double *root, const double *covariance, int D)
{
    memcpy(root, covariance, (size_t)D * (size_t)D * sizeof *root);
    whitening_shrink(root, D);
    if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', D, root, D) != 0)
        return fail(BAD_INPUT, "the covariance is no second moment: it has no Cholesky factor; "
                               "make the scores again");
    return OK;
}

static void widen(double *to, const float *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i];
}

static Status factorize_whitened(float *up, float *down, const float *w, Scratch *scratch, int m,
                                 int D, int R)
{
    widen(scratch->product, w, (int64_t)m * D);
    cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, m, D, 1.0,
                scratch->root, D, scratch->product, D);
    for (int64_t i = 0; i < (int64_t)m * D; i++)
        scratch->rounded[i] = (float)scratch->product[i];
    TRY(factorize(up, down, scratch->rounded, m, D, R));
    widen(scratch->product, down, (int64_t)R * D);
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, R, D, 1.0,
                scratch->root, D, scratch->product, D);
    for (int64_t i = 0; i < (int64_t)R * D; i++)
        down[i] = (float)scratch->product[i];
    return OK;
}

Status whitening_factorize(float *up, float *down, const float *w, const double *covariance, int m,
                           int D, int R)
{
    Scratch scratch;
    Arena arena = arena_start("whitening");
    Status status;
    place(&scratch, &arena, m, D, R);
    TRY(arena_allocate(&arena));
    place(&scratch, &arena, m, D, R);
    TRY_GOTO(release, find_root(scratch.root, covariance, D));
    status = factorize_whitened(up, down, w, &scratch, m, D, R);
release:
    arena_release(&arena);
    return status;
}

enum { RMS_ROWS = 64 }; // of w at a time

// [2 RMS_ROWS, D]: rows, and their products with the covariance.
static double *place_rms(Arena *arena, int D)
{
    return arena_place(arena, 2 * (int64_t)RMS_ROWS * D, sizeof(double));
}

void whitening_rms_measure(Arena *arena, int D)
{
    const int64_t mark = arena->used_bytes;
    place_rms(arena, D);
    arena_rewind(arena, mark);
}

Status whitening_rms(double *out, const float *w, const double *covariance, int m, int D)
{
    Arena arena = arena_start("size of activations");
    double sum = 0;
    place_rms(&arena, D);
    TRY(arena_allocate(&arena));
    double *rows = place_rms(&arena, D), *products = rows + (int64_t)RMS_ROWS * D;
    for (int first = 0; first < m; first += RMS_ROWS) {
        const int n = m - first < RMS_ROWS ? m - first : RMS_ROWS;
        widen(rows, w + (int64_t)first * D, (int64_t)n * D);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, D, D, 1.0, rows, D, covariance, D,
                    0.0, products, D);
        for (int64_t i = 0; i < (int64_t)n * D; i++)
            sum += rows[i] * products[i];
    }
    arena_release(&arena);
    *out = m > 0 ? sqrt(fmax(sum, 0) / m) : 0;
    return OK;
}

// What whitening_fit() works in.
typedef struct Fit {
    double *rows, *down, *product; // [n, D], [R, D], [R, D] down times the covariance
    double *inner, *up;            // [R, R], [n, R]
} Fit;

static void place_fit(Fit *fit, Arena *arena, int64_t n, int64_t D, int64_t R)
{
    fit->rows = arena_place(arena, n * D, sizeof(double));
    fit->down = arena_place(arena, R * D, sizeof(double));
    fit->product = arena_place(arena, R * D, sizeof(double));
    fit->inner = arena_place(arena, R * R, sizeof(double));
    fit->up = arena_place(arena, n * R, sizeof(double));
}

void whitening_fit_measure(Arena *arena, int n, int D, int R)
{
    Fit fit;
    const int64_t mark = arena->used_bytes;
    place_fit(&fit, arena, n, D, R);
    arena_rewind(arena, mark);
}

// up = W C D^T (D C D^T)^-1; false: the inverse does not exist.
static bool solve_fit(Fit *fit, const double *covariance, int n, int D, int R)
{
    if (covariance != NULL)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, R, D, D, 1.0, fit->down, D,
                    covariance, D, 0.0, fit->product, D);
    else
        memcpy(fit->product, fit->down, (size_t)R * (size_t)D * sizeof(double));
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, R, R, D, 1.0, fit->product, D, fit->down,
                D, 0.0, fit->inner, R);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, R, D, 1.0, fit->rows, D, fit->product,
                D, 0.0, fit->up, R);
    return LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', R, fit->inner, R) == 0 &&
           LAPACKE_dpotrs_work(LAPACK_COL_MAJOR, 'U', R, n, fit->inner, R, fit->up, R) == 0;
}

Status whitening_fit(float *up, const float *w, const float *down, const double *covariance, int n,
                     int D, int R)
{
    Fit fit;
    Arena arena = arena_start("further rows of a latent");
    place_fit(&fit, &arena, n, D, R);
    TRY(arena_allocate(&arena));
    place_fit(&fit, &arena, n, D, R);
    widen(fit.rows, w, (int64_t)n * D);
    widen(fit.down, down, (int64_t)R * D);
    const bool is_found = solve_fit(&fit, covariance, n, D, R);
    for (int64_t i = 0; i < (int64_t)n * R; i++)
        up[i] = is_found && isfinite(fit.up[i]) ? (float)fit.up[i] : 0;
    arena_release(&arena);
    return OK;
}
