// Finished layers on disk, so that a distillation that was interrupted goes on after the last of
// them. A file is of one layer and named for what it was made from: it is used only where the
// fingerprint is the same, and only whole.
//
//     DIR/layer-0003.bin   [ one line of JSON, padded to 1024 bytes | floats of the layer ]
//
//     if (!distill_state_read(values, &losses, dir, 3, fingerprint, count))
//         ... distill it ...
//     TRY(distill_state_write(dir, 3, fingerprint, values, count, &losses));
#ifndef MHA2MLA_TRAIN_DISTILL_DISTILL_STATE_H
#define MHA2MLA_TRAIN_DISTILL_DISTILL_STATE_H

#include "base/checksum.h"
#include "train/distill/layer_trainer.h"

// Atomic; `dir` must be there.
Status distill_state_write(const char *dir, int layer, const char *fingerprint,
                           const float *values, // [count]
                           int64_t count, const LayerLosses *losses);

// False, and nothing is written, if there is no such file; also, with a warning, if it is damaged
// or of other inputs.
bool distill_state_read(float *values, // [count]; NULL: the file is only checked
                        LayerLosses *losses, const char *dir, int layer, const char *fingerprint,
                        int64_t count);

// Removes the files of all layers, and `dir` if nothing else is in it.
void distill_state_remove(const char *dir, int n_layers);

#endif
