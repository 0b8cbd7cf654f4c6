// The query heads of a group share keys and values, so their tiles are stacked: one product of
// G * queries rows instead of G small ones. Row r of a stacked tile is head r / n of the group at
// position q0 + r % n, where n is the number of positions in the tile. Queries are scaled by
// 1 / sqrt(E) as they are packed.
//
// Everything a product reads is packed once per call: keys and values into tiles, transposed where
// a product wants their columns. Both directions then share out small items: forward query tiles;
// backward every n_parts-th key tile of a KV head, which writes its own keys' and values' gradients
// and its part of the queries'. The parts are fixed by the shape and added up in their order, so
// the bits do not depend on the number of threads.
#include "model/attention.h"

#include "base/simd.h"
#include "base/whole.h"
#include "model/tile.h"
#include "model/vexp.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// Tiles of scores lie in the second cache with what they are made of; backward has two of them.
enum { KEYS = 192, STACKED_ROWS = 96, LEAST_QUERIES = 16, LEAST_ITEMS = 8 };

typedef struct Layout {
    AttentionDims dims;
    int G, width;      // heads of a group; floats of a packed row: E and padding
    int queries, rows; // positions of a query tile; its stacked rows
    int n_query_tiles, n_key_tiles;
    int n_parts;        // backward
    int row, out_row;   // floats of a token in qkv and in out
    int64_t key_tile;   // floats of a packed tile of keys or values
    int64_t group_rows; // floats of all packed query rows of a KV head
} Layout;

static Layout find_layout(const AttentionDims *d)
{
    int G = d->H / d->K, queries = STACKED_ROWS / G / 16 * 16;
    queries = queries < LEAST_QUERIES ? LEAST_QUERIES : queries;
    queries = whole_min(queries, d->T);
    int width = tile_padded(d->E), n_key_tiles = whole_divide_up(d->T, KEYS);
    return (Layout){
        .dims = *d,
        .G = G,
        .width = width,
        .queries = queries,
        .rows = G * queries,
        .n_query_tiles = whole_divide_up(d->T, queries),
        .n_key_tiles = n_key_tiles,
        .n_parts = whole_min(n_key_tiles, whole_divide_up(LEAST_ITEMS, d->K)),
        .row = attention_row(d),
        .out_row = d->H * d->E,
        .key_tile = (int64_t)KEYS * width,
        .group_rows = (int64_t)G * d->T * width,
    };
}

typedef struct Scratch {
    // All threads: key tiles [B K, n_key_tiles], query rows [B K, G T].
    float *k_columns, *v_columns; // tiles [E, KEYS]; v_columns: backward
    float *k_rows, *v_rows;       // tiles [KEYS, width]; k_rows: backward, v_rows: forward
    float *q, *d_out;             // [width] each row, backward
    float *d_q;                   // [B K, n_parts, G T, width], backward
    float *lse, *delta;           // backward; delta: sum of d_out * out
    // Each thread its own.
    float *scores, *d_scores; // [rows, KEYS]; d_scores: backward
    float *tile_q, *tile_out; // [rows, width], forward
    float *row_max, *row_sum; // [rows], forward
    float *tile_dk, *tile_dv; // [KEYS, width], backward
} Scratch;

