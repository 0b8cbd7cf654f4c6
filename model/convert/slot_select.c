// Errors of KV heads add up, so the best counts are a knapsack's: least[n] is the least sum of the
// heads so far with n slots, and counts are found backwards from the last head.
#include "model/convert/slot_select.h"

#include "base/intmath.h"
#include "model/convert/pair_choice.h"
#include "model/convert/rope_select.h"
#include "model/convert/slots.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

// What a layer's choice works in.
typedef struct Selection {
    Arena arena;         // owns what follows
    PairChoice *choices; // [n_threads], each owned
    int n_threads, most; // slots that a KV head can get: P, at most E/2
    double *gram;        // [H, S, S]
    double *errors;      // [K, most + 1] with so many slots
    bool *is_exact;      // [K, most + 1] with swaps
    double *least;       // [K + 1, P + 1]
    int *taken;          // [K, P + 1] slots of head j in the best choice of n slots up to it
    int32_t *kept;       // [K, most + 1, most] of exact counts
    int *counts;         // [K]
} Selection;

static void place(Selection *selection, Arena *arena, const ModelShape *s, int P)
{
    const int64_t K = s->n_kv_heads, S = statistics_features(s), most = selection->most;
    selection->choices = arena_place(arena, selection->n_threads, sizeof *selection->choices);
    selection->gram = arena_place(arena, s->n_heads * S * S, sizeof(double));
    selection->errors = arena_place(arena, K * (most + 1), sizeof(double));
    selection->is_exact = arena_place(arena, K * (most + 1), sizeof(bool));
    selection->least = arena_place(arena, (K + 1) * (P + 1), sizeof(double));
    selection->taken = arena_place(arena, K * (P + 1), sizeof(int));
    selection->kept = arena_place(arena, K * (most + 1) * most, sizeof(int32_t));
    selection->counts = arena_place(arena, K, sizeof(int));
}

static Status start(Selection *selection, const ModelShape *s, int P)
{
    selection->n_threads = omp_get_max_threads();
    selection->most = min_int(P, s->head_dim / 2);
    selection->arena = arena_start("choice of slots");
    place(selection, &selection->arena, s, P);
    TRY(arena_allocate(&selection->arena));
    place(selection, &selection->arena, s, P);
    memset(selection->choices, 0, (size_t)selection->n_threads * sizeof *selection->choices);
    for (int i = 0; i < selection->n_threads; i++)
        TRY(pair_choice_start(&selection->choices[i], s->head_dim / 2));
    return OK;
}

static void release(Selection *selection)
{
    for (int i = 0; selection->choices != NULL && i < selection->n_threads; i++)
        pair_choice_end(&selection->choices[i]);
    arena_release(&selection->arena);
}

static void spread(Selection *selection, int K, int P)
{
    const int most = selection->most, row = P + 1;
    double *least = selection->least;
    for (int n = 0; n <= P; n++)
        least[n] = n == 0 ? 0 : INFINITY;
    for (int64_t j = 0; j < K; j++) {
        const double *errors = selection->errors + j * (most + 1);
        const double *before = least + j * row;
        double *after = least + (j + 1) * row;
        for (int n = 0; n <= P; n++) {
            int *taken = &selection->taken[j * row + n];
            after[n] = INFINITY;
            *taken = 0;
            for (int own = 0; own <= min_int(most, n); own++)
                if (before[n - own] + errors[own] < after[n]) {
                    after[n] = before[n - own] + errors[own];
                    *taken = own;
                }
        }
    }
    int left = P;
    for (int64_t j = K - 1; j >= 0; j--) {
        selection->counts[j] = selection->taken[j * row + left];
        left -= selection->counts[j];
    }
    CHECK(left == 0, "%d slots are left", left);
}

// What a layer is chosen for.
typedef struct Choosing {
    const ModelShape *shape;
    int P;
    bool absorb;
} Choosing;

static const double *grams_of(const Selection *selection, const ModelShape *s, int kv_head)
{
    const int64_t S = statistics_features(s);
    return selection->gram + kv_head * (s->n_heads / s->n_kv_heads) * S * S;
}

