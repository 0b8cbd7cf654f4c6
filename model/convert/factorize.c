// The singular vectors are eigenvectors of the Gram matrix of the shorter side, of which only the R
// largest are wanted. Squaring loses the directions below sqrt(epsilon) ~ 1e-8 of the largest
// singular value, which float weights cannot hold either; up * down stays a projection of A, so
// that they only cost an error of that size. Singular values are measured on the projected matrix,
// not taken as square roots of eigenvalues, and a column is divided by no more than the root of its
// own length.
//
// Large matrices go through single precision (ssyevr), where the vectors next to the cut mix with
// each other, and all of them with the rest by some epsilons. So more vectors are computed than
// wanted, and the best R directions among them are found in double (Rayleigh and Ritz): what is
// left is the mixing with directions beyond the surplus, whose effect on the product is bounded by
// the residuals and the gap to those directions (Davis and Kahan). Where eigenpairs are missing,
// vectors do not belong to their eigenvalues, or the bound is not small, all is done again in
// double (dsyevr).
//
// The image A q is taken in single precision: its rounding adds some 1e-7 of A's norm to the
// product, a tenth of what that mixing does, in random directions, so that its products with
// itself, in double, hardly change.
#include "model/convert/factorize.h"

#include "base/intmath.h"
#include "model/kernels/finite.h"
#include "model/kernels/gemm.h"
#include "model/kernels/tile.h"

#include <cblas.h>
#include <float.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

enum {
    SINGLE_MIN_SIDE = 768,      // shorter sides below: double is about as fast
    SINGLE_MAX_VECTORS = 32000, // dsygvd's workspace of 2 k^2 is counted in 32 bits
    BLOCK = 256,                // rows converted to double at a time
};

// Bound of the product's error relative to A's norm, above which double takes over. Seen: 1e-8 to
// 1e-6 of random matrices and of decaying spectra.
static const double MAX_ERROR = 1e-5;
// Ritz values against LAPACK's eigenvalues, relative to the largest. Seen: 4e-7 at most.
static const double MAX_DEVIATION = 1e-5;
// Magnitudes whose squares, and sums of these, keep clear of float's limits.
static const float MIN_MAGNITUDE = 1e-12f, MAX_MAGNITUDE = 1e12f;

// A, seen as [longer, shorter].
typedef struct Matrix {
    const float *a; // [m, n]
    int m, n, longer, shorter;
    bool is_tall;
} Matrix;

// LAPACK's workspace.
typedef struct Work {
    void *reals; // float or double
    lapack_int *integers;
    lapack_int n_reals, n_integers;
} Work;

// What factorize() works in, in one arena. Phases share it: each places what the next reads below
// what it needs for itself.
//
//     single   | q_f | gram_f, vectors_f, LAPACK's work     |   find_in_single()
//              | q_f | q, image, Ritz matrices, work        |   find_best(), bound_error()
//     double   | q   | gram, vectors, block, LAPACK's work  |   find_in_double()
//              | q   | block, image                         |   project()
typedef struct Scratch {
    int R;
    int k; // eigenvectors taken in single precision: R and a surplus; 0: all is done in double
    // Single precision.
    float *q_f;           // [shorter, k]: vectors_f transposed
    float *gram_f;        // [shorter, shorter]
    float *eigenvalues_f; // [shorter]
    float *vectors_f;     // [k, shorter] eigenvectors, ascending
    float *image_f;       // [longer, k]: A q_f
    double *image_gram;   // [k, k]: image_f^T image_f, then the Ritz vectors
    double *q_gram;       // [k, k]: q_f^T q_f
    double *ritz;         // [k] Ritz values, ascending
    float *best_f;        // [longer, R]: image
    float *back_f;        // [shorter, R]: A^T image
    // Double.
    double *gram;        // [shorter, shorter]
    double *eigenvalues; // [shorter]
    double *vectors;     // [R, shorter] eigenvectors, ascending
    // Either.
    lapack_int *support; // [2 k] or [2 R]
    double *block;       // [BLOCK or fewer, k or shorter]
    double *q;           // [shorter, R] right singular vectors of [longer, shorter], ascending
    double *image;       // [longer, R]: A q
    double *scales;      // [2, R]
    Work work;
} Scratch;

