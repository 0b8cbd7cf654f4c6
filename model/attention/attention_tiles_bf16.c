// Work items and their order are those of attention_tiles.c, and as there they are fixed by the
// shape: the bits do not depend on the number of threads.
//
// A product reads its first operand as rows and its second as panels that interleave two rows of
// its depth (model/kernels/tile_bf16.h). Keys and values are packed as panels of either direction,
// queries and the output's gradient as rows and as transposed rows. Scores have queries as rows.
// Then probabilities and their gradients are panels of dV^T += dO^T P and dK^T += Q^T dS and rows
// of dQ += dS K, and the softmax writes both without a transpose.
#include "model/attention/attention_tiles_bf16.h"

#include "base/arena.h"
#include "base/intmath.h"
#include "base/simd.h"
#include "model/attention/attention_softmax.h"
#include "model/kernels/tile_bf16.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// A key tile's gradients stay in the second cache with its keys and values while all queries pass:
// the more keys, the less often those come from farther away. So do a query tile's probabilities
// against it. The scores of a block stay in the first cache with their operands.
enum {
    KEYS = 768,        // of a key tile
    STACKED_ROWS = 96, // of a query tile, about
    MIN_QUERIES = 16,  // positions of a query tile
    BLOCK_ROWS = 32,
    FORWARD_KEYS = 256, // of a block; a tile is whole blocks
    BACKWARD_KEYS = 64,
    MIN_ITEMS = 12,   // of backward: work for as many threads
    QUERY_PARTS = 16, // most parts of packing in backward
    LANES = SOFTMAX_LANES,
    PANEL = TILE_BF16_COLUMNS,
    DEPTH = TILE_BF16_STEP,
    // Panels and rows side by side must not begin at the same place of the first cache.
    PANEL_PADDING = 2 * PANEL,
    ROW_PADDING = 16
};

static const float log2_e = 1.44269504088896341f;

Bf16Layout bf16_layout(int B, int T, int K, int G, bool shares_keys, int key_width, int value_width,
                       float scale)
{
    int queries = STACKED_ROWS / G / 16 * 16;
    queries = min_int(queries < MIN_QUERIES ? MIN_QUERIES : queries, T);
    const int keys = min_int(KEYS, round_up(T, DEPTH));
    const int n_query_tiles = ceil_div(T, queries), n_key_tiles = ceil_div(T, keys);
    return (Bf16Layout){
        .B = B,
        .T = T,
        .K = K,
        .G = G,
        .shares_keys = shares_keys,
        .key_width = key_width,
        .value_width = value_width,
        .key_ld = round_up(key_width, DEPTH),
        .value_ld = round_up(value_width, DEPTH),
        .key_n = round_up(key_width, PANEL),
        .value_n = round_up(value_width, PANEL),
        .keys = keys,
        .queries = queries,
        .rows = round_up(G * queries, DEPTH),
        .n_query_tiles = n_query_tiles,
        .n_key_tiles = n_key_tiles,
        // Groups that share keys have weights of their own, and so does each of their parts.
        .n_query_parts =
            min_int(n_query_tiles, shares_keys ? ceil_div(QUERY_PARTS, K) : QUERY_PARTS),
        .n_key_parts = min_int(n_key_tiles, ceil_div(MIN_ITEMS, K)),
        .scale = scale,
    };
}

// ---- scratch -----------------------------------------------------------------------------------

