#include "model/attention/rotate.h"

#include "base/intmath.h"
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

// Rows in bfloat16 pass through a buffer of floats, some pairs at a time.
void rotate_head(Rows out, Rows in, const float *cos_row, const float *sin_row,
                 const int32_t *pairs, int P, float direction)
{
    enum { BLOCK = 64 };
    if (out.dtype == DTYPE_F32 && in.dtype == DTYPE_F32) {
        rope_rotate(out.data, in.data, cos_row, sin_row, pairs, P, direction);
        return;
    }
    float dims[2 * BLOCK];
    for (int first = 0; first < P; first += BLOCK) {
        const int n = min_int(BLOCK, P - first);
        const Rows buffer = rows_f32(dims, 0), second = rows_f32(dims + n, 0);
        rotate_copy(buffer, rows_at(in, 0, first), n);
        rotate_copy(second, rows_at(in, 0, P + first), n);
        rope_rotate(dims, dims, cos_row, sin_row, pairs + first, n, direction);
        rotate_copy(rows_at(out, 0, first), buffer, n);
        rotate_copy(rows_at(out, 0, P + first), second, n);
    }
}