static Matrix view(const float *a, int m, int n)
{
    bool is_tall = m >= n;
    return (Matrix){a, m, n, is_tall ? m : n, is_tall ? n : m, is_tall};
}

// Eigenvectors to compute in single precision; 0: too many for it to pay, or too small a matrix.
static int with_surplus(const Matrix *matrix, int R)
{
    const int k = tile_padded(R + (R / 4 > 32 ? R / 4 : 32)); // no ragged edge in products
    return matrix->shorter >= SINGLE_MIN_SIDE && k <= matrix->shorter / 2 && k <= SINGLE_MAX_VECTORS
               ? k
               : 0;
}

// ---- placement ---------------------------------------------------------------------------------

// LAPACK is called by its _work functions with memory of the arena: the plain ones allocate.
static void place_work(Work *work, Arena *arena, int64_t n_reals, size_t real_bytes,
                       int64_t n_integers)
{
    work->n_reals = (lapack_int)n_reals;
    work->n_integers = (lapack_int)n_integers;
    work->reals = arena_place(arena, n_reals, real_bytes);
    work->integers = arena_place(arena, n_integers, sizeof(lapack_int));
}

static void place_eigen_single(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    const int64_t side = matrix->shorter, k = scratch->k;
    scratch->gram_f = arena_floats(arena, side * side);
    scratch->vectors_f = arena_floats(arena, k * side);
    scratch->support = arena_place(arena, 2 * k, sizeof(lapack_int));
    float n_reals; // exact: 38 sides or so are below 2^24
    lapack_int n_integers, n_found;
    const lapack_int info =
        LAPACKE_ssyevr_work(LAPACK_COL_MAJOR, 'V', 'I', 'L', matrix->shorter, NULL, matrix->shorter,
                            0, 0, matrix->shorter - scratch->k + 1, matrix->shorter, 0, &n_found,
                            NULL, NULL, matrix->shorter, NULL, &n_reals, -1, &n_integers, -1);
    CHECK(info == 0, "workspace query: %d", (int)info);
    place_work(&scratch->work, arena, (int64_t)n_reals, sizeof(float), n_integers);
}

static void place_q(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    scratch->q = arena_place(arena, (int64_t)matrix->shorter * scratch->R, sizeof(double));
}

static void place_image(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    scratch->image = arena_place(arena, (int64_t)matrix->longer * scratch->R, sizeof(double));
    scratch->scales = arena_place(arena, 2 * (int64_t)scratch->R, sizeof(double));
}

static void place_ritz(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    const int64_t k = scratch->k, R = scratch->R;
    place_q(scratch, arena, matrix);
    place_image(scratch, arena, matrix);
    scratch->image_f = arena_floats(arena, matrix->longer * k);
    scratch->image_gram = arena_place(arena, k * k, sizeof(double));
    scratch->q_gram = arena_place(arena, k * k, sizeof(double));
    scratch->ritz = arena_place(arena, k, sizeof(double));
    scratch->best_f = arena_floats(arena, matrix->longer * R);
    scratch->back_f = arena_floats(arena, matrix->shorter * R);
    scratch->block = arena_place(arena, BLOCK * k, sizeof(double));
    // What dsygvd's documentation asks for.
    place_work(&scratch->work, arena, 1 + 6 * k + 2 * k * k, sizeof(double), 3 + 5 * k);
}

static void place_block(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    scratch->block = arena_place(arena, (int64_t)min_int(BLOCK, matrix->longer) * matrix->shorter,
                                 sizeof(double));
}

