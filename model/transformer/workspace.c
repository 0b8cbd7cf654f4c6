// Attention, feed-forward and head are never at work together, and layers keep what their backward
// reads until it has run: what lies where follows from that.
#include "model/transformer/workspace.h"

#include "base/intmath.h"
#include "model/attention/mla.h"
#include "model/kernels/head.h"

// Where what a layer leaves for backward goes: over gradients as far as those are lent, then in the
// arena.
typedef struct Room {
    GradientReuse *reuse;
    Arena *arena;
    int layer;
} Room;

static float *room_floats(const Room *room, int64_t count)
{
    float *values;
    return gradient_reuse_take(&values, room->reuse, room->layer, count)
               ? values
               : arena_floats(room->arena, count);
}

// Floats of a token in qkv.
static int64_t qkv_width(const Workspace *ws)
{
    return ws->is_latent ? latent_columns(&ws->latent).row : attention_row(&ws->attention);
}

static void place_attention(LayerSaved *saved, const Room *room, const Workspace *ws,
                            const ModelShape *s)
{
    int64_t N = (int64_t)ws->B * ws->T;
    saved->attn_inv_rms = room_floats(room, N);
    saved->latent = room_floats(room, ws->is_latent ? 0 : N * shape_dim(s, DIM_LATENT));
    saved->qkv = room_floats(room, N * qkv_width(ws));
    if (ws->is_latent)
        saved->values = room_floats(room, N * s->n_heads * ws->latent.value_latent);
    saved->attn_out = ws->is_latent ? ws->attn_out : room_floats(room, N * shape_dim(s, DIM_Q));
    saved->lse = room_floats(room, N * s->n_heads);
}

static void place_ffn(LayerSaved *saved, const Room *room, const ModelShape *s, int64_t N)
{
    saved->x_mid = room_floats(room, N * s->d_model);
    saved->ffn_inv_rms = room_floats(room, N);
    saved->gate_up = room_floats(room, N * 2 * s->d_ffn);
}

// What each layer has for itself or, with is_own false, what they share.
static void place_layer(LayerSaved *saved, const Room *room, const Workspace *ws,
                        const ModelShape *s, bool is_own)
{
    const int64_t N = (int64_t)ws->B * ws->T;
    const ActivationPolicy policy = ws->policy;
    if ((policy != FORWARD_ONLY) == is_own)
        saved->x_in = room_floats(room, N * s->d_model);
    if ((policy == RECOMPUTE_NONE) == is_own)
        place_attention(saved, room, ws, s);
    if ((policy == RECOMPUTE_NONE || policy == RECOMPUTE_ATTENTION) == is_own)
        place_ffn(saved, room, s, N);
}

// From the last layer down, as gradients are lent. After the scratch, where some of it may lie.
static void place_layers(Workspace *ws, Arena *arena, const ModelShape *s)
{
    GradientReuse nothing = {0};
    LayerSaved saved = {0};
    place_layer(&saved, &(Room){&nothing, arena, 0}, ws, s, false);
    for (int l = s->n_layers - 1; l >= 0; l--) {
        place_layer(&saved, &(Room){&ws->reuse, arena, l}, ws, s, true);
        if (ws->layers != NULL)
            ws->layers[l] = saved;
    }
}

static void place_attention_scratch(Workspace *ws, Arena *arena, const ModelShape *s, int n_threads)
{
    int64_t N = (int64_t)ws->B * ws->T;
    bool expands = shape_is_mla(s) && !ws->is_latent, is_training = ws->policy != FORWARD_ONLY;
    ws->projected = arena_floats(arena, expands ? N * mla_projected_width(s) : 0);
    ws->expanded = arena_floats(arena, expands ? N * mla_expanded_width(s) : 0);
    ws->attn_out = arena_floats(arena, ws->is_latent ? N * shape_dim(s, DIM_Q) : 0);
    ws->attention_scratch = arena_floats(
        arena, ws->is_latent ? attention_latent_scratch_floats(&ws->latent, n_threads, is_training)
                             : attention_scratch_floats(&ws->attention, n_threads, is_training));
    if (!is_training)
        return;
    ws->d_qkv = arena_floats(arena, N * qkv_width(ws));
    ws->d_attn_out = arena_floats(arena, N * shape_dim(s, DIM_Q));
}

