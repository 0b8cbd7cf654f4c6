// The latent's columns are a narrow part of wide rows: they are copied out as floats, normed by the
// kernel that norms the residual stream, and copied back. The latent is narrow beside all that
// attention does, so the copies cost nothing that a table of parts would show.
#include "model/attention/latent_norm.h"

#include "base/arena.h"
#include "model/attention/mla.h"
#include "model/attention/rotate.h"
#include "model/kernels/rmsnorm.h"

#include <string.h>

// All float32.
typedef struct NormScratch {
    float *latent, *inv_rms;    // [N, R], [N]
    float *d_latent, *d_normed; // [N, R], backward
} NormScratch;

static NormScratch place_scratch(Arena *arena, int R, int64_t N, bool is_backward)
{
    NormScratch scratch = {.latent = arena_floats(arena, N * R),
                           .inv_rms = arena_floats(arena, R > 0 ? N : 0)};
    if (is_backward) {
        scratch.d_latent = arena_floats(arena, N * R);
        scratch.d_normed = arena_floats(arena, N * R);
    }
    return scratch;
}

int64_t latent_norm_scratch_bytes(int R, int64_t N, bool is_training)
{
    Arena arena = arena_start("norm of the latent");
    place_scratch(&arena, R, N, is_training);
    return arena.used_bytes;
}

// What all of them begin with.
typedef struct LatentNorm {
    NormScratch scratch;
    const float *weight; // [R]
    int R, N;
    float eps;
} LatentNorm;

static LatentNorm start(const AttentionContext *context, bool is_backward)
{
    const ModelShape *s = context->shape;
    Arena arena = arena_over("norm of the latent", context->tiles, INT64_MAX);
    const int R = shape_dim(s, DIM_NORM), N = context->B * context->T;
    return (LatentNorm){
        .scratch = place_scratch(&arena, R, N, is_backward),
        .weight = context->weights->latent_norm,
        .R = R,
        .N = N,
        .eps = (float)s->rms_eps,
    };
}

static Rows latent_columns_of(Rows rows, const AttentionContext *context)
{
    const LatentDims dims = mla_latent_dims(context->shape, context->B, context->T);
    return rows_at(rows, 0, latent_columns(&dims).latent);
}

static void copy_rows(Rows to, Rows from, int N, int R)
{
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        rotate_copy(rows_at(to, n, 0), rows_at(from, n, 0), R);
}

void latent_norm_apply(Rows normed, Rows latent, const AttentionContext *context)
{
    const LatentNorm norm = start(context, false);
    const NormScratch *s = &norm.scratch;
    copy_rows(rows_f32(s->latent, norm.R), latent, norm.N, norm.R);
    rmsnorm_forward(normed, s->inv_rms, NULL, s->latent, norm.weight, norm.N, norm.R, norm.eps);
    step_times_mark(context->times, STEP_NORM);
}

void latent_norm_forward(Rows rows, Rows latent, const AttentionContext *context)
{
    const Rows columns = latent_columns_of(rows, context);
    copy_rows(latent, columns, context->B * context->T, shape_dim(context->shape, DIM_NORM));
    latent_norm_apply(columns, latent, context);
}

// Neither the statistic nor the normed latent is kept for it: both are one pass over narrow rows.
void latent_norm_backward(Rows d_rows, LayerParams *grads, Rows latent,
                          const AttentionContext *context)
{
    const LatentNorm norm = start(context, true);
    const NormScratch *s = &norm.scratch;
    const Rows columns = latent_columns_of(d_rows, context);
    const Rows d_latent = rows_f32(s->d_latent, norm.R);
    copy_rows(rows_f32(s->latent, norm.R), latent, norm.N, norm.R);
    rmsnorm_forward(d_latent, s->inv_rms, NULL, s->latent, norm.weight, norm.N, norm.R, norm.eps);
    copy_rows(rows_f32(s->d_normed, norm.R), columns, norm.N, norm.R);
    // No residual comes around this norm.
    memset(s->d_latent, 0, (size_t)norm.N * (size_t)norm.R * sizeof(float));
    if (!context->add_gradients && grads->latent_norm != NULL)
        memset(grads->latent_norm, 0, (size_t)norm.R * sizeof(float));
    rmsnorm_backward(s->d_latent, (Rows){0}, grads->latent_norm, (Rows){0}, s->d_normed, s->inv_rms,
                     rows_f32(s->latent, norm.R), norm.weight, norm.N, norm.R);
    copy_rows(columns, d_latent, norm.N, norm.R);
    step_times_mark(context->times, STEP_NORM);
}
