// What the program has to know about the OpenBLAS that it was linked with at run time: which build,
// which kernels, how much memory it packs operands into. The library has no interface for the last,
// so blas_buffer_bytes() follows its source.
#include "train/plan/blas.h"

#include "base/log.h"
#include "model/kernels/gemm.h"
#include "train/parallel/contract.h"

#include <cblas.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    PARALLEL_PTHREAD = 1,         // openblas_get_parallel(): 0 serial, 1 pthread, 2 OpenMP
    MAX_BUFFER_BYTES = 128 << 20, // BUFFER_SIZE of x86-64
    WARM_UP_SIZE = 128,
};

// The configuration begins with the name and the version; the rest of its words are build options.
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

// Two pools of threads on the same cores slow each other down: the pthread build keeps its threads
// spinning for a while after each product.
static void check_threads(void)
{
    if (openblas_get_parallel() != PARALLEL_PTHREAD || omp_get_max_threads() == 1)
        return;
    log_warn(
        "OpenBLAS is the pthread build, whose threads compete with OpenMP's, so it is limited to "
        "one thread; install libopenblas0-openmp for products on %d threads",
        omp_get_max_threads());
    openblas_set_num_threads(1);
}

// Ranks with different kernels train correctly, but only the same placement of ranks repeats such a
// run bit by bit. OpenBLAS is compared as well as the program's own kernels, since LAPACK uses it.
static Status compare_kernels(const Comm *comm)
{
    Contract contract = {0};
    const char *own = gemm_kernel_name();
    contract_add(&contract, "the processor's kernel", "%s%sOpenBLAS %s", own != NULL ? own : "",
                 own != NULL ? " and " : "", openblas_get_corename());
    return contract_warn(&contract, comm,
                         "they round differently, so that the results depend on which rank runs "
                         "where");
}

// Collective.
Status blas_check(const Comm *comm)
{
    check_threads();
    return compare_kernels(comm);
}

// As OpenBLAS 0.3.21 does: param.h has SGEMM_DEFAULT_P and Q, driver/level3/level3.c blocks by
// them.
int64_t blas_buffer_bytes(int64_t rows, int64_t columns, int64_t inner)
{
    const char *core = openblas_get_corename();
    const bool is_avx512 = strcmp(core, "SkylakeX") == 0 || strcmp(core, "Cooperlake") == 0 ||
                           strcmp(core, "Sapphirerapids") == 0;
    const int64_t P = is_avx512 ? 448 : 768, Q = is_avx512 ? 448 : 384;
    int64_t block = inner; // blocks of Q while two are left, then the rest in halves
    if (inner >= 2 * Q)
        block = Q;
    else if (inner > Q)
        block = (inner + 1) / 2;
    const int64_t packed = rows > P ? P + columns : rows;
    const int64_t bytes = packed * block * (int64_t)sizeof(float);
    return bytes < MAX_BUFFER_BYTES ? bytes : MAX_BUFFER_BYTES;
}

// Small products on all threads at once: OpenBLAS maps a packing buffer for each caller on first
// use, which must not happen within a measured step.
void blas_warm_up_threads(void)
{
#pragma omp parallel
    {
        float a[WARM_UP_SIZE * WARM_UP_SIZE] = {0}, c[WARM_UP_SIZE * WARM_UP_SIZE];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, WARM_UP_SIZE, WARM_UP_SIZE,
                    WARM_UP_SIZE, 1.0f, a, WARM_UP_SIZE, a, WARM_UP_SIZE, 0.0f, c, WARM_UP_SIZE);
    }
}
