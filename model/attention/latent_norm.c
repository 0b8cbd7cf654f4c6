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

// What forward and backward begin with: the latent as floats, its columns of rows.
typedef struct LatentNorm {
    NormScratch scratch;
    Rows columns;
    const float *weight; // [R]
    int R, N;
    float eps;
} LatentNorm;

static LatentNorm start(Rows rows, const AttentionContext *context, bool is_backward)
{
    const ModelShape *s = context->shape;
    const LatentDims dims = mla_latent_dims(s, context->B, context->T);
    Arena arena = arena_over("norm of the latent", context->tiles, INT64_MAX);
    const int R = shape_dim(s, DIM_NORM), N = context->B * context->T;
    return (LatentNorm){
        .scratch = place_scratch(&arena, R, N, is_backward),
        .columns = rows_at(rows, 0, latent_columns(&dims).latent),
        .weight = context->weights->latent_norm,
        .R = R,
        .N = N,
        .eps = (float)s->rms_eps,
    };
}

static void copy_rows(Rows to, Rows from, int N, int R)
{
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        rotate_copy(rows_at(to, n, 0), rows_at(from, n, 0), R);
}

void latent_norm_forward(Rows rows, Rows latent, const AttentionContext *context)
{
    const LatentNorm norm = start(rows, context, false);
    const NormScratch *s = &norm.scratch;
    copy_rows(latent, norm.columns, norm.N, norm.R);
    copy_rows(rows_f32(s->latent, norm.R), latent, norm.N, norm.R);
    rmsnorm_forward(norm.columns, s->inv_rms, NULL, s->latent, norm.weight, norm.N, norm.R,
                    norm.eps);
    step_times_mark(context->times, STEP_NORM);
}

// Neither the statistic nor the normed latent is kept for it: both are one pass over narrow rows.
void latent_norm_backward(Rows d_rows, LayerParams *grads, Rows latent,
                          const AttentionContext *context)
{
    const LatentNorm norm = start(d_rows, context, true);
    const NormScratch *s = &norm.scratch;
    const Rows d_latent = rows_f32(s->d_latent, norm.R);
    copy_rows(rows_f32(s->latent, norm.R), latent, norm.N, norm.R);
    rmsnorm_forward(d_latent, s->inv_rms, NULL, s->latent, norm.weight, norm.N, norm.R, norm.eps);
    copy_rows(rows_f32(s->d_normed, norm.R), norm.columns, norm.N, norm.R);
    // No residual comes around this norm.
    memset(s->d_latent, 0, (size_t)norm.N * (size_t)norm.R * sizeof(float));
    if (!context->add_gradients && grads->latent_norm != NULL)
        memset(grads->latent_norm, 0, (size_t)norm.R * sizeof(float));
    rmsnorm_backward(s->d_latent, (Rows){0}, grads->latent_norm, (Rows){0}, s->d_normed, s->inv_rms,
                     rows_f32(s->latent, norm.R), norm.weight, norm.N, norm.R);
    copy_rows(norm.columns, d_latent, norm.N, norm.R);
    step_times_mark(context->times, STEP_NORM);
}