// Lays the scratch of one direction out as thread `thread` of n_threads sees it; returns its length
// in floats.
static int64_t place_scratch(Scratch *s, float *scratch, const Layout *x, int thread, int n_threads,
                             bool is_backward)
{
    int64_t heads = (int64_t)x->dims.B * x->dims.K, keys = heads * x->n_key_tiles * x->key_tile;
    int64_t all_rows = heads * x->group_rows, all_queries = heads * x->G * x->dims.T;
    int64_t scores = (int64_t)x->rows * KEYS, tile_rows = (int64_t)x->rows * x->width;
    const struct {
        float **field;
        int64_t forward, backward; // floats, 0: not there
        bool is_shared;
    } parts[] = {
        {&s->k_columns, keys, keys, true},
        {&s->v_columns, 0, keys, true},
        {&s->k_rows, 0, keys, true},
        {&s->v_rows, keys, 0, true},
        {&s->q, 0, all_rows, true},
        {&s->d_out, 0, all_rows, true},
        {&s->lse, 0, all_queries, true},
        {&s->delta, 0, all_queries, true},
        {&s->d_q, 0, x->n_parts * all_rows, true},
        {&s->scores, scores, scores, false},
        {&s->d_scores, 0, scores, false},
        {&s->tile_q, tile_rows, 0, false},
        {&s->tile_out, tile_rows, 0, false},
        {&s->row_max, x->rows, 0, false},
        {&s->row_sum, x->rows, 0, false},
        {&s->tile_dk, 0, x->key_tile, false},
        {&s->tile_dv, 0, x->key_tile, false},
    };
    int64_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        int64_t count = is_backward ? parts[i].backward : parts[i].forward;
        int64_t padded = (count + 15) / 16 * 16; // whole cache lines
        *parts[i].field = NULL;
        if (scratch != NULL && count > 0)
            *parts[i].field = scratch + used + (parts[i].is_shared ? 0 : thread * padded);
        used += padded * (parts[i].is_shared ? 1 : n_threads);
    }
    return used;
}

int64_t attention_scratch_floats(const AttentionDims *dims, int n_threads, bool is_training)
{
    const Layout x = find_layout(dims);
    Scratch s;
    int64_t forward = place_scratch(&s, NULL, &x, 0, n_threads, false);
    int64_t backward = is_training ? place_scratch(&s, NULL, &x, 0, n_threads, true) : 0;
    return forward > backward ? forward : backward;
}

// Rows of n tokens -> rows of a tile, times `scale`.
HOT static void pack_rows(float *restrict packed, const float *restrict strided, int64_t row, int n,
                          const Layout *x, float scale)
{
    int E = x->dims.E, width = x->width;
    for (int i = 0; i < n; i++) {
        for (int e = 0; e < E; e++)
            packed[(int64_t)i * width + e] = scale * strided[i * row + e];
        for (int e = E; e < width; e++)
            packed[(int64_t)i * width + e] = 0;
    }
}

// Rows of n tokens -> columns of a tile [E, KEYS].
HOT static void pack_columns(float *restrict packed, const float *restrict strided, int64_t row,
                             int n, const Layout *x)
{
    for (int e = 0; e < x->dims.E; e++) {
        for (int i = 0; i < n; i++)
            packed[(int64_t)e * KEYS + i] = strided[i * row + e];
        for (int i = n; i < KEYS; i++)
            packed[(int64_t)e * KEYS + i] = 0;
    }
}

// Packs the group's heads of the query tile at q0, head under head.
static void pack_group(float *packed, const float *heads, int64_t row, int n, const Layout *x,
                       float scale)
{
    for (int g = 0; g < x->G; g++)
        pack_rows(packed + (int64_t)g * n * x->width, heads + (int64_t)g * x->dims.E, row, n, x,
                  scale);
}

// What an item works on: a KV head of a sequence.
typedef struct Head {
    int64_t index;       // of B K
    int64_t first_token; // of N
    int64_t q, k, v;     // its columns in a row of qkv; q: the group's first head
    int64_t lse;         // the group's first column of lse
    int64_t out;         // and of out
} Head;

static Head find_head(const Layout *x, int index)
{
    const AttentionDims *d = &x->dims;
    int64_t kv_head = index % d->K;
    return (Head){
        .index = index,
        .first_token = (int64_t)(index / d->K) * d->T,
        .q = kv_head * x->G * d->E,
        .k = (d->H + kv_head) * d->E,
        .v = (d->H + d->K + kv_head) * d->E,
        .lse = kv_head * x->G,
        .out = kv_head * x->G * d->E,
    };
}

static int64_t key_tile_at(const Layout *x, const Head *head, int i)
{
    return (head->index * x->n_key_tiles + i) * x->key_tile;
}

