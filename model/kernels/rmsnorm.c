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

// From rows of x / rms(x).
HOT static void scale_normalized_row(uint16_t *restrict y, const uint16_t *restrict normalized,
                                     const float *restrict w, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        y[d] = half_f32_to_bf16(w[d] * half_bf16_to_f32(normalized[d]));
}

HOT static void normalize_row(uint16_t *restrict normalized, const float *restrict x, float inv_rms,
                              int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        normalized[d] = half_f32_to_bf16(x[d] * inv_rms);
}

// Rows of x / rms(x) are kept where products compute in bfloat16: y is bfloat16, too.
static void apply_row(Rows y, Rows x, int n, const float *w, float inv_rms, int D)
{
    void *to = rows_at(y, n, 0).data;
    const void *from = rows_at(x, n, 0).data;
    if (x.dtype == DTYPE_BF16) {
        CHECK(y.dtype == DTYPE_BF16, "rows of %s", dtype_name(y.dtype));
        scale_normalized_row(to, from, w, D);
    } else if (y.dtype == DTYPE_BF16) {
        scale_row_bf16(to, from, w, inv_rms, D);
    } else {
        scale_row(to, from, w, inv_rms, D);
    }
}

void rmsnorm_forward(Rows y, float *restrict inv_rms, float *restrict copy, const float *restrict x,
                     const float *restrict w, int N, int D, float eps)
{
    rmsnorm_forward_keeping((Rows){0}, y, inv_rms, copy, x, w, N, D, eps);
}

void rmsnorm_forward_keeping(Rows normalized, Rows y, float *restrict inv_rms, float *restrict copy,
                             const float *restrict x, const float *restrict w, int N, int D,
                             float eps)
{
    const Rows rows = rows_read_f32(x, D);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++) {
        const float *row = x + (int64_t)n * D;
        inv_rms[n] = inverse_rms(row, D, eps);
        apply_row(y, rows, n, w, inv_rms[n], D);
        if (normalized.data != NULL)
            normalize_row(rows_at(normalized, n, 0).data, row, inv_rms[n], D);
        if (copy != NULL) // while the row is in cache
            memcpy(copy + (int64_t)n * D, row, (size_t)D * sizeof(float));
    }
}

void rmsnorm_apply(Rows y, const float *restrict inv_rms, Rows x, const float *restrict w, int N,
                   int D)
{
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++)
        apply_row(y, x, n, w, inv_rms[n], D);
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

// The same of n = x / rms(x): dx += r (w dy - n (w dy . n) / D), and the term of dw is dy n.
HOT static void backward_normalized_row(float *restrict dx, float *restrict dy,
                                        const uint16_t *restrict normalized,
                                        const float *restrict w, float inv_rms, int D)
{
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int d = 0; d < D; d++)
        dot += dy[d] * w[d] * half_bf16_to_f32(normalized[d]);
    const float pull = dot * inv_rms / (float)D;
#pragma omp simd
    for (int d = 0; d < D; d++) {
        const float unit = half_bf16_to_f32(normalized[d]);
        dx[d] += dy[d] * w[d] * inv_rms - unit * pull;
        dy[d] *= unit;
    }
}

HOT static void add_row(float *restrict to, const float *restrict from, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        to[d] += from[d];
}

void rmsnorm_backward(float *restrict dx, Rows dx_copy, float *restrict dw, Rows y,
                      float *restrict dy, const float *restrict inv_rms, Rows x,
                      const float *restrict w, int N, int D)
{
#pragma omp parallel for schedule(static)
    for (int first = 0; first < N; first += ROW_BLOCK)
        for (int n = first; n < min_int(first + ROW_BLOCK, N); n++) {
            const int64_t at = (int64_t)n * D;
            if (y.data != NULL)
                apply_row(y, x, n, w, inv_rms[n], D);
            const void *row = rows_at(x, n, 0).data;
            if (x.dtype == DTYPE_BF16)
                backward_normalized_row(dx + at, dy + at, row, w, inv_rms[n], D);
            else
                backward_row(dx + at, dy + at, row, w, inv_rms[n], D);
            if (dx_copy.data != NULL)
                dtype_narrow(rows_at(dx_copy, n, 0).data, dx_copy.dtype, dx + at, D);
            // The first row of a block collects the block's sum of dw; dy is scratch by now.
            if (dw != NULL && n > first)
                add_row(dy + (int64_t)first * D, dy + at, D);
        }
    for (int first = 0; dw != NULL && first < N; first += ROW_BLOCK)
        add_row(dw, dy + (int64_t)first * D, D);
}

float rmsnorm_row(float *restrict y, const float *restrict x, const float *restrict w, int D,
                  float eps)
{
    const float inv_rms = inverse_rms(x, D, eps);
    scale_row(y, x, w, inv_rms, D);
    return inv_rms;
}

void rmsnorm_row_backward(float *restrict dx, float *restrict dy, float inv_rms,
                          const float *restrict x, const float *restrict w, int D)
{
    backward_row(dx, dy, x, w, inv_rms, D);
}
