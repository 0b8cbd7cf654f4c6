// The query heads of a group share keys and values, so their tiles are stacked: one product of
// G * queries rows instead of G small ones.
//
// Everything a product reads is packed once per call: keys and values into tiles, transposed where
// a product reads their columns. Then threads take small work items: forward, one query tile each;
// backward, every n_key_parts-th key tile of a group, which writes the group's gradients of those
// keys and values and a partial sum of the queries'. The parts are fixed by the shape and added up
// in their order, so the bits do not depend on the number of threads.
#include "model/attention/attention_tiles.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/tile.h"
#include "model/kernels/vexp.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// Sized so that a tile of scores stays in the second cache with its operands; backward has two.
enum {
    KEYS = TILE_KEYS,
    STACKED_ROWS = 96, // of a query tile, about
    MIN_QUERIES = 16,  // positions of a query tile
    MIN_ITEMS = 8,     // of backward: work for as many threads
    QUERY_PARTS = 16,  // most parts of packing in backward
    LANES = 16         // partial sums of a row; scores come in multiples of as many columns
};

// All counts follow from the shape and none from the number of threads: they fix the order of every
// sum.
TileLayout tiles_layout(int B, int T, int K, int G, bool shares_keys, int key_width,
                        int value_width)
{
    int queries = STACKED_ROWS / G / 16 * 16;
    queries = min_int(queries < MIN_QUERIES ? MIN_QUERIES : queries, T);
    int n_query_tiles = ceil_div(T, queries), n_key_tiles = ceil_div(T, KEYS);
    return (TileLayout){
        .B = B,
        .T = T,
        .K = K,
        .G = G,
        .shares_keys = shares_keys,
        .key_width = key_width,
        .value_width = value_width,
        .key_ld = tile_padded(key_width),
        .value_ld = tile_padded(value_width),
        .queries = queries,
        .rows = G * queries,
        .n_query_tiles = n_query_tiles,
        .n_key_tiles = n_key_tiles,
        // Groups that share keys have weights of their own, and so does each of their parts.
        .n_query_parts =
            min_int(n_query_tiles, shares_keys ? ceil_div(QUERY_PARTS, K) : QUERY_PARTS),
        .n_key_parts = min_int(n_key_tiles, ceil_div(MIN_ITEMS, K)),
    };
}

// One direction's scratch. Forward packs queries tile by tile into the thread's own rows; backward
// reads a query tile once per key tile and so packs all of them beforehand.
typedef struct Scratch {
    // All threads: key tiles [B KV heads, n_key_tiles], query rows [B K, G T].
    float *k_columns, *v_columns; // v_columns: backward
    float *k_rows, *v_rows;       // k_rows: backward, v_rows: forward
    float *q, *d_out;             // backward
    float *d_q;                   // [B K, n_key_parts, G T, key_ld], backward
    float *lse, *delta;           // backward
    // Each thread its own.
    float *scores, *d_scores;   // [rows, KEYS]; d_scores: backward
    float *tile_q, *tile_out;   // [rows, ld], forward
    float *row_max;             // [rows], forward
    float *row_sums;            // [rows, LANES], forward: parts of the denominator
    float *tile_d_k, *tile_d_v; // [width, KEYS], backward
} Scratch;

static int kv_heads(const TileLayout *layout)
{
    return tiles_kv_heads(layout->shares_keys, layout->K);
}