static void pack_key_tile(const Scratch *s, const float *qkv, const Layout *x, const Head *head,
                          int i, bool is_backward)
{
    int n = whole_min(KEYS, x->dims.T - i * KEYS);
    int64_t at = key_tile_at(x, head, i);
    const float *tokens = qkv + (head->first_token + (int64_t)i * KEYS) * x->row;
    pack_columns(s->k_columns + at, tokens + head->k, x->row, n, x);
    if (is_backward) {
        pack_columns(s->v_columns + at, tokens + head->v, x->row, n, x);
        pack_rows(s->k_rows + at, tokens + head->k, x->row, n, x, 1.0f);
    } else {
        pack_rows(s->v_rows + at, tokens + head->v, x->row, n, x, 1.0f);
    }
}

// One row of a score tile -> unnormalized probabilities, masked ones 0; returns their sum.
static inline float exponentiate_row(float *restrict s, int visible, int keys, float max)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < visible; j++) {
        s[j] = vexp(s[j] - max);
        sum += s[j];
    }
    for (int j = visible; j < keys; j++)
        s[j] = 0;
    return sum;
}

// Online softmax of one tile: turns scores into probabilities relative to the rows' running maxima
// and rescales what the earlier tiles left in out and row_sum.
HOT static void softmax_tile(float *restrict scores, float *restrict out, float *restrict row_max,
                             float *restrict row_sum, int rows, int n, int keys, int width, int q0,
                             int k0)
{
    for (int r = 0; r < rows; r++) {
        float *s = scores + (int64_t)r * KEYS;
        int visible = q0 + r % n - k0 + 1;
        visible = visible < keys ? visible : keys;
        float max = -INFINITY;
#pragma omp simd reduction(max : max)
        for (int j = 0; j < visible; j++)
            max = s[j] > max ? s[j] : max;
        if (max > row_max[r]) {
            float shrink = vexp(row_max[r] - max);
            row_max[r] = max;
            row_sum[r] *= shrink;
#pragma omp simd
            for (int e = 0; e < width; e++)
                out[(int64_t)r * width + e] *= shrink;
        }
        row_sum[r] += exponentiate_row(s, visible > 0 ? visible : 0, keys, row_max[r]);
    }
}

HOT static void finish_tile(float *out, float *lse, const Scratch *s, const Layout *x, int n)
{
    int E = x->dims.E;
    for (int r = 0; r < x->G * n; r++) {
        float inverse = 1.0f / s->row_sum[r];
        const float *from = s->tile_out + (int64_t)r * x->width;
        float *to = out + (int64_t)(r % n) * x->out_row + (int64_t)(r / n) * E;
        for (int e = 0; e < E; e++)
            to[e] = from[e] * inverse;
        lse[(int64_t)(r % n) * x->dims.H + r / n] = s->row_max[r] + logf(s->row_sum[r]);
    }
}

static void forward_tile(float *out, float *lse, const float *qkv, const Scratch *s,
                         const Layout *x, const Head *head, int q0)
{
    int n = whole_min(x->queries, x->dims.T - q0), rows = x->G * n;
    int64_t token = head->first_token + q0;
    pack_group(s->tile_q, qkv + token * x->row + head->q, x->row, n, x,
               1.0f / sqrtf((float)x->dims.E));
    memset(s->tile_out, 0, (size_t)rows * (size_t)x->width * sizeof(float));
    for (int r = 0; r < rows; r++) {
        s->row_max[r] = -INFINITY;
        s->row_sum[r] = 0;
    }
    for (int k0 = 0; k0 < q0 + n; k0 += KEYS) {
        int keys = whole_min(KEYS, q0 + n - k0);
        int64_t at = key_tile_at(x, head, k0 / KEYS);
        tile_multiply(s->scores, KEYS, s->tile_q, x->width, s->k_columns + at, KEYS, rows, keys,
                      x->dims.E, false);
        softmax_tile(s->scores, s->tile_out, s->row_max, s->row_sum, rows, n, keys, x->width, q0,
                     k0);
        tile_multiply(s->tile_out, x->width, s->scores, KEYS, s->v_rows + at, x->width, rows,
                      x->dims.E, keys, true);
    }
    finish_tile(out + token * x->out_row + head->out, lse + token * x->dims.H + head->lse, s, x, n);
}

