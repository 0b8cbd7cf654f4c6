// Metrics are brought to one scale before anything is multiplied: moments by their mean diagonal,
// whose factor goes to A, and all A by the largest of their diagonals.
#include "model/convert/closed_form.h"

#include "model/convert/alternating.h"
#include "model/convert/head_rows.h"
#include "model/convert/whitening.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

enum { N_SWEEPS = 6 };

typedef struct Scratch {
    double *factor;                      // [D, D]
    double *w;                           // [K (E - 2P) + K E, D]
    double *key_metrics, *value_metrics; // [K, E - 2P, E - 2P], [K, E, E]
    double *mapped, *squares;            // [E, E]
    double *down;                        // [R, D]
    double *up;                          // [E, R]
    double *latent;                      // [R, R] second moment
    double *product;                     // [R, D]
    int *rows;                           // [E]
    LowRankBlock *blocks;                // [2 K]
    const double **moments;              // [2 n_pools]
    double *means;                       // [2 n_pools] what moments were divided by
} Scratch;

static double *place_doubles(Arena *arena, int64_t count)
{
    return arena_place(arena, count, sizeof(double));
}

static void place(Scratch *scratch, Arena *arena, const ModelShape *s, int n_pools)
{
    const int64_t D = s->d_model, E = s->head_dim, K = s->n_kv_heads, R = shape_dim(s, DIM_LATENT);
    const int64_t nope = E - 2 * s->rope_pairs;
    scratch->w = place_doubles(arena, K * (nope + E) * D);
    scratch->key_metrics = place_doubles(arena, K * nope * nope);
    scratch->value_metrics = place_doubles(arena, K * E * E);
    scratch->factor = place_doubles(arena, D * D);
    scratch->mapped = place_doubles(arena, E * E);
    scratch->squares = place_doubles(arena, E * E);
    scratch->down = place_doubles(arena, R * D);
    scratch->up = place_doubles(arena, E * R);
    scratch->latent = place_doubles(arena, R * R);
    scratch->product = place_doubles(arena, R * D);
    scratch->rows = arena_place(arena, E, sizeof *scratch->rows);
    scratch->blocks = arena_place(arena, 2 * K, sizeof *scratch->blocks);
    scratch->moments = arena_place(arena, 2 * n_pools, sizeof *scratch->moments);
    scratch->means = place_doubles(arena, 2 * n_pools);
}

static LowRankProblem problem_of(const Scratch *scratch, const ModelShape *s, int n_pools)
{
    return (LowRankProblem){.blocks = scratch->blocks,
                            .moments = scratch->moments,
                            .n_blocks = 2 * s->n_kv_heads,
                            .n_moments = 2 * n_pools,
                            .D = s->d_model,
                            .R = shape_dim(s, DIM_LATENT),
                            .max_rows = s->head_dim};
}

void closed_form_measure(Arena *arena, const ModelShape *s, int n_pools)
{
    Scratch scratch;
    const int64_t mark = arena->used_bytes;
    place(&scratch, arena, s, n_pools);
    const LowRankProblem problem = problem_of(&scratch, s, n_pools);
    alternation_measure(arena, &problem);
    arena_rewind(arena, mark);
}

// mapped [E, E] = B A B^T with B = [[diag b1, diag b2], [-diag b2, diag b1]].
static void map_queries(double *mapped, double *half_mapped, const double *query, const double *map,
                        int E)
{
    const int half = E / 2;
    for (int side = 0; side < 2; side++) {
        const double *from = side == 0 ? query : half_mapped;
        double *to = side == 0 ? half_mapped : mapped;
        // Rows of B times, transposed: after both sides it is B A B^T.
        for (int p = 0; p < half; p++)
            for (int e = 0; e < E; e++) {
                const double a = from[p * E + e], b = from[(half + p) * E + e];
                to[e * E + p] = map[p] * a + map[half + p] * b;
                to[e * E + half + p] = map[p] * b - map[half + p] * a;
            }
    }
}

