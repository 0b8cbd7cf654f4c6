// Keys and values of a range of blocks are expanded for all heads into scratch; then every query
// tile of the chunk runs over the range, and so on to the end of the chunk. A cached position is so
// expanded once per chunk, and the memory depends on the chunk and not on the cache. The original
// attention goes the same way: its expansion is widening.
//
// In bfloat16 what was expanded is packed once into panels (model/kernels/tile_bf16.h) that all
// query tiles read; softmax and sums stay float32.
#include "infer/attention/attend_paths.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/tile_bf16.h"

#include <omp.h>
#include <string.h>

enum {
    KEYS = ATTEND_KEYS,
    RANGE_BLOCKS = 8, // expanded at a time
    TILE_ROWS = 96    // of a query tile, about
};

typedef struct Chunk {
    const AttendCall *call;
    const AttendJob *job;
    const ModelShape *shape;
    AttendDims cached, dims; // of the cache, and of what it is expanded to
    int tile_tokens, n_tiles;
    // Scratch of all threads.
    float *q;                         // [H, count, key width] times scale, RoPE dims first
    float *sums, *row_max, *row_sums; // [H, count, ...]
    float *key, *value; // [RANGE_BLOCKS][K][key width][64] and [RANGE_BLOCKS][K][64][E]
    // In bfloat16: q's rows, and panels of keys [key width, 64] and values [64, E],
    // [RANGE_BLOCKS][K] each.
    uint16_t *q_rounded, *key_panels, *value_panels;
    // Of MLA's blocks before they are expanded: [RANGE_BLOCKS] each.
    float *cached_key, *latent; // [heads of k_r][2P][64], [64][R]
    float *key_factor;          // [K][64], or NULL
    // Each thread its own.
    float *scores; // [tile rows, 64]
    float *rows;   // [64, nope] keys of a head before they are transposed
    uint16_t *p;   // [tile rows, 64] in bfloat16: probabilities
} Chunk;

static bool is_bf16(const Chunk *c)
{
    return c->job->compute == COMPUTE_BFLOAT16;
}

static void find_tiles(Chunk *c, int count)
{
    const int tokens = TILE_ROWS / c->dims.G / 16 * 16;
    c->tile_tokens = min_int(tokens > 16 ? tokens : 16, count);
    c->n_tiles = ceil_div(count, c->tile_tokens);
}

static void place_shared(Chunk *c, Arena *arena, int count)
{
    const AttendDims *d = &c->dims;
    const int64_t rows = (int64_t)count * d->H, keys = RANGE_BLOCKS * KEYS;
    c->q = arena_floats(arena, rows * d->key_width);
    c->sums = arena_floats(arena, rows * d->value_ld);
    c->row_max = arena_floats(arena, rows);
    c->row_sums = arena_floats(arena, rows * ATTEND_LANES);
    c->key = arena_floats(arena, keys * d->K * d->key_width);
    c->value = arena_floats(arena, keys * d->K * d->E + d->value_ld - d->E);
    c->q_rounded = arena_place(arena, rows * tile_bf16_padded(d->key_width), sizeof *c->q_rounded);
    c->key_panels = arena_place(
        arena, RANGE_BLOCKS * d->K * tile_bf16_panels_halves(d->key_width, KEYS), sizeof *c->p);
    c->value_panels =
        arena_place(arena, RANGE_BLOCKS * d->K * tile_bf16_panels_halves(KEYS, d->E), sizeof *c->p);
    if (!c->cached.is_mla)
        return;
    c->cached_key = arena_floats(arena, keys * c->cached.K * c->cached.key_width);
    c->latent = arena_floats(arena, keys * c->cached.cache_width);
    if (shape_key_factors(c->shape) > 0)
        c->key_factor = arena_floats(arena, keys * d->K);
}

