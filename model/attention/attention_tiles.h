// What attention on expanded keys and values (attention.c) and in the latent space
// (attention_latent.c) share: tiles of packed queries times tiles of packed keys and values. Each
// of the two says how rows of tokens become packed tiles and back.
//
//     static const TilePacking packing = {pack_keys, pack_queries, ...};
//     const TileLayout layout = tiles_layout(B, T, K, G, false, key_width, value_width);
//     tiles_forward(&packing, &context, scratch, &layout);
//
// Packed queries are those of a group of G heads, stacked: row r of a tile is head r / n of the
// group at position q0 + r % n, where n is the number of positions in the tile. They carry the
// softmax's scale. All rows of a group are contiguous: those of the tile at q0 begin at row G q0.
// Private to these three files.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_TILES_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_TILES_H

#include <stdbool.h>
#include <stdint.h>

enum { TILE_KEYS = 192 }; // of a packed tile

typedef struct TileLayout {
    int B, T, K, G;             // sequences, tokens, groups of query heads, heads of each
    bool shares_keys;           // one KV head serves all groups; else each has its own
    int key_width, value_width; // of a head
    int key_ld, value_ld;       // floats of a packed row: the width and padding
    int queries, rows;          // positions of a query tile; stacked rows, G times as many
    int n_query_tiles, n_key_tiles;
    int n_query_parts; // backward: ranges of query tiles, the work items of packing
    int n_key_parts;   // backward: every n_key_parts-th key tile is one work item
} TileLayout;

// A group of query heads of one sequence, or a KV head where keys are packed: the same unless
// groups share their keys.
typedef struct TileHead {
    int64_t index;       // of B K
    int64_t first_token; // of B T
    int kv_head;         // of K
} TileHead;

// KV heads of a sequence.
static inline int tiles_kv_heads(bool shares_keys, int K)
{
    return shares_keys ? 1 : K;
}

// Heads are numbered b K + j, sequences outermost.
static inline TileHead tile_head(int index, int K, int T)
{
    return (TileHead){
        .index = index,
        .first_token = (int64_t)(index / K) * T,
        .kv_head = index % K,
    };
}

// Packed tiles of a KV head, to be filled. NULL: not needed in this direction.
typedef struct KeyTile {
    float *k_columns; // [key_width, TILE_KEYS], zeros beyond n
    float *v_columns; // [value_width, TILE_KEYS], likewise
    float *k_rows;    // [n, key_ld], zeros beyond key_width
    float *v_rows;    // [n, value_ld], likewise
    int first, n;     // positions
} KeyTile;

typedef struct QueryTile {
    float *q;           // [G n, key_ld]
    float *out;         // [G n, value_ld]; forward: output, normalized; backward: its gradient
    float *lse, *delta; // [G n]; delta: dot product of out and its gradient
    int first, n;       // positions
    int part;           // of n_query_parts
    bool starts_part;   // the first of its part
} QueryTile;

// How tiles are packed and unpacked. `context` is the caller's. Called from parallel regions, once
// for each tile.
typedef struct TilePacking {
    void (*pack_keys)(const void *context, const TileHead *head, const KeyTile *tile);
    // Forward: queries in, then output and lse (of the scaled scores) out.
    void (*pack_queries)(const void *context, const TileHead *head, const QueryTile *tile);
    void (*unpack_output)(const void *context, const TileHead *head, const QueryTile *tile);
    // Backward: queries, gradient of the output, lse and delta in; gradients out. The tiles of a
    // part come in order, from one thread.
    void (*pack_backward)(const void *context, const TileHead *head, const QueryTile *tile);
    void (*unpack_keys)(const void *context, const TileHead *head,
                        const float *d_k, // [key_width, TILE_KEYS]
                        const float *d_v, // [value_width, TILE_KEYS]
                        int first, int n);
    void (*unpack_queries)(const void *context, const TileHead *head, const QueryTile *tile);
} TilePacking;

TileLayout tiles_layout(int B, int T, int K, int G, bool shares_keys, int key_width,
                        int value_width);

// For n_threads, with or without backward.
int64_t tiles_scratch_floats(const TileLayout *layout, int n_threads, bool is_training);

void tiles_forward(const TilePacking *packing, const void *context, float *scratch,
                   const TileLayout *layout);
void tiles_backward(const TilePacking *packing, const void *context, float *scratch,
                    const TileLayout *layout);

// Columns [0, width) of n rows that lie `row` apart -> rows of a tile, times `scale`; zeros in its
// columns [width, end).
void tiles_pack_rows(float *packed, int ld, const float *strided, int64_t row, int n, int width,
                     int end, float scale);

// Columns [0, width) of n rows -> rows of a tile [width, TILE_KEYS].
void tiles_pack_columns(float *packed, const float *strided, int64_t row, int n, int width);

// Rows of a tile -> columns [0, width) of n rows that lie `row` apart, times `scale`.
void tiles_unpack_rows(float *strided, int64_t row, const float *packed, int ld, int n, int width,
                       float scale);

// Columns [0, n) of a tile [width, TILE_KEYS] -> columns [0, width) of n rows, =.
void tiles_unpack_columns(float *strided, int64_t row, const float *packed, int n, int width);

float tiles_dot(const float *a, const float *b, int count);

#endif