// Of one direction, as one thread sees it. Columns: panels of 16 keys whose depth is a head's
// width; rows: panels of 16 of a head's columns whose depth is the tile's keys.
typedef struct Scratch {
    // All threads: key tiles [B KV heads, n_key_tiles], query tiles [B K, n_query_tiles].
    uint16_t *k_columns;                 // [keys, key_ld]
    uint16_t *v_rows;                    // [value_n, keys], forward
    uint16_t *v_columns, *k_rows;        // [keys, value_ld], [key_n, keys], backward
    uint16_t *q, *q_t, *d_out, *d_out_t; // [rows, ld] and [n, rows], backward
    float *lse2, *delta;                 // [rows], backward
    float *d_q;                          // n_key_parts times [rows, key_n], backward
    // Each thread its own.
    uint16_t *tile_k, *tile_v;            // [keys, ld]: rows on their way to panels
    float *scores, *d_scores;             // of a block; d_scores: backward
    uint16_t *tile_q, *p;                 // [rows, key_ld], [BLOCK_ROWS, FORWARD_KEYS], forward
    float *tile_out, *row_max, *row_sums; // [rows, value_n], [rows], [rows, LANES], forward
    uint16_t *p_panels, *d_panels;        // [keys / 16, panel_step()], backward
    uint16_t *d_rows;                     // [rows, keys], backward
    float *tile_d_k, *tile_d_v;           // [n, gradient_ld()], backward
} Scratch;

static int kv_heads(const Bf16Layout *layout)
{
    return tiles_kv_heads(layout->shares_keys, layout->K);
}

// Numbers of keys in all their tiles.
static int64_t packed_keys(const Bf16Layout *layout)
{
    return (int64_t)layout->B * kv_heads(layout) * layout->n_key_tiles * layout->keys;
}

// Halves from a panel of probabilities to the next.
static int64_t panel_step(const Bf16Layout *layout)
{
    return (int64_t)layout->rows * PANEL + PANEL_PADDING;
}

// Numbers from a row of a key tile's gradients to the next.
static int gradient_ld(const Bf16Layout *layout)
{
    return layout->keys + ROW_PADDING;
}

// Where a thread finds its part of n_threads of them, each `count` numbers.
typedef struct ThreadMemory {
    Arena *arena;
    int thread, n_threads;
} ThreadMemory;

static void *place_own(const ThreadMemory *memory, int64_t count, size_t size_bytes)
{
    const int64_t bytes = (count * (int64_t)size_bytes + 63) / 64 * 64; // whole cache lines
    char *all = arena_place(memory->arena, memory->n_threads * bytes, 1);
    return all == NULL ? NULL : all + memory->thread * bytes;
}

static float *own_floats(const ThreadMemory *memory, int64_t count)
{
    return place_own(memory, count, sizeof(float));
}

static uint16_t *own_halves(const ThreadMemory *memory, int64_t count)
{
    return place_own(memory, count, sizeof(uint16_t));
}

static uint16_t *shared_halves(const ThreadMemory *memory, int64_t count)
{
    return arena_place(memory->arena, count, sizeof(uint16_t));
}

static void place_forward(Scratch *s, const ThreadMemory *memory, const Bf16Layout *layout)
{
    const int64_t keys = packed_keys(layout), rows = layout->rows;
    s->k_columns = shared_halves(memory, keys * layout->key_ld);
    s->v_rows = shared_halves(memory, keys * layout->value_n);
    s->tile_k = own_halves(memory, (int64_t)layout->keys * layout->key_ld);
    s->tile_v = own_halves(memory, (int64_t)layout->keys * layout->value_ld);
    s->scores = own_floats(memory, (int64_t)BLOCK_ROWS * FORWARD_KEYS);
    s->p = own_halves(memory, (int64_t)BLOCK_ROWS * FORWARD_KEYS);
    s->tile_q = own_halves(memory, rows * layout->key_ld);
    s->tile_out = own_floats(memory, rows * layout->value_n);
    s->row_max = own_floats(memory, rows);
    s->row_sums = own_floats(memory, rows * LANES);
}

