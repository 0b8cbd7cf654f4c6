// Each eigenvalue is bisected by itself and its vector follows from one twisted factorization
// (Parlett and Dhillon, Fernando's solution to Wilkinson's problem, 1997), many at once side by
// side in the machine's vectors. The factorization's residual is some epsilons of the norm, so that
// vectors are orthogonal to epsilon / gap: with gaps of LEAST_GAP and more, better than float can
// hold. Where eigenvalues are closer, and if a residual should not be small, LAPACK's MRRR does it
// all, which keeps any vectors orthogonal and takes eight times as long.
#include "model/convert/tridiagonal.h"

#include "base/intmath.h"
#include "base/simd.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

enum {
    LANES = 8,
    WIDTH = 2 * LANES, // eigenvalues at once: a division's latency is hidden behind the other half
    STEPS = 56,        // of bisection: from 4 to DBL_EPSILON / 4 and less
    N_ARRAYS = 3,      // of [n, WIDTH] that vectors take
};

// All relative to a norm between 1/2 and 1.
static const double LEAST_GAP = 1e-8, MOST_RESIDUAL = 1e-13;
// Of a unit vector: the tails of localized vectors would be float's denormals, slow to work with.
static const double NEGLIGIBLE = 1e-15;
// Smaller pivots are as good as this one: it changes the matrix by far less than rounding.
static const double LEAST_PIVOT = 1e-30;
static const double LEAST_SQUARE = 1e-290; // that no pivot makes 0 / 0 of

typedef double Vector __attribute__((vector_size(LANES * sizeof(double))));
typedef int64_t Mask __attribute__((vector_size(LANES * sizeof(int64_t))));

static float rounded(double value)
{
    return fabs(value) < NEGLIGIBLE ? 0 : (float)value;
}

void tridiagonal_place(TridiagonalRoom *room, Arena *arena, int n, int k)
{
    room->n_threads = omp_get_max_threads();
    room->squares = arena_place(arena, n, sizeof(double));
    room->scratch = arena_place(
        arena, n * max_int64(k, (int64_t)N_ARRAYS * WIDTH * room->n_threads), sizeof(double));
    room->work = arena_place(arena, 18 * (int64_t)n, sizeof(double));
    room->iwork = arena_place(arena, 10 * (int64_t)n + 2 * (int64_t)k, sizeof(lapack_int));
}

// A matrix whose norm lies between 1/2 and 1; squares[i] is that of what is left of diagonal[i].
typedef struct Tridiagonal {
    const double *diagonal, *below, *squares;
    int n;
} Tridiagonal;

// ---- eigenvalues -------------------------------------------------------------------------------

// Eigenvalues below each shift: negative pivots of T - shift (Sturm).
HOT static void count_below(int64_t *counts, const double *shifts, const Tridiagonal *t)
{
    Vector x[2], pivot[2] = {{0}, {0}};
    Mask count[2] = {{0}, {0}};
    memcpy(x, shifts, sizeof x);
    pivot[0] += 1;
    pivot[1] += 1;
    for (int i = 0; i < t->n; i++) {
        const double diagonal = t->diagonal[i], square = t->squares[i];
        for (int h = 0; h < 2; h++) {
            pivot[h] = (diagonal - x[h]) - square / pivot[h];
            count[h] += pivot[h] < 0;
        }
    }
    count[0] = -count[0];
    count[1] = -count[1];
    memcpy(counts, count, sizeof count);
}

// values [WIDTH] of the eigenvalues number first ..., ascending from 0; past the last it repeats.
static void bisect(double *values, const Tridiagonal *t, int first)
{
    double low[WIDTH], high[WIDTH];
    int64_t counts[WIDTH];
    for (int l = 0; l < WIDTH; l++) {
        low[l] = -2;
        high[l] = 2;
    }
    for (int step = 0; step < STEPS; step++) {
        for (int l = 0; l < WIDTH; l++)
            values[l] = 0.5 * (low[l] + high[l]);
        count_below(counts, values, t);
        for (int l = 0; l < WIDTH; l++)
            if (counts[l] <= min_int(first + l, t->n - 1))
                low[l] = values[l];
            else
                high[l] = values[l];
    }
}

// ---- vectors -----------------------------------------------------------------------------------

