// A product takes the first of four ways that it can take. With AMX, activations are packed once
// and all threads read them; a single token has a kernel of its own. Without, few tokens: memory
// limits, so weights are widened in registers. Many tokens: multiplication limits, so rows are
// widened once and multiplied by the kernels that training uses.
//
// Threads take items of rows as they finish, since other work shares the cores. An item is long
// enough to stream from memory and to cost more than taking it.
#include "model/kernels/weights/weight_linear.h"

#include "base/intmath.h"
#include "base/status.h"
#include "model/kernels/gemm.h"
#include "model/kernels/tile_bf16.h"
#include "model/kernels/weights/weight_amx.h"
#include "model/kernels/weights/weight_amx_many.h"
#include "model/kernels/weights/weight_amx_one.h"
#include "model/kernels/weights/weight_kernel.h"
#include "model/kernels/weights/weight_panels.h"

#include <omp.h>

enum {
    ITEM_BYTES = 64 << 10,         // of weights a thread reads at a time
    PROMPT_ITEM_BYTES = 512 << 10, // the same for many tokens: activations are read for each item
    SHORT_TOKENS = 4,
    ITEM_GRAIN = WEIGHT_BLOCK, // rows: whole blocks and cache lines of y
    WIDENED_FLOATS = 1 << 20,  // of a block: it stays in the caches until it is multiplied
    WIDENED_ROWS = 256,        // at least: fewer would leave gemm() little to share
};

static WeightOperands operands_of(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w,
                                  int N, bool add)
{
    return (WeightOperands){y,        x,       w->values, w->dtype, ldy,      ldx,
                            w->n_out, w->n_in, N,         add,      w->layout};
}

// Rows of an item: whole cache lines of y, and of many tokens' products two items for each thread.
static int item_rows(const WeightOperands *operands)
{
    const int64_t row_bytes = operands->n_in * dtype_size_bytes(operands->dtype);
    if (operands->N <= WEIGHT_DIRECT_TOKENS)
        return round_up((int)(ITEM_BYTES / row_bytes) + 1, ITEM_GRAIN);
    const int share = ceil_div(operands->n_out, 2 * omp_get_max_threads());
    return round_up(min_int((int)(PROMPT_ITEM_BYTES / row_bytes) + 1, share), ITEM_GRAIN);
}

static bool fits_one(const WeightOperands *operands)
{
    return operands->N == 1 && operands->layout == WEIGHT_BLOCKS;
}

// The threads' ranges are long, since they stream from memory, and end with single blocks, so that
// the threads end together.
static void multiply_one(const WeightOperands *operands, float *scratch)
{
    const int n_blocks = ceil_div(operands->n_out, WEIGHT_BLOCK);
    uint16_t *packed = (uint16_t *)(void *)scratch;
    weight_amx_one_pack(packed, operands->x, operands->n_in);
#pragma omp parallel if (operands->n_out > item_rows(operands))
    {
        weight_amx_one_start();
#pragma omp for schedule(guided)
        for (int block = 0; block < n_blocks; block++)
            weight_amx_one_dots(operands, packed, block);
        weight_amx_end();
    }
}

static bool fits_tiles(const WeightOperands *operands)
{
    return operands->dtype == DTYPE_BF16 && operands->layout != WEIGHT_PANELS && weight_amx_works();
}

static void multiply_tiles(const WeightOperands *operands, float *scratch)
{
    const int rows = item_rows(operands), n_items = ceil_div(operands->n_out, rows);
    uint16_t *packed = (uint16_t *)(void *)scratch;
    // Packing a few tokens costs less than letting threads wait for one another.
    const bool is_short = operands->N <= SHORT_TOKENS;
    if (is_short)
        weight_amx_pack(packed, operands->x, operands->ldx, operands->N, operands->n_in);
#pragma omp parallel if (n_items > 1)
    {
        if (!is_short)
            weight_amx_pack(packed, operands->x, operands->ldx, operands->N, operands->n_in);
        weight_amx_start();
#pragma omp for schedule(guided)
        for (int item = 0; item < n_items; item++)
            weight_amx_dots(operands, packed, item * rows,
                            min_int(rows, operands->n_out - item * rows));
        weight_amx_end();
    }
}

static void multiply_many(const WeightOperands *operands, float *scratch)
{
    const int rows = item_rows(operands), n_items = ceil_div(operands->n_out, rows);
    uint16_t *packed = (uint16_t *)(void *)scratch;
#pragma omp parallel if (n_items > 1)
    {
        weight_amx_many_pack(packed, operands->x, operands->ldx, operands->N, operands->n_in);
        weight_amx_start();
#pragma omp for schedule(guided)
        for (int item = 0; item < n_items; item++)
            weight_amx_many_dots(operands, packed, item * rows,
                                 min_int(rows, operands->n_out - item * rows));
        weight_amx_end();
    }
}

static bool fits_direct(const WeightOperands *operands)
{
    return operands->N <= WEIGHT_DIRECT_TOKENS && operands->layout == WEIGHT_ROWS;
}

static void multiply_direct(const WeightOperands *operands, float *scratch)
{
    (void)scratch;
    const WeightKernel *kernel = weight_kernel(weight_target(operands->n_in));
    const int rows = item_rows(operands), n_items = ceil_div(operands->n_out, rows);
#pragma omp parallel for schedule(dynamic) if (n_items > 1)
    for (int item = 0; item < n_items; item++)
        kernel->dots(operands, item * rows, min_int(rows, operands->n_out - item * rows));
}