static void place_eigen_double(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    const int64_t side = matrix->shorter, R = scratch->R;
    scratch->gram = arena_place(arena, side * side, sizeof(double));
    scratch->eigenvalues = arena_place(arena, side, sizeof(double));
    scratch->vectors = arena_place(arena, side * R, sizeof(double));
    scratch->support = arena_place(arena, 2 * R, sizeof(lapack_int));
    place_block(scratch, arena, matrix);
    double n_reals;
    lapack_int n_integers, n_found;
    const lapack_int info =
        LAPACKE_dsyevr_work(LAPACK_COL_MAJOR, 'V', 'I', 'L', matrix->shorter, NULL, matrix->shorter,
                            0, 0, matrix->shorter - scratch->R + 1, matrix->shorter, 0, &n_found,
                            NULL, NULL, matrix->shorter, NULL, &n_reals, -1, &n_integers, -1);
    CHECK(info == 0, "workspace query: %d", (int)info);
    place_work(&scratch->work, arena, (int64_t)n_reals, sizeof(double), n_integers);
}

static void place_q_single(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    scratch->q_f = arena_floats(arena, (int64_t)matrix->shorter * scratch->k);
    scratch->eigenvalues_f = arena_floats(arena, matrix->shorter);
}

static void measure_single(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    const int64_t start = arena->used_bytes;
    place_q_single(scratch, arena, matrix);
    const int64_t mark = arena->used_bytes;
    place_eigen_single(scratch, arena, matrix);
    arena_rewind(arena, mark);
    place_ritz(scratch, arena, matrix);
    arena_rewind(arena, start);
}

static void measure_double(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    const int64_t start = arena->used_bytes;
    place_q(scratch, arena, matrix);
    const int64_t mark = arena->used_bytes;
    place_eigen_double(scratch, arena, matrix);
    arena_rewind(arena, mark);
    place_block(scratch, arena, matrix);
    place_image(scratch, arena, matrix);
    arena_rewind(arena, start);
}

static void measure_scratch(Scratch *scratch, Arena *arena, const Matrix *matrix)
{
    if (scratch->k > 0)
        measure_single(scratch, arena, matrix);
    measure_double(scratch, arena, matrix);
}

void factorize_measure(Arena *arena, int m, int n, int R)
{
    const Matrix matrix = view(NULL, m, n);
    Scratch scratch = {.R = R, .k = with_surplus(&matrix, R)};
    measure_scratch(&scratch, arena, &matrix);
}

// ---- in double ---------------------------------------------------------------------------------

static void load_rows(double *restrict to, const float *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i];
}

// block [count, shorter] = rows first .. first + count - 1 of A seen as [longer, shorter].
static void load_block(double *block, const Matrix *matrix, int first, int count)
{
    const int64_t n = matrix->n;
    if (matrix->is_tall) {
        load_rows(block, matrix->a + first * n, count * n);
        return;
    }
    // A wide matrix is read as its transpose; the block is filled column by column, along the rows
    // of A.
    for (int64_t j = 0; j < matrix->shorter; j++)
        for (int64_t i = 0; i < count; i++)
            block[i * matrix->shorter + j] = matrix->a[j * n + first + i];
}

static Status find_in_double(Scratch *scratch, const Matrix *matrix)
{
    const int side = matrix->shorter, R = scratch->R;
    const Work *work = &scratch->work;
    memset(scratch->gram, 0, (size_t)side * (size_t)side * sizeof *scratch->gram);
    for (int first = 0; first < matrix->longer; first += BLOCK) {
        const int count = min_int(BLOCK, matrix->longer - first);
        load_block(scratch->block, matrix, first, count);
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, side, count, 1.0, scratch->block, side,
                    1.0, scratch->gram, side);
    }
    // The upper triangle by rows is the lower one by columns.
    lapack_int n_found = 0;
    const lapack_int info = LAPACKE_dsyevr_work(
        LAPACK_COL_MAJOR, 'V', 'I', 'L', side, scratch->gram, side, 0, 0, side - R + 1, side, 0,
        &n_found, scratch->eigenvalues, scratch->vectors, side, scratch->support, work->reals,
        work->n_reals, work->integers, work->n_integers);
    CHECK(info >= 0, "dsyevr: argument %d", -(int)info);
    if (info > 0 || n_found != R)
        return fail(FAILED, "the SVD of a %d x %d matrix did not converge (dsyevr: %d)", matrix->m,
                    matrix->n, (int)info);
    cblas_domatcopy(CblasRowMajor, CblasTrans, R, side, 1.0, scratch->vectors, side, scratch->q, R);
    return OK;
}