#define SELECT(mask, a, b) ((Vector)(((Mask)(a) & (mask)) | ((Mask)(b) & ~(mask))))
#define KEEP_CLEAR(pivot)                                                                          \
    SELECT((pivot < LEAST_PIVOT) & (pivot > -LEAST_PIVOT), (Vector){0} + LEAST_PIVOT, pivot)

// T - value = L+ D+ L+^T = L- D- L-^T, from the top and from the bottom; both halves meet at the
// row where what is left of the pivot, gamma, is least. Multipliers above and under [n, WIDTH].
HOT static void factor_twisted(double *above, double *under, double *twists, double *gammas,
                               const double *values, const Tridiagonal *t)
{
    const int n = t->n;
    for (int h = 0; h < 2; h++) {
        Vector x, pivot, multiplier = {0}, twist = {0}, gamma = {0};
        memcpy(&x, values + h * LANES, sizeof x);
        double *to = above + h * LANES;
        for (int i = 0; i < n - 1; i++) {
            pivot = (t->diagonal[i] - x) - (i > 0 ? t->below[i - 1] : 0) * multiplier;
            multiplier = t->below[i] / KEEP_CLEAR(pivot);
            memcpy(to + (int64_t)i * WIDTH, &multiplier, sizeof multiplier);
        }
        gamma += DBL_MAX;
        multiplier -= multiplier;
        to = under + h * LANES;
        for (int i = n - 1; i >= 0; i--) {
            const double left = i > 0 ? t->below[i - 1] : 0;
            Vector from_above = {0};
            pivot = (t->diagonal[i] - x) - (i < n - 1 ? t->below[i] : 0) * multiplier;
            if (i > 0)
                memcpy(&from_above, above + (int64_t)(i - 1) * WIDTH + h * LANES,
                       sizeof from_above);
            Vector rest = pivot - left * from_above;
            rest = SELECT(rest < 0, -rest, rest);
            const Mask is_less = rest < gamma;
            gamma = SELECT(is_less, rest, gamma);
            twist = SELECT(is_less, (Vector){0} + i, twist);
            multiplier = left / KEEP_CLEAR(pivot);
            memcpy(to + (int64_t)i * WIDTH, &multiplier, sizeof multiplier);
        }
        memcpy(twists + h * LANES, &twist, sizeof twist);
        memcpy(gammas + h * LANES, &gamma, sizeof gamma);
    }
}

// z [n, WIDTH]: one at the twist, the rest from there by the multipliers, and its lengths.
HOT static void solve_twisted(double *z, double *lengths, const double *above, const double *under,
                              const double *twists, int n)
{
    for (int h = 0; h < 2; h++) {
        Vector twist, value = {0}, multiplier, square = {0};
        const double *factors = above + h * LANES;
        double *to = z + h * LANES;
        memcpy(&twist, twists + h * LANES, sizeof twist);
        for (int i = n - 1; i >= 0; i--) {
            memcpy(&multiplier, factors + (int64_t)i * WIDTH, sizeof multiplier);
            value = SELECT(twist == i, (Vector){0} + 1, -multiplier * value);
            memcpy(to + (int64_t)i * WIDTH, &value, sizeof value);
        }
        value -= value;
        factors = under + h * LANES;
        for (int i = 0; i < n; i++) {
            Vector upper;
            memcpy(&multiplier, factors + (int64_t)i * WIDTH, sizeof multiplier);
            memcpy(&upper, to + (int64_t)i * WIDTH, sizeof upper);
            value = SELECT(twist < i, -multiplier * value, upper);
            square += value * value;
            memcpy(to + (int64_t)i * WIDTH, &value, sizeof value);
        }
        for (int l = 0; l < LANES; l++)
            lengths[h * LANES + l] = sqrt(square[l]);
    }
}

// Columns of `vectors` [n, ld], the first WIDTH of them or fewer. False: a residual is not small.
static bool find_vectors(float *vectors, const double *values, const Tridiagonal *t, int ld,
                         int count, double *scratch)
{
    double twists[WIDTH], gammas[WIDTH], lengths[WIDTH];
    const int64_t size = (int64_t)t->n * WIDTH;
    double *above = scratch, *under = above + size, *z = under + size;
    memset(above + size - WIDTH, 0, WIDTH * sizeof *above); // nothing lies below the last row
    factor_twisted(above, under, twists, gammas, values, t);
    solve_twisted(z, lengths, above, under, twists, t->n);
    for (int l = 0; l < count; l++)
        if (!(gammas[l] <= MOST_RESIDUAL * lengths[l]) || isinf(lengths[l]))
            return false;
    for (int64_t i = 0; i < t->n; i++)
        for (int l = 0; l < count; l++)
            vectors[i * ld + l] = rounded(z[i * WIDTH + l] / lengths[l]);
    return true;
}

