// Conversion of original attention to MLA: rows of W_q and W_k are sorted by kept RoPE pairs, and
// the remaining key rows and the value rows are factorized (MHA2MLA, section 3.2).
//
//     joint  [W_kc; W_v] = U S V^T cut to R:  W_dkv = S^1/2 V^T [R, D],  [W_uk; W_uv] = U S^1/2
//     split  the same for W_kc and W_v apart, R/2 each
//
//     Model mla;
//     TRY(shape_convert(&shape, &original.shape, 4, 16, SVD_JOINT));
//     TRY(model_create(&mla, &shape));
//     TRY(rope_select(mla.rope_pairs, &shape, shape.rope_pairs, ROPE_2NORM, &scores));
//     TRY(convert_shared(&mla, &original));
//     for (int l = 0; l < shape.n_layers; l++)
//         TRY(convert_layer(&mla, &original, l));
//
// Layers are independent: ranks may convert different ones and exchange the results. Nothing is
// owned beyond a call: convert_layer() allocates its working memory and frees it.
#ifndef MHA2MLA_MODEL_CONVERT_H
#define MHA2MLA_MODEL_CONVERT_H

#include "model/model.h"

// Copies what no layer owns: embedding, final norm, head. BAD_INPUT if it is not finite.
Status convert_shared(Model *mla, const Model *original);

// Fills layer `layer` of `mla` from the original by mla->rope_pairs (ascending rows) and
// mla->shape.svd. FAILED if LAPACK does not converge or memory is short; BAD_INPUT names the tensor
// of the layer whose weights are not finite.
Status convert_layer(Model *mla, const Model *original, int layer);

// All of it, every layer, on this process.
Status convert_model(Model *mla, const Model *original);

// Adds to a measuring arena what convert_layer() works in for an MLA shape. FAILED if a layer's
// matrix is too large for LAPACK.
Status convert_measure(Arena *arena, const ModelShape *shape);

// Rank-R factors of A [m, n], R in 1..min(m, n), by SVD: up [m, R] and down [R, n] with
// up = U S^1/2, down = S^1/2 V^T, largest singular value first. up down is the rank-R matrix
// nearest to A; directions A does not have (rank below R) are zero in both factors up to rounding.
// FAILED as above; BAD_INPUT if A is not finite.
Status convert_factorize(float *up, float *down, const float *a, int m, int n, int R);

#endif
