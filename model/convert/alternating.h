// Weighted joint low rank: one down-projection D for several blocks of rows, each with a metric on
// either side,
//
//     min over U_b, D of  sum_b tr A_b (W_b - U_b D) C_b (W_b - U_b D)^T
//
// which has no closed solution unless all metrics are equal. From a first D it alternates:
//
//     U_b = W_b C_b D^T (D C_b D^T)^-1
//     D   from  sum_b (U_b^T A_b U_b) D C_b = sum_b U_b^T A_b W_b C_b  by conjugate gradients, with
//         (sum_b U_b^T A_b U_b)^-1 (x) (mean of C_b weighted with tr U_b^T A_b U_b)^-1 in front,
//     and D is made orthonormal.
//
//     Alternation alternation;
//     TRY(alternation_start(&alternation, &problem));
//     TRY(alternation_run(&alternation, down, 6));       // down [R, D] in, best out
//     TRY(alternation_measure_down(&alternation, down));
//     alternation_up(up, &alternation, b);               // [n, R] of block b
//     alternation_end(&alternation);
//
// Blocks with the same C_b name the same moment; the cost goes with the number of moments.
#ifndef MHA2MLA_MODEL_CONVERT_ALTERNATING_H
#define MHA2MLA_MODEL_CONVERT_ALTERNATING_H

#include "base/arena.h"

typedef struct LowRankBlock {
    const double *w; // [n, D]
    const double *a; // [n, n] positive semidefinite
    int n, moment;   // index of C_b
} LowRankBlock;

typedef struct LowRankProblem { // borrowed throughout
    const LowRankBlock *blocks;
    const double *const *moments; // [n_moments] of [D, D], positive definite
    int n_blocks, n_moments, D, R, max_rows;
} LowRankProblem;

typedef struct Alternation {
    Arena arena; // owns what follows
    const LowRankProblem *problem;
    double *residual, *preconditioned, *direction, *image, *right; // [R, D]
    double *products;                                              // [n_moments, R, D] D C_b
    double *inner;         // [n_moments, R, R] Cholesky factors of D C_b D^T
    double *grams;         // [n_moments, R, R] sums of U_b^T A_b U_b
    double *left_inverse;  // [R, R] Cholesky factor of the sum of grams
    double *mean;          // [D, D] Cholesky factor of the weighted mean of C_b
    double *up, *weighted; // [max_rows, R] U_b, A_b U_b
    double *turned, *tau;  // [R, D], [R] of QR
    double *work;          // of LAPACK
    int64_t n_work;
} Alternation;

Status alternation_start(Alternation *out, const LowRankProblem *problem); // FAILED: no memory
void alternation_end(Alternation *alternation);
void alternation_measure(Arena *arena, const LowRankProblem *problem);

// down [R, D]: the start on entry, orthonormal rows on return. Sweeps that would have to divide by
// nothing (all A_b zero) leave it as it is. FAILED if LAPACK does not succeed.
Status alternation_run(Alternation *alternation, double *down, int n_sweeps);

// Makes ready for alternation_up() with this down-projection [R, D]. FAILED if it is not of full
// rank.
Status alternation_measure_down(Alternation *alternation, const double *down);

// The best up [n, R] of block b, n > 0.
void alternation_up(double *up, const Alternation *alternation, int b);

#endif
