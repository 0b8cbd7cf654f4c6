// The weights of a Hugging Face model directory: model.safetensors, or the shards that
// model.safetensors.index.json names, each mapped once. Behind model/hf/hf.h.
//
//     HfWeights weights;
//     TRY(hf_weights_open(&weights, dir));
//     status = hf_weights_find(&file, &weights, "model.norm.weight");   // file: NULL if missing
//     hf_weights_close(&weights);
#ifndef MHA2MLA_MODEL_HF_HF_WEIGHTS_H
#define MHA2MLA_MODEL_HF_HF_WEIGHTS_H

#include "model/hf/safetensors.h"

typedef struct HfWeights {
    char path[PATH_BYTES]; // of model.safetensors or of the index
    json_t *index;         // owned; NULL: one file
    json_t *weight_map;    // in `index`: tensor name -> file name
    SafeTensors *files;    // owned
    int n_files;
} HfWeights;

// BAD_INPUT if there is neither file, a shard is missing or a file is damaged.
Status hf_weights_open(HfWeights *out, const char *dir);
void hf_weights_close(HfWeights *weights);

// The file that holds a tensor, borrowed; NULL if the directory has no such tensor. BAD_INPUT if
// the index names a shard that lacks it.
Status hf_weights_find(const SafeTensors **out, const HfWeights *weights, const char *name);

#endif
