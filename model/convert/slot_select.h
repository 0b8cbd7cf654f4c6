// The rotated slots of all layers in the shared form (model/convert/slots.h), among the pairs of
// all KV heads of a layer.
//
//     TRY(slot_select(slots, &shape, P, true, &file));         // the strategy kl
//     TRY(slot_select_norms(slots, &shape, P, &scores));       // 2-norm
//
// By kl every KV head gets as many slots as make the sum of the heads' errors least
// (pair_choice.h). Errors with swaps are computed for the best counts so far, and for one slot more
// and less, until these counts no longer change.
#ifndef MHA2MLA_MODEL_CONVERT_SLOT_SELECT_H
#define MHA2MLA_MODEL_CONVERT_SLOT_SELECT_H

#include "model/convert/rope_scores.h"
#include "model/convert/statistics_file.h"

// Fills slots [L, P] for conversions that let queries take in what the lost pairs leave (absorb) or
// not. BAD_INPUT if P is out of 1..K E/2 or the file is damaged; FAILED if memory is short.
Status slot_select(int32_t *slots, const ModelShape *shape, int P, bool absorb,
                   StatisticsFile *file);

// The P largest scores of rope_select()'s 2-norm over a layer's KV heads. BAD_INPUT as there.
Status slot_select_norms(int32_t *slots, const ModelShape *shape, int P, const RopeScores *scores);

#endif
