// The head's losses beside a teacher: cross-entropy against the targets, and the Kullback-Leibler
// divergence of the student's distribution from the teacher's (Hinton et al., arXiv 1503.02531), by
// blocks of tokens, whose logits of both models are the only ones that exist:
//
//     q = softmax(z / temperature)
//     kl = temperature^2 sum over v of q_teacher (log q_teacher - log q_student)
//     loss = ce_weight ce + kl_weight kl
//
//     const HeadTeacher teacher = {normed, head, D_of_the_teacher};
//     HeadLosses sums = head_kl_losses(...);
//
// Without a teacher: model/kernels/head.h.
#ifndef MHA2MLA_MODEL_KERNELS_HEAD_KL_H
#define MHA2MLA_MODEL_KERNELS_HEAD_KL_H

#include "model/kernels/compute.h"
#include "model/kernels/rows.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct HeadTeacher {
    Rows normed;       // [N, D], read
    const float *head; // [V, D]
    int D;             // of the teacher
} HeadTeacher;

typedef struct HeadWeights {
    double ce, kl, temperature;
} HeadWeights;

// Sums over tokens, in nats, without the weights.
typedef struct HeadLosses {
    double ce, kl;
} HeadLosses;

// Of at most N tokens; it starts at a multiple of 64 bytes.
int64_t head_kl_scratch_bytes(int N, int V);

// Sums of both losses over the N tokens, and the gradients of their weighted sum times `scale`:
// d_normed =, d_head += if `add`, else =, unless it is NULL. Logits and losses are float32 or
// double with either type of products.
HeadLosses head_kl_losses(ComputeType type,
                          float *d_normed,        // [N, D]
                          float *d_head,          // [V, D] or NULL
                          void *scratch,          // [head_kl_scratch_bytes()]
                          Rows normed,            // [N, D], read
                          const float *head,      // [V, D]
                          const int32_t *targets, // [N]
                          const HeadTeacher *teacher, const HeadWeights *weights, int N, int D,
                          int V, float scale, bool add);

#endif
