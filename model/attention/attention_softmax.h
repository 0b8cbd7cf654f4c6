// The softmax of a block of attention's scores and its gradient, where products compute in
// bfloat16: scores, sums and exponentials are float32, what the next product reads is rounded to
// bfloat16 and written where and as the product reads it.
//
//     block.scores = products of 32 queries and the keys of a tile
//     softmax_forward(p, ldp, out, ld_out, row_max, row_sums, &block, factor);
//     out += p values
//
// Exponents are of two: `factor` is the softmax's scale times log2(e), so scores are raw products.
// By AVX-512 where bf16_kernel() is, else by plain loops. Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_SOFTMAX_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_SOFTMAX_H

#include <stdint.h>

enum { SOFTMAX_LANES = 16 }; // parts of the sum of a row

// Rows are those of a tile of stacked queries: row r of n_rows is position q0 + r % n; those from
// n_rows on are padding and see no key.
typedef struct ScoreBlock {
    const float *scores; // [rows, ld]
    int ld;
    int first_row, rows; // of the tile; rows: even
    int n, n_rows;       // positions of the tile; its rows that are not padding
    int q0, k0, keys;    // first position; first key; keys, a multiple of 32
} ScoreBlock;

// Online softmax (Milakov and Gimelshein, arXiv 1805.02867): probabilities relative to the rows'
// running maxima; what earlier blocks left in out and row_sums is rescaled where a maximum grew.
void softmax_forward(uint16_t *p, int ldp,   // [rows, keys] bfloat16
                     float *out, int ld_out, // [rows, ld_out]
                     float *row_max,         // [rows] of raw scores; -inf at first
                     float *row_sums,        // [rows, SOFTMAX_LANES]
                     const ScoreBlock *block, float factor);

// Where the gradient's operands go: columns [0, keys) of panels as the second operand of
// tile_bf16_multiply() that has the tile's rows as its depth, and of rows as the first.
typedef struct SoftmaxGradient {
    uint16_t *p_panels, *d_panels; // each [rows of the tile / 2][16][2] for 16 keys
    int64_t panel_step;            // halves from the panel of 16 keys to the next
    uint16_t *d_rows;              // [rows of the tile, ld]
    int ld;
} SoftmaxGradient;

// p = 2^(factor score - lse2) from the saved log-sum-exp, and the gradient of the scaled scores
// p (d_score - delta). Masked ones are 0.
void softmax_backward(const SoftmaxGradient *to, const ScoreBlock *block,
                      const float *d_scores, // [rows, block->ld]
                      const float *lse2,     // [rows of the tile] log2 of the denominator
                      const float *delta,    // [rows of the tile]
                      float factor);

#endif
