// Reduction to a tridiagonal matrix in two stages. LAPACK's way in one stage reads what is left of
// the matrix once per column, so that it runs at the speed of memory; going first to a band of
// width BAND is matrix products, and the band fits the second cache. The price is a second
// transformation of the vectors back, which is matrix products again since reflectors of
// neighbouring sweeps are applied together (Bischof, Lang, Sun: SBR, ACM TOMS 26, 2000).
//
//     A = Q1 B Q1^T,  B = Q2 T Q2^T,  T z = lambda z,  vector = Q1 Q2 z
#include "model/convert/eigen.h"

#include "base/intmath.h"
#include "model/kernels/gemm.h"
#include "model/kernels/tile.h"

#include <string.h>

enum {
    BAND = CHASE_BAND,
    GROUP = 32,          // sweeps applied together
    SLAB = BAND + GROUP, // rows they touch
    STRIP = 256,         // rows of the triangle that are one product
};

void eigen_place(EigenRoom *room, Arena *arena, int n, int k)
{
    chase_place(&room->chase, arena, n);
    room->panel_tau = arena_floats(arena, n);
    room->diagonal = arena_place(arena, n, sizeof(double));
    room->below = arena_place(arena, n, sizeof(double));
    room->values = arena_place(arena, n, sizeof(double));
    tridiagonal_place(&room->tridiagonal, arena, n, k);
    room->block = arena_floats(arena, max_int64(ceil_div(n, BAND) * (int64_t)2 * GROUP * SLAB,
                                                STRIP * STRIP + 3 * BAND * BAND));
    room->n_work = max_int64((int64_t)4 * BAND * n, (int64_t)2 * BAND * tile_padded(k));
    room->work = arena_floats(arena, room->n_work);
}

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

// ---- dense to band -----------------------------------------------------------------------------

// y [count, m] = v A for the symmetric A [m, m] whose upper triangle starts at a. Each strip of it
// stands for its mirror image too.
static void multiply_symmetric(float *y, const float *v, const float *a, int n, int count, int m,
                               float *square)
{
    memset(y, 0, (size_t)count * (size_t)m * sizeof *y);
    for (int first = 0; first < m; first += STRIP) {
        const int width = min_int(STRIP, m - first), after = first + width, rest = m - after;
        const float *diagonal = a + (int64_t)first * n + first, *strip = diagonal + width;
        for (int i = 0; i < width; i++)
            for (int j = i; j < width; j++)
                square[i * width + j] = square[j * width + i] = diagonal[(int64_t)i * n + j];
        gemm(y + first, m, gemm_matrix(v + first, n), gemm_matrix(square, width), count, width,
             width, true);
        if (rest == 0)
            return;
        gemm(y + after, m, gemm_matrix(v + first, n), gemm_matrix(strip, n), count, rest, width,
             true);
        gemm(y + first, m, gemm_matrix(v + after, n), gemm_transposed(strip, n), count, width, rest,
             true);
    }
}

// A := H^T A H for H = I - V T V^T: with X = A V T and W = X - V T^T V^T X / 2 it is
// A - V W^T - W V^T (Dongarra, Sorensen, Hammarling, 1989). v = V^T [count, m], a as above.
static void reflect_symmetric(float *a, const float *v, const float *tau, int n, int count, int m,
                              EigenRoom *room)
{
    float *left = room->work, *w = left + (int64_t)count * m;        // [2 count, m]: V^T, W^T
    float *right = w + (int64_t)count * m, *y = right;               // [2 count, m]: -W^T, -V^T
    float *square = room->block, *triangle = square + STRIP * STRIP; // [count, count]: -T^T
    float *small = triangle + BAND * BAND, *middle = small + BAND * BAND;
    make_triangle(triangle, v, n, tau, m, count);
    multiply_symmetric(y, v, a, n, count, m, square);
    gemm(w, m, gemm_matrix(triangle, count), gemm_matrix(y, m), count, m, count, false); // -X^T
    gemm(small, count, gemm_matrix(v, n), gemm_transposed(w, m), count, count, m, false);
    gemm(middle, count, gemm_matrix(triangle, count), gemm_matrix(small, count), count, count,
         count, false); // T^T V^T X with two minus signs, symmetric
    for (int i = 0; i < count * count; i++)
        middle[i] *= -0.5f;
    for (int64_t i = 0; i < (int64_t)count * m; i++)
        w[i] = -w[i];
    gemm(w, m, gemm_matrix(middle, count), gemm_matrix(v, n), count, m, count, true);
    for (int i = 0; i < count; i++)
        for (int64_t j = 0; j < m; j++) {
            left[i * (int64_t)m + j] = v[(int64_t)i * n + j];
            right[i * (int64_t)m + j] = -w[i * (int64_t)m + j];
            right[(count + i) * (int64_t)m + j] = -v[(int64_t)i * n + j];
        }
    for (int first = 0; first < m; first += STRIP)
        gemm(a + (int64_t)first * n + first, n, gemm_transposed(left + first, m),
             gemm_matrix(right + first, m), min_int(STRIP, m - first), m - first, 2 * count, true);
}

