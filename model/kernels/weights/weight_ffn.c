// 16 rows of gate and 16 of up are two panels, as far apart as up is from gate: to the kernel a
// product with 32 columns.
#include "model/kernels/weights/weight_ffn.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/half.h"
#include "model/kernels/swiglu.h"
#include "model/kernels/tile_bf16.h"
#include "model/kernels/weights/weight_panels.h"

#include <string.h>

enum {
    WIDTH = WEIGHT_PANEL,
    TOKENS = 32, // that stay in the first cache while panels pass, which stay in the second one
};

typedef struct Ffn {
    WeightOperands gate_up, down;
    int F;
    const uint16_t *x; // [N, D]
    uint16_t *act;     // [N, F]
} Ffn;

bool weight_ffn_fits(const WeightMatrix *gate_up, const WeightMatrix *down)
{
    return gate_up->layout == WEIGHT_PANELS && down->layout == WEIGHT_PANELS &&
           down->n_in % WIDTH == 0;
}

int64_t weight_ffn_scratch_floats(int N, int F)
{
    return weight_panels_rounded_bytes(N, F) / (int64_t)sizeof(float);
}

// act = silu(gate) up of n tokens.
HOT static void activate(uint16_t *restrict act, int64_t ld, const float *restrict products, int n)
{
    for (int t = 0; t < n; t++, act += ld, products += 2 * WIDTH)
#pragma omp simd
        for (int i = 0; i < WIDTH; i++)
            act[i] = half_f32_to_bf16(swiglu(products[i], products[WIDTH + i]));
}

// Columns of `count` panels of act.
static void activate_panels(const Ffn *ffn, int first, int count)
{
    _Alignas(64) float products[TOKENS * 2 * WIDTH];
    const int D = ffn->gate_up.n_in, N = ffn->gate_up.N;
    const int ld = weight_panels_ld(D), act_ld = weight_panels_ld(ffn->F);
    const int64_t panel = weight_panel_numbers(D), up = ffn->F / WIDTH * panel;
    for (int token = 0; token < N; token += TOKENS) {
        const int n = min_int(TOKENS, N - token);
        const uint16_t *x = ffn->x + (int64_t)token * ld;
        for (int p = first; p < first + count; p++) {
            tile_bf16_multiply(products, 2 * WIDTH, x, ld,
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

void weight_ffn_forward(float *y, int ldy, const uint16_t *x, const WeightMatrix *gate_up,
                        const WeightMatrix *down, int N, float *scratch)
{
    const int D = gate_up->n_in, F = down->n_in;
    const Ffn ffn = {.gate_up = {.w = gate_up->values, .n_in = D, .N = N},
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
                     .x = x,
                     .act = (uint16_t *)(void *)scratch};
    const int up_item = weight_panels_item(F, N), down_item = weight_panels_item(D, N);
    clear_padding(&ffn);
#pragma omp parallel
    {
        tile_bf16_start();
#pragma omp for schedule(dynamic)
        for (int f = 0; f < F; f += up_item)
            activate_panels(&ffn, f / WIDTH, min_int(up_item, F - f) / WIDTH);
#pragma omp for schedule(dynamic)
        for (int d = 0; d < D; d += down_item)
            weight_panels_dots(&ffn.down, ffn.act, d, min_int(down_item, D - d));
        tile_bf16_end();
    }
}
