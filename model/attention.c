// The query heads of a group share keys and values, so their tiles are stacked: one product of
// G * QUERIES rows instead of G small ones. Row r of a stacked tile is head r / n of the group at
// position q0 + r % n, where n is the number of positions in the tile.
//
// Forward is parallel over (sequence, KV head, query tile). Backward is parallel over (sequence,
// KV head): the gradients of its keys, values and queries then have one writer, and their sums one
// order. Products inside a parallel region run on one OpenBLAS thread.
#include "model/attention.h"

#include "base/simd.h"
#include "model/vexp.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

enum { KEYS = 128, STACKED_ROWS = 192, LEAST_QUERIES = 16 };

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

// Positions of a query tile: about STACKED_ROWS rows with the group's heads stacked.
static int queries_per_tile(const AttentionDims *dims)
{
    int queries = STACKED_ROWS / (dims->H / dims->K) / 16 * 16;
    return queries < LEAST_QUERIES ? LEAST_QUERIES : min_int(queries, KEYS);
}

typedef struct Tile {
    float *scores;   // [G n, KEYS]
    float *d_scores; // [G n, KEYS], backward
    float *q;        // [G n, E], forward
    float *out;      // [G n, E], forward
    float *row_max;  // [G n], forward
    float *row_sum;  // [G n], forward
    // Backward: the whole sequence's stacked tiles, one after another.
    float *all_q;     // [G T, E]
    float *all_d_out; // [G T, E]
    float *all_dq;    // [G T, E]
    float *lse;       // [G T]
    float *delta;     // [G T] sum of d_out * out
} Tile;

// Lays a thread's scratch out; returns its length in floats.
static int64_t place_tile(Tile *tile, float *scratch, const AttentionDims *d, bool is_training)
{
    int64_t G = d->H / d->K, rows = G * queries_per_tile(d), all = G * d->T;
    struct {
        float **field;
        int64_t count;
        bool training_only;
    } parts[] = {
        {&tile->scores, rows * KEYS, false}, {&tile->q, rows * d->E, false},
        {&tile->out, rows * d->E, false},    {&tile->row_max, rows, false},
        {&tile->row_sum, rows, false},       {&tile->d_scores, rows * KEYS, true},
        {&tile->all_q, all * d->E, true},    {&tile->all_d_out, all * d->E, true},
        {&tile->all_dq, all * d->E, true},   {&tile->lse, all, true},
        {&tile->delta, all, true},
    };
    int64_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        *parts[i].field = NULL;
        if (parts[i].training_only && !is_training)
            continue;
        if (scratch != NULL)
            *parts[i].field = scratch + used;
        used += (parts[i].count + 15) / 16 * 16;
    }
    return used;
}

int64_t attention_scratch_floats(const AttentionDims *dims, int n_threads, bool is_training)
{
    Tile tile;
    return n_threads * place_tile(&tile, NULL, dims, is_training);
}

// Copies the group's rows of one tile: packed [G n, E] <- strided heads of n tokens.
static void pack_heads(float *packed, const float *strided, int64_t row, int n, int G, int E)
{
    for (int g = 0; g < G; g++)
        for (int i = 0; i < n; i++)
            memcpy(packed + ((int64_t)g * n + i) * E, strided + i * row + (int64_t)g * E,
                   (size_t)E * sizeof(float));
}

static void unpack_heads(float *strided, const float *packed, int64_t row, int n, int G, int E)
{
    for (int g = 0; g < G; g++)
        for (int i = 0; i < n; i++)
            memcpy(strided + i * row + (int64_t)g * E, packed + ((int64_t)g * n + i) * E,
                   (size_t)E * sizeof(float));
}

// scores [rows, keys] = q k^T
static void multiply_scores(float *scores, const float *q, const float *k, int ldk, int rows,
                            int keys, int E)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, keys, E, 1.0f, q, E, k, ldk, 0.0f,
                scores, KEYS);
}

// One row of a score tile -> unnormalized probabilities, masked ones 0; returns their sum.
static inline float exponentiate_row(float *restrict s, int visible, int keys, float scale,
                                     float max)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < visible; j++) {
        s[j] = vexp(s[j] * scale - max);
        sum += s[j];
    }
    for (int j = visible; j < keys; j++)
        s[j] = 0;
    return sum;
}