// metric [E - 2P, E - 2P] of KV head j's keys.
static void weigh_keys(double *metric, Scratch *scratch, const ClosedForm *form, int j)
{
    const ModelShape *s = form->shape;
    const int E = s->head_dim, P = s->rope_pairs, nope = E - 2 * P, G = s->n_heads / s->n_kv_heads;
    const int *rows = scratch->rows + 2 * P;
    head_rows_order(scratch->rows, form->pairs + (int64_t)j * P, P, E);
    memset(metric, 0, (size_t)nope * (size_t)nope * sizeof *metric);
    for (int64_t h = (int64_t)j * G; h < (int64_t)(j + 1) * G; h++) {
        map_queries(scratch->mapped, scratch->squares, form->statistics->query + h * E * E,
                    form->maps + h * E, E);
        for (int a = 0; a < nope; a++)
            for (int b = 0; b < nope; b++)
                metric[a * nope + b] += form->key_weight * scratch->mapped[rows[a] * E + rows[b]];
    }
}

// metric [E, E] of KV head j's values.
static void weigh_values(double *metric, const ClosedForm *form, int j)
{
    const ModelShape *s = form->shape;
    const int E = s->head_dim, G = s->n_heads / s->n_kv_heads, Q = shape_dim(s, DIM_Q);
    memset(metric, 0, (size_t)E * (size_t)E * sizeof *metric);
    for (int h = j * G; h < (j + 1) * G; h++)
        for (int64_t d = 0; d < s->d_model; d++) {
            const float *row = form->o + d * Q + (int64_t)h * E;
            for (int a = 0; a < E; a++)
                for (int b = 0; b < E; b++)
                    metric[a * E + b] += (double)row[a] * row[b];
        }
}

static void scale(double *values, int64_t count, double factor)
{
    for (int64_t i = 0; i < count; i++)
        values[i] *= factor;
}

// All metrics with the factors of their moments, over the largest diagonal.
static void scale_metrics(Scratch *scratch, const ModelShape *s)
{
    double largest = 0;
    for (int b = 0; b < 2 * s->n_kv_heads; b++) {
        const LowRankBlock *block = &scratch->blocks[b];
        double *metric = b < s->n_kv_heads ? scratch->key_metrics + (int64_t)b * block->n * block->n
                                           : scratch->value_metrics +
                                                 (b - s->n_kv_heads) * (int64_t)block->n * block->n;
        scale(metric, (int64_t)block->n * block->n, scratch->means[block->moment]);
        for (int64_t i = 0; i < block->n; i++)
            largest = fmax(largest, metric[i * (block->n + 1)]);
    }
    if (!(largest > 0))
        return;
    const int64_t K = s->n_kv_heads, E = s->head_dim, nope = E - 2 * s->rope_pairs;
    scale(scratch->key_metrics, K * nope * nope, 1 / largest);
    scale(scratch->value_metrics, K * E * E, 1 / largest);
}

// Where attention looks at one token alone its keys' moment is a difference of equal sums:
// rounding, which may have no Cholesky factor. It hardly counts, as its mean is small: any metric
// will do.
static double shrink_safely(double *moment, double *factor, int D)
{
    const double mean = whitening_shrink(moment, D);
    memcpy(factor, moment, (size_t)D * (size_t)D * sizeof *factor);
    if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', D, factor, D) == 0)
        return mean;
    memset(moment, 0, (size_t)D * (size_t)D * sizeof *moment);
    for (int64_t i = 0; i < D; i++)
        moment[i * (D + 1)] = 1;
    return mean;
}

