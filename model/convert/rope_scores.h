// Calibration statistics for the choice of RoPE pairs: how large each pair of a head's queries and
// keys is on average (MHA2MLA, arXiv 2502.14837, section 3.1).
//
//     |x_p| = sqrt(x_p^2 + x_{p+E/2}^2) before RoPE, summed over calibration tokens
//
//     RopeScores scores;
//     TRY(rope_scores_create(&scores, &shape));       // or rope_scores_read()
//     for (...)                                       // every layer, 0 first, for every batch
//         rope_scores_add(&scores, layer, qkv, n_tokens);
//     status = rope_scores_write(&scores, "scores.h5");
//     rope_scores_release(&scores);
#ifndef MHA2MLA_MODEL_CONVERT_ROPE_SCORES_H
#define MHA2MLA_MODEL_CONVERT_ROPE_SCORES_H

#include "base/status.h"
#include "model/kernels/rows.h"
#include "model/shape.h"

// Zero at first; the trainer adds them up over ranks. All doubles lie in one block of
// rope_scores_count(), so that one reduction sums them.
typedef struct RopeScores {
    double *q_norm;   // [L, H, E/2] sum of |q_p|, in `block`
    double *k_norm;   // [L, K, E/2] sum of |k_p|, in `block`
    double *n_tokens; // [1], in `block`
    double *block;    // owned
    ModelShape shape;
} RopeScores;

int64_t rope_scores_count(const ModelShape *shape); // doubles in the block

// Zeroed sums for a model with L, H, K, E of the shape. FAILED if memory is short.
Status rope_scores_create(RopeScores *out, const ModelShape *shape);
void rope_scores_release(RopeScores *scores);

// Adds the pair norms of one layer's queries and keys before RoPE. Tokens are counted at layer 0.
// The order of the sums does not depend on the number of threads.
void rope_scores_add(RopeScores *scores, int layer,
                     Rows qkv, // [N, ...]: H heads of queries, then K heads of keys, E wide; read
                     int64_t n_tokens);

// Writes (all or nothing) or reads a file: HDF5 datasets /q_norm, /k_norm with checksums,
// attributes version, n_layers, n_heads, n_kv_heads, head_dim, n_tokens. Writing: FAILED with
// HDF5's reason. Reading: the caller releases *out; BAD_INPUT if the file is damaged, not of this
// kind, or its L, H, K, E are not the model's; shape NULL takes them as they are in the file.
Status rope_scores_write(const RopeScores *scores, const char *path);
Status rope_scores_read(RopeScores *out, const ModelShape *shape, const char *path);

#endif