// Online softmax of one tile: turns scores into probabilities relative to the rows' running maxima
// and rescales what the earlier tiles left in out and row_sum.
HOT static void softmax_tile(float *restrict scores, float *restrict out, float *restrict row_max,
                             float *restrict row_sum, int rows, int n, int keys, int E, int q0,
                             int k0, float scale)
{
    for (int r = 0; r < rows; r++) {
        float *s = scores + (int64_t)r * KEYS;
        int visible = q0 + r % n - k0 + 1;
        visible = visible < keys ? visible : keys;
        float max = -INFINITY;
#pragma omp simd reduction(max : max)
        for (int j = 0; j < visible; j++)
            max = s[j] > max ? s[j] : max;
        max *= scale;
        if (max > row_max[r]) {
            float shrink = vexp(row_max[r] - max);
            row_max[r] = max;
            row_sum[r] *= shrink;
#pragma omp simd
            for (int e = 0; e < E; e++)
                out[(int64_t)r * E + e] *= shrink;
        }
        row_sum[r] += exponentiate_row(s, visible > 0 ? visible : 0, keys, scale, row_max[r]);
    }
}

HOT static void finish_rows(float *restrict out, const float *restrict row_sum, int rows, int E)
{
    for (int r = 0; r < rows; r++) {
        float inverse = 1.0f / row_sum[r];
#pragma omp simd
        for (int e = 0; e < E; e++)
            out[(int64_t)r * E + e] *= inverse;
    }
}

// One query tile of one KV head of one sequence. qkv, out and lse point at the sequence.
static void forward_tile(float *out, float *lse, const float *qkv, const Tile *tile,
                         const AttentionDims *d, int kv_head, int q0)
{
    int G = d->H / d->K, E = d->E, row = attention_row(d), width = d->H * E;
    int n = min_int(queries_per_tile(d), d->T - q0), rows = G * n;
    float scale = 1.0f / sqrtf((float)E);
    const float *k = qkv + (int64_t)width + (int64_t)kv_head * E, *v = k + (int64_t)d->K * E;

    pack_heads(tile->q, qkv + (int64_t)q0 * row + (int64_t)kv_head * G * E, row, n, G, E);
    memset(tile->out, 0, (size_t)rows * (size_t)E * sizeof(float));
    for (int r = 0; r < rows; r++) {
        tile->row_max[r] = -INFINITY;
        tile->row_sum[r] = 0;
    }
    for (int k0 = 0; k0 < q0 + n; k0 += KEYS) {
        int keys = min_int(KEYS, q0 + n - k0);
        multiply_scores(tile->scores, tile->q, k + (int64_t)k0 * row, row, rows, keys, E);
        softmax_tile(tile->scores, tile->out, tile->row_max, tile->row_sum, rows, n, keys, E, q0,
                     k0, scale);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, E, keys, 1.0f, tile->scores,
                    KEYS, v + (int64_t)k0 * row, row, 1.0f, tile->out, E);
    }
    finish_rows(tile->out, tile->row_sum, rows, E);
    unpack_heads(out + (int64_t)q0 * width + (int64_t)kv_head * G * E, tile->out, width, n, G, E);
    for (int r = 0; r < rows; r++)
        lse[(int64_t)(q0 + r % n) * d->H + kv_head * G + r / n] =
            tile->row_max[r] + logf(tile->row_sum[r]);
}

void attention_forward(float *out, float *lse, const float *qkv, float *scratch,
                       const AttentionDims *d)
{
    int queries = queries_per_tile(d), n_tiles = (d->T + queries - 1) / queries;
    int64_t row = attention_row(d);
#pragma omp parallel
    {
        Tile tile;
        int64_t size = place_tile(&tile, scratch, d, false);
        place_tile(&tile, scratch + omp_get_thread_num() * size, d, false);
#pragma omp for collapse(3) schedule(dynamic)
        for (int b = 0; b < d->B; b++)
            for (int kv_head = 0; kv_head < d->K; kv_head++)
                for (int i = 0; i < n_tiles; i++) {
                    // The last tiles see the most keys: start with them.
                    int q0 = (n_tiles - 1 - i) * queries;
                    int64_t first = (int64_t)b * d->T;
                    forward_tile(out + first * d->H * d->E, lse + first * d->H, qkv + first * row,
                                 &tile, d, kv_head, q0);
                }
    }
}

// Packs the group's queries and output gradients tile by tile, with lse and delta beside them.
static void pack_sequence(const Tile *tile, const float *d_out, const float *out, const float *lse,
                          const float *qkv, const AttentionDims *d, int kv_head)
{
    int G = d->H / d->K, E = d->E, row = attention_row(d), width = d->H * E;
    int queries = queries_per_tile(d);
    for (int q0 = 0; q0 < d->T; q0 += queries) {
        int n = min_int(queries, d->T - q0);
        int64_t at = (int64_t)G * q0, heads = (int64_t)kv_head * G * E;
        pack_heads(tile->all_q + at * E, qkv + (int64_t)q0 * row + heads, row, n, G, E);
        pack_heads(tile->all_d_out + at * E, d_out + (int64_t)q0 * width + heads, width, n, G, E);
        for (int r = 0; r < G * n; r++) {
            int64_t token = q0 + r % n;
            const float *o = out + token * width + heads + (int64_t)(r / n) * E;
            const float *g = tile->all_d_out + (at + r) * E;
            float delta = 0;
            for (int e = 0; e < E; e++)
                delta += o[e] * g[e];
            tile->delta[at + r] = delta;
            tile->lse[at + r] = lse[token * d->H + kv_head * G + r / n];
        }
    }
}

