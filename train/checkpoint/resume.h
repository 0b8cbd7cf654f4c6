// Going on from a checkpoint: which one, whether it fits the config, and its numbers.
//
//     TRY(resume_find(&checkpoint, &is_found, run_dir, &comm));
//     if (is_found) {
//         TRY(resume_check(&checkpoint, &config, &shape));
//         checkpoint_copy_pairs(&model, &checkpoint);
//         ... trainer_start() reads the numbers ...
//     }
//     checkpoint_close(&checkpoint);
#ifndef MHA2MLA_TRAIN_CHECKPOINT_RESUME_H
#define MHA2MLA_TRAIN_CHECKPOINT_RESUME_H

#include "train/checkpoint/checkpoint.h"
#include "train/parallel/comm.h"

typedef enum ResumeMode {
    RESUME_AUTO,    // from the newest valid checkpoint, or from the beginning
    RESUME_REQUIRE, // from a checkpoint or not at all
    RESUME_NEVER,   // from the beginning, in a directory without a run
} ResumeMode;

// Opens a checkpoint and compares the checksums of all its files, which the ranks share; a warning
// is logged if the manifest has no checksum of its own. BAD_INPUT with the reason. Collective.
Status resume_open(Checkpoint *out, const char *dir, const Comm *comm);

// The newest checkpoint of the run that is whole, checksums included; what is skipped is said with
// the reason. *is_found == false: none, and *out is empty. Collective.
Status resume_find(Checkpoint *out, bool *is_found, const char *run_dir, const Comm *comm);

// The shape before conversion, from the newest manifest of the run that can be read; false: there
// is none. Not collective.
bool resume_original_shape(ModelShape *out, const Config *config);

// BAD_INPUT names what the config has changed that the checkpoint cannot follow: the model's shape,
// the batch. The data are checked where they are opened (mixture_check_fingerprint).
Status resume_check(const Checkpoint *checkpoint, const Config *config, const ModelShape *shape);

#endif
