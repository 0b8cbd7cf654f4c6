// The tensors of a model that is to be saved, and their way into files.
//
//     TensorList list;
//     TRY(tensor_list_create(&list, capacity));
//     *tensor_list_add(&list, "model.norm.weight") = (TensorSpec){.dtype = dtype, ...};
//     TRY_GOTO(release, tensor_list_check(&list));                    // before anything is written
//     status = tensor_list_write(&list, "out/", 5000000000);
//     tensor_list_release(&list);
#ifndef MHA2MLA_MODEL_HF_TENSOR_LIST_H
#define MHA2MLA_MODEL_HF_TENSOR_LIST_H

#include "model/hf/safetensors.h"
#include "model/params.h"

typedef struct TensorList {
    TensorSpec *specs;               // owned
    char (*names)[PARAM_NAME_BYTES]; // owned; what specs[].name points to
    int *shards;                     // owned; which file each goes to, ascending from 0
    int n_specs, n_shards, capacity;
} TensorList;

// Room for `capacity` tensors.
Status tensor_list_create(TensorList *out, int capacity);
void tensor_list_release(TensorList *list);

// Appends a tensor of this name, a copy of the text; the caller fills in the rest.
void tensor_list_add(TensorList *list, const char *name, TensorSpec spec);

// FAILED, with tensor and place, if a number is none or does not fit the tensor's dtype: loading
// refuses NaN and infinity, so writing them would lose the model.
Status tensor_list_check(const TensorList *list);

// The name of file `shard`, from 0, of a model in n_shards of them, and back; false: it is not one.
enum { SHARD_NAME_BYTES = 64 };
void shard_file_name(char out[SHARD_NAME_BYTES], int shard, int n_shards);
bool shard_file_parse(int *shard, int *n_shards, const char *name);

// Writes model.safetensors, or, above max_shard_bytes of tensors, several files and their index,
// and removes what an earlier save left of the other kind.
Status tensor_list_write(TensorList *list, const char *dir, int64_t max_shard_bytes);

#endif
