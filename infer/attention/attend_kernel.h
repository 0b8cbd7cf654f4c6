// The inner kernels of attention over the cache: one block of 64 positions against a tile of
// queries. A table of implementations; the machine and the shape decide.
//
//     const AttendKernel *kernel = attend_kernel_best(&dims);
//     AttendWork work = {...};        // of the thread, sized by attend_work_place()
//     attend_tile_start(&tile, &dims);
//     kernel->start(&work, &tile);
//     kernel->block(&work, &tile, &block);
//
// Every kernel takes blocks of every kind; those it cannot read in place are widened to float32.
// Private to infer/attention.
#ifndef MHA2MLA_INFER_ATTENTION_ATTEND_KERNEL_H
#define MHA2MLA_INFER_ATTENTION_ATTEND_KERNEL_H

#include "base/arena.h"
#include "infer/attention/attend.h"
#include "infer/attention/attend_tile.h"

// A block as float32.
typedef struct AttendFloats {
    int first, count;            // positions
    const float *key;            // [K][key_width][64]
    const float *value;          // [value_heads][64][cache_width], readable 15 floats further
    const float *latent_columns; // [latent][64] the latent's columns that keys are made of; or NULL
    const float *key_factor;     // [heads of the tile][64] of scores; or NULL
} AttendFloats;

enum { ATTEND_SLICES = 3 };

// A thread's scratch.
typedef struct AttendWork {
    const AttendDims *dims;
    float *key, *value, *latent_columns; // a block widened: AttendFloats
    float *scores;                       // [rows, ATTEND_KEYS]
    void *own;                           // of the kernel
    KvFetch *ahead; // the next block: kernels ask for ATTEND_SLICES slices of it on their way
} AttendWork;

// The block as the scratch has it, once it is widened.
static inline AttendFloats attend_work_floats(const AttendWork *work, const KvBlock *block)
{
    return (AttendFloats){block->first,
                          block->count,
                          work->key,
                          work->value,
                          work->dims->latent > 0 ? work->latent_columns : NULL,
                          block->key_factor};
}

typedef struct AttendKernel {
    const char *name;
    double latent_rate; // products with the latent in the time of one of model/kernels/tile.h
    // Whether this machine can run it and it is meant for these dims.
    bool (*fits)(const AttendDims *dims);
    int64_t (*own_floats)(const AttendDims *dims,
                          int rows); // of AttendWork.own; NULL: 0
    // Before the first block of a tile, or of tiles with the same queries; NULL: nothing to do.
    void (*start)(const AttendWork *work, const AttendTile *tile);
    void (*block)(const AttendWork *work, const AttendTile *tile, const KvBlock *block);
    // After their last block; NULL: nothing to do.
    void (*finish)(const AttendWork *work);
} AttendKernel;

typedef enum AttendKernelId {
    ATTEND_WIDENED,
    ATTEND_AVX512,
    ATTEND_AMX,
    N_ATTEND_KERNELS
} AttendKernelId;

// NULL if it does not fit.
const AttendKernel *attend_kernel(AttendKernelId id, const AttendDims *dims);
const AttendKernel *attend_kernel_best(const AttendDims *dims);

// Places the scratch for tiles of at most `rows` rows and this or any other kernel.
void attend_work_place(AttendWork *work, Arena *arena, const AttendDims *dims, int rows);

// Scores of a tile's rows with a block's keys, [K][key_width][64], = or +=.
void attend_key_scores(const AttendWork *work, const AttendTile *tile, const float *key, bool add);

// A block of floats: the products by model/kernels/tile.h.
void attend_block_floats(const AttendWork *work, const AttendTile *tile, const AttendFloats *block);

// Any block, widened into the thread's scratch.
void attend_block_widened(const AttendWork *work, const AttendTile *tile, const KvBlock *block);

// Positions of a job from which expanding costs less than absorbing by this kernel.
int attend_expand_from(const AttendKernel *kernel, const AttendDims *dims);

// attend() by a kernel, with jobs of `expand_from` positions or more expanded.
void attend_by(const AttendKernel *kernel, int expand_from, const AttendJob *jobs, int n_jobs,
               int layer, const ModelShape *shape, const WeightMatrix *up_k,
               const WeightMatrix *up_v, int ld_q, float *scratch);

#endif