static int widened_rows(int n_out, int n_in)
{
    const int rows = WIDENED_FLOATS / n_in > WIDENED_ROWS ? WIDENED_FLOATS / n_in : WIDENED_ROWS;
    return min_int(n_out, rows);
}

static void widen_rows(float *widened, // [w->n_out, w->n_in]
                       const WeightMatrix *w)
{
#pragma omp parallel for schedule(static)
    for (int row = 0; row < w->n_out; row++)
        weight_row_read(widened + (int64_t)row * w->n_in, w, row);
}

static bool fits_widened(const WeightOperands *operands)
{
    return operands->layout == WEIGHT_ROWS;
}

typedef void (*Gemm)(ComputeType type, Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k,
                     bool add);

static void multiply_by(Gemm multiply, const WeightOperands *o, float *scratch)
{
    const WeightMatrix w = {o->w, o->dtype, o->n_out, o->n_in, WEIGHT_ROWS};
    const int block = w.dtype == DTYPE_F32 ? w.n_out : widened_rows(w.n_out, w.n_in);
    for (int first = 0; first < w.n_out; first += block) {
        const WeightMatrix rows = weight_rows(&w, first, min_int(block, w.n_out - first));
        const float *values = rows.values;
        if (w.dtype != DTYPE_F32) {
            widen_rows(scratch, &rows);
            values = scratch;
        }
        multiply(COMPUTE_FLOAT32, rows_f32(o->y + first, o->ldy), gemm_matrix(o->x, o->ldx),
                 gemm_transposed(values, w.n_in), o->N, rows.n_out, w.n_in, o->add);
    }
}

static void multiply_widened(const WeightOperands *operands, float *scratch)
{
    multiply_by(gemm, operands, scratch);
}

static void multiply_reproducible(const WeightOperands *operands, float *scratch)
{
    multiply_by(gemm_reproducible, operands, scratch);
}

static bool fits_panels(const WeightOperands *operands)
{
    return operands->layout == WEIGHT_PANELS;
}

static void multiply_panels(const WeightOperands *operands, float *scratch)
{
    const int rows = item_rows(operands), n_items = ceil_div(operands->n_out, rows);
    uint16_t *rounded = (uint16_t *)(void *)scratch;
    const bool is_short = operands->N <= SHORT_TOKENS;
    if (is_short)
        weight_panels_round(rounded, operands->x, operands->ldx, operands->N, operands->n_in);
#pragma omp parallel if (n_items > 1)
    {
        if (!is_short)
            weight_panels_round(rounded, operands->x, operands->ldx, operands->N, operands->n_in);
        tile_bf16_start();
#pragma omp for schedule(guided)
        for (int item = 0; item < n_items; item++)
            weight_panels_dots(operands, rounded, item * rows,
                               min_int(rows, operands->n_out - item * rows));
        tile_bf16_end();
    }
}

// By preference.
typedef struct Way {
    const char *name;
    bool (*fits)(const WeightOperands *operands);
    void (*multiply)(const WeightOperands *operands, float *scratch);
} Way;

static const Way ways[] = {
    {"panels", fits_panels, multiply_panels},    {"one token", fits_one, multiply_one},
    {"tiles", fits_tiles, multiply_tiles},       {"direct", fits_direct, multiply_direct},
    {"widened", fits_widened, multiply_widened},
};

static const Way reproducible_ways[] = {
    {"panels", fits_panels, multiply_panels},
    {"many tokens", fits_tiles, multiply_many},
    {"reproducible", fits_widened, multiply_reproducible},
};

static void multiply(const Way *way, const WeightOperands *operands, float *scratch)
{
    CHECK(operands->layout != WEIGHT_BLOCKS || fits_tiles(operands),
          "a matrix in blocks without AMX");
    while (!way->fits(operands))
        way++;
    way->multiply(operands, scratch);
}

int64_t weight_linear_scratch_floats(int N, int n_out, int n_in)
{
    const int64_t packed =
        weight_amx_works()
            ? max_int64(weight_amx_packed_bytes(N, n_in), weight_amx_many_packed_bytes(N, n_in)) / 4
            : 0;
    const int64_t widened =
        N > WEIGHT_DIRECT_TOKENS ? (int64_t)widened_rows(n_out, n_in) * n_in : 0;
    const int64_t rounded = weight_panels_rounded_bytes(N, n_in) / 4;
    return max_int64(rounded, max_int64(packed, widened));
}

void weight_linear_forward(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w, int N,
                           bool add, float *scratch)
{
    const WeightOperands operands = operands_of(y, ldy, x, ldx, w, N, add);
    multiply(ways, &operands, scratch);
}

void weight_linear_forward_reproducible(float *y, int ldy, const float *x, int ldx,
                                        const WeightMatrix *w, int N, bool add, float *scratch)
{
    const WeightOperands operands = operands_of(y, ldy, x, ldx, w, N, add);
    multiply(reproducible_ways, &operands, scratch);
}

void weight_product(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w, int N,
                    bool add)
{
    CHECK(w->layout == WEIGHT_ROWS, "a matrix in blocks or panels");
    const WeightOperands operands = operands_of(y, ldy, x, ldx, w, N, add);
    weight_kernel(weight_target(w->n_in))->dots(&operands, 0, w->n_out);
}

void weight_product_transposed(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w,
                               int N, bool add)
{
    CHECK(w->layout == WEIGHT_ROWS, "a matrix in blocks or panels");
    const WeightOperands operands = operands_of(y, ldy, x, ldx, w, N, add);
    weight_kernel(weight_target(w->n_in))->sums(&operands);
}
