// What is taken is stacked from the end of the layers' gradients downwards, as layers come: each
// piece ends where the gradients begin that are written while it is still read, or before.
#include "model/transformer/overlay.h"

#include "model/params.h"

enum { LINE_FLOATS = 64 / sizeof(float) };

// Of the flat vector: where the gradients of a layer begin; with L, where those of the last end.
static int64_t layer_start(const ModelShape *shape, int layer)
{
    const bool is_after = layer == shape->n_layers;
    int64_t first, count;
    params_layer_range(shape, is_after ? layer - 1 : layer, &first, &count);
    return is_after ? first + count : first;
}

Overlay overlay_start(float *flat, const ModelShape *shape, int from_layer)
{
    CHECK((uintptr_t)flat % 64 == 0, "gradients at %p are not aligned", (void *)flat);
    return (Overlay){.shape = shape,
                     .flat = flat,
                     .first = shape->tied_head ? layer_start(shape, 0) : 0,
                     .used = layer_start(shape, shape->n_layers),
                     .from_layer = from_layer,
                     .lowest_layer = shape->n_layers + 1};
}

bool overlay_take(float **out, Overlay *overlay, int layer, int64_t count)
{
    if (overlay->shape == NULL || layer < overlay->from_layer || count == 0)
        return false;
    CHECK(0 <= layer && layer <= overlay->lowest_layer, "layer %d after layer %d", layer,
          overlay->lowest_layer);
    const int64_t limit = layer_start(overlay->shape, layer);
    const int64_t end = limit < overlay->used ? limit : overlay->used;
    if (end - overlay->first < count)
        return false;
    const int64_t start = (end - count) / LINE_FLOATS * LINE_FLOATS;
    if (start < overlay->first)
        return false;
    overlay->used = start;
    overlay->lowest_layer = layer;
    *out = overlay->flat != NULL ? overlay->flat + start : NULL;
    return true;
}

bool overlay_is_used(const Overlay *overlay)
{
    return overlay->shape != NULL && overlay->lowest_layer <= overlay->shape->n_layers;
}