static void place_backward(Scratch *s, const ThreadMemory *memory, const Bf16Layout *layout)
{
    const int64_t heads = (int64_t)layout->B * layout->K, rows = layout->rows;
    const int64_t keys = packed_keys(layout);
    const int64_t queries = heads * layout->n_query_tiles * rows;
    s->k_columns = shared_halves(memory, keys * layout->key_ld);
    s->v_columns = shared_halves(memory, keys * layout->value_ld);
    s->k_rows = shared_halves(memory, keys * layout->key_n);
    s->q = shared_halves(memory, queries * layout->key_ld);
    s->q_t = shared_halves(memory, queries * layout->key_n);
    s->d_out = shared_halves(memory, queries * layout->value_ld);
    s->d_out_t = shared_halves(memory, queries * layout->value_n);
    s->lse2 = arena_floats(memory->arena, queries);
    s->delta = arena_floats(memory->arena, queries);
    s->d_q = arena_floats(memory->arena, layout->n_key_parts * queries * layout->key_n);
    s->tile_k = own_halves(memory, (int64_t)layout->keys * layout->key_ld);
    s->tile_v = own_halves(memory, (int64_t)layout->keys * layout->value_ld);
    s->scores = own_floats(memory, (int64_t)BLOCK_ROWS * BACKWARD_KEYS);
    s->d_scores = own_floats(memory, (int64_t)BLOCK_ROWS * BACKWARD_KEYS);
    s->p_panels = own_halves(memory, layout->keys / PANEL * panel_step(layout));
    s->d_panels = own_halves(memory, layout->keys / PANEL * panel_step(layout));
    s->d_rows = own_halves(memory, rows * layout->keys);
    s->tile_d_k = own_floats(memory, (int64_t)layout->key_n * gradient_ld(layout));
    s->tile_d_v = own_floats(memory, (int64_t)layout->value_n * gradient_ld(layout));
}

int64_t bf16_tiles_scratch_bytes(const Bf16Layout *layout, int n_threads, bool is_training)
{
    Scratch s = {0};
    Arena forward = arena_start("attention"), backward = arena_start("attention");
    place_forward(&s, &(ThreadMemory){&forward, 0, n_threads}, layout);
    if (is_training)
        place_backward(&s, &(ThreadMemory){&backward, 0, n_threads}, layout);
    return max_int64(forward.used_bytes, backward.used_bytes);
}

// As the calling thread of a parallel region sees it.
static Scratch find_scratch(void *scratch, const Bf16Layout *layout, bool is_backward)
{
    Scratch s = {0};
    Arena arena = arena_over("attention", scratch, INT64_MAX);
    const ThreadMemory memory = {&arena, omp_get_thread_num(), omp_get_num_threads()};
    if (is_backward)
        place_backward(&s, &memory, layout);
    else
        place_forward(&s, &memory, layout);
    return s;
}

// ---- packing -----------------------------------------------------------------------------------

// Packed keys and values of a tile; NULL: not of this direction.
typedef struct KeyPanels {
    uint16_t *k_columns, *v_rows, *v_columns, *k_rows;
    int first, n; // positions
} KeyPanels;

static uint16_t *part_of(uint16_t *all, int64_t offset)
{
    return all != NULL ? all + offset : NULL;
}

static KeyPanels key_panels(const Scratch *s, const Bf16Layout *layout, const TileHead *head, int i)
{
    const int64_t kv_head = layout->shares_keys ? head->first_token / layout->T : head->index;
    const int64_t keys = (kv_head * layout->n_key_tiles + i) * layout->keys;
    return (KeyPanels){
        .k_columns = part_of(s->k_columns, keys * layout->key_ld),
        .v_rows = part_of(s->v_rows, keys * layout->value_n),
        .v_columns = part_of(s->v_columns, keys * layout->value_ld),
        .k_rows = part_of(s->k_rows, keys * layout->key_n),
        .first = i * layout->keys,
        .n = min_int(layout->keys, layout->T - i * layout->keys),
    };
}

static void clear_halves(uint16_t *halves, int64_t count)
{
    memset(halves, 0, (size_t)count * sizeof *halves);
}

