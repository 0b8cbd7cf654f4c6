// Limited by memory: each row is read and written once, in place.
#include "model/kernels/swiglu.h"

#include "base/simd.h"
#include "model/kernels/vexp.h"

HOT static void forward_row(float *restrict act, const float *restrict gate,
                            const float *restrict up, int F)
{
#pragma omp simd
    for (int f = 0; f < F; f++)
        // silu(g) = g / (1 + e^-g). vexp() ends at e^88, so for g far below 0 the quotient is a
        // tiny number instead of 0, without an infinity in between.
        act[f] = gate[f] / (1.0f + vexp(-gate[f])) * up[f];
}

void swiglu_forward(float *restrict act, const float *restrict gate_up, int N, int F)
{
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++) {
        const float *row = gate_up + (int64_t)n * 2 * F;
        forward_row(act + (int64_t)n * F, row, row + F, F);
    }
}

// With s = sigmoid(gate): act = gate s up, so d_up = d_act gate s and
// d_gate = d_act up (s + gate s (1 - s)). Loads precede stores: gradients replace the values.
HOT static void backward_row(float *restrict gate, float *restrict up, float *restrict act, int F)
{
#pragma omp simd
    for (int f = 0; f < F; f++) {
        const float sigmoid = 1.0f / (1.0f + vexp(-gate[f]));
        const float silu = gate[f] * sigmoid, d_act = act[f];
        act[f] = silu * up[f];
        gate[f] = d_act * up[f] * (sigmoid + silu * (1.0f - sigmoid));
        up[f] = d_act * silu;
    }
}

void swiglu_backward(float *restrict gate_up, float *restrict act, int N, int F)
{
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++) {
        float *row = gate_up + (int64_t)n * 2 * F;
        backward_row(row, row + F, act + (int64_t)n * F, F);
    }
}
