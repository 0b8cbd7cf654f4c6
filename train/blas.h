// The BLAS that the program really runs with: Debian's alternatives can put another build of
// OpenBLAS under a program linked against the OpenMP one.
#ifndef MHA2MLA_TRAIN_BLAS_H
#define MHA2MLA_TRAIN_BLAS_H

// Warns if OpenBLAS brings its own threads beside OpenMP's, and then keeps it to one.
void blas_check(void);

enum { BLAS_NAME_BYTES = 96 };

// "OpenBLAS 0.3.21, OpenMP build, kernels for Haswell"; returns `out`.
const char *blas_name(char out[BLAS_NAME_BYTES]);

#endif
