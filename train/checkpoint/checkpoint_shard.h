// One rank's file of a checkpoint (HDF5; h5ls and h5py read it):
//
//     /ranges         int64 [n, 2]  first and count of each range of the flat parameter vector
//     /parameters     float32 [own_count]   these ranges, one after another
//     /first_moment   float32 [own_count]   AdamW's m, likewise
//     /second_moment  float32 [own_count]   AdamW's v
//     /frozen_ranges, /frozen_parameters    the same of tensors that are not trained
//                                           (train.trainable), which have no moments; left out if
//                                           all are
//     attributes      format "mha2mla-checkpoint-shard", version, step, rank, n_ranks
//
// In Python:  f = h5py.File("shard-0000.h5"); first, count = f["ranges"][0];
// f["parameters"][:count] are parameters first .. first + count - 1 of the flat vector, whose
// tensors manifest.json lists.
#ifndef MHA2MLA_TRAIN_CHECKPOINT_CHECKPOINT_SHARD_H
#define MHA2MLA_TRAIN_CHECKPOINT_CHECKPOINT_SHARD_H

#include "train/checkpoint/checkpoint.h"

typedef struct CheckpointShard {
    int step, rank, n_ranks;
    const Partition *partition; // of what is trained; borrowed, as is all that follows
    const Partition *frozen;    // of the rest; NULL: nothing is frozen
    const float *params;        // the whole flat vector
    const float *m, *v;         // [own_count]
} CheckpointShard;

// "shard-0003.h5", and its path in `dir`.
enum { CHECKPOINT_SHARD_NAME_BYTES = 32 };
void checkpoint_shard_name(char out[CHECKPOINT_SHARD_NAME_BYTES], int rank);
Status checkpoint_shard_path(char out[PATH_BYTES], const char *dir, int rank);

// Writes, fsyncs, and reads the file once more for its CRC-32. In pieces, so that HDF5's lock is
// free for readers in between. FAILED with HDF5's or the system's reason; no file is left then.
Status checkpoint_shard_write(CheckpointFile *out, const char *dir, const CheckpointShard *shard);

// Reads what the file has of the partition's shares and adds the number of parameters to *n_read,
// as checkpoint_read(); `frozen` is not asked for. BAD_INPUT if the file is not a shard of this
// checkpoint.
Status checkpoint_shard_read(int64_t *n_read, const char *path, const CheckpointShard *expected,
                             float *params, float *m, float *v);

#endif
