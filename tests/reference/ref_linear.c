#include "tests/reference/ref.h"

void ref_linear_forward(float *y, int ldy, const float *x, int ldx, const float *w, int N, int n_in,
                        int n_out, bool add)
{
    for (int n = 0; n < N; n++)
        for (int o = 0; o < n_out; o++) {
            double sum = add ? (double)y[(int64_t)n * ldy + o] : 0.0;
            for (int i = 0; i < n_in; i++)
                sum += (double)x[(int64_t)n * ldx + i] * (double)w[(int64_t)o * n_in + i];
            y[(int64_t)n * ldy + o] = (float)sum;
        }
}

void ref_linear_backward_input(float *dx, int lddx, const float *dy, int lddy, const float *w,
                               int N, int n_in, int n_out, bool add)
{
    for (int n = 0; n < N; n++)
        for (int i = 0; i < n_in; i++) {
            double sum = add ? (double)dx[(int64_t)n * lddx + i] : 0.0;
            for (int o = 0; o < n_out; o++)
                sum += (double)dy[(int64_t)n * lddy + o] * (double)w[(int64_t)o * n_in + i];
            dx[(int64_t)n * lddx + i] = (float)sum;
        }
}

void ref_linear_backward_weight(float *dw, const float *dy, int lddy, const float *x, int ldx,
                                int N, int n_in, int n_out, bool add)
{
    for (int o = 0; o < n_out; o++)
        for (int i = 0; i < n_in; i++) {
            double sum = add ? (double)dw[(int64_t)o * n_in + i] : 0.0;
            for (int n = 0; n < N; n++)
                sum += (double)dy[(int64_t)n * lddy + o] * (double)x[(int64_t)n * ldx + i];
            dw[(int64_t)o * n_in + i] = (float)sum;
        }
}

void ref_multiply(float *out, const float *up, const float *down, int m, int n, int R)
{
    ref_linear_backward_input(out, n, up, R, down, m, n, R, false);
}
