// A checkpoint's manifest.json: what the checkpoint is of, how far the run was, and what its files
// must be. It is written last, by rename, after every file it names is on the disk.
//
//     {
//       "format": "mha2mla-checkpoint", "version": 2,
//       "step": 500, "next_sample": 32000, "tokens": 65536000,      updates done, samples and
//       tokens
//                                                                   of the mixture read for them
//       "global_batch": 64, "micro_batch": 2, "sum_groups": 32, "reduce_dtype": "float32",
//       "compute": "float32",                           of the step's matrix products
//       "loss": 2.31, "grad_norm": 0.9,                 of that step; left out before the first
//       "valid_loss": 2.4, "valid_step": 500,           the newest; left out and -1 before the
//       first "spikes": {"mean", "n_accepted", "n_skipped", "n_skipped_in_row"},   SpikeHistory
//       "trainable": ["attention"],                     train.trainable; left out: all
//       "name", "base", "rope", "tokenizer", "tokenizer_sha256",   of the run's config; some null
//       "data": {...},                                  fingerprint of the mixture (data/mixture.h)
//       "shape": {...},                                 by the names in model/shape_fields.h
//       "rope_pairs": [...],                            [L, K, P], flat, ascending for each KV head
//       "tensors": [{"name", "offset", "rows", "cols"}, ...],      of the flat parameter vector
//       "files": [{"name": "shard-0000.h5", "bytes", "crc32"}, ...],
//       "checksum": "SHA-256"
//     }
//
// The checksum is that of all bytes of the file before the line that it stands in, which is the
// last but one:    head -n -2 manifest.json | sha256sum
// Doubles have 17 digits, which read back as the same bits. Version 1 had no checksum; a manifest
// of version 2 without one is damaged.
//
// Whatever has been read has been checked: a number is within its bounds, what follows from other
// members (next_sample, tensors, ...) says the same as they, and texts can be printed. Errors are
// one line: path, member, value, what is allowed.
#ifndef MHA2MLA_TRAIN_CHECKPOINT_MANIFEST_H
#define MHA2MLA_TRAIN_CHECKPOINT_MANIFEST_H

#include "base/json.h"
#include "model/model.h"
#include "model/shape_fields.h"
#include "model/trainable.h"
#include "train/checkpoint/run_state.h"
#include "train/config/config.h"

typedef struct CheckpointFile {
    int64_t size_bytes;
    uint32_t crc32;
} CheckpointFile;

typedef struct Manifest {
    json_t *root;      // owned; the texts and `data` are borrowed from it
    bool has_checksum; // false: version 1
    ModelShape shape;
    RunState state;
    int64_t tokens;
    int global_batch, seq_len;           // sequences of a step, tokens of a sequence
    ComputeType compute;                 // that the last step was trained with
    const char *name, *tokenizer_sha256; // of the run; "": no tokenizer
    const char *base, *tokenizer, *rope; // NULL: none
    const json_t *data;
    char **trainable; // owned list [n_trainable] of texts; none: all tensors are trained
    int n_trainable;
    int32_t *rope_pairs;   // owned [L, K, P]
    CheckpointFile *files; // owned [n_files], one of each rank that wrote it
    int n_files;
} Manifest;

// Reads and checks a manifest. BAD_INPUT says what is wrong with it.
Status manifest_read(Manifest *out, const char *path);

// The same of a text; `where` names it in errors.
Status manifest_parse(Manifest *out, const char *text, int64_t size_bytes, const char *where);

void manifest_release(Manifest *manifest);

// What a manifest records of the run, besides its state, the model and the files. All borrowed.
typedef struct CheckpointContext {
    const Config *config;
    const char *tokenizer_sha256;
    const json_t *data_fingerprint;
} CheckpointContext;

// Writes the manifest by rename: the file is whole or unchanged.
Status manifest_write(const char *path, const RunState *state, const Model *model,
                      const CheckpointContext *context, const CheckpointFile *files, int n_files);

// The text of a manifest with its checksum, which replaces an earlier one in `root`; the caller
// frees *out. FAILED: no memory.
Status manifest_format(char **out, int64_t *size_bytes, json_t *root);

// ---- for the functions above -------------------------------------------------------------------

#define MANIFEST_FORMAT "mha2mla-checkpoint"
enum { MANIFEST_VERSION = 2 };

// The line of the checksum and the closing brace, around 64 digits.
#define MANIFEST_BEFORE_CHECKSUM "  \"checksum\": \""
#define MANIFEST_AFTER_CHECKSUM  "\"\n}\n"

#endif
