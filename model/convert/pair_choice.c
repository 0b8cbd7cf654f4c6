// Every candidate is judged by solving its own small system: 2 (E/2 - P) unknowns. That is quick
// beside the statistics, and needs no update formulas.
#include "model/convert/pair_choice.h"

#include <lapacke.h>
#include <string.h>

static const double SHRINKAGE = .02; // of the diagonal, towards the map without absorption

static void place(PairChoice *choice, Arena *arena, int half)
{
    const int64_t unknowns = 2 * (int64_t)half;
    choice->half = half;
    choice->system = arena_place(arena, unknowns * unknowns, sizeof(double));
    choice->right = arena_place(arena, unknowns, sizeof(double));
    choice->solution = arena_place(arena, unknowns, sizeof(double));
    choice->b = arena_place(arena, unknowns, sizeof(double));
    choice->map = arena_place(arena, unknowns, sizeof(double));
    choice->rest = arena_place(arena, half, sizeof(int32_t));
    choice->trial = arena_place(arena, half, sizeof(int32_t));
    choice->taken = arena_place(arena, half, sizeof(int32_t));
}

void pair_choice_measure(Arena *arena, int half)
{
    PairChoice choice;
    const int64_t mark = arena->used_bytes;
    place(&choice, arena, half);
    arena_rewind(arena, mark);
}

Status pair_choice_start(PairChoice *out, int half)
{
    PairChoice choice = {.arena = arena_start("choice of RoPE pairs")};
    place(&choice, &choice.arena, half);
    TRY(arena_allocate(&choice.arena));
    place(&choice, &choice.arena, half);
    *out = choice;
    return OK;
}

void pair_choice_end(PairChoice *choice)
{
    arena_release(&choice->arena);
    *choice = (PairChoice){0};
}

static bool is_kept(const int32_t *kept, int P, int pair)
{
    for (int i = 0; i < P; i++)
        if (kept[i] == pair)
            return true;
    return false;
}

// Index in the Gram matrix of unknown u of the n pairs that are not kept: f1 of them, then f2.
static int feature_of(const PairChoice *choice, int u, int n)
{
    return choice->half * (1 + u / n) + choice->rest[u % n];
}

// right [2n] = sum over the pairs' t of G[f, t].
static void sum_columns(PairChoice *choice, const double *gram, int n)
{
    const int S = 3 * choice->half;
    for (int u = 0; u < 2 * n; u++) {
        const double *row = gram + (int64_t)feature_of(choice, u, n) * S;
        choice->right[u] = 0;
        for (int i = 0; i < n; i++)
            choice->right[u] += row[choice->rest[i]];
    }
}

// b [2n] = the solution. A feature that is never there gets its b0, as all do if the system is not
// positive definite in rounding.
static void solve(PairChoice *choice, const double *gram, int n)
{
    const int S = 3 * choice->half, unknowns = 2 * n;
    double *system = choice->system, *b = choice->b;
    for (int u = 0; u < unknowns; u++) {
        const double *row = gram + (int64_t)feature_of(choice, u, n) * S;
        for (int v = 0; v < unknowns; v++)
            system[(int64_t)u * unknowns + v] = row[feature_of(choice, v, n)];
        double *diagonal = &system[(int64_t)u * (unknowns + 1)];
        const double shrinkage = *diagonal > 0 ? SHRINKAGE * *diagonal : 1;
        *diagonal += shrinkage;
        choice->solution[u] = choice->right[u] + shrinkage * b[u];
    }
    if (LAPACKE_dposv(LAPACK_COL_MAJOR, 'L', unknowns, 1, system, unknowns, choice->solution,
                      unknowns) == 0)
        memcpy(b, choice->solution, (size_t)unknowns * sizeof *b);
}

// The pairs that are not kept, in choice->rest; returns their number.
static int list_rest(PairChoice *choice, const int32_t *kept, int P)
{
    int n = 0;
    for (int p = 0; p < choice->half; p++)
        if (!is_kept(kept, P, p))
            choice->rest[n++] = p;
    return n;
}

// 1^T G_tt 1 - 2 b^T y + b^T G_ff b.
static double error_of(const PairChoice *choice, const double *gram, int n)
{
    const int S = 3 * choice->half;
    double error = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            error += gram[(int64_t)choice->rest[i] * S + choice->rest[j]];
    for (int u = 0; u < 2 * n; u++) {
        const double *row = gram + (int64_t)feature_of(choice, u, n) * S;
        double sum = -2 * choice->right[u];
        for (int v = 0; v < 2 * n; v++)
            sum += row[feature_of(choice, v, n)] * choice->b[v];
        error += choice->b[u] * sum;
    }
    return error;
}

