#include "model/kernels/weights/weight_matrix.h"

#include "base/status.h"
#include "model/kernels/weights/weight_amx.h"

#include <string.h>

enum { CHUNK = 512 }; // columns of a panel's row that are rounded at a time

WeightLayout weight_layout_best(DType dtype, int n_in)
{
    return dtype == DTYPE_BF16 && n_in % WEIGHT_BLOCK == 0 && weight_amx_works() ? WEIGHT_BLOCKS
                                                                                 : WEIGHT_ROWS;
}

int64_t weight_matrix_bytes(const WeightMatrix *w)
{
    const int64_t count = w->layout == WEIGHT_PANELS
                              ? ceil_div(w->n_out, WEIGHT_PANEL) * weight_panel_numbers(w->n_in)
                              : (int64_t)w->n_out * w->n_in;
    return count * dtype_size_bytes(w->dtype);
}

WeightMatrix weight_rows(const WeightMatrix *w, int first, int count)
{
    static const int grain[] = {
        [WEIGHT_ROWS] = 1, [WEIGHT_BLOCKS] = WEIGHT_BLOCK, [WEIGHT_PANELS] = WEIGHT_PANEL};
    const int g = grain[w->layout];
    CHECK(first >= 0 && count >= 0 && first + count <= w->n_out, "rows %d to %d of %d", first,
          first + count, w->n_out);
    CHECK(first % g == 0 && (count % g == 0 || first + count == w->n_out),
          "rows %d to %d of a matrix whose rows lie %d together", first, first + count, g);
    WeightMatrix above = *w, rows = *w;
    above.n_out = first;
    rows.values = (const char *)w->values + weight_matrix_bytes(&above);
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
    if (w->layout == WEIGHT_ROWS)
        return (RowParts){(int64_t)row * w->n_in, 0, w->n_in};
    if (w->layout == WEIGHT_PANELS)
        return (RowParts){row / WEIGHT_PANEL * weight_panel_numbers(w->n_in) +
                              row % WEIGHT_PANEL * 2,
                          2 * WEIGHT_PANEL, 2};
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
        dtype_widen(out + i, from, w->dtype, min_int(parts.width, w->n_in - i));
        from += parts.step * dtype_size_bytes(w->dtype);
    }
}

static void write_row(void *values, const WeightMatrix *w, int row, const float *from)
{
    const RowParts parts = row_parts(w, row);
    char *to = (char *)values + parts.first * dtype_size_bytes(w->dtype);
    for (int i = 0; i < w->n_in; i += parts.width) {
        dtype_narrow(to, w->dtype, from + i, parts.width);
        to += parts.step * dtype_size_bytes(w->dtype);
    }
}

// Pairs of a panel's row, and zeros to its end. `from` NULL: a row that the matrix does not have.
static void write_panel_row(uint16_t *panel, int n_in, int row, const float *from)
{
    const int width = round_up(n_in, WEIGHT_PANEL_STEP);
    for (int i = 0; i < width; i += CHUNK) {
        uint16_t pairs[CHUNK] = {0};
        const int n = min_int(CHUNK, width - i);
        if (from != NULL)
            dtype_narrow(pairs, DTYPE_BF16, from + i, min_int(n, n_in - i));
        for (int c = 0; c < n; c += 2)
            memcpy(panel + ((int64_t)(i + c) / 2 * WEIGHT_PANEL + row) * 2, pairs + c,
                   2 * sizeof *pairs);
    }
}

// What rows [first, end) have of the panel that begins with row `top`.
static void write_panel(uint16_t *panel, const WeightMatrix *w, int top, int first, int end,
                        const float *from)
{
    for (int row = top; row < top + WEIGHT_PANEL; row++)
        if (row >= first && row < end)
            write_panel_row(panel, w->n_in, row - top, from + (int64_t)(row - first) * w->n_in);
        else if (row >= w->n_out && end == w->n_out)
            write_panel_row(panel, w->n_in, row - top, NULL);
}

// Rows of a panel share lines of the caches: a thread writes all of them.
void weight_rows_write(void *values, const WeightMatrix *w, int first, int count, const float *from)
{
    const int end = first + count, panel_end = ceil_div(end, WEIGHT_PANEL);
    if (w->layout == WEIGHT_PANELS)
#pragma omp parallel for schedule(static)
        for (int p = first / WEIGHT_PANEL; p < panel_end; p++)
            write_panel((uint16_t *)values + p * weight_panel_numbers(w->n_in), w, p * WEIGHT_PANEL,
                        first, end, from);
    else
#pragma omp parallel for schedule(static)
        for (int row = first; row < end; row++)
            write_row(values, w, row, from + (int64_t)(row - first) * w->n_in);
}
