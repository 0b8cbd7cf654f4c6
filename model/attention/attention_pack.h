// Between rows of activations, float32 or bfloat16, and the tiles of
// model/attention/attention_tiles_bf16.h. Private to model/attention.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_PACK_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_PACK_H

#include "model/kernels/rows.h"

// Columns [0, width) of n rows -> those of a tile, rounded to bfloat16; zeros in its columns
// [width, end).
void attention_pack_rows(uint16_t *packed, int ld, Rows rows, int n, int width, int end);

// Rows of a tile -> columns [0, width) of n rows, times `scale`.
void attention_unpack_rows(Rows rows, const float *packed, int ld, int n, int width, float scale);

// Columns [0, n) of a tile [width, ld] -> columns [0, width) of n rows, times `scale`.
void attention_unpack_columns(Rows rows, const float *packed, int ld, int n, int width,
                              float scale);

// dots [n]: of columns [0, width) of rows and of a tile's rows.
void attention_pack_dots(float *dots, Rows rows, const uint16_t *packed, int ld, int n, int width);

#endif
