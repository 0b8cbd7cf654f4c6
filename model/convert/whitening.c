// The product with the root is in double and rounded once; factorize() does the rest.
#include "model/convert/whitening.h"

#include "model/convert/factorize.h"

#include <cblas.h>
#include <lapacke.h>
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

static Status factorize_whitened(float *up, float *down, const float *w, Scratch *scratch, int m,
                                 int D, int R)
{
    for (int64_t i = 0; i < (int64_t)m * D; i++)
        scratch->product[i] = w[i];
    cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, m, D, 1.0,
                scratch->root, D, scratch->product, D);
    for (int64_t i = 0; i < (int64_t)m * D; i++)
        scratch->rounded[i] = (float)scratch->product[i];
    TRY(factorize(up, down, scratch->rounded, m, D, R));
    for (int64_t i = 0; i < (int64_t)R * D; i++)
        scratch->product[i] = down[i];
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
