// Which RoPE pairs every KV head keeps, from the file that the paper's code reads them from: its
// ranks (v1.2) or its scores (v1.0), as written by torch.save().
#ifndef MHA2MLA_MODEL_PAPER_PAPER_RANKS_H
#define MHA2MLA_MODEL_PAPER_PAPER_RANKS_H

#include "model/shape.h"

// pairs [L, K, P] of the converted shape. Ranks are whole numbers [L, K, E], the same for both dims
// of a pair: those below P are kept. Scores are real numbers [L, K, E/2]: the P largest are kept,
// of equal ones the first. BAD_INPUT for a file of another model and for what are no ranks.
Status paper_ranks_read(int32_t *pairs, const ModelShape *shape, const char *path);

#endif
