// Metrics are brought to one scale before anything is multiplied: moments by their mean diagonal,
// whose factor goes to A, and all A by the largest of their diagonals.
#include "model/convert/closed_form.h"

#include "base/intmath.h"
#include "model/convert/alternating.h"
#include "model/convert/slots.h"
#include "model/convert/whitening.h"
#include "model/head_rows.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

enum { N_SWEEPS = 6 };

typedef struct Scratch {
    double *factor;                      // [D, D]
    double *w;                           // [K n + K E, D], n of shape_head_nope()
    double *key_metrics, *value_metrics; // [U, n, n], [U, E, E], U of shape_up_heads()
    double *mapped, *squares;            // [E, E]
    double *down;                        // [R, D]
    double *up;                          // [E, R]
    double *latent;                      // [R, R] second moment
    double *product;                     // [R, D]
    int *rows;                           // [E] of head_rows_order()
    int32_t *kept;                       // [E/2]
    LowRankBlock *blocks;                // [2 U]
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
    const int64_t nope = shape_head_nope(s), U = shape_up_heads(s);
    scratch->w = place_doubles(arena, K * (nope + E) * D);
    scratch->key_metrics = place_doubles(arena, U * nope * nope);
    scratch->value_metrics = place_doubles(arena, U * E * E);
    scratch->factor = place_doubles(arena, D * D);
    scratch->mapped = place_doubles(arena, E * E);
    scratch->squares = place_doubles(arena, E * E);
    scratch->down = place_doubles(arena, R * D);
    scratch->up = place_doubles(arena, E * R);
    scratch->latent = place_doubles(arena, R * R);
    scratch->product = place_doubles(arena, R * D);
    scratch->rows = arena_place(arena, E, sizeof *scratch->rows);
    scratch->kept = arena_place(arena, E / 2, sizeof *scratch->kept);
    scratch->blocks = arena_place(arena, 2 * U, sizeof *scratch->blocks);
    scratch->moments = arena_place(arena, 2 * n_pools, sizeof *scratch->moments);
    scratch->means = place_doubles(arena, 2 * n_pools);
}

static LowRankProblem problem_of(const Scratch *scratch, const ModelShape *s, int n_pools)
{
    return (LowRankProblem){.blocks = scratch->blocks,
                            .moments = scratch->moments,
                            .n_blocks = 2 * shape_up_heads(s),
                            .n_moments = 2 * n_pools,
                            .D = s->d_model,
                            .R = shape_dim(s, DIM_LATENT),
                            .max_rows = s->head_dim};
}

// Pools of moments that are told apart: no more than there are heads with up-projections.
static int count_pools(const ModelShape *s, int n_pools)
{
    return min_int(n_pools, shape_up_heads(s));
}