static void place_own(Chunk *c, Arena *arena)
{
    c->scores = arena_floats(arena, (int64_t)c->tile_tokens * c->dims.G * KEYS);
    c->rows = arena_floats(arena, (int64_t)KEYS * c->cached.nope);
    c->p = arena_place(arena, (int64_t)c->tile_tokens * c->dims.G * KEYS, sizeof *c->p);
}

static Chunk make_chunk(const ModelShape *shape, int count)
{
    Chunk c = {.shape = shape, .cached = attend_dims(shape), .dims = attend_expanded_dims(shape)};
    find_tiles(&c, count);
    return c;
}

int64_t attend_chunk_scratch_floats(const ModelShape *shape, int max_tokens, int n_threads)
{
    Chunk c = make_chunk(shape, max_tokens);
    Arena shared = arena_start("attend"), own = arena_start("attend");
    place_shared(&c, &shared, max_tokens);
    place_own(&c, &own);
    return (shared.used_bytes + n_threads * own.used_bytes) / (int64_t)sizeof(float);
}

// Queries of a tile and head of keys, stacked head by head: rows of AttendTile, RoPE dims first.
static AttendTile tile_of(const Chunk *c, int j, int i)
{
    const AttendDims *d = &c->dims;
    const int offset = i * c->tile_tokens;
    const int64_t row = ((int64_t)j * c->job->count + offset) * d->G;
    return (AttendTile){
        .first = c->job->first + offset,
        .n = min_int(c->tile_tokens, c->job->count - offset),
        .n_heads = 1,
        .q_key = c->q + row * d->key_width,
        .sums = c->sums + row * d->value_ld,
        .row_max = c->row_max + row,
        .row_sums = c->row_sums + row * ATTEND_LANES,
    };
}

HOT static void copy_scaled(float *restrict to, const float *restrict from, int count, float scale)
{
    for (int i = 0; i < count; i++)
        to[i] = scale * from[i];
}

// The tile's rows, [G n, key width in whole steps].
static uint16_t *rounded_queries(const Chunk *c, const AttendTile *tile)
{
    const int width = c->dims.key_width;
    return c->q_rounded + (tile->q_key - c->q) / width * tile_bf16_padded(width);
}

static void start_tile(const Chunk *c, int j, int i)
{
    const AttendDims *d = &c->dims;
    const AttendTile tile = tile_of(c, j, i);
    attend_tile_start(&tile, d);
    const int rope = c->cached.key_width, nope = c->cached.nope;
    for (int row = 0; row < d->G * tile.n; row++) {
        const int h = j * d->G + row / tile.n, offset = i * c->tile_tokens + row % tile.n;
        const float *from = c->job->q + (int64_t)offset * c->call->ld_q;
        float *to = c->q + (tile.q_key - c->q) + (int64_t)row * d->key_width;
        copy_scaled(to, from + h * rope, rope, d->scale);
        copy_scaled(to + rope, from + d->H * rope + h * nope, nope, d->scale);
    }
    if (is_bf16(c))
        tile_bf16_copy_rows(rounded_queries(c, &tile), tile_bf16_padded(d->key_width),
                            rows_read_f32(tile.q_key, d->key_width), d->G * tile.n, d->key_width);
}

static void finish_tile(const Chunk *c, int j, int i)
{
    const AttendDims *d = &c->dims;
    const AttendTile tile = tile_of(c, j, i);
    for (int row = 0; row < d->G * tile.n; row++) {
        const int h = j * d->G + row / tile.n, offset = i * c->tile_tokens + row % tile.n;
        attend_tile_merge(c->job->out + ((int64_t)offset * d->H + h) * d->E, &tile, d, 1, row);
    }
}

