// Writing a model's directory, whatever its tensors are called: behind hf_save() and the other
// formats of model/hf.
#ifndef MHA2MLA_MODEL_HF_HF_DIRECTORY_H
#define MHA2MLA_MODEL_HF_HF_DIRECTORY_H

#include "model/hf/tensor_list.h"

#include <jansson.h>

typedef struct HfDirectory {
    TensorList *tensors;  // borrowed
    json_t *config;       // borrowed: config.json, to which bos and eos are added
    const char *base_dir; // NULL: the tokenizer's files are in the directory already, if at all
    int max_positions;
    bool has_code;           // model/hf/custom_code.h
    int64_t max_shard_bytes; // 0: as transformers
} HfDirectory;

// BAD_INPUT if a file of the tokenizer in base_dir is something else, such as a Git LFS pointer.
Status hf_check_tokenizer(const char *base_dir);

// An older config.json is removed, and weights, index, tokenizer and, last, config.json are
// written: a directory without config.json is no model, so a save that is cut short never looks
// like one. What can be refused about the tensors is to be checked before.
Status hf_directory_write(const HfDirectory *files, const char *dir);

#endif