static void place_head_scratch(Workspace *ws, Arena *arena, const ModelShape *s)
{
    int64_t N = (int64_t)ws->B * ws->T, block = head_block(s->vocab_size);
    ws->logits = arena_floats(arena, (N < block ? N : block) * s->vocab_size);
}

// What goes into the head and its gradient, over gradients: then nothing of the layers' scratch is
// in use while the head is at work.
static bool take_head_input(Workspace *ws, const ModelShape *s)
{
    const int64_t count = (int64_t)ws->B * ws->T * s->d_model;
    return gradient_reuse_take(&ws->head_in, &ws->reuse, s->n_layers, count) &&
           gradient_reuse_take(&ws->d_head_in, &ws->reuse, s->n_layers, count);
}

// Attention, feed-forward and head are never at work together: theirs begins at the same place.
static void place_scratch(Workspace *ws, Arena *arena, const ModelShape *s, int n_threads)
{
    int64_t N = (int64_t)ws->B * ws->T;
    const bool is_training = ws->policy != FORWARD_ONLY;
    const bool is_apart = take_head_input(ws, s);
    if (!is_apart) {
        ws->head_in = arena_floats(arena, N * s->d_model);
        ws->d_head_in = is_training ? arena_floats(arena, N * s->d_model) : NULL;
    }
    const int64_t head_first = arena->used_bytes;
    place_head_scratch(ws, arena, s);
    int64_t end = arena->used_bytes;
    arena_rewind(arena, head_first);
    ws->normed = is_apart ? arena_floats(arena, N * s->d_model) : ws->head_in;
    ws->d_normed = is_apart ? arena_floats(arena, N * s->d_model) : ws->d_head_in;
    ws->dx = is_training ? arena_floats(arena, N * s->d_model) : NULL;
    const int64_t first = arena->used_bytes;
    place_attention_scratch(ws, arena, s, n_threads);
    end = max_int64(end, arena->used_bytes);
    arena_rewind(arena, first);
    ws->act = arena_floats(arena, N * s->d_ffn);
    end = max_int64(end, arena->used_bytes);
    arena_rewind(arena, head_first);
    arena_place(arena, end - head_first, 1);
}

void workspace_place_reusing(Workspace *ws, const GradientReuse *reuse, Arena *activations,
                             Arena *scratch, const ModelShape *s, int B, int T, int n_threads,
                             ActivationPolicy policy)
{
    int64_t N = (int64_t)B * T;
    *ws = (Workspace){
        .B = B,
        .T = T,
        .placed_B = B,
        .policy = policy,
        .reuse = *reuse,
        .attention = {B, T, s->n_heads, s->n_kv_heads, s->head_dim},
    };
    if (shape_is_mla(s)) {
        ws->latent = mla_latent_dims(s, B, T);
        ws->is_latent = latent_attention_pays(&ws->latent);
    }
    ws->cos_table = arena_floats(activations, (int64_t)T * (s->head_dim / 2));
    ws->sin_table = arena_floats(activations, (int64_t)T * (s->head_dim / 2));
    place_scratch(ws, scratch, s, n_threads);
    const Room room = {&ws->reuse, activations, s->n_layers};
    ws->hidden = room_floats(&room, N * s->d_model);
    ws->inv_rms = room_floats(&room, N);
    ws->layers = arena_place(activations, s->n_layers, sizeof *ws->layers);
    place_layers(ws, activations, s);
}

void workspace_place(Workspace *ws, Arena *activations, Arena *scratch, const ModelShape *s, int B,
                     int T, int n_threads, ActivationPolicy policy)
{
    const GradientReuse nothing = {0};
    workspace_place_reusing(ws, &nothing, activations, scratch, s, B, T, n_threads, policy);
}

void workspace_set_batch(Workspace *ws, int B)
{
    CHECK(B >= 1 && B <= ws->placed_B, "batch of %d, placed for %d", B, ws->placed_B);
    ws->B = B;
    ws->attention.B = B;
    ws->latent.B = B;
}
