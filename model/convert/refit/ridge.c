// ridge_refit() divides everything by the mean diagonal first, so that outputs of any size are in
// range; sums of ridge_fit() are of outputs in float32, whose squares doubles hold.
#include "model/convert/refit/ridge.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>

static const double RIDGE = 1e-3;

int64_t ridge_bytes(int D, int Q)
{
    return 2 * (int64_t)D * Q * (int64_t)sizeof(double);
}

// solution [D, Q] = solution gram^-1; LAPACK takes it by columns.
static Status solve(double *solution, double *gram, int D, int Q)
{
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
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, D, Q, Q, 1.0, old, Q, cross, Q, 0.0,
                old + count, Q);
    const Status status = solve(old + count, gram, D, Q);
    for (int64_t i = 0; i < count && status == OK; i++)
        o[i] = (float)old[count + i];
    free(old);
    return status;
}

// sum of o [D, Q] times the transpose of moment [Q, D]
static double inner_product(const double *o, const double *moment, int D, int Q)
{
    double sum = 0;
    for (int64_t i = 0; i < Q; i++)
        sum += cblas_ddot(D, o + i, Q, moment + i * D, 1);
    return sum;
}

// gram + weight 1 takes the place of gram, and for its solution W the normal equations give
// W gram = moment^T + weight (old - W): no second product tells the error.
static Status fit(double *solution, const double *old, double *gram, const double *moment,
                  double weight, int D, int Q, double excess[2])
{
    const int64_t count = (int64_t)D * Q;
    cblas_dsymm(CblasRowMajor, CblasRight, CblasUpper, D, Q, 1.0, gram, Q, old, Q, 0.0, solution,
                Q);
    excess[0] = cblas_ddot(D * Q, solution, 1, old, 1) - 2 * inner_product(old, moment, D, Q);
    for (int64_t i = 0; i < Q; i++) {
        gram[i * (Q + 1)] += weight;
        for (int64_t d = 0; d < D; d++)
            solution[d * Q + i] = moment[i * D + d] + weight * old[d * Q + i];
    }
    TRY(solve(solution, gram, D, Q));
    excess[1] = -inner_product(solution, moment, D, Q);
    for (int64_t i = 0; i < count; i++)
        excess[1] += weight * (old[i] - solution[i]) * solution[i];
    return OK;
}

Status ridge_fit(float *o, double *gram, const double *moment, double lambda, int D, int Q,
                 double excess[2])
{
    const int64_t count = (int64_t)D * Q;
    double sum = 0;
    int n_live = 0;
    for (int64_t i = 0; i < Q; i++) {
        sum += gram[i * (Q + 1)];
        n_live += gram[i * (Q + 1)] > 0;
    }
    excess[0] = excess[1] = 0;
    if (!(sum > 0))
        return OK;
    double *old = calloc(1, (size_t)ridge_bytes(D, Q));
    if (old == NULL)
        return fail(FAILED, "no memory to fit an output projection of %d x %d", D, Q);
    for (int64_t i = 0; i < count; i++)
        old[i] = o[i];
    const Status status = fit(old + count, old, gram, moment, lambda * sum / n_live, D, Q, excess);
    for (int64_t i = 0; i < count && status == OK; i++)
        o[i] = (float)old[count + i];
    free(old);
    return status;
}