// Places the scratch of one direction as thread `thread` of n_threads sees it; returns its length
// in floats.
static int64_t place_scratch(Scratch *s, float *scratch, const TileLayout *layout, int thread,
                             int n_threads, bool is_backward)
{
    const int64_t heads = (int64_t)layout->B * layout->K, queries = heads * layout->G * layout->T;
    const int64_t keys = (int64_t)layout->B * kv_heads(layout) * layout->n_key_tiles * KEYS,
                  scores = (int64_t)layout->rows * KEYS;
    const struct {
        float **field;
        int64_t forward, backward; // floats, 0: not there
        bool is_shared;
    } parts[] = {
        {&s->k_columns, keys * layout->key_width, keys * layout->key_width, true},
        {&s->v_columns, 0, keys * layout->value_width, true},
        {&s->k_rows, 0, keys * layout->key_ld, true},
        {&s->v_rows, keys * layout->value_ld, 0, true},
        {&s->q, 0, queries * layout->key_ld, true},
        {&s->d_out, 0, queries * layout->value_ld, true},
        {&s->lse, 0, queries, true},
        {&s->delta, 0, queries, true},
        {&s->d_q, 0, layout->n_key_parts * queries * layout->key_ld, true},
        {&s->scores, scores, scores, false},
        {&s->d_scores, 0, scores, false},
        {&s->tile_q, (int64_t)layout->rows * layout->key_ld, 0, false},
        {&s->tile_out, (int64_t)layout->rows * layout->value_ld, 0, false},
        {&s->row_max, layout->rows, 0, false},
        {&s->row_sums, (int64_t)layout->rows * LANES, 0, false},
        {&s->tile_d_k, 0, (int64_t)KEYS * layout->key_width, false},
        {&s->tile_d_v, 0, (int64_t)KEYS * layout->value_width, false},
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

int64_t tiles_scratch_floats(const TileLayout *layout, int n_threads, bool is_training)
{
    Scratch s;
    int64_t forward = place_scratch(&s, NULL, layout, 0, n_threads, false);
    int64_t backward = is_training ? place_scratch(&s, NULL, layout, 0, n_threads, true) : 0;
    return max_int64(forward, backward);
}

// Packing rows: contiguous in and out, zeros in the padding so that products of whole vectors add
// nothing.
HOT void tiles_pack_rows(float *restrict packed, int ld, const float *restrict strided, int64_t row,
                         int n, int width, int end, float scale)
{
    for (int i = 0; i < n; i++) {
        for (int e = 0; e < width; e++)
            packed[(int64_t)i * ld + e] = scale * strided[i * row + e];
        for (int e = width; e < end; e++)
            packed[(int64_t)i * ld + e] = 0;
    }
}

// A transpose. The inner loop writes contiguously and reads with a stride: a tile's rows stay in
// the first cache over consecutive e.
HOT void tiles_pack_columns(float *restrict packed, const float *restrict strided, int64_t row,
                            int n, int width)
{
    for (int e = 0; e < width; e++) {
        for (int i = 0; i < n; i++)
            packed[(int64_t)e * KEYS + i] = strided[i * row + e];
        for (int i = n; i < KEYS; i++)
            packed[(int64_t)e * KEYS + i] = 0;
    }
}

HOT void tiles_unpack_rows(float *restrict strided, int64_t row, const float *restrict packed,
                           int ld, int n, int width, float scale)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            strided[i * row + e] = scale * packed[(int64_t)i * ld + e];
}

HOT void tiles_unpack_columns(float *restrict strided, int64_t row, const float *restrict packed,
                              int n, int width)
{
    for (int i = 0; i < n; i++)
        for (int e = 0; e < width; e++)
            strided[i * row + e] = packed[(int64_t)e * KEYS + i];
}

// Partial sums of a vector's lanes: the order depends on the instruction set, not on threads.
HOT float tiles_dot(const float *restrict a, const float *restrict b, int count)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

static float *part_of(float *all, int64_t offset)
{
    return all != NULL ? all + offset : NULL;
}

// Tile i of the keys that a group reads, or of a KV head.
static KeyTile key_tile(const Scratch *s, const TileLayout *layout, const TileHead *head, int i)
{
    const int64_t kv_head = layout->shares_keys ? head->first_token / layout->T : head->index;
    const int64_t keys = (kv_head * layout->n_key_tiles + i) * KEYS;
    return (KeyTile){
        .k_columns = part_of(s->k_columns, keys * layout->key_width),
        .v_columns = part_of(s->v_columns, keys * layout->value_width),
        .k_rows = part_of(s->k_rows, keys * layout->key_ld),
        .v_rows = part_of(s->v_rows, keys * layout->value_ld),
        .first = i * KEYS,
        .n = min_int(KEYS, layout->T - i * KEYS),
    };
}

// All key tiles, divided among the threads of a parallel region. No barrier at the end.
static void pack_keys(const TilePacking *packing, const void *context, const Scratch *s,
                      const TileLayout *layout)
{
#pragma omp for collapse(2) schedule(static) nowait
    for (int h = 0; h < layout->B * kv_heads(layout); h++)
        for (int i = 0; i < layout->n_key_tiles; i++) {
            const TileHead head = tile_head(h, kv_heads(layout), layout->T);
            const KeyTile tile = key_tile(s, layout, &head, i);
            packing->pack_keys(context, &head, &tile);
        }
}

// How many keys of a tile row r of a stacked query tile sees: the causal mask.
static inline int visible_keys(int r, int n, int keys, int q0, int k0)
{
    const int visible = min_int(q0 + r % n - k0 + 1, keys);
    return visible > 0 ? visible : 0;
}

static inline void fill(float *values, int first, int end, float value)
{
    for (int j = first; j < end; j++)
        values[j] = value;
}

// Scores -> unnormalized probabilities, added to `sums` lane by lane. count: a multiple of LANES.
static inline void exponentiate(float *restrict s, float *restrict sums, int count, float max)
{
    float lanes[LANES] = {0};
    for (int j = 0; j < count; j += LANES)
#pragma omp simd
        for (int l = 0; l < LANES; l++) {
            s[j + l] = vexp_to_88(s[j + l] - max);
            lanes[l] += s[j + l];
        }
    for (int l = 0; l < LANES; l++)
        sums[l] += lanes[l];
}

// Online softmax of one tile: turns scores into probabilities relative to the rows' running maxima,
// masked ones 0, and rescales what the earlier tiles left in out and row_sums.
HOT static void softmax_tile(float *restrict scores, float *restrict out, float *restrict row_max,
                             float *restrict row_sums, int rows, int n, int keys, int width, int q0,
                             int k0)
{
    for (int r = 0; r < rows; r++) {
        float *s = scores + (int64_t)r * KEYS, *sums = row_sums + (int64_t)r * LANES;
        const int visible = visible_keys(r, n, keys, q0, k0);
        const int whole = round_up(visible, LANES);
        fill(s, visible, whole, -INFINITY);
        float max = -INFINITY;
#pragma omp simd reduction(max : max)
        for (int j = 0; j < whole; j++)
            max = s[j] > max ? s[j] : max;
        // Rescaling only where the maximum grew, which in later tiles is rare. For the first tile
        // the old maximum is -inf and shrink = 0, on zeros.
        if (max > row_max[r]) {
            const float shrink = vexp(row_max[r] - max);
            row_max[r] = max;
            for (int l = 0; l < LANES; l++)
                sums[l] *= shrink;
#pragma omp simd
            for (int e = 0; e < width; e++)
                out[(int64_t)r * width + e] *= shrink;
        }
        // A row whose keys are all masked keeps its maximum and adds nothing (whole is 0).
        exponentiate(s, sums, whole, row_max[r]);
        fill(s, whole, keys, 0);
    }
}

// Divides the output by the softmax's denominator; row_max becomes the log-sum-exp.
HOT static void normalize_tile(const Scratch *s, int rows, int ld)
{
    for (int r = 0; r < rows; r++) {
        const float *sums = s->row_sums + (int64_t)r * LANES;
        float sum = 0, *out = s->tile_out + (int64_t)r * ld;
        for (int l = 0; l < LANES; l++)
            sum += sums[l];
        const float inverse = 1.0f / sum;
        for (int e = 0; e < ld; e++)
            out[e] *= inverse;
        s->row_max[r] += logf(sum);
    }
}

// One query tile against the key tiles up to its last position, in one pass (online softmax;
// Milakov and Gimelshein, arXiv 1805.02867).
static void forward_tile(const TilePacking *packing, const void *context, const Scratch *s,
                         const TileLayout *layout, const TileHead *head, int q0)
{
    const int n = min_int(layout->queries, layout->T - q0), rows = layout->G * n;
    const QueryTile tile = {
        .q = s->tile_q, .out = s->tile_out, .lse = s->row_max, .first = q0, .n = n};
    packing->pack_queries(context, head, &tile);
    memset(s->tile_out, 0, (size_t)rows * (size_t)layout->value_ld * sizeof(float));
    memset(s->row_sums, 0, (size_t)rows * LANES * sizeof(float));
    fill(s->row_max, 0, rows, -INFINITY);
    for (int k0 = 0; k0 < q0 + n; k0 += KEYS) {
        const int keys = min_int(KEYS, q0 + n - k0);
        const KeyTile key = key_tile(s, layout, head, k0 / KEYS);
        tile_multiply(s->scores, KEYS, s->tile_q, layout->key_ld, key.k_columns, KEYS, rows, keys,
                      layout->key_width, false);
        softmax_tile(s->scores, s->tile_out, s->row_max, s->row_sums, rows, n, keys,
                     layout->value_ld, q0, k0);
        tile_multiply(s->tile_out, layout->value_ld, s->scores, KEYS, key.v_rows, layout->value_ld,
                      rows, layout->value_width, keys, true);
    }
    normalize_tile(s, rows, layout->value_ld);
    packing->unpack_output(context, head, &tile);
}

void tiles_forward(const TilePacking *packing, const void *context, float *scratch,
                   const TileLayout *layout)
{
    const int n_heads = layout->B * layout->K;
#pragma omp parallel
    {
        Scratch s;
        place_scratch(&s, scratch, layout, omp_get_thread_num(), omp_get_num_threads(), false);
        pack_keys(packing, context, &s, layout);
#pragma omp barrier
#pragma omp for collapse(2) schedule(dynamic)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < layout->n_query_tiles; i++) {
                const TileHead head = tile_head(h, layout->K, layout->T);
                // The last tiles see the most keys: start with them.
                forward_tile(packing, context, &s, layout, &head,
                             (layout->n_query_tiles - 1 - i) * layout->queries);
            }
    }
}

