// Products of bfloat16 matrices that lie in cache, added in float32: attention's tiles, and the
// blocks that model/kernels/gemm_bf16.h cuts large products into.
//
//     const int64_t step = tile_bf16_panel_halves(E);           // from panel to panel
//     tile_bf16_pack_columns(panels, step, k_rows, KEYS, E);    // keys [KEYS, E] -> [E, KEYS]
//     tile_bf16_start();                                        // on this thread
//     tile_bf16_multiply(scores, KEYS, q, E, panels, step, rows, KEYS, E, false);
//     tile_bf16_end();
//
// The right operand is packed into panels of 16 columns, the layout that AMX's and AVX512-BF16's
// products want:
//
//     panel of [k, 16]:  | k 0: column 0 | k 1: column 0 | k 0: column 1 | k 1: column 1 | ... 15 |
//                        | k 2: column 0 | k 3: column 0 | ...
//
// with zeros beyond k, up to a multiple of 32, and beyond the columns. The left operand's rows are
// as long as that: zeros beyond k, or anything finite, since the panels' zeros multiply it.
//
// Every element is one chain of sums along k, begun by what c holds if that is added to: its bits
// depend neither on m and n nor on how k is cut, at multiples of 32. A version for
// AMX, one for AVX512-BF16 and a plain one: bf16_kernel() of model/kernels/compute.h decides.
// Single-threaded.
#ifndef MHA2MLA_MODEL_KERNELS_TILE_BF16_H
#define MHA2MLA_MODEL_KERNELS_TILE_BF16_H

#include "base/intmath.h"
#include "model/kernels/rows.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    TILE_BF16_STEP = 32,    // k is padded to a multiple of it
    TILE_BF16_COLUMNS = 16, // of a panel
};

static inline int tile_bf16_padded(int k)
{
    return round_up(k, TILE_BF16_STEP);
}

// Of one panel [k, 16], in numbers.
static inline int64_t tile_bf16_panel_halves(int k)
{
    return (int64_t)tile_bf16_padded(k) * TILE_BF16_COLUMNS;
}

// Of all panels of [k, n].
static inline int64_t tile_bf16_panels_halves(int k, int n)
{
    return ceil_div(n, TILE_BF16_COLUMNS) * tile_bf16_panel_halves(k);
}

// The calling thread's tiles belong to tile_bf16_multiply() in between. Costs as much as a product
// of 32 x 32 x 64: once for many products.
void tile_bf16_start(void);
void tile_bf16_end(void);

// c = a b, or c += a b if `add`.
void tile_bf16_multiply(float *c, int ldc,          // [m, n]
                        const uint16_t *a, int lda, // [m, k], lda at least k's padding
                        const uint16_t *b,          // panels [k, n], from a multiple of 64 bytes on
                        int64_t panel_step,         // numbers from one panel to the next
                        int m, int n, int k, bool add);

// Packing, from float32 (rounded to nearest, ties to even) or bfloat16. Zeros are written up to
// whole panels and to k's padding.
void tile_bf16_pack_rows(uint16_t *panels, int64_t panel_step, // [k, n]
                         Rows b,                               // [k, n], read
                         int k, int n);
void tile_bf16_pack_columns(uint16_t *panels, int64_t panel_step, // [k, n]
                            Rows b,                               // [n, k], read
                            int n, int k);

// The left operand; ld is even.
void tile_bf16_copy_rows(uint16_t *to, int ld, // [m, k's padding]
                         Rows a,               // [m, k], read
                         int m, int k);
void tile_bf16_transpose(uint16_t *to, int ld, // [m, k's padding]
                         Rows a,               // [k, m], read
                         int k, int m);

#endif
