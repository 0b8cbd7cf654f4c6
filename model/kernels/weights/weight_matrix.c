#include "model/kernels/weights/weight_matrix.h"

#include "base/intmath.h"
#include "base/status.h"
#include "model/kernels/weights/weight_amx.h"

bool weight_prefers_blocks(DType dtype, int n_in)
{
    return dtype == DTYPE_BF16 && n_in % WEIGHT_BLOCK == 0 && weight_amx_works();
}

WeightMatrix weight_rows(const WeightMatrix *w, int first, int count)
{
    CHECK(first >= 0 && count >= 0 && first + count <= w->n_out, "rows %d to %d of %d", first,
          first + count, w->n_out);
    CHECK(!w->is_blocked || (first % WEIGHT_BLOCK == 0 &&
                             (count % WEIGHT_BLOCK == 0 || first + count == w->n_out)),
          "rows %d to %d of a matrix in blocks", first, first + count);
    WeightMatrix rows = *w;
    rows.values = (const char *)w->values + (int64_t)first * w->n_in * dtype_size_bytes(w->dtype);
    rows.n_out = count;
    return rows;
}

// Where a row's columns begin, how many of them are neighbours, and how far apart, in numbers, the
// next ones are.
typedef struct RowParts {
    int64_t first, step;
    int width;
} RowParts;

static RowParts row_parts(const WeightMatrix *w, int row)
{
    if (!w->is_blocked)
        return (RowParts){(int64_t)row * w->n_in, 0, w->n_in};
    const int top = row / WEIGHT_BLOCK * WEIGHT_BLOCK;
    const int height = min_int(WEIGHT_BLOCK, w->n_out - top);
    return (RowParts){(int64_t)top * w->n_in + (int64_t)(row - top) * WEIGHT_BLOCK,
                      (int64_t)height * WEIGHT_BLOCK, WEIGHT_BLOCK};
}

void weight_row_read(float *out, const WeightMatrix *w, int row)
{
    const RowParts parts = row_parts(w, row);
    const char *from = (const char *)w->values + parts.first * dtype_size_bytes(w->dtype);
    for (int i = 0; i < w->n_in; i += parts.width) {
        dtype_widen(out + i, from, w->dtype, parts.width);
        from += parts.step * dtype_size_bytes(w->dtype);
    }
}

void weight_row_write(void *values, const WeightMatrix *w, int row, const float *from)
{
    const RowParts parts = row_parts(w, row);
    char *to = (char *)values + parts.first * dtype_size_bytes(w->dtype);
    for (int i = 0; i < w->n_in; i += parts.width) {
        dtype_narrow(to, w->dtype, from + i, parts.width);
        to += parts.step * dtype_size_bytes(w->dtype);
    }
}
