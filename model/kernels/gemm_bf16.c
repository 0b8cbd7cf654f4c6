// c is cut into items, blocks of columns times ranges of rows, that threads take as they come. An
// item goes through k in blocks: it packs the block of b into panels, which fill half of the second
// cache, and multiplies it by the rows of a, 32 at a time, in parts of k so short that those of a
// and of a block of b's panels stay in the first cache. Rows of a are read in place if they are
// bfloat16 and run along whole steps of k; others are packed, chunk by chunk.
//
// A c in float32 holds the sums between parts and blocks of k. One in bfloat16, which is rounded
// once, has buffers for them: of 32 rows between parts, of an item between blocks.
#include "model/kernels/gemm_bf16.h"

#include "base/intmath.h"
#include "base/status.h"
#include "model/kernels/gemm_buffer.h"
#include "model/kernels/tile_bf16_kernel.h"

#include <omp.h>

enum {
    MAX_K = 1024,                       // of a block
    MAX_PART = 320,                     // of k, in the first cache
    MAX_B = 512 << 10,                  // numbers of a packed block of b
    MAX_COLUMNS = 1024,                 // of it
    ROWS = 32,                          // of c at once
    COLUMNS = 32,                       // c is cut at multiples of
    CHUNK_ROWS = 3 * ROWS,              // of a that are packed at once
    PACKED_LD = MAX_K + TILE_BF16_STEP, // from a packed row to the next: an odd number of lines
    SUMS_LD = MAX_COLUMNS + TILE_BF16_COLUMNS, // from a row of sums to the next: the same
    PARTIAL_COLUMNS = 2 * MAX_B / MAX_K, // of b, if k has several blocks: they exceed MAX_K / 2
    PARTIAL_ROWS = 1024, // of an item of a c in bfloat16 with more than one block of k
    // What packing costs, in columns of c for a row of a and in rows of c for a column of b.
    PACK_A = 256,
    PACK_B = 384,
};

typedef struct Buffer {
    _Alignas(64) uint16_t b[MAX_B];
    uint16_t a[CHUNK_ROWS * PACKED_LD];
    _Alignas(64) float sums[ROWS * SUMS_LD];
    float partial[PARTIAL_ROWS * (PARTIAL_COLUMNS + TILE_BF16_COLUMNS)];
} Buffer;

_Static_assert(sizeof(Buffer) % 64 == 0, "threads' buffers begin with cache lines");

// What all items of a product share.
typedef struct Bf16Product {
    Rows c;
    GemmMatrix a, b;
    int m, n, k;
    bool add, packs_a, has_partial;
    int k_block, k_part;
    int item_rows, item_columns, n_row_items, n_items;
} Bf16Product;

// ---- sizes -------------------------------------------------------------------------------------

int64_t gemm_bf16_buffer_bytes(int n_threads)
{
    return gemm_buffer_size(sizeof(Buffer), n_threads);
}

// Half of the second cache.
static int packed_b_numbers(void)
{
    return (int)min_int64(gemm_cached_bytes() * 3 / 4 / (int64_t)sizeof(uint16_t), MAX_B);
}

// k in equal lengths of at most `most`, whole steps.
static int cut_k(int k, int most)
{
    return tile_bf16_padded(ceil_div(k, ceil_div(k, most)));
}

// The time of an item, in that of an element of c.
static int64_t item_cost(const Bf16Product *product, int rows, int columns)
{
    return (int64_t)(rows + PACK_B) * columns + (product->packs_a ? (int64_t)PACK_A * rows : 0);
}

