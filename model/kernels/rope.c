#include "model/kernels/rope.h"

#include <math.h>

void rope_table(float *cos_table, float *sin_table, int T, int E, double theta)
{
    // Frequency and angle are rounded to float as transformers does it: that is what the models
    // were trained with, and at position 2,000 the difference to exact angles reaches 1e-4.
#pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++) {
        for (int p = 0; p < E / 2; p++) {
            float frequency = 1.0f / powf((float)theta, (float)(2 * p) / (float)E);
            float angle = (float)t * frequency;
            cos_table[(int64_t)t * (E / 2) + p] = (float)cos(angle);
            sin_table[(int64_t)t * (E / 2) + p] = (float)sin(angle);
        }
    }
}
