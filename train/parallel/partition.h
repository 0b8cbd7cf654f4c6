// Who updates which parameters: AdamW's moments are sharded over ranks (ZeRO stage 1, Rajbhandari
// et al., arXiv 1910.02054). The flat vector is cut into buckets - one per layer, one before and
// one after them - and each rank owns an equal share of every bucket.
//
//     Partition partition;
//     TRY(partition_create(&partition, &shape, comm.size, comm.rank));
//     ... update the shares ...
//     partition_gather(&partition, &comm, params.flat);
//     partition_release(&partition);
//
// Of a model that is trained in part (model/trainable.h) only the trained tensors are in buckets, a
// bucket for each stretch of a layer without frozen ones between; a second partition has the frozen
// tensors, for what saves and reads all of them.
#ifndef MHA2MLA_TRAIN_PARALLEL_PARTITION_H
#define MHA2MLA_TRAIN_PARALLEL_PARTITION_H

#include "base/status.h"
#include "model/trainable.h"
#include "train/parallel/comm.h"

#include <stdint.h>

typedef struct Bucket {
    int64_t first, count;         // range in the flat vector
    int64_t own_first, own_count; // this rank's share, also in the flat vector
    int64_t grads_first;          // of the bucket in the vector of gradients (model/trainable.h)
    int64_t moments_first;        // where the share's moments lie in this rank's vectors
    int layer;                    // -1: before the layers; their number: after them
    const CommRange *vectors;     // borrowed [n_vectors]: the bucket's parts that are vectors of
    int n_vectors;                // the model (norm weights), ascending, counted from `first`
} Bucket;

typedef struct Partition {
    Bucket *buckets; // owned, in the order of the flat vector
    int n_buckets;
    CommRange *vectors; // owned: those of all buckets
    int64_t own_count;  // length of this rank's moment vectors
    int64_t n_params;   // length of the flat vector
} Partition;

// The shares of rank `rank` of n_ranks in the whole vector; or in what of it is trained; or in the
// rest, which may have no buckets. FAILED: no memory. Not collective.
Status partition_create(Partition *out, const ModelShape *shape, int n_ranks, int rank);
Status partition_create_trained(Partition *out, const ModelShape *shape, const Trainable *trained,
                                int n_ranks, int rank);
Status partition_create_frozen(Partition *out, const ModelShape *shape, const Trainable *trained,
                               int n_ranks, int rank);

// An upper bound of n_buckets. Not collective.
int64_t partition_max_buckets(const ModelShape *shape);

// The all-gather of a bucket. As bfloat16 matrices are rounded, vectors are not: what reads those
// does not round them. Without a buffer. Not collective.
CommGather partition_bucket_gather(const Bucket *bucket,
                                   float *values, // [bucket->count] of the flat vector
                                   bool as_bf16);

// All-gather of the buckets of the flat vector [params_count()] as they are. Collective.
void partition_gather(const Partition *partition, const Comm *comm, float *flat);

// Blocks of COMM_SHARE_BLOCK floats in all buckets, a bucket's last one may be shorter. Not
// collective.
int64_t partition_n_blocks(const Partition *partition);

void partition_release(Partition *partition);

#endif
