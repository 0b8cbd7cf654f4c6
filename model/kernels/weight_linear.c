// Few tokens: threads take items of rows as they finish, since other work shares the cores. An item
// is long enough to stream from memory and to cost more than taking it. Many tokens: the products
// limit, so rows are widened once and multiplied by the kernels that training uses.
#include "model/kernels/weight_linear.h"

#include "base/intmath.h"
#include "base/status.h"
#include "model/kernels/gemm.h"
#include "model/kernels/weight_kernel.h"

enum {
    ITEM_BYTES = 64 << 10,    // of weights a thread reads at a time
    ITEM_GRAIN = 16,          // rows: whole cache lines of y
    WIDENED_FLOATS = 1 << 20, // of a block: it stays in the caches until it is multiplied
    WIDENED_ROWS = 256,       // at least: fewer would leave gemm() little to share
};

WeightMatrix weight_rows(const WeightMatrix *w, int first, int count)
{
    CHECK(first >= 0 && count >= 0 && first + count <= w->n_out, "rows %d to %d of %d", first,
          first + count, w->n_out);
    WeightMatrix rows = *w;
    rows.values = (const char *)w->values + (int64_t)first * w->n_in * dtype_size_bytes(w->dtype);
    rows.n_out = count;
    return rows;
}

void weight_row_read(float *out, const WeightMatrix *w, int row)
{
    dtype_widen(out, weight_rows(w, row, 1).values, w->dtype, w->n_in);
}

static WeightOperands operands_of(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w,
                                  int N, bool add)
{
    return (WeightOperands){y, x, w->values, w->dtype, ldy, ldx, w->n_out, w->n_in, N, add};
}

static void multiply_direct(const WeightOperands *operands, const WeightKernel *kernel)
{
    const int64_t row_bytes = operands->n_in * dtype_size_bytes(operands->dtype);
    const int rows = round_up((int)(ITEM_BYTES / row_bytes) + 1, ITEM_GRAIN);
    const int n_items = ceil_div(operands->n_out, rows);
#pragma omp parallel for schedule(dynamic) if (n_items > 1)
    for (int item = 0; item < n_items; item++)
        kernel->dots(operands, item * rows, min_int(rows, operands->n_out - item * rows));
}

static int widened_rows(int n_out, int n_in)
{
    const int rows = WIDENED_FLOATS / n_in > WIDENED_ROWS ? WIDENED_FLOATS / n_in : WIDENED_ROWS;
    return min_int(n_out, rows);
}

int64_t weight_linear_scratch_floats(int N, int n_out, int n_in)
{
    return N > WEIGHT_DIRECT_TOKENS ? (int64_t)widened_rows(n_out, n_in) * n_in : 0;
}

static void widen_rows(float *widened, // [w->n_out, w->n_in]
                       const WeightMatrix *w)
{
#pragma omp parallel for schedule(static)
    for (int row = 0; row < w->n_out; row++)
        weight_row_read(widened + (int64_t)row * w->n_in, w, row);
}

static void multiply_widened(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w,
                             int N, bool add, float *widened)
{
    const int block = w->dtype == DTYPE_F32 ? w->n_out : widened_rows(w->n_out, w->n_in);
    for (int first = 0; first < w->n_out; first += block) {
        const WeightMatrix rows = weight_rows(w, first, min_int(block, w->n_out - first));
        const float *values = rows.values;
        if (w->dtype != DTYPE_F32) {
            widen_rows(widened, &rows);
            values = widened;
        }
        gemm(y + first, ldy, gemm_matrix(x, ldx), gemm_transposed(values, w->n_in), N, rows.n_out,
             w->n_in, add);
    }
}

void weight_linear_forward(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w, int N,
                           bool add, float *scratch)
{
    if (N > WEIGHT_DIRECT_TOKENS) {
        multiply_widened(y, ldy, x, ldx, w, N, add, scratch);
        return;
    }
    const WeightOperands operands = operands_of(y, ldy, x, ldx, w, N, add);
    multiply_direct(&operands, weight_kernel(weight_target(w->n_in)));
}

void weight_product(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w, int N,
                    bool add)
{
    const WeightOperands operands = operands_of(y, ldy, x, ldx, w, N, add);
    weight_kernel(weight_target(w->n_in))->dots(&operands, 0, w->n_out);
}

void weight_product_transposed(float *y, int ldy, const float *x, int ldx, const WeightMatrix *w,
                               int N, bool add)
{
    const WeightOperands operands = operands_of(y, ldy, x, ldx, w, N, add);
    weight_kernel(weight_target(w->n_in))->sums(&operands);
}
