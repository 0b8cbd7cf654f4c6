// Keys and values lie expanded in the rows of tokens. Queries are scaled by 1 / sqrt(E) as they are
// packed, so that tiles know no scale.
#include "model/attention/attention.h"

#include "model/attention/attention_bf16.h"
#include "model/attention/attention_tiles.h"
#include "model/kernels/tile.h"

#include <math.h>
#include <stddef.h>

// The context of the callbacks below, one for both directions: pointers of the other direction are
// NULL.
// Where tiles are packed from and unpacked to.
typedef struct ExpandedAttention {
    AttentionDims dims;
    int G;
    float scale;
    const float *qkv, *d_out;
    float *out, *lse, *d_qkv;
    const float *saved_out, *saved_lse;
} ExpandedAttention;

static TileLayout find_layout(const AttentionDims *d)
{
    return tiles_layout(d->B, d->T, d->K, d->H / d->K, false, attention_key_width(d), d->E);
}

static ExpandedAttention start(const AttentionDims *dims)
{
    return (ExpandedAttention){
        .dims = *dims, .G = dims->H / dims->K, .scale = 1.0f / sqrtf((float)dims->E)};
}

int64_t attention_scratch_bytes(const AttentionDims *dims, ComputeType compute, int n_threads,
                                bool is_training)
{
    if (compute == COMPUTE_BFLOAT16)
        return attention_bf16_scratch_bytes(dims, n_threads, is_training);
    const TileLayout layout = find_layout(dims);
    return tiles_scratch_floats(&layout, n_threads, is_training) * (int64_t)sizeof(float);
}

// Query heads of a group are neighbours, as in transformers' repeat_kv: head h reads KV head h / G.
static int query_head(const ExpandedAttention *attention, const TileHead *head, int g)
{
    return head->kv_head * attention->G + g;
}

// Forward and backward need different layouts: the tile has NULL for those that are not read.
static void pack_keys(const void *context, const TileHead *head, const KeyTile *tile)
{
    const ExpandedAttention *attention = context;
    const AttentionDims *dims = &attention->dims;
    const int E = dims->E, key_width = attention_key_width(dims), row = attention_row(dims),
              n = tile->n;
    const float *tokens = attention->qkv + (head->first_token + tile->first) * row;
    const float *k = tokens + attention_key_column(dims, head->kv_head),
                *v = tokens + attention_value_column(dims, head->kv_head);
    tiles_pack_columns(tile->k_columns, k, row, n, key_width);
    if (tile->v_columns != NULL)
        tiles_pack_columns(tile->v_columns, v, row, n, E);
    if (tile->k_rows != NULL)
        tiles_pack_rows(tile->k_rows, tile_padded(key_width), k, row, n, key_width,
                        tile_padded(key_width), 1.0f);
    if (tile->v_rows != NULL)
        tiles_pack_rows(tile->v_rows, tile_padded(E), v, row, n, E, tile_padded(E), 1.0f);
}

static void pack_queries(const void *context, const TileHead *head, const QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    const int key_width = attention_key_width(&attention->dims), ld = tile_padded(key_width),
              row = attention_row(&attention->dims), n = tile->n;
    const float *tokens = attention->qkv + (head->first_token + tile->first) * row;
    for (int g = 0; g < attention->G; g++)
        tiles_pack_rows(tile->q + (int64_t)g * n * ld, ld,
                        tokens + (int64_t)query_head(attention, head, g) * key_width, row, n,
                        key_width, ld, attention->scale);
}

// Tile rows [G n, E] -> rows of out [N, H E], and the log-sum-exp of each row [N, H].
static void unpack_output(const void *context, const TileHead *head, const QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    const int E = attention->dims.E, H = attention->dims.H, width = tile_padded(E), n = tile->n;
    const int64_t token = head->first_token + tile->first;
    for (int g = 0; g < attention->G; g++) {
        const int h = query_head(attention, head, g);
        tiles_unpack_rows(attention->out + (token * H + h) * E, (int64_t)H * E,
                          tile->out + (int64_t)g * n * width, width, n, E, 1.0f);
        for (int i = 0; i < n; i++)
            attention->lse[(token + i) * H + h] = tile->lse[g * n + i];
    }
}

