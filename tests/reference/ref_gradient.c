#include "base/status.h"
#include "tests/reference/ref.h"
#include "tests/support/testing.h"

#include <math.h>
#include <stdlib.h>

static void *allocate(int64_t count, size_t size)
{
    void *memory = calloc(count > 0 ? (size_t)count : 1, size);
    CHECK(memory != NULL, "no memory for %lld numbers", (long long)count);
    return memory;
}

float *ref_floats(int64_t count)
{
    return allocate(count, sizeof(float));
}

double *ref_doubles(int64_t count)
{
    return allocate(count, sizeof(double));
}

float *ref_random(int64_t count, double scale, uint64_t seed)
{
    float *values = ref_floats(count);
    testing_fill(values, count, scale, seed);
    return values;
}

float *ref_nans(int64_t count)
{
    float *values = ref_floats(count);
    for (int64_t i = 0; i < count; i++)
        values[i] = NAN;
    return values;
}

void ref_narrow(float *to, const double *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)from[i];
}

void ref_narrow_add(float *to, const double *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)((double)to[i] + from[i]);
}

double ref_dot(const double *a, const float *weights, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * (double)weights[i];
    return sum;
}

void ref_assert_error(const char *what, double error, double allowed)
{
    if (!(error <= allowed))
        fail_msg("%s: error %.3g, allowed %.3g", what, error, allowed);
}

double ref_gradient_error(RefLoss loss, void *context, float *values, const float *gradient,
                          int64_t count, float step)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        float value = values[i], above = value + step, below = value - step;
        values[i] = above;
        double difference = loss(context);
        values[i] = below;
        difference -= loss(context);
        values[i] = value;
        // Divided by the step as rounding left it.
        double slope = difference / ((double)above - (double)below);
        double error = fabs(slope - (double)gradient[i]);
        if (isnan(error))
            return error;
        worst = fmax(worst, error);
        largest = fmax(largest, fabs(slope));
    }
    return worst / largest;
}
