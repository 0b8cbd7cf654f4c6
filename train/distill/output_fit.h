// The last part of a layer's distillation: its output projection refitted to the targets, held
// towards the trained one (model/convert/refit/ridge.h), over all windows of the team.
#ifndef MHA2MLA_TRAIN_DISTILL_OUTPUT_FIT_H
#define MHA2MLA_TRAIN_DISTILL_OUTPUT_FIT_H

#include "model/convert/exact_sum.h"
#include "train/distill/layer_trainer.h"

// Sets losses.trained and .fitted: before and after. STOPPED if a stop is requested. Collective in
// the team.
Status output_fit(LayerTrainer *trainer, int layer, const LayerData *data);

#endif
