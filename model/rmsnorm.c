// Rows are independent but for dw, which sums over them: there each thread owns a range of columns,
// so that the sum's order does not depend on the number of threads.
#include "model/rmsnorm.h"

#include "base/simd.h"

#include <math.h>
#include <stdint.h>

enum { COLUMN_BLOCK = 64 };

HOT static float inverse_rms(const float *restrict x, int D, float eps)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int d = 0; d < D; d++)
        sum += x[d] * x[d];
    // A sum beyond float would make a row of zeros, with which a diverged model looks healthy.
    return sum < INFINITY ? 1.0f / sqrtf(sum / (float)D + eps) : NAN;
}

HOT static void scale_row(float *restrict y, const float *restrict x, const float *restrict w,
                          float inv_rms, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        y[d] = w[d] * (x[d] * inv_rms);
}

void rmsnorm_forward(float *restrict y, float *restrict inv_rms, const float *restrict x,
                     const float *restrict w, int N, int D, float eps)
{
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++) {
        inv_rms[n] = inverse_rms(x + (int64_t)n * D, D, eps);
        scale_row(y + (int64_t)n * D, x + (int64_t)n * D, w, inv_rms[n], D);
    }
}

void rmsnorm_apply(float *restrict y, const float *restrict inv_rms, const float *restrict x,
                   const float *restrict w, int N, int D)
{
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        scale_row(y + (int64_t)n * D, x + (int64_t)n * D, w, inv_rms[n], D);
}

HOT static void backward_row(float *restrict dx, const float *restrict dy, const float *restrict x,
                             const float *restrict w, float inv_rms, int D)
{
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int d = 0; d < D; d++)
        dot += dy[d] * w[d] * x[d];
    float pull = dot * inv_rms * inv_rms * inv_rms / (float)D;
#pragma omp simd
    for (int d = 0; d < D; d++)
        dx[d] += dy[d] * w[d] * inv_rms - x[d] * pull;
}

HOT static void backward_columns(float *restrict dw, const float *restrict dy,
                                 const float *restrict x, const float *restrict inv_rms, int N,
                                 int D, int columns)
{
    float sums[COLUMN_BLOCK] = {0};
    for (int n = 0; n < N; n++) {
        const float *dy_row = dy + (int64_t)n * D, *x_row = x + (int64_t)n * D;
#pragma omp simd
        for (int d = 0; d < columns; d++)
            sums[d] += dy_row[d] * (x_row[d] * inv_rms[n]);
    }
    for (int d = 0; d < columns; d++)
        dw[d] += sums[d];
}

void rmsnorm_backward(float *restrict dx, float *restrict dw, const float *restrict dy,
                      const float *restrict inv_rms, const float *restrict x,
                      const float *restrict w, int N, int D)
{
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (int n = 0; n < N; n++)
            backward_row(dx + (int64_t)n * D, dy + (int64_t)n * D, x + (int64_t)n * D, w,
                         inv_rms[n], D);
#pragma omp for schedule(static)
        for (int d = 0; d < D; d += COLUMN_BLOCK)
            backward_columns(dw + d, dy + d, x + d, inv_rms, N, D,
                             D - d < COLUMN_BLOCK ? D - d : COLUMN_BLOCK);
    }
}
