// One table of rotary frequencies for a whole model: engines for DeepSeek's attention have one,
// seen by all layers and heads, while here every layer, and in the per-head form every KV head,
// keeps pairs of its own. A slot of the table is a pair of the original's; a layer puts each of its
// rotated rows into a slot of its pair, and slots that it has no row for stay zero.
//
//     RopeSlots slots;
//     TRY(rope_slots_create(&slots, &model, false));
//     int slot = rope_slots_of(&slots, layer, head, pair_index);
//     rope_slots_release(&slots);
#ifndef MHA2MLA_MODEL_DEEPSEEK_ROPE_SLOTS_H
#define MHA2MLA_MODEL_DEEPSEEK_ROPE_SLOTS_H

#include "model/model.h"

typedef struct RopeSlots {
    int n_slots;
    int32_t *pairs;  // owned [n_slots], ascending: slot i rotates as the original's pair pairs[i]
    int32_t *places; // owned [L, rope heads, P]: the slot of each rotated pair
    int stride;      // pairs are 0, stride, 2 stride ...: RoPE of another theta; 0: they are not
    double theta;    // that theta; the original's if stride is 0
    int row;         // pairs of a layer: rope heads x P
    int n_pairs;     // P
} RopeSlots;

// The fewest slots that hold every layer: of each pair as many as the layer with the most of it
// has. is_plain: every n-th pair up to the last one, for the largest n that has all, so that stride
// is not 0; BAD_INPUT if a layer has a pair twice or the frequencies are scaled.
Status rope_slots_create(RopeSlots *out, const Model *model, bool is_plain);
void rope_slots_release(RopeSlots *slots);

static inline int rope_slots_of(const RopeSlots *slots, int layer, int head, int pair_index)
{
    return slots->places[(int64_t)layer * slots->row + head * slots->n_pairs + pair_index];
}

#endif
