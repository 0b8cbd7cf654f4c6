// Pieces are stacked from the end of the layers' gradients downwards, in the order in which layers
// take them: each ends before the gradients that backward writes while the piece is still read.
#include "model/transformer/gradient_reuse.h"

#include "model/params.h"

enum { ALIGN_FLOATS = 64 / sizeof(float) };

// Index in the flat vector where the gradients of a layer begin; of layer L, where the last layer's
// end.
static int64_t layer_start(const ModelShape *shape, int layer)
{
    const bool is_after = layer == shape->n_layers;
    int64_t first, count;
    params_layer_range(shape, is_after ? layer - 1 : layer, &first, &count);
    return is_after ? first + count : first;
}

// A tied head's gradient is written by the loss, before any activation of a layer is dead, so with
// a tied head the embedding's memory is left alone and reuse begins at layer 0.
GradientReuse gradient_reuse_start(float *flat, const ModelShape *shape, int from_layer)
{
    CHECK((uintptr_t)flat % 64 == 0, "gradients at %p are not aligned", (void *)flat);
    return (GradientReuse){.shape = shape,
                           .flat = flat,
                           .first = shape->tied_head ? layer_start(shape, 0) : 0,
                           .taken_from = layer_start(shape, shape->n_layers),
                           .from_layer = from_layer,
                           .lowest_layer = shape->n_layers + 1};
}

bool gradient_reuse_take(float **out, GradientReuse *reuse, int layer, int64_t count)
{
    if (reuse->shape == NULL || layer < reuse->from_layer || count == 0)
        return false;
    CHECK(0 <= layer && layer <= reuse->lowest_layer, "layer %d after layer %d", layer,
          reuse->lowest_layer);
    // The gradients of `layer` itself are written while its activations are still read: only those
    // below it may be covered.
    const int64_t limit = layer_start(reuse->shape, layer);
    const int64_t end = limit < reuse->taken_from ? limit : reuse->taken_from;
    if (end - reuse->first < count)
        return false;
    const int64_t start = (end - count) / ALIGN_FLOATS * ALIGN_FLOATS;
    if (start < reuse->first)
        return false;
    reuse->taken_from = start;
    reuse->lowest_layer = layer;
    *out = reuse->flat != NULL ? reuse->flat + start : NULL;
    return true;
}

bool gradient_reuse_is_used(const GradientReuse *reuse)
{
    return reuse->shape != NULL && reuse->lowest_layer <= reuse->shape->n_layers;
}