// scores -> probabilities, d_scores -> gradient of the scaled scores.
HOT static void softmax_backward_tile(float *restrict scores, float *restrict d_scores,
                                      const float *restrict lse, const float *restrict delta,
                                      int rows, int n, int keys, int q0, int k0)
{
    for (int r = 0; r < rows; r++) {
        float *s = scores + (int64_t)r * KEYS, *ds = d_scores + (int64_t)r * KEYS;
        const int visible = visible_keys(r, n, keys, q0, k0);
        const int whole = round_up(visible, LANES);
        const float row_lse = lse[r], row_delta = delta[r];
#pragma omp simd
        for (int j = 0; j < whole; j++) {
            s[j] = vexp_to_88(s[j] - row_lse);
            // d_score = p (dp - delta), with delta = out . d_out.
            ds[j] = s[j] * (ds[j] - row_delta);
        }
        fill(s, visible, keys, 0);
        fill(ds, visible, keys, 0);
    }
}

// The rows of q0's tile, of part 0 of their gradient if `is_gradient`.
static QueryTile query_tile(const Scratch *s, const TileLayout *layout, const TileHead *head,
                            int q0, bool is_gradient)
{
    const int64_t group = (int64_t)layout->G * layout->T;
    const int64_t rows = head->index * group + (int64_t)layout->G * q0;
    const int64_t d_rows = head->index * layout->n_key_parts * group + (int64_t)layout->G * q0;
    return (QueryTile){
        .q = is_gradient ? s->d_q + d_rows * layout->key_ld : s->q + rows * layout->key_ld,
        .out = s->d_out + rows * layout->value_ld,
        .lse = s->lse + rows,
        .delta = s->delta + rows,
        .first = q0,
        .n = min_int(layout->queries, layout->T - q0),
    };
}

