// A layer's tensors go from their source to where they stay; queries, keys and values through room
// of their own, since their rows are reordered and factorized.
#include "model/convert/convert.h"

#include "model/convert/factorize.h"

#include <stdlib.h>
#include <string.h>

// The rows of a head in the order MLA stores them: the kept pairs' first halves, their second
// halves, then every other dim, ascending.
static void order_rows(int *rows, const int32_t *pairs, int P, int E)
{
    int n_nope = 0, next = 0; // next: first kept pair whose dim is not passed yet
    for (int i = 0; i < P; i++) {
        CHECK(pairs[i] >= 0 && pairs[i] < E / 2 && (i == 0 || pairs[i] > pairs[i - 1]),
              "pair %d of %d is %d, head width %d", i, P, (int)pairs[i], E);
        rows[i] = pairs[i];
        rows[P + i] = pairs[i] + E / 2;
    }
    for (int dim = 0; dim < E; dim++) {
        if (dim == E / 2)
            next = 0;
        if (next < P && pairs[next] == dim % (E / 2))
            next++;
        else
            rows[2 * P + n_nope++] = dim;
    }
}

// Copies n rows of a head, named by `rows`, to consecutive rows.
static void gather_rows(float *to, const float *head, const int *rows, int n, int D)
{
    for (int i = 0; i < n; i++)
        memcpy(to + (int64_t)i * D, head + (int64_t)rows[i] * D, (size_t)D * sizeof *to);
}

static void reorder_queries(float *q, const Model *mla, const float *original, int layer, int *rows)
{
    const ModelShape *s = &mla->shape;
    int D = s->d_model, E = s->head_dim, n_rope = 2 * s->rope_pairs, n_nope = E - n_rope;
    float *nope = q + (int64_t)s->n_heads * n_rope * D;
    for (int h = 0; h < s->n_heads; h++) {
        const int32_t *pairs = model_pairs(mla, layer, h / (s->n_heads / s->n_kv_heads));
        const float *head = original + (int64_t)h * E * D;
        order_rows(rows, pairs, s->rope_pairs, E);
        gather_rows(q + (int64_t)h * n_rope * D, head, rows, n_rope, D);
        gather_rows(nope + (int64_t)h * n_nope * D, head, rows + n_rope, n_nope, D);
    }
}

static void divide_keys(float *k_r, float *k_c, const Model *mla, const float *k, int layer,
                        int *rows)
{
    const ModelShape *s = &mla->shape;
    int D = s->d_model, E = s->head_dim, n_rope = 2 * s->rope_pairs, n_nope = E - n_rope;
    for (int h = 0; h < s->n_kv_heads; h++) {
        const float *head = k + (int64_t)h * E * D;
        order_rows(rows, model_pairs(mla, layer, h), s->rope_pairs, E);
        gather_rows(k_r + (int64_t)h * n_rope * D, head, rows, n_rope, D);
        gather_rows(k_c + (int64_t)h * n_nope * D, head, rows + n_rope, n_nope, D);
    }
}

// kv: the rows of W_kc, then those of W_v.
static Status factorize_layer(LayerParams *to, const ModelShape *s, const float *kv)
{
    int D = s->d_model, R1 = shape_dim(s, DIM_UP_INPUT);
    int rows_k = shape_dim(s, DIM_K_NOPE), rows_v = shape_dim(s, DIM_KV);
    if (s->svd == SVD_JOINT) {
        // up_k and up_v are neighbours in the flat vector (model/params.h): one matrix.
        float *up = rows_k > 0 ? to->up_k : to->up_v;
        return factorize(up, to->down_kv, kv, rows_k + rows_v, D, R1);
    }
    TRY(factorize(to->up_k, to->down_kv, kv, rows_k, D, R1));
    return factorize(to->up_v, to->down_kv + (int64_t)R1 * D, kv + (int64_t)rows_k * D, rows_v, D,
                     R1);
}

// A layer's tensors that are made anew, as the original has them: in one arena.
typedef struct Room {
    float *q;  // [H E, D]; its room is the keys' then
    float *kv; // [K (E - 2P) + K E, D]
    int *rows; // [E]
} Room;

