// Attention, feed-forward and head are never at work together, and layers keep what their backward
// reads until it has run: the sharing of memory follows from that.
#include "model/transformer/workspace.h"

#include "base/intmath.h"
#include "model/kernels/head.h"

// Floats that take the memory of n rows.
static int64_t as_floats(Rows rows, int64_t n)
{
    const int64_t float_bytes = sizeof(float);
    return (n * rows.ld * dtype_size_bytes(rows.dtype) + float_bytes - 1) / float_bytes;
}

// Where what a layer leaves for backward goes: gradient memory as far as that reaches, then the
// arena.
typedef struct Placement {
    GradientReuse *reuse;
    Arena *arena;
    int layer;
} Placement;

static float *place_floats(const Placement *placement, int64_t count)
{
    float *values;
    return gradient_reuse_take(&values, placement->reuse, placement->layer, count)
               ? values
               : arena_floats(placement->arena, count);
}

static Rows place_rows(const Placement *placement, ComputeType compute, int64_t n, int width)
{
    Rows rows = compute_rows(compute, width);
    rows.data = place_floats(placement, as_floats(rows, n));
    return rows;
}

// The same, which need not be kept.
static Rows scratch_rows(Arena *arena, ComputeType compute, int64_t n, int width)
{
    Rows rows = compute_rows(compute, width);
    rows.data = arena_floats(arena, as_floats(rows, n));
    return rows;
}

// Whether a norm's backward reads rows of its input over its rms in bfloat16 instead of the
// residual stream: half the memory. Then only recomputation reads the stream again.
static bool keeps_normalized(const Workspace *ws)
{
    return ws->compute == COMPUTE_BFLOAT16 && ws->policy != FORWARD_ONLY;
}

// Saved buffers of attention in the order of the picture in the header; a width of 0 takes no
// memory.
static void place_attention(LayerSaved *saved, const Placement *placement, const Workspace *ws,
                            const ModelShape *s)
{
    const AttentionWidths widths = ws->form->widths(s);
    const int64_t N = (int64_t)ws->B * ws->T;
    saved->attn_inv_rms = place_floats(placement, N);
    if (keeps_normalized(ws))
        saved->attn_normalized = place_rows(placement, ws->compute, N, s->d_model);
    saved->attention.latent = place_rows(placement, ws->compute, N, widths.latent);
    saved->attention.heads = place_rows(placement, ws->compute, N, widths.heads);
    saved->attention.qkv = place_rows(placement, ws->compute, N, widths.qkv);
    saved->attention.values = place_rows(placement, ws->compute, N, widths.values);
    saved->attention.out = widths.remakes_out
                               ? ws->attn_out
                               : place_rows(placement, ws->compute, N, shape_dim(s, DIM_Q));
    saved->attention.lse = place_floats(placement, N * s->n_heads);
}

static void place_ffn(LayerSaved *saved, const Placement *placement, const Workspace *ws,
                      const ModelShape *s)
{
    const int64_t N = (int64_t)ws->B * ws->T;
    if (keeps_normalized(ws))
        saved->ffn_normalized = place_rows(placement, ws->compute, N, s->d_model);
    else
        saved->x_mid = place_floats(placement, N * s->d_model);
    saved->ffn_inv_rms = place_floats(placement, N);
    saved->gate_up = place_rows(placement, ws->compute, N, 2 * s->d_ffn);
}

// What each layer has for itself or, with is_own false, what they share.
static void place_layer(LayerSaved *saved, const Placement *placement, const Workspace *ws,
                        const ModelShape *s, bool is_own)
{
    const int64_t N = (int64_t)ws->B * ws->T;
    const ActivationPolicy policy = ws->policy;
    const bool needs_input =
        keeps_normalized(ws) ? policy != RECOMPUTE_NONE : policy != FORWARD_ONLY;
    if (needs_input == is_own)
        saved->x_in = place_floats(placement, N * s->d_model);
    if (keeps_normalized(ws) && !is_own)
        saved->x_mid = place_floats(placement, N * s->d_model);
    if ((policy == RECOMPUTE_NONE) == is_own)
        place_attention(saved, placement, ws, s);
    if ((policy == RECOMPUTE_NONE || policy == RECOMPUTE_ATTENTION) == is_own)
        place_ffn(saved, placement, ws, s);
}

// From the last layer down, the order of gradient_reuse_take(). After the scratch, which may take
// gradient memory first.
static void place_layers(Workspace *ws, Arena *arena, const ModelShape *s)
{
    GradientReuse no_reuse = {0};
    LayerSaved saved = {0};
    place_layer(&saved, &(Placement){&no_reuse, arena, 0}, ws, s, false);
    // `saved` keeps the shared pointers from the call above; each layer overwrites only its own.
    for (int l = s->n_layers - 1; l >= 0; l--) {
        place_layer(&saved, &(Placement){&ws->reuse, arena, l}, ws, s, true);
        if (ws->layers != NULL)
            ws->layers[l] = saved;
    }
}

