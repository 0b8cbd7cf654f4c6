// Whether what a run will write fits on its disk.
//
//     disk_room_check(run_dir, &config, &shape);    // rank 0, before the first step
#ifndef MHA2MLA_TRAIN_JOB_DISK_ROOM_H
#define MHA2MLA_TRAIN_JOB_DISK_ROOM_H

#include "model/shape.h"
#include "train/config/config.h"

#include <stdint.h>

// Parameters, and both moments of what is trained, in float32, of a whole checkpoint; the exported
// weights.
int64_t disk_room_checkpoint_bytes(const ModelShape *shape, const Trainable *trained);
int64_t disk_room_export_bytes(const ModelShape *shape, DType dtype);

// Checkpoints that are on the disk at the same time at most: those of checkpoint.keep and
// keep_every and the one that is being written, as far as the run makes so many.
int64_t disk_room_n_checkpoints(const Config *config);

// Warns, with the numbers, if fewer bytes are free than checkpoints and exported model will take
// beyond the checkpoints that are there. It is no error: room may be made while the run trains. Not
// collective.
void disk_room_check(const char *run_dir, const Config *config, const ModelShape *shape);

#endif
