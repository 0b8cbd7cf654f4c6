// Conversion of original attention to MLA: rows of W_q and W_k are sorted by kept RoPE pairs, and
// the remaining key rows and the value rows are factorized (MHA2MLA, section 3.2).
//
//     joint  [W_kc; W_v] = U S V^T cut to R:  W_dkv = S^1/2 V^T [R, D],  [W_uk; W_uv] = U S^1/2
//     split  the same for W_kc and W_v apart, R/2 each
//
//     Model mla;
// In the shared form (model/convert/shared_layer.h) a layer keeps P slots among the pairs of all
// its KV heads, and every query head has up-projections of its own.
//
//     TRY(shape_convert(&shape, source.shape, 4, 16, SVD_JOINT));
//     TRY(model_create(&mla, &shape));
//     TRY(rope_select(mla.rope_pairs, &shape, shape.rope_pairs, ROPE_2NORM, &scores));
//     TRY(convert_outside_layers(&mla, &source));
//     for (int l = 0; l < shape.n_layers; l++)
//         TRY(convert_layer(&mla, &source, l, &recipe, NULL, &statistics));
//
// The original is read tensor by tensor (model/weight_source.h) and need not be in memory: besides
// the converted model there is one layer's attention. Layers are independent, so ranks can convert
// different ones and exchange the results. convert_layer() allocates its working memory and frees
// it.
#ifndef MHA2MLA_MODEL_CONVERT_CONVERT_H
#define MHA2MLA_MODEL_CONVERT_CONVERT_H

#include "model/convert/recipe.h"
#include "model/convert/statistics.h"
#include "model/model.h"

// Copies what no layer owns: embedding, final norm, head. Errors are those of the source.
Status convert_outside_layers(Model *mla, const WeightSource *original);

// Fills layer `layer` of `mla` from the original by mla->rope_pairs (ascending rows) or, in the
// shared form, by the layer's slots (model/convert/slots.h), mla->shape.svd and the recipe. The
// statistics, which some recipes need, are used up. FAILED if LAPACK does not converge or memory is
// short; errors of the source.
Status convert_layer(Model *mla, const WeightSource *original, int layer,
                     const ConvertRecipe *recipe,
                     const int32_t *slots,         // [P] of the shared form; NULL per head
                     LayerStatistics *statistics); // NULL for the paper's

// Adds to a measuring arena what convert_layer() works in for an MLA shape, besides the statistics
// that it is given, of as many pools.
void convert_measure(Arena *arena, const ModelShape *shape, const ConvertRecipe *recipe,
                     int n_pools);

#endif