static void pack_key_tile(const Bf16Packing *packing, const void *context, const Scratch *s,
                          const Bf16Layout *layout, const TileHead *head, int i)
{
    const KeyPanels to = key_panels(s, layout, head, i);
    const int keys = layout->keys, key_ld = layout->key_ld, value_ld = layout->value_ld;
    packing->pack_keys(context, head, s->tile_k, s->tile_v, to.first, to.n);
    clear_halves(s->tile_k + (int64_t)to.n * key_ld, (int64_t)(keys - to.n) * key_ld);
    clear_halves(s->tile_v + (int64_t)to.n * value_ld, (int64_t)(keys - to.n) * value_ld);
    const Rows k = rows_bf16(s->tile_k, key_ld), v = rows_bf16(s->tile_v, value_ld);
    tile_bf16_pack_columns(to.k_columns, (int64_t)key_ld * PANEL, k, keys, key_ld);
    if (to.v_rows != NULL)
        tile_bf16_pack_rows(to.v_rows, (int64_t)keys * PANEL, v, keys, layout->value_n);
    if (to.v_columns != NULL)
        tile_bf16_pack_columns(to.v_columns, (int64_t)value_ld * PANEL, v, keys, value_ld);
    if (to.k_rows != NULL)
        tile_bf16_pack_rows(to.k_rows, (int64_t)keys * PANEL, k, keys, layout->key_n);
}

// All key tiles, divided among the threads of a parallel region. KV heads are the inner loop: their
// parts of a token's row share cache lines. No barrier at the end.
static void pack_keys(const Bf16Packing *packing, const void *context, const Scratch *s,
                      const Bf16Layout *layout)
{
    const int n_heads = kv_heads(layout);
#pragma omp for collapse(3) schedule(static) nowait
    for (int b = 0; b < layout->B; b++)
        for (int i = 0; i < layout->n_key_tiles; i++)
            for (int j = 0; j < n_heads; j++) {
                const TileHead head = tile_head(b * n_heads + j, n_heads, layout->T);
                pack_key_tile(packing, context, s, layout, &head, i);
            }
}

// Rows of a tile that has n positions, padded to a product's depth.
static int padded_rows(const Bf16Layout *layout, int n)
{
    return round_up(layout->G * n, DEPTH);
}

// ---- forward -----------------------------------------------------------------------------------

// Divides the output by the softmax's denominator; row_max becomes the log-sum-exp.
HOT static void normalize_tile(const Scratch *s, int n_rows, int ld, float scale)
{
    for (int r = 0; r < n_rows; r++) {
        const float *sums = s->row_sums + (int64_t)r * LANES;
        float sum = 0, *out = s->tile_out + (int64_t)r * ld;
        for (int l = 0; l < LANES; l++)
            sum += sums[l];
        const float inverse = 1.0f / sum;
        for (int e = 0; e < ld; e++)
            out[e] *= inverse;
        s->row_max[r] = s->row_max[r] * scale + logf(sum);
    }
}

// Of a tile's row in [N, H]. Query heads of a group are neighbours, as in transformers' repeat_kv:
// head h reads KV head h / G.
static int64_t lse_at(const Bf16Layout *layout, const TileHead *head, const Bf16QueryTile *tile,
                      int r)
{
    const int64_t token = head->first_token + tile->first + r % tile->n;
    const int h = head->kv_head * layout->G + r / tile->n;
    return token * layout->K * layout->G + h;
}

// A block: scores, softmax, values.
static void forward_block(const Scratch *s, const Bf16Layout *layout, const KeyPanels *key,
                          ScoreBlock block)
{
    const int value_n = layout->value_n, first = block.first_row, first_key = block.k0 - key->first;
    tile_bf16_multiply(s->scores, FORWARD_KEYS, s->tile_q + (int64_t)first * layout->key_ld,
                       layout->key_ld, key->k_columns + (int64_t)first_key * layout->key_ld,
                       (int64_t)layout->key_ld * PANEL, block.rows, block.keys, layout->key_ld,
                       false);
    float *out = s->tile_out + (int64_t)first * value_n;
    softmax_forward(s->p, FORWARD_KEYS, out, value_n, s->row_max + first,
                    s->row_sums + (int64_t)first * LANES, &block, layout->scale * log2_e);
    tile_bf16_multiply(out, value_n, s->p, FORWARD_KEYS, key->v_rows + (int64_t)first_key * PANEL,
                       (int64_t)layout->keys * PANEL, block.rows, value_n, block.keys, true);
}

