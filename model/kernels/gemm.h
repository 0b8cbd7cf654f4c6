// Large matrix products, divided among OpenMP's threads. In float32 by the kernels of
// model/kernels/tile.h on AVX-512, elsewhere by OpenBLAS; in bfloat16 by those of
// model/kernels/tile_bf16.h.
//
//     gemm(COMPUTE_FLOAT32, rows_f32(y, n_out), gemm_matrix(x, n_in), gemm_transposed(w, n_in),
//          N, n_out, n_in, false);
//
// With our kernels the bits of an element depend on k alone, not on m, n or the number of threads.
// Packing buffers of gemm_buffer_bytes() are allocated by the first product and kept. Not
// re-entrant: one product at a time.
#ifndef MHA2MLA_MODEL_KERNELS_GEMM_H
#define MHA2MLA_MODEL_KERNELS_GEMM_H

#include "model/kernels/compute.h"
#include "model/kernels/rows.h"

#include <stdbool.h>
#include <stdint.h>

// Element (i, j) is the number i * row_step + j * column_step of data; one of the steps is 1.
typedef struct GemmMatrix {
    const void *data;
    DType dtype; // DTYPE_F32 or, for products in bfloat16, DTYPE_BF16
    int64_t row_step, column_step;
} GemmMatrix;

static inline GemmMatrix gemm_matrix(const float *data, int ld)
{
    return (GemmMatrix){data, DTYPE_F32, ld, 1};
}

static inline GemmMatrix gemm_transposed(const float *data, int ld)
{
    return (GemmMatrix){data, DTYPE_F32, 1, ld};
}

static inline GemmMatrix gemm_rows(Rows rows)
{
    return (GemmMatrix){rows.data, rows.dtype, rows.ld, 1};
}

static inline GemmMatrix gemm_rows_transposed(Rows rows)
{
    return (GemmMatrix){rows.data, rows.dtype, 1, rows.ld};
}

// c = a b, or c += a b if `add`. In bfloat16, a and b are rounded as they are packed, and a c in
// bfloat16 is rounded once, from the float32 sum; `add` is for a c in float32.
void gemm(ComputeType type,
          Rows c,       // [m, n]
          GemmMatrix a, // [m, k]
          GemmMatrix b, // [k, n]
          int m, int n, int k, bool add);

// The same by our kernels on any machine.
void gemm_reproducible(ComputeType type, Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k,
                       bool add);

// Bytes of packing buffers on n_threads; 0 where products are OpenBLAS's.
int64_t gemm_buffer_bytes(ComputeType type, int n_threads);

// In float32: "AVX-512"; NULL if products are OpenBLAS's. For bfloat16 see compute.h.
const char *gemm_kernel_name(void);

#endif
