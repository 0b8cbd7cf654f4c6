// The BLAS that the program is running with, which may not be the one it was linked with: Debian's
// alternatives can put another build of OpenBLAS in its place.
#ifndef MHA2MLA_TRAIN_PLAN_BLAS_H
#define MHA2MLA_TRAIN_PLAN_BLAS_H

#include "train/parallel/comm.h"

#include <stdint.h>

// Warns if OpenBLAS has threads of its own beside OpenMP's, and limits it to one; warns if the
// ranks' processors use different kernels, which round differently. FAILED: no memory. Collective.
Status blas_check(const Comm *comm);

enum { BLAS_NAME_BYTES = 96 };

// Bytes of buffer that OpenBLAS uses for a product [rows, inner] x [inner, columns], column-major
// as it sees them, and keeps for later products: it packs all columns for a block of the inner
// dimension, unless all rows fit into one block.
int64_t blas_buffer_bytes(int64_t rows, int64_t columns, int64_t inner);

// Multiplies small matrices in every thread, so that libraries and buffers are paged in.
void blas_warm_up_threads(void);

// "OpenBLAS 0.3.21, OpenMP build, kernels for Haswell"; returns `out`.
const char *blas_name(char out[BLAS_NAME_BYTES]);

#endif
