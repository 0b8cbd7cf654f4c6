// A packed query is [q_c U_k | q_r], a packed key [c_k | k_r], a packed value c_v: the tiles know
// nothing else. Products with the up-projections are done tile by tile, while the tile is in cache,
// on copies of the weights padded to whole vectors; the copy of U_k carries the softmax's scale.
//
// The gradient of a weight is summed over parts of the query tiles, which the shape fixes, that of
// the latent over groups of query heads. Both are added up in that order, so the bits do not depend
// on the number of threads.
#include "model/attention/attention_latent.h"

#include "base/arena.h"
#include "base/simd.h"
#include "model/attention/attention_latent_bf16.h"
#include "model/attention/attention_latent_sums.h"
#include "model/attention/attention_tiles.h"
#include "model/kernels/tile.h"
#include "model/kernels/tile_bf16.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// The caller's rows, all float32; those of backward are NULL in forward.
typedef struct FloatArrays {
    const float *qkv, *d_out;
    float *out, *values, *lse, *d_qkv;
} FloatArrays;

// Widths, data, and the scratch of this file, which lies before that of the tiles.
typedef struct LatentAttention {
    LatentDims dims;
    LatentColumns column;
    FloatArrays arrays;
    TileLayout layout;
    int nope;
    float scale;
    int key_ld, value_ld, nope_ld, head_ld; // of rows of key_latent, value_latent, nope, E floats
    // Scratch of all threads. Weights by head, for products with their rows and their columns.
    float *up_k, *up_k_t; // [up_heads, nope, key_ld], [.., key_latent, nope_ld], times scale
    float *up_v, *up_v_t; // [up_heads, E, value_ld], [.., value_latent, head_ld]
    LatentSums sums;      // backward
    // Each thread its own.
    float *tiles; // [n_threads, tile_floats()]: rows of one head of a query tile
    float *rest;  // scratch of attention_tiles.h
} LatentAttention;

// The order of the weights' rows in the flat vector (q_r of all heads | q_c | k_r | c), so that the
// projection's output is used where it lies and nothing is sorted.
LatentColumns latent_columns(const LatentDims *d)
{
    const int q_nope = d->H * d->rope, k_rope = q_nope + d->H * latent_nope(d);
    const int latent = k_rope + d->K * d->rope;
    return (LatentColumns){
        .q_rope = 0,
        .q_nope = q_nope,
        .k_rope = k_rope,
        .latent = latent,
        .row = latent + d->value_column + d->value_latent,
    };
}

int latent_groups(const LatentDims *d)
{
    enum { HEADS = 3 };
    if (!d->is_shared)
        return d->K;
    int heads = HEADS;
    while (d->H % heads != 0)
        heads--;
    return d->H / heads;
}

// Multiplications per query and key of the seven products of forward and backward, two of scores
// and two of their gradients as wide as keys, and as wide as values the output, dV, and dP, whose
// depth is the width as that of scores is. Widths are padded as the tile kernels multiply them:
// columns to whole vectors or tiles, and the depth of products in bfloat16 to a step of AMX.
static double tile_width(ComputeType compute, int keys, int values)
{
    const bool is_bf16 = compute == COMPUTE_BFLOAT16;
    const int key_depth = is_bf16 ? tile_bf16_padded(keys) : tile_padded(keys),
              value_depth = is_bf16 ? tile_bf16_padded(values) : tile_padded(values);
    return 2.0 * key_depth + 2.0 * tile_padded(keys) + 2.0 * tile_padded(values) + value_depth;
}

// Multiplications per sequence: those of queries and keys; three per token and KV head for the
// up-projections, and here four per token and head, forward twice.
bool latent_attention_pays(const LatentDims *d, ComputeType compute)
{
    // 0.5 T (T + 1) query-key pairs: the causal half.
    const double pairs = 0.5 * d->T * (d->T + 1.0) * d->H, T = d->T;
    const double up = (double)latent_nope(d) * d->key_latent + (double)d->E * d->value_latent;
    const double expanded = pairs * tile_width(compute, d->rope + latent_nope(d), d->E) +
                            3.0 * T * latent_up_heads(d) * up;
    const double latent =
        pairs * tile_width(compute, d->key_latent + d->rope, d->value_latent) + 4.0 * T * d->H * up;
    return latent < expanded;
}

// One head of a query tile: rows as wide as E, and rows as wide as the values.
static int64_t tile_floats(const LatentAttention *attention)
{
    return (int64_t)attention->layout.queries * (attention->head_ld + attention->value_ld);
}

