// Reduction to a tridiagonal matrix in two stages. LAPACK's way in one stage reads what is left of
// the matrix once per column, so that it runs at the speed of memory; going first to a band of
// width BAND is matrix products, and the band fits the second cache. The price is a second
// transformation of the vectors back, which is matrix products again since reflectors of
// neighbouring sweeps are applied together (Bischof, Lang, Sun: SBR, ACM TOMS 26, 2000).
//
//     A = Q1 B Q1^T,  B = Q2 T Q2^T,  T z = lambda z,  vector = Q1 Q2 z
//
// Sweep s makes column s of the band tridiagonal by a reflector on rows s + 1 .. s + BAND and
// chases the bulge down with further ones, each BAND rows below the last: `hop` counts them.
#include "model/eigen.h"

#include "base/simd.h"
#include "base/whole.h"
#include "model/gemm.h"
#include "model/tile.h"

#include <omp.h>
#include <string.h>

enum {
    BAND = 64,           // 128 is no faster to reach and twice the work to chase
    LD = 2 * BAND,       // of the band's columns: the band and the bulge below it
    GROUP = 32,          // sweeps applied together
    SLAB = BAND + GROUP, // rows they touch
};

// LAPACK 3.7 and later, not in LAPACKE: dense to band.
void LAPACK_GLOBAL(ssytrd_sy2sb, SSYTRD_SY2SB)(const char *uplo, const lapack_int *n,
                                               const lapack_int *kd, float *a,
                                               const lapack_int *lda, float *ab,
                                               const lapack_int *ldab, float *tau, float *work,
                                               const lapack_int *lwork, lapack_int *info);

static int n_hops(int n)
{
    return (n + BAND - 1) / BAND;
}

