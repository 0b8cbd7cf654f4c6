#include "model/deepseek/rope_slots.h"

#include <math.h>
#include <stdlib.h>

void rope_slots_release(RopeSlots *slots)
{
    free(slots->pairs);
    free(slots->places);
    *slots = (RopeSlots){0};
}

// most [E/2] = of each pair the largest number of times that a layer has it.
static void count_most(int *most, int *counts, const Model *model, int row)
{
    const ModelShape *s = &model->shape;
    const int n_pairs = s->head_dim / 2;
    for (int l = 0; l < s->n_layers; l++) {
        const int32_t *pairs = model->rope_pairs + (int64_t)l * row;
        for (int p = 0; p < n_pairs; p++)
            counts[p] = 0;
        for (int i = 0; i < row; i++)
            counts[pairs[i]]++;
        for (int p = 0; p < n_pairs; p++)
            most[p] = l == 0 || counts[p] > most[p] ? counts[p] : most[p];
    }
}

// Fills up to the pairs 0, n, 2n ... for the largest n that has all; with one slot, n is 1.
static Status fill_up(int *most, int n_pairs)
{
    int divisor = 0, last = 0;
    for (int p = 0; p < n_pairs; p++) {
        if (most[p] > 1)
            return fail(BAD_INPUT,
                        "--plain-rope needs pairs that a layer keeps once: a layer has pair %d %d "
                        "times, for heads of its own",
                        p, most[p]);
        if (most[p] == 0)
            continue;
        last = p;
        for (int rest = p; rest != 0;) {
            const int next = divisor % rest;
            divisor = rest;
            rest = next;
        }
    }
    for (int p = 0; p <= last; p += divisor > 0 ? divisor : 1)
        most[p] = 1;
    return OK;
}

// Equal pairs of a layer take the slots of the pair one after another. next [E/2] is scratch.
static void place(RopeSlots *slots, int *next, const int *most, const Model *model)
{
    const ModelShape *s = &model->shape;
    int n = 0;
    for (int p = 0; p < s->head_dim / 2; p++)
        for (int i = 0; i < most[p]; i++)
            slots->pairs[n++] = p;
    for (int l = 0; l < s->n_layers; l++) {
        const int64_t first = (int64_t)l * slots->row;
        for (int p = 0, at = 0; p < s->head_dim / 2; at += most[p++])
            next[p] = at;
        for (int i = 0; i < slots->row; i++)
            slots->places[first + i] = next[model->rope_pairs[first + i]]++;
    }
}

// Slot i of plain RoPE of width 2n and base theta' rotates by theta'^(-i / n), the original's pair
// i stride by theta^(-2 i stride / E): the same for theta' = theta^(2 n stride / E), unless the
// frequencies are scaled.
static void find_stride(RopeSlots *slots, const ModelShape *shape)
{
    const int stride = slots->n_slots > 1 ? slots->pairs[1] - slots->pairs[0] : 1;
    bool is_regular = stride > 0 && shape->rope_scaling.factor == 0;
    for (int i = 0; i < slots->n_slots; i++)
        is_regular = is_regular && slots->pairs[i] == i * stride;
    slots->stride = is_regular ? stride : 0;
    slots->theta = is_regular
                       ? pow(shape->rope_theta, 2.0 * slots->n_slots * stride / shape->head_dim)
                       : shape->rope_theta;
}

Status rope_slots_create(RopeSlots *out, const Model *model, bool is_plain)
{
    const ModelShape *s = &model->shape;
    Status status = OK;
    RopeSlots slots = {.row = shape_rope_heads(s) * s->rope_pairs, .n_pairs = s->rope_pairs};
    int *most = calloc((size_t)s->head_dim, sizeof *most), *next = most + s->head_dim / 2;
    if (most == NULL)
        return fail(FAILED, "no memory for a table of %d pairs", s->head_dim / 2);
    count_most(most, next, model, slots.row);
    if (is_plain && s->rope_scaling.factor > 0)
        TRY_GOTO(free_most, fail(BAD_INPUT,
                                 "--plain-rope needs the plain frequencies of RoPE, the "
                                 "model's are scaled (llama3, factor %g)",
                                 s->rope_scaling.factor));
    if (is_plain)
        TRY_GOTO(free_most, fill_up(most, s->head_dim / 2));
    for (int p = 0; p < s->head_dim / 2; p++)
        slots.n_slots += most[p];
    slots.pairs = calloc((size_t)slots.n_slots, sizeof *slots.pairs);
    slots.places = calloc((size_t)model_n_pairs(s), sizeof *slots.places);
    if (slots.pairs == NULL || slots.places == NULL) {
        rope_slots_release(&slots);
        status = fail(FAILED, "no memory for a table of %d slots", slots.n_slots);
        goto free_most;
    }
    place(&slots, next, most, model);
    find_stride(&slots, s);
    *out = slots;
free_most:
    free(most);
    return status;
}
