// Sums run over a contiguous dim in the inner loop and over parts outside of it, in their order.
#include "model/attention/attention_latent_sums.h"

#include "base/simd.h"
#include "model/attention/attention_pack.h"

#include <string.h>

// Joint: keys and values read the same columns of the latent; split: the values' begin at
// value_column. The one head of rotated keys of the shared form lies before the latent, and its
// gradient is a sum over the same groups.
LatentSums latent_sums(const LatentDims *d, int n_parts, int key_ld, int value_ld)
{
    const LatentColumns column = latent_columns(d);
    const int n_groups = latent_groups(d), first = d->is_shared ? column.k_rope : column.latent;
    return (LatentSums){
        .dims = *d,
        .n_groups = n_groups,
        .n_up = latent_up_heads(d) / n_groups,
        .column = first,
        .width = column.row - first,
        .n_parts = n_parts,
        .key_ld = key_ld,
        .value_ld = value_ld,
    };
}

// Of one head of weights.
static int64_t part_floats(const LatentSums *sums)
{
    return (int64_t)latent_nope(&sums->dims) * sums->key_ld +
           (int64_t)sums->dims.E * sums->value_ld;
}

void latent_sums_place(LatentSums *sums, Arena *arena)
{
    const LatentDims *d = &sums->dims;
    const int64_t groups = (int64_t)d->B * sums->n_groups;
    sums->d_up = arena_floats(arena, groups * sums->n_parts * sums->n_up * part_floats(sums));
    sums->d_keys = arena_floats(arena, groups * d->T * sums->width);
}

// Part `part` of weights `i` of a group, numbered over all sequences.
static float *up_part(const LatentSums *sums, int64_t group, int part, int i)
{
    return sums->d_up + ((group * sums->n_parts + part) * sums->n_up + i) * part_floats(sums);
}

float *latent_sums_up_k(const LatentSums *sums, const TileHead *group, int part, int g)
{
    return up_part(sums, group->index, part, g % sums->n_up);
}

float *latent_sums_up_v(const LatentSums *sums, const TileHead *group, int part, int g)
{
    return latent_sums_up_k(sums, group, part, g) +
           (int64_t)latent_nope(&sums->dims) * sums->key_ld;
}

// Columns of a tile [width, ld], times `scale`, added to those of rows.
HOT static void add_columns(float *restrict rows, int row, const float *restrict packed, int ld,
                            int n, int width, float scale)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            rows[(int64_t)i * row + e] += scale * packed[(int64_t)e * ld + i];
}

void latent_sums_set_keys(const LatentSums *sums, Rows d_qkv, const TileHead *group,
                          const float *d_k, const float *d_v, int ld, int first, int n,
                          float key_scale)
{
    const LatentDims *d = &sums->dims;
    const LatentColumns column = latent_columns(d);
    const float *d_rope = d_k + (int64_t)d->key_latent * ld;
    float *keys = sums->d_keys + (group->index * d->T + first) * sums->width,
          *latent = keys + column.latent - sums->column;
    memset(keys, 0, (size_t)n * (size_t)sums->width * sizeof(float));
    if (d->is_shared)
        add_columns(keys, sums->width, d_rope, ld, n, d->rope, key_scale);
    else
        attention_unpack_columns(
            rows_at(d_qkv, group->first_token + first, column.k_rope + group->kv_head * d->rope),
            d_rope, ld, n, d->rope, key_scale);
    add_columns(latent, sums->width, d_k, ld, n, d->key_latent, key_scale);
    add_columns(latent + d->value_column, sums->width, d_v, ld, n, d->value_latent, 1.0f);
}

// One row of a weight's gradient, at `first` in the first part: the sum over sequences and parts.
HOT static void sum_up_row(float *restrict grad, const float *restrict first, int64_t part_step,
                           int n_parts, int64_t sequence_step, int B, int width, float scale,
                           bool add)
{
    for (int e = 0; e < width; e++) {
        float sum = 0;
        for (int b = 0; b < B; b++)
            for (int part = 0; part < n_parts; part++)
                sum += first[b * sequence_step + part * part_step + e];
        // Summed apart from the old gradient and added once: the sum's rounding does not depend on
        // what was there.
        grad[e] = (add ? grad[e] : 0) + scale * sum;
    }
}

// A token's columns: group 0 first, then the others, the same order on every machine. d_keys of
// group 0 holds the sum afterwards.
HOT static void sum_groups(float *restrict to, int64_t group_step, int n_groups, int width)
{
    for (int j = 1; j < n_groups; j++)
        for (int r = 0; r < width; r++)
            to[r] += to[j * group_step + r];
}

void latent_sums_finish(const LatentSums *sums, Rows d_qkv, float *d_up_k, float *d_up_v,
                        float scale, bool add)
{
    const LatentDims *d = &sums->dims;
    const int Rk = d->key_latent, Rv = d->value_latent, width = sums->width, n_up = sums->n_up;
    const int nope = latent_nope(d), up_heads = latent_up_heads(d);
    const int rows_k = d_up_k != NULL ? up_heads * nope : 0; // none of frozen weights
    const int rows_v = d_up_v != NULL ? up_heads * d->E : 0;
    const int64_t step = n_up * part_floats(sums), next = sums->n_groups * sums->n_parts * step;
// The three loops write disjoint memory, so none waits for another ('nowait').
#pragma omp for schedule(static) nowait
    for (int64_t token = 0; token < (int64_t)d->B * d->T; token++) {
        float *keys =
            sums->d_keys + (token / d->T * sums->n_groups * d->T + token % d->T) * (int64_t)width;
        sum_groups(keys, (int64_t)d->T * width, sums->n_groups, width);
        attention_unpack_rows(rows_at(d_qkv, token, sums->column), keys, width, 1, width, 1.0f);
    }
#pragma omp for schedule(static) nowait
    for (int i = 0; i < rows_k; i++)
        sum_up_row(d_up_k + (int64_t)i * Rk,
                   up_part(sums, i / nope / n_up, 0, i / nope % n_up) +
                       (int64_t)(i % nope) * sums->key_ld,
                   step, sums->n_parts, next, d->B, Rk, scale, add);
#pragma omp for schedule(static) nowait
    for (int i = 0; i < rows_v; i++)
        sum_up_row(d_up_v + (int64_t)i * Rv,
                   up_part(sums, i / d->E / n_up, 0, i / d->E % n_up) +
                       (int64_t)nope * sums->key_ld + (int64_t)(i % d->E) * sums->value_ld,
                   step, sums->n_parts, next, d->B, Rv, 1.0f, add);
}
