// Large products in bfloat16, added in float32. Private to model/kernels: model/kernels/gemm.h is
// the interface.
#ifndef MHA2MLA_MODEL_KERNELS_GEMM_BF16_H
#define MHA2MLA_MODEL_KERNELS_GEMM_BF16_H

#include "model/kernels/gemm.h"

void gemm_bf16(Rows c, GemmMatrix a, GemmMatrix b, int m, int n, int k, bool add);

int64_t gemm_bf16_buffer_bytes(int n_threads);

#endif
