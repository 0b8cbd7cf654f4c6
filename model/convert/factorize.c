// The singular vectors are those of the Gram matrix of the shorter side, of which only the R
// largest are wanted. Squaring loses the directions below sqrt(epsilon) ~ 1e-8 of the largest
// singular value, which float weights cannot hold either; the product up * down stays a projection
// of A, so that they only cost an error of that size. Singular values are measured on the projected
// matrix, not taken as square roots of eigenvalues, and a column is divided by no more than the
// root of its own length.
//
// In single precision (model/convert/eigen.h) the vectors next to the cut mix with each other, and
// all of them with the rest by some epsilons. So more vectors are computed than wanted, and the
// best R directions among them are found in double (Rayleigh and Ritz): what is left is the mixing
// with directions beyond the surplus, whose effect on the product is bounded by the residuals and
// the gap to those directions (Davis and Kahan). The image A q is taken in single precision: its
// rounding adds some 1e-7 of A's norm to the product, a tenth of what that mixing does, in random
// directions, so that its products with itself, in double, hardly change.
#include "model/convert/factorize.h"

#include "base/intmath.h"
#include "model/convert/eigen.h"
#include "model/kernels/finite.h"
#include "model/kernels/gemm.h"
#include "model/kernels/tile.h"

#include <cblas.h>
#include <float.h>
#include <math.h>
#include <string.h>

enum {
    SINGLE_LEAST = 768,  // shorter sides: below, double is about as fast
    SINGLE_MOST = 32000, // vectors: LAPACK counts twice their square in 32 bits
    BLOCK = 256,         // rows made double at a time
};

// Of the product's error relative to A. Seen: 1e-8 to 1e-6 of random and of decaying spectra.
static const double MOST_ERROR = 1e-5;
// Squares and their sums keep clear of float's limits.
static const float LEAST_MAGNITUDE = 1e-12f, MOST_MAGNITUDE = 1e12f;

// A, seen as [longer, shorter].
typedef struct Matrix {
    const float *a; // [m, n]
    int m, n, longer, shorter;
    bool is_tall;
} Matrix;

// Everything factorize() works in, in one arena.
typedef struct Room {
    int R;
    int k; // vectors that single precision computes, R and a surplus; 0: double does it all
    // Single precision.
    float *q_f;    // [shorter, k] their singular vectors of the shorter side, ascending
    float *gram_f; // [shorter, shorter]
    EigenRoom eigen;
    float *image_f;        // [longer, k]: A q
    double *images, *dots; // [k, k]: products of columns of the image, of q
    double *ritz;          // [k]
    float *best_f;         // [longer, R]
    float *back_f;         // [shorter, R]
    // Double.
    double *gram;        // [shorter, shorter]
    double *eigenvalues; // [shorter]
    double *vectors;     // [R, shorter]
    lapack_int *support; // [2 R]
    // Either.
    double *block; // [BLOCK or fewer, k or shorter]
    double *q;     // [shorter, R] what the factors are made of, ascending
    double *image; // [longer, R]: A q
    double *work;  // LAPACK's
    lapack_int *iwork;
    int64_t n_work, n_iwork;
} Room;

static Matrix view(const float *a, int m, int n)
{
    bool is_tall = m >= n;
    return (Matrix){a, m, n, is_tall ? m : n, is_tall ? n : m, is_tall};
}

// Vectors to compute in single precision; 0: too many for it to pay, or too small a matrix.
static int with_surplus(const Matrix *x, int R)
{
    int k = tile_padded(R + (R / 4 > 32 ? R / 4 : 32)); // as model/eigen has it
    return x->shorter >= SINGLE_LEAST && k <= x->shorter / 2 && k <= SINGLE_MOST ? k : 0;
}

static void place_work(Room *room, Arena *arena, int64_t n_work, int64_t n_iwork)
{
    room->n_work = n_work;
    room->n_iwork = n_iwork;
    room->work = arena_place(arena, n_work, sizeof(double));
    room->iwork = arena_place(arena, n_iwork, sizeof(lapack_int));
}

static void place_eigen(Room *room, Arena *arena, const Matrix *x)
{
    room->gram_f = arena_floats(arena, (int64_t)x->shorter * x->shorter);
    eigen_place(&room->eigen, arena, x->shorter, room->k);
}

static void place_q(Room *room, Arena *arena, const Matrix *x)
{
    room->q = arena_place(arena, (int64_t)x->shorter * room->R, sizeof(double));
}

