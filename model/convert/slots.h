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
static inline void slots_pairs(int32_t *pairs, const int32_t *slots, int64_t n, const ModelShape *s)
{
    for (int64_t i = 0; i < n; i++)
        pairs[i] = slot_pair(s, slots[i]);
}

// kept [E/2]: the pairs of a KV head among the P slots of a layer, ascending. Returns their number.
static inline int slots_of_kv_head(int32_t *kept, const int32_t *slots, int P, int kv_head,
                                   const ModelShape *s)
{
    int n = 0;
    for (int i = 0; i < P; i++)
        if (slot_kv_head(s, slots[i]) == kv_head)
            kept[n++] = slot_pair(s, slots[i]);
    return n;
}

// By pair, those of equal pairs by KV head.
static inline bool slot_is_before(int32_t a, int32_t b, const ModelShape *s)
{
    const int pair_a = slot_pair(s, a), pair_b = slot_pair(s, b);
    return pair_a != pair_b ? pair_a < pair_b : a < b;
}

// Sorts the P slots of a layer as the model has them.
static inline void slots_sort(int32_t *slots, int P, const ModelShape *s)
{
    for (int i = 1; i < P; i++)
        for (int j = i; j > 0 && slot_is_before(slots[j], slots[j - 1], s); j--) {
            const int32_t other = slots[j];
            slots[j] = slots[j - 1];
            slots[j - 1] = other;
        }
}

#endif
