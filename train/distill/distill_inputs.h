// What every layer's distillation depends on, as one checksum: both models up to that layer, the
// windows and the settings. And which layers are finished on disk already.
//
//     DistillInputs known = {0};
//     TRY(distill_inputs_find(&known, &request, &original, &mla));    // before anything is changed
//     if (distill_inputs_is_done(&known, layer))
//         ... distill_state_read() with distill_inputs_fingerprint(&known, layer) ...
//     distill_inputs_release(&known);
#ifndef MHA2MLA_TRAIN_DISTILL_DISTILL_INPUTS_H
#define MHA2MLA_TRAIN_DISTILL_DISTILL_INPUTS_H

#include "base/checksum.h"
#include "train/distill/distill.h"

typedef struct DistillInputs {
    char (*fingerprints)[SHA256_HEX_BYTES]; // owned [L]; on rank 0
    bool *is_done;                          // owned [L]; on all ranks; NULL: none are
    int n_done;
} DistillInputs;

// Reads request->state_dir on rank 0. Sequential: layers are done up to the first that is not.
// FAILED: no memory. Collective.
Status distill_inputs_find(DistillInputs *out, const DistillRequest *request, const Model *original,
                           const Replica *mla);

static inline bool distill_inputs_is_done(const DistillInputs *inputs, int layer)
{
    return inputs->is_done != NULL && inputs->is_done[layer];
}

// Rank 0 alone.
static inline const char *distill_inputs_fingerprint(const DistillInputs *inputs, int layer)
{
    return inputs->fingerprints[layer];
}

void distill_inputs_release(DistillInputs *inputs); // {0} is allowed

#endif
