// c is cut into items, blocks of columns times chunks of rows, that threads take as they come. An
// item goes through k in blocks: it packs the block of b into slivers as wide as a register block,
// which together fill two thirds of the second cache, and multiplies it by chunks of rows of a,
// which lie in the first cache meanwhile (Goto and van de Geijn, Anatomy of High-Performance Matrix
// Multiplication, 2008, with the roles of a and b exchanged). a is read in place if its rows run
// along k; a transposed a is packed, chunk by chunk.
#include "model/kernels/gemm.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "base/status.h"
#include "model/kernels/gemm_bf16.h"
#include "model/kernels/gemm_buffer.h"
#include "model/kernels/tile.h"
#include "model/kernels/transpose.h"

#include <cblas.h>
#include <omp.h>
#include <string.h>

enum {
    DIRECT_K = 768, // largest block of k where a is read in place
    PACKED_K = 384, // and where a is packed: shorter, so that a packed a serves more columns
    MAX_PACKED_B = 200 << 10, // floats of a packed block of b
    CHUNK_ROWS = 96,          // a multiple of 16: whole cache lines of a transposed a
    BUFFER_BYTES = 1 << 20,   // of a thread
};

typedef struct Buffer {
    _Alignas(64) float b[MAX_PACKED_B];
    float a[CHUNK_ROWS * (PACKED_K + 8)];
    float edge[CHUNK_ROWS * 64]; // columns that are no whole vectors
} Buffer;

_Static_assert(sizeof(Buffer) <= BUFFER_BYTES, "a thread's buffer");

// As GemmMatrix.
typedef struct FloatMatrix {
    const float *data;
    int64_t row_step, column_step;
} FloatMatrix;

// What all items of a product share.
typedef struct GemmProduct {
    float *c;
    int ldc;
    FloatMatrix a, b;
    int m, n, k;
    bool add;
    const TileKernel *kernel;
    int width, height;    // of the blocks: columns of a sliver of b, rows of a sliver of a
    int k_block, columns; // of b at once
    int item_rows, item_columns, n_row_items, n_items;
} GemmProduct;

static int packed_b_floats(void)
{
    return min_int((int)(gemm_cached_bytes() / (int64_t)sizeof(float)), MAX_PACKED_B);
}

// Chooses the sizes of blocks and items. k_block decides the order of the sums, so it depends on k
// alone: the bits must not depend on m, n or the number of threads.
static void cut(GemmProduct *product, int n_threads)
{
    const int lanes = product->kernel->lanes;
    product->width = min_int(round_up(product->n, lanes), product->kernel->columns);
    if (product->a.column_step != 1 && product->n > product->kernel->columns &&
        product->kernel->heights[3] > 0)
        product->width = 3 * lanes; // 8 rows are packed faster than 6
    product->height = product->kernel->heights[product->width / lanes];
    const int width = product->width;
    const int max_k = product->a.column_step == 1 ? DIRECT_K : PACKED_K;
    product->k_block = round_up(ceil_div(product->k, ceil_div(product->k, max_k)), 4);
    int max_columns = packed_b_floats() / product->k_block / width * width;
    max_columns = max_columns < width ? width : max_columns;
    // Several threads: items of the same size, rather than of whole slivers.
    const int grain = n_threads > 1 && product->a.column_step == 1 ? lanes : width;
    product->columns = round_up(ceil_div(product->n, ceil_div(product->n, max_columns)), grain);
    product->item_columns = n_threads == 1 ? product->n : product->columns;
    const int n_column_items = ceil_div(product->n, product->item_columns);
    // Every row item packs b again: as few as give all threads the same number of items.
    int n_wanted = 1;
    while (n_column_items * n_wanted % n_threads != 0)
        n_wanted++;
    product->item_rows = round_up(ceil_div(product->m, n_wanted), product->height);
    product->n_row_items = ceil_div(product->m, product->item_rows);
    product->n_items = n_column_items * product->n_row_items;
}

// n columns of k contiguous floats, `step` apart -> a sliver [k, width], zeros beyond n.
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

enum { AHEAD = 8 }; // rows to prefetch: they lie too far apart for the hardware's prefetcher

// k rows of n contiguous floats, `step` apart -> slivers [k, width] that are to_step apart; zeros
// beyond n, up to `padded`. Memory is read in its order.
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

