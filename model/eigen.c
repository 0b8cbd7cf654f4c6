// Reduction to a tridiagonal matrix in two stages. LAPACK's way in one stage reads what is left of
// the matrix once per column, so that it runs at the speed of memory; going first to a band of
// width BAND is matrix products, and the band fits the second cache. The price is a second
// transformation of the vectors back, which is matrix products again since reflectors of
// neighbouring sweeps are applied together (Bischof, Lang, Sun: SBR, ACM TOMS 26, 2000).
//
//     A = Q1 B Q1^T,  B = Q2 T Q2^T,  T z = lambda z,  vector = Q1 Q2 z
#include "model/eigen.h"

#include "base/whole.h"
#include "model/gemm.h"
#include "model/tile.h"

#include <omp.h>
#include <string.h>

enum {
    BAND = CHASE_BAND,
    GROUP = 32,          // sweeps applied together
    SLAB = BAND + GROUP, // rows they touch
};

// LAPACK 3.7 and later, not in LAPACKE: dense to band.
void LAPACK_GLOBAL(ssytrd_sy2sb, SSYTRD_SY2SB)(const char *uplo, const lapack_int *n,
                                               const lapack_int *kd, float *a,
                                               const lapack_int *lda, float *ab,
                                               const lapack_int *ldab, float *tau, float *work,
                                               const lapack_int *lwork, lapack_int *info);

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
    ("L", &size, &width, matrix, &size, room->chase.band, &ld, room->panel_tau,
     n_work < 0 ? &wanted : room->work, &n_work, &info);
    CHECK(info == 0, "ssytrd_sy2sb: argument %d", -(int)info);
    return (int64_t)wanted;
}

void eigen_place(EigenRoom *room, Arena *arena, int n, int k)
{
    chase_place(&room->chase, arena, n);
    room->panel_tau = arena_floats(arena, n);
    room->diagonal = arena_place(arena, n, sizeof(double));
    room->below = arena_place(arena, n, sizeof(double));
    room->values = arena_place(arena, n, sizeof(double));
    tridiagonal_place(&room->tridiagonal, arena, n, k);
    room->block = arena_floats(arena, (int64_t)whole_divide_up(n, BAND) * 2 * GROUP * SLAB);
    EigenRoom query = {0};
    room->n_work = most(to_band(NULL, n, &query, -1), (int64_t)2 * BAND * tile_padded(k));
    room->work = arena_floats(arena, room->n_work);
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
    chase_reflector(&room->chase, start, hop, &group_tau);
    memset(v, 0, GROUP * SLAB * sizeof *v);
    for (int i = 0; i < count; i++)
        memcpy(v + (int64_t)i * SLAB + i, chase_reflector(&room->chase, start + i, hop, &tau),
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
    chase_band(&room->chase, room->diagonal, room->below);
    // In double: in single precision LAPACK's vectors are off by n epsilons.
    TRY(tridiagonal_largest(vectors, ld, room->values, room->diagonal, room->below, n, k,
                            &room->tridiagonal));
    from_tridiagonal(vectors, n, ld, room);
    from_band(vectors, matrix, n, ld, room);
    return OK;
}
