// The table of kernels, and the one for any machine and any block: the block widened to float32,
// products by model/kernels/tile.h.
#include "infer/attention/attend_kernel.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "infer/attention/attend_avx512.h"
#include "model/kernels/tile.h"

enum { KEYS = ATTEND_KEYS };

// A transpose, 16 tokens at a time, so that what is read with a stride stays in the first cache.
HOT static void transpose(float *restrict columns, const float *restrict rows, int ld, int width)
{
    for (int t = 0; t < KEYS; t += 16)
        for (int c = 0; c < width; c++)
            for (int i = 0; i < 16; i++)
                columns[(int64_t)c * KEYS + t + i] = rows[(int64_t)(t + i) * ld + c];
}

static AttendFloats widen(const AttendWork *work, const KvBlock *block)
{
    const AttendDims *d = work->dims;
    kv_block_widen(block, work->key, work->value);
    if (d->latent > 0)
        transpose(work->latent_columns, work->value, d->cache_width, d->latent);
    return attend_work_floats(work, block);
}

void attend_key_scores(const AttendWork *work, const AttendTile *tile, const float *key, bool add)
{
    const AttendDims *d = work->dims;
    const int group_rows = d->G * tile->n;
    for (int j = 0; j < tile->n_heads; j++)
        tile_multiply(work->scores + (int64_t)j * group_rows * KEYS, KEYS,
                      tile->q_key + (int64_t)j * group_rows * d->key_width, d->key_width,
                      key + (int64_t)j * d->key_width * KEYS, KEYS, group_rows, KEYS, d->key_width,
                      add);
}

// The rows of each KV head meet their own keys; all rows meet the same latent.
void attend_block_floats(const AttendWork *work, const AttendTile *tile, const AttendFloats *block)
{
    const AttendDims *d = work->dims;
    const int rows = attend_tile_rows(tile, d);
    attend_key_scores(work, tile, block->key, false);
    if (block->latent_columns != NULL)
        tile_multiply(work->scores, KEYS, tile->q_latent, d->latent, block->latent_columns, KEYS,
                      rows, KEYS, d->latent, true);
    attend_tile_softmax(tile, d, work->scores, block->key_factor, block->first, block->count);
    const int n_products = d->value_heads == 1 ? 1 : tile->n_heads, m = rows / n_products;
    for (int j = 0; j < n_products; j++)
        tile_multiply(tile->sums + (int64_t)j * m * d->value_ld, d->value_ld,
                      work->scores + (int64_t)j * m * KEYS, KEYS,
                      block->value + (int64_t)j * KEYS * d->cache_width + d->value_column,
                      d->cache_width, m, d->value_width, KEYS, true);
}

void attend_block_widened(const AttendWork *work, const AttendTile *tile, const KvBlock *block)
{
    const AttendFloats floats = widen(work, block);
    attend_block_floats(work, tile, &floats);
}

static bool widened_fits(const AttendDims *dims)
{
    (void)dims;
    return true;
}

static const AttendKernel attend_widened = {
    .name = "widened", .latent_rate = 1, .fits = widened_fits, .block = attend_block_widened};

static const AttendKernel *const kernels[N_ATTEND_KERNELS] = {
    [ATTEND_WIDENED] = &attend_widened,
    [ATTEND_AVX512] = &attend_avx512,
    [ATTEND_AMX] = &attend_amx,
};

const AttendKernel *attend_kernel(AttendKernelId id, const AttendDims *dims)
{
    return kernels[id]->fits(dims) ? kernels[id] : NULL;
}

const AttendKernel *attend_kernel_best(const AttendDims *dims)
{
    int id = N_ATTEND_KERNELS - 1;
    while (!kernels[id]->fits(dims))
        id--;
    return kernels[id];
}

void attend_work_place(AttendWork *work, Arena *arena, const AttendDims *d, int rows)
{
    int64_t own = 0;
    for (int id = 0; id < N_ATTEND_KERNELS; id++)
        if (kernels[id]->fits(d) && kernels[id]->own_floats != NULL)
            own = max_int64(own, kernels[id]->own_floats(d, rows));
    *work = (AttendWork){
        .dims = d,
        .key = arena_floats(arena, (int64_t)d->K * d->key_width * KEYS),
        // tile_multiply() reads whole vectors: up to 15 floats beyond the last row.
        .value =
            arena_floats(arena, (int64_t)d->value_heads * d->cache_width * KEYS + TILE_WIDTH - 1),
        .latent_columns = arena_floats(arena, (int64_t)d->latent * KEYS),
        .scores = arena_floats(arena, (int64_t)rows * KEYS),
        .own = arena_floats(arena, own),
        .ahead = arena_place(arena, 1, sizeof(KvFetch)),
    };
}