// delta = sum_e out_e d_out_e per row replaces the sum over keys of p dp in the softmax's gradient
// (FlashAttention, appendix B): d_score = p (dp - delta).
static void pack_backward(const void *context, const TileHead *head, const QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    const int E = attention->dims.E, H = attention->dims.H, width = tile_padded(E), n = tile->n;
    const int64_t token = head->first_token + tile->first;
    pack_queries(context, head, tile);
    for (int g = 0; g < attention->G; g++) {
        const int h = query_head(attention, head, g);
        float *d_out = tile->out + (int64_t)g * n * width;
        tiles_pack_rows(d_out, width, attention->d_out + (token * H + h) * E, (int64_t)H * E, n, E,
                        width, 1.0f);
        for (int i = 0; i < n; i++) {
            const int64_t at = (token + i) * H + h;
            tile->lse[g * n + i] = attention->saved_lse[at];
            tile->delta[g * n + i] =
                tiles_dot(attention->saved_out + at * E, d_out + (int64_t)i * width, E);
        }
    }
}

// A KV head's keys and values belong to one work item, which has summed over the group's G query
// heads: the gradient is written, never added.
static void unpack_keys(const void *context, const TileHead *head, const float *d_k,
                        const float *d_v, int first, int n)
{
    const ExpandedAttention *attention = context;
    const AttentionDims *dims = &attention->dims;
    const int row = attention_row(dims);
    float *tokens = attention->d_qkv + (head->first_token + first) * row;
    tiles_unpack_columns(tokens + attention_key_column(dims, head->kv_head), row, d_k, n,
                         attention_key_width(dims));
    tiles_unpack_columns(tokens + attention_value_column(dims, head->kv_head), row, d_v, n,
                         dims->E);
}

// The tile's gradient is that of the scaled queries: the scale enters once more by the chain rule.
static void unpack_queries(const void *context, const TileHead *head, const QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    const int key_width = attention_key_width(&attention->dims), ld = tile_padded(key_width),
              row = attention_row(&attention->dims), n = tile->n;
    float *tokens = attention->d_qkv + (head->first_token + tile->first) * row;
    for (int g = 0; g < attention->G; g++)
        tiles_unpack_rows(tokens + (int64_t)query_head(attention, head, g) * key_width, row,
                          tile->q + (int64_t)g * n * ld, ld, n, key_width, attention->scale);
}

static const TilePacking packing = {pack_keys,     pack_queries, unpack_output,
                                    pack_backward, unpack_keys,  unpack_queries};

void attention_forward(ComputeType compute, Rows out, float *lse, Rows qkv, void *scratch,
                       const AttentionDims *dims)
{
    if (compute == COMPUTE_BFLOAT16) {
        attention_bf16_forward(out, lse, qkv, scratch, dims);
        return;
    }
    const TileLayout layout = find_layout(dims);
    ExpandedAttention attention = start(dims);
    attention.out = rows_floats(out, dims->H * dims->E);
    attention.lse = lse;
    attention.qkv = rows_floats(qkv, attention_row(dims));
    tiles_forward(&packing, &attention, scratch, &layout);
}

void attention_backward(ComputeType compute, Rows d_qkv, Rows d_out, Rows out, const float *lse,
                        Rows qkv, void *scratch, const AttentionDims *dims)
{
    if (compute == COMPUTE_BFLOAT16) {
        attention_bf16_backward(d_qkv, d_out, out, lse, qkv, scratch, dims);
        return;
    }
    const int row = attention_row(dims), width = dims->H * dims->E;
    const TileLayout layout = find_layout(dims);
    ExpandedAttention attention = start(dims);
    attention.d_qkv = rows_floats(d_qkv, row);
    attention.d_out = rows_floats(d_out, width);
    attention.saved_out = rows_floats(out, width);
    attention.saved_lse = lse;
    attention.qkv = rows_floats(qkv, row);
    tiles_backward(&packing, &attention, scratch, &layout);
}
