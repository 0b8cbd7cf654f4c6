// Hugging Face model directories: config.json, model.safetensors or its sharded index, and the
// tokenizer's files beside them. Llama family (LlamaForCausalLM), original or converted by us.
//
//     Model model;
//     TRY(hf_load(&model, "/models/SmolLM-135M"));
//     status = hf_save(&model, "/models/SmolLM-135M", DTYPE_BF16, "out/");
//     model_release(&model);
//
// A converted model has, besides config.json's usual keys, a block
//     "mha2mla": {"rope_pairs": 4, "rope_dim_for_mla": 8, "d_kv": 16, "low_rank": 16,
//                 "svd": "joint", "cache_numbers_per_token": 1440, "healed_seq_len": 2048}
// (healed_seq_len: tokens of the longest sequences it was trained on since; missing before that)
// and per layer the tensors of model/params.c plus int32 self_attn.rope_pairs [K, P].
// Its model_type is "mha2mla_llama", so that transformers refuses it instead of filling in the keys
// that a Llama has and it has not; any config with the block is read as converted.
// What config.json asks for and this program does not do (another architecture or activation,
// biases, rope_scaling, sliding windows, quantized weights ...) is BAD_INPUT, by name and value:
// model/hf/hf_config_keys.c has every key. So are a head that tie_word_embeddings calls the
// embedding and that differs from it, and an adapter beside the weights.
#ifndef MHA2MLA_MODEL_HF_HF_H
#define MHA2MLA_MODEL_HF_HF_H

#include "model/hf/safetensors.h"
#include "model/model.h"

// Reads config.json alone.
Status hf_load_shape(ModelShape *out, const char *dir);

// Reads shape and weights; the caller releases the model. BAD_INPUT names missing files, missing
// tensors, wrong shapes and dtypes, and weights that are not finite. Tensors the model does not
// have (the copy of a tied head, rotary tables) are ignored, others with a warning.
Status hf_load(Model *out, const char *dir);

// Reads the weights and RoPE pairs of a model that was made in the shape of hf_load_shape(). The
// errors are the same; what is in the model after one is not specified.
Status hf_load_into(Model *model, const char *dir);

// A model's files, open, for a reader of one tensor at a time: nothing of the weights is held. The
// errors of hf_load(), but for those of the weights themselves, which come when they are read.
typedef struct HfSource HfSource;

Status hf_source_open(HfSource **out, const char *dir);
WeightSource hf_source_weights(const HfSource *source);

// The dtype of the matrices in the files; where they differ, and for F64, F32.
Status hf_source_dtype(DType *out, const HfSource *source);

// Which RoPE pairs each KV head keeps: pairs [L, K, P]. Original attention: all of them.
Status hf_source_rope_pairs(int32_t *pairs, const HfSource *source);

// Warns of tensors that the model does not have and of keys of config.json that are not known, as
// hf_load() does.
void hf_source_warn(const HfSource *source, const char *dir);
void hf_source_close(HfSource *source); // NULL is allowed

// The dtype of the weights in the files, by the embedding's; F64 is read as F32 and counts as that.
Status hf_weights_dtype(DType *out, const char *dir);

// The same, to save a model in it. BAD_INPUT if hf_save() does not write it.
Status hf_saved_dtype(DType *out, const char *dir);

// Reads which RoPE pairs each KV head keeps, without the weights: pairs [L, K, P] of the
// directory's own shape. Original attention: all of them.
Status hf_load_rope_pairs(int32_t *pairs, const ModelShape *shape, const char *dir);

// Refuses what hf_save() would refuse about the directories, before long work rather than after.
Status hf_check_target(const char *base_dir, const char *dir);

// Writes config.json, weights in `dtype` (F32, F16 or BF16; sharded with an index above 5 GB) and
// copies the tokenizer's files from base_dir. config.json is base_dir's, with what changed
// replaced; base_dir may be NULL (a model from random weights): then a plain Llama config is
// written. `dir` is made; config.json is written last, so that a directory which has one is
// complete. BAD_INPUT if dir is base_dir or base_dir's dims are others; FAILED if a weight does not
// fit the dtype.
Status hf_save(const Model *model, const char *base_dir, DType dtype, const char *dir);

// Copies the tokenizer's files, those that are there, from one directory to another, which is made.
// For models without a base_dir.
Status hf_copy_tokenizer(const char *base_dir, const char *dir);

// The same as hf_save() with another limit on the bytes of tensors in a file.
Status hf_save_sharded(const Model *model, const char *base_dir, DType dtype, const char *dir,
                       int64_t max_shard_bytes);

#endif
