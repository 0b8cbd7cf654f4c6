// Rotated slots that are mixtures of KV heads, with frequencies that are the same for all layers
// and heads: what plain RoPE of another base expresses, so that other engines run it (DeepSeek's
// MLA).
//
// Row p and row p + E/2 of a KV head's keys are one complex number z_j, and RoPE multiplies it by a
// phase. Complex combinations over the KV heads commute with that. With a_j^2 half the mean square
// of pair p over the queries that read KV head j, and V the eigenvectors of
// diag(a) E[z z^H] diag(a), largest first,
//
//     slot m of pair p    k = B_m^H z,  B = diag(a) V
//     query of head h     conj(A_jm) q_p,  A = diag(1/a) V, j its KV head
//     what is left        z - A B^H z, which carries no position
//
// With all slots of all pairs nothing is left. RoRoPE of TransMLA mixes by real rotations alone.
//
// A slot is here  component m x E/2 + pair (model/convert/slots.h has KV heads in place of m).
//
//     slot_mix_find(&mix, keys, covariance, query, slots, &shape);
//     slot_mix_keys(k_r, keys, &mix, slots, &shape);
//     slot_mix_queries(q, original_q, &mix, slots, &shape);
#ifndef MHA2MLA_MODEL_CONVERT_SLOT_MIX_H
#define MHA2MLA_MODEL_CONVERT_SLOT_MIX_H

#include "base/arena.h"
#include "model/shape.h"

typedef struct SlotMix {
    double *a, *b;        // [P, K, 2] columns of A and B: real and imaginary parts
    double *z, *product;  // [2 K, D] real parts of all KV heads, then imaginary ones
    double *moment;       // [K, K, 2] by columns
    double *eigenvalues;  // [K]
    double *work, *reals; // of zheev
    double *scale;        // [K] a_j
    int64_t n_work;
} SlotMix;

void slot_mix_place(SlotMix *mix, Arena *arena, const ModelShape *shape);

// The mixtures of all slots; of any unitary V where the moment says nothing.
void slot_mix_find(SlotMix *mix, const float *keys, // [K E, D]
                   const double *covariance,        // [D, D]
                   const double *query,             // [H, E, E] E q q^T / E
                   const int32_t *slots, const ModelShape *shape);

void slot_mix_keys(float *k_r,  // [2P, D]
                   float *keys, // [K E, D]: what is left
                   const SlotMix *mix, const int32_t *slots, const ModelShape *shape);

// Rotated rows from the original's queries; the others are as they are, or absorbed.
void slot_mix_queries(float *q,              // [H 2P, D]
                      const float *original, // [H E, D]
                      const SlotMix *mix, const int32_t *slots, const ModelShape *shape);

// slots [P]: the first components of the pairs 0, stride, 2 stride, ...
void slot_mix_uniform(int32_t *slots, int P, int stride);

// The largest stride for P slots of E/2 pairs; 0: they are too many.
int slot_mix_max_stride(const ModelShape *shape, int P);

#endif
