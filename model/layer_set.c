#include "model/layer_set.h"

#include "base/status.h"

void layer_set_put(LayerSet *set, int layer, bool is_in)
{
    CHECK(layer >= 0 && layer < SHAPE_MAX_LAYERS, "layer %d", layer);
    const uint64_t bit = UINT64_C(1) << (layer % 64);
    set->words[layer / 64] = is_in ? set->words[layer / 64] | bit : set->words[layer / 64] & ~bit;
}

int layer_set_count(const LayerSet *set)
{
    int n = 0;
    for (int l = 0; l < SHAPE_MAX_LAYERS; l++)
        n += layer_set_has(set, l);
    return n;
}
