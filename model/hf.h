// Hugging Face model directories: config.json, model.safetensors or its sharded index, and the
// tokenizer's files beside them. Llama family (LlamaForCausalLM), original or converted by us.
//
//     Model model;
//     TRY(hf_load(&model, "/models/SmolLM-135M"));
//     TRY(hf_save(&model, "/models/SmolLM-135M", DTYPE_BF16, "out/"));
//
// A converted model has, besides config.json's usual keys, a block
//     "mha2mla": {"rope_pairs": 4, "rope_dim_for_mla": 8, "d_kv": 16, "low_rank": 16,
//                 "svd": "joint", "cache_numbers_per_token": 1440, ...}
// and per layer the tensors of model/params.c plus int32 self_attn.rope_pairs [K, P].
// What config.json asks for and this program does not do (another architecture or activation,
// biases, rope_scaling, sliding windows, quantized weights ...) is BAD_INPUT, by name and value.
#ifndef MHA2MLA_MODEL_HF_H
#define MHA2MLA_MODEL_HF_H

#include "model/model.h"
#include "model/safetensors.h"

// Reads config.json alone.
Status hf_load_shape(ModelShape *out, const char *dir);

// Reads shape and weights; the caller releases the model.
Status hf_load(Model *out, const char *dir);

// Writes config.json, weights in `dtype` (sharded with an index above 5 GB) and copies the
// tokenizer's files from base_dir. config.json is base_dir's, with what changed replaced; base_dir
// may be NULL (a model from random weights): then a plain Llama config is written. `dir` is made.
Status hf_save(const Model *model, const char *base_dir, DType dtype, const char *dir);

#endif