// scores -> probabilities, d_scores -> gradient of the unscaled scores.
HOT static void softmax_backward_tile(float *restrict scores, float *restrict d_scores,
                                      const float *restrict lse, const float *restrict delta,
                                      int rows, int n, int keys, int q0, int k0, float scale)
{
    for (int r = 0; r < rows; r++) {
        float *s = scores + (int64_t)r * KEYS, *ds = d_scores + (int64_t)r * KEYS;
        int visible = q0 + r % n - k0 + 1;
        visible = visible < keys ? visible : keys;
        visible = visible > 0 ? visible : 0;
        float row_lse = lse[r], row_delta = delta[r];
#pragma omp simd
        for (int j = 0; j < visible; j++) {
            s[j] = vexp(s[j] * scale - row_lse);
            ds[j] = s[j] * (ds[j] - row_delta) * scale;
        }
        for (int j = visible; j < keys; j++)
            s[j] = ds[j] = 0;
    }
}

// One tile of keys against all query tiles that see it.
static void backward_keys(float *d_qkv, const float *qkv, const Tile *tile, const AttentionDims *d,
                          int kv_head, int k0)
{
    int G = d->H / d->K, E = d->E, row = attention_row(d);
    int queries = queries_per_tile(d), keys = min_int(KEYS, d->T - k0);
    float scale = 1.0f / sqrtf((float)E);
    int64_t key_column = (int64_t)(d->H + kv_head) * E, value_column = key_column + d->K * E;
    const float *k = qkv + k0 * (int64_t)row + key_column;
    const float *v = qkv + k0 * (int64_t)row + value_column;
    float *dk = d_qkv + k0 * (int64_t)row + key_column;
    float *dv = d_qkv + k0 * (int64_t)row + value_column;

    int first = k0 / queries * queries;
    for (int q0 = first; q0 < d->T; q0 += queries) {
        int n = min_int(queries, d->T - q0), rows = G * n;
        int64_t at = (int64_t)G * q0;
        const float *q = tile->all_q + at * E, *d_out = tile->all_d_out + at * E;
        float add = q0 == first ? 0.0f : 1.0f;
        multiply_scores(tile->scores, q, k, row, rows, keys, E);
        multiply_scores(tile->d_scores, d_out, v, row, rows, keys, E);
        softmax_backward_tile(tile->scores, tile->d_scores, tile->lse + at, tile->delta + at, rows,
                              n, keys, q0, k0, scale);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, keys, E, rows, 1.0f, tile->scores,
                    KEYS, d_out, E, add, dv, row);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, keys, E, rows, 1.0f, tile->d_scores,
                    KEYS, q, E, add, dk, row);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, E, keys, 1.0f, tile->d_scores,
                    KEYS, k, row, k0 == 0 ? 0.0f : 1.0f, tile->all_dq + at * E, E);
    }
}

void attention_backward(float *d_qkv, const float *d_out, const float *out, const float *lse,
                        const float *qkv, float *scratch, const AttentionDims *d)
{
    int G = d->H / d->K, E = d->E, queries = queries_per_tile(d);
    int64_t row = attention_row(d);
#pragma omp parallel
    {
        Tile tile;
        int64_t size = place_tile(&tile, scratch, d, true);
        place_tile(&tile, scratch + omp_get_thread_num() * size, d, true);
#pragma omp for collapse(2) schedule(dynamic)
        for (int b = 0; b < d->B; b++)
            for (int kv_head = 0; kv_head < d->K; kv_head++) {
                int64_t first = (int64_t)b * d->T;
                const float *seq = qkv + first * row;
                float *d_seq = d_qkv + first * row;
                pack_sequence(&tile, d_out + first * d->H * E, out + first * d->H * E,
                              lse + first * d->H, seq, d, kv_head);
                for (int k0 = 0; k0 < d->T; k0 += KEYS)
                    backward_keys(d_seq, seq, &tile, d, kv_head, k0);
                for (int q0 = 0; q0 < d->T; q0 += queries)
                    unpack_heads(d_seq + q0 * row + (int64_t)kv_head * G * E,
                                 tile.all_dq + (int64_t)G * q0 * E, row,
                                 min_int(queries, d->T - q0), G, E);
            }
    }
}
