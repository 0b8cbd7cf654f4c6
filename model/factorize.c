// The singular vectors are those of the Gram matrix of the shorter side, of which only the R
// largest are wanted. Squaring loses the directions below sqrt(epsilon) ~ 1e-8 of the largest
// singular value, which float weights cannot hold either; the product up * down stays a projection
// of A, so that they only cost an error of that size. Singular values are measured on the projected
// matrix, not taken as square roots of eigenvalues, and a column is divided by no more than the
// root of its own length.
//
// In single precision (model/eigen.h) the vectors next to the cut mix with each other, and all of
// them with the rest by some epsilons. So more vectors are computed than wanted, and the best R
// directions among them are found in double (Rayleigh and Ritz): what is left is the mixing with
// directions beyond the surplus, whose effect on the product is bounded by the residuals and the
// gap to those directions (Davis and Kahan).
#include "model/factorize.h"

#include "model/eigen.h"
#include "model/finite.h"

#include <cblas.h>
#include <float.h>
#include <math.h>
#include <string.h>

enum {
    SINGLE_LEAST = 768,  // shorter sides: below, double is about as fast
    SINGLE_MOST = 32000, // vectors: LAPACK counts twice their square in 32 bits
    BLOCK = 256,         // of the longer side, made double at a time
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
    int k;     // vectors that are computed, R or more
    double *q; // [shorter, k] their singular vectors of the shorter side, ascending
    // Single precision.
    float *gram_f; // [shorter, shorter]
    float *q_f;    // [shorter, k]
    EigenRoom eigen;
    // Double.
    double *gram;        // [shorter, shorter]
    double *eigenvalues; // [shorter]
    double *vectors;     // [R, shorter]
    lapack_int *support; // [2 R]
    // After either.
    double *block;         // [BLOCK or fewer, shorter]
    double *image;         // [longer, k]: A q
    double *images, *dots; // [k, k]: products of columns of the image, of q
    double *ritz;          // [k]
    double *best_q;        // [shorter, R]
    double *best_image;    // [longer, R]
    float *image_f;        // [longer, R]
    float *back_f;         // [shorter, R]
    double *work;          // LAPACK's
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
    int k = R + (R / 4 > 32 ? R / 4 : 32);
    return x->shorter >= SINGLE_LEAST && k <= x->shorter / 2 && k <= SINGLE_MOST ? k : 0;
}

static void place_work(Room *room, Arena *arena, int64_t n_work, int64_t n_iwork)
{
    room->n_work = n_work;
    room->n_iwork = n_iwork;
    room->work = arena_place(arena, n_work, sizeof(double));
    room->iwork = arena_place(arena, n_iwork, sizeof(lapack_int));
}

static int block_rows(const Matrix *x)
{
    return x->longer < BLOCK ? x->longer : BLOCK;
}

static void place_single(Room *room, Arena *arena, const Matrix *x)
{
    int64_t s = x->shorter;
    room->gram_f = arena_floats(arena, s * s);
    room->q_f = arena_floats(arena, s * room->k);
    eigen_place(&room->eigen, arena, x->shorter, room->k);
}

static void place_double(Room *room, Arena *arena, const Matrix *x)
{
    int64_t s = x->shorter;
    room->gram = arena_place(arena, s * s, sizeof(double));
    room->eigenvalues = arena_place(arena, s, sizeof(double));
    room->vectors = arena_place(arena, s * room->R, sizeof(double));
    room->support = arena_place(arena, 2 * (int64_t)room->R, sizeof(lapack_int));
    room->block = arena_place(arena, block_rows(x) * s, sizeof(double));
    double n_work;
    lapack_int n_iwork, found,
        info = LAPACKE_dsyevr_work(LAPACK_COL_MAJOR, 'V', 'I', 'L', x->shorter, NULL, x->shorter, 0,
                                   0, x->shorter - room->R + 1, x->shorter, 0, &found, NULL, NULL,
                                   x->shorter, NULL, &n_work, -1, &n_iwork, -1);
    CHECK(info == 0, "workspace query: %d", (int)info);
    place_work(room, arena, (int64_t)n_work, n_iwork);
}

