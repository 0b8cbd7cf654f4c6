// The rows of a head in the order in which MLA stores them: the first halves of the kept pairs,
// their second halves, then every other dim, ascending.
//
//     head_rows_order(rows, pairs, P, E);    // rows[2P ..] are those that are factorized
#ifndef MHA2MLA_MODEL_CONVERT_HEAD_ROWS_H
#define MHA2MLA_MODEL_CONVERT_HEAD_ROWS_H

#include <stdint.h>

void head_rows_order(int *rows,            // [E]
                     const int32_t *pairs, // [P] ascending
                     int P, int E);

#endif
