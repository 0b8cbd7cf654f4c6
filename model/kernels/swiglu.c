// Limited by memory: each row is read and written once, in place.
#include "model/kernels/swiglu.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/half.h"

// Rows are prefetched by parts, each while the same part of the row before it is computed: a row of
// gates and one of values in turn is no pattern that the processor foresees.
enum { PART = 256 };

HOT static void forward_row(float *restrict act, const float *restrict gate,
                            const float *restrict up, int ld, int F)
{
    for (int first = 0; first < F; first += PART) {
        const int end = min_int(first + PART, F);
        prefetch_bytes(gate + ld + first, (end - first) * (int)sizeof *gate);
        prefetch_bytes(up + ld + first, (end - first) * (int)sizeof *gate);
#pragma omp simd
        for (int f = first; f < end; f++)
            act[f] = swiglu(gate[f], up[f]);
    }
}

HOT static void forward_row_bf16(uint16_t *restrict act, const uint16_t *restrict gate,
                                 const uint16_t *restrict up, int ld, int F)
{
    for (int first = 0; first < F; first += PART) {
        const int end = min_int(first + PART, F);
        prefetch_bytes(gate + ld + first, (end - first) * (int)sizeof *gate);
        prefetch_bytes(up + ld + first, (end - first) * (int)sizeof *gate);
#pragma omp simd
        for (int f = first; f < end; f++)
            act[f] = half_f32_to_bf16(swiglu(half_bf16_to_f32(gate[f]), half_bf16_to_f32(up[f])));
    }
}

void swiglu_forward(Rows act, Rows gate_up, int N, int F)
{
    CHECK(act.dtype == gate_up.dtype, "rows of %s from rows of %s", dtype_name(act.dtype),
          dtype_name(gate_up.dtype));
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++) {
        void *to = rows_at(act, n, 0).data;
        const void *gate = rows_at(gate_up, n, 0).data, *up = rows_at(gate_up, n, F).data;
        if (act.dtype == DTYPE_BF16)
            forward_row_bf16(to, gate, up, gate_up.ld, F);
        else
            forward_row(to, gate, up, gate_up.ld, F);
    }
}

typedef struct Gradients {
    float act, d_gate, d_up;
} Gradients;

// With s = sigmoid(gate): act = gate s up, so d_up = d_act gate s and
// d_gate = d_act up (s + gate s (1 - s)).
static inline Gradients differentiate(float gate, float up, float d_act)
{
    const float sigmoid = 1.0f / (1.0f + vexp(-gate)), silu = gate * sigmoid;
    return (Gradients){
        .act = silu * up,
        .d_gate = d_act * up * (sigmoid + silu * (1.0f - sigmoid)),
        .d_up = d_act * silu,
    };
}

// Loads precede stores: gradients replace the values.
HOT static void backward_row(float *restrict gate, float *restrict up, float *restrict act, int ld,
                             int F)
{
    for (int first = 0; first < F; first += PART) {
        const int end = min_int(first + PART, F);
        prefetch_bytes(gate + ld + first, (end - first) * (int)sizeof *gate);
        prefetch_bytes(up + ld + first, (end - first) * (int)sizeof *gate);
#pragma omp simd
        for (int f = first; f < end; f++) {
            const Gradients g = differentiate(gate[f], up[f], act[f]);
            act[f] = g.act;
            gate[f] = g.d_gate;
            up[f] = g.d_up;
        }
    }
}

HOT static void backward_row_bf16(uint16_t *restrict gate, uint16_t *restrict up,
                                  uint16_t *restrict act, int ld, int F)
{
    for (int first = 0; first < F; first += PART) {
        const int end = min_int(first + PART, F);
        prefetch_bytes(gate + ld + first, (end - first) * (int)sizeof *gate);
        prefetch_bytes(up + ld + first, (end - first) * (int)sizeof *gate);
#pragma omp simd
        for (int f = first; f < end; f++) {
            const Gradients g = differentiate(half_bf16_to_f32(gate[f]), half_bf16_to_f32(up[f]),
                                              half_bf16_to_f32(act[f]));
            act[f] = half_f32_to_bf16(g.act);
            gate[f] = half_f32_to_bf16(g.d_gate);
            up[f] = half_f32_to_bf16(g.d_up);
        }
    }
}

void swiglu_backward(Rows gate_up, Rows act, int N, int F)
{
    CHECK(act.dtype == gate_up.dtype, "rows of %s with rows of %s", dtype_name(act.dtype),
          dtype_name(gate_up.dtype));
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++) {
        void *gate = rows_at(gate_up, n, 0).data, *up = rows_at(gate_up, n, F).data;
        if (act.dtype == DTYPE_BF16)
            backward_row_bf16(gate, up, rows_at(act, n, 0).data, gate_up.ld, F);
        else
            backward_row(gate, up, rows_at(act, n, 0).data, gate_up.ld, F);
    }
}
