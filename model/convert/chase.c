// Sweep s makes column s of the band tridiagonal by a reflector on rows s + 1 .. s + BAND and
// chases the bulge down with further ones, each BAND rows below the last: `hop` counts them.
#include "model/convert/chase.h"

#include "base/intmath.h"
#include "base/simd.h"

#include <lapacke.h>
#include <string.h>

enum {
    BAND = CHASE_BAND,
    LD = 2 * BAND, // of the band's columns: the band and the bulge below it
};

// Reflectors of hops before `hop`: hop h has one for each sweep that gets there.
static int64_t first_reflector(int n, int hop)
{
    return (int64_t)hop * n - (int64_t)BAND * hop * (hop - 1) / 2;
}

void chase_place(Chase *x, Arena *arena, int n)
{
    const int64_t n_reflectors = first_reflector(n, ceil_div(n, BAND));
    x->n = n;
    x->band = arena_floats(arena, (int64_t)n * LD);
    x->reflectors = arena_floats(arena, n_reflectors * BAND);
    x->taus = arena_floats(arena, n_reflectors);
}

// The reflector I - tau v v^T, v[0] = 1, that leaves x[0] = beta alone of x. The others are zeroed.
static float reflect(float *restrict v, float *restrict x, int n)
{
    float tau;
    LAPACKE_slarfg_work(n, x, x + 1, 1, &tau);
    v[0] = 1;
    for (int i = 1; i < n; i++) {
        v[i] = x[i];
        x[i] = 0;
    }
    return tau;
}

// Nearly all blocks are BAND wide: their columns stay in registers, in PARTS vectors.
typedef float Vector __attribute__((vector_size(64), aligned(4), may_alias));
typedef float Half __attribute__((vector_size(32)));
typedef float Quarter __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(64)));
enum { LANES = 16, PARTS = BAND / LANES };
#define INLINE         __attribute__((always_inline)) static inline
#define UNROLLED(loop) _Pragma("GCC unroll 4") loop

INLINE float total(const Vector *x)
{
    const Half half = __builtin_shufflevector(*x, *x, 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(*x, *x, 8, 9, 10, 11, 12, 13, 14, 15);
    const Quarter quarter = __builtin_shufflevector(half, half, 0, 1, 2, 3) +
                            __builtin_shufflevector(half, half, 4, 5, 6, 7);
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

// p += D v for a symmetric block of n rows whose lower triangle starts at d, columns LD - 1 apart.
INLINE void multiply_narrow_diagonal(float *restrict p, const float *restrict d,
                                     const float *restrict v, int n)
{
    for (int c = 0; c < n; c++) {
        const float *column = d + (int64_t)c * (LD - 1);
        const float vc = v[c];
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = c + 1; i < n; i++) {
            p[i] += column[i] * vc;
            sum += column[i] * v[i];
        }
        p[c] += column[c] * vc + sum;
    }
}

// D -= v p^T + p v^T.
INLINE void update_narrow_diagonal(float *restrict d, const float *restrict v,
                                   const float *restrict p, int n)
{
    for (int c = 0; c < n; c++) {
        float *column = d + (int64_t)c * (LD - 1);
        const float vc = v[c], pc = p[c];
#pragma omp simd
        for (int i = c; i < n; i++)
            column[i] -= v[i] * pc + p[i] * vc;
    }
}

// p = D v for a block of BAND rows. Above the diagonal of a column lies the end of another,
// which is masked.
INLINE void multiply_diagonal(float *p, const float *d, const float *v)
{
    const Mask lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Vector sums[PARTS] = {{0}}, right[PARTS];
    float dots[BAND];
    memcpy(right, v, sizeof right);
    UNROLLED(for (int part = 0; part < PARTS; part++))
    for (int l = 0; l < LANES; l++) {
        const int c = part * LANES + l;
        const float *column = d + (int64_t)c * (LD - 1), vc = v[c];
        Vector x = *(const Vector *)(column + part * LANES);
        sums[part] += (Vector)((Mask)x & (lane >= l)) * vc;
        Vector dot = (Vector)((Mask)x & (lane > l)) * right[part];
        UNROLLED(for (int h = part + 1; h < PARTS; h++))
        {
            x = *(const Vector *)(column + h * LANES);
            sums[h] += x * vc;
            dot += x * right[h];
        }
        dots[c] = total(&dot);
    }
    memcpy(p, sums, sizeof sums);
    for (int i = 0; i < BAND; i++)
        p[i] += dots[i];
}

INLINE void update_diagonal(float *d, const float *v, const float *p)
{
    const Mask lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Vector vs[PARTS], ps[PARTS];
    memcpy(vs, v, sizeof vs);
    memcpy(ps, p, sizeof ps);
    UNROLLED(for (int part = 0; part < PARTS; part++))
    for (int l = 0; l < LANES; l++) {
        const int c = part * LANES + l;
        float *column = d + (int64_t)c * (LD - 1);
        const float vc = v[c], pc = p[c];
        Vector *x = (Vector *)(column + part * LANES);
        const Vector change = vs[part] * pc + ps[part] * vc;
        *x -= (Vector)((Mask)change & (lane >= l));
        UNROLLED(for (int h = part + 1; h < PARTS; h++))
        *(Vector *)(column + h * LANES) -= vs[h] * pc + ps[h] * vc;
    }
}

// D = H D H for a symmetric block of n rows.
HOT static void reflect_diagonal(float *d, const float *v, float tau, int n)
{
    float p[BAND] = {0}, dot = 0;
    if (n == BAND)
        multiply_diagonal(p, d, v);
    else
        multiply_narrow_diagonal(p, d, v, n);
#pragma omp simd reduction(+ : dot)
    for (int i = 0; i < n; i++)
        dot += p[i] * v[i];
    for (int i = 0; i < n; i++)
        p[i] = tau * (p[i] - 0.5f * tau * dot * v[i]);
    if (n == BAND)
        update_diagonal(d, v, p);
    else
        update_narrow_diagonal(d, v, p, n);
}

// w = E v for the block of n_rows x n below a diagonal one.
HOT static void multiply_block(float *restrict w, const float *restrict e, const float *restrict v,
                               int n_rows, int n)
{
    for (int i = 0; i < n_rows; i++)
        w[i] = 0;
    for (int c = 0; c < n; c++) {
        const float *column = e + (int64_t)c * (LD - 1);
        const float vc = v[c];
#pragma omp simd
        for (int i = 0; i < n_rows; i++)
            w[i] += column[i] * vc;
    }
}

INLINE void reflect_narrow_block(float *restrict e, const float *restrict w,
                                 const float *restrict v, float tau, const float *restrict next,
                                 float next_tau, int n_rows, int n)
{
    for (int c = 1; c < n; c++) {
        float *column = e + (int64_t)c * (LD - 1);
        const float vc = tau * v[c];
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < n_rows; i++) {
            column[i] -= vc * w[i];
            sum += column[i] * next[i];
        }
        sum *= next_tau;
#pragma omp simd
        for (int i = 0; i < n_rows; i++)
            column[i] -= sum * next[i];
    }
}

