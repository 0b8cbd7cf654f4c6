// The tensors of a model with its original attention, as llama.cpp's architecture `llama` has them.
#ifndef MHA2MLA_MODEL_GGUF_GGUF_LLAMA_H
#define MHA2MLA_MODEL_GGUF_GGUF_LLAMA_H

#include "model/hf/tensor_list.h"
#include "model/model.h"

// The caller releases the list; its tensors borrow from the model. BAD_INPUT for a model with
// tensors that the architecture does not have.
Status gguf_llama_list_tensors(TensorList *out, const Model *model, DType dtype);

#endif
