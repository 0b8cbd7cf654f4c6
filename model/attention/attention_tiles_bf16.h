// The tiles of model/attention/attention_tiles.h where products compute in bfloat16: the same order
// of work on other operands. Keys, values and queries are packed as bfloat16, scores and sums are
// float32, probabilities and their gradients are rounded to bfloat16 as operands of the next
// product.
//
//     static const Bf16Packing packing = {pack_keys, pack_queries, ...};
//     const Bf16Layout layout = bf16_layout(B, T, K, G, false, key_width, value_width, scale);
//     bf16_tiles_forward(&packing, &context, lse, scratch, &layout);
//
// Rows of queries are stacked as there, but not scaled: the softmax knows the scale, and who
// unpacks gradients of queries and keys multiplies by it. A tile's rows are padded to a multiple of
// 32, the depth of one product of AMX. Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_TILES_BF16_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_TILES_BF16_H

#include "model/attention/attention_tiles.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct Bf16Layout {
    int B, T, K, G;             // sequences, tokens, groups of query heads, heads of each
    bool shares_keys;           // as TileLayout has it
    int key_width, value_width; // of a head
    int key_ld, value_ld;       // of rows in bfloat16: padded to a product's depth
    int key_n, value_n;         // of float32 rows of results: padded to 16
    int keys;                   // of a key tile
    int queries, rows;          // positions of a query tile; its stacked rows, padded
    int n_query_tiles, n_key_tiles;
    int n_query_parts, n_key_parts; // as TileLayout has them
    float scale;                    // of scores
} Bf16Layout;

// A query tile. Padding, rows from G n on and columns beyond a width, is zero on the way in.
typedef struct Bf16QueryTile {
    uint16_t *q;             // [rows, key_ld]
    uint16_t *d_out;         // [rows, value_ld], backward
    uint16_t *q_t, *d_out_t; // [n, rows]: transposed where they have been packed, backward
    float *out;              // [rows, value_n], forward: normalized
    float *d_q;       // [rows, key_n], backward: gradient of the raw product q k times scale^-1
    float *lse2;      // [rows] log2 of the softmax's denominator, backward
    float *delta;     // [rows] dot product of the output and its gradient, backward
    int first, n;     // positions
    int n_rows;       // G n
    int part;         // of n_query_parts, backward
    bool starts_part; // the first of its part
} Bf16QueryTile;

// How tiles are packed and unpacked, as TilePacking.
typedef struct Bf16Packing {
    void (*pack_keys)(const void *context, const TileHead *head,
                      uint16_t *k, // [n, key_ld] rows, zeros beyond key_width
                      uint16_t *v, // [n, value_ld], likewise
                      int first, int n);
    void (*pack_queries)(const void *context, const TileHead *head, const Bf16QueryTile *tile);
    void (*unpack_output)(const void *context, const TileHead *head, const Bf16QueryTile *tile);
    void (*pack_backward)(const void *context, const TileHead *head, const Bf16QueryTile *tile);
    void (*unpack_keys)(const void *context, const TileHead *head,
                        const float *d_k, // [key_width, ld], to be scaled
                        const float *d_v, // [value_width, ld]
                        int ld, int first, int n);
    void (*unpack_queries)(const void *context, const TileHead *head, const Bf16QueryTile *tile);
} Bf16Packing;

Bf16Layout bf16_layout(int B, int T, int K, int G, bool shares_keys, int key_width, int value_width,
                       float scale);

// For n_threads, with or without backward.
int64_t bf16_tiles_scratch_bytes(const Bf16Layout *layout, int n_threads, bool is_training);

void bf16_tiles_forward(const Bf16Packing *packing, const void *context,
                        float *lse, // [N, H] = log of the softmax's denominator
                        void *scratch, const Bf16Layout *layout);
void bf16_tiles_backward(const Bf16Packing *packing, const void *context,
                         const float *lse, // [N, H] saved
                         void *scratch, const Bf16Layout *layout);

#endif
