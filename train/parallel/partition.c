// Buckets in the order of the flat vector, which is that of the layers: backward completes them
// from the last to the first, forward needs them from the first to the last. A bucket is the unit
// of exchange, COMM_LARGEST_BUCKET (16 MiB of floats) keeps its buffers small and lets its sum
// overlap with the next transfer.
#include "train/parallel/partition.h"

#include "model/params.h"

#include <stdlib.h>

// A stretch [first, end) of the flat vector in one layer, and where its gradients begin in theirs.
typedef struct Stretch {
    int layer;
    int64_t first, end, grads_first;
} Stretch;

// Appends it in buckets of at most COMM_LARGEST_BUCKET floats. Buckets do not cross the boundaries
// of layers: a layer's gradients can be exchanged as soon as its backward is done. The moments of
// the shares lie side by side in the rank's own vectors.
static void append_stretch(Partition *partition, Stretch stretch, int n_ranks, int rank)
{
    while (stretch.first < stretch.end) {
        const int64_t left = stretch.end - stretch.first;
        Bucket *bucket = &partition->buckets[partition->n_buckets++];
        bucket->layer = stretch.layer;
        bucket->first = stretch.first;
        bucket->grads_first = stretch.grads_first;
        bucket->count = left < COMM_LARGEST_BUCKET ? left : COMM_LARGEST_BUCKET;
        comm_share(bucket->count, rank, n_ranks, &bucket->own_first, &bucket->own_count);
        // comm_share() counts from the beginning of the bucket.
        bucket->own_first += stretch.first;
        bucket->moments_first = partition->own_count;
        partition->own_count += bucket->own_count;
        stretch.first += bucket->count;
        stretch.grads_first += bucket->count;
    }
}

// A bucket for each tensor, where every other one is frozen, and for every full COMM_LARGEST_BUCKET
// two: a range that is cut has a remainder.
int64_t partition_max_buckets(const ModelShape *shape)
{
    return params_n_tensors(shape) + params_count(shape) / COMM_LARGEST_BUCKET * 2;
}

// Buckets of the tensors that are trained, or of all others. Neighbours in a layer are one stretch.
static void cut(Partition *partition, const ModelShape *shape, const Trainable *trained,
                bool wants_trained, int n_ranks, int rank)
{
    const int n_tensors = params_n_tensors(shape);
    Stretch stretch = {.layer = -1};
    int64_t grads = 0; // before the tensor
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(shape, t);
        // What lies before the layers without belonging to one, the embedding, gets layer -1.
        const int layer = info.layer < 0 && t > 0 ? shape->n_layers : info.layer;
        if (trainable_has(trained, info.name) == wants_trained) {
            if (info.offset != stretch.end || layer != stretch.layer) {
                append_stretch(partition, stretch, n_ranks, rank);
                stretch = (Stretch){.layer = layer, .first = info.offset, .grads_first = grads};
            }
            stretch.end = info.offset + (int64_t)info.rows * info.cols;
        }
        grads += trainable_tensor_gradients(trained, shape, t);
    }
    append_stretch(partition, stretch, n_ranks, rank);
}

// The part of a tensor that lies in a bucket, counted from the bucket's beginning; count <= 0:
// none.
static CommRange part_in(const Bucket *bucket, const ParamInfo *info)
{
    const int64_t first = info->offset > bucket->first ? info->offset : bucket->first;
    const int64_t tensor_end = info->offset + (int64_t)info->rows * info->cols;
    const int64_t bucket_end = bucket->first + bucket->count;
    const int64_t end = tensor_end < bucket_end ? tensor_end : bucket_end;
    return (CommRange){first - bucket->first, end - first};
}

// Tensors and buckets are both in the order of the flat vector. A vector that is cut by the end of
// a bucket is in two of them.
static void find_vectors(Partition *partition, const ModelShape *shape)
{
    const int n_tensors = params_n_tensors(shape);
    int n_vectors = 0, b = 0;
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(shape, t);
        while (b < partition->n_buckets - 1 && partition->buckets[b + 1].first <= info.offset)
            b++;
        for (int i = b; info.is_vector && i < partition->n_buckets; i++) {
            Bucket *bucket = &partition->buckets[i];
            const CommRange part = part_in(bucket, &info);
            if (part.count <= 0)
                break;
            if (bucket->n_vectors++ == 0)
                bucket->vectors = partition->vectors + n_vectors;
            partition->vectors[n_vectors++] = part;
        }
    }
}

static Status create(Partition *out, const ModelShape *shape, const Trainable *trained,
                     bool wants_trained, int n_ranks, int rank)
{
    const int64_t capacity = partition_max_buckets(shape);
    // Each bucket's end cuts one tensor at most.
    const int64_t max_vectors = params_n_tensors(shape) + capacity;
    Partition partition = {.n_params = params_count(shape),
                           .buckets = calloc((size_t)capacity, sizeof *partition.buckets),
                           .vectors = calloc((size_t)max_vectors, sizeof *partition.vectors)};
    if (partition.buckets == NULL || partition.vectors == NULL) {
        partition_release(&partition);
        return fail(FAILED, "no memory for %lld buckets", (long long)capacity);
    }
    cut(&partition, shape, trained, wants_trained, n_ranks, rank);
    CHECK(partition.n_buckets <= capacity, "%d buckets", partition.n_buckets);
    find_vectors(&partition, shape);
    *out = partition;
    return OK;
}

Status partition_create(Partition *out, const ModelShape *shape, int n_ranks, int rank)
{
    const Trainable all = {0};
    return create(out, shape, &all, true, n_ranks, rank);
}

Status partition_create_trained(Partition *out, const ModelShape *shape, const Trainable *trained,
                                int n_ranks, int rank)
{
    return create(out, shape, trained, true, n_ranks, rank);
}

Status partition_create_frozen(Partition *out, const ModelShape *shape, const Trainable *trained,
                               int n_ranks, int rank)
{
    return create(out, shape, trained, false, n_ranks, rank);
}

CommGather partition_bucket_gather(const Bucket *bucket, float *values, bool as_bf16)
{
    return (CommGather){.bucket = values,
                        .count = bucket->count,
                        .as_bf16 = as_bf16,
                        .exact = bucket->vectors,
                        .n_exact = bucket->n_vectors};
}

void partition_gather(const Partition *partition, const Comm *comm, float *flat)
{
    for (int i = 0; i < partition->n_buckets; i++) {
        const Bucket *bucket = &partition->buckets[i];
        const CommGather gather = partition_bucket_gather(bucket, flat + bucket->first, false);
        comm_all_gather(comm, &gather);
    }
}

// Rounded up per bucket, since a block of squares never reaches from one bucket into the next.
int64_t partition_n_blocks(const Partition *partition)
{
    int64_t n = 0;
    for (int i = 0; i < partition->n_buckets; i++)
        n += (partition->buckets[i].count + COMM_SHARE_BLOCK - 1) / COMM_SHARE_BLOCK;
    return n;
}

void partition_release(Partition *partition)
{
    free(partition->buckets);
    free(partition->vectors);
    *partition = (Partition){0};
}