// Reflectors of hops before `hop`: hop h has one for each sweep that gets there.
static int64_t first_chaser(int n, int hop)
{
    return (int64_t)hop * n - (int64_t)BAND * hop * (hop - 1) / 2;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// The upper triangle by rows is LAPACK's lower one by columns. n_work < 0: returns what it must be.
static int64_t to_band(float *matrix, int n, EigenRoom *room, lapack_int n_work)
{
    const lapack_int size = n, width = BAND, ld = BAND + 1;
    lapack_int info;
    float wanted = 0;
    LAPACK_GLOBAL(ssytrd_sy2sb, SSYTRD_SY2SB)
    ("L", &size, &width, matrix, &size, room->band, &ld, room->panel_tau,
     n_work < 0 ? &wanted : room->work, &n_work, &info);
    CHECK(info == 0, "ssytrd_sy2sb: argument %d", -(int)info);
    return (int64_t)wanted;
}

void eigen_place(EigenRoom *room, Arena *arena, int n, int k)
{
    const int hops = n_hops(n);
    const int64_t n_chasers = first_chaser(n, hops);
    room->band = arena_floats(arena, (int64_t)n * LD);
    room->panel_tau = arena_floats(arena, n);
    room->chasers = arena_floats(arena, n_chasers * BAND);
    room->chaser_tau = arena_floats(arena, n_chasers);
    room->diagonal = arena_place(arena, n, sizeof(double));
    room->below = arena_place(arena, n, sizeof(double));
    room->values = arena_place(arena, n, sizeof(double));
    tridiagonal_place(&room->tridiagonal, arena, n, k);
    room->block = arena_floats(arena, hops * (int64_t)2 * GROUP * SLAB);
    EigenRoom query = {0};
    room->n_work = most(to_band(NULL, n, &query, -1), (int64_t)2 * BAND * tile_padded(k));
    room->work = arena_floats(arena, room->n_work);
}

// ---- band to tridiagonal -----------------------------------------------------------------------

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

// The reflector of a sweep at a hop, and its tau.
static float *chaser(const EigenRoom *room, int n, int sweep, int hop, float **tau)
{
    const int64_t index = first_chaser(n, hop) + sweep;
    *tau = room->chaser_tau + index;
    return room->chasers + index * BAND;
}

// Element (row, column) of the lower triangle; rows go on from there, columns LD - 1 apart.
static float *element(const EigenRoom *room, int row, int column)
{
    return room->band + (int64_t)column * LD + (row - column);
}

static void sweep_column(EigenRoom *room, int n, int sweep)
{
    float *tau, w[BAND];
    int first = sweep + 1, length = n - first < BAND ? n - first : BAND;
    float *v = chaser(room, n, sweep, 0, &tau);
    *tau = reflect(v, element(room, first, sweep), length);
    for (int hop = 1;; hop++) {
        reflect_diagonal(element(room, first, first), v, *tau, length);
        const int below = first + length, n_rows = n - below < BAND ? n - below : BAND;
        if (n_rows == 0)
            return;
        float *e = element(room, below, first), *next_tau;
        float *next = chaser(room, n, sweep, hop, &next_tau);
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

static void to_tridiagonal(EigenRoom *room, int n)
{
    widen_band(room->band, n);
    memset(room->chasers, 0, (size_t)first_chaser(n, n_hops(n)) * BAND * sizeof(float));
    memset(room->chaser_tau, 0, (size_t)first_chaser(n, n_hops(n)) * sizeof(float));
    for (int sweep = 0; sweep < n - 1; sweep++)
        sweep_column(room, n, sweep);
    for (int j = 0; j < n; j++) {
        room->diagonal[j] = room->band[(int64_t)j * LD];
        room->below[j] = room->band[(int64_t)j * LD + 1];
    }
}

// ---- back --------------------------------------------------------------------------------------

// The triangle T of H_1 H_2 ... H_count = I - V T V^T, negative, zero below its diagonal. v of
// reflector i starts with zeros and a one at row i.
static void make_triangle(float *triangle, const float *v, int ld, const float *tau, int n_rows,
                          int count)
{
    // By columns, so that by rows it is the transpose.
    LAPACKE_slarft_work(LAPACK_COL_MAJOR, 'F', 'C', n_rows, count, v, ld, tau, triangle, count);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++)
            triangle[i * count + j] = i >= j ? -triangle[i * count + j] : 0;
}

// A group of sweeps at a hop: V^T, then -(V T)^T, each [GROUP, SLAB].
static float *slab(const EigenRoom *room, int hop)
{
    return room->block + (int64_t)hop * 2 * GROUP * SLAB;
}

static int slab_rows(int n, int start, int hop)
{
    return whole_min(n - (start + 1 + hop * BAND), SLAB - 1);
}

static void make_slab(const EigenRoom *room, int n, int start, int hop)
{
    float *v = slab(room, hop), *tau, *group_tau, triangle[GROUP * GROUP];
    const int n_rows = slab_rows(n, start, hop), count = whole_min(n_rows, GROUP);
    chaser(room, n, start, hop, &group_tau);
    memset(v, 0, GROUP * SLAB * sizeof *v);
    for (int i = 0; i < count; i++)
        memcpy(v + (int64_t)i * SLAB + i, chaser(room, n, start + i, hop, &tau),
               (size_t)whole_min(n_rows - i, BAND) * sizeof *v);
    make_triangle(triangle, v, SLAB, group_tau, n_rows, count);
    tile_multiply(v + GROUP * SLAB, SLAB, triangle, count, v, SLAB, count, n_rows, count, false);
}

// Columns [first, first + width) of the vectors, for a group of sweeps.
static void apply_slabs(float *vectors, int ld, int first, int width, int n, int start,
                        const EigenRoom *room)
{
    float *products = room->work + (int64_t)first * GROUP;
    for (int hop = 0; start + 1 + hop * BAND < n; hop++) {
        const float *v = slab(room, hop);
        const int n_rows = slab_rows(n, start, hop), count = whole_min(n_rows, GROUP);
        float *rows = vectors + (int64_t)(start + 1 + hop * BAND) * ld + first;
        tile_multiply(products, width, v, SLAB, rows, ld, count, width, n_rows, false);
        tile_multiply_transposed(rows, ld, v + GROUP * SLAB, SLAB, products, width, n_rows, width,
                                 count, true);
    }
}

// Q2: a sweep's reflectors overlap with those of the sweep before at the same hop and the next, so
// that groups of sweeps go from the last to the first, hops upwards within. A range of columns for
// each thread.
static void from_tridiagonal(float *vectors, int n, int ld, EigenRoom *room)
{
    const int n_threads = room->tridiagonal.n_threads;
    const int range = whole_round_up(whole_divide_up(ld, n_threads), TILE_WIDTH);
#pragma omp parallel num_threads(n_threads)
    for (int start = (n - 2) / GROUP * GROUP; start >= 0; start -= GROUP) {
#pragma omp for schedule(dynamic)
        for (int hop = 0; hop < whole_divide_up(n - 1 - start, BAND); hop++)
            make_slab(room, n, start, hop);
#pragma omp for schedule(static)
        for (int first = 0; first < ld; first += range)
            apply_slabs(vectors, ld, first, whole_min(range, ld - first), n, start, room);
    }
}

// Q1: panels of BAND columns, whose reflectors lie below the band.
static void from_band(float *vectors, const float *matrix, int n, int ld, EigenRoom *room)
{
    float *triangle = room->block, *products = room->work, *scaled = products + (int64_t)BAND * ld;
    for (int j = (n - BAND - 1) / BAND * BAND; j >= 0; j -= BAND) {
        const int first = j + BAND, n_rows = n - first, count = whole_min(n_rows, BAND);
        const float *v = matrix + first + (int64_t)j * n;
        float *rows = vectors + (int64_t)first * ld;
        make_triangle(triangle, v, n, room->panel_tau + j, n_rows, count);
        gemm(products, ld, gemm_matrix(v, n), gemm_matrix(rows, ld), count, ld, n_rows, false);
        gemm(scaled, ld, gemm_transposed(triangle, count), gemm_matrix(products, ld), count, ld,
             count, false);
        gemm(rows, ld, gemm_transposed(v, n), gemm_matrix(scaled, ld), n_rows, ld, count, true);
    }
}

Status eigen_largest(float *vectors, float *matrix, int n, int k, EigenRoom *room)
{
    const int ld = tile_padded(k);
    CHECK(n >= EIGEN_LEAST && k >= 1 && k <= n, "%d of %d eigenvectors", k, n);
    to_band(matrix, n, room, (lapack_int)room->n_work);
    to_tridiagonal(room, n);
    // In double: in single precision LAPACK's vectors are off by n epsilons.
    TRY(tridiagonal_largest(vectors, ld, room->values, room->diagonal, room->below, n, k,
                            &room->tridiagonal));
    from_tridiagonal(vectors, n, ld, room);
    from_band(vectors, matrix, n, ld, room);
    return OK;
}
