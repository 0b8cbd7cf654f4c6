// The three products of a layer y = x w^T. Which operand is transposed follows from Hugging Face's
// [n_out, n_in] weights; no transposed copy is made.
#include "model/kernels/linear.h"

#include "model/kernels/gemm.h"

void linear_forward(ComputeType type, Rows y, Rows x, const float *w, int N, int n_in, int n_out,
                    bool add)
{
    gemm(type, y, gemm_rows(x), gemm_transposed(w, n_in), N, n_out, n_in, add);
}

void linear_backward_input(ComputeType type, Rows dx, Rows dy, const float *w, int N, int n_in,
                           int n_out, bool add)
{
    gemm(type, dx, gemm_rows(dy), gemm_matrix(w, n_in), N, n_in, n_out, add);
}

void linear_backward_weight(ComputeType type, float *dw, Rows dy, Rows x, int N, int n_in,
                            int n_out, bool add)
{
    if (dw == NULL) // frozen
        return;
    gemm(type, rows_f32(dw, n_in), gemm_rows_transposed(dy), gemm_rows(x), n_out, n_in, N, add);
}
