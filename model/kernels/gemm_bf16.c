// c is cut into items, blocks of columns times ranges of rows, that threads take as they come. An
// item goes through k in blocks: it packs the block of b into panels, which together fill two
// thirds of the second cache, and multiplies it by the rows of a. Rows of a are read in place if
// they are bfloat16 and run along whole steps of k; others are packed, chunk by chunk.
//
// A c in float32 holds the sums between blocks of k. One in bfloat16 is rounded once, so that its
// block of k is all of k, and its packed block of b has fewer columns.
#include "model/kernels/gemm_bf16.h"

#include "base/intmath.h"
#include "base/status.h"
#include "model/kernels/gemm_buffer.h"
#include "model/kernels/tile_bf16_kernel.h"

#include <omp.h>

enum {
    MAX_K = 1024,           // of a block, if c is float32
    MAX_PANELS = 640 << 10, // numbers of a packed block of b
    MAX_CHUNK = 128 << 10,  // numbers of a packed chunk of a
    ROWS = 32,
    COLUMNS = 32,          // of the kernels' blocks
    CONFLICT_BYTES = 2048, // rows of a that are multiples of it apart share sets of the first cache
    // What packing costs, in columns of c for a row of a and in rows of c for a column of b.
    PACK_A = 256,
    PACK_B = 384,
};

// What all items of a product share.
typedef struct Bf16Product {
    Rows c;
    GemmMatrix a, b;
    int m, n, k;
    bool add, packs_a;
    int k_block, chunk_rows;
    int item_rows, item_columns, n_row_items, n_items;
    int64_t b_halves,
        thread_bytes; // of a thread's buffer, in which a chunk of a follows b's panels
} Bf16Product;

// ---- sizes -------------------------------------------------------------------------------------

static int64_t panels_capacity(void)
{
    return min_int64(gemm_cached_bytes() / (int64_t)sizeof(uint16_t), MAX_PANELS);
}

// From one packed row of a to the next: an odd number of cache lines.
static int packed_ld(int k)
{
    return tile_bf16_padded(k) | TILE_BF16_STEP;
}

// Blocks of k and of the buffer. The order of the sums must not depend on m, n or the number of
// threads: k_block does not.
static void size_blocks(Bf16Product *product)
{
    const int n_blocks = product->c.dtype == DTYPE_F32 ? ceil_div(product->k, MAX_K) : 1;
    const int k_block = tile_bf16_padded(ceil_div(product->k, n_blocks));
    product->k_block = k_block;
    product->b_halves = max_int64(panels_capacity(), (int64_t)k_block * COLUMNS);
    product->chunk_rows = ROWS;
    while ((int64_t)(product->chunk_rows + ROWS) * packed_ld(k_block) <= MAX_CHUNK)
        product->chunk_rows += ROWS;
    const int64_t a_halves =
        max_int64(MAX_CHUNK, (int64_t)product->chunk_rows * packed_ld(k_block));
    product->thread_bytes = (product->b_halves + a_halves) * (int64_t)sizeof(uint16_t);
    product->thread_bytes = (product->thread_bytes + 63) / 64 * 64;
}

int64_t gemm_bf16_buffer_bytes(int n_threads)
{
    Bf16Product product = {.c = {.dtype = DTYPE_F32}, .k = MAX_K};
    size_blocks(&product);
    return gemm_buffer_size(product.thread_bytes, n_threads);
}

// The time of an item, in that of an element of c.
static int64_t item_cost(const Bf16Product *product, int rows, int columns)
{
    return (int64_t)(rows + PACK_B) * columns + (product->packs_a ? (int64_t)PACK_A * rows : 0);
}

// As many row and column items as take the least time: each row item packs b again, each column
// item a.
static void cut(Bf16Product *product, int n_threads)
{
    const int most = (int)(product->b_halves / product->k_block) / COLUMNS * COLUMNS;
    const int least_items = ceil_div(product->n, most);
    int64_t best = INT64_MAX;
    for (int row_items = 1; row_items <= n_threads; row_items++)
        for (int column_items = least_items; column_items <= least_items + n_threads;
             column_items++) {
            const int rows = round_up(ceil_div(product->m, row_items), ROWS),
                      columns = round_up(ceil_div(product->n, column_items), COLUMNS);
            const int n_row_items = ceil_div(product->m, rows),
                      n_items = n_row_items * ceil_div(product->n, columns);
            const int64_t cost = ceil_div(n_items, n_threads) * item_cost(product, rows, columns);
            if (cost >= best)
                continue;
            best = cost;
            product->item_rows = rows;
            product->item_columns = columns;
            product->n_row_items = n_row_items;
            product->n_items = n_items;
        }
}

