// The gradients' memory, lent to what is dead before backward writes them.
//
// Backward goes from the last layer to the first and writes the gradients of a layer after it has
// read for the last time what the layers above kept from forward. So, where nobody needs gradients
// any more once the next forward begins, what layer j keeps may lie where the gradients of layers
// below j will be, and what is dead before the backward of any layer, where those of all layers
// will be. The embedding comes last, unless it is the head, too, whose gradient the loss writes:
// that and the last norm's are not lent.
//
//     Overlay overlay = overlay_start(flat_grads, &shape, 0); // flat_grads NULL: measures
//     float *x;
//     if (!overlay_take(&x, &overlay, layer, count))          // from the last layer down
//         x = arena_floats(&arena, count);
#ifndef MHA2MLA_MODEL_TRANSFORMER_OVERLAY_H
#define MHA2MLA_MODEL_TRANSFORMER_OVERLAY_H

#include "model/shape.h"

#include <stdbool.h>
#include <stdint.h>

// {0}: nothing is lent.
typedef struct Overlay {
    const ModelShape *shape; // borrowed
    float *flat;             // borrowed [params_count]: gradients; NULL while measuring
    int64_t first, used;     // in the vector: lent from here on; taken from here on
    int from_layer;          // what layers below this one keep lies elsewhere
    int lowest_layer;        // of those that took something; L + 1: none
} Overlay;

// `flat` is aligned to 64 bytes.
Overlay overlay_start(float *flat, const ModelShape *shape, int from_layer);

// Room, aligned to 64 bytes, for count floats that `layer` keeps from forward for its backward; or,
// with L, that are dead before the backward of the last layer. False: there is none, or nothing is
// asked for. No layer comes after a lower one. *out is NULL while measuring.
bool overlay_take(float **out, Overlay *overlay, int layer, int64_t count);

// Whether anything lies there.
bool overlay_is_used(const Overlay *overlay);

#endif