// Pairs and errors with swaps of the counts at hand and of one slot more and less. False: all were
// known.
static bool refine(Selection *selection, const Choosing *choosing)
{
    const ModelShape *s = choosing->shape;
    const int K = s->n_kv_heads, G = s->n_heads / K, most = selection->most;
    int n_new = 0;
#pragma omp parallel for schedule(dynamic) reduction(+ : n_new)
    for (int i = 0; i < 3 * K; i++) {
        const int j = i / 3, n = selection->counts[j] + i % 3 - 1;
        const int64_t at = (int64_t)j * (most + 1) + n;
        if (n < 0 || n > most || selection->is_exact[at])
            continue;
        selection->errors[at] =
            pair_choice(selection->kept + at * most, &selection->choices[omp_get_thread_num()],
                        grams_of(selection, s, j), G, n, choosing->absorb);
        selection->is_exact[at] = true;
        n_new++;
    }
    return n_new > 0;
}

static void choose_layer(int32_t *slots, Selection *selection, const Choosing *choosing)
{
    const ModelShape *s = choosing->shape;
    const int K = s->n_kv_heads, G = s->n_heads / K, most = selection->most, P = choosing->P;
    memset(selection->is_exact, 0, (size_t)K * (size_t)(most + 1) * sizeof(bool));
#pragma omp parallel for schedule(static)
    for (int j = 0; j < K; j++)
        pair_choice_errors(selection->errors + (int64_t)j * (most + 1),
                           &selection->choices[omp_get_thread_num()], grams_of(selection, s, j), G,
                           most, choosing->absorb);
    do {
        spread(selection, K, P);
    } while (refine(selection, choosing));
    for (int j = 0, n = 0; j < K; j++) {
        const int64_t at = (int64_t)j * (most + 1) + selection->counts[j];
        for (int i = 0; i < selection->counts[j]; i++)
            slots[n++] = slot_of(s, j, selection->kept[at * most + i]);
    }
    slots_sort(slots, P, s);
}

static Status check_slots(const ModelShape *s, int P)
{
    const int most = s->n_kv_heads * (s->head_dim / 2);
    if (P >= 1 && P <= most)
        return OK;
    return fail(BAD_INPUT, "slots are %d, allowed are 1 to %d", P, most);
}

Status slot_select(int32_t *slots, const ModelShape *s, int P, bool absorb, StatisticsFile *file)
{
    const Choosing choosing = {s, P, absorb};
    Selection selection = {0};
    Status status;
    TRY(check_slots(s, P));
    TRY_GOTO(release, start(&selection, s, P));
    for (int l = 0; l < s->n_layers; l++) {
        TRY_GOTO(release, statistics_file_read_gram(file, l, selection.gram));
        if (!shape_rotates(s, l))
            pair_choice_without_rope(selection.gram, s->n_heads, s->head_dim / 2);
        choose_layer(slots + (int64_t)l * P, &selection, &choosing);
    }
release:
    release(&selection);
    return status;
}

// Slots in the order of their numbers: of equal scores the lower one goes first.
static void keep_largest(int32_t *slots, int P, const double *score, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        int before = 0;
        for (int other = 0; other < n; other++)
            before += score[other] > score[i] || (score[other] == score[i] && other < i);
        if (before < P)
            slots[kept++] = i;
    }
}

Status slot_select_norms(int32_t *slots, const ModelShape *s, int P, const RopeScores *scores)
{
    const int half = s->head_dim / 2, n = s->n_kv_heads * half;
    TRY(check_slots(s, P));
    TRY(rope_select_check(scores, s));
    double *score = malloc((size_t)n * sizeof *score);
    if (score == NULL)
        return fail(FAILED, "no memory for %d RoPE scores", n);
    for (int l = 0; l < s->n_layers; l++, slots += P) {
        for (int j = 0; j < s->n_kv_heads; j++)
            rope_select_scores(score + (int64_t)j * half, scores, l, j);
        keep_largest(slots, P, score, n);
        slots_sort(slots, P, s);
    }
    free(score);
    return OK;
}
