// How a model is converted, beside its pairs and the width of its latent.
//
//     paper      SVD of the weights (MHA2MLA, section 3.2); needs no statistics of activations
//     whitened   the same in the norm of the covariance of attention's input (whitening.h)
//     closed     whitened as a start, then keys and values each in the norm that their errors have
//                in the scores and in the output (closed_form.h), queries that stand in for the
//                pairs that are not kept (pair_choice.h); and, with the converted model at hand, an
//                output projection refitted to it (ridge.h)
//
//     const ConvertRecipe recipe = {METHOD_WHITENED, .key_weight = .1};
#ifndef MHA2MLA_MODEL_CONVERT_RECIPE_H
#define MHA2MLA_MODEL_CONVERT_RECIPE_H

#include "model/shape.h"

typedef enum ConvertMethod { METHOD_PAPER, METHOD_WHITENED, METHOD_CLOSED } ConvertMethod;

extern const char *const convert_method_names[]; // by value of the enum, closed by NULL

typedef struct ConvertRecipe {
    ConvertMethod method;
    double key_weight; // of squared errors of keys against those of values, not the paper's; 0:
                       // mean square of values over that of keys, for whitened
    bool mixes;        // slots of the shared form are mixtures of KV heads (slot_mix.h)
} ConvertRecipe;

// BAD_INPUT if models of this original shape cannot be converted so. `setting` names the method.
Status recipe_check(const ConvertRecipe *recipe, const ModelShape *original, const char *setting);

// Whether a layer's LayerStatistics are needed.
static inline bool recipe_needs_statistics(const ConvertRecipe *recipe)
{
    return recipe->method != METHOD_PAPER || recipe->mixes;
}

#endif
