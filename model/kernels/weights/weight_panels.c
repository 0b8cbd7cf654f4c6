// 32 tokens stay in the first cache while panels pass, of which as many as the second cache holds
// pass for all tokens; then come the next ones.
#include "model/kernels/weights/weight_panels.h"

#include "base/intmath.h"
#include "base/status.h"
#include "model/kernels/tile_bf16.h"

#include <omp.h>
#include <string.h>

enum {
    LINE = 32, // numbers of a line of the caches
    OUTPUTS = 2 * WEIGHT_PANEL,
    CACHED_BYTES = 512 << 10,
    SHORT_TOKENS = 64, // up to which an item is SHORT_ITEM outputs
    SHORT_ITEM = 64,
    ITEMS_PER_THREAD = 4, // of more tokens, so that threads end together
};

// An odd number of lines, since rows at multiples of 4096 bytes would compete for the same lines of
// the first cache.
int weight_panels_ld(int n_in)
{
    return (ceil_div(n_in, LINE) | 1) * LINE;
}

int64_t weight_panels_rounded_bytes(int N, int n_in)
{
    return (int64_t)N * weight_panels_ld(n_in) * (int64_t)sizeof(uint16_t);
}

void weight_panels_round(uint16_t *rounded, const float *x, int ldx, int N, int n_in)
{
    const int ld = weight_panels_ld(n_in), padding = round_up(n_in, WEIGHT_PANEL_STEP) - n_in;
#pragma omp for schedule(static)
    for (int t = 0; t < N; t++) {
        uint16_t *row = rounded + (int64_t)t * ld;
        dtype_narrow(row, DTYPE_BF16, x + (int64_t)t * ldx, n_in);
        memset(row + n_in, 0, (size_t)padding * sizeof *row);
    }
}

void weight_panels_dots(const WeightOperands *operands, const uint16_t *rounded, int first,
                        int count)
{
    const int n_in = operands->n_in, ld = weight_panels_ld(n_in), end = first + count;
    const int64_t panel_step = weight_panel_numbers(n_in);
    const int cached = CACHED_BYTES / (int)(panel_step * (int64_t)sizeof *rounded) * WEIGHT_PANEL;
    const int n_outputs = cached > WEIGHT_PANEL ? cached / OUTPUTS * OUTPUTS : OUTPUTS;
    CHECK(first % WEIGHT_PANEL == 0, "outputs from %d on", first);
    for (int row = first; row < end; row += n_outputs)
        tile_bf16_multiply(operands->y + row, operands->ldy, rounded, ld,
                           (const uint16_t *)operands->w + row / WEIGHT_PANEL * panel_step,
                           panel_step, operands->N, min_int(n_outputs, end - row), n_in,
                           operands->add);
}

int weight_panels_item(int n_out, int N)
{
    const int share = ceil_div(n_out, ITEMS_PER_THREAD * omp_get_max_threads());
    return N <= SHORT_TOKENS ? SHORT_ITEM : round_up(share, WEIGHT_PANEL);
}

void weight_panels_forward(float *y, int ldy, const uint16_t *rows, const WeightMatrix *w, int N)
{
    const WeightOperands operands = {.y = y,
                                     .w = w->values,
                                     .dtype = w->dtype,
                                     .ldy = ldy,
                                     .n_out = w->n_out,
                                     .n_in = w->n_in,
                                     .N = N,
                                     .layout = w->layout};
    const int item = weight_panels_item(w->n_out, N);
    CHECK(w->layout == WEIGHT_PANELS, "a matrix that is not in panels");
#pragma omp parallel if (w->n_out > item)
    {
        tile_bf16_start();
#pragma omp for schedule(dynamic)
        for (int first = 0; first < w->n_out; first += item)
            weight_panels_dots(&operands, rows, first, min_int(item, w->n_out - first));
        tile_bf16_end();
    }
}
