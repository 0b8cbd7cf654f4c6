// The rotated slots of a layer in the shared form while it is made: each is a pair of one KV head,
// as the number  KV head x E/2 + pair. The model keeps the pairs alone, whose frequencies it needs.
//
//     slots_pairs(mla.rope_pairs, slots, L * P, &shape);
//     n = slots_of_kv_head(kept, slots, P, j, &shape);
#ifndef MHA2MLA_MODEL_CONVERT_SLOTS_H
#define MHA2MLA_MODEL_CONVERT_SLOTS_H

#include "model/shape.h"

static inline int slot_of(const ModelShape *shape, int kv_head, int pair)
{
    return kv_head * (shape->head_dim / 2) + pair;
}

static inline int slot_kv_head(const ModelShape *shape, int32_t slot)
{
    return slot / (shape->head_dim / 2);
}

static inline int slot_pair(const ModelShape *shape, int32_t slot)
{
    return slot % (shape->head_dim / 2);
}

// pairs [n] of slots [n].
void slots_pairs(int32_t *pairs, const int32_t *slots, int64_t n, const ModelShape *shape);

// kept [E/2]: the pairs of a KV head among the P slots of a layer, ascending. Returns their number.
int slots_of_kv_head(int32_t *kept, const int32_t *slots, int P, int kv_head,
                     const ModelShape *shape);

// Sorts the P slots of a layer by pair and those of equal pairs by KV head, as the model has them.
void slots_sort(int32_t *slots, int P, const ModelShape *shape);

#endif
