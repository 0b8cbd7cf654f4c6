// Which RoPE pairs a KV head keeps (partial RoPE; MHA2MLA, arXiv 2502.14837, section 3.1).
//
//     high     p < P                    the fastest pairs
//     low      p >= E/2 - P             the slowest
//     uniform  floor(k (E/2) / P), k = 0..P-1
//     2-norm   the P largest of  sum over the query heads of the group  E|q_p| E|k_p|,
//              means over calibration tokens (model/convert/rope_scores.h); of equals the lower p
//     kl       those whose loss changes the attention distributions least: of statistics of
//              activations, by model/convert/pair_select.h alone
//     shared-uniform  every stride-th pair, a mixture of all KV heads each: the shared form alone,
//              model/convert/slot_mix.h
//
//     TRY(rope_select(mla.rope_pairs, &shape, 4, ROPE_2NORM, &scores));
#ifndef MHA2MLA_MODEL_CONVERT_ROPE_SELECT_H
#define MHA2MLA_MODEL_CONVERT_ROPE_SELECT_H

#include "model/convert/rope_scores.h"

typedef enum RopeStrategy {
    ROPE_HIGH,
    ROPE_LOW,
    ROPE_UNIFORM,
    ROPE_2NORM,
    ROPE_KL,
    ROPE_SHARED_UNIFORM,
    ROPE_AUTO // recipe_complete() replaces it, recipe.h
} RopeStrategy;

// Fills pairs [L, K, P], ascending per row. `scores` is needed for 2-norm, else ignored.
// BAD_INPUT if P is out of 1..E/2, the strategy is shared-uniform, or scores are missing, of no
// token, NaN, infinite or negative.
Status rope_select(int32_t *pairs, const ModelShape *shape, int P, RopeStrategy strategy,
                   const RopeScores *scores);

// The parts of 2-norm: whether the scores can be used, and score [E/2] of a KV head's pairs.
Status rope_select_check(const RopeScores *scores, const ModelShape *shape);
void rope_select_scores(double *score, const RopeScores *scores, int layer, int kv_head);

Status rope_strategy_parse(RopeStrategy *out, const char *name); // "high" ... "kl"
const char *rope_strategy_name(RopeStrategy strategy);

#endif