// Row j of the upper triangle is column j of the lower one.
static void keep_band(float *band, const float *matrix, int n, int first, int count)
{
    for (int j = first; j < first + count; j++)
        memcpy(band + (int64_t)j * (BAND + 1), matrix + (int64_t)j * n + j,
               (size_t)min_int(BAND + 1, n - j) * sizeof *band);
}

// Panels of BAND rows; what lies beyond the band in them becomes the reflectors V^T.
static void to_band(float *matrix, int n, EigenRoom *room)
{
    int j = 0;
    for (; j + BAND < n; j += BAND) {
        const int first = j + BAND, m = n - first, count = min_int(m, BAND);
        float *v = matrix + (int64_t)j * n + first, *tau = room->panel_tau + j;
        // By columns the panel is [m, BAND].
        const lapack_int info = LAPACKE_sgeqrf_work(LAPACK_COL_MAJOR, m, BAND, v, n, tau,
                                                    room->work, (lapack_int)room->n_work);
        CHECK(info == 0, "sgeqrf: argument %d", -(int)info);
        keep_band(room->chase.band, matrix, n, j, BAND);
        for (int i = 0; i < count; i++) {
            memset(v + (int64_t)i * n, 0, (size_t)i * sizeof *v);
            v[(int64_t)i * n + i] = 1;
        }
        reflect_symmetric(matrix + (int64_t)first * n + first, v, tau, n, count, m, room);
    }
    keep_band(room->chase.band, matrix, n, j, n - j);
}

// ---- back --------------------------------------------------------------------------------------

// A group of sweeps at a hop: V^T, then -(V T)^T, each [GROUP, SLAB].
static float *slab(const EigenRoom *room, int hop)
{
    return room->block + (int64_t)hop * 2 * GROUP * SLAB;
}

static int slab_rows(int n, int start, int hop)
{
    return min_int(n - (start + 1 + hop * BAND), SLAB - 1);
}

static void make_slab(const EigenRoom *room, int n, int start, int hop)
{
    float *v = slab(room, hop), *tau, *group_tau, triangle[GROUP * GROUP];
    const int n_rows = slab_rows(n, start, hop), count = min_int(n_rows, GROUP);
    chase_reflector(&room->chase, start, hop, &group_tau);
    memset(v, 0, GROUP * SLAB * sizeof *v);
    for (int i = 0; i < count; i++)
        memcpy(v + (int64_t)i * SLAB + i, chase_reflector(&room->chase, start + i, hop, &tau),
               (size_t)min_int(n_rows - i, BAND) * sizeof *v);
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
        const int n_rows = slab_rows(n, start, hop), count = min_int(n_rows, GROUP);
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
    const int range = round_up(ceil_div(ld, n_threads), TILE_WIDTH);
#pragma omp parallel num_threads(n_threads)
    for (int start = (n - 2) / GROUP * GROUP; start >= 0; start -= GROUP) {
#pragma omp for schedule(dynamic)
        for (int hop = 0; hop < ceil_div(n - 1 - start, BAND); hop++)
            make_slab(room, n, start, hop);
#pragma omp for schedule(static)
        for (int first = 0; first < ld; first += range)
            apply_slabs(vectors, ld, first, min_int(range, ld - first), n, start, room);
    }
}

// Q1: panels of BAND columns, whose reflectors lie below the band.
static void from_band(float *vectors, const float *matrix, int n, int ld, EigenRoom *room)
{
    float *triangle = room->block, *products = room->work, *scaled = products + (int64_t)BAND * ld;
    for (int j = (n - BAND - 1) / BAND * BAND; j >= 0; j -= BAND) {
        const int first = j + BAND, n_rows = n - first, count = min_int(n_rows, BAND);
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
    to_band(matrix, n, room);
    chase_band(&room->chase, room->diagonal, room->below);
    // In double: in single precision LAPACK's vectors are off by n epsilons.
    TRY(tridiagonal_largest(vectors, ld, room->values, room->diagonal, room->below, n, k,
                            &room->tridiagonal));
    from_tridiagonal(vectors, n, ld, room);
    from_band(vectors, matrix, n, ld, room);
    return OK;
}