// Rows [p0, p0 + k) and columns [j0, j0 + n) of b, as slivers of the kernel's width. The last one
// is only as wide as its whole vectors.
static void pack_b(float *to, const GemmProduct *product, int p0, int k, int j0, int n)
{
    const int width = product->width, padded = round_up(n, product->kernel->lanes);
    const float *from = product->b.data + p0 * product->b.row_step + j0 * product->b.column_step;
    if (product->b.column_step == 1) {
        pack_rows(to, (int64_t)width * k, from, product->b.row_step, k, n, padded, width);
        return;
    }
    for (int j = 0; j < n; j += width)
        pack_columns(to + (int64_t)j * k, from + j * product->b.column_step, product->b.column_step,
                     k, min_int(width, n - j), min_int(width, padded - j));
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

// Floats from one packed sliver of a to the next. Padded, so that slivers do not compete for the
// same sets of the first cache.
static int64_t sliver_step(const GemmProduct *product, int k)
{
    return (int64_t)k * product->height + 16;
}

// Rows [p0, p0 + k) of a transposed a and m of their columns, from i0, as slivers.
HOT static void pack_a(float *restrict to, const GemmProduct *product, int p0, int k, int i0, int m)
{
    const int64_t step = product->a.column_step, to_step = sliver_step(product, k);
    const float *from = product->a.data + i0 + p0 * step;
    for (int p = 0; p < k; p++, from += step, to += product->height) {
        for (int i = 0; i < m; i += 16)
            __builtin_prefetch(from + AHEAD * step + i);
        if (product->height == 8) // constant heights: the copy is one move
            pack_row(to, to_step, from, m, 8);
        else if (product->height == 6)
            pack_row(to, to_step, from, m, 6);
        else
            pack_row(to, to_step, from, m, product->height);
    }
}

// A block whose last vector is not whole: computed in `edge`, then copied to c.
static void edge_block(const GemmProduct *product, TileOperands *block, float *edge, int rows,
                       int columns)
{
    float *c = block->c;
    const bool add = block->add;
    block->c = edge;
    block->ldc = product->width;
    block->add = false;
    product->kernel->block(block, rows, round_up(columns, product->kernel->lanes));
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            float *to = &c[(int64_t)i * product->ldc + j];
            *to = (add ? *to : 0) + edge[i * product->width + j];
        }
    block->c = c;
    block->ldc = product->ldc;
    block->add = add;
}

// `rows` rows of a times columns [j, end) of the packed block of b.
static void run_sliver(const GemmProduct *product, TileOperands *block, Buffer *buffer, int rows,
                       int j, int end)
{
    const int width = product->width;
    float *c = block->c;
    for (; j < end; j += width) {
        const int used = min_int(width, end - j);
        block->c = c + j;
        block->b = buffer->b + (int64_t)j * block->k;
        block->ldb = round_up(used, product->kernel->lanes);
        if (used == block->ldb)
            product->kernel->block(block, rows, used);
        else
            edge_block(product, block, buffer->edge, rows, used);
    }
    block->c = c;
}

// Rows [i0, i0 + m) of an item times the packed rows [p0, p0 + k) of b. Where a is read in place,
// the columns beyond the last whole sliver take all rows at once, by blocks that are higher.
static void run_rows(const GemmProduct *product, Buffer *buffer, int p0, int k, int i0, int m,
                     int j0, int n)
{
    const bool is_direct = product->a.column_step == 1;
    const int height = product->height, wide = is_direct ? n / product->width * product->width : n;
    TileOperands block = {.ldc = product->ldc, .k = k, .add = product->add || p0 > 0};
    block.row_step = is_direct ? product->a.row_step : 1;
    block.k_step = is_direct ? 1 : height;
    if (!is_direct)
        pack_a(buffer->a, product, p0, k, i0, m);
    for (int i = 0; i < m && wide > 0; i += height) {
        block.a = is_direct ? product->a.data + (i0 + i) * product->a.row_step + p0
                            : buffer->a + i / height * sliver_step(product, k);
        block.c = product->c + (int64_t)(i0 + i) * product->ldc + j0;
        run_sliver(product, &block, buffer, min_int(height, m - i), 0, wide);
    }
    if (wide < n) {
        block.a = product->a.data + i0 * product->a.row_step + p0;
        block.c = product->c + (int64_t)i0 * product->ldc + j0;
        run_sliver(product, &block, buffer, m, wide, n);
    }
}

// All rows of an item times one block of b.
static void run_block(const GemmProduct *product, Buffer *buffer, int p0, int j0, int n, int row,
                      int end_row)
{
    const int k = min_int(product->k_block, product->k - p0);
    pack_b(buffer->b, product, p0, k, j0, n);
    for (int i0 = row; i0 < end_row; i0 += CHUNK_ROWS)
        run_rows(product, buffer, p0, k, i0, min_int(CHUNK_ROWS, end_row - i0), j0, n);
}

