// difflib.SequenceMatcher(None, a, b): how much of two sequences is in Ratcliff and Obershelp's
// matching blocks.
#ifndef MHA2MLA_EVAL_LONGBENCH_MATCHING_BLOCKS_H
#define MHA2MLA_EVAL_LONGBENCH_MATCHING_BLOCKS_H

#include "eval/longbench/score_work.h"

#include <stdint.h>

// *out = the symbols in matching blocks of a [n_a] and b [n_b], symbols from 0 to n_symbols - 1.
// With autojunk: where b has 200 symbols or more, no block starts from one that is at more than
// n_b / 100 + 1 places. BAD_INPUT if it takes too many steps, which are the places in b of every
// symbol of a, once for every block that encloses it.
Status matching_blocks_count(int64_t *out, ScoreWork *work, const int32_t *a, int64_t n_a,
                             const int32_t *b, int64_t n_b, int32_t n_symbols);

#endif
