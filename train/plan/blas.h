// The BLAS that the program really runs with: Debian's alternatives can put another build of
// OpenBLAS under a program linked against the OpenMP one.
#ifndef MHA2MLA_TRAIN_PLAN_BLAS_H
#define MHA2MLA_TRAIN_PLAN_BLAS_H

#include "train/parallel/comm.h"

#include <stdint.h>

// Warns if OpenBLAS brings its own threads beside OpenMP's, and then keeps it to one; and if the
// ranks' machines have other kernels, which round otherwise. FAILED: no memory. Collective.
Status blas_check(const Comm *comm);

enum { BLAS_NAME_BYTES = 96 };

// Bytes that OpenBLAS comes to hold by a product [rows, inner] x [inner, columns], column-major as
// it sees them: it packs all columns for a block of the inner dimension, unless it is done with the
// rows at once. The memory is kept for the next product.
int64_t blas_buffer_bytes(int64_t rows, int64_t columns, int64_t inner);

// Multiplies small matrices in every thread, so that libraries and buffers are paged in.
void blas_warm_up_threads(void);

// "OpenBLAS 0.3.21, OpenMP build, kernels for Haswell"; returns `out`.
const char *blas_name(char out[BLAS_NAME_BYTES]);

#endif