// Block b of the range as the cache has it, widened.
static void widen_block(const Chunk *c, int range, int b)
{
    const AttendDims *d = &c->dims;
    const KvBlock block = kv_block(c->job->sequence, c->call->layer, range * RANGE_BLOCKS + b);
    if (c->cached.is_mla)
        kv_block_widen(&block,
                       c->cached_key + (int64_t)b * c->cached.K * c->cached.key_width * KEYS,
                       c->latent + (int64_t)b * KEYS * c->cached.cache_width);
    else
        kv_block_widen(&block, c->key + (int64_t)b * d->K * d->E * KEYS,
                       c->value + (int64_t)b * d->K * KEYS * d->E);
    if (c->key_factor != NULL)
        memcpy(c->key_factor + (int64_t)b * d->K * KEYS, block.key_factor,
               (size_t)d->K * KEYS * sizeof *c->key_factor);
}

HOT static void transpose(float *restrict columns, const float *restrict rows, int width)
{
    for (int t = 0; t < KEYS; t += 16)
        for (int e = 0; e < width; e++)
            for (int i = 0; i < 16; i++)
                columns[e * KEYS + t + i] = rows[(t + i) * width + e];
}

HOT static void scale_columns(float *restrict columns, const float *restrict factor, int width)
{
    for (int e = 0; e < width; e++)
        for (int t = 0; t < KEYS; t++)
            columns[e * KEYS + t] *= factor[t];
}

// Keys and values of head j in block b: k = [k_r | U_k c], times the key's factor if it has one,
// v = U_v c. In the shared form all heads copy the one k_r.
static void expand_head(const Chunk *c, int b, int j)
{
    const AttendDims *d = &c->dims, *cached = &c->cached;
    const int64_t head = (int64_t)b * d->K + j;
    const float *latent = c->latent + (int64_t)b * KEYS * cached->cache_width;
    const int64_t key_head = (int64_t)b * cached->K + j * cached->K / d->K;
    float *key = c->key + head * d->key_width * KEYS, *value = c->value + head * KEYS * d->E;
    memcpy(key, c->cached_key + key_head * cached->key_width * KEYS,
           (size_t)cached->key_width * KEYS * sizeof(float));
    if (cached->latent > 0) {
        const WeightMatrix up_k = weight_rows(c->call->up_k, j * cached->nope, cached->nope);
        weight_product(c->rows, cached->nope, latent, cached->cache_width, &up_k, KEYS, false);
        transpose(key + cached->key_width * KEYS, c->rows, cached->nope);
    }
    if (c->key_factor != NULL)
        scale_columns(key, c->key_factor + head * KEYS, d->key_width);
    const WeightMatrix up_v = weight_rows(c->call->up_v, j * d->E, d->E);
    weight_product(value, d->E, latent + cached->value_column, cached->cache_width, &up_v, KEYS,
                   false);
}

static void pack_head(const Chunk *c, int b, int j)
{
    const int E = c->dims.E, width = c->dims.key_width;
    const int64_t head = (int64_t)b * c->dims.K + j;
    tile_bf16_pack_rows(c->key_panels + head * tile_bf16_panels_halves(width, KEYS),
                        tile_bf16_panel_halves(width),
                        rows_read_f32(c->key + head * width * KEYS, KEYS), width, KEYS);
    tile_bf16_pack_rows(c->value_panels + head * tile_bf16_panels_halves(KEYS, E),
                        tile_bf16_panel_halves(KEYS), rows_read_f32(c->value + head * KEYS * E, E),
                        KEYS, E);
}

// attend_block_floats() in bfloat16, of the panels instead of the floats.
static void run_block(const Chunk *c, const AttendTile *tile, int64_t head,
                      const AttendFloats *block)
{
    const AttendDims *d = &c->dims;
    const int rows = attend_tile_rows(tile, d), E = d->E, width = d->key_width;
    tile_bf16_multiply(c->scores, KEYS, rounded_queries(c, tile), tile_bf16_padded(width),
                       c->key_panels + head * tile_bf16_panels_halves(width, KEYS),
                       tile_bf16_panel_halves(width), rows, KEYS, width, false);
    attend_tile_softmax(tile, d, c->scores, NULL, block->first, block->count);
    tile_bf16_copy_rows(c->p, KEYS, rows_read_f32(c->scores, KEYS), rows, KEYS);
    tile_bf16_multiply(tile->sums, d->value_ld, c->p, KEYS,
                       c->value_panels + head * tile_bf16_panels_halves(KEYS, E),
                       tile_bf16_panel_halves(KEYS), rows, E, KEYS, true);
}

