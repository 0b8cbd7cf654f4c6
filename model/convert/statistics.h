// What the conversions `whitened` and `closed` know of a layer: second moments of its attention's
// input and of its heads, as means over calibration tokens. Notation: x_j input of attention after
// its norm, a_ij attention weights of a query head, xbar_i = sum_j a_ij x_j, v values, W_o,h the
// head's columns of the output projection.
//
//     covariance [D, D]            E x x^T
//     value [n_pools, D, D]        mean over the pool's heads of  E xbar xbar^T
//     key   [n_pools, D, D]        mean over the pool's heads of
//                                  tau_h E sum_j a_ij (x_j - xbar_i)(x_j - xbar_i)^T
//     tau   [H]                    E sum_j a_ij |W_o,h (v_j - vbar_i)|^2
//     query [H, E, E]              E q q^T / E, queries before RoPE
//     gram  [H, S, S], S = 3 E/2   Gram matrix of what pairs add to the scores: for every pair p
//                                  t_p rotated; f1_p = q.k; f2_p = -q_1 k_2 + q_2 k_1; all times
//                                  E^-1/2, centred by a over j, weighted by sqrt(a). Half of a
//                                  quadratic form in it is the second-order Kullback-Leibler
//                                  divergence between attention distributions.
//
// A pool is all heads of the layer (n_pools 1), those of a KV head (K), or one head (H).
//
//     LayerStatistics statistics;
//     TRY(layer_statistics_create(&statistics, &shape, n_pools));
//     ... statistics_window.h, or statistics_file.h ...
//     layer_statistics_release(&statistics);
#ifndef MHA2MLA_MODEL_CONVERT_STATISTICS_H
#define MHA2MLA_MODEL_CONVERT_STATISTICS_H

#include "base/arena.h"
#include "model/shape.h"

typedef enum StatisticsPool { POOL_LAYER, POOL_KV_HEAD, POOL_HEAD } StatisticsPool;

extern const char *const statistics_pool_names[]; // by value of the enum, closed by NULL

typedef struct LayerStatistics {
    Arena arena; // owns what follows
    int n_pools;
    double *covariance, *value, *key, *tau, *query, *gram;
} LayerStatistics;

// The features of a head: rotated, unrotated along, unrotated across, E/2 pairs each.
static inline int statistics_features(const ModelShape *shape)
{
    return 3 * (shape->head_dim / 2);
}

int statistics_n_pools(const ModelShape *shape, StatisticsPool pool);

// The pool that query head h is in.
static inline int statistics_pool_of(const ModelShape *shape, int n_pools, int h)
{
    return h / (shape->n_heads / n_pools);
}

// Zeros. FAILED if memory is short.
Status layer_statistics_create(LayerStatistics *out, const ModelShape *shape, int n_pools);
void layer_statistics_release(LayerStatistics *statistics);

// Adds to a measuring arena what layer_statistics_create() takes.
void layer_statistics_measure(Arena *arena, const ModelShape *shape, int n_pools);

// BAD_INPUT, naming the layer, if a number is not finite, or so large that what is computed from it
// would not be, or a mean square is negative.
Status layer_statistics_check(const LayerStatistics *statistics, const ModelShape *shape,
                              int layer);

// The same of `count` matrices [side, side] of one kind.
Status statistics_check_squares(const double *squares, int64_t count, int side, const char *name,
                                int layer);

#endif
