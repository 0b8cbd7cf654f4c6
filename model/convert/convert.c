// A layer's tensors are read from their source to their final place. Queries, keys and values are
// read to scratch first, since their rows are reordered and factorized.
#include "model/convert/convert.h"

#include "model/convert/factorize.h"

#include <stdlib.h>
#include <string.h>

// rows [E]: the rows of a head in the order in which MLA stores them: the first halves of the kept
// pairs, their second halves, then every other dim, ascending.
static void order_rows(int *rows, const int32_t *pairs, int P, int E)
{
    int n_nope = 0, next = 0; // next: first kept pair whose dim comes later
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

// to [n, D] = the rows of a head [E, D] that `rows` names.
static void gather_rows(float *to, const float *head, const int *rows, int n, int D)
{
    for (int i = 0; i < n; i++)
        memcpy(to + (int64_t)i * D, head + (int64_t)rows[i] * D, (size_t)D * sizeof *to);
}

// RoPE rows of all heads first, then NoPE rows of all heads, as the reference's files have them
// (model/params.h).
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

// Key rows [K E, D] -> kept ones k_r [K 2P, D] and those to factorize k_c [K (E - 2P), D].
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

// kv: the rows of W_kc [K (E - 2P), D], then those of W_v [K E, D].
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

// The original's tensors that MLA replaces, in one arena.
typedef struct Scratch {
    float *q;  // [H E, D] queries, then keys [K E, D]: these are not more
    float *kv; // [K (E - 2P) + K E, D] what is factorized
    int *rows; // [E] of order_rows()
} Scratch;

static void place_scratch(Scratch *scratch, Arena *arena, const ModelShape *s)
{
    scratch->q = arena_floats(arena, (int64_t)shape_dim(s, DIM_Q) * s->d_model);
    scratch->kv = arena_floats(arena, (int64_t)(shape_dim(s, DIM_K_NOPE) + shape_dim(s, DIM_KV)) *
                                          s->d_model);
    scratch->rows = arena_place(arena, s->head_dim, sizeof *scratch->rows);
}

void convert_measure(Arena *arena, const ModelShape *s)
{
    Scratch scratch;
    int D = s->d_model, R1 = shape_dim(s, DIM_UP_INPUT);
    int rows_k = shape_dim(s, DIM_K_NOPE), rows_v = shape_dim(s, DIM_KV);
    int64_t mark = arena->used_bytes;
    place_scratch(&scratch, arena, s);
    if (s->svd == SVD_JOINT) {
        factorize_measure(arena, rows_k + rows_v, D, R1);
    } else {
        factorize_measure(arena, rows_k, D, R1);
        factorize_measure(arena, rows_v, D, R1);
    }
    arena_rewind(arena, mark);
}

// The place in the converted model of a tensor that both models have: all but those that
// attention's input is multiplied by.
static float *place_of(const Model *mla, const char *name)
{
    ParamInfo info;
    CHECK(params_find(&info, &mla->shape, name), "%s: not in the converted model", name);
    return mla->params.flat + info.offset;
}

// Names carry the layer in front: model.layers.3.self_attn.q_proj.weight.
static bool is_named(const ParamInfo *info, const char *end)
{
    const size_t length = strlen(info->name), end_length = strlen(end);
    return length >= end_length && strcmp(info->name + length - end_length, end) == 0;
}

// Tensors come one by one in the order of the original's table, q before k before v: scratch->q is
// free for the keys once the queries are reordered.
static Status read_layer(Model *mla, const WeightSource *original, int layer, Scratch *scratch)
{
    const ModelShape *s = &mla->shape;
    LayerParams *to = &mla->params.layers[layer];
    float *values = scratch->kv + (int64_t)shape_dim(s, DIM_K_NOPE) * s->d_model;
    for (int i = 0; i < params_n_tensors(original->shape); i++) {
        ParamInfo info = params_info(original->shape, i);
        if (info.layer != layer)
            continue;
        const bool is_q = is_named(&info, "q_proj.weight"), is_k = is_named(&info, "k_proj.weight"),
                   is_v = is_named(&info, "v_proj.weight");
        float *to_values = is_q || is_k ? scratch->q : is_v ? values : place_of(mla, info.name);
        TRY(weight_source_read(original, &info, to_values));
        if (is_q)
            reorder_queries(to->q, mla, scratch->q, layer, scratch->rows);
        else if (is_k)
            divide_keys(to->k_r, scratch->kv, mla, scratch->q, layer, scratch->rows);
    }
    return OK;
}

// Only attention may differ.
static void check_pair(const Model *mla, const WeightSource *original)
{
    const ModelShape *a = &mla->shape, *b = original->shape;
    CHECK(shape_is_mla(a) && !shape_is_mla(b), "d_kv %d from %d", a->d_kv, b->d_kv);
    // shape_convert() made the one from the other, so a difference is our fault.
    CHECK(a->n_layers == b->n_layers && a->d_model == b->d_model && a->n_heads == b->n_heads &&
              a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim &&
              a->d_ffn == b->d_ffn && a->vocab_size == b->vocab_size &&
              a->tied_head == b->tied_head,
          "the models differ in more than their attention");
}

// The tensors outside the layers: embedding, last norm and head.
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
    Scratch scratch;
    check_pair(mla, original);
    Arena arena = arena_start("conversion");
    place_scratch(&scratch, &arena, s);
    if (arena_allocate(&arena) != OK)
        return fail(FAILED, "layer %d: no memory for its attention's weights", layer);
    place_scratch(&scratch, &arena, s);
    Status status;
    TRY_GOTO(release, read_layer(mla, original, layer, &scratch));
    status = factorize_layer(&mla->params.layers[layer], s, scratch.kv);
    if (status != OK) // factorize() knows no layers; errors of the source name their tensor
        status = fail_within(status, "layer %d", layer);
release:
    arena_release(&arena);
    return status;
}
