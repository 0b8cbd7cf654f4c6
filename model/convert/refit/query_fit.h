// Refits the queries of a converted layer: the rows of W_q of a query head whose scores with the
// keys that conversion has left are nearest to the original's, on inputs of the original,
//
//     min over W  sum_i sum_j a_ij (e_ij - ebar_i)^2 + lambda |W - W_0|^2,
//     e_ij = s_ij - (W x_i)^T k_j / sqrt E,   ebar_i = sum_j a_ij e_ij,
//
// s and a the original's scores and attention weights, k_j the converted keys, rotated and not, and
// W x_i rotated as a query is. A score that all keys of a query share changes no softmax, hence the
// difference from the mean. The norm of the ridge is that of the problem itself: the mean second
// moment of the keys beside that of the inputs, times 1 %.
//
//     QueryFit fit;
//     TRY(query_fit_start(&fit, &mla, &original, n_windows, T));
//     for (int l = 0; l < n_layers; l++) {
//         ... fit.x = the layer's normed inputs, from the original's stream ...
//         TRY(query_fit_layer(&fit, l));
//         for (int h = 0; h < n_heads; h++)
//             query_fit_head(&fit, h);                  // replaces the head's rows of W_q
//     }
//     query_fit_release(&fit);
//
// Not collective: any rank may take any head, with the same bits. Keys and output projection stay,
// so the latter is best refitted afterwards (ridge.h). No norms of heads (qk_norm).
#ifndef MHA2MLA_MODEL_CONVERT_REFIT_QUERY_FIT_H
#define MHA2MLA_MODEL_CONVERT_REFIT_QUERY_FIT_H

#include "base/arena.h"
#include "model/model.h"

typedef struct QueryFit {
    const Model *mla, *original; // borrowed; rows of W_q of the first are written
    int n_windows, T, layer;
    int max_iterations; // of conjugate gradients for a head; query_fit_start() sets both
    double tolerance;   // of the preconditioned residual's square, in parts of the first
    Arena arena;        // owns what follows; n = 2P + NoPE dims of a head
    int32_t *all_pairs; // [E/2] 0, 1, ...
    float *cos_table;   // [T, E/2]
    float *sin_table;   // [T, E/2]
    float *x;           // [n_windows, T, D]
    double *x_moment;   // [D, D]
    float *x_inverse;   // [D, D] of their second moment
    double x_mean;      // its mean diagonal
    float *keys;        // [n_windows, T, n] of a head, over sqrt E
    float *weights;     // [n_windows, T, T] a
    float *scores;      // [T, T] of one window
    float *queries;     // [T, max(n, E)]
    float *others;      // [T, max(n, E, R)]
    float *w;           // [n, D] rows of the head
    float *bias;        // [n] theirs
    float *change, *residual, *direction, *product, *scaled, *half_scaled; // [n, D]
    double *key_moment;                                                    // [n, n]
    float *ridge;       // [n, n] the norm of the ridge
    float *key_inverse; // [n, n]
    float *mass;        // [T]
} QueryFit;

// FAILED if memory is short.
Status query_fit_start(QueryFit *out, const Model *mla, const Model *original, int n_windows,
                       int T);
void query_fit_release(QueryFit *fit); // a zeroed one is allowed

// To be called when x holds the inputs of this layer. FAILED if LAPACK does not succeed.
Status query_fit_layer(QueryFit *fit, int layer);

// A head of which nothing can be told (dead keys) stays as it is.
void query_fit_head(QueryFit *fit, int head);

// Bytes that query_fit_start() allocates, and operations of a head at most.
int64_t query_fit_bytes(const ModelShape *mla, int n_windows, int T);
double query_fit_flops(const ModelShape *mla, int n_windows, int T);

#endif
