// The tensors of a model with its original attention, as llama.cpp's architectures have them:
// `qwen3` with RMSNorm of every head of queries and keys, `smollm3` with layers without RoPE, else
// `llama`.
#ifndef MHA2MLA_MODEL_GGUF_GGUF_ORIGINAL_H
#define MHA2MLA_MODEL_GGUF_GGUF_ORIGINAL_H

#include "model/hf/tensor_list.h"
#include "model/model.h"

const char *gguf_original_architecture(const ModelShape *shape);

// BAD_INPUT for scaled frequencies or layers without RoPE that the architecture does not have.
Status gguf_original_check(const ModelShape *shape);

// The caller releases the list; its tensors borrow from the model. BAD_INPUT for a model with
// tensors that the architecture does not have.
Status gguf_original_list_tensors(TensorList *out, const Model *model, DType dtype);

#endif
