// A packed query is [q_c U_k | q_r], a packed key [c_k | k_r], a packed value c_v: the tiles know
// no more. Products with the up-projections are done tile by tile while it is in cache, on copies
// of the weights padded to whole vectors; U_k's carries the softmax's scale.
//
// A weight's gradient is summed by parts of the query tiles that the shape fixes, the latent's by
// KV heads, and both are added up in that order, so the bits do not depend on the number of
// threads.
#include "model/attention/attention_latent.h"

#include "base/arena.h"
#include "base/simd.h"
#include "model/attention/attention_tiles.h"
#include "model/kernels/tile.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// Widths and the scratch of this form, before that of the tiles.
typedef struct Latent {
    LatentDims dims;
    LatentColumns column;
    LatentArrays arrays;
    TileLayout layout;
    int G, nope;
    float scale;
    int key_ld, value_ld, nope_ld, head_ld; // of rows of key_latent, value_latent, E - 2P, E floats
    // Scratch of all threads. Weights by KV head, for products with their rows and their columns.
    float *up_k, *up_k_t; // [K, nope, key_ld], [K, key_latent, nope_ld], times scale
    float *up_v, *up_v_t; // [K, E, value_ld], [K, value_latent, head_ld]
    float *d_up;          // [B K, n_query_parts, up_floats()], backward
    float *d_latent;      // [B K, T, latent's width], backward
    // Each thread its own.
    float *tiles; // [n_threads, tile_floats()]: rows of one head of a query tile
    float *rest;  // of all scratch, for model/attention_tiles
} Latent;

LatentColumns latent_columns(const LatentDims *d)
{
    const int nope = d->E - d->rope;
    const int k_rope = d->H * d->E, latent = k_rope + d->K * d->rope;
    return (LatentColumns){
        .q_rope = 0,
        .q_nope = d->H * (d->E - nope),
        .k_rope = k_rope,
        .latent = latent,
        .row = latent + d->value_column + d->value_latent,
    };
}

// Multiplications per sequence: seven products per query and key (two forward; scores again and
// four gradients backward), of which four are as wide as keys and three as values; three per token
// and KV head for the up-projections, and here four per token and head, forward twice.
bool latent_attention_pays(const LatentDims *d)
{
    const double pairs = 0.5 * d->T * (d->T + 1.0) * d->H, T = d->T;
    const double up = (double)(d->E - d->rope) * d->key_latent + (double)d->E * d->value_latent;
    const double expanded = pairs * 7.0 * tile_padded(d->E) + 3.0 * T * d->K * up;
    const double latent =
        pairs * (4.0 * tile_padded(d->key_latent + d->rope) + 3.0 * tile_padded(d->value_latent)) +
        4.0 * T * d->H * up;
    return latent < expanded;
}

static int64_t up_floats(const Latent *x)
{
    return (int64_t)x->nope * x->key_ld + (int64_t)x->dims.E * x->value_ld;
}

// One head of a query tile, as wide as E and as the values.
static int64_t tile_floats(const Latent *x)
{
    return (int64_t)x->layout.queries * (x->head_ld + x->value_ld);
}

static int latent_width(const Latent *x)
{
    return x->dims.value_column + x->dims.value_latent;
}

// The form's own scratch, of one direction, in an arena over it or a measuring one.
static void place_scratch(Latent *x, Arena *arena, int n_threads, bool is_backward)
{
    const LatentDims *d = &x->dims;
    const int64_t heads = (int64_t)d->B * d->K;
    x->up_k = arena_floats(arena, (int64_t)d->K * x->nope * x->key_ld);
    x->up_k_t = arena_floats(arena, (int64_t)d->K * d->key_latent * x->nope_ld);
    x->up_v = arena_floats(arena, (int64_t)d->K * d->E * x->value_ld);
    x->up_v_t = arena_floats(arena, (int64_t)d->K * d->value_latent * x->head_ld);
    x->tiles = arena_floats(arena, n_threads * tile_floats(x));
    if (!is_backward)
        return;
    x->d_up = arena_floats(arena, heads * x->layout.n_query_parts * up_floats(x));
    x->d_latent = arena_floats(arena, heads * d->T * latent_width(x));
}

static Latent find_latent(const LatentDims *d)
{
    const int nope = d->E - d->rope, G = d->H / d->K;
    return (Latent){
        .dims = *d,
        .column = latent_columns(d),
        .layout = tiles_layout(d->B, d->T, d->K, G, d->key_latent + d->rope, d->value_latent),
        .G = G,
        .nope = nope,
        .scale = 1.0f / sqrtf((float)d->E),
        .key_ld = tile_padded(d->key_latent),
        .value_ld = tile_padded(d->value_latent),
        .nope_ld = tile_padded(nope),
        .head_ld = tile_padded(d->E),
    };
}

