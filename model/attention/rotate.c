#include "model/attention/rotate.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "base/status.h"
#include "model/kernels/half.h"
#include "model/kernels/rope.h"

#include <string.h>

void rotate_copy(Rows to, Rows from, int count)
{
    if (to.dtype == from.dtype)
        memcpy(to.data, from.data, (size_t)count * (size_t)dtype_size_bytes(to.dtype));
    else if (from.dtype == DTYPE_F32)
        dtype_narrow(to.data, to.dtype, from.data, count);
    else
        dtype_widen(to.data, from.data, from.dtype, count);
}

enum { BLOCK = 64 }; // pairs in a buffer of floats: of heads of up to 128, all

HOT static void add_floats(float *restrict sums, const float *restrict from, int count)
{
    for (int i = 0; i < count; i++)
        sums[i] += from[i];
}

void rotate_sum(Rows to, Rows from, int step, int n, int count)
{
    float sums[BLOCK], part[BLOCK];
    for (int first = 0; first < count; first += BLOCK) {
        const int width = min_int(BLOCK, count - first);
        rotate_copy(rows_f32(sums, BLOCK), rows_at(from, 0, first), width);
        for (int i = 1; i < n; i++) {
            rotate_copy(rows_f32(part, BLOCK), rows_at(from, 0, (int64_t)i * step + first), width);
            add_floats(sums, part, width);
        }
        rotate_copy(rows_at(to, 0, first), rows_f32(sums, BLOCK), width);
    }
}

// In bfloat16, n pairs whose second halves lie `P` further.
HOT static void rotate_halves(uint16_t *out, const uint16_t *in, const float *cos_row,
                              const float *sin_row, const int32_t *pairs, int P, int n,
                              float direction)
{
    float dims[2 * BLOCK];
    for (int i = 0; i < n; i++) {
        dims[i] = half_bf16_to_f32(in[i]);
        dims[n + i] = half_bf16_to_f32(in[P + i]);
    }
    rope_rotate(dims, dims, cos_row, sin_row, pairs, n, direction);
    for (int i = 0; i < n; i++) {
        out[i] = half_f32_to_bf16(dims[i]);
        out[P + i] = half_f32_to_bf16(dims[n + i]);
    }
}

void rotate_head(Rows out, Rows in, const float *cos_row, const float *sin_row,
                 const int32_t *pairs, int P, float direction)
{
    CHECK(out.dtype == in.dtype, "rotated from %s to %s", dtype_name(in.dtype),
          dtype_name(out.dtype));
    if (out.dtype == DTYPE_F32) {
        rope_rotate(out.data, in.data, cos_row, sin_row, pairs, P, direction);
        return;
    }
    for (int first = 0; first < P; first += BLOCK)
        rotate_halves((uint16_t *)out.data + first, (const uint16_t *)in.data + first, cos_row,
                      sin_row, pairs + first, P, min_int(BLOCK, P - first), direction);
}
