// What the paths of attend() share: the widths of a form, a tile of query rows, and its online
// softmax over the blocks of the cache (Milakov and Gimelshein, arXiv 1805.02867).
//
//     const AttendDims dims = attend_dims(&shape);
//     AttendTile tile = {.first = position, .n = n, .n_heads = dims.K, .q_key = ...};
//     attend_tile_start(&tile, &dims);
//     for (...)
//         kernel->block(&tile, &block, &work);            // infer/attention/attend_kernel.h
//     attend_tile_merge(out, &tile, n_parts, row, ...);   // divides by the denominator
//
// Row (h, i) of a tile of n positions, head h and position first + i, is h n + i: the rows that
// meet one head of keys are contiguous. Private to infer/attention.
#ifndef MHA2MLA_INFER_ATTENTION_ATTEND_TILE_H
#define MHA2MLA_INFER_ATTENTION_ATTEND_TILE_H

#include "base/intmath.h"
#include "infer/cache/kv_block.h"

enum {
    ATTEND_KEYS = KV_BLOCK_TOKENS, // columns of a tile of scores
    ATTEND_ROWS = 16,              // whose multiple of rows an accumulator has
    ATTEND_LANES = 16              // partial sums of a row's denominator
};

typedef struct AttendDims {
    int H, K, G, E;   // K: heads of keys in the cache, 1 of the shared form; G = H / K
    int up_heads;     // with up-projections of their own: K, or H of the shared form
    int up_group;     // H / up_heads
    int key_width;    // of a head of keys in the cache: E, or 2P
    int nope;         // dims of a key made of the latent: E - 2P, or E of the shared form
    int latent;       // columns of the latent they are made of; 0: no such dims
    int value_heads;  // in the cache: K, or 1 (the latent)
    int cache_width;  // of such a head: E, or R
    int value_column; // where values begin in it: 0, or R/2
    int value_width;  // columns values are made of: E, R, or R/2
    int value_ld;     // value_width and padding: floats of an accumulator's row
    float scale;      // 1 / sqrt(E)
    bool is_mla;
} AttendDims;

AttendDims attend_dims(const ModelShape *shape);

// The dims of what MLA's cache is expanded to: keys and values of all heads that have
// up-projections of their own, as wide as the original attention's but for the keys of the shared
// form, 2P + E.
AttendDims attend_expanded_dims(const ModelShape *shape);

// Rows of n positions and the query heads of n_heads heads of keys. Borrowed.
typedef struct AttendTile {
    int first, n;          // positions of the queries
    int n_heads;           // heads of keys
    const float *q_key;    // [rows, key_width], times scale
    const float *q_latent; // [rows, latent], times scale; not read if latent is 0
    float *sums;           // [rows, value_ld] unnormalized weighted values
    float *row_max;        // [rows] running maximum of the scores
    float *row_sums;       // [rows, ATTEND_LANES] partial sums of the denominator
} AttendTile;

static inline int attend_tile_rows(const AttendTile *tile, const AttendDims *dims)
{
    return tile->n_heads * dims->G * tile->n;
}

// Rows from one part of a tile's blocks to the next: whole tiles of the matrix units, so that a
// kernel may write rows that are not there.
static inline int attend_part_rows(const AttendTile *tile, const AttendDims *dims)
{
    return round_up(attend_tile_rows(tile, dims), ATTEND_ROWS);
}

// Sums 0, maxima -infinity.
void attend_tile_start(const AttendTile *tile, const AttendDims *dims);

// Scores of a block of `keys` positions from `first_key` on -> unnormalized probabilities relative
// to the rows' maxima, 0 where the causal mask or the block's end is; rescales sums and row_sums
// where a maximum grew.
void attend_tile_softmax(const AttendTile *tile, const AttendDims *dims,
                         float *scores,           // [rows, ATTEND_KEYS]
                         const float *key_factor, // [n_heads][ATTEND_KEYS] of scores, or NULL
                         int first_key, int keys);

// One row of a tile whose blocks were divided among n_parts tiles, attend_part_rows() apart
// -> weighted values, normalized.
void attend_tile_merge(float *out, // [value_width]
                       const AttendTile *tile, const AttendDims *dims, int n_parts, int row);

#endif