void attention_forward(float *out, float *lse, const float *qkv, float *scratch,
                       const AttentionDims *dims)
{
    const Layout x = find_layout(dims);
    int n_heads = dims->B * dims->K;
#pragma omp parallel
    {
        Scratch s;
        place_scratch(&s, scratch, &x, omp_get_thread_num(), omp_get_num_threads(), false);
#pragma omp for collapse(2) schedule(static)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < x.n_key_tiles; i++) {
                Head head = find_head(&x, h);
                pack_key_tile(&s, qkv, &x, &head, i, false);
            }
#pragma omp for collapse(2) schedule(dynamic)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < x.n_query_tiles; i++) {
                Head head = find_head(&x, h);
                // The last tiles see the most keys: start with them.
                forward_tile(out, lse, qkv, &s, &x, &head, (x.n_query_tiles - 1 - i) * x.queries);
            }
    }
}

HOT static float dot(const float *restrict a, const float *restrict b, int count)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

// Packs the group's queries and output gradients of one query tile, with lse and delta beside them.
static void pack_query_tile(const Scratch *s, const float *d_out, const float *out,
                            const float *lse, const float *qkv, const Layout *x, const Head *head,
                            int q0)
{
    int n = whole_min(x->queries, x->dims.T - q0), E = x->dims.E, H = x->dims.H;
    int64_t token = head->first_token + q0, stacked = (int64_t)x->G * q0;
    int64_t at = head->index * x->group_rows + stacked * x->width;
    int64_t at_row = head->index * x->G * x->dims.T + stacked;
    pack_group(s->q + at, qkv + token * x->row + head->q, x->row, n, x, 1.0f / sqrtf((float)E));
    pack_group(s->d_out + at, d_out + token * x->out_row + head->out, x->out_row, n, x, 1.0f);
    for (int r = 0; r < x->G * n; r++) {
        const float *o = out + (token + r % n) * x->out_row + head->out + (int64_t)(r / n) * E;
        const float *g = s->d_out + at + (int64_t)r * x->width;
        s->delta[at_row + r] = dot(o, g, E);
        s->lse[at_row + r] = lse[(token + r % n) * H + head->lse + r / n];
    }
}

// scores -> probabilities, d_scores -> gradient of the scaled scores.
HOT static void softmax_backward_tile(float *restrict scores, float *restrict d_scores,
                                      const float *restrict lse, const float *restrict delta,
                                      int rows, int n, int keys, int q0, int k0)
{
    for (int r = 0; r < rows; r++) {
        float *s = scores + (int64_t)r * KEYS, *ds = d_scores + (int64_t)r * KEYS;
        int visible = q0 + r % n - k0 + 1;
        visible = visible < keys ? visible : keys;
        visible = visible > 0 ? visible : 0;
        float row_lse = lse[r], row_delta = delta[r];
#pragma omp simd
        for (int j = 0; j < visible; j++) {
            s[j] = vexp(s[j] - row_lse);
            ds[j] = s[j] * (ds[j] - row_delta);
        }
        for (int j = visible; j < keys; j++)
            s[j] = ds[j] = 0;
    }
}

static void unpack_rows(float *strided, const float *packed, int64_t row, int n, const Layout *x)
{
    for (int i = 0; i < n; i++)
        memcpy(strided + i * row, packed + (int64_t)i * x->width,
               (size_t)x->dims.E * sizeof(float));
}