static void place_image(Room *room, Arena *arena, const Matrix *x)
{
    room->image = arena_place(arena, (int64_t)x->longer * room->R, sizeof(double));
}

static void place_best(Room *room, Arena *arena, const Matrix *x)
{
    const int64_t k = room->k, R = room->R;
    place_q(room, arena, x);
    place_image(room, arena, x);
    room->image_f = arena_floats(arena, x->longer * k);
    room->images = arena_place(arena, k * k, sizeof(double));
    room->dots = arena_place(arena, k * k, sizeof(double));
    room->ritz = arena_place(arena, k, sizeof(double));
    room->best_f = arena_floats(arena, x->longer * R);
    room->back_f = arena_floats(arena, x->shorter * R);
    room->block = arena_place(arena, BLOCK * k, sizeof(double));
    place_work(room, arena, 1 + 6 * k + 2 * k * k, 3 + 5 * k);
}

static void place_block(Room *room, Arena *arena, const Matrix *x)
{
    room->block =
        arena_place(arena, (int64_t)min_int(BLOCK, x->longer) * x->shorter, sizeof(double));
}

static void place_double(Room *room, Arena *arena, const Matrix *x)
{
    int64_t s = x->shorter;
    room->gram = arena_place(arena, s * s, sizeof(double));
    room->eigenvalues = arena_place(arena, s, sizeof(double));
    room->vectors = arena_place(arena, s * room->R, sizeof(double));
    room->support = arena_place(arena, 2 * (int64_t)room->R, sizeof(lapack_int));
    place_block(room, arena, x);
    double n_work;
    lapack_int n_iwork, found,
        info = LAPACKE_dsyevr_work(LAPACK_COL_MAJOR, 'V', 'I', 'L', x->shorter, NULL, x->shorter, 0,
                                   0, x->shorter - room->R + 1, x->shorter, 0, &found, NULL, NULL,
                                   x->shorter, NULL, &n_work, -1, &n_iwork, -1);
    CHECK(info == 0, "workspace query: %d", (int)info);
    place_work(room, arena, (int64_t)n_work, n_iwork);
}

static void measure_single(Room *room, Arena *arena, const Matrix *x)
{
    const int64_t start = arena->used_bytes;
    room->q_f = arena_floats(arena, (int64_t)x->shorter * room->k);
    const int64_t mark = arena->used_bytes;
    place_eigen(room, arena, x);
    arena_rewind(arena, mark);
    place_best(room, arena, x);
    arena_rewind(arena, start);
}

static void measure_double(Room *room, Arena *arena, const Matrix *x)
{
    const int64_t start = arena->used_bytes;
    place_q(room, arena, x);
    const int64_t mark = arena->used_bytes;
    place_double(room, arena, x);
    arena_rewind(arena, mark);
    place_block(room, arena, x);
    place_image(room, arena, x);
    arena_rewind(arena, start);
}

static void measure_room(Room *room, Arena *arena, const Matrix *x)
{
    if (room->k > 0)
        measure_single(room, arena, x);
    measure_double(room, arena, x);
}

void factorize_measure(Arena *arena, int m, int n, int R)
{
    const Matrix x = view(NULL, m, n);
    Room room = {.R = R, .k = with_surplus(&x, R)};
    measure_room(&room, arena, &x);
}

static void load_rows(double *restrict to, const float *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i];
}

// block [count, shorter] = rows of A seen as tall.
static void load_block(double *block, const Matrix *x, int first, int count)
{
    const int64_t n = x->n;
    if (x->is_tall) {
        load_rows(block, x->a + first * n, count * n);
        return;
    }
    for (int64_t j = 0; j < x->shorter; j++)
        for (int64_t i = 0; i < count; i++)
            block[i * x->shorter + j] = x->a[j * n + first + i];
}

// ---- in double ---------------------------------------------------------------------------------

