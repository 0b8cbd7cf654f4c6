// SwiGLU (Shazeer, arXiv 2002.05202): act = silu(gate) up, silu(x) = x / (1 + e^-x).
#ifndef MHA2MLA_MODEL_SWIGLU_H
#define MHA2MLA_MODEL_SWIGLU_H

void swiglu_forward(float *restrict act,           // [N, F]
                    const float *restrict gate_up, // [N, 2F]: gate, then up
                    int N, int F);

// act is computed again beside the gradient: the caller needs it for the next weight's gradient.
void swiglu_backward(float *restrict d_gate_up,     // [N, 2F]
                     float *restrict act,           // [N, F]
                     const float *restrict d_act,   // [N, F]
                     const float *restrict gate_up, // [N, 2F]
                     int N, int F);

#endif
