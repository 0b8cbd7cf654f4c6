#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>

static double inverse_rms(const float *x, int D, double eps)
{
    double sum = 0;
    for (int d = 0; d < D; d++)
        sum += (double)x[d] * (double)x[d];
    return 1.0 / sqrt(sum / D + eps);
}

void exact_rmsnorm_forward(double *y, const float *x, const float *w, int N, int D, float eps)
{
    for (int n = 0; n < N; n++) {
        double inv_rms = inverse_rms(x + (int64_t)n * D, D, (double)eps);
        for (int d = 0; d < D; d++)
            y[(int64_t)n * D + d] = (double)w[d] * (double)x[(int64_t)n * D + d] * inv_rms;
    }
}

void ref_rmsnorm_forward(float *y, float *inv_rms, const float *x, const float *w, int N, int D,
                         float eps)
{
    double *exact = ref_doubles((int64_t)N * D);
    exact_rmsnorm_forward(exact, x, w, N, D, eps);
    ref_narrow(y, exact, (int64_t)N * D);
    for (int n = 0; n < N; n++)
        inv_rms[n] = (float)inverse_rms(x + (int64_t)n * D, D, (double)eps);
    free(exact);
}

// With s = 1/rms: dy_i/dx_j = w_i (s delta_ij - x_i x_j s^3 / D).
void ref_rmsnorm_backward(float *dx, float *dw, const float *dy, const float *inv_rms,
                          const float *x, const float *w, int N, int D)
{
    double *dw_sum = ref_doubles(D);
    for (int n = 0; n < N; n++) {
        const float *x_row = x + (int64_t)n * D, *dy_row = dy + (int64_t)n * D;
        double s = (double)inv_rms[n];
        for (int j = 0; j < D; j++) {
            double sum = 0;
            for (int i = 0; i < D; i++) {
                double slope = -(double)x_row[i] * (double)x_row[j] * s * s * s / D;
                if (i == j)
                    slope += s;
                sum += (double)dy_row[i] * (double)w[i] * slope;
            }
            dx[(int64_t)n * D + j] = (float)((double)dx[(int64_t)n * D + j] + sum);
            dw_sum[j] += (double)dy_row[j] * (double)x_row[j] * s;
        }
    }
    ref_narrow_add(dw, dw_sum, D);
    free(dw_sum);
}