int64_t attention_latent_scratch_floats(const LatentDims *d, int n_threads, bool is_training)
{
    Latent x = find_latent(d);
    Arena arena = arena_start("attention");
    place_scratch(&x, &arena, n_threads, is_training);
    return arena.used_bytes / (int64_t)sizeof(float) +
           tiles_scratch_floats(&x.layout, n_threads, is_training);
}

// rows [m, n], times `scale` -> padded rows [m, ld] and columns [n, ld_t].
static void pack_weight(float *padded, int ld, float *transposed, int ld_t, const float *rows,
                        int m, int n, float scale)
{
    tiles_pack_rows(padded, ld, rows, n, m, n, ld, scale);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < ld_t; i++)
            transposed[(int64_t)j * ld_t + i] = i < m ? scale * rows[(int64_t)i * n + j] : 0;
}

static Latent start(const LatentArrays *arrays, float *scratch, const LatentDims *d,
                    bool is_backward)
{
    Latent x = find_latent(d);
    x.arrays = *arrays;
    Arena arena = {.name = "attention", .block = (char *)scratch, .size_bytes = INT64_MAX};
    place_scratch(&x, &arena, omp_get_max_threads(), is_backward);
    x.rest = scratch + arena.used_bytes / (int64_t)sizeof(float);
    for (int j = 0; j < d->K; j++) {
        const int64_t k_rows = (int64_t)j * x.nope, v_rows = (int64_t)j * d->E;
        pack_weight(x.up_k + k_rows * x.key_ld, x.key_ld,
                    x.up_k_t + (int64_t)j * d->key_latent * x.nope_ld, x.nope_ld,
                    arrays->up_k + k_rows * d->key_latent, x.nope, d->key_latent, x.scale);
        pack_weight(x.up_v + v_rows * x.value_ld, x.value_ld,
                    x.up_v_t + (int64_t)j * d->value_latent * x.head_ld, x.head_ld,
                    arrays->up_v + v_rows * d->value_latent, d->E, d->value_latent, 1.0f);
    }
    return x;
}

// ---- packing and unpacking ---------------------------------------------------------------------

static float *own_tile(const Latent *x)
{
    return x->tiles + omp_get_thread_num() * tile_floats(x);
}

static int query_head(const Latent *x, const TileHead *head, int g)
{
    return head->kv_head * x->G + g;
}

static void pack_keys(const void *form, const TileHead *head, const KeyTile *tile)
{
    const Latent *x = form;
    const LatentDims *d = &x->dims;
    const int row = x->column.row, n = tile->n, Rk = d->key_latent;
    const float *tokens = x->arrays.qkv + (head->first_token + tile->first) * row;
    const float *c_k = tokens + x->column.latent, *c_v = c_k + d->value_column;
    const float *k_r = tokens + x->column.k_rope + (int64_t)head->kv_head * d->rope;
    tiles_pack_columns(tile->k_columns, c_k, row, n, Rk);
    tiles_pack_columns(tile->k_columns + (int64_t)Rk * TILE_KEYS, k_r, row, n, d->rope);
    if (tile->v_columns != NULL)
        tiles_pack_columns(tile->v_columns, c_v, row, n, d->value_latent);
    if (tile->v_rows != NULL)
        tiles_pack_rows(tile->v_rows, x->value_ld, c_v, row, n, d->value_latent, x->value_ld, 1.0f);
    if (tile->k_rows == NULL)
        return;
    const int ld = x->layout.key_ld;
    tiles_pack_rows(tile->k_rows, ld, c_k, row, n, Rk, Rk, 1.0f);
    tiles_pack_rows(tile->k_rows + Rk, ld, k_r, row, n, d->rope, ld - Rk, 1.0f);
}

static void pack_queries(const void *form, const TileHead *head, const QueryTile *tile)
{
    const Latent *x = form;
    const LatentDims *d = &x->dims;
    const int row = x->column.row, ld = x->layout.key_ld, n = tile->n, Rk = d->key_latent;
    const float *tokens = x->arrays.qkv + (head->first_token + tile->first) * row;
    const float *up = x->up_k + (int64_t)head->kv_head * x->nope * x->key_ld;
    for (int g = 0; g < x->G; g++) {
        const int64_t h = query_head(x, head, g);
        float *q = tile->q + (int64_t)g * n * ld;
        if (Rk > 0) // its padding may reach into what the rotated dims then overwrite
            tile_multiply(q, ld, tokens + x->column.q_nope + h * x->nope, row, up, x->key_ld, n, Rk,
                          x->nope, false);
        tiles_pack_rows(q + Rk, ld, tokens + x->column.q_rope + h * d->rope, row, n, d->rope,
                        ld - Rk, x->scale);
    }
}

