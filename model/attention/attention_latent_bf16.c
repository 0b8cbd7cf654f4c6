// A packed query is [q_c U_k | q_r], a packed key [c_k | k_r], a packed value c_v, as in
// attention_latent.c. Where all query heads of a group read the same U_k and U_v, products with
// them take the stacked rows of a tile at once. Every product reads bfloat16: queries, values and
// their gradients are rounded once they are summed.
#include "model/attention/attention_latent_bf16.h"

#include "base/arena.h"
#include "model/attention/attention_latent_sums.h"
#include "model/attention/attention_pack.h"
#include "model/attention/attention_tiles_bf16.h"
#include "model/kernels/tile_bf16.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// A thread's room for a query tile's products with U_k and U_v, each for the widest of them.
typedef struct TileRoom {
    uint16_t *left, *right; // [rows, width]: rows in bfloat16
    uint16_t *transposed;   // [width, rows]
    uint16_t *panels;       // of [rows, width]
    float *product;         // [rows, width]
} TileRoom;

// The scratch of this file lies before that of the tiles.
typedef struct LatentAttention {
    LatentDims dims;
    LatentColumns column;
    LatentArrays arrays;
    Bf16Layout layout;
    LatentSums sums; // backward
    int nope;
    int width;                    // the widest of a head's rows, padded
    int64_t up_k_step, up_v_step; // halves of panels of a head's weights
    int64_t up_k_t_step, up_v_t_step;
    // Panels of all heads of weights, as right operands of q_c U_k and d_out U_v, of d(q U_k) U_k^T
    // and values U_v^T.
    uint16_t *up_k, *up_v, *up_k_t, *up_v_t;
    TileRoom room; // of thread 0; the others' follow
    void *rest;    // scratch of attention_tiles_bf16.h
} LatentAttention;

static int max_of(int a, int b)
{
    return a > b ? a : b;
}

// Sizes alone, without memory: the basis of measuring and of placing.
static LatentAttention find_attention(const LatentDims *d)
{
    const int nope = latent_nope(d), n_groups = latent_groups(d), Rk = d->key_latent,
              Rv = d->value_latent;
    LatentAttention attention = {
        .dims = *d,
        .column = latent_columns(d),
        .layout = bf16_layout(d->B, d->T, n_groups, d->H / n_groups, d->is_shared, Rk + d->rope, Rv,
                              1.0f / sqrtf((float)d->E)),
        .nope = nope,
        .width = tile_bf16_padded(max_of(d->E, max_of(Rk, Rv))),
        .up_k_step = tile_bf16_panels_halves(nope, Rk),
        .up_v_step = tile_bf16_panels_halves(d->E, Rv),
        .up_k_t_step = tile_bf16_panels_halves(Rk, nope),
        .up_v_t_step = tile_bf16_panels_halves(Rv, d->E),
    };
    attention.sums = latent_sums(d, attention.layout.n_query_parts, round_up(Rk, TILE_BF16_COLUMNS),
                                 round_up(Rv, TILE_BF16_COLUMNS));
    return attention;
}

static int64_t room_numbers(const LatentAttention *attention)
{
    return (int64_t)attention->layout.rows * attention->width;
}

static uint16_t *place_halves(Arena *arena, int64_t count)
{
    return arena_place(arena, count, sizeof(uint16_t));
}

// This file's scratch of one direction, in an arena over it or a measuring one.
static void place_scratch(LatentAttention *attention, Arena *arena, int n_threads, bool is_backward)
{
    const int heads = latent_up_heads(&attention->dims);
    const int64_t numbers = n_threads * room_numbers(attention);
    attention->up_k = place_halves(arena, heads * attention->up_k_step);
    attention->up_v_t = place_halves(arena, heads * attention->up_v_t_step);
    attention->room.left = place_halves(arena, numbers);
    attention->room.product = arena_floats(arena, numbers);
    if (!is_backward)
        return;
    attention->up_v = place_halves(arena, heads * attention->up_v_step);
    attention->up_k_t = place_halves(arena, heads * attention->up_k_t_step);
    attention->room.right = place_halves(arena, numbers);
    attention->room.transposed = place_halves(arena, numbers);
    attention->room.panels = place_halves(arena, numbers);
    latent_sums_place(&attention->sums, arena);
}

