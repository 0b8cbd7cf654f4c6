// The RoPE pairs of all layers by the strategy `kl` (pair_choice.h), from a file of statistics.
//
//     TRY(pair_select(mla.rope_pairs, &shape, 4, true, &file));
#ifndef MHA2MLA_MODEL_CONVERT_PAIR_SELECT_H
#define MHA2MLA_MODEL_CONVERT_PAIR_SELECT_H

#include "model/convert/statistics_file.h"

// Fills pairs [L, K, P], ascending per row, for conversions that let queries take in what the lost
// pairs leave (absorb) or not. BAD_INPUT if P is out of 1..E/2 or the file is damaged; FAILED if
// memory is short.
Status pair_select(int32_t *pairs, const ModelShape *shape, int P, bool absorb,
                   StatisticsFile *file);

#endif
