// Checkpoints: everything a run needs to go on, with the same bits, on any number of ranks.
//
//     runs/NAME/checkpoints/step-00000500/
//         shard-0000.h5 ...   one per rank that wrote it (train/checkpoint/checkpoint_shard.h)
//         manifest.json       written last, by rename: without it there is no checkpoint
//                             (train/checkpoint/manifest.h)
//
// The manifest is checked with its own checksum and member by member when a checkpoint is opened,
// the files' sizes too; the checksums of the files take reading all of them.
//
//     Checkpoint checkpoint;
//     TRY(checkpoint_open(&checkpoint, dir));
//     TRY_GOTO(close, checkpoint_verify(&checkpoint, 0, 1));
//     TRY_GOTO(close, model_create(&model, &checkpoint.manifest.shape));
//     checkpoint_copy_pairs(&model, &checkpoint);
//     TRY_GOTO(close, checkpoint_read(&checkpoint, &partition, model.params.flat, m, v));
//     close: checkpoint_close(&checkpoint);
//
// Nothing here is collective.
#ifndef MHA2MLA_TRAIN_CHECKPOINT_CHECKPOINT_H
#define MHA2MLA_TRAIN_CHECKPOINT_CHECKPOINT_H

#include "base/checksum.h"
#include "base/file.h"
#include "train/checkpoint/manifest.h"
#include "train/parallel/partition.h"

typedef struct Checkpoint {
    char dir[PATH_BYTES];
    Manifest manifest; // owned
} Checkpoint;

// ---- writing ----

// RUN/checkpoints/step-SSSSSSSS.
Status checkpoint_path(char out[PATH_BYTES], const char *run_dir, int step);

// Makes an empty directory, removing what an earlier attempt left there.
Status checkpoint_begin(const char *dir);

// Writes the manifest: from now on it is a checkpoint.
Status checkpoint_commit(const char *dir, const RunState *state, const Model *model,
                         const CheckpointContext *context, const CheckpointFile *files,
                         int n_files);

// Takes the manifest away first, so that half a removal leaves no half checkpoint.
void checkpoint_remove(const char *dir);

// ---- reading ----

// BAD_INPUT, with the reason, if the manifest is missing, damaged or not one, or a file is missing
// or of another size; FAILED if one is there and the system does not let it be read.
Status checkpoint_open(Checkpoint *out, const char *dir);

// Reads files first, first + stride, ... and compares their CRC-32. BAD_INPUT names the file that
// is missing or damaged; FAILED if one cannot be read.
Status checkpoint_verify(const Checkpoint *checkpoint, int first, int stride);

// BAD_INPUT names the first field in which the config's model is another one.
Status checkpoint_check_shape(const Checkpoint *checkpoint, const ModelShape *shape);

// The RoPE pairs of a model of its shape.
void checkpoint_copy_pairs(Model *model, const Checkpoint *checkpoint);

// What the run trained: its `train.trainable`.
Trainable checkpoint_trained(const Checkpoint *checkpoint);

// Reads the partition's shares: of the parameters to their places in the flat vector, of the
// moments to m and v [own_count] (both NULL: left out; else the partition is one of what is
// trained).
Status checkpoint_read(const Checkpoint *checkpoint, const Partition *partition, float *params,
                       float *m, float *v);

// Both with the numbers. The model alone, for export:
Status checkpoint_load_model(Model *out, const Checkpoint *checkpoint);

// SHA-256 of parameters and both moments, these of what is trained, as one rank would hold them:
// equal for two checkpoints if and only if the runs go on alike, whatever the ranks that wrote
// them.
Status checkpoint_digest(char out[SHA256_HEX_BYTES], const Checkpoint *checkpoint);

void checkpoint_close(Checkpoint *checkpoint);

// Whether the directory's save was finished, as far as one look tells.
bool checkpoint_has_manifest(const char *dir);

// Whether it certainly was not: there is no manifest, also a moment later.
bool checkpoint_is_unfinished(const char *dir);

// Whether the manifest and the files that it names are there and can be opened, damaged or not.
// Where not, they may be back later.
bool checkpoint_can_be_read(const char *dir);

// Waits as long as it may take that a file is seen which another host has renamed, or that a server
// answers again: a third of a second.
void checkpoint_wait_for_second_look(void);

// The step of a directory's name, "step-00000500"; -1: another name.
int checkpoint_step_of(const char *name);

// The steps of RUN/checkpoints/step-*, descending, finished or not. The caller frees *steps.
Status checkpoint_list(int **steps, int *n_steps, const char *run_dir);

// Whether one of them has a manifest, readable or not.
Status checkpoint_has_any(bool *out, const char *run_dir);

#endif
