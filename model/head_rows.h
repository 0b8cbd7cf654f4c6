// The rows of a head, and the numbers of its norm's weight, in the order in which MLA stores them:
// the first halves of the kept pairs, their second halves, then every other dim, ascending.
//
//     head_rows_order(rows, pairs, P, E);    // rows[2P ..] carry no position
#ifndef MHA2MLA_MODEL_HEAD_ROWS_H
#define MHA2MLA_MODEL_HEAD_ROWS_H

#include <stdint.h>

void head_rows_order(int *rows,            // [E]
                     const int32_t *pairs, // [P] ascending
                     int P, int E);

#endif
