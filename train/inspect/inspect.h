// What `mha2mla inspect` prints about each kind of file, from headers and checksums alone unless
// asked for more. One function per kind; train/cli/cmd_inspect.c says which kind a path is.
//
//     TRY(inspect_shard("web.h5", &(InspectTokens){.tokenizer_dir = dir, .verify = true}));
//
// Errors: BAD_INPUT, if the file is not of that kind or damaged. What was printed before stays.
#ifndef MHA2MLA_TRAIN_INSPECT_INSPECT_H
#define MHA2MLA_TRAIN_INSPECT_INSPECT_H

#include "model/shape.h"

typedef struct InspectTokens {
    const char *tokenizer_dir; // NULL: the first tokens are shown as ids only
    bool verify;               // read everything
} InspectTokens;

// Files of tokens: counts, tokenizer, the first tokens, and whether the checksums hold. BAD_INPUT
// also if they were made with another tokenizer.
Status inspect_shard(const char *path, const InspectTokens *options);
Status inspect_nanoset(const char *path, const InspectTokens *options);

// A Hugging Face directory: shape, attention, parameters, KV cache, and the RoPE pairs kept.
Status inspect_model(const char *dir);

// A directory of the paper's own code, by its config.json: the same as far as that says it, and
// that it is to be imported.
Status inspect_paper(const char *dir);
bool inspect_is_paper(const char *dir);

// A safetensors file: its tensors, those of all layers in one line.
Status inspect_safetensors(const char *path);

// A file of `mha2mla score`: what was read, and the pairs that a conversion would keep.
Status inspect_scores(const char *path);
bool inspect_is_scores(const char *path); // does an HDF5 file look like one?

// The directory of a run: what it is, how far it has come, its losses.
Status inspect_run(const char *dir);
bool inspect_is_run(const char *dir);

// A checkpoint: how far the run was, its model, its files; with verify their checksums hold, and
// the digest of the whole state is told (train/checkpoint/checkpoint.h).
Status inspect_checkpoint(const char *dir, bool verify);
bool inspect_is_checkpoint(const char *dir); // finished or not

// ---- for the functions above -------------------------------------------------------------------

enum { INSPECT_SIZE_BYTES = 32 };

// Two blanks and `label`, as wide as all labels.
void inspect_label(const char *label);

// "269.0 MB"; returns `out`.
const char *inspect_size(char out[INSPECT_SIZE_BYTES], int64_t size_bytes);

// Layers, attention, vocabulary, positions, and the length that a converted model was healed at.
void inspect_shape(const ModelShape *shape);

// The map of kept pairs, headed by `what`: a row per layer, a column per pair.
void inspect_pairs(const char *what, const ModelShape *shape, const int32_t *pairs); // [L, K, P]

#endif
