// SwiGLU (Shazeer, arXiv 2002.05202): act = silu(gate) up, silu(x) = x / (1 + e^-x).
// Rows are all float32 or all bfloat16; computed in float32 either way.
#ifndef MHA2MLA_MODEL_KERNELS_SWIGLU_H
#define MHA2MLA_MODEL_KERNELS_SWIGLU_H

#include "model/kernels/rows.h"
#include "model/kernels/vexp.h"

// Of one gate and its value, for loops that the compiler vectorizes. vexp() ends at e^88, so for a
// gate far below 0 the quotient is a tiny number instead of 0, without an infinity in between.
static inline float swiglu(float gate, float up)
{
    return gate / (1.0f + vexp(-gate)) * up;
}

void swiglu_forward(Rows act,     // [N, F]
                    Rows gate_up, // [N, 2F]: gate, then up; read
                    int N, int F);

// In place, since the values are not read again: half the memory traffic, and no memory for the
// gradients. act is computed again: the caller needs it for the gradient of the next weight.
void swiglu_backward(Rows gate_up, // [N, 2F]: gate and up; on return their gradients
                     Rows act,     // [N, F]: gradient of act; on return act
                     int N, int F);

#endif