// Five products per pair of tiles: S = Q K^T, dP = dO V^T, dV += P^T dO, dK += dS^T Q, dQ = dS K. P
// is computed again from the saved log-sum-exp, so forward keeps no probabilities.
static void backward_key_tile(const TilePacking *packing, const void *context, const Scratch *s,
                              const TileLayout *layout, const TileHead *head, int i)
{
    const int key_ld = layout->key_ld, value_ld = layout->value_ld, part = i % layout->n_key_parts;
    const KeyTile key = key_tile(s, layout, head, i);
    memset(s->tile_d_k, 0, (size_t)KEYS * (size_t)layout->key_width * sizeof(float));
    memset(s->tile_d_v, 0, (size_t)KEYS * (size_t)layout->value_width * sizeof(float));
    for (int q0 = key.first / layout->queries * layout->queries; q0 < layout->T;
         q0 += layout->queries) {
        const QueryTile tile = query_tile(s, layout, head, q0, false);
        float *d_q = query_tile(s, layout, head, q0, true).q +
                     part * (int64_t)layout->G * layout->T * key_ld;
        const int rows = layout->G * tile.n, keys = min_int(KEYS, q0 + tile.n - key.first);
        tile_multiply(s->scores, KEYS, tile.q, key_ld, key.k_columns, KEYS, rows, keys,
                      layout->key_width, false);
        tile_multiply(s->d_scores, KEYS, tile.out, value_ld, key.v_columns, KEYS, rows, keys,
                      layout->value_width, false);
        softmax_backward_tile(s->scores, s->d_scores, tile.lse, tile.delta, rows, tile.n, keys, q0,
                              key.first);
        tile_multiply_transposed(s->tile_d_v, KEYS, tile.out, value_ld, s->scores, KEYS,
                                 layout->value_width, keys, rows, true);
        tile_multiply_transposed(s->tile_d_k, KEYS, tile.q, key_ld, s->d_scores, KEYS,
                                 layout->key_width, keys, rows, true);
        // Key tiles i, i + n_key_parts, ... add to the same part: the first of them writes it.
        tile_multiply(d_q, key_ld, s->d_scores, KEYS, key.k_rows, key_ld, rows, layout->key_width,
                      keys, i >= layout->n_key_parts);
    }
    packing->unpack_keys(context, head, s->tile_d_k, s->tile_d_v, key.first, key.n);
}

