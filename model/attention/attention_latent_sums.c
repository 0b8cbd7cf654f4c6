// Sums run over a contiguous dim in the inner loop and over parts outside of it, in their order.
#include "model/attention/attention_latent_sums.h"

#include "base/simd.h"
#include "model/attention/attention_pack.h"

#include <string.h>

LatentSums latent_sums(const LatentDims *d, int n_parts, int key_ld, int value_ld)
{
    // Joint: keys and values read the same columns of the latent; split: the values' begin at
    // value_column.
    return (LatentSums){
        .dims = *d,
        .nope = d->E - d->rope,
        .width = d->value_column + d->value_latent,
        .n_parts = n_parts,
        .key_ld = key_ld,
        .value_ld = value_ld,
    };
}

static int64_t part_floats(const LatentSums *sums)
{
    return (int64_t)sums->nope * sums->key_ld + (int64_t)sums->dims.E * sums->value_ld;
}

void latent_sums_place(LatentSums *sums, Arena *arena)
{
    const LatentDims *d = &sums->dims;
    const int64_t heads = (int64_t)d->B * d->K;
    sums->d_up = arena_floats(arena, heads * sums->n_parts * part_floats(sums));
    sums->d_latent = arena_floats(arena, heads * d->T * sums->width);
}

float *latent_sums_up_k(const LatentSums *sums, int64_t head, int part)
{
    return sums->d_up + (head * sums->n_parts + part) * part_floats(sums);
}

float *latent_sums_up_v(const LatentSums *sums, int64_t head, int part)
{
    return latent_sums_up_k(sums, head, part) + (int64_t)sums->nope * sums->key_ld;
}

// Columns of a tile [width, ld], times `scale`, added to those of rows.
HOT static void add_columns(float *restrict rows, int row, const float *restrict packed, int ld,
                            int n, int width, float scale)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            rows[(int64_t)i * row + e] += scale * packed[(int64_t)e * ld + i];
}

void latent_sums_set_keys(const LatentSums *sums, int64_t head, const float *d_k, const float *d_v,
                          int ld, int first, int n, float key_scale)
{
    const LatentDims *d = &sums->dims;
    float *latent = sums->d_latent + (head * d->T + first) * sums->width;
    memset(latent, 0, (size_t)n * (size_t)sums->width * sizeof(float));
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

// The token's latent columns: KV head 0 first, then 1 to K - 1, the same order on every machine.
// d_latent of head 0 holds the sum afterwards.
HOT static void sum_latent(float *restrict to, int64_t head_step, int K, int width)
{
    for (int j = 1; j < K; j++)
        for (int r = 0; r < width; r++)
            to[r] += to[j * head_step + r];
}

void latent_sums_finish(const LatentSums *sums, Rows d_qkv, float *d_up_k, float *d_up_v,
                        float scale, bool add)
{
    const LatentDims *d = &sums->dims;
    const int Rk = d->key_latent, Rv = d->value_latent, width = sums->width;
    const int column = latent_columns(d).latent;
    const int rows_k = d_up_k != NULL ? d->K * sums->nope : 0; // none of frozen weights
    const int rows_v = d_up_v != NULL ? d->K * d->E : 0;
    const int64_t step = part_floats(sums), next = d->K * sums->n_parts * step;
// The three loops write disjoint memory, so none waits for another ('nowait').
#pragma omp for schedule(static) nowait
    for (int64_t token = 0; token < (int64_t)d->B * d->T; token++) {
        float *latent =
            sums->d_latent + (token / d->T * d->K * d->T + token % d->T) * (int64_t)width;
        sum_latent(latent, (int64_t)d->T * width, d->K, width);
        attention_unpack_rows(rows_at(d_qkv, token, column), latent, width, 1, width, 1.0f);
    }
#pragma omp for schedule(static) nowait
    for (int i = 0; i < rows_k; i++)
        sum_up_row(d_up_k + (int64_t)i * Rk,
                   latent_sums_up_k(sums, i / sums->nope, 0) +
                       (int64_t)(i % sums->nope) * sums->key_ld,
                   step, sums->n_parts, next, d->B, Rk, scale, add);
#pragma omp for schedule(static) nowait
    for (int i = 0; i < rows_v; i++)
        sum_up_row(d_up_v + (int64_t)i * Rv,
                   latent_sums_up_v(sums, i / d->E, 0) + (int64_t)(i % d->E) * sums->value_ld, step,
                   sums->n_parts, next, d->B, Rv, 1.0f, add);
}
