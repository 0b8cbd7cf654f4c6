// The names under which other programs store a Llama's tensors, and those of model/params.c.
//
//     char name[PARAM_NAME_BYTES];
//     TRY(tensor_name_unwrap(name, "module._orig_mod.norm.weight", "x.safetensors"));
//     // name: "model.norm.weight"
#ifndef MHA2MLA_MODEL_HF_TENSOR_NAME_H
#define MHA2MLA_MODEL_HF_TENSOR_NAME_H

#include "base/status.h"
#include "model/params.h"

// What PyTorch's wrappers put into names (DDP, torch.compile, FSDP, activation checkpointing) is
// left out, and the "model." that a saved LlamaModel lacks is put before. A name that is longer
// than any of ours gives "". BAD_INPUT for an adapter's; `path` names the file.
Status tensor_name_unwrap(char out[PARAM_NAME_BYTES], const char *stored, const char *path);

#endif