void closed_form_measure(Arena *arena, const ModelShape *s, int n_given)
{
    Scratch scratch;
    const int n_pools = count_pools(s, n_given);
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

// The query heads of an up-projection's head, and their KV head.
typedef struct UpHead {
    int first, end, kv_head;
} UpHead;

static UpHead up_head(const ModelShape *s, int u)
{
    const int n = s->n_heads / shape_up_heads(s), first = u * n;
    return (UpHead){first, first + n, first / (s->n_heads / s->n_kv_heads)};
}

// scratch->rows = a KV head's rows that carry no position. In the shared form these are all; pairs
// that have a slot are listed in scratch->kept, whose number is returned.
static int list_rows(Scratch *scratch, const ClosedForm *form, int kv_head)
{
    const ModelShape *s = form->shape;
    const int E = s->head_dim, P = s->rope_pairs;
    if (!shape_is_shared(s)) {
        head_rows_order(scratch->rows, form->pairs + (int64_t)kv_head * P, P, E);
        memmove(scratch->rows, scratch->rows + 2 * P, (size_t)(E - 2 * P) * sizeof(int));
        return 0;
    }
    for (int e = 0; e < E; e++)
        scratch->rows[e] = e;
    return form->slots != NULL ? slots_of_kv_head(scratch->kept, form->slots, P, kv_head, s) : 0;
}

// Queries do not read these rows.
static void clear_rows(double *metric, const int32_t *kept, int n_kept, int E)
{
    for (int i = 0; i < n_kept; i++)
        for (int half = 0; half < 2; half++) {
            const int64_t row = kept[i] + half * (E / 2);
            for (int64_t e = 0; e < E; e++)
                metric[row * E + e] = metric[e * E + row] = 0;
        }
}

// metric [n, n] of the keys of head u.
static void weigh_keys(double *metric, Scratch *scratch, const ClosedForm *form, int u)
{
    const ModelShape *s = form->shape;
    const UpHead heads = up_head(s, u);
    const int E = s->head_dim, nope = shape_head_nope(s);
    const int n_kept = list_rows(scratch, form, heads.kv_head), *rows = scratch->rows;
    memset(metric, 0, (size_t)nope * (size_t)nope * sizeof *metric);
    for (int64_t h = heads.first; h < heads.end; h++) {
        map_queries(scratch->mapped, scratch->squares, form->statistics->query + h * E * E,
                    form->maps + h * E, E);
        for (int a = 0; a < nope; a++)
            for (int b = 0; b < nope; b++)
                metric[a * nope + b] += form->key_weight * scratch->mapped[rows[a] * E + rows[b]];
    }
    clear_rows(metric, scratch->kept, n_kept, E);
}

// metric [E, E] of the values of head u.
static void weigh_values(double *metric, const ClosedForm *form, int u)
{
    const ModelShape *s = form->shape;
    const UpHead heads = up_head(s, u);
    const int E = s->head_dim, Q = shape_dim(s, DIM_Q);
    memset(metric, 0, (size_t)E * (size_t)E * sizeof *metric);
    for (int h = heads.first; h < heads.end; h++)
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
    const int64_t U = shape_up_heads(s), E = s->head_dim, nope = shape_head_nope(s);
    double largest = 0;
    for (int64_t b = 0; b < 2 * U; b++) {
        const LowRankBlock *block = &scratch->blocks[b];
        double *metric = b < U ? scratch->key_metrics + b * nope * nope
                               : scratch->value_metrics + (b - U) * E * E;
        scale(metric, (int64_t)block->n * block->n, scratch->means[block->moment]);
        for (int64_t i = 0; i < block->n; i++)
            largest = fmax(largest, metric[i * (block->n + 1)]);
    }
    if (!(largest > 0))
        return;
    scale(scratch->key_metrics, U * nope * nope, 1 / largest);
    scale(scratch->value_metrics, U * E * E, 1 / largest);
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

// The mean of every `group` moments, in the place of the first ones.
static void average(double *moments, int n, int group, int64_t D)
{
    for (int64_t i = 0; i < n; i++) {
        double *to = moments + i * D * D;
        memmove(to, moments + i * group * D * D, (size_t)(D * D) * sizeof *to);
        for (int64_t other = 1; other < group; other++)
            cblas_daxpy((int)(D * D), 1, moments + (i * group + other) * D * D, 1, to, 1);
        cblas_dscal((int)(D * D), 1.0 / group, to, 1);
    }
}

static void prepare_moments(Scratch *scratch, const ClosedForm *form)
{
    const int64_t D = form->shape->d_model;
    const int n_pools = count_pools(form->shape, form->statistics->n_pools);
    const int group = form->statistics->n_pools / n_pools;
    if (group > 1) {
        average(form->statistics->key, n_pools, group, D);
        average(form->statistics->value, n_pools, group, D);
    }
    for (int m = 0; m < 2 * n_pools; m++) {
        double *moment = m < n_pools ? form->statistics->key + m * D * D
                                     : form->statistics->value + (m - n_pools) * D * D;
        scratch->means[m] = shrink_safely(moment, scratch->factor, (int)D);
        scratch->moments[m] = moment;
    }
}

// Blocks 0 .. U - 1 are the keys, U .. 2U - 1 the values; moments likewise.
static void build_blocks(Scratch *scratch, const ClosedForm *form)
{
    const ModelShape *s = form->shape;
    const int64_t D = s->d_model, E = s->head_dim, K = s->n_kv_heads, nope = shape_head_nope(s);
    const int n_pools = count_pools(s, form->statistics->n_pools), U = shape_up_heads(s);
    for (int64_t i = 0; i < K * (nope + E) * D; i++)
        scratch->w[i] = form->kv[i];
    prepare_moments(scratch, form);
    for (int64_t u = 0; u < U; u++) {
        const UpHead heads = up_head(s, (int)u);
        const int pool = statistics_pool_of(s, n_pools, heads.first);
        double *keys = scratch->key_metrics + u * nope * nope;
        double *values = scratch->value_metrics + u * E * E;
        weigh_keys(keys, scratch, form, (int)u);
        weigh_values(values, form, (int)u);
        scratch->blocks[u] =
            (LowRankBlock){scratch->w + heads.kv_head * nope * D, keys, (int)nope, pool};
        scratch->blocks[U + u] = (LowRankBlock){scratch->w + (K * nope + heads.kv_head * E) * D,
                                                values, (int)E, n_pools + pool};
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
    const int64_t U = shape_up_heads(s), E = s->head_dim, R = shape_dim(s, DIM_LATENT);
    const int64_t nope = shape_head_nope(s);
    round_to(to->down_kv, scratch->down, R * s->d_model);
    for (int b = 0; b < 2 * U; b++) {
        const int64_t n = scratch->blocks[b].n;
        if (n == 0)
            continue;
        alternation_up(scratch->up, alternation, b);
        round_to(b < U ? to->up_k + b * nope * R : to->up_v + (b - U) * E * R, scratch->up, n * R);
    }
}

Status closed_form_layer(LayerParams *to, const ClosedForm *form)
{
    const ModelShape *s = form->shape;
    const int n_pools = count_pools(s, form->statistics->n_pools);
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
