// The language model's head and its cross-entropy, by blocks of tokens: the logits of a block are
// the only ones that exist, and their gradient overwrites them.
#ifndef MHA2MLA_MODEL_KERNELS_HEAD_H
#define MHA2MLA_MODEL_KERNELS_HEAD_H

#include "model/kernels/compute.h"
#include "model/kernels/rows.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

// Tokens of a block in float32.
int head_block(int V);

// Of at most N tokens, with or without gradients; it starts at a multiple of 64 bytes.
int64_t head_scratch_bytes(ComputeType type, int N, int V, bool wants_gradient);

// Sum over the N tokens of -log softmax(normed head^T)[target], in double. With d_normed also the
// gradients of that sum times `scale`: d_normed =, d_head += if `add`, else =, unless it is NULL.
// Logits and loss are float32 with either type of products.
double head_loss(ComputeType type,
                 float *d_normed,        // [N, D] or NULL
                 float *d_head,          // [V, D] or NULL
                 void *scratch,          // [head_scratch_bytes()]
                 Rows normed,            // [N, D], read
                 const float *head,      // [V, D]
                 const int32_t *targets, // [N]
                 int N, int D, int V, float scale, bool add);

// The largest of V logits; not one that is no number.
float head_largest(const float *restrict z, int V);

// -log softmax(z)[target] of one token. Leaves exp(z - max) in z and the inverse of its sum, which
// the gradient needs.
double head_token_loss(float *restrict z, // [V] overwritten
                       int V, int32_t target, float *inverse_sum);

// The sum of exp(z_v) of one token, whose logits come in parts:
//
//     HeadSum sum = HEAD_SUM_EMPTY;
//     head_sum_add(&sum, part, count); // for each part
//     log_softmax = z[target] - head_sum_log(&sum);
typedef struct HeadSum {
    float max;  // of the logits so far
    double sum; // of exp(z_v - max)
} HeadSum;

#define HEAD_SUM_EMPTY ((HeadSum){-INFINITY, 0})

void head_sum_add(HeadSum *sum,
                  float *z, // [count] overwritten
                  int count);

double head_sum_log(const HeadSum *sum);

#endif
