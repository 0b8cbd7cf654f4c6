// Placing and checking; the sums are made in statistics_window.c.
#include "model/convert/statistics.h"

#include <math.h>
#include <stddef.h>

const char *const statistics_pool_names[] = {"layer", "kv-head", "head", NULL};

int statistics_n_pools(const ModelShape *shape, StatisticsPool pool)
{
    return pool == POOL_LAYER ? 1 : pool == POOL_KV_HEAD ? shape->n_kv_heads : shape->n_heads;
}

static double *place_squares(Arena *arena, int64_t count, int side)
{
    return arena_place(arena, count * side * side, sizeof(double));
}

static void place(LayerStatistics *to, Arena *arena, const ModelShape *s, int n_pools)
{
    to->n_pools = n_pools;
    to->covariance = place_squares(arena, 1, s->d_model);
    to->value = place_squares(arena, n_pools, s->d_model);
    to->key = place_squares(arena, n_pools, s->d_model);
    to->tau = arena_place(arena, s->n_heads, sizeof(double));
    to->query = place_squares(arena, s->n_heads, s->head_dim);
    to->gram = place_squares(arena, s->n_heads, statistics_features(s));
}

void layer_statistics_measure(Arena *arena, const ModelShape *shape, int n_pools)
{
    LayerStatistics statistics;
    const int64_t mark = arena->used_bytes;
    place(&statistics, arena, shape, n_pools);
    arena_rewind(arena, mark);
}

Status layer_statistics_create(LayerStatistics *out, const ModelShape *shape, int n_pools)
{
    LayerStatistics statistics = {.arena = arena_start("statistics of a layer")};
    place(&statistics, &statistics.arena, shape, n_pools);
    TRY(arena_allocate(&statistics.arena));
    place(&statistics, &statistics.arena, shape, n_pools);
    *out = statistics;
    return OK;
}

void layer_statistics_release(LayerStatistics *statistics)
{
    arena_release(&statistics->arena);
    *statistics = (LayerStatistics){0};
}

// Sums and products of such numbers are finite. Activations of 1e30 have keys' moments of 1e120.
static const double LARGEST = 1e150;

Status statistics_check_squares(const double *squares, int64_t count, int side, const char *name,
                                int layer)
{
    const int64_t n = (int64_t)side * side;
    for (int64_t i = 0; i < count * n; i++) {
        const bool on_diagonal = i % n % (side + 1) == 0;
        if (!(fabs(squares[i]) <= LARGEST) || (on_diagonal && squares[i] < 0))
            return fail(BAD_INPUT,
                        "layer %d: statistic %s has %g at row %lld, column %lld of matrix %lld; "
                        "check the model's weights and make the scores again",
                        layer, name, squares[i], (long long)(i % n / side), (long long)(i % side),
                        (long long)(i / n));
    }
    return OK;
}

Status layer_statistics_check(const LayerStatistics *statistics, const ModelShape *s, int layer)
{
    const int S = statistics_features(s);
    TRY(statistics_check_squares(statistics->covariance, 1, s->d_model, "covariance", layer));
    TRY(statistics_check_squares(statistics->value, statistics->n_pools, s->d_model, "value",
                                 layer));
    TRY(statistics_check_squares(statistics->key, statistics->n_pools, s->d_model, "key", layer));
    TRY(statistics_check_squares(statistics->tau, s->n_heads, 1, "tau", layer));
    TRY(statistics_check_squares(statistics->query, s->n_heads, s->head_dim, "query", layer));
    return statistics_check_squares(statistics->gram, s->n_heads, S, "gram", layer);
}