// One query tile against the key tiles up to its last position.
static void forward_tile(const Bf16Packing *packing, const void *context, float *lse,
                         const Scratch *s, const Bf16Layout *layout, const TileHead *head, int q0)
{
    const int n = min_int(layout->queries, layout->T - q0), n_rows = layout->G * n,
              rows = padded_rows(layout, n);
    const Bf16QueryTile tile = {
        .q = s->tile_q, .out = s->tile_out, .first = q0, .n = n, .n_rows = n_rows};
    packing->pack_queries(context, head, &tile);
    clear_halves(s->tile_q + (int64_t)n_rows * layout->key_ld,
                 (int64_t)(rows - n_rows) * layout->key_ld);
    memset(s->tile_out, 0, (size_t)rows * (size_t)layout->value_n * sizeof(float));
    memset(s->row_sums, 0, (size_t)rows * LANES * sizeof(float));
    for (int r = 0; r < rows; r++)
        s->row_max[r] = -INFINITY;
    for (int k0 = 0; k0 < q0 + n; k0 += FORWARD_KEYS) {
        const KeyPanels key = key_panels(s, layout, head, k0 / layout->keys);
        const int keys = round_up(min_int(FORWARD_KEYS, q0 + n - k0), DEPTH);
        for (int r = 0; r < rows; r += BLOCK_ROWS)
            forward_block(
                s, layout, &key,
                (ScoreBlock){s->scores, FORWARD_KEYS, r, BLOCK_ROWS, n, n_rows, q0, k0, keys});
    }
    normalize_tile(s, n_rows, layout->value_n, layout->scale);
    for (int r = 0; r < n_rows; r++)
        lse[lse_at(layout, head, &tile, r)] = s->row_max[r];
    packing->unpack_output(context, head, &tile);
}

void bf16_tiles_forward(const Bf16Packing *packing, const void *context, float *lse, void *scratch,
                        const Bf16Layout *layout)
{
    const int n_heads = layout->B * layout->K;
#pragma omp parallel
    {
        const Scratch s = find_scratch(scratch, layout, false);
        tile_bf16_start();
        pack_keys(packing, context, &s, layout);
#pragma omp barrier
#pragma omp for collapse(2) schedule(dynamic)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < layout->n_query_tiles; i++) {
                const TileHead head = tile_head(h, layout->K, layout->T);
                // The last tiles see the most keys: start with them.
                forward_tile(packing, context, lse, &s, layout, &head,
                             (layout->n_query_tiles - 1 - i) * layout->queries);
            }
        tile_bf16_end();
    }
}

// ---- backward ----------------------------------------------------------------------------------

// Floats from a part of a query tile's gradient to the next.
static int64_t part_step(const Bf16Layout *layout)
{
    return (int64_t)layout->n_query_tiles * layout->rows * layout->key_n;
}

// Tile i of a head's queries, which holds layout->rows rows whatever it uses, with one part of its
// gradient.
static Bf16QueryTile query_tile(const Scratch *s, const Bf16Layout *layout, const TileHead *head,
                                int i, int part)
{
    const int64_t n_tiles = layout->n_query_tiles, rows = layout->rows;
    const int64_t first = (head->index * n_tiles + i) * rows;
    const int64_t d_first = ((head->index * layout->n_key_parts + part) * n_tiles + i) * rows;
    const int q0 = i * layout->queries, n = min_int(layout->queries, layout->T - q0);
    return (Bf16QueryTile){
        .q = s->q + first * layout->key_ld,
        .q_t = s->q_t + first * layout->key_n,
        .d_out = s->d_out + first * layout->value_ld,
        .d_out_t = s->d_out_t + first * layout->value_n,
        .d_q = s->d_q + d_first * layout->key_n,
        .lse2 = s->lse2 + first,
        .delta = s->delta + first,
        .first = q0,
        .n = n,
        .n_rows = layout->G * n,
    };
}