// ---- items -------------------------------------------------------------------------------------

// The matrix, or the one that it is the transpose of, from (row, column) of the former on.
static Rows stored(GemmMatrix matrix, int row, int column)
{
    const bool is_plain = matrix.column_step == 1;
    const union {
        const void *from;
        void *data;
    } pointer = {matrix.data};
    const Rows rows = {pointer.data, matrix.dtype,
                       (int)(is_plain ? matrix.row_step : matrix.column_step)};
    return is_plain ? rows_at(rows, row, column) : rows_at(rows, column, row);
}

static void pack_b(uint16_t *to, const Bf16Product *product, int p0, int k, int j0, int n)
{
    const Rows rows = stored(product->b, p0, j0);
    if (product->b.column_step == 1)
        tile_bf16_pack_rows(to, tile_bf16_panel_halves(k), rows, k, n);
    else
        tile_bf16_pack_columns(to, tile_bf16_panel_halves(k), rows, n, k);
}

static void pack_a(uint16_t *to, const Bf16Product *product, int i0, int m, int p0, int k)
{
    const Rows rows = stored(product->a, i0, p0);
    if (product->a.column_step == 1)
        tile_bf16_copy_rows(to, packed_ld(k), rows, m, k);
    else
        tile_bf16_transpose(to, packed_ld(k), rows, k, m);
}

// Whether rows of a must be packed. In place, a row's end would be multiplied by the panels' zeros
// together with what follows it, which may be anything.
static bool packs_a(const Bf16Product *product)
{
    const GemmMatrix a = product->a;
    return a.dtype != DTYPE_BF16 || a.column_step != 1 || product->k % TILE_BF16_STEP != 0 ||
           a.row_step * (int64_t)sizeof(uint16_t) % CONFLICT_BYTES == 0;
}

// Rows [row, end) times the packed rows [p0, p0 + k) and columns [column, column + n) of b.
static void run_block(const Bf16Product *product, const uint16_t *b, uint16_t *chunk, int row,
                      int end, int p0, int k, int column, int n)
{
    TileBf16Operands operands = {
        .b = b,
        .lda = packed_ld(k),
        .k = tile_bf16_padded(k),
        .panel_step = tile_bf16_panel_halves(k),
        .add = product->add || p0 > 0,
    };
    const int rows = product->packs_a ? product->chunk_rows : end - row;
    for (int i = row; i < end; i += rows) {
        const int m = min_int(rows, end - i);
        operands.c = rows_at(product->c, i, column);
        if (product->packs_a) {
            pack_a(chunk, product, i, m, p0, k);
            operands.a = chunk;
        } else {
            const Rows a = stored(product->a, i, p0);
            operands.a = a.data;
            operands.lda = a.ld;
        }
        tile_bf16_kernel()->multiply(&operands, m, n);
    }
}

// Blocks of k outside: each element of c gets its partial sums in the order of k, wherever columns
// and rows are cut.
static void run_item(const Bf16Product *product, char *buffer, int item)
{
    uint16_t *b = (uint16_t *)(void *)buffer;
    const int row = item % product->n_row_items * product->item_rows,
              end = min_int(row + product->item_rows, product->m),
              column = item / product->n_row_items * product->item_columns,
              n = min_int(product->item_columns, product->n - column);
    tile_bf16_start();
    for (int p0 = 0; p0 < product->k; p0 += product->k_block) {
        const int k = min_int(product->k_block, product->k - p0);
        pack_b(b, product, p0, k, column, n);
        run_block(product, b, b + product->b_halves, row, end, p0, k, column, n);
    }
    tile_bf16_end();
}

void gemm_bf16(Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k, bool add)
{
    CHECK(!add || c.dtype == DTYPE_F32, "a product is added to %s", dtype_name(c.dtype));
    const int n_threads = omp_get_max_threads();
    Bf16Product product = {c, a, b, m, n, k, add};
    product.packs_a = packs_a(&product);
    size_blocks(&product);
    cut(&product, n_threads);
    char *buffers = gemm_buffer_find(product.thread_bytes, n_threads);
#pragma omp parallel for schedule(dynamic) if (n_threads > 1)
    for (int item = 0; item < product.n_items; item++)
        run_item(&product, buffers + product.thread_bytes * omp_get_thread_num(), item);
}
