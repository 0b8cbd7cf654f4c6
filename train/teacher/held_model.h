// A model that is read only, whose parameters the ranks of a host hold once, in float32 or
// bfloat16. Forward passes (model/transformer/transformer.h) read float32: with bfloat16 each rank
// widens one part at a time, a layer, or the last norm and the head, into a buffer of its own,
// which is exact.
//
//     HeldModel held;
//     TRY(held_model_load(&held, dir, DTYPE_BF16, &comm, &group));
//     held_model_widen_rows(&held, tokens, n);       // the embedding of these tokens
//     held_model_widen(&held, layer);                // L: norm and head
//     ... read held.model.params.layers[layer] ...
//     held_model_release(&held);
//
//     float32    window, or arena   [ all parameters ]
//     bfloat16   window, or arena   [ all parameters ]
//                arena              [ the part at hand ]
#ifndef MHA2MLA_TRAIN_TEACHER_HELD_MODEL_H
#define MHA2MLA_TRAIN_TEACHER_HELD_MODEL_H

#include "model/kernels/dtype.h"
#include "model/model.h"
#include "train/parallel/comm_shared.h"

typedef struct HeldModel {
    Model model;       // with bfloat16 all pointers to parameters lead into `part`
    CommWindow window; // if ranks share the parameters
    CommGroup *group;  // borrowed
    Arena arena;       // what is not in the window
    float *flat;       // float32: [params_count]; NULL with bfloat16
    uint16_t *halves;  // bfloat16: [params_count]
    float *part;       // bfloat16: [of the largest part]
} HeldModel;

// Reads a Hugging Face directory into DTYPE_F32 or DTYPE_BF16. Errors of hf_load(); FAILED: no
// memory. `group` stops sharing if a host has too little shared memory. Collective.
Status held_model_load(HeldModel *out, const char *dir, DType dtype, const Comm *comm,
                       CommGroup *group);

// Bytes of all parameters in a dtype, and of the part.
int64_t held_model_bytes(const ModelShape *shape, DType dtype);
int64_t held_model_part_bytes(const ModelShape *shape, DType dtype);

// Bytes that count as other ranks' memory, as replica_peers_bytes().
int64_t held_model_peers_bytes(const HeldModel *held);

// Both do nothing with float32. The embedding's rows of n tokens, each < V.
void held_model_widen_rows(const HeldModel *held, const int32_t *tokens, int64_t n);

// The parameters of a layer; L: those behind the layers, with a tied head.
void held_model_widen(const HeldModel *held, int layer);

// Does nothing for {0}. Collective.
void held_model_release(HeldModel *held);

#endif
