#include "train/blas.h"

#include "base/log.h"

#include <cblas.h>
#include <omp.h>

enum { PARALLEL_PTHREAD = 1 }; // openblas_get_parallel(): 0 serial, 1 pthread, 2 OpenMP

void blas_check(void)
{
    if (openblas_get_parallel() != PARALLEL_PTHREAD || omp_get_max_threads() == 1)
        return;
    log_warn("OpenBLAS runs its pthread build, which fights with OpenMP: its threads are off; "
             "install libopenblas0-openmp for products on %d threads",
             omp_get_max_threads());
    openblas_set_num_threads(1);
}