// As many row and column items as take the least time: each row item packs b again, each column
// item a. The order of the sums is decided by k_block and k_part, which depend on k alone.
static void cut(Bf16Product *product, int n_threads)
{
    product->k_block = cut_k(product->k, MAX_K);
    product->k_part = cut_k(product->k_block, MAX_PART);
    product->has_partial = product->c.dtype == DTYPE_BF16 && product->k > product->k_block;
    const int most =
        min_int(packed_b_numbers() / product->k_block / COLUMNS * COLUMNS, MAX_COLUMNS);
    const int column_items = ceil_div(product->n, most),
              row_items = product->has_partial ? ceil_div(product->m, PARTIAL_ROWS) : 1;
    int64_t best = INT64_MAX;
    for (int r = row_items; r <= row_items + n_threads; r++)
        for (int j = column_items; j <= column_items + n_threads; j++) {
            const int rows = round_up(ceil_div(product->m, r), ROWS),
                      columns = round_up(ceil_div(product->n, j), COLUMNS);
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

// ---- operands ----------------------------------------------------------------------------------

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
        tile_bf16_copy_rows(to, PACKED_LD, rows, m, k);
    else
        tile_bf16_transpose(to, PACKED_LD, rows, k, m);
}

// Whether rows of a must be packed. In place, a row's end would be multiplied by the panels' zeros
// together with what follows it, which may be anything.
static bool packs_a(const Bf16Product *product)
{
    const GemmMatrix a = product->a;
    return a.dtype != DTYPE_BF16 || a.column_step != 1 || product->k % TILE_BF16_STEP != 0;
}

// ---- items -------------------------------------------------------------------------------------

// What a thread works on: rows [row, end), n columns.
typedef struct Item {
    int row, end, column, n;
} Item;

// Where the sums of the item's rows from i on lie.
static Rows sums_of(const Bf16Product *product, Buffer *buffer, const Item *item, int i)
{
    if (product->c.dtype == DTYPE_F32)
        return rows_at(product->c, i, item->column);
    if (!product->has_partial)
        return rows_f32(buffer->sums, SUMS_LD);
    const int ld = round_up(item->n, COLUMNS) + TILE_BF16_COLUMNS;
    return rows_at(rows_f32(buffer->partial, ld), i - item->row, 0);
}

// The sums of m rows over a block of k, part by part, added to what `sums` holds if `add`. `next`:
// rows of a that come after these; NULL: none.
static void multiply_rows(const Bf16Product *product, const uint16_t *b, Rows sums, Rows a,
                          const uint16_t *next, int m, int k, int n, bool add)
{
    TileBf16Operands operands = {
        .c = sums.data,
        .ldc = sums.ld,
        .lda = a.ld,
        .panel_step = tile_bf16_panel_halves(k),
    };
    const int padded = tile_bf16_padded(k);
    for (int p = 0; p < padded; p += product->k_part) {
        operands.a = (const uint16_t *)a.data + p;
        operands.b = b + (int64_t)p * TILE_BF16_COLUMNS;
        operands.k = min_int(product->k_part, padded - p);
        operands.add = add || p > 0;
        operands.ahead = p + operands.k < padded ? operands.a + operands.k : next;
        operands.ahead_rows = operands.ahead == NULL ? 0 : m;
        tile_bf16_kernel()->multiply(&operands, m, n);
    }
}

// A c in bfloat16 from m rows of sums.
static void round_rows(Rows c, Rows sums, int m, int n)
{
    for (int r = 0; r < m; r++)
        tile_bf16_kernel()->round(rows_at(c, r, 0).data, rows_at(sums, r, 0).data, n);
}

// All rows of an item times the packed rows [p0, p0 + k) of b.
static void run_block(const Bf16Product *product, Buffer *buffer, const Item *item, int p0, int k)
{
    for (int i = item->row; i < item->end; i += ROWS) {
        const int m = min_int(ROWS, item->end - i), in_chunk = (i - item->row) % CHUNK_ROWS;
        Rows a = stored(product->a, i, p0);
        const uint16_t *next = NULL;
        if (product->packs_a) {
            if (in_chunk == 0)
                pack_a(buffer->a, product, i, min_int(CHUNK_ROWS, item->end - i), p0, k);
            a = rows_bf16(buffer->a + (int64_t)in_chunk * PACKED_LD, PACKED_LD);
        } else if (i + 2 * ROWS <= item->end) {
            next = rows_at(a, ROWS, 0).data;
        }
        const Rows sums = sums_of(product, buffer, item, i);
        multiply_rows(product, buffer->b, sums, a, next, m, k, item->n, product->add || p0 > 0);
        if (product->c.dtype == DTYPE_BF16 && p0 + k == product->k)
            round_rows(rows_at(product->c, i, item->column), sums, m, item->n);
    }
}

// Blocks of k outside: each element of c gets its partial sums in the order of k, wherever columns
// and rows are cut.
static void run_item(const Bf16Product *product, Buffer *buffer, int index)
{
    Item item = {.row = index % product->n_row_items * product->item_rows,
                 .column = index / product->n_row_items * product->item_columns};
    item.end = min_int(item.row + product->item_rows, product->m);
    item.n = min_int(product->item_columns, product->n - item.column);
    tile_bf16_start();
    for (int p0 = 0; p0 < product->k; p0 += product->k_block) {
        const int k = min_int(product->k_block, product->k - p0);
        pack_b(buffer->b, product, p0, k, item.column, item.n);
        run_block(product, buffer, &item, p0, k);
    }
    tile_bf16_end();
}

void gemm_bf16(Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k, bool add)
{
    CHECK(!add || c.dtype == DTYPE_F32, "a product is added to %s", dtype_name(c.dtype));
    const int n_threads = omp_get_max_threads();
    Bf16Product product = {c, a, b, m, n, k, add};
    product.packs_a = packs_a(&product);
    cut(&product, n_threads);
    char *buffers = gemm_buffer_find(sizeof(Buffer), n_threads);
#pragma omp parallel for schedule(dynamic) if (n_threads > 1)
    for (int item = 0; item < product.n_items; item++)
        run_item(&product,
                 (Buffer *)(void *)(buffers + (int64_t)sizeof(Buffer) * omp_get_thread_num()),
                 item);
}