// This file's scratch of one direction, in an arena over it or a measuring one.
static void place_scratch(LatentAttention *attention, Arena *arena, int n_threads, bool is_backward)
{
    const LatentDims *d = &attention->dims;
    const int64_t heads = latent_up_heads(d);
    attention->up_k = arena_floats(arena, heads * attention->nope * attention->key_ld);
    attention->up_k_t = arena_floats(arena, heads * d->key_latent * attention->nope_ld);
    attention->up_v = arena_floats(arena, heads * d->E * attention->value_ld);
    attention->up_v_t = arena_floats(arena, heads * d->value_latent * attention->head_ld);
    attention->tiles = arena_floats(arena, n_threads * tile_floats(attention));
    if (is_backward)
        latent_sums_place(&attention->sums, arena);
}

// Sizes alone, without memory: the basis of measuring and of placing.
static LatentAttention find_attention(const LatentDims *d)
{
    const int nope = latent_nope(d), n_groups = latent_groups(d);
    LatentAttention attention = {
        .dims = *d,
        .column = latent_columns(d),
        .layout = tiles_layout(d->B, d->T, n_groups, d->H / n_groups, d->is_shared,
                               d->key_latent + d->rope, d->value_latent),
        .nope = nope,
        .scale = 1.0f / sqrtf((float)d->E),
        .key_ld = tile_padded(d->key_latent),
        .value_ld = tile_padded(d->value_latent),
        .nope_ld = tile_padded(nope),
        .head_ld = tile_padded(d->E),
    };
    attention.sums =
        latent_sums(d, attention.layout.n_query_parts, attention.key_ld, attention.value_ld);
    return attention;
}

