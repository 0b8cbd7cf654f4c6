// Matrices are stored by rows; LAPACK sees their transposes, which for symmetric ones and their
// factors only swaps the triangles: 'U' there is the lower triangle here.
#include "model/convert/alternating.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

enum { N_GRADIENT_STEPS = 10 };
static const double RIDGE = 1e-12; // of the mean diagonal, where a factor may be singular

static double *place_doubles(Arena *arena, int64_t count)
{
    return arena_place(arena, count, sizeof(double));
}

static void place(Alternation *a, Arena *arena, const LowRankProblem *problem)
{
    const int64_t R = problem->R, D = problem->D, M = problem->n_moments;
    a->problem = problem;
    a->residual = place_doubles(arena, R * D);
    a->preconditioned = place_doubles(arena, R * D);
    a->direction = place_doubles(arena, R * D);
    a->image = place_doubles(arena, R * D);
    a->right = place_doubles(arena, R * D);
    a->products = place_doubles(arena, M * R * D);
    a->inner = place_doubles(arena, M * R * R);
    a->grams = place_doubles(arena, M * R * R);
    a->left_inverse = place_doubles(arena, R * R);
    a->mean = place_doubles(arena, D * D);
    a->up = place_doubles(arena, problem->max_rows * R);
    a->weighted = place_doubles(arena, problem->max_rows * R);
    a->turned = place_doubles(arena, R * D);
    a->tau = place_doubles(arena, R);
    a->n_work = 64 * R; // LAPACK's block size times the columns
    a->work = place_doubles(arena, a->n_work);
}

void alternation_measure(Arena *arena, const LowRankProblem *problem)
{
    Alternation alternation;
    const int64_t mark = arena->used_bytes;
    place(&alternation, arena, problem);
    arena_rewind(arena, mark);
}

Status alternation_start(Alternation *out, const LowRankProblem *problem)
{
    Alternation alternation = {.arena = arena_start("weighted low rank")};
    place(&alternation, &alternation.arena, problem);
    TRY(arena_allocate(&alternation.arena));
    place(&alternation, &alternation.arena, problem);
    *out = alternation;
    return OK;
}

void alternation_end(Alternation *alternation)
{
    arena_release(&alternation->arena);
    *alternation = (Alternation){0};
}

// c = a b or c += a b, all by rows.
static void multiply(double *c, const double *a, const double *b, int m, int n, int k, double beta)
{
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1.0, a, k, b, n, beta, c, n);
}

// c [m, n] = a [m, k] b^T, b [n, k].
static void multiply_transposed(double *c, const double *a, const double *b, int m, int n, int k)
{
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0, a, k, b, k, 0.0, c, n);
}

static int64_t square_of(int side)
{
    return (int64_t)side * side;
}

// Cholesky factor of a symmetric matrix in place, a little added to its diagonal.
static Status factor(double *square, int side, double ridge, const char *what)
{
    double trace = 0;
    for (int64_t i = 0; i < side; i++)
        trace += square[i * (side + 1)];
    for (int64_t i = 0; i < side; i++)
        square[i * (side + 1)] += ridge * trace / side;
    const lapack_int info = LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', side, square, side);
    if (info != 0)
        return fail(FAILED, "weighted low rank: %s is not positive definite (row %d of %d)", what,
                    (int)info, side);
    return OK;
}

// rows [n, side] <- rows times the inverse of the factored symmetric matrix.
static void solve_rows(double *rows, const double *factored, int n, int side)
{
    const lapack_int info =
        LAPACKE_dpotrs_work(LAPACK_COL_MAJOR, 'U', side, n, factored, side, rows, side);
    CHECK(info == 0, "dpotrs: argument %d", -(int)info);
}

// rows [side, n] <- the inverse of the factored symmetric matrix times rows.
static void solve_columns(double *rows, const double *factored, int side, int n)
{
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, side, n, 1.0,
                factored, side, rows, n);
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, side, n, 1.0,
                factored, side, rows, n);
}

// D C and the factor of D C D^T of every moment.
Status alternation_measure_down(Alternation *a, const double *down)
{
    const LowRankProblem *p = a->problem;
    for (int m = 0; m < p->n_moments; m++) {
        double *product = a->products + m * (int64_t)p->R * p->D;
        double *inner = a->inner + m * square_of(p->R);
        multiply(product, down, p->moments[m], p->R, p->D, p->D, 0.0);
        multiply_transposed(inner, product, down, p->R, p->R, p->D);
        TRY(factor(inner, p->R, RIDGE, "the latent's second moment"));
    }
    return OK;
}

// up [n, R] = W C D^T (D C D^T)^-1 after alternation_measure_down().
static void find_up(double *up, const Alternation *a, const LowRankBlock *block)
{
    const LowRankProblem *p = a->problem;
    multiply_transposed(up, block->w, a->products + block->moment * (int64_t)p->R * p->D, block->n,
                        p->R, p->D);
    solve_rows(up, a->inner + block->moment * square_of(p->R), block->n, p->R);
}