// image = A q.
static void project(Scratch *scratch, const Matrix *matrix)
{
    for (int first = 0; first < matrix->longer; first += BLOCK) {
        const int count = min_int(BLOCK, matrix->longer - first);
        load_block(scratch->block, matrix, first, count);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, count, scratch->R, matrix->shorter,
                    1.0, scratch->block, matrix->shorter, scratch->q, scratch->R, 0.0,
                    scratch->image + (int64_t)first * scratch->R, scratch->R);
    }
}

// ---- in single precision, corrected ------------------------------------------------------------

// False: LAPACK did not find all k eigenpairs.
static bool find_in_single(Scratch *scratch, const Matrix *matrix)
{
    const int side = matrix->shorter, k = scratch->k;
    const Work *work = &scratch->work;
    lapack_int n_found = 0;
    cblas_ssyrk(CblasRowMajor, CblasUpper, matrix->is_tall ? CblasTrans : CblasNoTrans, side,
                matrix->longer, 1.0f, matrix->a, matrix->n, 0.0f, scratch->gram_f, side);
    const lapack_int info = LAPACKE_ssyevr_work(
        LAPACK_COL_MAJOR, 'V', 'I', 'L', side, scratch->gram_f, side, 0, 0, side - k + 1, side, 0,
        &n_found, scratch->eigenvalues_f, scratch->vectors_f, side, scratch->support, work->reals,
        work->n_reals, work->integers, work->n_integers);
    CHECK(info >= 0, "ssyevr: argument %d", -(int)info);
    if (info > 0 || n_found != k)
        return false;
    cblas_somatcopy(CblasRowMajor, CblasTrans, k, side, 1.0f, scratch->vectors_f, side,
                    scratch->q_f, k);
    return true;
}

// products [k, k] = rows^T rows, on and above the diagonal.
static void multiply_columns(double *products, const float *rows, int n_rows, int k, double *block)
{
    memset(products, 0, (size_t)k * (size_t)k * sizeof *products);
    for (int first = 0; first < n_rows; first += BLOCK) {
        const int count = min_int(BLOCK, n_rows - first);
        load_rows(block, rows + (int64_t)first * k, (int64_t)count * k);
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, k, count, 1.0, block, k, 1.0, products,
                    k);
    }
}

// to [n_rows, R] = rows [n_rows, k] combinations^T [k, R].
static void combine(double *to, const float *rows, const double *combinations, int n_rows, int R,
                    int k, double *block)
{
    for (int first = 0; first < n_rows; first += BLOCK) {
        const int count = min_int(BLOCK, n_rows - first);
        load_rows(block, rows + (int64_t)first * k, (int64_t)count * k);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, count, R, k, 1.0, block, k,
                    combinations, k, 0.0, to + (int64_t)first * R, R);
    }
}

