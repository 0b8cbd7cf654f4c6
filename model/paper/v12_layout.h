// A model in the layout of the paper's own code, MHA2MLA v1.2 (github.com/JT-Ushio/MHA2MLA), which
// evaluates and trains it further. The tensors are those of model/params.h; that code learns which
// pairs were kept from a file of ranks beside the weights.
#ifndef MHA2MLA_MODEL_PAPER_V12_LAYOUT_H
#define MHA2MLA_MODEL_PAPER_V12_LAYOUT_H

#include "model/hf/tensor_list.h"
#include "model/model.h"

// Writes the directory, and in it qk_rank.pth, to which config.json points as `dir`/qk_rank.pth:
// that code opens it from where it is started. BAD_INPUT for the original attention and for the
// shared form, which it does not know.
Status v12_layout_save(const Model *model, const char *base_dir, DType dtype, const char *dir);

#endif
