// The packing buffers of large products. Private to model/kernels.
#ifndef MHA2MLA_MODEL_KERNELS_GEMM_BUFFER_H
#define MHA2MLA_MODEL_KERNELS_GEMM_BUFFER_H

#include <stdint.h>

// Two thirds of the second cache: what a packed block of b may take, since rows of a and c stream
// through the rest.
int64_t gemm_cached_bytes(void);

// Bytes of n_threads' buffers together.
int64_t gemm_buffer_size(int64_t thread_bytes, int n_threads);

// The buffers, thread_bytes (a multiple of 64) apart. Kept from product to product, and made longer
// where they must be, whose contents are lost then.
char *gemm_buffer_find(int64_t thread_bytes, int n_threads);

#endif