int64_t attention_latent_bf16_scratch_bytes(const LatentDims *d, int n_threads, bool is_training)
{
    LatentAttention attention = find_attention(d);
    Arena arena = arena_start("attention");
    place_scratch(&attention, &arena, n_threads, is_training);
    return arena.used_bytes + bf16_tiles_scratch_bytes(&attention.layout, n_threads, is_training);
}

// Places the scratch and packs the weights.
static LatentAttention start(const LatentArrays *arrays, void *scratch, const LatentDims *d,
                             bool is_backward)
{
    LatentAttention attention = find_attention(d);
    const int nope = attention.nope, Rk = d->key_latent, Rv = d->value_latent;
    attention.arrays = *arrays;
    Arena arena = arena_over("attention", scratch, INT64_MAX);
    place_scratch(&attention, &arena, omp_get_max_threads(), is_backward);
    attention.rest = (char *)scratch + arena.used_bytes;
#pragma omp parallel for schedule(static)
    for (int j = 0; j < latent_up_heads(d); j++) {
        const Rows up_k = rows_read_f32(arrays->up_k + (int64_t)j * nope * Rk, Rk),
                   up_v = rows_read_f32(arrays->up_v + (int64_t)j * d->E * Rv, Rv);
        if (Rk > 0)
            tile_bf16_pack_rows(attention.up_k + j * attention.up_k_step,
                                tile_bf16_panel_halves(nope), up_k, nope, Rk);
        tile_bf16_pack_columns(attention.up_v_t + j * attention.up_v_t_step,
                               tile_bf16_panel_halves(Rv), up_v, d->E, Rv);
        if (!is_backward)
            continue;
        tile_bf16_pack_rows(attention.up_v + j * attention.up_v_step, tile_bf16_panel_halves(d->E),
                            up_v, d->E, Rv);
        if (Rk > 0)
            tile_bf16_pack_columns(attention.up_k_t + j * attention.up_k_t_step,
                                   tile_bf16_panel_halves(Rk), up_k, nope, Rk);
    }
    return attention;
}

// ---- packing and unpacking ---------------------------------------------------------------------

// The calling thread's: callbacks run in the parallel region of attention_tiles_bf16.c.
static TileRoom own_room(const LatentAttention *attention)
{
    const int64_t at = omp_get_thread_num() * room_numbers(attention);
    const TileRoom *first = &attention->room;
    return (TileRoom){
        .left = first->left + at,
        .right = first->right == NULL ? NULL : first->right + at,
        .transposed = first->transposed == NULL ? NULL : first->transposed + at,
        .panels = first->panels == NULL ? NULL : first->panels + at,
        .product = first->product + at,
    };
}

// Where head g of the tile's group begins in rows whose heads are `width` wide.
static Rows head_rows(const LatentAttention *attention, Rows rows, int column, int width,
                      const TileHead *head, const Bf16QueryTile *tile, int g)
{
    const int h = head->kv_head * attention->layout.G + g;
    return rows_at(rows, head->first_token + tile->first, column + h * width);
}

// Columns of heads -> columns [0, width) of a tile's stacked rows; zeros up to `end`.
static void stack_heads(const LatentAttention *attention, uint16_t *stacked, int ld, Rows rows,
                        int column, int width, int end, const TileHead *head,
                        const Bf16QueryTile *tile)
{
    for (int g = 0; g < attention->layout.G; g++)
        attention_pack_rows(stacked + (int64_t)g * tile->n * ld, ld,
                            head_rows(attention, rows, column, width, head, tile, g), tile->n,
                            width, end);
}

// Stacked rows of a tile -> columns of heads, times `scale`.
static void unstack_heads(const LatentAttention *attention, Rows rows, int column, int width,
                          const float *stacked, int ld, const TileHead *head,
                          const Bf16QueryTile *tile, float scale)
{
    for (int g = 0; g < attention->layout.G; g++)
        attention_unpack_rows(head_rows(attention, rows, column, width, head, tile, g),
                              stacked + (int64_t)g * tile->n * ld, ld, tile->n, width, scale);
}

