// Rows of activations, in float32 or bfloat16, which may be wider than what is used of them.
//
//     const Rows x = rows_bf16(normed, D);
//     linear_forward(COMPUTE_BFLOAT16, rows_f32(logits, V), rows_at(x, first, 0), head, ...);
//
// A view: the memory belongs to whoever placed it.
#ifndef MHA2MLA_MODEL_KERNELS_ROWS_H
#define MHA2MLA_MODEL_KERNELS_ROWS_H

#include "base/status.h"
#include "model/kernels/dtype.h"

#include <stddef.h>
#include <stdint.h>

typedef struct Rows {
    void *data;
    DType dtype; // DTYPE_F32 or DTYPE_BF16
    int ld;      // numbers from one row to the next
} Rows;

static inline Rows rows_f32(float *data, int ld)
{
    return (Rows){data, DTYPE_F32, ld};
}

static inline Rows rows_bf16(uint16_t *data, int ld)
{
    return (Rows){data, DTYPE_BF16, ld};
}

// Rows that nobody writes: whoever takes Rows says which of them it reads alone.
static inline Rows rows_read_f32(const float *data, int ld)
{
    const union {
        const float *from;
        void *data;
    } pointer = {data};
    return (Rows){pointer.data, DTYPE_F32, ld};
}

static inline Rows rows_read_bf16(const uint16_t *data, int ld)
{
    const union {
        const uint16_t *from;
        void *data;
    } pointer = {data};
    return (Rows){pointer.data, DTYPE_BF16, ld};
}

// The numbers of rows that must be float32 and as wide as that.
static inline float *rows_floats(Rows rows, int width)
{
    CHECK(rows.data == NULL || (rows.dtype == DTYPE_F32 && rows.ld == width),
          "rows of %s, %d apart, for %d floats", dtype_name(rows.dtype), rows.ld, width);
    return rows.data;
}

// From row to row of new rows in bfloat16. They begin at cache lines, and not all of them in the
// same few sets of the first cache, where packing many rows side by side would evict them.
static inline int rows_bf16_step(int width)
{
    enum { CACHE_LINE_NUMBERS = 32, FEW_SETS = 8 };
    const int n_lines = (width + CACHE_LINE_NUMBERS - 1) / CACHE_LINE_NUMBERS;
    return (n_lines > 0 && n_lines % FEW_SETS == 0 ? n_lines + 1 : n_lines) * CACHE_LINE_NUMBERS;
}

// The rows from `row` on, from their number `column` on.
static inline Rows rows_at(Rows rows, int64_t row, int64_t column)
{
    const int64_t first = row * rows.ld + column;
    rows.data = (char *)rows.data + first * dtype_size_bytes(rows.dtype);
    return rows;
}

#endif
