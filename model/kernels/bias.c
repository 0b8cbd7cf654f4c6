// Columns are summed in blocks that fit the first cache, each by one thread in the order of the
// rows: in double, as a sum over all tokens of a batch loses digits in float.
#include "model/kernels/bias.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/half.h"

enum { BLOCK = 64 };

HOT static void add_f32(float *restrict y, const float *restrict b, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++)
        y[i] += b[i];
}

HOT static void add_bf16(uint16_t *restrict y, const float *restrict b, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++)
        y[i] = half_f32_to_bf16(half_bf16_to_f32(y[i]) + b[i]);
}

void bias_forward(Rows y, const float *b, int N, int n_out)
{
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++) {
        void *row = rows_at(y, n, 0).data;
        if (y.dtype == DTYPE_F32)
            add_f32(row, b, n_out);
        else
            add_bf16(row, b, n_out);
    }
}

HOT static void sum_f32(double *restrict sums, const float *restrict dy, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++)
        sums[i] += dy[i];
}

HOT static void sum_bf16(double *restrict sums, const uint16_t *restrict dy, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++)
        sums[i] += half_bf16_to_f32(dy[i]);
}

void bias_backward(float *db, Rows dy, int N, int n_out, bool add)
{
    if (db == NULL)
        return;
#pragma omp parallel for schedule(static)
    for (int first = 0; first < n_out; first += BLOCK) {
        const int count = min_int(BLOCK, n_out - first);
        double sums[BLOCK] = {0};
        for (int n = 0; n < N; n++) {
            const void *row = rows_at(dy, n, first).data;
            if (dy.dtype == DTYPE_F32)
                sum_f32(sums, row, count);
            else
                sum_bf16(sums, row, count);
        }
        for (int i = 0; i < count; i++)
            db[first + i] = (float)(add ? db[first + i] + sums[i] : sums[i]);
    }
}