static Status find_in_double(Room *room, const Matrix *x)
{
    const int s = x->shorter, R = room->R;
    memset(room->gram, 0, (size_t)s * (size_t)s * sizeof *room->gram);
    for (int first = 0; first < x->longer; first += BLOCK) {
        int count = min_int(BLOCK, x->longer - first);
        load_block(room->block, x, first, count);
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, s, count, 1.0, room->block, s, 1.0,
                    room->gram, s);
    }
    // The upper triangle by rows is the lower one by columns.
    lapack_int found = 0;
    lapack_int info = LAPACKE_dsyevr_work(LAPACK_COL_MAJOR, 'V', 'I', 'L', s, room->gram, s, 0, 0,
                                          s - R + 1, s, 0, &found, room->eigenvalues, room->vectors,
                                          s, room->support, room->work, (lapack_int)room->n_work,
                                          room->iwork, (lapack_int)room->n_iwork);
    CHECK(info >= 0, "dsyevr: argument %d", -(int)info);
    if (info > 0 || found != R)
        return fail(FAILED, "the SVD of a %d x %d matrix did not converge (dsyevr: %d)", x->m, x->n,
                    (int)info);
    cblas_domatcopy(CblasRowMajor, CblasTrans, R, s, 1.0, room->vectors, s, room->q, R);
    return OK;
}

static void map_in_double(Room *room, const Matrix *x)
{
    for (int first = 0; first < x->longer; first += BLOCK) {
        int count = min_int(BLOCK, x->longer - first);
        load_block(room->block, x, first, count);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, count, room->R, x->shorter, 1.0,
                    room->block, x->shorter, room->q, room->R, 0.0,
                    room->image + (int64_t)first * room->R, room->R);
    }
}

// ---- in single precision, corrected ------------------------------------------------------------

static Status find_in_single(Room *room, const Matrix *x)
{
    const int s = x->shorter;
    cblas_ssyrk(CblasRowMajor, CblasUpper, x->is_tall ? CblasTrans : CblasNoTrans, s, x->longer,
                1.0f, x->a, x->n, 0.0f, room->gram_f, s);
    return eigen_largest(room->q_f, room->gram_f, s, room->k, &room->eigen);
}

// products [k, k] = rows^T rows on and above the diagonal.
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

// The R best combinations of the k directions q, which are only nearly orthonormal: eigenvectors of
// the pencil (image^T image, q^T q). False: it is not positive definite.
static bool take_best(Room *room, const Matrix *x)
{
    const int k = room->k, R = room->R, s = x->shorter;
    gemm(room->image_f, k, x->is_tall ? gemm_matrix(x->a, x->n) : gemm_transposed(x->a, x->n),
         gemm_matrix(room->q_f, k), x->longer, k, s, false);
    multiply_columns(room->images, room->image_f, x->longer, k, room->block);
    multiply_columns(room->dots, room->q_f, s, k, room->block);
    lapack_int info = LAPACKE_dsygvd_work(
        LAPACK_COL_MAJOR, 1, 'V', 'L', k, room->images, k, room->dots, k, room->ritz, room->work,
        (lapack_int)room->n_work, room->iwork, (lapack_int)room->n_iwork);
    CHECK(info >= 0, "dsygvd: argument %d", -(int)info);
    if (info > 0)
        return false;
    const double *best = room->images + (int64_t)(k - R) * k; // [R, k]
    combine(room->q, room->q_f, best, s, R, k, room->block);
    combine(room->image, room->image_f, best, x->longer, R, k, room->block);
    return true;
}

