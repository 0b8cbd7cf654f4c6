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
//     convert_shared(&mla, &original);
//     for (int l = 0; l < shape.n_layers; l++)
//         TRY(convert_layer(&mla, &original, l));
//
// Layers are independent: ranks may convert different ones and exchange the results.
#ifndef MHA2MLA_MODEL_CONVERT_H
#define MHA2MLA_MODEL_CONVERT_H

#include "model/model.h"

// Copies what no layer owns: embedding, final norm, head.
void convert_shared(Model *mla, const Model *original);

// Fills layer `layer` of `mla` from the original by mla->rope_pairs and mla->shape.svd.
// FAILED if LAPACK does not converge or memory is short; BAD_INPUT if weights are not finite.
Status convert_layer(Model *mla, const Model *original, int layer);

// All of it, every layer, on this process.
Status convert_model(Model *mla, const Model *original);

// Rank-R factors of A [m, n] by SVD: up [m, R] down [R, n] with up = U S^1/2, down = S^1/2 V^T.
Status convert_factorize(float *up, float *down, const float *a, int m, int n, int R);

#endif