// Columns 1 .. n - 1 of E = H_next (E - tau w v^T).
HOT static void reflect_block(float *e, const float *w, const float *v, float tau,
                              const float *next, float next_tau, int n_rows, int n)
{
    if (n_rows < BAND) {
        reflect_narrow_block(e, w, v, tau, next, next_tau, n_rows, n);
        return;
    }
    Vector ws[PARTS], nexts[PARTS];
    memcpy(ws, w, sizeof ws);
    memcpy(nexts, next, sizeof nexts);
    for (int c = 1; c < n; c++) {
        Vector *column = (Vector *)(e + (int64_t)c * (LD - 1)), x[PARTS], dot = {0};
        const float vc = tau * v[c];
        UNROLLED(for (int h = 0; h < PARTS; h++))
        {
            x[h] = column[h] - ws[h] * vc;
            dot += x[h] * nexts[h];
        }
        const float scale = next_tau * total(&dot);
        UNROLLED(for (int h = 0; h < PARTS; h++))
        column[h] = x[h] - nexts[h] * scale;
    }
}

float *chase_reflector(const Chase *x, int sweep, int hop, float **tau)
{
    const int64_t index = first_reflector(x->n, hop) + sweep;
    *tau = x->taus + index;
    return x->reflectors + index * BAND;
}

// Element (row, column) of the lower triangle; rows go on from there, columns LD - 1 apart.
static float *element(const Chase *x, int row, int column)
{
    return x->band + (int64_t)column * LD + (row - column);
}

static void sweep_column(const Chase *x, int sweep)
{
    const int n = x->n;
    float *tau, w[BAND];
    int first = sweep + 1, length = n - first < BAND ? n - first : BAND;
    float *v = chase_reflector(x, sweep, 0, &tau);
    *tau = reflect(v, element(x, first, sweep), length);
    for (int hop = 1;; hop++) {
        reflect_diagonal(element(x, first, first), v, *tau, length);
        const int below = first + length, n_rows = n - below < BAND ? n - below : BAND;
        if (n_rows == 0)
            return;
        float *e = element(x, below, first), *next_tau;
        float *next = chase_reflector(x, sweep, hop, &next_tau);
        multiply_block(w, e, v, n_rows, length);
        for (int i = 0; i < n_rows; i++)
            e[i] -= *tau * w[i];
        *next_tau = reflect(next, e, n_rows);
        reflect_block(e, w, v, *tau, next, *next_tau, n_rows, length);
        v = next;
        tau = next_tau;
        first = below;
        length = n_rows;
    }
}

// From LAPACK's storage, columns BAND + 1 apart, to ours with zeros for the bulge: backwards, as
// columns move up.
static void widen_band(float *band, int n)
{
    for (int j = n - 1; j >= 0; j--) {
        float *to = band + (int64_t)j * LD;
        const int rows = n - j < BAND + 1 ? n - j : BAND + 1; // below the matrix is no number
        memmove(to, band + (int64_t)j * (BAND + 1), (size_t)rows * sizeof *band);
        memset(to + rows, 0, (size_t)(LD - rows) * sizeof *band);
    }
}

void chase_band(Chase *x, double *diagonal, double *below)
{
    const int n = x->n;
    const size_t n_reflectors = (size_t)first_reflector(n, ceil_div(n, BAND));
    widen_band(x->band, n);
    memset(x->reflectors, 0, n_reflectors * BAND * sizeof *x->reflectors);
    memset(x->taus, 0, n_reflectors * sizeof *x->taus);
    for (int sweep = 0; sweep < n - 1; sweep++)
        sweep_column(x, sweep);
    for (int j = 0; j < n; j++) {
        diagonal[j] = x->band[(int64_t)j * LD];
        below[j] = x->band[(int64_t)j * LD + 1];
    }
}