// ---- both --------------------------------------------------------------------------------------

// Scales the matrix by a power of two; returns its exponent.
static int normalize(double *diagonal, double *below, double *squares, int n)
{
    double norm = 0;
    int exponent;
    below[n - 1] = 0;
    for (int i = 0; i < n; i++)
        norm = fmax(norm, fabs(diagonal[i]) + fabs(below[i]) + (i > 0 ? fabs(below[i - 1]) : 0));
    frexp(norm, &exponent);
    for (int i = 0; i < n; i++) {
        diagonal[i] = ldexp(diagonal[i], -exponent);
        below[i] = ldexp(below[i], -exponent);
        squares[i] = i > 0 ? fmax(below[i - 1] * below[i - 1], LEAST_SQUARE) : 0;
    }
    return exponent;
}

// False: eigenvalues are too close, or a vector is not good.
static bool find_apart(float *vectors, int ld, double *values, const Tridiagonal *t, int k,
                       const TridiagonalRoom *room)
{
    const int n_groups = ceil_div(k, WIDTH);
    bool is_good = true;
#pragma omp parallel for schedule(dynamic) num_threads(room->n_threads)
    for (int group = 0; group < n_groups; group++) {
        const int first = group * WIDTH;
        double found[WIDTH];
        bisect(found, t, t->n - k + first);
        memcpy(values + first, found, (size_t)min_int(WIDTH, k - first) * sizeof *found);
    }
    for (int i = 1; i < k; i++)
        if (!(values[i] - values[i - 1] >= LEAST_GAP))
            return false;
#pragma omp parallel for schedule(dynamic) num_threads(room->n_threads) reduction(&& : is_good)
    for (int group = 0; group < n_groups; group++) {
        const int first = group * WIDTH, count = min_int(WIDTH, k - first);
        double lanes[WIDTH];
        for (int l = 0; l < WIDTH; l++)
            lanes[l] = values[first + min_int(l, count - 1)];
        is_good =
            find_vectors(vectors + first, lanes, t, ld, count,
                         room->scratch + (int64_t)omp_get_thread_num() * N_ARRAYS * WIDTH * t->n) &&
            is_good;
    }
    return is_good;
}

static Status find_by_lapack(float *vectors, int ld, double *values, double *diagonal,
                             double *below, int n, int k, TridiagonalRoom *room)
{
    lapack_int found = 0, *support = room->iwork + 10 * (int64_t)n;
    lapack_logical is_tried = 1;
    double *z = room->scratch;
    lapack_int info = LAPACKE_dstemr_work(LAPACK_COL_MAJOR, 'V', 'I', n, diagonal, below, 0, 0,
                                          n - k + 1, n, &found, values, z, n, k, support, &is_tried,
                                          room->work, 18 * n, room->iwork, 10 * n);
    CHECK(info >= 0, "dstemr: argument %d", -(int)info);
    if (info > 0 || found != k)
        return fail(FAILED, "the eigenvectors of a %d x %d matrix did not converge (dstemr: %d)", n,
                    n, (int)info);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++)
            vectors[i * ld + j] = rounded(z[j * n + i]);
    return OK;
}

Status tridiagonal_largest(float *vectors, int ld, double *values, double *diagonal, double *below,
                           int n, int k, TridiagonalRoom *room)
{
    const int exponent = normalize(diagonal, below, room->squares, n);
    const Tridiagonal t = {diagonal, below, room->squares, n};
    if (!find_apart(vectors, ld, values, &t, k, room))
        TRY(find_by_lapack(vectors, ld, values, diagonal, below, n, k, room));
    for (int i = 0; i < k; i++)
        values[i] = ldexp(values[i], exponent);
    for (int64_t i = 0; i < n; i++)
        memset(vectors + i * ld + k, 0, (size_t)(ld - k) * sizeof *vectors);
    return OK;
}