// All KV heads share the latent c, so it is packed again for each; only k_r differs.
static void pack_keys(const void *context, const TileHead *head, uint16_t *k, uint16_t *v,
                      int first, int n)
{
    const LatentAttention *attention = context;
    const LatentDims *d = &attention->dims;
    const int Rk = d->key_latent, ld = attention->layout.key_ld,
              value_ld = attention->layout.value_ld;
    const LatentColumns *column = &attention->column;
    const Rows tokens = rows_at(attention->arrays.qkv, head->first_token + first, 0);
    attention_pack_rows(k, ld, rows_at(tokens, 0, column->latent), n, Rk, Rk);
    attention_pack_rows(k + Rk, ld, rows_at(tokens, 0, column->k_rope + head->kv_head * d->rope), n,
                        d->rope, ld - Rk);
    attention_pack_rows(v, value_ld, rows_at(tokens, 0, column->latent + d->value_column), n,
                        d->value_latent, value_ld);
}

// Rows of a tile that read the same weights, with one head of them: all of it, or one query head's.
static int up_rows(const LatentAttention *attention, const Bf16QueryTile *tile)
{
    return tile->n_rows / attention->sums.n_up;
}

// product [n_rows, n] = left [n_rows, k] times weights, in panels of every head.
static void multiply_up(const LatentAttention *attention, float *product, const uint16_t *left,
                        const uint16_t *panels, int64_t panels_step, int n, int k,
                        const TileHead *head, const Bf16QueryTile *tile)
{
    const int n_up = attention->sums.n_up, rows = up_rows(attention, tile),
              width = attention->width;
    for (int i = 0; i < n_up; i++) {
        const int64_t first = (int64_t)i * rows * width;
        tile_bf16_multiply(product + first, width, left + first, width,
                           panels + (head->kv_head * n_up + i) * panels_step,
                           tile_bf16_panel_halves(k), rows, n, k, false);
    }
}

// q_c of the tile's rows, as a left operand.
static void stack_nope(const LatentAttention *attention, uint16_t *to, const TileHead *head,
                       const Bf16QueryTile *tile)
{
    stack_heads(attention, to, attention->width, attention->arrays.qkv, attention->column.q_nope,
                attention->nope, attention->width, head, tile);
}

// q_h = [q_c,h U_k | q_r,h].
static void pack_queries(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const LatentAttention *attention = context;
    const LatentDims *d = &attention->dims;
    const TileRoom room = own_room(attention);
    const int Rk = d->key_latent, ld = attention->layout.key_ld, width = attention->width;
    if (Rk > 0) {
        stack_nope(attention, room.left, head, tile);
        multiply_up(attention, room.product, room.left, attention->up_k, attention->up_k_step, Rk,
                    attention->nope, head, tile);
        attention_pack_rows(tile->q, ld, rows_f32(room.product, width), tile->n_rows, Rk, Rk);
    }
    stack_heads(attention, tile->q + Rk, ld, attention->arrays.qkv, attention->column.q_rope,
                d->rope, ld - Rk, head, tile);
}

// out = values U_v^T, of values as a left operand.
static void expand_values(const LatentAttention *attention, const TileHead *head,
                          const Bf16QueryTile *tile, const uint16_t *values, float *product)
{
    const int E = attention->dims.E, Rv = attention->dims.value_latent, width = attention->width;
    multiply_up(attention, product, values, attention->up_v_t, attention->up_v_t_step, E, Rv, head,
                tile);
    unstack_heads(attention, attention->arrays.out, 0, E, product, width, head, tile, 1.0f);
}

// Saves p c_v for the gradient of U_v, and expands it to out = (p c_v) U_v^T.
static void unpack_output(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const LatentAttention *attention = context;
    const TileRoom room = own_room(attention);
    const int Rv = attention->dims.value_latent, ld = attention->layout.value_n;
    unstack_heads(attention, attention->arrays.values, 0, Rv, tile->out, ld, head, tile, 1.0f);
    attention_pack_rows(room.left, attention->width, rows_f32(tile->out, ld), tile->n_rows, Rv,
                        attention->width);
    expand_values(attention, head, tile, room.left, room.product);
}

// gradient [m, ld] += or = left^T right over the tile's rows that read weights i of the group's.
static void add_up_gradient(const LatentAttention *attention, float *gradient, int ld,
                            const uint16_t *left, int m, const uint16_t *right, int n, int i,
                            const Bf16QueryTile *tile)
{
    const TileRoom room = own_room(attention);
    const int ld_t = attention->layout.rows, width = attention->width,
              rows = up_rows(attention, tile);
    const int64_t first = (int64_t)i * rows * width, panel_step = tile_bf16_panel_halves(rows);
    tile_bf16_transpose(room.transposed, ld_t, rows_read_bf16(left + first, width), rows, m);
    tile_bf16_pack_rows(room.panels, panel_step, rows_read_bf16(right + first, width), rows, n);
    tile_bf16_multiply(gradient, ld, room.transposed, ld_t, room.panels, panel_step, m, n, rows,
                       !tile->starts_part);
}

