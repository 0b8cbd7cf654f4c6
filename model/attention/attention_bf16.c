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
        .layout = bf16_layout(d->B, d->T, d->K, d->H / d->K, false, d->E, d->E,
                              1.0f / sqrtf((float)d->E)),
    };
}

int64_t attention_bf16_scratch_bytes(const AttentionDims *dims, int n_threads, bool is_training)
{
    const ExpandedAttention attention = start(dims);
    return bf16_tiles_scratch_bytes(&attention.layout, n_threads, is_training);
}

// A row of qkv is [H E queries | K E keys | K E values].
static int key_column(const ExpandedAttention *attention, const TileHead *head)
{
    return (attention->dims.H + head->kv_head) * attention->dims.E;
}

static int value_column(const ExpandedAttention *attention, const TileHead *head)
{
    return (attention->dims.H + attention->dims.K + head->kv_head) * attention->dims.E;
}

// Of the group's query head g, in rows of queries and of the output.
static int query_column(const ExpandedAttention *attention, const TileHead *head, int g)
{
    return (head->kv_head * attention->layout.G + g) * attention->dims.E;
}

static void pack_keys(const void *context, const TileHead *head, uint16_t *k, uint16_t *v,
                      int first, int n)
{
    const ExpandedAttention *attention = context;
    const int E = attention->dims.E, ld = attention->layout.key_ld;
    const int64_t token = head->first_token + first;
    attention_pack_rows(k, ld, rows_at(attention->qkv, token, key_column(attention, head)), n, E,
                        ld);
    attention_pack_rows(v, ld, rows_at(attention->qkv, token, value_column(attention, head)), n, E,
                        ld);
}

// Columns of heads -> stacked rows of a tile.
static void stack_heads(const ExpandedAttention *attention, uint16_t *stacked, Rows rows,
                        const TileHead *head, const Bf16QueryTile *tile)
{
    const int ld = attention->layout.key_ld, n = tile->n;
    for (int g = 0; g < attention->layout.G; g++)
        attention_pack_rows(
            stacked + (int64_t)g * n * ld, ld,
            rows_at(rows, head->first_token + tile->first, query_column(attention, head, g)), n,
            attention->dims.E, ld);
}

// Stacked rows of a tile -> columns of heads, times `scale`.
static void unstack_heads(const ExpandedAttention *attention, Rows rows, const float *stacked,
                          const TileHead *head, const Bf16QueryTile *tile, float scale)
{
    const int ld = attention->layout.key_n, n = tile->n;
    for (int g = 0; g < attention->layout.G; g++)
        attention_unpack_rows(
            rows_at(rows, head->first_token + tile->first, query_column(attention, head, g)),
            stacked + (int64_t)g * n * ld, ld, n, attention->dims.E, scale);
}

static void pack_queries(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    stack_heads(attention, tile->q, attention->qkv, head, tile);
}

static void unpack_output(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    unstack_heads(attention, attention->out, tile->out, head, tile, 1.0f);
}

// delta = sum_e out_e d_out_e per row replaces the sum over keys of p dp in the softmax's gradient
// (FlashAttention, appendix B): d_score = p (dp - delta). From the numbers that products read.
static void pack_backward(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    const int ld = attention->layout.value_ld, n = tile->n;
    const int64_t token = head->first_token + tile->first;
    pack_queries(context, head, tile);
    stack_heads(attention, tile->d_out, attention->d_out, head, tile);
    for (int g = 0; g < attention->layout.G; g++)
        attention_pack_dots(tile->delta + (int64_t)g * n,
                            rows_at(attention->out, token, query_column(attention, head, g)),
                            tile->d_out + (int64_t)g * n * ld, ld, n, attention->dims.E);
}

// A KV head's keys and values belong to one work item, which has summed over the group's query
// heads: the gradient is written, never added.
static void unpack_keys(const void *context, const TileHead *head, const float *d_k,
                        const float *d_v, int ld, int first, int n)
{
    const ExpandedAttention *attention = context;
    const int E = attention->dims.E;
    const int64_t token = head->first_token + first;
    attention_unpack_columns(rows_at(attention->d_qkv, token, key_column(attention, head)), d_k, ld,
                             n, E, attention->layout.scale);
    attention_unpack_columns(rows_at(attention->d_qkv, token, value_column(attention, head)), d_v,
                             ld, n, E, 1.0f);
}

static void unpack_queries(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const ExpandedAttention *attention = context;
    unstack_heads(attention, attention->d_qkv, tile->d_q, head, tile, attention->layout.scale);
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
