// A layer's tensors in the shared form, in which all query heads see all P rotated slots and have E
// more dims that carry no position. Each slot is a pair of one KV head: it is written into the
// queries of that KV head's group, and the other heads have zeros there; in turn the E dims have
// zeros at the pairs that have a slot. Training may fill both.
//
//     shared_layer_queries(q, original_q, slots, &shape);     // queries of the closed form:
//     absorbed shared_layer_keys(k_r, keys, slots, &shape);            // keys: what is left
//     ... factorize keys and values ...
//     TRY(shared_layer_fit(up_k, k_r, down, covariance, slots, &shape));
//     shared_layer_expand(&layer, &shape);
#ifndef MHA2MLA_MODEL_CONVERT_SHARED_LAYER_H
#define MHA2MLA_MODEL_CONVERT_SHARED_LAYER_H

#include "base/arena.h"
#include "model/params.h"

void shared_layer_queries(float *q,              // [H (2P + E), D]
                          const float *original, // [H E, D]
                          const int32_t *slots,  // [P]
                          const ModelShape *shape);

void shared_layer_keys(float *k_r,  // [2P, D]
                       float *keys, // [K E, D]: rows of the slots become zero
                       const int32_t *slots, const ModelShape *shape);

// keys [K E, D] get their rows of the slots back.
void shared_layer_restore_keys(float *keys, const float *k_r, const int32_t *slots,
                               const ModelShape *shape);

// Rows of the slots in up [K E, R]: the best up-projection of the keys that k_r has, for a latent
// that does not serve them (whitening_fit()), so that queries of zero have a gradient there.
Status shared_layer_fit(float *up, const float *k_r, const float *down,
                        const double *covariance, // NULL: of the weights alone
                        const int32_t *slots, const ModelShape *shape);

// Adds to a measuring arena what shared_layer_fit() works in.
void shared_layer_measure(Arena *arena, const ModelShape *shape);

// up_k and up_v of every query head from those of its KV head, which lie one after another at the
// place of up_k: [K E, R] and [K E, R].
void shared_layer_expand(LayerParams *layer, const ModelShape *shape);

#endif