double pair_choice_map(double *map, PairChoice *choice, const double *gram, const int32_t *kept,
                       int P, bool absorb)
{
    const int n = list_rest(choice, kept, P), half = choice->half;
    for (int p = 0; p < half; p++) {
        map[p] = 1;
        map[half + p] = 0;
    }
    if (n == 0)
        return 0;
    for (int u = 0; u < 2 * n; u++)
        choice->b[u] = u < n ? 1 : 0;
    sum_columns(choice, gram, n);
    if (absorb)
        solve(choice, gram, n);
    for (int i = 0; i < n; i++) {
        map[choice->rest[i]] = choice->b[i];
        map[half + choice->rest[i]] = choice->b[n + i];
    }
    return error_of(choice, gram, n);
}

// Sum of the errors of the heads that share the KV head.
static double group_error(PairChoice *choice, const double *grams, int n_heads, const int32_t *kept,
                          int P, bool absorb)
{
    const int64_t square = 9 * (int64_t)choice->half * choice->half;
    double error = 0;
    for (int h = 0; h < n_heads; h++)
        error += pair_choice_map(choice->map, choice, grams + h * square, kept, P, absorb);
    return error;
}

// Replaces one kept pair by another where that is best; false: no swap improves.
static bool swap_best(int32_t *kept, PairChoice *choice, const double *grams, int n_heads, int P,
                      bool absorb, double *error)
{
    // Relative: rounding must not swap back and forth, nor must it where it has made an error of
    // nothing negative.
    static const double LEAST_GAIN = 1e-12;
    int best_out = -1, best_in = -1;
    double best = *error * (*error > 0 ? 1 - LEAST_GAIN : 1 + LEAST_GAIN);
    for (int out = 0; out < P; out++)
        for (int in = 0; in < choice->half; in++) {
            if (is_kept(kept, P, in))
                continue;
            memcpy(choice->trial, kept, (size_t)P * sizeof *kept);
            choice->trial[out] = in;
            const double trial = group_error(choice, grams, n_heads, choice->trial, P, absorb);
            if (trial < best) {
                best = trial;
                best_out = out;
                best_in = in;
            }
        }
    if (best_out < 0)
        return false;
    kept[best_out] = best_in;
    *error = best;
    return true;
}

void pair_choice_without_rope(double *grams, int n_heads, int half)
{
    const int64_t S = 3 * (int64_t)half;
    for (int64_t row = 0; row < n_heads * S; row++) {
        const int64_t first = row % S < half ? half : 0;
        memset(grams + row * S + first, 0, (size_t)(S - first) * sizeof *grams);
    }
}

static void sort(int32_t *kept, int P)
{
    for (int i = 1; i < P; i++)
        for (int j = i; j > 0 && kept[j] < kept[j - 1]; j--) {
            const int32_t other = kept[j];
            kept[j] = kept[j - 1];
            kept[j - 1] = other;
        }
}

// Puts the pair that helps most behind the n kept ones; returns the error with it.
static double take_best(int32_t *kept, PairChoice *choice, const double *grams, int n_heads, int n,
                        bool absorb)
{
    double error = 0;
    int best = -1;
    for (int p = 0; p < choice->half; p++) {
        if (is_kept(kept, n, p))
            continue;
        kept[n] = p;
        const double trial = group_error(choice, grams, n_heads, kept, n + 1, absorb);
        if (best < 0 || trial < error) {
            best = p;
            error = trial;
        }
    }
    kept[n] = best;
    return error;
}

double pair_choice(int32_t *kept, PairChoice *choice, const double *grams, int n_heads, int P,
                   bool absorb)
{
    CHECK(P >= 0 && P <= choice->half, "%d pairs of %d", P, choice->half);
    double error = group_error(choice, grams, n_heads, kept, 0, absorb);
    for (int n = 0; n < P; n++)
        error = take_best(kept, choice, grams, n_heads, n, absorb);
    while (swap_best(kept, choice, grams, n_heads, P, absorb, &error))
        ;
    sort(kept, P);
    return error;
}

void pair_choice_errors(double *errors, PairChoice *choice, const double *grams, int n_heads, int P,
                        bool absorb)
{
    CHECK(P >= 0 && P <= choice->half, "%d pairs of %d", P, choice->half);
    errors[0] = group_error(choice, grams, n_heads, choice->taken, 0, absorb);
    for (int n = 0; n < P; n++)
        errors[n + 1] = take_best(choice->taken, choice, grams, n_heads, n, absorb);
}
