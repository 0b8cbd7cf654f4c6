// The weights of a Hugging Face model directory: model.safetensors, the shards that
// model.safetensors.index.json names, or shards whose names say that none is missing, each mapped
// once. Behind model/hf/hf.h. Tensors have the names of model/params.c, whatever wrapped the model
// when it was saved (model/hf/tensor_name.h); those of the files are in error texts alone.
//
//     HfWeights weights;
//     TRY(hf_weights_open(&weights, dir));
//     status = hf_weights_find(&file, &weights, "model.norm.weight");   // file: NULL if missing
//     hf_weights_close(&weights);
#ifndef MHA2MLA_MODEL_HF_HF_WEIGHTS_H
#define MHA2MLA_MODEL_HF_HF_WEIGHTS_H

#include "model/hf/safetensors.h"

typedef struct HfWeights {
    char path[PATH_BYTES]; // of model.safetensors, of the index, or of the directory
    json_t *weight_map;    // owned: tensor name -> file name; NULL: one file
    json_t *names;         // owned: list of the texts that renamed tensors are called by
    SafeTensors *files;    // owned
    int n_files;
} HfWeights;

// BAD_INPUT if there is neither file, a shard is missing, a file is damaged, two tensors are the
// same, or some are an adapter's.
Status hf_weights_open(HfWeights *out, const char *dir);
void hf_weights_close(HfWeights *weights);

// The file that holds a tensor, borrowed; NULL if the directory has no such tensor. BAD_INPUT if
// the index names a shard that lacks it.
Status hf_weights_find(const SafeTensors **out, const HfWeights *weights, const char *name);

// Reads a tensor of exactly these dims as float32. BAD_INPUT also if it is missing or has a number
// that is not finite.
Status hf_weights_read(float *values, const HfWeights *weights, const char *name, const int *dims,
                       int n_dims);

extern const char hf_head_name[], hf_embed_name[]; // lm_head.weight and the embedding's

// Warns of tensors besides the n_read that a model has: the files may describe another computation.
// Known to be redundant are the copy of a tied head, tables of rotary angles, RoPE pairs and
// tensors without numbers.
void hf_weights_warn(const HfWeights *weights, int n_read, bool is_tied, const char *dir);

// For a model whose head is its embedding: BAD_INPUT if both are stored and differ.
Status hf_weights_check_tied(const HfWeights *weights, const char *dir);

#endif
