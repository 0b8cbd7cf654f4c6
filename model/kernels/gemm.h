// Large matrix products in float: on AVX-512 by the kernels of model/kernels/tile.h, elsewhere by
// OpenBLAS; divided among OpenMP's threads here in either case.
//
//     gemm(y, n_out, gemm_matrix(x, n_in), gemm_transposed(w, n_in), N, n_out, n_in, false);
//
// With our kernels every element is a sum over blocks of k in their order, each block a sum in the
// order of k: the bits depend on k alone, not on m, n or the number of threads. Packing buffers of
// gemm_buffer_bytes() are allocated by the first product and kept. Not re-entrant: one product at a
// time.
#ifndef MHA2MLA_MODEL_KERNELS_GEMM_H
#define MHA2MLA_MODEL_KERNELS_GEMM_H

#include <stdbool.h>
#include <stdint.h>

// Element (i, j) lies at data[i * row_step + j * column_step]; one of the steps is 1.
typedef struct GemmMatrix {
    const float *data;
    int64_t row_step, column_step;
} GemmMatrix;

static inline GemmMatrix gemm_matrix(const float *data, int ld)
{
    return (GemmMatrix){data, ld, 1};
}

static inline GemmMatrix gemm_transposed(const float *data, int ld)
{
    return (GemmMatrix){data, 1, ld};
}

// c = a b, or c += a b if `add`.
void gemm(float *c, int ldc, // [m, n]
          GemmMatrix a,      // [m, k]
          GemmMatrix b,      // [k, n]
          int m, int n, int k, bool add);

// The same by our kernels on any machine.
void gemm_reproducible(float *c, int ldc, GemmMatrix a, GemmMatrix b, int m, int n, int k,
                       bool add);

// Bytes of packing buffers on n_threads; 0 where products are OpenBLAS's.
int64_t gemm_buffer_bytes(int n_threads);

// "AVX-512"; NULL if products are OpenBLAS's.
const char *gemm_kernel_name(void);

#endif
