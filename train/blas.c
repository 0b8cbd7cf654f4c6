#include "train/blas.h"

#include "base/log.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

enum { PARALLEL_PTHREAD = 1 }; // openblas_get_parallel(): 0 serial, 1 pthread, 2 OpenMP

const char *blas_name(char out[BLAS_NAME_BYTES])
{
    static const char *const builds[] = {"serial", "pthread", "OpenMP"};
    const int parallel = openblas_get_parallel();
    const char *config = openblas_get_config(); // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..."
    size_t length = strcspn(config, " ");
    if (config[length] == ' ')
        length += 1 + strcspn(config + length + 1, " ");
    snprintf(out, BLAS_NAME_BYTES, "%.*s, %s build, kernels for %.32s",
             (int)(length < 32 ? length : 32), config,
             parallel >= 0 && parallel < 3 ? builds[parallel] : "unknown", openblas_get_corename());
    return out;
}

void blas_check(void)
{
    if (openblas_get_parallel() != PARALLEL_PTHREAD || omp_get_max_threads() == 1)
        return;
    log_warn("OpenBLAS runs its pthread build, which fights with OpenMP: its threads are off; "
             "install libopenblas0-openmp for products on %d threads",
             omp_get_max_threads());
    openblas_set_num_threads(1);
}