// Blocks 0 .. K - 1 are the keys, K .. 2K - 1 the values; moments likewise.
static void build_blocks(Scratch *scratch, const ClosedForm *form)
{
    const ModelShape *s = form->shape;
    const int64_t D = s->d_model, E = s->head_dim, K = s->n_kv_heads, nope = E - 2 * s->rope_pairs;
    const int n_pools = form->statistics->n_pools;
    for (int64_t i = 0; i < K * (nope + E) * D; i++)
        scratch->w[i] = form->kv[i];
    for (int m = 0; m < 2 * n_pools; m++) {
        double *moment = m < n_pools ? form->statistics->key + m * D * D
                                     : form->statistics->value + (m - n_pools) * D * D;
        scratch->means[m] = shrink_safely(moment, scratch->factor, s->d_model);
        scratch->moments[m] = moment;
    }
    for (int j = 0; j < K; j++) {
        const int pool = statistics_pool_of(s, n_pools, j * (s->n_heads / s->n_kv_heads));
        double *keys = scratch->key_metrics + j * nope * nope;
        double *values = scratch->value_metrics + j * E * E;
        weigh_keys(keys, scratch, form, j);
        weigh_values(values, form, j);
        scratch->blocks[j] = (LowRankBlock){scratch->w + j * nope * D, keys, (int)nope, pool};
        scratch->blocks[K + j] =
            (LowRankBlock){scratch->w + (K * nope + j * E) * D, values, (int)E, n_pools + pool};
    }
    scale_metrics(scratch, s);
}

// down <- L^-1 down with L L^T = down C down^T.
static Status normalize_latent(Scratch *scratch, const double *covariance, const ModelShape *s)
{
    const int R = shape_dim(s, DIM_LATENT), D = s->d_model;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, R, D, D, 1.0, scratch->down, D,
                covariance, D, 0.0, scratch->product, D);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, R, R, D, 1.0, scratch->product, D,
                scratch->down, D, 0.0, scratch->latent, R);
    if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', R, scratch->latent, R) != 0)
        return fail(FAILED, "the latent has directions without variance");
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, R, D, 1.0,
                scratch->latent, R, scratch->down, D);
    return OK;
}

static void round_to(float *to, const double *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)from[i];
}

static void write_layer(LayerParams *to, Scratch *scratch, Alternation *alternation,
                        const ModelShape *s)
{
    const int64_t K = s->n_kv_heads, E = s->head_dim, R = shape_dim(s, DIM_LATENT);
    const int64_t nope = E - 2 * s->rope_pairs;
    round_to(to->down_kv, scratch->down, R * s->d_model);
    for (int b = 0; b < 2 * K; b++) {
        const int64_t n = scratch->blocks[b].n;
        if (n == 0)
            continue;
        alternation_up(scratch->up, alternation, b);
        round_to(b < K ? to->up_k + b * nope * R : to->up_v + (b - K) * E * R, scratch->up, n * R);
    }
}

Status closed_form_layer(LayerParams *to, const ClosedForm *form)
{
    const ModelShape *s = form->shape;
    const int n_pools = form->statistics->n_pools;
    Scratch scratch;
    Alternation alternation = {0};
    Arena arena = arena_start("closed form");
    Status status;
    place(&scratch, &arena, s, n_pools);
    TRY(arena_allocate(&arena));
    place(&scratch, &arena, s, n_pools);
    build_blocks(&scratch, form);
    const LowRankProblem problem = problem_of(&scratch, s, n_pools);
    for (int64_t i = 0; i < (int64_t)problem.R * problem.D; i++)
        scratch.down[i] = to->down_kv[i];
    TRY_GOTO(release, alternation_start(&alternation, &problem));
    TRY_GOTO(release, alternation_run(&alternation, scratch.down, N_SWEEPS));
    const double mean = whitening_shrink(form->statistics->covariance, s->d_model);
    TRY_GOTO(release, normalize_latent(&scratch, form->statistics->covariance, s));
    scale(scratch.down, (int64_t)problem.R * problem.D, 1 / sqrt(mean));
    TRY_GOTO(release, alternation_measure_down(&alternation, scratch.down));
    write_layer(to, &scratch, &alternation, s);
release:
    alternation_end(&alternation);
    arena_release(&arena);
    return status;
}
