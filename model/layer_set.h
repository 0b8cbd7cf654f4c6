// A set of a model's layers, one bit for each, empty if zeroed: those without RoPE, say.
#ifndef MHA2MLA_MODEL_LAYER_SET_H
#define MHA2MLA_MODEL_LAYER_SET_H

#include <stdbool.h>
#include <stdint.h>

// More than the largest open models have (Llama 3.1 405B: 126), so that it refuses what is damaged.
enum { SHAPE_MAX_LAYERS = 1000 };

typedef struct LayerSet {
    uint64_t words[(SHAPE_MAX_LAYERS + 63) / 64];
} LayerSet;

// layer in 0 .. SHAPE_MAX_LAYERS - 1, as in the next.
static inline bool layer_set_has(const LayerSet *set, int layer)
{
    return set->words[layer / 64] >> (layer % 64) & 1;
}

void layer_set_put(LayerSet *set, int layer, bool is_in);
int layer_set_count(const LayerSet *set);

#endif