// Blocks of k outside: each element of c gets its partial sums in the order of k, wherever columns
// and rows are cut.
static void run_item(const GemmProduct *product, Buffer *buffer, int item)
{
    const int row = item % product->n_row_items * product->item_rows,
              end_row = min_int(row + product->item_rows, product->m);
    const int column = item / product->n_row_items * product->item_columns,
              end_column = min_int(column + product->item_columns, product->n);
    for (int p0 = 0; p0 < product->k; p0 += product->k_block)
        for (int j0 = column; j0 < end_column; j0 += product->columns)
            run_block(product, buffer, p0, j0, min_int(product->columns, end_column - j0), row,
                      end_row);
}

// With AVX2 OpenBLAS is a little faster: our kernels reach 0.93 of it (bench/results.md).
// The kernels exist for AVX2 too (attention's tiles use them), but for large products only
// AVX-512's are faster than the library.
static bool has_own_kernel(void)
{
    return tile_target() == TILE_AVX512;
}

int64_t gemm_buffer_bytes(ComputeType type, int n_threads)
{
    if (type == COMPUTE_BFLOAT16)
        return gemm_bf16_buffer_bytes(n_threads);
    return has_own_kernel() ? gemm_buffer_size(BUFFER_BYTES, n_threads) : 0;
}

// Rows [i0, i0 + m) and columns [j0, j0 + n) by OpenBLAS on this thread.
static void run_openblas(const GemmProduct *product, int i0, int m, int j0, int n)
{
    const bool a_rows = product->a.column_step == 1, b_rows = product->b.column_step == 1;
    cblas_sgemm(
        CblasRowMajor, a_rows ? CblasNoTrans : CblasTrans, b_rows ? CblasNoTrans : CblasTrans, m, n,
        product->k, 1.0f, product->a.data + i0 * product->a.row_step,
        (int)(a_rows ? product->a.row_step : product->a.column_step),
        product->b.data + j0 * product->b.column_step,
        (int)(b_rows ? product->b.row_step : product->b.column_step), product->add ? 1.0f : 0.0f,
        product->c + (int64_t)i0 * product->ldc + j0, product->ldc);
}

// Each thread computes a range of the longer side, since OpenBLAS's own threads divide small
// products badly. Inside a parallel region OpenBLAS starts no threads.
static void gemm_openblas(const GemmProduct *product)
{
    const int n_threads = omp_get_max_threads(),
              side = product->m > product->n ? product->m : product->n;
    const int range = round_up(ceil_div(side, n_threads), 16);
#pragma omp parallel for schedule(static) if (n_threads > 1)
    for (int first = 0; first < side; first += range) {
        const int count = min_int(range, side - first);
        if (product->m > product->n)
            run_openblas(product, first, count, 0, product->n);
        else
            run_openblas(product, 0, product->m, first, count);
    }
}

// Items are few and their times differ little, but other work shares the cores: threads take the
// next one as they finish.
static void gemm_kernel(const GemmProduct *shared, const TileKernel *kernel)
{
    const int n_threads = omp_get_max_threads();
    GemmProduct product = *shared;
    product.kernel = kernel;
    cut(&product, n_threads);
    char *buffers = gemm_buffer_find(BUFFER_BYTES, n_threads);
#pragma omp parallel for schedule(dynamic) if (n_threads > 1)
    for (int item = 0; item < product.n_items; item++)
        run_item(&product, (Buffer *)(buffers + (int64_t)BUFFER_BYTES * omp_get_thread_num()),
                 item);
}

static FloatMatrix floats(GemmMatrix matrix)
{
    CHECK(matrix.dtype == DTYPE_F32, "a product in float32 of %s", dtype_name(matrix.dtype));
    return (FloatMatrix){matrix.data, matrix.row_step, matrix.column_step};
}

static GemmProduct product_of(Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k, bool add)
{
    CHECK(c.dtype == DTYPE_F32, "a product in float32 to %s", dtype_name(c.dtype));
    return (GemmProduct){c.data, c.ld, floats(a), floats(b), m, n, k, add};
}

void gemm_reproducible(ComputeType type, Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k,
                       bool add)
{
    if (type == COMPUTE_BFLOAT16) {
        gemm_bf16(c, a, b, m, n, k, add);
        return;
    }
    const GemmProduct product = product_of(c, a, b, m, n, k, add);
    gemm_kernel(&product, tile_kernel(tile_target()));
}

void gemm(ComputeType type, Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k, bool add)
{
    if (type == COMPUTE_BFLOAT16 || has_own_kernel()) {
        gemm_reproducible(type, c, a, b, m, n, k, add);
        return;
    }
    const GemmProduct product = product_of(c, a, b, m, n, k, add);
    gemm_openblas(&product);
}

const char *gemm_kernel_name(void)
{
    return has_own_kernel() ? tile_kernel(TILE_AVX512)->name : NULL;
}
