#include "model/linear.h"

#include <cblas.h>

void linear_forward(float *y, int ldy, const float *x, int ldx, const float *w, int N, int n_in,
                    int n_out, bool add)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, N, n_out, n_in, 1.0f, x, ldx, w, n_in,
                add ? 1.0f : 0.0f, y, ldy);
}

void linear_backward_input(float *dx, int lddx, const float *dy, int lddy, const float *w, int N,
                           int n_in, int n_out, bool add)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, N, n_in, n_out, 1.0f, dy, lddy, w, n_in,
                add ? 1.0f : 0.0f, dx, lddx);
}

void linear_backward_weight(float *dw, const float *dy, int lddy, const float *x, int ldx, int N,
                            int n_in, int n_out)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n_out, n_in, N, 1.0f, dy, lddy, x, ldx,
                1.0f, dw, n_in);
}
