// Rows are independent except for dw, the sum over them: first within blocks of rows, while they
// are in cache, then over the blocks, so that the order of the sum does not depend on the number of
// threads.
#include "model/kernels/rmsnorm.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/half.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

// 32 rows of 576 to 4096 floats: 72 to 512 KiB, about the second cache.
enum { ROW_BLOCK = 32 };

HOT static float inverse_rms(const float *restrict x, int D, float eps)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int d = 0; d < D; d++)
        sum += x[d] * x[d];
    // An infinite sum would make a row of zeros, and a diverged model would look healthy.
    return sum < INFINITY ? 1.0f / sqrtf(sum / (float)D + eps) : NAN;
}

// x is normalized before w scales it, the order of transformers' LlamaRMSNorm.
HOT static void scale_row(float *restrict y, const float *restrict x, const float *restrict w,
                          float inv_rms, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        y[d] = w[d] * (x[d] * inv_rms);
}

HOT static void scale_row_bf16(uint16_t *restrict y, const float *restrict x,
                               const float *restrict w, float inv_rms, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        y[d] = half_f32_to_bf16(w[d] * (x[d] * inv_rms));
}

static void apply_row(Rows y, int n, const float *x, const float *w, float inv_rms, int D)
{
    void *row = rows_at(y, n, 0).data;
    if (y.dtype == DTYPE_BF16)
        scale_row_bf16(row, x, w, inv_rms, D);
    else
        scale_row(row, x, w, inv_rms, D);
}

void rmsnorm_forward(Rows y, float *restrict inv_rms, float *restrict copy, const float *restrict x,
                     const float *restrict w, int N, int D, float eps)
{
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++) {
        const float *row = x + (int64_t)n * D;
        inv_rms[n] = inverse_rms(row, D, eps);
        apply_row(y, n, row, w, inv_rms[n], D);
        if (copy != NULL) // while the row is in cache
            memcpy(copy + (int64_t)n * D, row, (size_t)D * sizeof(float));
    }
}

void rmsnorm_apply(Rows y, const float *restrict inv_rms, const float *restrict x,
                   const float *restrict w, int N, int D)
{
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++)
        apply_row(y, n, x + (int64_t)n * D, w, inv_rms[n], D);
}

// With r = inv_rms: dx += r (w dy) - x r^3 (w dy . x) / D. dy is replaced by the token's term of
// dw, dy x r.
HOT static void backward_row(float *restrict dx, float *restrict dy, const float *restrict x,
                             const float *restrict w, float inv_rms, int D)
{
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int d = 0; d < D; d++)
        dot += dy[d] * w[d] * x[d];
    // d(1/rms)/dx = -x r^3 / D: the part of the gradient along x that the normalization removes.
    float pull = dot * inv_rms * inv_rms * inv_rms / (float)D;
#pragma omp simd
    for (int d = 0; d < D; d++) {
        dx[d] += dy[d] * w[d] * inv_rms - x[d] * pull;
        dy[d] *= x[d] * inv_rms;
    }
}

HOT static void add_row(float *restrict to, const float *restrict from, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        to[d] += from[d];
}

void rmsnorm_backward(float *restrict dx, Rows dx_copy, float *restrict dw, Rows y,
                      float *restrict dy, const float *restrict inv_rms, const float *restrict x,
                      const float *restrict w, int N, int D)
{
#pragma omp parallel for schedule(static)
    for (int first = 0; first < N; first += ROW_BLOCK)
        for (int n = first; n < min_int(first + ROW_BLOCK, N); n++) {
            const int64_t at = (int64_t)n * D;
            if (y.data != NULL)
                apply_row(y, n, x + at, w, inv_rms[n], D);
            backward_row(dx + at, dy + at, x + at, w, inv_rms[n], D);
            if (dx_copy.data != NULL)
                dtype_narrow(rows_at(dx_copy, n, 0).data, dx_copy.dtype, dx + at, D);
            // The first row of a block collects the block's sum of dw; dy is scratch by now.
            if (dw != NULL && n > first)
                add_row(dy + (int64_t)first * D, dy + at, D);
        }
    for (int first = 0; dw != NULL && first < N; first += ROW_BLOCK)
        add_row(dw, dy + (int64_t)first * D, D);
}
