// How a model is converted, beside the widths of its latent and which pairs it keeps.
//
//     paper      SVD of the weights (MHA2MLA, section 3.2); needs no statistics of activations
//     whitened   the same in the norm of the covariance of attention's input (whitening.h)
//     closed     whitened as a start, then keys and values each in the norm that their errors have
//                in the scores and in the output (closed_form.h), queries that stand in for the
//                pairs that are not kept (pair_choice.h); and, with the converted model at hand,
//                queries and an output projection refitted to it (folder refit)
//
//     const ConvertRecipe recipe = {METHOD_WHITENED, .key_weight = .1};
//
// Form, method and strategy that are left to the program (auto) follow from what else is given:
//
//     form       shared by its own widths; else per head by a width, split SVD, strategy (high,
//                low, uniform, 2-norm) or method (paper, whitened) of MHA2MLA's kind; else shared
//     method     per head paper, shared closed
//     strategy   kl for closed, else 2-norm
//
// So a share of the cache alone gets what loses least of it (bench/results.md, "Losses of the
// methods" and "Healing of SmolLM2-135M-Instruct"), and the paper's own settings its own method.
#ifndef MHA2MLA_MODEL_CONVERT_RECIPE_H
#define MHA2MLA_MODEL_CONVERT_RECIPE_H

#include "model/convert/convert_target.h"
#include "model/convert/rope_select.h"

typedef enum ConvertMethod {
    METHOD_PAPER,
    METHOD_WHITENED,
    METHOD_CLOSED,
    METHOD_AUTO // recipe_complete() replaces it
} ConvertMethod;

extern const char *const convert_method_names[]; // by value of the enum, closed by NULL

// What closed refits: queries and outputs, or outputs alone.
typedef enum RefitParts { REFIT_ALL, REFIT_OUTPUTS } RefitParts;

extern const char *const refit_parts_names[];

typedef struct ConvertRecipe {
    ConvertMethod method;
    double key_weight; // of squared errors of keys against those of values, not the paper's; 0:
                       // mean square of values over that of keys, for whitened
    bool mixes;        // slots of the shared form are mixtures of KV heads (slot_mix.h)
    RefitParts refit;  // closed
} ConvertRecipe;

// Decides what is auto, and `mixes`.
void recipe_complete(ConvertRecipe *recipe, ConvertTarget *target, RopeStrategy *rope);

// BAD_INPUT if models of this original shape cannot be converted so. `setting` names the method.
Status recipe_check(const ConvertRecipe *recipe, const ModelShape *original, const char *setting);

// Whether a layer's LayerStatistics are needed.
static inline bool recipe_needs_statistics(const ConvertRecipe *recipe)
{
    return recipe->method != METHOD_PAPER || recipe->mixes;
}

#endif
