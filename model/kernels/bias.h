// A bias added to rows of activations: y += b.
//
//     linear_forward(compute, qkv, normed, w, N, D, width, false);
//     bias_forward(qkv, b, N, width);
#ifndef MHA2MLA_MODEL_KERNELS_BIAS_H
#define MHA2MLA_MODEL_KERNELS_BIAS_H

#include "model/kernels/rows.h"

#include <stdbool.h>

// y += b; rows in bfloat16 are rounded once more.
void bias_forward(Rows y,         // [N, n_out]
                  const float *b, // [n_out]
                  int N, int n_out);

// Gradient of the bias, db = or += the sum of dy over its rows, whatever the threads. db NULL, of a
// frozen bias: nothing.
void bias_backward(float *db, // [n_out]
                   Rows dy,   // [N, n_out], read
                   int N, int n_out, bool add);

#endif
