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
    PARTIAL_COLUMNS = 512,
    PARTIAL_LD = PARTIAL_COLUMNS + TILE_BF16_COLUMNS,
    PARTIAL_ROWS = 1024, // of an item of a c in bfloat16 with more than one block of k
    // What takes as long as the products of a number: packing a number of a, in columns of c;
    // packing one of b, in rows of c; a pass over an element of c, in k.
    PACK_A = 192,
    PACK_B = 256,
    PASS = 256,
};

typedef struct Buffer {
    _Alignas(64) uint16_t b[MAX_B];
    uint16_t a[CHUNK_ROWS * PACKED_LD];
    _Alignas(64) float sums[ROWS * SUMS_LD];
    float partial[PARTIAL_ROWS * PARTIAL_LD];
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

// The sizes of blocks and items.
typedef struct Cut {
    int k_block, rows, columns;
} Cut;

static int count_items(const Bf16Product *product, const Cut *cut)
{
    return ceil_div(product->m, cut->rows) * ceil_div(product->n, cut->columns);
}

// The time that one thread takes for its items, in that of a product of two numbers. Each block of
// k passes over c, each row item packs b and each column item a.
static int64_t cost_of(const Bf16Product *product, const Cut *cut, int n_threads)
{
    const int64_t rows = cut->rows, columns = cut->columns, k = product->k;
    const int64_t item = rows * columns * (k + (int64_t)PASS * ceil_div(product->k, cut->k_block)) +
                         PACK_B * columns * k + (product->packs_a ? PACK_A * rows * k : 0);
    return ceil_div(count_items(product, cut), n_threads) * item;
}

// The cheapest of the cuts that fit the buffers. Any has the same bits: an element is one chain
// along k, which blocks continue.
static Cut find_cut(const Bf16Product *product, int n_threads)
{
    Cut best = {0};
    int64_t least = INT64_MAX;
    const int n_blocks = ceil_div(product->k, MAX_K), capacity = packed_b_numbers();
    for (int blocks = n_blocks; blocks < n_blocks + 3; blocks++) {
        const int k_block = tile_bf16_padded(ceil_div(product->k, blocks));
        const bool has_partial = product->c.dtype == DTYPE_BF16 && k_block < product->k;
        const int most = min_int(capacity / k_block / COLUMNS * COLUMNS,
                                 has_partial ? PARTIAL_COLUMNS : MAX_COLUMNS);
        const int row_items = has_partial ? ceil_div(product->m, PARTIAL_ROWS) : 1,
                  column_items = ceil_div(product->n, most);
        for (int r = row_items; r <= row_items + n_threads; r++)
            for (int j = column_items; j <= column_items + n_threads; j++) {
                const Cut cut = {k_block, round_up(ceil_div(product->m, r), ROWS),
                                 round_up(ceil_div(product->n, j), COLUMNS)};
                const int64_t cost = cost_of(product, &cut, n_threads);
                if (cost < least) {
                    least = cost;
                    best = cut;
                }
            }
    }
    return best;
}

static void cut_product(Bf16Product *product, int n_threads)
{
    const Cut cut = find_cut(product, n_threads);
    const int parts = ceil_div(cut.k_block, MAX_PART);
    product->k_block = cut.k_block;
    product->k_part = tile_bf16_padded(ceil_div(cut.k_block, parts));
    product->has_partial = product->c.dtype == DTYPE_BF16 && cut.k_block < product->k;
    product->item_rows = cut.rows;
    product->item_columns = cut.columns;
    product->n_row_items = ceil_div(product->m, cut.rows);
    product->n_items = count_items(product, &cut);
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
    return rows_at(rows_f32(buffer->partial, PARTIAL_LD), i - item->row, 0);
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
    cut_product(&product, n_threads);
    char *buffers = gemm_buffer_find(sizeof(Buffer), n_threads);
#pragma omp parallel for schedule(dynamic) if (n_threads > 1)
    for (int item = 0; item < product.n_items; item++)
        run_item(&product,
                 (Buffer *)(void *)(buffers + (int64_t)sizeof(Buffer) * omp_get_thread_num()),
                 item);
}
