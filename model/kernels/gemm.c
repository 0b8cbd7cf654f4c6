// c is cut into items, blocks of columns times chunks of rows, that threads take as they come. An
// item goes through k in blocks: it packs the block of b, slivers of a register block's width that
// together fill half of the second cache, and runs rows of a past it, which lie in the first cache
// meanwhile (Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008, with
// the roles of a and b exchanged). a is read where it lies if its rows run along k; a transposed a
// is packed by chunks.
#include "model/kernels/gemm.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "base/status.h"
#include "model/kernels/tile.h"

#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    DIRECT_K = 768,         // the most of a block where a is read as it lies
    PACKED_K = 384,         // and where it is packed: once for more columns
    MOST_B = 200 << 10,     // floats of a packed block of b
    CHUNK_ROWS = 96,        // whole cache lines of a transposed a
    BUFFER_BYTES = 1 << 20, // of a thread
    HUGE_PAGE = 2 << 20,
};

typedef struct Buffer {
    _Alignas(64) float b[MOST_B];
    float a[CHUNK_ROWS * (PACKED_K + 8)];
    float edge[CHUNK_ROWS * 64]; // columns that are no whole vectors
} Buffer;

_Static_assert(sizeof(Buffer) <= BUFFER_BYTES, "a thread's buffer");

// What all items of a product share.
typedef struct Plan {
    float *c;
    int ldc;
    GemmMatrix a, b;
    int m, n, k;
    bool add;
    const TileKernel *kernel;
    int width, height;    // of the blocks: columns of a sliver of b, rows of a sliver of a
    int k_block, columns; // of b at once
    int item_rows, item_columns, n_row_items, n_items;
} Plan;

// A block of b and what streams past it share the second cache.
static int packed_b_floats(void)
{
    const long cache_bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    const long floats = (cache_bytes > 0 ? cache_bytes : 1 << 19) / 3 * 2 / (long)sizeof(float);
    return (int)(floats < MOST_B ? floats : MOST_B);
}

// k_block alone decides the sums' order; it must depend on nothing but k.
static void cut(Plan *x, int n_threads)
{
    const int lanes = x->kernel->lanes;
    x->width = min_int(round_up(x->n, lanes), x->kernel->columns);
    if (x->a.column_step != 1 && x->n > x->kernel->columns && x->kernel->heights[3] > 0)
        x->width = 3 * lanes; // 8 rows are packed faster than 6
    x->height = x->kernel->heights[x->width / lanes];
    const int width = x->width;
    const int most_k = x->a.column_step == 1 ? DIRECT_K : PACKED_K;
    x->k_block = round_up(ceil_div(x->k, ceil_div(x->k, most_k)), 4);
    int most = packed_b_floats() / x->k_block / width * width;
    most = most < width ? width : most;
    // Several threads: items of the same size, rather than of whole slivers.
    const int grain = n_threads > 1 && x->a.column_step == 1 ? lanes : width;
    x->columns = round_up(ceil_div(x->n, ceil_div(x->n, most)), grain);
    x->item_columns = n_threads == 1 ? x->n : x->columns;
    const int n_column_items = ceil_div(x->n, x->item_columns);
    int n_wanted = 1; // of rows: every one packs b anew, so as few as give all threads the same
    while (n_column_items * n_wanted % n_threads != 0)
        n_wanted++;
    x->item_rows = round_up(ceil_div(x->m, n_wanted), x->height);
    x->n_row_items = ceil_div(x->m, x->item_rows);
    x->n_items = n_column_items * x->n_row_items;
}

typedef float Vector8 __attribute__((vector_size(32), aligned(4), may_alias));

