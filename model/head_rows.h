// The rows of a head, and the numbers of its norm's weight, in the order in which MLA stores them:
// the first halves of the kept pairs, their second halves, then every other dim, ascending.
//
//     head_rows_order(rows, pairs, P, E);    // rows[2P ..] carry no position
#ifndef MHA2MLA_MODEL_HEAD_ROWS_H
#define MHA2MLA_MODEL_HEAD_ROWS_H

#include "model/model.h"

void head_rows_order(int *rows,            // [E]
                     const int32_t *pairs, // [P] ascending
                     int P, int E);

// to [n, D] = the rows of a head [E, D] that `rows` names.
void head_rows_gather(float *to, const float *head, const int *rows, int n, int D);

// The queries of a layer that is converted per KV head, [H E, D], from the original's: RoPE rows of
// all heads first, then NoPE rows of all heads (model/params.h). A bias has D = 1.
void head_rows_queries(float *q, const Model *mla, const float *original, int layer, int D,
                       int *rows); // scratch [E]

#endif
