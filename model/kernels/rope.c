// Tables of cos and sin for every position and pair of an unselected head; a head that keeps some
// pairs picks their columns by index (rope_rotate()).
//
// Frequency and angle are rounded to float as transformers does it: that is what the models were
// trained with, and at position 2,000 the difference to exact angles reaches 1e-4. The cosine
// itself is taken in double, so that the C library's cosf() does not matter.
#include "model/kernels/rope.h"

#include <math.h>

void rope_row(float *cos_row, float *sin_row, int position, int E, double theta)
{
    for (int p = 0; p < E / 2; p++) {
        float frequency = 1.0f / powf((float)theta, (float)(2 * p) / (float)E);
        float angle = (float)position * frequency;
        cos_row[p] = (float)cos(angle);
        sin_row[p] = (float)sin(angle);
    }
}

void rope_table(float *cos_table, float *sin_table, int T, int E, double theta)
{
#pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++)
        rope_row(cos_table + (int64_t)t * (E / 2), sin_table + (int64_t)t * (E / 2), t, E, theta);
}