// Probabilities of a query tile and `keys` keys, and the gradients of their scores, block by block:
// S = Q K^T, dP = dO V^T.
static void backward_scores(const Scratch *s, const Bf16Layout *layout, const KeyPanels *key,
                            const Bf16QueryTile *tile, int rows, int keys)
{
    const int key_ld = layout->key_ld, value_ld = layout->value_ld;
    const int64_t step = panel_step(layout);
    for (int j = 0; j < keys; j += BACKWARD_KEYS) {
        const SoftmaxGradient to = {s->p_panels + j / PANEL * step, s->d_panels + j / PANEL * step,
                                    step, s->d_rows + j, layout->keys};
        const int count = min_int(BACKWARD_KEYS, keys - j);
        for (int r = 0; r < rows; r += BLOCK_ROWS) {
            const ScoreBlock block = {s->scores,   BACKWARD_KEYS,  r,
                                      BLOCK_ROWS,  tile->n,        tile->n_rows,
                                      tile->first, key->first + j, count};
            tile_bf16_multiply(s->scores, BACKWARD_KEYS, tile->q + (int64_t)r * key_ld, key_ld,
                               key->k_columns + (int64_t)j * key_ld, (int64_t)key_ld * PANEL,
                               BLOCK_ROWS, count, key_ld, false);
            tile_bf16_multiply(s->d_scores, BACKWARD_KEYS, tile->d_out + (int64_t)r * value_ld,
                               value_ld, key->v_columns + (int64_t)j * value_ld,
                               (int64_t)value_ld * PANEL, BLOCK_ROWS, count, value_ld, false);
            softmax_backward(&to, &block, s->d_scores, tile->lse2, tile->delta,
                             layout->scale * log2_e);
        }
    }
}

// Five products per pair of tiles. P is computed again from the saved log-sum-exp, so forward keeps
// no probabilities.
static void backward_key_tile(const Bf16Packing *packing, const void *context, const Scratch *s,
                              const Bf16Layout *layout, const TileHead *head, int i)
{
    const int key_n = layout->key_n, value_n = layout->value_n, part = i % layout->n_key_parts,
              ld = gradient_ld(layout);
    const int64_t step = panel_step(layout);
    const KeyPanels key = key_panels(s, layout, head, i);
    memset(s->tile_d_k, 0, (size_t)ld * (size_t)key_n * sizeof(float));
    memset(s->tile_d_v, 0, (size_t)ld * (size_t)value_n * sizeof(float));
    for (int t = key.first / layout->queries; t < layout->n_query_tiles; t++) {
        const Bf16QueryTile tile = query_tile(s, layout, head, t, part);
        const int rows = padded_rows(layout, tile.n);
        const int keys = round_up(min_int(layout->keys, tile.first + tile.n - key.first), DEPTH);
        backward_scores(s, layout, &key, &tile, rows, keys);
        tile_bf16_multiply(s->tile_d_v, ld, tile.d_out_t, layout->rows, s->p_panels, step, value_n,
                           keys, rows, true);
        tile_bf16_multiply(s->tile_d_k, ld, tile.q_t, layout->rows, s->d_panels, step, key_n, keys,
                           rows, true);
        // Key tiles i, i + n_key_parts, ... add to the same part: the first of them writes it.
        tile_bf16_multiply(tile.d_q, key_n, s->d_rows, layout->keys, key.k_rows,
                           (int64_t)layout->keys * PANEL, rows, key_n, keys,
                           i >= layout->n_key_parts);
    }
    packing->unpack_keys(context, head, s->tile_d_k, s->tile_d_v, ld, key.first, key.n);
}

// Adds the parts of a query tile's gradient up in the first. Part p exists if the tile sees key
// tile p.
HOT static void sum_key_parts(float *restrict d_q, const Bf16Layout *layout,
                              const Bf16QueryTile *tile)
{
    const int n_parts = min_int(layout->n_key_parts, ceil_div(tile->first + tile->n, layout->keys));
    const int64_t count = (int64_t)tile->n_rows * layout->key_n;
    for (int p = 1; p < n_parts; p++) {
        const float *from = d_q + p * part_step(layout);
        for (int64_t i = 0; i < count; i++)
            d_q[i] += from[i];
    }
}

