// 16 rows of gate and 16 of up are two panels, as far apart as up is from gate: to the kernel a
// product with 32 columns.
#include "model/kernels/weights/weight_ffn.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/half.h"
#include "model/kernels/tile_bf16.h"
#include "model/kernels/vexp.h"
#include "model/kernels/weights/weight_panels.h"

#include <omp.h>
#include <string.h>

enum {
    WIDTH = WEIGHT_PANEL,
    MOST_TOKENS = 256,   // whose products of a panel of gate and one of up are computed at a time
    SHORT_ITEM = 4,      // panels of gate, for a few tokens
    ITEMS_PER_THREAD = 4 // for many
};

typedef struct Ffn {
    WeightOperands gate_up, down;
    int F;
    const uint16_t *rounded; // [N, D]
    uint16_t *act;           // [N, F]
} Ffn;

bool weight_ffn_fits(const WeightMatrix *gate_up, const WeightMatrix *down)
{
    return gate_up->layout == WEIGHT_PANELS && down->layout == WEIGHT_PANELS &&
           down->n_in % WIDTH == 0;
}

int64_t weight_ffn_scratch_floats(int N, int D, int F)
{
    return (weight_panels_rounded_bytes(N, D) + weight_panels_rounded_bytes(N, F)) /
           (int64_t)sizeof(float);
}

// act = silu(gate) up of n tokens, silu(g) = g / (1 + e^-g).
HOT static void activate(uint16_t *restrict act, int64_t ld, const float *restrict products, int n)
{
    for (int t = 0; t < n; t++, act += ld, products += 2 * WIDTH)
#pragma omp simd
        for (int i = 0; i < WIDTH; i++)
            act[i] =
                half_f32_to_bf16(products[i] / (1.0f + vexp(-products[i])) * products[WIDTH + i]);
}

// Columns of `count` panels of act.
static void activate_panels(const Ffn *ffn, int first, int count)
{
    _Alignas(64) float products[MOST_TOKENS * 2 * WIDTH];
    const int D = ffn->gate_up.n_in, N = ffn->gate_up.N;
    const int ld = weight_panels_ld(D), act_ld = weight_panels_ld(ffn->F);
    const int n_tokens = min_int(MOST_TOKENS, weight_panels_tokens(D));
    const int64_t panel = weight_panel_numbers(D), up = ffn->F / WIDTH * panel;
    for (int token = 0; token < N; token += n_tokens) {
        const int n = min_int(n_tokens, N - token);
        const uint16_t *rounded = ffn->rounded + (int64_t)token * ld;
        for (int p = first; p < first + count; p++) {
            tile_bf16_multiply(products, 2 * WIDTH, rounded, ld,
                               (const uint16_t *)ffn->gate_up.w + p * panel, up, n, 2 * WIDTH, D,
                               false);
            activate(ffn->act + (int64_t)token * act_ld + p * WIDTH, act_ld, products, n);
        }
    }
}

// What the last step of down's panels reads behind act.
static void clear_padding(const Ffn *ffn)
{
    const int ld = weight_panels_ld(ffn->F), padding = round_up(ffn->F, WEIGHT_PANEL_STEP) - ffn->F;
    for (int t = 0; padding > 0 && t < ffn->gate_up.N; t++)
        memset(ffn->act + (int64_t)t * ld + ffn->F, 0, (size_t)padding * sizeof *ffn->act);
}

// Of n panels, so that threads end together and a token's products are worth an item.
static int item_panels(int n, int N)
{
    return N <= MOST_TOKENS / 4 ? SHORT_ITEM
                                : ceil_div(n, ITEMS_PER_THREAD * omp_get_max_threads());
}

void weight_ffn_forward(float *y, int ldy, const float *x, int ldx, const WeightMatrix *gate_up,
                        const WeightMatrix *down, int N, float *scratch)
{
    const int D = gate_up->n_in, F = down->n_in;
    uint16_t *rounded = (uint16_t *)(void *)scratch;
    const Ffn ffn = {.gate_up = {.x = x, .w = gate_up->values, .ldx = ldx, .n_in = D, .N = N},
                     .down = {.y = y,
                              .w = down->values,
                              .dtype = DTYPE_BF16,
                              .ldy = ldy,
                              .n_out = D,
                              .n_in = F,
                              .N = N,
                              .add = true,
                              .layout = WEIGHT_PANELS},
                     .F = F,
                     .rounded = rounded,
                     .act = rounded + weight_panels_rounded_bytes(N, D) / (int64_t)sizeof *rounded};
    const int n_up = F / WIDTH, up_item = item_panels(n_up, N);
    const int n_down = ceil_div(D, WIDTH), down_item = item_panels(n_down, N);
#pragma omp parallel
    {
        weight_panels_round(rounded, x, ldx, N, D);
#pragma omp single nowait
        clear_padding(&ffn);
        tile_bf16_start();
#pragma omp for schedule(dynamic)
        for (int p = 0; p < n_up; p += up_item)
            activate_panels(&ffn, p, min_int(up_item, n_up - p));
#pragma omp for schedule(dynamic)
        for (int p = 0; p < n_down; p += down_item)
            weight_panels_dots(&ffn.down, ffn.act, p * WIDTH,
                               min_int(down_item * WIDTH, D - p * WIDTH));
        tile_bf16_end();
    }
}
