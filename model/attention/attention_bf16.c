// Keys and values lie expanded in the rows of tokens: packing is rounding to bfloat16, or copying
// what is rounded already.
#include "model/attention/attention_bf16.h"

#include "model/attention/attention_pack.h"
#include "model/attention/attention_tiles_bf16.h"

#include <math.h>

// The context of the callbacks below, one for both directions; rows of the other direction have no
// data.
typedef struct ExpandedAttention {
    AttentionDims dims;
    Bf16Layout layout;
    Rows qkv, out; // out: written by forward, read by backward
    Rows d_out, d_qkv;
} ExpandedAttention;

static ExpandedAttention start(const AttentionDims *d)
{
    return (ExpandedAttention){
        .dims = *d,
        .layout = bf16_layout(d->B, d->T, d->K, d->H / d->K, false, attention_key_width(d), d->E,
                              1.0f / sqrtf((float)d->E)),
    };
}

int64_t attention_bf16_scratch_bytes(const AttentionDims *dims, int n_threads, bool is_training)
{
    const ExpandedAttention attention = start(dims);
    return bf16_tiles_scratch_bytes(&attention.layout, n_threads, is_training);
}

// Of the group's query head g, in rows whose heads are `width` wide.
static int query_column(const ExpandedAttention *attention, const TileHead *head, int g, int width)
{
    return (head->kv_head * attention->layout.G + g) * width;
}

static void pack_keys(const void *context, const TileHead *head, uint16_t *k, uint16_t *v,
                      int first, int n)
{
    const ExpandedAttention *attention = context;
    const AttentionDims *dims = &attention->dims;
    const Rows tokens = rows_at(attention->qkv, head->first_token + first, 0);
    const int key_ld = attention->layout.key_ld, value_ld = attention->layout.value_ld;
    attention_pack_rows(k, key_ld, rows_at(tokens, 0, attention_key_column(dims, head->kv_head)), n,
                        attention_key_width(dims), key_ld);
    attention_pack_rows(v, value_ld,
                        rows_at(tokens, 0, attention_value_column(dims, head->kv_head)), n, dims->E,
                        value_ld);
}

// Columns of heads -> stacked rows of a tile.
static void stack_heads(const ExpandedAttention *attention, uint16_t *stacked, int ld, Rows rows,
                        int width, const TileHead *head, const Bf16QueryTile *tile)
{
    const int n = tile->n;
    for (int g = 0; g < attention->layout.G; g++)
        attention_pack_rows(
            stacked + (int64_t)g * n * ld, ld,
            rows_at(rows, head->first_token + tile->first, query_column(attention, head, g, width)),
            n, width, ld);
}

// Stacked rows of a tile -> columns of heads, times `scale`.
static void unstack_heads(const ExpandedAttention *attention, Rows rows, int width,
                          const float *stacked, int ld, const TileHead *head,
                          const Bf16QueryTile *tile, float scale)
{
    const int n = tile->n;
    for (int g = 0; g < attention->layout.G; g++)
        attention_unpack_rows(
            rows_at(rows, head->first_token + tile->first, query_column(attention, head, g, width)),
            stacked + (int64_t)g * n * ld, ld, n, width, scale);
}

static void pack_queries(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    stack_heads(attention, tile->q, attention->layout.key_ld, attention->qkv,
                attention_key_width(&attention->dims), head, tile);
}

static void unpack_output(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    unstack_heads(attention, attention->out, attention->dims.E, tile->out,
                  attention->layout.value_n, head, tile, 1.0f);
}

// delta = sum_e out_e d_out_e per row replaces the sum over keys of p dp in the softmax's gradient
// (FlashAttention, appendix B): d_score = p (dp - delta). From the numbers that products read.
static void pack_backward(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    const int E = attention->dims.E, ld = attention->layout.value_ld, n = tile->n;
    const int64_t token = head->first_token + tile->first;
    pack_queries(context, head, tile);
    stack_heads(attention, tile->d_out, ld, attention->d_out, E, head, tile);
    for (int g = 0; g < attention->layout.G; g++)
        attention_pack_dots(tile->delta + (int64_t)g * n,
                            rows_at(attention->out, token, query_column(attention, head, g, E)),
                            tile->d_out + (int64_t)g * n * ld, ld, n, E);
}

// A KV head's keys and values belong to one work item, which has summed over the group's query
// heads: the gradient is written, never added.
static void unpack_keys(const void *context, const TileHead *head, const float *d_k,
                        const float *d_v, int ld, int first, int n)
{
    const ExpandedAttention *attention = context;
    const AttentionDims *dims = &attention->dims;
    const Rows tokens = rows_at(attention->d_qkv, head->first_token + first, 0);
    attention_unpack_columns(rows_at(tokens, 0, attention_key_column(dims, head->kv_head)), d_k, ld,
                             n, attention_key_width(dims), attention->layout.scale);
    attention_unpack_columns(rows_at(tokens, 0, attention_value_column(dims, head->kv_head)), d_v,
                             ld, n, dims->E, 1.0f);
}

static void unpack_queries(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    unstack_heads(attention, attention->d_qkv, attention_key_width(&attention->dims), tile->d_q,
                  attention->layout.key_n, head, tile, attention->layout.scale);
}

static const Bf16Packing packing = {pack_keys,     pack_queries, unpack_output,
                                    pack_backward, unpack_keys,  unpack_queries};

void attention_bf16_forward(Rows out, float *lse, Rows qkv, void *scratch,
                            const AttentionDims *dims)
{
    ExpandedAttention attention = start(dims);
    attention.out = out;
    attention.qkv = qkv;
    bf16_tiles_forward(&packing, &attention, lse, scratch, &attention.layout);
}

void attention_bf16_backward(Rows d_qkv, Rows d_out, Rows out, const float *lse, Rows qkv,
                             void *scratch, const AttentionDims *dims)
{
    ExpandedAttention attention = start(dims);
    attention.d_qkv = d_qkv;
    attention.d_out = d_out;
    attention.out = out;
    attention.qkv = qkv;
    bf16_tiles_backward(&packing, &attention, lse, scratch, &attention.layout);
}
