#include "model/convert/shared_layer.h"

#include "model/convert/slots.h"
#include "model/convert/whitening.h"

#include <string.h>

// Rows of slot i: first halves of all slots, then second halves; in a head pair p is rows p and
// p + E/2.
typedef struct SlotRows {
    int64_t slot[2], pair[2];
    int kv_head;
} SlotRows;

static SlotRows rows_of(const ModelShape *s, const int32_t *slots, int i)
{
    const int pair = slot_pair(s, slots[i]), half = s->head_dim / 2;
    return (SlotRows){{i, s->rope_pairs + i}, {pair, half + pair}, slot_kv_head(s, slots[i])};
}

static void copy_row(float *to, int64_t to_row, const float *from, int64_t from_row, int width)
{
    memcpy(to + to_row * width, from + from_row * width, (size_t)width * sizeof *to);
}

void shared_layer_queries(float *q, const float *original, const int32_t *slots,
                          const ModelShape *s)
{
    const int D = s->d_model, H = s->n_heads, G = H / s->n_kv_heads, n_rope = 2 * s->rope_pairs;
    const int64_t E = s->head_dim;
    float *nope = q + (int64_t)H * n_rope * D;
    memset(q, 0, (size_t)H * (size_t)n_rope * (size_t)D * sizeof *q);
    memcpy(nope, original, (size_t)(H * E) * (size_t)D * sizeof *q);
    for (int i = 0; i < s->rope_pairs; i++) {
        const SlotRows rows = rows_of(s, slots, i);
        for (int64_t h = (int64_t)rows.kv_head * G; h < (int64_t)(rows.kv_head + 1) * G; h++)
            for (int half = 0; half < 2; half++) {
                const int64_t row = h * E + rows.pair[half];
                copy_row(q, h * n_rope + rows.slot[half], original, row, D);
                memset(nope + row * D, 0, (size_t)D * sizeof *q);
            }
    }
}

void shared_layer_keys(float *k_r, float *keys, const int32_t *slots, const ModelShape *s)
{
    const int D = s->d_model;
    for (int i = 0; i < s->rope_pairs; i++) {
        const SlotRows rows = rows_of(s, slots, i);
        for (int half = 0; half < 2; half++) {
            const int64_t row = (int64_t)rows.kv_head * s->head_dim + rows.pair[half];
            copy_row(k_r, rows.slot[half], keys, row, D);
            memset(keys + row * D, 0, (size_t)D * sizeof *keys);
        }
    }
}

// to's rows of the slots = from [2P, width].
static void put_rows(float *to, const float *from, const int32_t *slots, int width,
                     const ModelShape *s)
{
    for (int i = 0; i < s->rope_pairs; i++) {
        const SlotRows rows = rows_of(s, slots, i);
        for (int half = 0; half < 2; half++)
            copy_row(to, (int64_t)rows.kv_head * s->head_dim + rows.pair[half], from,
                     rows.slot[half], width);
    }
}

void shared_layer_restore_keys(float *keys, const float *k_r, const int32_t *slots,
                               const ModelShape *s)
{
    put_rows(keys, k_r, slots, s->d_model, s);
}

static float *place(Arena *arena, const ModelShape *s)
{
    return arena_floats(arena, (int64_t)shape_dim(s, DIM_K_ROPE) * s->latent);
}

void shared_layer_measure(Arena *arena, const ModelShape *s)
{
    const int64_t mark = arena->used_bytes;
    place(arena, s);
    whitening_fit_measure(arena, shape_dim(s, DIM_K_ROPE), s->d_model, s->latent);
    arena_rewind(arena, mark);
}

Status shared_layer_fit(float *up, const float *k_r, const float *down, const double *covariance,
                        const int32_t *slots, const ModelShape *s)
{
    Arena arena = arena_start("rows of the slots");
    place(&arena, s);
    TRY(arena_allocate(&arena));
    float *fitted = place(&arena, s); // [2P, R]
    const Status status = whitening_fit(fitted, k_r, down, covariance, shape_dim(s, DIM_K_ROPE),
                                        s->d_model, s->latent);
    if (status == OK)
        put_rows(up, fitted, slots, s->latent, s);
    arena_release(&arena);
    return status;
}

// From the last head to the first, values before keys: a head's place is never before that of its
// KV head, so nothing is overwritten that is still needed.
void shared_layer_expand(LayerParams *layer, const ModelShape *s)
{
    const int64_t count = (int64_t)s->head_dim * s->latent, K = s->n_kv_heads;
    const int G = s->n_heads / s->n_kv_heads;
    for (int value = 1; value >= 0; value--) {
        float *to = value ? layer->up_v : layer->up_k;
        const float *from = layer->up_k + value * K * count;
        for (int64_t h = s->n_heads - 1; h >= 0; h--)
            memmove(to + h * count, from + h / G * count, (size_t)count * sizeof *to);
    }
}
