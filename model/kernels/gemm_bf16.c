// c is cut into items, blocks of columns times ranges of rows, that threads take as they come. An
// item goes through k in blocks: it packs the block of b into panels, which together fill two
// thirds of the second cache, and multiplies it by chunks of rows of a, packed as well. A chunk's
// sums go to c at once if it is float32, else through a buffer.
#include "model/kernels/gemm_bf16.h"

#include "base/intmath.h"
#include "base/status.h"
#include "model/kernels/gemm_buffer.h"
#include "model/kernels/tile_bf16.h"

#include <omp.h>

enum {
    MAX_K = 1024, // of a block, where c holds the sums between blocks
    CHUNK_ROWS = 64,
    CHUNK_HALVES = CHUNK_ROWS * (MAX_K + TILE_BF16_STEP),
    MAX_COLUMNS = 1024,     // of an item
    MAX_PANELS = 512 << 10, // numbers of a packed block of b
};

typedef struct Buffer {
    _Alignas(64) uint16_t b[MAX_PANELS];
    _Alignas(64) uint16_t a[CHUNK_HALVES];
    _Alignas(64) float sums[CHUNK_ROWS * MAX_COLUMNS]; // of a c in bfloat16
} Buffer;

// What all items of a product share.
typedef struct Bf16Product {
    Rows c;
    GemmMatrix a, b;
    int m, n, k;
    bool add;
    int k_block, item_rows, item_columns, n_row_items, n_items;
} Bf16Product;

int64_t gemm_bf16_buffer_bytes(int n_threads)
{
    return gemm_buffer_size(sizeof(Buffer), n_threads);
}

// The order of the sums must not depend on m, n or the number of threads: k_block does not.
static void cut(Bf16Product *product, int n_threads)
{
    product->k_block = tile_bf16_padded(ceil_div(product->k, ceil_div(product->k, MAX_K)));
    const int most = min_int(MAX_PANELS / product->k_block, MAX_COLUMNS);
    product->item_columns =
        round_up(ceil_div(product->n, ceil_div(product->n, most)), 2 * TILE_BF16_COLUMNS);
    const int n_column_items = ceil_div(product->n, product->item_columns);
    int n_wanted = 1;
    while (n_column_items * n_wanted % n_threads != 0)
        n_wanted++;
    product->item_rows = round_up(ceil_div(product->m, n_wanted), CHUNK_ROWS);
    product->n_row_items = ceil_div(product->m, product->item_rows);
    product->n_items = n_column_items * product->n_row_items;
}

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
    const int ld = tile_bf16_padded(k) + TILE_BF16_STEP;
    if (product->a.column_step == 1)
        tile_bf16_copy_rows(to, ld, rows, m, k);
    else
        tile_bf16_transpose(to, ld, rows, k, m);
}

// c, of bfloat16, = or += the sums.
static void write_halves(Rows c, const float *sums, int ld, int m, int n)
{
    for (int i = 0; i < m; i++)
        dtype_narrow(rows_at(c, i, 0).data, DTYPE_BF16, sums + (int64_t)i * ld, n);
}

// Rows [i0, i0 + m) and columns [j0, j0 + n) of a c in bfloat16 hold the sums of one block of k.
static void run_chunk(const Bf16Product *product, Buffer *buffer, int i0, int m, int p0, int j0,
                      int n)
{
    const int k = min_int(product->k_block, product->k - p0);
    const Rows c = rows_at(product->c, i0, j0);
    const bool is_float = c.dtype == DTYPE_F32;
    pack_a(buffer->a, product, i0, m, p0, k);
    tile_bf16_multiply(is_float ? c.data : buffer->sums, is_float ? c.ld : MAX_COLUMNS, buffer->a,
                       tile_bf16_padded(k) + TILE_BF16_STEP, buffer->b, tile_bf16_panel_halves(k),
                       m, n, k, product->add || p0 > 0);
    if (!is_float && p0 + k == product->k)
        write_halves(c, buffer->sums, MAX_COLUMNS, m, n);
}

// A c in bfloat16 takes all of k for a chunk of rows before the next one.
static void run_item(const Bf16Product *product, Buffer *buffer, int item)
{
    const int row = item % product->n_row_items * product->item_rows,
              end = min_int(row + product->item_rows, product->m),
              column = item / product->n_row_items * product->item_columns,
              n = min_int(product->item_columns, product->n - column);
    const int range = product->c.dtype == DTYPE_F32 ? end - row : CHUNK_ROWS;
    tile_bf16_start();
    for (int first = row; first < end; first += range)
        for (int p0 = 0; p0 < product->k; p0 += product->k_block) {
            const int k = min_int(product->k_block, product->k - p0);
            pack_b(buffer->b, product, p0, k, column, n);
            for (int i0 = first; i0 < min_int(first + range, end); i0 += CHUNK_ROWS)
                run_chunk(product, buffer, i0, min_int(CHUNK_ROWS, end - i0), p0, column, n);
        }
    tile_bf16_end();
}

void gemm_bf16(Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k, bool add)
{
    CHECK(!add || c.dtype == DTYPE_F32, "a product is added to %s", dtype_name(c.dtype));
    const int n_threads = omp_get_max_threads();
    Bf16Product product = {c, a, b, m, n, k, add};
    cut(&product, n_threads);
    char *buffers = gemm_buffer_find(sizeof(Buffer), n_threads);
#pragma omp parallel for schedule(dynamic) if (n_threads > 1)
    for (int item = 0; item < product.n_items; item++)
        run_item(&product,
                 (Buffer *)(void *)(buffers + (int64_t)sizeof(Buffer) * omp_get_thread_num()),
                 item);
}
