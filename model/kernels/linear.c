// The three products of a layer y = x w^T. Which operand is transposed follows from Hugging Face's
// [n_out, n_in] weights; no transposed copy is made.
#include "model/kernels/linear.h"

#include "model/kernels/gemm.h"

void linear_forward(float *y, int ldy, const float *x, int ldx, const float *w, int N, int n_in,
                    int n_out, bool add)
{
    gemm(y, ldy, gemm_matrix(x, ldx), gemm_transposed(w, n_in), N, n_out, n_in, add);
}

void linear_backward_input(float *dx, int lddx, const float *dy, int lddy, const float *w, int N,
                           int n_in, int n_out, bool add)
{
    gemm(dx, lddx, gemm_matrix(dy, lddy), gemm_matrix(w, n_in), N, n_in, n_out, add);
}

void linear_backward_weight(float *dw, const float *dy, int lddy, const float *x, int ldx, int N,
                            int n_in, int n_out, bool add)
{
    gemm(dw, n_in, gemm_transposed(dy, lddy), gemm_matrix(x, ldx), n_out, n_in, N, add);
}