// out = values U_v^T for the n tokens of a head; by way of a tile if whole vectors are wider.
static void expand_values(const Latent *x, const TileHead *head, int h, int64_t token, int n,
                          const float *values, int ld)
{
    const int H = x->dims.H, E = x->dims.E;
    const bool is_whole = E == x->head_ld;
    float *out = x->arrays.out + (token * H + h) * E, *rows = is_whole ? out : own_tile(x);
    tile_multiply(rows, is_whole ? H * E : x->head_ld, values, ld,
                  x->up_v_t + (int64_t)head->kv_head * x->dims.value_latent * x->head_ld,
                  x->head_ld, n, E, x->dims.value_latent, false);
    if (!is_whole)
        tiles_unpack_rows(out, (int64_t)H * E, rows, x->head_ld, n, E, 1.0f);
}

static void unpack_output(const void *form, const TileHead *head, const QueryTile *tile)
{
    const Latent *x = form;
    const int H = x->dims.H, Rv = x->dims.value_latent, n = tile->n;
    const int64_t token = head->first_token + tile->first;
    for (int g = 0; g < x->G; g++) {
        const int h = query_head(x, head, g);
        const float *values = tile->out + (int64_t)g * n * x->value_ld;
        tiles_unpack_rows(x->arrays.values + (token * H + h) * Rv, (int64_t)H * Rv, values,
                          x->value_ld, n, Rv, 1.0f);
        expand_values(x, head, h, token, n, values, x->value_ld);
        for (int i = 0; i < n; i++)
            x->arrays.lse[(token + i) * H + h] = tile->lse[g * n + i];
    }
}

static float *d_up_part(const Latent *x, int64_t head, int part)
{
    return x->d_up + (head * x->layout.n_query_parts + part) * up_floats(x);
}

// One head of a query tile: its gradient times U_v, its part of U_v's gradient, and its output
// again.
static void pack_head_backward(const Latent *x, const TileHead *head, const QueryTile *tile, int g)
{
    const int H = x->dims.H, E = x->dims.E, Rv = x->dims.value_latent, ld = x->value_ld;
    const int n = tile->n, h = query_head(x, head, g);
    const int64_t token = head->first_token + tile->first;
    const float *d_out = x->arrays.d_out + (token * H + h) * E;
    float *d_values = tile->out + (int64_t)g * n * ld, *values = own_tile(x) + n * x->head_ld;
    tile_multiply(d_values, ld, d_out, H * E, x->up_v + (int64_t)head->kv_head * E * ld, ld, n, Rv,
                  E, false);
    tiles_pack_rows(values, ld, x->arrays.values + (token * H + h) * Rv, (int64_t)H * Rv, n, Rv, ld,
                    1.0f);
    tile_multiply_transposed(d_up_part(x, head->index, tile->part) + (int64_t)x->nope * x->key_ld,
                             ld, d_out, H * E, values, ld, E, Rv, n, g > 0 || !tile->starts_part);
    expand_values(x, head, h, token, n, values, ld);
    for (int i = 0; i < n; i++) {
        tile->lse[g * n + i] = x->arrays.lse[(token + i) * H + h];
        tile->delta[g * n + i] =
            tiles_dot(values + (int64_t)i * ld, d_values + (int64_t)i * ld, Rv);
    }
}

static void pack_backward(const void *form, const TileHead *head, const QueryTile *tile)
{
    const Latent *x = form;
    pack_queries(form, head, tile);
    for (int g = 0; g < x->G; g++)
        pack_head_backward(x, head, tile, g);
}

// Columns of a tile [width, TILE_KEYS] added to those of rows.
HOT static void add_columns(float *restrict rows, int row, const float *restrict packed, int n,
                            int width)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            rows[(int64_t)i * row + e] += packed[(int64_t)e * TILE_KEYS + i];
}

