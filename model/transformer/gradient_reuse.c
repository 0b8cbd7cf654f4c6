// Pieces are stacked from the end of the layers' gradients downwards, in the order in which layers
// take them: each ends before the gradients that backward writes while the piece is still read.
#include "model/transformer/gradient_reuse.h"

#include "model/params.h"

enum { ALIGN_FLOATS = 64 / sizeof(float) };

// Goes down to the layer: calls go from high layers to low ones.
static int64_t layer_start(GradientReuse *reuse, int layer)
{
    while (reuse->start_layer > layer)
        reuse->start -=
            trainable_layer_gradients(&reuse->trained, reuse->shape, --reuse->start_layer);
    return reuse->start;
}

// A tied head's gradient is written by the loss, before any activation of a layer is dead, so with
// a tied head the embedding's memory is left alone and reuse begins at layer 0.
GradientReuse gradient_reuse_start(float *flat, const ModelShape *shape, const Trainable *trained,
                                   int from_layer)
{
    CHECK((uintptr_t)flat % 64 == 0, "gradients at %p are not aligned", (void *)flat);
    const int L = shape->n_layers;
    const int64_t end =
        trainable_gradients(trained, shape) - trainable_layer_gradients(trained, shape, L);
    return (GradientReuse){.shape = shape,
                           .trained = *trained,
                           .flat = flat,
                           .first =
                               shape->tied_head ? trainable_layer_gradients(trained, shape, -1) : 0,
                           .taken_from = end,
                           .from_layer = from_layer,
                           .lowest_layer = L + 1,
                           .start_layer = L,
                           .start = end};
}

bool gradient_reuse_take(float **out, GradientReuse *reuse, int layer, int64_t count)
{
    if (reuse->shape == NULL || layer < reuse->from_layer || count == 0)
        return false;
    CHECK(0 <= layer && layer <= reuse->lowest_layer, "layer %d after layer %d", layer,
          reuse->lowest_layer);
    // The gradients of `layer` itself are written while its activations are still read: only those
    // below it may be covered.
    const int64_t limit = layer_start(reuse, layer);
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
