// Gradients of attention in the latent space that are sums over work items: of U_k and U_v over
// parts of the query tiles, of the latent over groups of query heads. Both are kept apart, as the
// shape divides them, and added up in that order at the end: the bits do not depend on the number
// of threads.
//
//     LatentSums sums = latent_sums(&dims, n_parts, key_ld, value_ld);
//     latent_sums_place(&sums, &arena);
//     float *part = latent_sums_up_k(&sums, &head, i, g); // [nope, key_ld], = or +=
//     latent_sums_set_keys(&sums, d_qkv, &head, d_k, d_v, ld, first, n, scale);
//     latent_sums_finish(&sums, d_qkv, d_up_k, d_up_v, scale, true);
//
// Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_LATENT_SUMS_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_LATENT_SUMS_H

#include "base/arena.h"
#include "model/attention/attention_latent.h"
#include "model/attention/attention_tiles.h"

typedef struct LatentSums {
    LatentDims dims;
    int n_groups, n_up;   // of query heads; U_k's and U_v's that a group reads
    int column, width;    // of a token's row: what is summed over groups
    int n_parts;          // of a group's queries
    int key_ld, value_ld; // floats of a row of a part of U_k's and U_v's gradients
    float *d_up;          // [B n_groups, n_parts, n_up, nope key_ld + E value_ld]
    float *d_keys;        // [B n_groups, T, width]
} LatentSums;

LatentSums latent_sums(const LatentDims *dims, int n_parts, int key_ld, int value_ld);
void latent_sums_place(LatentSums *sums, Arena *arena);

// Of the weights that the group's query head g reads. A part belongs to one thread: its tiles come
// in order, so additions to it have a fixed order.
float *latent_sums_up_k(const LatentSums *sums, const TileHead *group, int part,
                        int g); // [nope, key_ld]
float *latent_sums_up_v(const LatentSums *sums, const TileHead *group, int part,
                        int g); // [E, value_ld]

// The gradient of n tokens' latent and rotated keys from a group: the latent's is kept for the sum,
// keys' and values' parts added; that of the rotated keys is written to d_qkv, or kept if groups
// share them.
void latent_sums_set_keys(const LatentSums *sums, Rows d_qkv, const TileHead *group,
                          const float *d_k, // [key_latent + 2P, ld], to be scaled
                          const float *d_v, // [value_latent, ld]
                          int ld, int first, int n, float key_scale);

// d_qkv's columns that are sums over groups =, gradients of U_k and U_v += or =, where they are not
// NULL. Of a parallel region's threads together; no barrier at the end.
void latent_sums_finish(const LatentSums *sums, Rows d_qkv, float *d_up_k, float *d_up_v,
                        float scale, bool add);

#endif