static void place(Room *room, Arena *arena, const ModelShape *s)
{
    // There are as many query heads as KV heads or more.
    room->q = arena_floats(arena, (int64_t)shape_dim(s, DIM_Q) * s->d_model);
    room->kv = arena_floats(arena, (int64_t)(shape_dim(s, DIM_K_NOPE) + shape_dim(s, DIM_KV)) *
                                       s->d_model);
    room->rows = arena_place(arena, s->head_dim, sizeof *room->rows);
}

void convert_measure(Arena *arena, const ModelShape *s)
{
    Room room;
    int D = s->d_model, R1 = shape_dim(s, DIM_UP_INPUT);
    int rows_k = shape_dim(s, DIM_K_NOPE), rows_v = shape_dim(s, DIM_KV);
    int64_t mark = arena->used_bytes;
    place(&room, arena, s);
    if (s->svd == SVD_JOINT) {
        factorize_measure(arena, rows_k + rows_v, D, R1);
    } else {
        factorize_measure(arena, rows_k, D, R1);
        factorize_measure(arena, rows_v, D, R1);
    }
    arena_rewind(arena, mark);
}

// Where a tensor both models have stays; every one but the attention's inputs.
static float *place_of(const Model *mla, const char *name)
{
    ParamInfo info;
    CHECK(params_find(&info, &mla->shape, name), "%s: not in the converted model", name);
    return mla->params.flat + info.offset;
}

static bool is_named(const ParamInfo *info, const char *end)
{
    const size_t length = strlen(info->name), end_length = strlen(end);
    return length >= end_length && strcmp(info->name + length - end_length, end) == 0;
}

static Status read_layer(Model *mla, const WeightSource *original, int layer, Room *room)
{
    const ModelShape *s = &mla->shape;
    LayerParams *to = &mla->params.layers[layer];
    float *values = room->kv + (int64_t)shape_dim(s, DIM_K_NOPE) * s->d_model;
    for (int i = 0; i < params_n_tensors(original->shape); i++) {
        ParamInfo info = params_info(original->shape, i);
        if (info.layer != layer)
            continue;
        const bool is_q = is_named(&info, "q_proj.weight"), is_k = is_named(&info, "k_proj.weight"),
                   is_v = is_named(&info, "v_proj.weight");
        float *to_values = is_q || is_k ? room->q : is_v ? values : place_of(mla, info.name);
        TRY(weight_source_read(original, &info, to_values));
        if (is_q)
            reorder_queries(to->q, mla, room->q, layer, room->rows);
        else if (is_k)
            divide_keys(to->k_r, room->kv, mla, room->q, layer, room->rows);
    }
    return OK;
}

static void check_pair(const Model *mla, const WeightSource *original)
{
    const ModelShape *a = &mla->shape, *b = original->shape;
    CHECK(shape_is_mla(a) && !shape_is_mla(b), "d_kv %d from %d", a->d_kv, b->d_kv);
    CHECK(a->n_layers == b->n_layers && a->d_model == b->d_model && a->n_heads == b->n_heads &&
              a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim &&
              a->d_ffn == b->d_ffn && a->vocab_size == b->vocab_size &&
              a->tied_head == b->tied_head,
          "the models differ in more than their attention");
}

Status convert_shared(Model *mla, const WeightSource *original)
{
    check_pair(mla, original);
    for (int i = 0; i < params_n_tensors(original->shape); i++) {
        ParamInfo info = params_info(original->shape, i);
        if (info.layer < 0)
            TRY(weight_source_read(original, &info, place_of(mla, info.name)));
    }
    return OK;
}

Status convert_layer(Model *mla, const WeightSource *original, int layer)
{
    const ModelShape *s = &mla->shape;
    Room room;
    check_pair(mla, original);
    Arena arena = arena_start("conversion");
    place(&room, &arena, s);
    if (arena_allocate(&arena) != OK)
        return fail(FAILED, "layer %d: no memory for its attention's weights", layer);
    place(&room, &arena, s);
    Status status;
    TRY_GOTO(release, read_layer(mla, original, layer, &room));
    status = factorize_layer(&mla->params.layers[layer], s, room.kv);
    if (status != OK)
        status = fail_within(status, "layer %d", layer);
release:
    arena_release(&arena);
    return status;
}