// Queries and the output's gradient of a tile, as rows and transposed.
static void pack_backward(const Bf16Packing *packing, const void *context, const float *lse,
                          const Bf16Layout *layout, const TileHead *head, const Bf16QueryTile *tile)
{
    const int rows = padded_rows(layout, tile->n), n_rows = tile->n_rows;
    const int key_ld = layout->key_ld, value_ld = layout->value_ld;
    packing->pack_backward(context, head, tile);
    clear_halves(tile->q + (int64_t)n_rows * key_ld, (int64_t)(rows - n_rows) * key_ld);
    clear_halves(tile->d_out + (int64_t)n_rows * value_ld, (int64_t)(rows - n_rows) * value_ld);
    tile_bf16_transpose(tile->q_t, layout->rows, rows_bf16(tile->q, key_ld), rows, layout->key_n);
    tile_bf16_transpose(tile->d_out_t, layout->rows, rows_bf16(tile->d_out, value_ld), rows,
                        layout->value_n);
    for (int r = 0; r < n_rows; r++)
        tile->lse2[r] = log2_e * lse[lse_at(layout, head, tile, r)];
}

// All query tiles of a part: on the way in, or with their gradient on the way out.
static void run_query_part(const Bf16Packing *packing, const void *context, const float *lse,
                           const Scratch *s, const Bf16Layout *layout, int h, int part,
                           bool is_gradient)
{
    const TileHead head = tile_head(h, layout->K, layout->T);
    const int first = (int)((int64_t)part * layout->n_query_tiles / layout->n_query_parts);
    const int end = (int)((int64_t)(part + 1) * layout->n_query_tiles / layout->n_query_parts);
    for (int i = first; i < end; i++) {
        Bf16QueryTile tile = query_tile(s, layout, &head, i, 0);
        tile.part = part;
        tile.starts_part = i == first;
        if (is_gradient) {
            sum_key_parts(tile.d_q, layout, &tile);
            packing->unpack_queries(context, &head, &tile);
        } else {
            pack_backward(packing, context, lse, layout, &head, &tile);
        }
    }
}

// All parts, divided among the threads of a parallel region as key tiles are. Ends in a barrier.
static void run_query_parts(const Bf16Packing *packing, const void *context, const float *lse,
                            const Scratch *s, const Bf16Layout *layout, bool is_gradient)
{
#pragma omp for collapse(3) schedule(static)
    for (int b = 0; b < layout->B; b++)
        for (int part = 0; part < layout->n_query_parts; part++)
            for (int j = 0; j < layout->K; j++)
                run_query_part(packing, context, lse, s, layout, b * layout->K + j, part,
                               is_gradient);
}

void bf16_tiles_backward(const Bf16Packing *packing, const void *context, const float *lse,
                         void *scratch, const Bf16Layout *layout)
{
    const int n_heads = layout->B * layout->K;
#pragma omp parallel
    {
        const Scratch s = find_scratch(scratch, layout, true);
        tile_bf16_start();
        pack_keys(packing, context, &s, layout);
        // Packing of the keys has no barrier: this does not read them, and its end is one for both.
        run_query_parts(packing, context, lse, &s, layout, false);
#pragma omp for collapse(2) schedule(dynamic)
        for (int part = 0; part < layout->n_key_parts; part++)
            for (int h = 0; h < n_heads; h++) {
                // The first keys are seen by the most queries: start with them.
                const TileHead head = tile_head(h, layout->K, layout->T);
                for (int i = part; i < layout->n_key_tiles; i += layout->n_key_parts)
                    backward_key_tile(packing, context, &s, layout, &head, i);
            }
        run_query_parts(packing, context, lse, &s, layout, true);
        tile_bf16_end();
    }
}
