// Everything is divided by the mean diagonal first, so that outputs of any size are in range.
#include "model/convert/ridge.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>

static const double RIDGE = 1e-3;

int64_t ridge_bytes(int D, int Q)
{
    return 2 * (int64_t)D * Q * (int64_t)sizeof(double);
}

// solution [D, Q] = W_o of old [D, Q].
static Status solve(double *solution, const double *old, double *gram, double *cross, int D, int Q)
{
    // cross W_o,0^T is [Q, D]; its transpose is what LAPACK takes by columns.
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, D, Q, Q, 1.0, old, Q, cross, Q, 0.0,
                solution, Q);
    if (LAPACKE_dposv_work(LAPACK_COL_MAJOR, 'U', Q, D, gram, Q, solution, Q) != 0)
        return fail(FAILED, "the heads' outputs have no positive definite second moment");
    for (int64_t i = 0; i < (int64_t)D * Q; i++)
        if (!isfinite(solution[i]))
            return fail(FAILED, "the refitted output projection is not finite");
    return OK;
}

Status ridge_refit(float *o, double *gram, double *cross, int D, int Q)
{
    const int64_t count = (int64_t)D * Q;
    double sum = 0;
    for (int64_t i = 0; i < Q; i++)
        sum += gram[i * (Q + 1)];
    if (!(sum > 0))
        return OK;
    double *old = calloc(1, (size_t)ridge_bytes(D, Q));
    if (old == NULL)
        return fail(FAILED, "no memory to refit an output projection of %d x %d", D, Q);
    for (int64_t i = 0; i < (int64_t)Q * Q; i++) {
        gram[i] *= Q / sum;
        cross[i] *= Q / sum;
    }
    for (int64_t i = 0; i < Q; i++) {
        gram[i * (Q + 1)] += RIDGE;
        cross[i * (Q + 1)] += RIDGE;
    }
    for (int64_t i = 0; i < count; i++)
        old[i] = o[i];
    const Status status = solve(old + count, old, gram, cross, D, Q);
    for (int64_t i = 0; i < count && status == OK; i++)
        o[i] = (float)old[count + i];
    free(old);
    return status;
}