// The R best combinations of the k directions q_f, which are only nearly orthonormal: eigenvectors
// of the pencil (image^T image, q^T q). False: the directions are not independent, so that the
// pencil is not positive definite, or they are not the eigenvectors they should be.
static bool find_best(Scratch *scratch, const Matrix *matrix)
{
    const int k = scratch->k, R = scratch->R, side = matrix->shorter;
    const Work *work = &scratch->work;
    gemm(COMPUTE_FLOAT32, rows_f32(scratch->image_f, k),
         matrix->is_tall ? gemm_matrix(matrix->a, matrix->n)
                         : gemm_transposed(matrix->a, matrix->n),
         gemm_matrix(scratch->q_f, k), matrix->longer, k, side, false);
    multiply_columns(scratch->image_gram, scratch->image_f, matrix->longer, k, scratch->block);
    multiply_columns(scratch->q_gram, scratch->q_f, side, k, scratch->block);
    const lapack_int info = LAPACKE_dsygvd_work(
        LAPACK_COL_MAJOR, 1, 'V', 'L', k, scratch->image_gram, k, scratch->q_gram, k, scratch->ritz,
        work->reals, work->n_reals, work->integers, work->n_integers);
    CHECK(info >= 0, "dsygvd: argument %d", -(int)info);
    if (info > 0)
        return false;
    // A vector that is missing, or is not what its eigenvalue says, shows in the values.
    for (int i = 0; i < k; i++)
        if (!(fabs(scratch->ritz[i] - scratch->eigenvalues_f[i]) <=
              MAX_DEVIATION * scratch->ritz[k - 1]))
            return false;
    const double *best = scratch->image_gram + (int64_t)(k - R) * k; // [R, k]
    combine(scratch->q, scratch->q_f, best, side, R, k, scratch->block);
    combine(scratch->image, scratch->image_f, best, matrix->longer, R, k, scratch->block);
    return true;
}

// The product's error, relative to A's norm, for directions that are missing in the k. A direction
// with residual r and Ritz value t leans by r / (t - l) towards those beyond, whose values are l at
// most.
static double bound_error(Scratch *scratch, const Matrix *matrix, double norm)
{
    const int R = scratch->R, side = matrix->shorter;
    const double *ritz = scratch->ritz + scratch->k - R, beyond = scratch->ritz[0];
    double *squares = scratch->scales; // [R]
    for (int64_t i = 0; i < (int64_t)matrix->longer * R; i++)
        scratch->best_f[i] = (float)scratch->image[i];
    gemm(COMPUTE_FLOAT32, rows_f32(scratch->back_f, R),
         matrix->is_tall ? gemm_transposed(matrix->a, matrix->n)
                         : gemm_matrix(matrix->a, matrix->n),
         gemm_matrix(scratch->best_f, R), side, R, matrix->longer, false);
    memset(squares, 0, (size_t)R * sizeof *squares);
    for (int64_t j = 0; j < side; j++)
        for (int r = 0; r < R; r++) {
            double residual = scratch->back_f[j * R + r] - ritz[r] * scratch->q[j * R + r];
            squares[r] += residual * residual;
        }
    double sum = 0;
    for (int r = 0; r < R; r++) {
        double gap = ritz[r] - beyond;
        if (!(gap > 0))
            return INFINITY;
        sum += ritz[r] * squares[r] / (gap * gap);
    }
    return sqrt(sum) / norm;
}

// ---- factors -----------------------------------------------------------------------------------

// to [n_rows, R] = from's columns, the last first, times their scales.
static void write_left(float *to, const double *from, const double *scales, int n_rows, int R)
{
    for (int64_t i = 0; i < n_rows; i++)
        for (int c = 0; c < R; c++)
            to[i * R + R - 1 - c] = (float)(from[i * R + c] * scales[c]);
}

// The same transposed: to [R, n_rows].
static void write_right(float *to, const double *from, const double *scales, int n_rows, int R)
{
    enum { CACHED = 16 }; // rows of `from` that stay in the first cache
    for (int64_t first = 0; first < n_rows; first += CACHED)
        for (int c = 0; c < R; c++)
            for (int64_t j = first; j < first + CACHED && j < n_rows; j++)
                to[(int64_t)(R - 1 - c) * n_rows + j] = (float)(from[j * R + c] * scales[c]);
}