// The product's error for directions that are missing in the k, relative to A. A direction with
// residual r and Ritz value t leans by r / (t - l) towards those beyond, whose values are l at
// most.
static double bound_error(Room *room, const Matrix *x, double norm)
{
    const int R = room->R, s = x->shorter;
    const double *ritz = room->ritz + room->k - R, beyond = room->ritz[0];
    double *squares = room->work; // [R]
    for (int64_t i = 0; i < (int64_t)x->longer * R; i++)
        room->best_f[i] = (float)room->image[i];
    gemm(room->back_f, R, x->is_tall ? gemm_transposed(x->a, x->n) : gemm_matrix(x->a, x->n),
         gemm_matrix(room->best_f, R), s, R, x->longer, false);
    memset(squares, 0, (size_t)R * sizeof *squares);
    for (int64_t j = 0; j < s; j++)
        for (int r = 0; r < R; r++) {
            double residual = room->back_f[j * R + r] - ritz[r] * room->q[j * R + r];
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

// ---- both --------------------------------------------------------------------------------------

// to [n_rows, R] = from's columns, the last first, times their scales.
static void write_left(float *to, const double *from, const double *scales, int n_rows, int R)
{
    for (int64_t i = 0; i < n_rows; i++)
        for (int c = 0; c < R; c++)
            to[i * R + R - 1 - c] = (float)(from[i * R + c] * scales[c]);
}

// Its transpose.
static void write_right(float *to, const double *from, const double *scales, int n_rows, int R)
{
    enum { CACHED = 16 }; // rows
    for (int64_t first = 0; first < n_rows; first += CACHED)
        for (int c = 0; c < R; c++)
            for (int64_t j = first; j < first + CACHED && j < n_rows; j++)
                to[(int64_t)(R - 1 - c) * n_rows + j] = (float)(from[j * R + c] * scales[c]);
}

// Component r of A is sigma u v^T: a unit vector of the shorter side in a column of q, sigma times
// the one of the longer in that of the image, ascending. Each factor gets sqrt(sigma).
// scales [2, R] is room for it.
static void write_factors(float *up, float *down, const Matrix *x, const Room *room, double *scales)
{
    const int R = room->R;
    double *of_q = scales, *of_image = scales + R;
    memset(of_q, 0, (size_t)R * sizeof *of_q);
    for (int64_t i = 0; i < x->longer; i++)
        for (int c = 0; c < R; c++)
            of_q[c] += room->image[i * R + c] * room->image[i * R + c];
    for (int c = 0; c < R; c++) {
        of_q[c] = sqrt(sqrt(of_q[c]));
        of_image[c] = of_q[c] > 0 ? 1.0 / of_q[c] : 0.0;
    }
    if (x->is_tall) {
        write_left(up, room->image, of_image, x->m, R);
        write_right(down, room->q, of_q, x->n, R);
    } else {
        write_left(up, room->q, of_q, x->m, R);
        write_right(down, room->image, of_image, x->n, R);
    }
}

// Largest magnitude and Frobenius norm.
static void measure(const Matrix *x, float *largest, double *norm)
{
    double sum = 0;
    *largest = 0;
    for (int64_t i = 0; i < (int64_t)x->m * x->n; i++) {
        float magnitude = fabsf(x->a[i]);
        *largest = magnitude > *largest ? magnitude : *largest;
        sum += (double)magnitude * magnitude;
    }
    *norm = sqrt(sum);
}

// Single precision and its correction; *is_done: the factors are written.
static Status try_single(float *up, float *down, const Matrix *x, Room *room, Arena *arena,
                         bool *is_done)
{
    float largest;
    double norm;
    int64_t mark = arena->used_bytes;
    measure(x, &largest, &norm);
    if (largest < LEAST_MAGNITUDE || largest > MOST_MAGNITUDE)
        return OK;
    room->q_f = arena_floats(arena, (int64_t)x->shorter * room->k);
    const int64_t middle = arena->used_bytes;
    place_eigen(room, arena, x);
    TRY(find_in_single(room, x));
    arena_rewind(arena, middle);
    place_best(room, arena, x);
    *is_done = take_best(room, x) && bound_error(room, x, norm) <= MOST_ERROR;
    if (*is_done)
        write_factors(up, down, x, room, room->work);
    arena_rewind(arena, mark);
    return OK;
}

static Status run(float *up, float *down, const Matrix *x, Room *room, Arena *arena)
{
    bool is_done = false;
    if (room->k > 0)
        TRY(try_single(up, down, x, room, arena, &is_done));
    if (is_done)
        return OK;
    place_q(room, arena, x);
    int64_t mark = arena->used_bytes;
    place_double(room, arena, x);
    TRY(find_in_double(room, x));
    arena_rewind(arena, mark);
    place_block(room, arena, x);
    place_image(room, arena, x);
    map_in_double(room, x);
    write_factors(up, down, x, room, room->block);
    return OK;
}

Status factorize(float *up, float *down, const float *a, int m, int n, int R)
{
    const Matrix x = view(a, m, n);
    CHECK(R >= 1 && R <= x.shorter, "rank %d of a %d x %d matrix", R, m, n);
    const int64_t count = (int64_t)m * n, bad = finite_find_nonfinite(a, count);
    if (bad < count)
        return fail(BAD_INPUT,
                    "matrix: value at row %lld, column %lld is %g; the weights are damaged, fetch "
                    "or export the model again",
                    (long long)(bad / n), (long long)(bad % n), (double)a[bad]);
    Room room = {.R = R, .k = with_surplus(&x, R)};
    Arena arena = arena_start("factorization");
    measure_room(&room, &arena, &x);
    if (arena_allocate(&arena) != OK)
        return fail(FAILED, "no memory for %.2f GiB to factorize a %d x %d matrix",
                    (double)arena.peak_bytes / (1 << 30), m, n);
    Status status = run(up, down, &x, &room, &arena);
    arena_release(&arena);
    return status;
}
