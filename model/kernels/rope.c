// Tables of cos and sin for every position and pair of an unselected head; a head that keeps some
// pairs picks their columns by index (rope_rotate()).
//
// Frequency and angle are rounded to float as transformers does it: that is what the models were
// trained with, and at position 2,000 the difference to exact angles reaches 1e-4. The cosine
// itself is taken in double, so that the C library's cosf() does not matter.
#include "model/kernels/rope.h"

#include <math.h>

// In float, in transformers' order of operations.
static float scale_frequency(float frequency, const RopeScaling *scaling)
{
    const float factor = (float)scaling->factor, low = (float)scaling->low_freq_factor,
                high = (float)scaling->high_freq_factor;
    const double positions = scaling->original_positions;
    const float wavelength = 1.0f / frequency * (float)(2 * M_PI);
    if (wavelength > (float)(positions / scaling->low_freq_factor))
        return frequency / factor;
    if (wavelength < (float)(positions / scaling->high_freq_factor))
        return frequency;
    const float smooth = (1.0f / wavelength * (float)positions - low) / (high - low);
    return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

float rope_frequency(int p, int E, double theta, const RopeScaling *scaling)
{
    const float frequency = 1.0f / powf((float)theta, (float)(2 * p) / (float)E);
    return scaling->factor > 0 ? scale_frequency(frequency, scaling) : frequency;
}

double rope_slowdown(int p, int E, double theta, const RopeScaling *scaling)
{
    const RopeScaling none = {0};
    return (double)rope_frequency(p, E, theta, &none) /
           (double)rope_frequency(p, E, theta, scaling);
}

void rope_row(float *cos_row, float *sin_row, int position, int E, double theta,
              const RopeScaling *scaling)
{
    for (int p = 0; p < E / 2; p++) {
        float frequency = rope_frequency(p, E, theta, scaling);
        float angle = (float)position * frequency;
        cos_row[p] = (float)cos(angle);
        sin_row[p] = (float)sin(angle);
    }
}

void rope_identity(float *cos_table, float *sin_table, int T, int E)
{
    for (int64_t i = 0; i < (int64_t)T * (E / 2); i++) {
        cos_table[i] = 1;
        sin_table[i] = 0;
    }
}

void rope_table(float *cos_table, float *sin_table, int T, int E, double theta,
                const RopeScaling *scaling)
{
#pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++)
        rope_row(cos_table + (int64_t)t * (E / 2), sin_table + (int64_t)t * (E / 2), t, E, theta,
                 scaling);
}