static void place_attention_scratch(Workspace *ws, Arena *arena, const ModelShape *s, int n_threads)
{
    const AttentionWidths widths = ws->form->widths(s);
    const int64_t N = (int64_t)ws->B * ws->T;
    const bool is_training = ws->policy != FORWARD_ONLY;
    const int Q = shape_dim(s, DIM_Q);
    ws->projected = scratch_rows(arena, ws->compute, N, widths.projected);
    ws->expanded = scratch_rows(arena, ws->compute, N, widths.expanded);
    ws->attn_out = scratch_rows(arena, ws->compute, widths.remakes_out ? N : 0, Q);
    ws->attention_tiles = arena_place(
        arena, ws->form->tile_bytes(s, ws->compute, ws->B, ws->T, n_threads, is_training), 1);
    if (!is_training)
        return;
    ws->d_qkv = scratch_rows(arena, ws->compute, N, widths.qkv);
    ws->d_attn_out = scratch_rows(arena, ws->compute, N, Q);
}

static void place_head_scratch(Workspace *ws, Arena *arena, const ModelShape *s)
{
    const bool is_training = ws->policy != FORWARD_ONLY;
    ws->head_scratch = arena_place(
        arena, head_scratch_bytes(ws->compute, ws->B * ws->T, s->vocab_size, is_training), 1);
}

// The head's input and its gradient in gradient memory: then nothing of the layers' scratch is in
// use while the head is at work.
static bool take_head_input(Workspace *ws, const ModelShape *s)
{
    const int64_t N = (int64_t)ws->B * ws->T;
    Rows rows = compute_rows(ws->compute, s->d_model);
    float *head_in;
    if (!gradient_reuse_take(&head_in, &ws->reuse, s->n_layers, as_floats(rows, N)) ||
        !gradient_reuse_take(&ws->d_head_in, &ws->reuse, s->n_layers, N * s->d_model))
        return false;
    rows.data = head_in;
    ws->head_in = rows;
    return true;
}

// Attention's, feed-forward's and the head's scratch begin at the same place.
static void place_scratch(Workspace *ws, Arena *arena, const ModelShape *s, int n_threads)
{
    const int64_t N = (int64_t)ws->B * ws->T;
    const bool is_training = ws->policy != FORWARD_ONLY;
    const bool is_apart = take_head_input(ws, s);
    if (!is_apart) {
        ws->head_in = scratch_rows(arena, ws->compute, N, s->d_model);
        ws->d_head_in = is_training ? arena_floats(arena, N * s->d_model) : NULL;
    }
    // Three phases start at the same offset; the arena is rewound between them and at last extended
    // to the longest.
    const int64_t head_first = arena->used_bytes;
    place_head_scratch(ws, arena, s);
    int64_t end = arena->used_bytes;
    arena_rewind(arena, head_first);
    ws->normed = is_apart ? scratch_rows(arena, ws->compute, N, s->d_model) : ws->head_in;
    ws->d_normed = is_apart ? arena_floats(arena, N * s->d_model) : ws->d_head_in;
    ws->dx = is_training ? arena_floats(arena, N * s->d_model) : NULL;
    if (is_training && ws->compute == COMPUTE_BFLOAT16)
        ws->dx_rounded = scratch_rows(arena, ws->compute, N, s->d_model);
    const int64_t first = arena->used_bytes;
    place_attention_scratch(ws, arena, s, n_threads);
    end = max_int64(end, arena->used_bytes);
    arena_rewind(arena, first);
    ws->act = scratch_rows(arena, ws->compute, N, s->d_ffn);
    end = max_int64(end, arena->used_bytes);
    arena_rewind(arena, head_first);
    arena_place(arena, end - head_first, 1);
}

// The caller runs it twice, first with measuring arenas: `layers` is NULL then, and pointers are
// not read.
void workspace_place_reusing(Workspace *ws, const GradientReuse *reuse, Arena *activations,
                             Arena *scratch, const ModelShape *s, int B, int T, int n_threads,
                             ActivationPolicy policy, ComputeType compute)
{
    const int64_t N = (int64_t)B * T;
    *ws = (Workspace){
        .B = B,
        .T = T,
        .placed_B = B,
        .policy = policy,
        .compute = compute,
        .reuse = *reuse,
        .form = attention_form(s, compute, T),
    };
    ws->cos_table = arena_floats(activations, (int64_t)T * (s->head_dim / 2));
    ws->sin_table = arena_floats(activations, (int64_t)T * (s->head_dim / 2));
    if (layer_set_count(&s->no_rope) > 0) {
        ws->no_rope_cos = arena_floats(activations, (int64_t)T * (s->head_dim / 2));
        ws->no_rope_sin = arena_floats(activations, (int64_t)T * (s->head_dim / 2));
    }
    place_scratch(ws, scratch, s, n_threads);
    const Placement placement = {&ws->reuse, activations, s->n_layers};
    ws->hidden = place_floats(&placement, N * s->d_model);
    ws->inv_rms = place_floats(&placement, N);
    ws->layers = arena_place(activations, s->n_layers, sizeof *ws->layers);
    place_layers(ws, activations, s);
}

void workspace_place(Workspace *ws, Arena *activations, Arena *scratch, const ModelShape *s, int B,
                     int T, int n_threads, ActivationPolicy policy, ComputeType compute)
{
    const GradientReuse no_reuse = {0};
    workspace_place_reusing(ws, &no_reuse, activations, scratch, s, B, T, n_threads, policy,
                            compute);
}

void workspace_set_batch(Workspace *ws, int B)
{
    CHECK(B >= 1 && B <= ws->placed_B, "batch of %d, placed for %d", B, ws->placed_B);
    ws->B = B;
}
