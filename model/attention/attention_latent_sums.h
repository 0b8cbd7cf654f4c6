// Gradients of attention in the latent space that are sums over work items: of U_k and U_v over
// parts of the query tiles, of the latent over KV heads. Both are kept apart, as the shape divides
// them, and added up in that order at the end: the bits do not depend on the number of threads.
//
//     LatentSums sums = latent_sums(&dims, n_parts, key_ld, value_ld);
//     latent_sums_place(&sums, &arena);
//     float *part = latent_sums_up_k(&sums, head, i);     // [E - 2P, key_ld], = or +=
//     latent_sums_set_keys(&sums, head, d_k, d_v, ld, first, n);
//     latent_sums_finish(&sums, d_qkv, d_up_k, d_up_v, scale, true);
//
// Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_LATENT_SUMS_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_LATENT_SUMS_H

#include "base/arena.h"
#include "model/attention/attention_latent.h"

typedef struct LatentSums {
    LatentDims dims;
    int nope, width;      // E - 2P; columns of the latent
    int n_parts;          // of a KV head's queries
    int key_ld, value_ld; // floats of a row of a part of U_k's and U_v's gradients
    float *d_up;          // [B K, n_parts, nope key_ld + E value_ld]
    float *d_latent;      // [B K, T, width]
} LatentSums;

LatentSums latent_sums(const LatentDims *dims, int n_parts, int key_ld, int value_ld);
void latent_sums_place(LatentSums *sums, Arena *arena);

// A part belongs to one thread: its tiles come in order, so additions to it have a fixed order.
float *latent_sums_up_k(const LatentSums *sums, int64_t head, int part); // [nope, key_ld]
float *latent_sums_up_v(const LatentSums *sums, int64_t head, int part); // [E, value_ld]

// The latent's gradient from n keys of a KV head: its tile's columns, keys' and values' added.
void latent_sums_set_keys(const LatentSums *sums, int64_t head,
                          const float *d_k, // [key_latent, ld]
                          const float *d_v, // [value_latent, ld]
                          int ld, int first, int n, float key_scale);

// d_qkv's latent columns =, gradients of U_k and U_v += or =, where they are not NULL. Of a
// parallel region's threads together; no barrier at the end.
void latent_sums_finish(const LatentSums *sums, Rows d_qkv, float *d_up_k, float *d_up_v,
                        float scale, bool add);

#endif
