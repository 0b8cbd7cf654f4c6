#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

void exact_swiglu_forward(double *act, const float *gate_up, int N, int F)
{
    for (int64_t n = 0; n < N; n++)
        for (int f = 0; f < F; f++) {
            double gate = (double)gate_up[n * 2 * F + f], up = (double)gate_up[n * 2 * F + F + f];
            act[n * F + f] = gate * sigmoid(gate) * up;
        }
}

void ref_swiglu_forward(float *act, const float *gate_up, int N, int F)
{
    double *exact = ref_doubles((int64_t)N * F);
    exact_swiglu_forward(exact, gate_up, N, F);
    ref_narrow(act, exact, (int64_t)N * F);
    free(exact);
}

void ref_swiglu_backward(float *d_gate_up, float *act, const float *d_act, const float *gate_up,
                         int N, int F)
{
    ref_swiglu_forward(act, gate_up, N, F);
    for (int64_t n = 0; n < N; n++)
        for (int f = 0; f < F; f++) {
            double gate = (double)gate_up[n * 2 * F + f], up = (double)gate_up[n * 2 * F + F + f];
            double d = (double)d_act[n * F + f], s = sigmoid(gate);
            d_gate_up[n * 2 * F + f] = (float)(d * up * (s + gate * s * (1.0 - s)));
            d_gate_up[n * 2 * F + F + f] = (float)(d * gate * s);
        }
}