static void place_image(Room *room, Arena *arena, const Matrix *x, bool is_ritz)
{
    int64_t k = room->k, R = room->R;
    room->block = arena_place(arena, block_rows(x) * (int64_t)x->shorter, sizeof(double));
    room->image = arena_place(arena, x->longer * k, sizeof(double));
    if (!is_ritz)
        return;
    room->images = arena_place(arena, k * k, sizeof(double));
    room->dots = arena_place(arena, k * k, sizeof(double));
    room->ritz = arena_place(arena, k, sizeof(double));
    room->best_q = arena_place(arena, x->shorter * R, sizeof(double));
    room->best_image = arena_place(arena, x->longer * R, sizeof(double));
    room->image_f = arena_floats(arena, x->longer * R);
    room->back_f = arena_floats(arena, x->shorter * R);
    place_work(room, arena, 1 + 6 * k + 2 * k * k, 3 + 5 * k);
}

static Room start_room(const Matrix *x, int R)
{
    int k = with_surplus(x, R);
    return (Room){.R = R, .k = k > 0 ? k : R};
}

static void place_all(Room *room, Arena *arena, const Matrix *x)
{
    const bool is_ritz = room->k > room->R;
    room->q = arena_place(arena, (int64_t)x->shorter * room->k, sizeof(double));
    int64_t mark = arena->used_bytes;
    if (is_ritz)
        place_single(room, arena, x);
    arena_rewind(arena, mark);
    place_double(room, arena, x);
    arena_rewind(arena, mark);
    place_image(room, arena, x, is_ritz);
    arena_rewind(arena, mark);
}

void factorize_measure(Arena *arena, int m, int n, int R)
{
    const Matrix x = view(NULL, m, n);
    Room room = start_room(&x, R);
    int64_t mark = arena->used_bytes;
    place_all(&room, arena, &x);
    arena_rewind(arena, mark);
}

// block [count, shorter] = rows of A seen as tall.
static void load_block(double *block, const Matrix *x, int first, int count)
{
    const int64_t n = x->n;
    if (x->is_tall) {
        for (int64_t i = 0; i < count * n; i++)
            block[i] = x->a[first * n + i];
        return;
    }
    for (int64_t j = 0; j < x->shorter; j++)
        for (int64_t i = 0; i < count; i++)
            block[i * x->shorter + j] = x->a[j * n + first + i];
}

// room->image = A q, for k columns.
static void compute_image(Room *room, const Matrix *x, int k)
{
    for (int first = 0; first < x->longer; first += BLOCK) {
        int count = x->longer - first < BLOCK ? x->longer - first : BLOCK;
        load_block(room->block, x, first, count);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, count, k, x->shorter, 1.0,
                    room->block, x->shorter, room->q, k, 0.0, room->image + (int64_t)first * k, k);
    }
}

// ---- in double ---------------------------------------------------------------------------------