void alternation_up(double *up, const Alternation *a, int b)
{
    find_up(up, a, &a->problem->blocks[b]);
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

// Makes the rows of down orthonormal. By columns it is [D, R]: QR there.
static Status orthonormalize(Alternation *a, double *down)
{
    const int D = a->problem->D, R = a->problem->R;
    lapack_int info = LAPACKE_dgeqrf_work(LAPACK_COL_MAJOR, D, R, down, D, a->tau, a->work,
                                          (lapack_int)a->n_work);
    if (info == 0)
        info = LAPACKE_dorgqr_work(LAPACK_COL_MAJOR, D, R, R, down, D, a->tau, a->work,
                                   (lapack_int)a->n_work);
    CHECK(info == 0, "QR: argument %d", -(int)info);
    for (int64_t i = 0; i < (int64_t)R * D; i++)
        if (!isfinite(down[i]))
            return fail(FAILED, "weighted low rank: the down-projection is not finite");
    return OK;
}

// grams and right of the normal equations; returns the trace of all grams.
static double build_equations(Alternation *a)
{
    const LowRankProblem *p = a->problem;
    const int R = p->R, D = p->D;
    double trace = 0;
    memset(a->grams, 0, (size_t)(p->n_moments * square_of(R)) * sizeof *a->grams);
    memset(a->right, 0, (size_t)R * (size_t)D * sizeof *a->right);
    for (int m = 0; m < p->n_moments; m++) {
        double *gram = a->grams + m * square_of(R);
        memset(a->image, 0, (size_t)R * (size_t)D * sizeof *a->image);
        for (int b = 0; b < p->n_blocks; b++) {
            const LowRankBlock *block = &p->blocks[b];
            if (block->moment != m || block->n == 0)
                continue;
            find_up(a->up, a, block);
            multiply(a->weighted, block->a, a->up, block->n, R, block->n, 0.0);
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, R, R, block->n, 1.0, a->up, R,
                        a->weighted, R, 1.0, gram, R);
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, R, D, block->n, 1.0, a->weighted,
                        R, block->w, D, 1.0, a->image, D);
        }
        multiply(a->right, a->image, p->moments[m], R, D, D, 1.0);
        for (int64_t i = 0; i < R; i++)
            trace += gram[i * (R + 1)];
    }
    return trace;
}

// Factors of the two sides of the preconditioner.
static Status build_preconditioner(Alternation *a)
{
    const LowRankProblem *p = a->problem;
    const int R = p->R;
    memset(a->left_inverse, 0, (size_t)square_of(R) * sizeof *a->left_inverse);
    memset(a->mean, 0, (size_t)square_of(p->D) * sizeof *a->mean);
    for (int m = 0; m < p->n_moments; m++) {
        const double *gram = a->grams + m * square_of(R);
        double weight = 0;
        for (int64_t i = 0; i < R; i++)
            weight += gram[i * (R + 1)];
        for (int64_t i = 0; i < square_of(R); i++)
            a->left_inverse[i] += gram[i];
        for (int64_t i = 0; i < square_of(p->D); i++)
            a->mean[i] += weight * p->moments[m][i];
    }
    TRY(factor(a->left_inverse, R, RIDGE, "the sum of U^T A U"));
    return factor(a->mean, p->D, RIDGE, "the mean of the moments");
}

static void precondition(Alternation *a)
{
    const int R = a->problem->R, D = a->problem->D;
    memcpy(a->preconditioned, a->residual, (size_t)R * (size_t)D * sizeof(double));
    solve_columns(a->preconditioned, a->left_inverse, R, D);
    solve_rows(a->preconditioned, a->mean, R, D);
}

// image = sum over moments of gram x C.
static void apply(Alternation *a, const double *x)
{
    const LowRankProblem *p = a->problem;
    for (int m = 0; m < p->n_moments; m++) {
        multiply(a->turned, a->grams + m * square_of(p->R), x, p->R, p->D, p->R, 0.0);
        multiply(a->image, a->turned, p->moments[m], p->R, p->D, p->D, m == 0 ? 0.0 : 1.0);
    }
}

// down <- the solution of the normal equations, nearly.
static void descend(Alternation *a, double *down)
{
    const int64_t count = (int64_t)a->problem->R * a->problem->D;
    apply(a, down);
    for (int64_t i = 0; i < count; i++)
        a->residual[i] = a->right[i] - a->image[i];
    precondition(a);
    memcpy(a->direction, a->preconditioned, (size_t)count * sizeof(double));
    double slope = dot(a->residual, a->preconditioned, count);
    for (int step = 0; step < N_GRADIENT_STEPS && slope > 0; step++) {
        apply(a, a->direction);
        const double curvature = dot(a->direction, a->image, count);
        if (!(curvature > 0))
            return;
        cblas_daxpy((int)count, slope / curvature, a->direction, 1, down, 1);
        cblas_daxpy((int)count, -slope / curvature, a->image, 1, a->residual, 1);
        precondition(a);
        const double next = dot(a->residual, a->preconditioned, count);
        for (int64_t i = 0; i < count; i++)
            a->direction[i] = a->preconditioned[i] + next / slope * a->direction[i];
        slope = next;
    }
}

Status alternation_run(Alternation *a, double *down, int n_sweeps)
{
    TRY(orthonormalize(a, down));
    for (int sweep = 0; sweep < n_sweeps; sweep++) {
        TRY(alternation_measure_down(a, down));
        if (!(build_equations(a) > 0))
            return OK;
        TRY(build_preconditioner(a));
        descend(a, down);
        TRY(orthonormalize(a, down));
    }
    return OK;
}