// A query tile over the blocks of the range that its last position sees.
static void run_tile(const Chunk *c, int range, int n_blocks, int j, int i)
{
    const AttendDims *d = &c->dims;
    const AttendTile tile = tile_of(c, j, i);
    const AttendWork work = {.dims = d, .scores = c->scores};
    const int visible = tile.first + tile.n - range * RANGE_BLOCKS * KEYS;
    for (int b = 0; b < n_blocks && b * KEYS < visible; b++) {
        const int64_t head = (int64_t)b * d->K + j;
        const AttendFloats block = {.first = (range * RANGE_BLOCKS + b) * KEYS,
                                    .count = min_int(KEYS, visible - b * KEYS),
                                    .key = c->key + head * d->key_width * KEYS,
                                    .value = c->value + head * KEYS * d->E};
        if (is_bf16(c))
            run_block(c, &tile, head, &block);
        else
            attend_block_floats(&work, &tile, &block);
    }
}

// Called by all threads of a parallel region.
static void run_range(const Chunk *c, int range, int n_blocks)
{
    const int K = c->dims.K;
#pragma omp for schedule(dynamic)
    for (int b = 0; b < n_blocks; b++)
        widen_block(c, range, b);
    if (c->cached.is_mla)
#pragma omp for collapse(2) schedule(dynamic)
        for (int b = 0; b < n_blocks; b++)
            for (int j = 0; j < K; j++)
                expand_head(c, b, j);
    if (is_bf16(c)) {
#pragma omp for collapse(2) schedule(dynamic)
        for (int b = 0; b < n_blocks; b++)
            for (int j = 0; j < K; j++)
                pack_head(c, b, j);
        tile_bf16_start();
    }
#pragma omp for collapse(2) schedule(dynamic)
    for (int j = 0; j < K; j++)
        for (int i = c->n_tiles - 1; i >= 0; i--) // the last tiles see the most keys
            run_tile(c, range, n_blocks, j, i);
    if (is_bf16(c))
        tile_bf16_end();
}

void attend_chunk(const AttendCall *call, const AttendJob *job)
{
    const int n_threads = omp_get_max_threads();
    Chunk shared = make_chunk(call->shape, job->count);
    shared.call = call;
    shared.job = job;
    Arena arena = arena_over("attend", call->scratch, INT64_MAX), own = arena_start("attend");
    place_shared(&shared, &arena, job->count);
    place_own(&shared, &own);
    const int64_t shared_floats = arena.used_bytes / (int64_t)sizeof(float),
                  own_floats = own.used_bytes / (int64_t)sizeof(float);
    const int n_blocks = kv_n_blocks(job->sequence, job->first + job->count), K = shared.dims.K;
#pragma omp parallel num_threads(n_threads)
    {
        Chunk c = shared;
        Arena mine = arena_over(
            "attend", call->scratch + shared_floats + omp_get_thread_num() * own_floats, INT64_MAX);
        place_own(&c, &mine);
#pragma omp for collapse(2) schedule(static)
        for (int j = 0; j < K; j++)
            for (int i = 0; i < c.n_tiles; i++)
                start_tile(&c, j, i);
        for (int range = 0; range * RANGE_BLOCKS < n_blocks; range++)
            run_range(&c, range, min_int(RANGE_BLOCKS, n_blocks - range * RANGE_BLOCKS));
#pragma omp for collapse(2) schedule(static)
        for (int j = 0; j < K; j++)
            for (int i = 0; i < c.n_tiles; i++)
                finish_tile(&c, j, i);
    }
}