// Adds the parts of a query tile's gradient up in the first. Part p exists if the tile sees key
// tile p.
HOT static void sum_key_parts(float *restrict d_q, const TileLayout *layout, const QueryTile *tile)
{
    const int n_parts = min_int(layout->n_key_parts, ceil_div(tile->first + tile->n, KEYS));
    const int64_t count = (int64_t)layout->G * tile->n * layout->key_ld;
    for (int p = 1; p < n_parts; p++) {
        const float *from = d_q + p * (int64_t)layout->G * layout->T * layout->key_ld;
        for (int64_t i = 0; i < count; i++)
            d_q[i] += from[i];
    }
}

// All query tiles of a part: on the way in, or with their gradient on the way out.
static void run_query_part(const TilePacking *packing, const void *context, const Scratch *s,
                           const TileLayout *layout, int h, int part, bool is_gradient)
{
    const TileHead head = tile_head(h, layout->K, layout->T);
    const int first = (int)((int64_t)part * layout->n_query_tiles / layout->n_query_parts);
    const int end = (int)((int64_t)(part + 1) * layout->n_query_tiles / layout->n_query_parts);
    for (int i = first; i < end; i++) {
        QueryTile tile = query_tile(s, layout, &head, i * layout->queries, is_gradient);
        tile.part = part;
        tile.starts_part = i == first;
        if (is_gradient) {
            sum_key_parts(tile.q, layout, &tile);
            packing->unpack_queries(context, &head, &tile);
        } else {
            packing->pack_backward(context, &head, &tile);
        }
    }
}

void tiles_backward(const TilePacking *packing, const void *context, float *scratch,
                    const TileLayout *layout)
{
    const int n_heads = layout->B * layout->K;
#pragma omp parallel
    {
        Scratch s;
        place_scratch(&s, scratch, layout, omp_get_thread_num(), omp_get_num_threads(), true);
        pack_keys(packing, context, &s, layout);
// Packing of the keys has no barrier: this loop does not read them, and its end is one for both.
#pragma omp for collapse(2) schedule(static)
        for (int h = 0; h < n_heads; h++)
            for (int part = 0; part < layout->n_query_parts; part++)
                run_query_part(packing, context, &s, layout, h, part, false);
#pragma omp for collapse(2) schedule(dynamic)
        for (int h = 0; h < n_heads; h++)
            for (int part = 0; part < layout->n_key_parts; part++) {
                const TileHead head = tile_head(h, layout->K, layout->T);
                for (int i = part; i < layout->n_key_tiles; i += layout->n_key_parts)
                    backward_key_tile(packing, context, &s, layout, &head, i);
            }
#pragma omp for collapse(2) schedule(static)
        for (int h = 0; h < n_heads; h++)
            for (int part = 0; part < layout->n_query_parts; part++)
                run_query_part(packing, context, &s, layout, h, part, true);
    }
}