int64_t attention_latent_scratch_bytes(const LatentDims *d, ComputeType compute, int n_threads,
                                       bool is_training)
{
    if (compute == COMPUTE_BFLOAT16)
        return attention_latent_bf16_scratch_bytes(d, n_threads, is_training);
    LatentAttention attention = find_attention(d);
    Arena arena = arena_start("attention");
    place_scratch(&attention, &arena, n_threads, is_training);
    return arena.used_bytes +
           tiles_scratch_floats(&attention.layout, n_threads, is_training) * (int64_t)sizeof(float);
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

static FloatArrays float_arrays(const LatentArrays *arrays, const LatentDims *d)
{
    const int row = latent_columns(d).row, width = d->H * d->E;
    return (FloatArrays){
        .qkv = rows_floats(arrays->qkv, row),
        .d_out = rows_floats(arrays->d_out, width),
        .out = rows_floats(arrays->out, width),
        .values = rows_floats(arrays->values, d->H * d->value_latent),
        .lse = arrays->lse,
        .d_qkv = rows_floats(arrays->d_qkv, row),
    };
}

// Places the scratch and packs the weights.
static LatentAttention start(const LatentArrays *arrays, void *scratch, const LatentDims *d,
                             bool is_backward)
{
    LatentAttention attention = find_attention(d);
    attention.arrays = float_arrays(arrays, d);
    Arena arena = arena_over("attention", scratch, INT64_MAX);
    place_scratch(&attention, &arena, omp_get_max_threads(), is_backward);
    attention.rest = (float *)scratch + arena.used_bytes / (int64_t)sizeof(float);
#pragma omp parallel for schedule(static)
    for (int j = 0; j < latent_up_heads(d); j++) {
        const int64_t k_rows = (int64_t)j * attention.nope, v_rows = (int64_t)j * d->E;
        pack_weight(attention.up_k + k_rows * attention.key_ld, attention.key_ld,
                    attention.up_k_t + (int64_t)j * d->key_latent * attention.nope_ld,
                    attention.nope_ld, arrays->up_k + k_rows * d->key_latent, attention.nope,
                    d->key_latent, attention.scale);
        pack_weight(attention.up_v + v_rows * attention.value_ld, attention.value_ld,
                    attention.up_v_t + (int64_t)j * d->value_latent * attention.head_ld,
                    attention.head_ld, arrays->up_v + v_rows * d->value_latent, d->E,
                    d->value_latent, 1.0f);
    }
    return attention;
}

// ---- packing and unpacking ---------------------------------------------------------------------

// The calling thread's scratch: callbacks run in the parallel region of attention_tiles.c.
static float *own_tile(const LatentAttention *attention)
{
    return attention->tiles + omp_get_thread_num() * tile_floats(attention);
}

static int query_head(const LatentAttention *attention, const TileHead *head, int g)
{
    return head->kv_head * attention->layout.G + g;
}

// Of the weights that the group's query head g reads.
static int64_t up_head(const LatentAttention *attention, const TileHead *head, int g)
{
    const int n_up = attention->sums.n_up;
    return head->kv_head * n_up + g % n_up;
}

// All KV heads share the latent c, so its columns are packed again for each; only k_r differs.
static void pack_keys(const void *context, const TileHead *head, const KeyTile *tile)
{
    const LatentAttention *attention = context;
    const LatentDims *d = &attention->dims;
    const int row = attention->column.row, n = tile->n, Rk = d->key_latent;
    const float *tokens = attention->arrays.qkv + (head->first_token + tile->first) * row;
    const float *c_k = tokens + attention->column.latent, *c_v = c_k + d->value_column;
    const float *k_r = tokens + attention->column.k_rope + (int64_t)head->kv_head * d->rope;
    tiles_pack_columns(tile->k_columns, c_k, row, n, Rk);
    tiles_pack_columns(tile->k_columns + (int64_t)Rk * TILE_KEYS, k_r, row, n, d->rope);
    if (tile->v_columns != NULL)
        tiles_pack_columns(tile->v_columns, c_v, row, n, d->value_latent);
    if (tile->v_rows != NULL)
        tiles_pack_rows(tile->v_rows, attention->value_ld, c_v, row, n, d->value_latent,
                        attention->value_ld, 1.0f);
    if (tile->k_rows == NULL)
        return;
    const int ld = attention->layout.key_ld;
    tiles_pack_rows(tile->k_rows, ld, c_k, row, n, Rk, Rk, 1.0f);
    tiles_pack_rows(tile->k_rows + Rk, ld, k_r, row, n, d->rope, ld - Rk, 1.0f);
}

// q_h = [scale q_c,h U_k | scale q_r,h]. The softmax's scale is in the copy of U_k already.
static void pack_queries(const void *context, const TileHead *head, const QueryTile *tile)
{
    const LatentAttention *attention = context;
    const LatentDims *d = &attention->dims;
    const int row = attention->column.row, ld = attention->layout.key_ld, n = tile->n,
              Rk = d->key_latent;
    const float *tokens = attention->arrays.qkv + (head->first_token + tile->first) * row;
    for (int g = 0; g < attention->layout.G; g++) {
        const int64_t h = query_head(attention, head, g);
        float *q = tile->q + (int64_t)g * n * ld;
        if (Rk > 0) // its padding may reach into what the rotated dims then overwrite
            tile_multiply(q, ld, tokens + attention->column.q_nope + h * attention->nope, row,
                          attention->up_k +
                              up_head(attention, head, g) * attention->nope * attention->key_ld,
                          attention->key_ld, n, Rk, attention->nope, false);
        tiles_pack_rows(q + Rk, ld, tokens + attention->column.q_rope + h * d->rope, row, n,
                        d->rope, ld - Rk, attention->scale);
    }
}

// out = values U_v^T for the n tokens of a head; through a tile if E is no multiple of a vector.
static void expand_values(const LatentAttention *attention, const TileHead *head, int g,
                          int64_t token, int n, const float *values, int ld)
{
    const int H = attention->dims.H, E = attention->dims.E, h = query_head(attention, head, g);
    const bool is_whole = E == attention->head_ld;
    float *out = attention->arrays.out + (token * H + h) * E,
          *rows = is_whole ? out : own_tile(attention);
    tile_multiply(rows, is_whole ? H * E : attention->head_ld, values, ld,
                  attention->up_v_t + up_head(attention, head, g) * attention->dims.value_latent *
                                          attention->head_ld,
                  attention->head_ld, n, E, attention->dims.value_latent, false);
    if (!is_whole)
        tiles_unpack_rows(out, (int64_t)H * E, rows, attention->head_ld, n, E, 1.0f);
}

// Saves p c_v [n, Rv] for the gradient of U_v, and expands it to out = (p c_v) U_v^T [n, E].
static void unpack_output(const void *context, const TileHead *head, const QueryTile *tile)
{
    const LatentAttention *attention = context;
    const int H = attention->dims.H, Rv = attention->dims.value_latent, n = tile->n;
    const int64_t token = head->first_token + tile->first;
    for (int g = 0; g < attention->layout.G; g++) {
        const int h = query_head(attention, head, g);
        const float *values = tile->out + (int64_t)g * n * attention->value_ld;
        tiles_unpack_rows(attention->arrays.values + (token * H + h) * Rv, (int64_t)H * Rv, values,
                          attention->value_ld, n, Rv, 1.0f);
        expand_values(attention, head, g, token, n, values, attention->value_ld);
        for (int i = 0; i < n; i++)
            attention->arrays.lse[(token + i) * H + h] = tile->lse[g * n + i];
    }
}

// Whether the part of a weight's gradient has been written: its first tile and head write it.
static bool adds(const LatentAttention *attention, const QueryTile *tile, int g)
{
    return g >= attention->sums.n_up || !tile->starts_part;
}

// One head of a query tile: the gradient of its values, its part of U_v's gradient, and its output,
// computed again.
static void pack_head_backward(const LatentAttention *attention, const TileHead *head,
                               const QueryTile *tile, int g)
{
    const int H = attention->dims.H, E = attention->dims.E, Rv = attention->dims.value_latent,
              ld = attention->value_ld;
    const int n = tile->n, h = query_head(attention, head, g);
    const int64_t token = head->first_token + tile->first;
    const float *d_out = attention->arrays.d_out + (token * H + h) * E;
    float *d_values = tile->out + (int64_t)g * n * ld,
          *values = own_tile(attention) + n * attention->head_ld;
    tile_multiply(d_values, ld, d_out, H * E,
                  attention->up_v + up_head(attention, head, g) * E * ld, ld, n, Rv, E, false);
    tiles_pack_rows(values, ld, attention->arrays.values + (token * H + h) * Rv, (int64_t)H * Rv, n,
                    Rv, ld, 1.0f);
    tile_multiply_transposed(latent_sums_up_v(&attention->sums, head, tile->part, g), ld, d_out,
                             H * E, values, ld, E, Rv, n, adds(attention, tile, g));
    expand_values(attention, head, g, token, n, values, ld);
    for (int i = 0; i < n; i++) {
        tile->lse[g * n + i] = attention->arrays.lse[(token + i) * H + h];
        tile->delta[g * n + i] =
            // out . d_out = (p c_v) . (U_v^T d_out): the narrower dot product gives the same delta.
            tiles_dot(values + (int64_t)i * ld, d_values + (int64_t)i * ld, Rv);
    }
}

static void pack_backward(const void *context, const TileHead *head, const QueryTile *tile)
{
    const LatentAttention *attention = context;
    pack_queries(context, head, tile);
    for (int g = 0; g < attention->layout.G; g++)
        pack_head_backward(attention, head, tile, g);
}

static void unpack_keys(const void *context, const TileHead *head, const float *d_k,
                        const float *d_v, int first, int n)
{
    const LatentAttention *attention = context;
    const Rows d_qkv = rows_f32(attention->arrays.d_qkv, attention->column.row);
    latent_sums_set_keys(&attention->sums, d_qkv, head, d_k, d_v, TILE_KEYS, first, n, 1.0f);
}

// d_q_c = scale d(q U_k) U_k^T, and U_k's gradient q_c^T d(q U_k), both on the tile while it is in
// cache.
static void unpack_queries(const void *context, const TileHead *head, const QueryTile *tile)
{
    const LatentAttention *attention = context;
    const LatentDims *d = &attention->dims;
    const int row = attention->column.row, ld = attention->layout.key_ld, n = tile->n,
              Rk = d->key_latent;
    const int64_t at = (head->first_token + tile->first) * row;
    float *rows = own_tile(attention);
    for (int g = 0; g < attention->layout.G; g++) {
        const int64_t h = query_head(attention, head, g),
                      nope = at + attention->column.q_nope + h * attention->nope;
        const float *d_q = tile->q + (int64_t)g * n * ld;
        tiles_unpack_rows(attention->arrays.d_qkv + at + attention->column.q_rope + h * d->rope,
                          row, d_q + Rk, ld, n, d->rope, attention->scale);
        if (Rk == 0)
            continue;
        tile_multiply(rows, attention->nope_ld, d_q, ld,
                      attention->up_k_t + up_head(attention, head, g) * Rk * attention->nope_ld,
                      attention->nope_ld, n, attention->nope, Rk, false);
        tiles_unpack_rows(attention->arrays.d_qkv + nope, row, rows, attention->nope_ld, n,
                          attention->nope, 1.0f);
        tile_multiply_transposed(latent_sums_up_k(&attention->sums, head, tile->part, g),
                                 attention->key_ld, attention->arrays.qkv + nope, row, d_q, ld,
                                 attention->nope, Rk, n, adds(attention, tile, g));
    }
}

static const TilePacking packing = {pack_keys,     pack_queries, unpack_output,
                                    pack_backward, unpack_keys,  unpack_queries};

// ---- both directions ---------------------------------------------------------------------------

void attention_latent_forward(ComputeType compute, const LatentArrays *arrays, void *scratch,
                              const LatentDims *d)
{
    if (compute == COMPUTE_BFLOAT16) {
        attention_latent_bf16_forward(arrays, scratch, d);
        return;
    }
    const LatentAttention attention = start(arrays, scratch, d, false);
    tiles_forward(&packing, &attention, attention.rest, &attention.layout);
}

void attention_latent_backward(ComputeType compute, const LatentArrays *arrays, void *scratch,
                               const LatentDims *d)
{
    if (compute == COMPUTE_BFLOAT16) {
        attention_latent_bf16_backward(arrays, scratch, d);
        return;
    }
    const LatentAttention attention = start(arrays, scratch, d, true);
    tiles_backward(&packing, &attention, attention.rest, &attention.layout);
#pragma omp parallel
    latent_sums_finish(&attention.sums, arrays->d_qkv, arrays->d_up_k, arrays->d_up_v,
                       attention.scale, arrays->add_gradients);
}
