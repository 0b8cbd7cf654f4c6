#include "infer/latent_rotation.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>

struct LatentRotation {
    const WeightSource *source; // borrowed
    int width;                  // of a latent that turns as one: power * rest; 0: nothing turns
    int power;                  // of two
    int rest;                   // odd
    float *signs;               // [width] of 1 or -1, times 1 / sqrt(power)
    float *cosines;             // [rest, rest], orthonormal
    float *norms;               // [L, width] latent_norm of all layers; NULL: the shape has none
    float *vector, *mixed;      // scratch [width], [rest]
};

static void fill(LatentRotation *r)
{
    const double pi = 3.14159265358979323846;
    const uint64_t key = random_key(0, "latent rotation");
    const float norm = 1 / sqrtf((float)r->power);
    for (int i = 0; i < r->width; i++)
        r->signs[i] = (random_bits(key, (uint64_t)i) & 1) != 0 ? norm : -norm;
    for (int k = 0; k < r->rest; k++)
        for (int i = 0; i < r->rest; i++)
            r->cosines[k * r->rest + i] =
                (float)(sqrt((k == 0 ? 1.0 : 2.0) / r->rest) * cos(pi * (i + 0.5) * k / r->rest));
}

static Status read_norms(LatentRotation *r)
{
    const ModelShape *s = r->source->shape;
    for (int t = 0; t < params_n_tensors(s); t++) {
        const ParamInfo info = params_info(s, t);
        if (info.layer >= 0 && info.field == offsetof(LayerParams, latent_norm))
            TRY(weight_source_read(r->source, &info, r->norms + (int64_t)info.layer * r->width));
    }
    return OK;
}

Status latent_rotation_create(LatentRotation **out, const WeightSource *source)
{
    const int width = shape_is_mla(source->shape) ? shape_dim(source->shape, DIM_UP_INPUT) : 0;
    const int power = width & -width, rest = width > 0 ? width / power : 0;
    LatentRotation *r = malloc(sizeof *r);
    const size_t own = (size_t)width * 2 + (size_t)rest * (size_t)(rest + 1) + 1,
                 norms =
                     (size_t)source->shape->n_layers * (size_t)shape_dim(source->shape, DIM_NORM);
    float *floats = calloc(own + norms, sizeof *floats);
    if (r == NULL || floats == NULL) {
        free(r);
        free(floats);
        return fail(FAILED, "no memory to rotate a latent of %d channels", width);
    }
    *r = (LatentRotation){source, width, power, rest, .signs = floats, .cosines = floats + width};
    r->vector = r->cosines + (int64_t)rest * rest;
    r->mixed = r->vector + width;
    r->norms = norms > 0 ? floats + own : NULL;
    fill(r);
    Status status;
    TRY_GOTO(release, read_norms(r));
    *out = r;
    return OK;
release:
    latent_rotation_release(r);
    return status;
}

void latent_rotation_release(LatentRotation *rotation)
{
    if (rotation == NULL)
        return;
    free(rotation->signs);
    free(rotation);
}

// x [width] <- T x
static void rotate(const LatentRotation *r, float *x)
{
    for (int i = 0; i < r->width; i++)
        x[i] *= r->signs[i];
    // H, factor by factor: butterflies among `power` neighbours.
    for (int half = 1; half < r->power; half *= 2)
        for (int i = 0; i < r->width; i++)
            if ((i & half) == 0) {
                const float a = x[i], b = x[i + half];
                x[i] = a + b;
                x[i + half] = a - b;
            }
    // C, among numbers that are `power` apart.
    for (int first = 0; first < r->power && r->rest > 1; first++) {
        for (int k = 0; k < r->rest; k++) {
            r->mixed[k] = 0;
            for (int i = 0; i < r->rest; i++)
                r->mixed[k] += r->cosines[k * r->rest + i] * x[i * r->power + first];
        }
        for (int k = 0; k < r->rest; k++)
            x[k * r->power + first] = r->mixed[k];
    }
}

// Every column of `rows` [width, cols].
static void rotate_columns(const LatentRotation *r, float *rows, int cols)
{
    for (int c = 0; c < cols; c++) {
        for (int i = 0; i < r->width; i++)
            r->vector[i] = rows[(int64_t)i * cols + c];
        rotate(r, r->vector);
        for (int i = 0; i < r->width; i++)
            rows[(int64_t)i * cols + c] = r->vector[i];
    }
}

// A row of an up-projection: what multiplied the latent multiplies the rotated one.
static void rotate_up(const LatentRotation *r, const float *norm, float *row)
{
    for (int i = 0; i < r->width && norm != NULL; i++)
        row[i] *= norm[i];
    rotate(r, row);
}

static Status read_rotated(const void *context, const ParamInfo *info, float *values)
{
    const LatentRotation *r = context;
    TRY(weight_source_read(r->source, info, values));
    if (info->layer < 0 || r->width == 0)
        return OK;
    const bool is_up =
        info->field == offsetof(LayerParams, up_k) || info->field == offsetof(LayerParams, up_v);
    if (info->field == offsetof(LayerParams, down_kv))
        for (int row = 0; row < info->rows; row += r->width) // split: keys' half, values' half
            rotate_columns(r, values + (int64_t)row * info->cols, info->cols);
    const float *norm = r->norms != NULL ? r->norms + (int64_t)info->layer * r->width : NULL;
    for (int row = 0; row < info->rows && is_up; row++)
        rotate_up(r, norm, values + (int64_t)row * info->cols);
    if (info->field == offsetof(LayerParams, latent_norm))
        for (int i = 0; i < info->rows; i++)
            values[i] = 1; // its weight is in the up-projections
    return OK;
}

WeightSource latent_rotation_weights(const LatentRotation *rotation)
{
    return (WeightSource){rotation->source->shape, rotation, read_rotated};
}