// The gradient of the tile's values, its part of U_v's gradient, and its output, computed again.
static void pack_backward(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const LatentAttention *attention = context;
    const LatentArrays *arrays = &attention->arrays;
    const TileRoom room = own_room(attention);
    const int E = attention->dims.E, Rv = attention->dims.value_latent, width = attention->width,
              ld = attention->layout.value_ld;
    pack_queries(context, head, tile);
    stack_heads(attention, room.left, width, arrays->d_out, 0, E, width, head, tile);
    multiply_up(attention, room.product, room.left, attention->up_v, attention->up_v_step, Rv, E,
                head, tile);
    attention_pack_rows(tile->d_out, ld, rows_f32(room.product, width), tile->n_rows, Rv, ld);
    stack_heads(attention, room.right, width, arrays->values, 0, Rv, width, head, tile);
    for (int i = 0; i < attention->sums.n_up; i++)
        add_up_gradient(attention, latent_sums_up_v(&attention->sums, head, tile->part, i),
                        attention->sums.value_ld, room.left, E, room.right, Rv, i, tile);
    expand_values(attention, head, tile, room.right, room.product);
    // out . d_out = (p c_v) . (U_v^T d_out): the narrower dot product gives the same delta.
    attention_pack_dots(tile->delta, rows_bf16(room.right, width), tile->d_out, ld, tile->n_rows,
                        Rv);
}

static void unpack_keys(const void *context, const TileHead *head, const float *d_k,
                        const float *d_v, int ld, int first, int n)
{
    const LatentAttention *attention = context;
    latent_sums_set_keys(&attention->sums, attention->arrays.d_qkv, head, d_k, d_v, ld, first, n,
                         attention->layout.scale);
}

// d_q_c = scale d(q U_k) U_k^T, and U_k's gradient q_c^T d(q U_k), whose scale enters when the
// parts are added up.
static void unpack_queries(const void *context, const TileHead *head, const Bf16QueryTile *tile)
{
    const LatentAttention *attention = context;
    const LatentDims *d = &attention->dims;
    const Rows d_qkv = attention->arrays.d_qkv;
    const TileRoom room = own_room(attention);
    const int Rk = d->key_latent, ld = attention->layout.key_n, nope = attention->nope,
              width = attention->width;
    const float scale = attention->layout.scale;
    unstack_heads(attention, d_qkv, attention->column.q_rope, d->rope, tile->d_q + Rk, ld, head,
                  tile, scale);
    if (Rk == 0)
        return;
    attention_pack_rows(room.right, width, rows_f32(tile->d_q, ld), tile->n_rows, Rk, width);
    multiply_up(attention, room.product, room.right, attention->up_k_t, attention->up_k_t_step,
                nope, Rk, head, tile);
    unstack_heads(attention, d_qkv, attention->column.q_nope, nope, room.product, width, head, tile,
                  scale);
    stack_nope(attention, room.left, head, tile);
    for (int i = 0; i < attention->sums.n_up; i++)
        add_up_gradient(attention, latent_sums_up_k(&attention->sums, head, tile->part, i),
                        attention->sums.key_ld, room.left, nope, room.right, Rk, i, tile);
}

static const Bf16Packing packing = {pack_keys,     pack_queries, unpack_output,
                                    pack_backward, unpack_keys,  unpack_queries};

// ---- both directions ---------------------------------------------------------------------------

void attention_latent_bf16_forward(const LatentArrays *arrays, void *scratch, const LatentDims *d)
{
    const LatentAttention attention = start(arrays, scratch, d, false);
    bf16_tiles_forward(&packing, &attention, arrays->lse, attention.rest, &attention.layout);
}

void attention_latent_bf16_backward(const LatentArrays *arrays, void *scratch, const LatentDims *d)
{
    const LatentAttention attention = start(arrays, scratch, d, true);
    bf16_tiles_backward(&packing, &attention, arrays->lse, attention.rest, &attention.layout);
#pragma omp parallel
    latent_sums_finish(&attention.sums, arrays->d_qkv, arrays->d_up_k, arrays->d_up_v,
                       attention.layout.scale, arrays->add_gradients);
}
