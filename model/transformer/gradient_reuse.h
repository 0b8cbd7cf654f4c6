// Reuses gradient memory for activations.
//
// Backward goes from the last layer to the first. It writes the gradients of a layer only after it
// has read, for the last time, what the layers above kept from forward. So, where nobody needs the
// last step's gradients any more once the next forward begins, the activations of layer j may lie
// where the gradients of the layers below j will be written. What is dead before backward enters
// any layer may lie over the gradients of all layers. The loss writes the gradient of the head (and
// of an embedding tied to it) and of the last norm before that: their memory is not reused.
//
//     GradientReuse reuse = gradient_reuse_start(flat_grads, &shape, &trained, 0);
//     ... with flat_grads NULL it only measures ...
//     for (int layer = shape.n_layers - 1; layer >= 0; layer--)
//         if (!gradient_reuse_take(&values, &reuse, layer, count))
//             values = arena_floats(&arena, count);
#ifndef MHA2MLA_MODEL_TRANSFORMER_GRADIENT_REUSE_H
#define MHA2MLA_MODEL_TRANSFORMER_GRADIENT_REUSE_H

#include "model/trainable.h"

#include <stdbool.h>
#include <stdint.h>

// {0}: no gradient memory is reused.
typedef struct GradientReuse {
    const ModelShape *shape; // borrowed
    Trainable trained;       // what has gradients
    float *flat;             // borrowed [trainable_gradients()]; NULL while measuring
    int64_t first;           // index in `flat`: memory before it is not reused
    int64_t taken_from; // index in `flat`: what lies from here to the last layer's end is taken
    int from_layer;     // activations of layers below this one lie elsewhere
    int lowest_layer;   // the lowest that took memory; L + 1 if none did
    int start_layer;    // the newest layer that was asked for, and the index in `flat` where its
    int64_t start;      // gradients begin; of layer L, where the last layer's end
} GradientReuse;

// `flat` is aligned to 64 bytes.
GradientReuse gradient_reuse_start(float *flat, const ModelShape *shape, const Trainable *trained,
                                   int from_layer);

// Takes memory, aligned to 64 bytes, for `count` floats that `layer` keeps from forward for its
// backward; or, with layer L, that are dead before the backward of the last layer. Calls go from
// high layers to low ones. False if there is not enough left, or count is 0. *out is NULL while
// measuring.
bool gradient_reuse_take(float **out, GradientReuse *reuse, int layer, int64_t count);

// Whether any memory was taken.
bool gradient_reuse_is_used(const GradientReuse *reuse);

#endif