static Status find_in_double(Room *room, const Matrix *x)
{
    const int s = x->shorter, R = room->R;
    memset(room->gram, 0, (size_t)s * (size_t)s * sizeof *room->gram);
    for (int first = 0; first < x->longer; first += BLOCK) {
        int count = x->longer - first < BLOCK ? x->longer - first : BLOCK;
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

// ---- in single precision, corrected ------------------------------------------------------------

static Status find_in_single(Room *room, const Matrix *x)
{
    const int s = x->shorter;
    cblas_ssyrk(CblasRowMajor, CblasUpper, x->is_tall ? CblasTrans : CblasNoTrans, s, x->longer,
                1.0f, x->a, x->n, 0.0f, room->gram_f, s);
    TRY(eigen_largest(room->q_f, room->gram_f, s, room->k, &room->eigen));
    for (int64_t i = 0; i < (int64_t)s * room->k; i++)
        room->q[i] = room->q_f[i];
    return OK;
}

// The R best combinations of the k directions q, which are only nearly orthonormal: eigenvectors of
// the pencil (image^T image, q^T q). False: it is not positive definite.
static bool take_best(Room *room, const Matrix *x)
{
    const int k = room->k, R = room->R, s = x->shorter;
    memset(room->images, 0, (size_t)k * (size_t)k * sizeof *room->images);
    memset(room->dots, 0, (size_t)k * (size_t)k * sizeof *room->dots);
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, k, x->longer, 1.0, room->image, k, 1.0,
                room->images, k);
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, k, s, 1.0, room->q, k, 1.0, room->dots, k);
    lapack_int info = LAPACKE_dsygvd_work(
        LAPACK_COL_MAJOR, 1, 'V', 'L', k, room->images, k, room->dots, k, room->ritz, room->work,
        (lapack_int)room->n_work, room->iwork, (lapack_int)room->n_iwork);
    CHECK(info >= 0, "dsygvd: argument %d", -(int)info);
    if (info > 0)
        return false;
    const double *best = room->images + (int64_t)(k - R) * k; // [R, k]
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s, R, k, 1.0, room->q, k, best, k, 0.0,
                room->best_q, R);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, x->longer, R, k, 1.0, room->image, k, best,
                k, 0.0, room->best_image, R);
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
        room->image_f[i] = (float)room->best_image[i];
    cblas_sgemm(CblasRowMajor, x->is_tall ? CblasTrans : CblasNoTrans, CblasNoTrans, s, R,
                x->longer, 1.0f, x->a, x->n, room->image_f, R, 0.0f, room->back_f, R);
    memset(squares, 0, (size_t)R * sizeof *squares);
    for (int64_t j = 0; j < s; j++)
        for (int r = 0; r < R; r++) {
            double residual = room->back_f[j * R + r] - ritz[r] * room->best_q[j * R + r];
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

// Component r of A is sigma u v^T: a unit vector of the shorter side in a column of q [shorter, R],
// sigma times the one of the longer in that of image [longer, R], ascending. Each factor gets
// sqrt(sigma).
static void write_factors(float *up, float *down, const Matrix *x, int R, const double *q,
                          const double *image, double *scales)
{
    memset(scales, 0, (size_t)R * sizeof *scales);
    for (int64_t i = 0; i < x->longer; i++)
        for (int c = 0; c < R; c++)
            scales[c] += image[i * R + c] * image[i * R + c];
    for (int c = 0; c < R; c++)
        scales[c] = sqrt(sqrt(scales[c]));
    for (int c = 0; c < R; c++) {
        const int r = R - 1 - c;
        double q_scale = scales[c], image_scale = q_scale > 0 ? 1.0 / q_scale : 0.0;
        const double *left = x->is_tall ? image : q, *right = x->is_tall ? q : image;
        double left_scale = x->is_tall ? image_scale : q_scale;
        double right_scale = x->is_tall ? q_scale : image_scale;
        for (int64_t i = 0; i < x->m; i++)
            up[i * R + r] = (float)(left[i * R + c] * left_scale);
        for (int64_t j = 0; j < x->n; j++)
            down[(int64_t)r * x->n + j] = (float)(right[j * R + c] * right_scale);
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
    place_single(room, arena, x);
    TRY(find_in_single(room, x));
    arena_rewind(arena, mark);
    place_image(room, arena, x, true);
    compute_image(room, x, room->k);
    *is_done = take_best(room, x) && bound_error(room, x, norm) <= MOST_ERROR;
    if (*is_done)
        write_factors(up, down, x, room->R, room->best_q, room->best_image, room->work);
    arena_rewind(arena, mark);
    return OK;
}

static Status run(float *up, float *down, const Matrix *x, Room *room, Arena *arena)
{
    bool is_done = false;
    room->q = arena_place(arena, (int64_t)x->shorter * room->k, sizeof(double));
    if (room->k > room->R)
        TRY(try_single(up, down, x, room, arena, &is_done));
    if (is_done)
        return OK;
    int64_t mark = arena->used_bytes;
    place_double(room, arena, x);
    TRY(find_in_double(room, x));
    arena_rewind(arena, mark);
    place_image(room, arena, x, false);
    compute_image(room, x, room->R);
    write_factors(up, down, x, room->R, room->q, room->image, room->block);
    return OK;
}

Status factorize(float *up, float *down, const float *a, int m, int n, int R)
{
    const Matrix x = view(a, m, n);
    CHECK(R >= 1 && R <= x.shorter, "rank %d of a %d x %d matrix", R, m, n);
    const int64_t count = (int64_t)m * n, bad = finite_count(a, count);
    if (bad < count)
        return fail(BAD_INPUT,
                    "matrix: value at row %lld, column %lld is %g; the weights are damaged, fetch "
                    "or export the model again",
                    (long long)(bad / n), (long long)(bad % n), (double)a[bad]);
    Room room = start_room(&x, R);
    Arena arena = arena_start("factorization");
    place_all(&room, &arena, &x);
    if (arena_allocate(&arena) != OK)
        return fail(FAILED, "no memory for %.2f GiB to factorize a %d x %d matrix",
                    (double)arena.peak_bytes / (1 << 30), m, n);
    Status status = run(up, down, &x, &room, &arena);
    arena_release(&arena);
    return status;
}