// to[p * width + i] = from[i * step + p] for an 8 x 8 block.
#define SHUFFLE __builtin_shufflevector
__attribute__((always_inline)) static inline void transpose8(float *restrict to, int width,
                                                             const float *restrict from,
                                                             int64_t step)
{
    Vector8 r[8], t[8], u[8];
    for (int i = 0; i < 8; i++)
        r[i] = *(const Vector8 *)(from + i * step);
    for (int i = 0; i < 8; i += 2) {
        t[i] = SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = SHUFFLE(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            u[i + 2 * j + 1] = SHUFFLE(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        *(Vector8 *)(to + i * width) = SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(Vector8 *)(to + (i + 4) * width) = SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// Columns that lie one after the other -> a sliver [k, width], zeros beyond n.
HOT static void pack_columns(float *restrict to, const float *restrict from, int64_t step, int k,
                             int n, int width)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        int p = 0;
        for (; p + 8 <= k; p += 8)
            transpose8(to + i + (int64_t)p * width, width, from + i * step + p, step);
        for (; p < k; p++)
            for (int q = i; q < i + 8; q++)
                to[(int64_t)p * width + q] = from[q * step + p];
    }
    for (; i < width; i++)
        for (int p = 0; p < k; p++)
            to[(int64_t)p * width + i] = i < n ? from[i * step + p] : 0;
}

enum { AHEAD = 8 }; // rows of what is packed, too far apart for the machine to guess the next one

// Rows -> slivers of `width` that are to_step apart, a row after the other as they lie in memory;
// zeros beyond n, as far as `padded`.
HOT static void pack_rows(float *restrict to, int64_t to_step, const float *restrict from,
                          int64_t step, int k, int n, int padded, int width)
{
    for (int p = 0; p < k; p++, from += step) {
        float *row = to + (int64_t)p * width;
        int j = 0;
        for (int i = 0; i < n; i += 16)
            __builtin_prefetch(from + AHEAD * step + i);
        for (; j + width <= n; j += width, row += to_step)
            memcpy(row, from + j, (size_t)width * sizeof(float));
        if (j == n)
            continue;
        row -= (int64_t)p * (width - (padded - j)); // the last sliver is narrower
        memcpy(row, from + j, (size_t)(n - j) * sizeof(float));
        memset(row + n - j, 0, (size_t)(padded - n) * sizeof(float));
    }
}

// Rows [p0, p0 + k) and columns [j0, j0 + n) of b, as slivers of the kernel's width; the last one
// is only as wide as whole vectors need.
static void pack_b(float *to, const Plan *x, int p0, int k, int j0, int n)
{
    const int width = x->width, padded = round_up(n, x->kernel->lanes);
    const float *from = x->b.data + p0 * x->b.row_step + j0 * x->b.column_step;
    if (x->b.column_step == 1) {
        pack_rows(to, (int64_t)width * k, from, x->b.row_step, k, n, padded, width);
        return;
    }
    for (int j = 0; j < n; j += width)
        pack_columns(to + (int64_t)j * k, from + j * x->b.column_step, x->b.column_step, k,
                     min_int(width, n - j), min_int(width, padded - j));
}

// m floats of a row of a transposed a -> one row of each sliver.
__attribute__((always_inline)) static inline void pack_row(float *restrict to, int64_t step,
                                                           const float *restrict from, int m,
                                                           const int height)
{
    int i = 0;
    for (; i + height <= m; i += height, to += step)
        memcpy(to, from + i, (size_t)height * sizeof(float));
    for (int r = 0; i + r < m; r++)
        to[r] = from[i + r];
}

// Floats from one sliver of k rows to the next: not the same lines of the first cache.
static int64_t sliver_step(const Plan *x, int k)
{
    return (int64_t)k * x->height + 16;
}

// Rows [p0, p0 + k) of a transposed a and m of their columns, from i0, as slivers.
HOT static void pack_a(float *restrict to, const Plan *x, int p0, int k, int i0, int m)
{
    const int64_t step = x->a.column_step, to_step = sliver_step(x, k);
    const float *from = x->a.data + i0 + p0 * step;
    for (int p = 0; p < k; p++, from += step, to += x->height) {
        for (int i = 0; i < m; i += 16)
            __builtin_prefetch(from + AHEAD * step + i);
        if (x->height == 8) // a constant makes one move
            pack_row(to, to_step, from, m, 8);
        else if (x->height == 6)
            pack_row(to, to_step, from, m, 6);
        else
            pack_row(to, to_step, from, m, x->height);
    }
}

// A block whose last vector is not whole goes by way of `edge`.
static void edge_block(const Plan *x, TileOperands *block, float *edge, int rows, int columns)
{
    float *c = block->c;
    const bool add = block->add;
    block->c = edge;
    block->ldc = x->width;
    block->add = false;
    x->kernel->block(block, rows, round_up(columns, x->kernel->lanes));
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            float *to = &c[(int64_t)i * x->ldc + j];
            *to = (add ? *to : 0) + edge[i * x->width + j];
        }
    block->c = c;
    block->ldc = x->ldc;
    block->add = add;
}

// Rows of a against columns [j, end) of the packed block of b.
static void run_sliver(const Plan *x, TileOperands *block, Buffer *buffer, int rows, int j, int end)
{
    const int width = x->width;
    float *c = block->c;
    for (; j < end; j += width) {
        const int used = min_int(width, end - j);
        block->c = c + j;
        block->b = buffer->b + (int64_t)j * block->k;
        block->ldb = round_up(used, x->kernel->lanes);
        if (used == block->ldb)
            x->kernel->block(block, rows, used);
        else
            edge_block(x, block, buffer->edge, rows, used);
    }
    block->c = c;
}

// Rows [i0, i0 + m) of an item, for the packed rows [p0, p0 + k) of b. Where a is direct, columns
// narrower than a sliver take all rows at once, by blocks that are higher.
static void run_rows(const Plan *x, Buffer *buffer, int p0, int k, int i0, int m, int j0, int n)
{
    const bool is_direct = x->a.column_step == 1;
    const int height = x->height, wide = is_direct ? n / x->width * x->width : n;
    TileOperands block = {.ldc = x->ldc, .k = k, .add = x->add || p0 > 0};
    block.row_step = is_direct ? x->a.row_step : 1;
    block.k_step = is_direct ? 1 : height;
    if (!is_direct)
        pack_a(buffer->a, x, p0, k, i0, m);
    for (int i = 0; i < m && wide > 0; i += height) {
        block.a = is_direct ? x->a.data + (i0 + i) * x->a.row_step + p0
                            : buffer->a + i / height * sliver_step(x, k);
        block.c = x->c + (int64_t)(i0 + i) * x->ldc + j0;
        run_sliver(x, &block, buffer, min_int(height, m - i), 0, wide);
    }
    if (wide < n) {
        block.a = x->a.data + i0 * x->a.row_step + p0;
        block.c = x->c + (int64_t)i0 * x->ldc + j0;
        run_sliver(x, &block, buffer, m, wide, n);
    }
}

// All rows of an item past one block of b.
static void run_block(const Plan *x, Buffer *buffer, int p0, int j0, int n, int row, int end_row)
{
    const int k = min_int(x->k_block, x->k - p0);
    pack_b(buffer->b, x, p0, k, j0, n);
    for (int i0 = row; i0 < end_row; i0 += CHUNK_ROWS)
        run_rows(x, buffer, p0, k, i0, min_int(CHUNK_ROWS, end_row - i0), j0, n);
}

static void run_item(const Plan *x, Buffer *buffer, int item)
{
    const int row = item % x->n_row_items * x->item_rows,
              end_row = min_int(row + x->item_rows, x->m);
    const int column = item / x->n_row_items * x->item_columns,
              end_column = min_int(column + x->item_columns, x->n);
    for (int p0 = 0; p0 < x->k; p0 += x->k_block)
        for (int j0 = column; j0 < end_column; j0 += x->columns)
            run_block(x, buffer, p0, j0, min_int(x->columns, end_column - j0), row, end_row);
}

// On AVX2 OpenBLAS is a little faster (0.93 on the same machine, bench_gemm).
static bool is_ours(void)
{
    return tile_target() == TILE_AVX512;
}

int64_t gemm_buffer_bytes(int n_threads)
{
    if (!is_ours())
        return 0;
    const int64_t size_bytes = (int64_t)BUFFER_BYTES * n_threads;
    return (size_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

// The threads' buffers, BUFFER_BYTES apart.
static char *find_buffers(int n_threads)
{
    static char *buffers;
    static int n_placed;
    if (n_threads > n_placed) {
        const size_t size_bytes = (size_t)gemm_buffer_bytes(n_threads);
        free(buffers);
        buffers = aligned_alloc(HUGE_PAGE, size_bytes);
        CHECK(buffers != NULL, "no memory for products' buffers on %d threads", n_threads);
        madvise(buffers, size_bytes, MADV_HUGEPAGE);
        n_placed = n_threads;
    }
    return buffers;
}

// Rows [i0, i0 + m) and columns [j0, j0 + n) by OpenBLAS on this thread.
static void run_openblas(const Plan *x, int i0, int m, int j0, int n)
{
    const bool a_rows = x->a.column_step == 1, b_rows = x->b.column_step == 1;
    cblas_sgemm(CblasRowMajor, a_rows ? CblasNoTrans : CblasTrans,
                b_rows ? CblasNoTrans : CblasTrans, m, n, x->k, 1.0f,
                x->a.data + i0 * x->a.row_step, (int)(a_rows ? x->a.row_step : x->a.column_step),
                x->b.data + j0 * x->b.column_step, (int)(b_rows ? x->b.row_step : x->b.column_step),
                x->add ? 1.0f : 0.0f, x->c + (int64_t)i0 * x->ldc + j0, x->ldc);
}

// Each thread a range of the longer side: OpenBLAS's own threads share out small products badly. In
// a parallel region it starts none.
static void gemm_openblas(const Plan *x)
{
    const int n_threads = omp_get_max_threads(), side = x->m > x->n ? x->m : x->n;
    const int range = round_up(ceil_div(side, n_threads), 16);
#pragma omp parallel for schedule(static) if (n_threads > 1)
    for (int first = 0; first < side; first += range) {
        const int count = min_int(range, side - first);
        if (x->m > x->n)
            run_openblas(x, first, count, 0, x->n);
        else
            run_openblas(x, 0, x->m, first, count);
    }
}

static void gemm_kernel(const Plan *shared, const TileKernel *kernel)
{
    const int n_threads = omp_get_max_threads();
    Plan x = *shared;
    x.kernel = kernel;
    cut(&x, n_threads);
    char *buffers = find_buffers(n_threads);
#pragma omp parallel for schedule(dynamic) if (n_threads > 1)
    for (int item = 0; item < x.n_items; item++)
        run_item(&x, (Buffer *)(buffers + (int64_t)BUFFER_BYTES * omp_get_thread_num()), item);
}

void gemm(float *c, int ldc, GemmMatrix a, GemmMatrix b, int m, int n, int k, bool add)
{
    const Plan x = {c, ldc, a, b, m, n, k, add};
    if (is_ours())
        gemm_kernel(&x, tile_kernel(TILE_AVX512));
    else
        gemm_openblas(&x);
}

const char *gemm_kernel_name(void)
{
    return is_ours() ? tile_kernel(TILE_AVX512)->name : NULL;
}
