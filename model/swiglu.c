#include "model/swiglu.h"

#include "base/simd.h"
#include "model/vexp.h"

HOT static void forward_row(float *restrict act, const float *restrict gate,
                            const float *restrict up, int F)
{
#pragma omp simd
    for (int f = 0; f < F; f++)
        act[f] = gate[f] / (1.0f + vexp(-gate[f])) * up[f];
}

void swiglu_forward(float *restrict act, const float *restrict gate_up, int N, int F)
{
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++) {
        const float *row = gate_up + (int64_t)n * 2 * F;
        forward_row(act + (int64_t)n * F, row, row + F, F);
    }
}

HOT static void backward_row(float *restrict d_gate, float *restrict d_up, float *restrict act,
                             const float *restrict d_act, const float *restrict gate,
                             const float *restrict up, int F)
{
#pragma omp simd
    for (int f = 0; f < F; f++) {
        float sigmoid = 1.0f / (1.0f + vexp(-gate[f]));
        float silu = gate[f] * sigmoid;
        act[f] = silu * up[f];
        d_up[f] = d_act[f] * silu;
        d_gate[f] = d_act[f] * up[f] * (sigmoid + silu * (1.0f - sigmoid));
    }
}

void swiglu_backward(float *restrict d_gate_up, float *restrict act, const float *restrict d_act,
                     const float *restrict gate_up, int N, int F)
{
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++) {
        int64_t wide = (int64_t)n * 2 * F, narrow = (int64_t)n * F;
        backward_row(d_gate_up + wide, d_gate_up + wide + F, act + narrow, d_act + narrow,
                     gate_up + wide, gate_up + wide + F, F);
    }
}