// One tile of keys against all query tiles that see it.
static void backward_key_tile(float *d_qkv, const Scratch *s, const Layout *x, const Head *head,
                              int i)
{
    int k0 = i * KEYS, T = x->dims.T, E = x->dims.E, width = x->width;
    int64_t at = key_tile_at(x, head, i), all = head->index * x->group_rows;
    float *d_q = s->d_q + all * x->n_parts + i % x->n_parts * x->group_rows;
    memset(s->tile_dk, 0, (size_t)x->key_tile * sizeof(float));
    memset(s->tile_dv, 0, (size_t)x->key_tile * sizeof(float));
    for (int q0 = k0 / x->queries * x->queries; q0 < T; q0 += x->queries) {
        int n = whole_min(x->queries, T - q0), rows = x->G * n, keys = whole_min(KEYS, q0 + n - k0);
        int64_t stacked = (int64_t)x->G * q0, rows_at = head->index * x->G * T + stacked;
        const float *q = s->q + all + stacked * width, *d_out = s->d_out + all + stacked * width;
        tile_multiply(s->scores, KEYS, q, width, s->k_columns + at, KEYS, rows, keys, E, false);
        tile_multiply(s->d_scores, KEYS, d_out, width, s->v_columns + at, KEYS, rows, keys, E,
                      false);
        softmax_backward_tile(s->scores, s->d_scores, s->lse + rows_at, s->delta + rows_at, rows, n,
                              keys, q0, k0);
        tile_multiply_transposed(s->tile_dv, width, s->scores, KEYS, d_out, width, keys, E, rows,
                                 true);
        tile_multiply_transposed(s->tile_dk, width, s->d_scores, KEYS, q, width, keys, E, rows,
                                 true);
        tile_multiply(d_q + stacked * width, width, s->d_scores, KEYS, s->k_rows + at, width, rows,
                      E, keys, i >= x->n_parts);
    }
    int n = whole_min(KEYS, T - k0);
    float *tokens = d_qkv + (head->first_token + k0) * x->row;
    unpack_rows(tokens + head->k, s->tile_dk, x->row, n, x);
    unpack_rows(tokens + head->v, s->tile_dv, x->row, n, x);
}

// Adds up the parts of a query tile's gradient. Part p exists if the tile sees key tile p.
HOT static void finish_query_tile(float *d_qkv, const Scratch *s, const Layout *x, const Head *head,
                                  int q0)
{
    int n = whole_min(x->queries, x->dims.T - q0), E = x->dims.E, width = x->width;
    int n_parts = whole_min(x->n_parts, whole_divide_up(q0 + n, KEYS));
    float scale = 1.0f / sqrtf((float)E);
    const float *d_q =
        s->d_q + head->index * x->group_rows * x->n_parts + (int64_t)x->G * q0 * width;
    for (int r = 0; r < x->G * n; r++) {
        float *to =
            d_qkv + (head->first_token + q0 + r % n) * x->row + head->q + (int64_t)(r / n) * E;
        const float *from = d_q + (int64_t)r * width;
        for (int e = 0; e < E; e++)
            to[e] = from[e] * scale;
        for (int p = 1; p < n_parts; p++)
            for (int e = 0; e < E; e++)
                to[e] += from[p * x->group_rows + e] * scale;
    }
}

void attention_backward(float *d_qkv, const float *d_out, const float *out, const float *lse,
                        const float *qkv, float *scratch, const AttentionDims *dims)
{
    const Layout x = find_layout(dims);
    int n_heads = dims->B * dims->K;
#pragma omp parallel
    {
        Scratch s;
        place_scratch(&s, scratch, &x, omp_get_thread_num(), omp_get_num_threads(), true);
#pragma omp for collapse(2) schedule(static) nowait
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < x.n_key_tiles; i++) {
                Head head = find_head(&x, h);
                pack_key_tile(&s, qkv, &x, &head, i, true);
            }
#pragma omp for collapse(2) schedule(static)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < x.n_query_tiles; i++) {
                Head head = find_head(&x, h);
                pack_query_tile(&s, d_out, out, lse, qkv, &x, &head, i * x.queries);
            }
#pragma omp for collapse(2) schedule(dynamic)
        for (int h = 0; h < n_heads; h++)
            for (int part = 0; part < x.n_parts; part++) {
                Head head = find_head(&x, h);
                for (int i = part; i < x.n_key_tiles; i += x.n_parts)
                    backward_key_tile(d_qkv, &s, &x, &head, i);
            }
#pragma omp for collapse(2) schedule(static)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < x.n_query_tiles; i++) {
                Head head = find_head(&x, h);
                finish_query_tile(d_qkv, &s, &x, &head, i * x.queries);
            }
    }
}