static void unpack_keys(const void *form, const TileHead *head, const float *d_k, const float *d_v,
                        int first, int n)
{
    const Latent *x = form;
    const LatentDims *d = &x->dims;
    const int row = x->column.row, R = latent_width(x);
    tiles_unpack_columns(x->arrays.d_qkv + (head->first_token + first) * row + x->column.k_rope +
                             (int64_t)head->kv_head * d->rope,
                         row, d_k + (int64_t)d->key_latent * TILE_KEYS, n, d->rope);
    float *latent = x->d_latent + (head->index * d->T + first) * R;
    memset(latent, 0, (size_t)n * (size_t)R * sizeof(float));
    add_columns(latent, R, d_k, n, d->key_latent);
    add_columns(latent + d->value_column, R, d_v, n, d->value_latent);
}

static void unpack_queries(const void *form, const TileHead *head, const QueryTile *tile)
{
    const Latent *x = form;
    const LatentDims *d = &x->dims;
    const int row = x->column.row, ld = x->layout.key_ld, n = tile->n, Rk = d->key_latent;
    const int64_t at = (head->first_token + tile->first) * row;
    const float *up_t = x->up_k_t + (int64_t)head->kv_head * Rk * x->nope_ld;
    float *d_up = d_up_part(x, head->index, tile->part), *rows = own_tile(x);
    for (int g = 0; g < x->G; g++) {
        const int64_t h = query_head(x, head, g), nope = at + x->column.q_nope + h * x->nope;
        const float *d_q = tile->q + (int64_t)g * n * ld;
        tiles_unpack_rows(x->arrays.d_qkv + at + x->column.q_rope + h * d->rope, row, d_q + Rk, ld,
                          n, d->rope, x->scale);
        if (Rk == 0)
            continue;
        tile_multiply(rows, x->nope_ld, d_q, ld, up_t, x->nope_ld, n, x->nope, Rk, false);
        tiles_unpack_rows(x->arrays.d_qkv + nope, row, rows, x->nope_ld, n, x->nope, 1.0f);
        tile_multiply_transposed(d_up, x->key_ld, x->arrays.qkv + nope, row, d_q, ld, x->nope, Rk,
                                 n, g > 0 || !tile->starts_part);
    }
}

static const TileForm calls = {pack_keys,     pack_queries, unpack_output,
                               pack_backward, unpack_keys,  unpack_queries};

// ---- both directions ---------------------------------------------------------------------------

void attention_latent_forward(const LatentArrays *arrays, float *scratch, const LatentDims *d)
{
    const Latent x = start(arrays, scratch, d, false);
    tiles_forward(&calls, &x, x.rest, &x.layout);
}

// One row of a weight of KV head j: the sum over sequences and parts.
HOT static void sum_up_row(float *restrict grad, const Latent *x, int j, int64_t at, int width,
                           float scale)
{
    const int n_parts = x->layout.n_query_parts;
    for (int e = 0; e < width; e++) {
        float sum = 0;
        for (int b = 0; b < x->dims.B; b++)
            for (int part = 0; part < n_parts; part++)
                sum += d_up_part(x, (int64_t)b * x->dims.K + j, part)[at + e];
        grad[e] = (x->arrays.add_gradients ? grad[e] : 0) + scale * sum;
    }
}

static void sum_latent(const Latent *x, int64_t token)
{
    const LatentDims *d = &x->dims;
    const int R = latent_width(x), row = x->column.row;
    const int64_t b = token / d->T, t = token % d->T;
    const float *from = x->d_latent + (b * d->K * d->T + t) * R;
    float *to = x->arrays.d_qkv + token * row + x->column.latent;
    memcpy(to, from, (size_t)R * sizeof(float));
    for (int j = 1; j < d->K; j++)
        for (int r = 0; r < R; r++)
            to[r] += from[(int64_t)j * d->T * R + r];
}

void attention_latent_backward(const LatentArrays *arrays, float *scratch, const LatentDims *d)
{
    const Latent x = start(arrays, scratch, d, true);
    const int Rk = d->key_latent, Rv = d->value_latent;
    tiles_backward(&calls, &x, x.rest, &x.layout);
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (int64_t token = 0; token < (int64_t)d->B * d->T; token++)
            sum_latent(&x, token);
#pragma omp for schedule(static) nowait
        for (int i = 0; i < d->K * x.nope; i++)
            sum_up_row(arrays->d_up_k + (int64_t)i * Rk, &x, i / x.nope,
                       (int64_t)(i % x.nope) * x.key_ld, Rk, x.scale);
#pragma omp for schedule(static)
        for (int i = 0; i < d->K * d->E; i++)
            sum_up_row(arrays->d_up_v + (int64_t)i * Rv, &x, i / d->E,
                       (int64_t)x.nope * x.key_ld + (int64_t)(i % d->E) * x.value_ld, Rv, 1.0f);
    }
}