// Component r of A is sigma u v^T: a unit vector of the shorter side in a column of q, sigma times
// the one of the longer side in that of the image, ascending. Each factor gets sqrt(sigma).
static void write_factors(float *up, float *down, const Matrix *matrix, const Scratch *scratch)
{
    const int R = scratch->R;
    double *of_q = scratch->scales, *of_image = of_q + R;
    memset(of_q, 0, (size_t)R * sizeof *of_q);
    for (int64_t i = 0; i < matrix->longer; i++)
        for (int c = 0; c < R; c++)
            of_q[c] += scratch->image[i * R + c] * scratch->image[i * R + c];
    for (int c = 0; c < R; c++) {
        of_q[c] = sqrt(sqrt(of_q[c]));
        of_image[c] = of_q[c] > 0 ? 1.0 / of_q[c] : 0.0;
    }
    if (matrix->is_tall) {
        write_left(up, scratch->image, of_image, matrix->m, R);
        write_right(down, scratch->q, of_q, matrix->n, R);
    } else {
        write_left(up, scratch->q, of_q, matrix->m, R);
        write_right(down, scratch->image, of_image, matrix->n, R);
    }
}

// Largest magnitude and Frobenius norm.
static void measure(const Matrix *matrix, float *largest, double *norm)
{
    double sum = 0;
    *largest = 0;
    for (int64_t i = 0; i < (int64_t)matrix->m * matrix->n; i++) {
        float magnitude = fabsf(matrix->a[i]);
        *largest = magnitude > *largest ? magnitude : *largest;
        sum += (double)magnitude * magnitude;
    }
    *norm = sqrt(sum);
}

// Whether single precision, corrected, is good enough: then the factors are written.
static bool factorize_single(float *up, float *down, const Matrix *matrix, Scratch *scratch,
                             Arena *arena)
{
    float largest;
    double norm;
    measure(matrix, &largest, &norm);
    if (largest < MIN_MAGNITUDE || largest > MAX_MAGNITUDE)
        return false;
    place_q_single(scratch, arena, matrix);
    const int64_t mark = arena->used_bytes;
    place_eigen_single(scratch, arena, matrix);
    if (!find_in_single(scratch, matrix))
        return false;
    arena_rewind(arena, mark);
    place_ritz(scratch, arena, matrix);
    if (!find_best(scratch, matrix) || !(bound_error(scratch, matrix, norm) <= MAX_ERROR))
        return false;
    write_factors(up, down, matrix, scratch);
    return true;
}

static Status factorize_double(float *up, float *down, const Matrix *matrix, Scratch *scratch,
                               Arena *arena)
{
    place_q(scratch, arena, matrix);
    const int64_t mark = arena->used_bytes;
    place_eigen_double(scratch, arena, matrix);
    TRY(find_in_double(scratch, matrix));
    arena_rewind(arena, mark);
    place_block(scratch, arena, matrix);
    place_image(scratch, arena, matrix);
    project(scratch, matrix);
    write_factors(up, down, matrix, scratch);
    return OK;
}

Status factorize(float *up, float *down, const float *a, int m, int n, int R)
{
    const Matrix matrix = view(a, m, n);
    CHECK(R >= 1 && R <= matrix.shorter, "rank %d of a %d x %d matrix", R, m, n);
    const int64_t count = (int64_t)m * n, bad = finite_find_nonfinite(a, count);
    if (bad < count)
        return fail(BAD_INPUT,
                    "matrix: value at row %lld, column %lld is %g; the weights are damaged, fetch "
                    "or export the model again",
                    (long long)(bad / n), (long long)(bad % n), (double)a[bad]);
    Scratch scratch = {.R = R, .k = with_surplus(&matrix, R)};
    Arena arena = arena_start("factorization");
    measure_scratch(&scratch, &arena, &matrix);
    if (arena_allocate(&arena) != OK)
        return fail(FAILED, "no memory for %.2f GiB to factorize a %d x %d matrix",
                    (double)arena.peak_bytes / (1 << 30), m, n);
    Status status = OK;
    const bool is_done = scratch.k > 0 && factorize_single(up, down, &matrix, &scratch, &arena);
    arena_rewind(&arena, 0);
    if (!is_done)
        status = factorize_double(up, down, &matrix, &scratch, &arena);
    arena_release(&arena);
    return status;
}
