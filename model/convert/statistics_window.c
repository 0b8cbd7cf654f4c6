// Attention weights are formed here, one head at a time: the only place in the program that does,
// since these sums need them whole. Heads of a window go to the threads; tiles of the large sums do
// so afterwards, each owned by one thread.
#include "model/convert/statistics_window.h"

#include "model/convert/exact_sum.h"
#include "model/kernels/bias.h"
#include "model/kernels/linear.h"
#include "model/kernels/rmsnorm.h"
#include "model/kernels/rope.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

static double *place_doubles(Arena *arena, int64_t count)
{
    return arena_place(arena, count, sizeof(double));
}

static int qkv_width(const ModelShape *s)
{
    return shape_dim(s, DIM_Q) + 2 * shape_dim(s, DIM_KV);
}

void statistics_scratch_place(StatisticsScratch *scratch, Arena *arena, const ModelShape *s, int T,
                              int n_threads)
{
    const int64_t D = s->d_model, E = s->head_dim, threads = n_threads;
    scratch->T = T;
    scratch->n_threads = n_threads;
    scratch->cos_table = arena_floats(arena, T * (E / 2));
    scratch->sin_table = arena_floats(arena, T * (E / 2));
    scratch->normed = arena_floats(arena, T * D);
    scratch->inv_rms = arena_floats(arena, T);
    scratch->qkv = arena_floats(arena, (int64_t)T * qkv_width(s));
    scratch->head = arena_floats(arena, shape_dim(s, DIM_HEAD_NORM));
    scratch->x = place_doubles(arena, T * D);
    scratch->masses = place_doubles(arena, (int64_t)s->n_heads * T);
    scratch->scaled_tau = place_doubles(arena, s->n_heads);
    scratch->mass = place_doubles(arena, T);
    scratch->weights = place_doubles(arena, threads * T * T);
    // Moments, and heads: not at once.
    const int64_t mark = arena->used_bytes;
    scratch->means = place_doubles(arena, threads * T * D);
    scratch->tiles = place_doubles(arena, threads * exact_tile_doubles());
    const int64_t end = arena->used_bytes;
    arena_rewind(arena, mark);
    scratch->features = place_doubles(arena, threads * (T + 1) * statistics_features(s));
    scratch->squares = place_doubles(arena, threads * E * E);
    if (arena->used_bytes < end)
        arena_place(arena, end - arena->used_bytes, 1);
    scratch->turned = place_doubles(arena, threads * 2 * T * E);
}

void statistics_scratch_start(StatisticsScratch *scratch, const ModelShape *s)
{
    rope_table(scratch->cos_table, scratch->sin_table, scratch->T, s->head_dim, s->rope_theta,
               &s->rope_scaling);
}

void statistics_sums_place(StatisticsSums *sums, Arena *arena, const ModelShape *s, int n_pools)
{
    const int64_t square = (int64_t)s->d_model * s->d_model;
    sums->n_pools = n_pools;
    sums->count = (1 + 2 * (int64_t)n_pools) * square;
    sums->exponents = arena_place(arena, s->d_model, sizeof *sums->exponents);
    sums->block = place_doubles(arena, sums->count);
    if (sums->block == NULL)
        return; // measuring
    sums->covariance = sums->block;
    sums->value = sums->block + square;
    sums->key = sums->value + n_pools * square;
}

// Scaled inputs are at most 1, so is a head's mean of them, and weights are at most 1 (see
// scaled_tau()): a sum over all tokens and heads is at most their number.
void statistics_sums_start(StatisticsSums *sums, const float *norm, const ModelShape *s,
                           int64_t n_tokens)
{
    const double root = sqrt((double)s->d_model);
    for (int d = 0; d < s->d_model; d++)
        sums->exponents[d] = exact_exponent(root * norm[d]);
    sums->quantum = exact_quantum((double)n_tokens * s->n_heads);
    memset(sums->block, 0, (size_t)sums->count * sizeof *sums->block);
}

int64_t statistics_head_count(const ModelShape *s)
{
    const int64_t S = statistics_features(s), E = s->head_dim;
    return s->n_heads * (1 + E * E + S * S);
}

HeadSums statistics_head_sums(double *block, const ModelShape *s)
{
    double *query = block + s->n_heads;
    return (HeadSums){.block = block,
                      .tau = block,
                      .query = query,
                      .gram = query + (int64_t)s->n_heads * s->head_dim * s->head_dim};
}

// Queries and keys as RoPE is given them.
static void norm_heads(StatisticsScratch *scratch, const LayerParams *weights, const ModelShape *s)
{
    const int E = s->head_dim, H = s->n_heads;
    for (int64_t t = 0; t < scratch->T && s->qk_norm; t++)
        for (int head = 0; head < H + s->n_kv_heads; head++) {
            float *values = scratch->qkv + t * qkv_width(s) + (int64_t)head * E;
            memcpy(scratch->head, values, (size_t)E * sizeof *values);
            rmsnorm_row(values, scratch->head, head < H ? weights->q_norm : weights->k_norm, E,
                        (float)s->rms_eps);
        }
}

void statistics_window_read(StatisticsScratch *scratch, const float *x, const LayerParams *weights,
                            int layer, const StatisticsSums *sums, const ModelShape *s)
{
    const int T = scratch->T, D = s->d_model, width = qkv_width(s);
    scratch->rotates = shape_rotates(s, layer);
    rmsnorm_forward(rows_f32(scratch->normed, D), scratch->inv_rms, NULL, x, weights->attn_norm, T,
                    D, (float)s->rms_eps);
    linear_forward(COMPUTE_FLOAT32, rows_f32(scratch->qkv, width), rows_f32(scratch->normed, D),
                   weights->q, T, D, width, false);
    if (weights->q_bias != NULL)
        bias_forward(rows_f32(scratch->qkv, width), weights->q_bias, T, width);
    norm_heads(scratch, weights, s);
    for (int64_t t = 0; t < T; t++)
        for (int d = 0; d < D; d++)
            scratch->x[t * D + d] = ldexp((double)scratch->normed[t * D + d], -sums->exponents[d]);
}

// ---- one head ----------------------------------------------------------------------------------

// A head's own part of the scratch.
typedef struct Head {
    const float *q, *k, *v;      // [T, row] before RoPE
    int64_t row;                 // floats from one token to the next
    double *turned_q, *turned_k; // [T, E]
    double *weights;             // [T, T], zero above the diagonal
    double *masses;              // [T]
    int T, E;
} Head;

static Head head_of(StatisticsScratch *scratch, int h, int thread, const ModelShape *s)
{
    const int64_t T = scratch->T, E = s->head_dim, kv_head = h / (s->n_heads / s->n_kv_heads);
    const float *k = scratch->qkv + shape_dim(s, DIM_Q) + kv_head * E;
    return (Head){.q = scratch->qkv + h * E,
                  .k = k,
                  .v = k + shape_dim(s, DIM_KV),
                  .row = qkv_width(s),
                  .turned_q = scratch->turned + thread * 2 * T * E,
                  .turned_k = scratch->turned + (thread * 2 + 1) * T * E,
                  .weights = scratch->weights + thread * T * T,
                  .masses = scratch->masses + h * T,
                  .T = scratch->T,
                  .E = s->head_dim};
}

// Without RoPE a copy.
static void turn(double *to, const float *from, int64_t row, const StatisticsScratch *scratch,
                 int E)
{
    const int half = E / 2;
    if (!scratch->rotates) {
        for (int64_t t = 0; t < scratch->T; t++)
            for (int e = 0; e < E; e++)
                to[t * E + e] = from[t * row + e];
        return;
    }
    for (int64_t t = 0; t < scratch->T; t++) {
        const float *cos_row = scratch->cos_table + t * half, *in = from + t * row;
        const float *sin_row = scratch->sin_table + t * half;
        for (int p = 0; p < half; p++) {
            const double c = cos_row[p], s = sin_row[p], a = in[p], b = in[half + p];
            to[t * E + p] = a * c - b * s;
            to[t * E + half + p] = b * c + a * s;
        }
    }
}

// Causal softmax of the scores: weights and masses.
static void attend(Head *head, const StatisticsScratch *scratch)
{
    const int T = head->T, E = head->E;
    turn(head->turned_q, head->q, head->row, scratch, E);
    turn(head->turned_k, head->k, head->row, scratch, E);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, T, T, E, 1 / sqrt(E), head->turned_q, E,
                head->turned_k, E, 0.0, head->weights, T);
    memset(head->masses, 0, (size_t)T * sizeof *head->masses);
    for (int64_t i = 0; i < T; i++) {
        double *row = head->weights + i * T, largest = row[0], sum = 0;
        for (int64_t j = 1; j <= i; j++)
            largest = fmax(largest, row[j]);
        for (int64_t j = 0; j <= i; j++)
            sum += row[j] = exp(row[j] - largest);
        for (int64_t j = 0; j <= i; j++)
            head->masses[j] += row[j] /= sum;
        memset(row + i + 1, 0, (size_t)(T - i - 1) * sizeof *row);
    }
}

// out [E, E] = W_o,h^T W_o,h: what an error of a head's values costs in the output.
static void output_square(double *out, const float *o, int h, const ModelShape *s)
{
    const int E = s->head_dim, width = shape_dim(s, DIM_Q);
    memset(out, 0, (size_t)(E * E) * sizeof *out);
    for (int64_t d = 0; d < s->d_model; d++) {
        const float *row = o + d * width + (int64_t)h * E;
        for (int a = 0; a < E; a++)
            for (int b = 0; b < E; b++)
                out[a * E + b] += (double)row[a] * row[b];
    }
}

static double quadratic_form(const double *square, const double *v, int E)
{
    double sum = 0;
    for (int a = 0; a < E; a++) {
        double row = 0;
        for (int b = 0; b < E; b++)
            row += square[a * E + b] * v[b];
        sum += v[a] * row;
    }
    return sum;
}

// sum_i (sum_j a_ij |W_o v_j|^2 - |W_o vbar_i|^2). Rotated queries and keys are not needed any more
// and lend their memory.
static double sum_spread(Head *head, const double *square)
{
    const int T = head->T, E = head->E;
    double *values = head->turned_q, *means = head->turned_k, sum = 0;
    for (int64_t t = 0; t < T; t++)
        for (int e = 0; e < E; e++)
            values[t * E + e] = means[t * E + e] = head->v[t * head->row + e];
    cblas_dtrmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, T, E, 1.0,
                head->weights, T, means, E);
    for (int64_t t = 0; t < T; t++)
        sum += head->masses[t] * quadratic_form(square, values + t * E, E) -
               quadratic_form(square, means + t * E, E);
    return fmax(sum, 0); // negative by rounding alone
}

// out [E, E] = sum of q q^T / E.
static void sum_queries(double *out, Head *head)
{
    const int T = head->T, E = head->E;
    for (int64_t t = 0; t < T; t++)
        for (int e = 0; e < E; e++)
            head->turned_q[t * E + e] = head->q[t * head->row + e];
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, E, E, T, 1.0 / E, head->turned_q, E,
                head->turned_q, E, 0.0, out, E);
}

// row [S]: what each pair adds to the score of query i and key j.
static void pair_features(double *row, const Head *head, int64_t i, int64_t j)
{
    const int half = head->E / 2;
    const float *q = head->q + i * head->row, *k = head->k + j * head->row;
    const double *tq = head->turned_q + i * head->E, *tk = head->turned_k + j * head->E;
    const double scale = 1 / sqrt(head->E);
    for (int p = 0; p < half; p++) {
        const double q1 = q[p], q2 = q[half + p], k1 = k[p], k2 = k[half + p];
        row[p] = scale * (tq[p] * tk[p] + tq[half + p] * tk[half + p]);
        row[half + p] = scale * (q1 * k1 + q2 * k2);
        row[2 * half + p] = scale * (q2 * k1 - q1 * k2);
    }
}

// The upper triangle was computed.
static void mirror(double *square, int side)
{
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = i + 1; j < side; j++)
            square[j * side + i] = square[i * side + j];
}

// gram [S, S] = sum over queries i and keys j of a_ij (f - mean)(f - mean)^T. Rows are centred
// before the product: the difference of two large sums would lose what small features differ by.
static void sum_features(double *gram, double *rows, // [T, S]
                         const Head *head)
{
    const int T = head->T, S = 3 * (head->E / 2);
    double *mean = rows + (int64_t)T * S;
    memset(gram, 0, (size_t)S * (size_t)S * sizeof *gram);
    for (int64_t i = 0; i < T; i++) {
        const double *weights = head->weights + i * T;
        memset(mean, 0, (size_t)S * sizeof *mean);
        for (int64_t j = 0; j <= i; j++) {
            double *row = rows + j * S;
            pair_features(row, head, i, j);
            for (int f = 0; f < S; f++)
                mean[f] += weights[j] * row[f];
        }
        for (int64_t j = 0; j <= i; j++) {
            const double root = sqrt(weights[j]);
            for (int f = 0; f < S; f++)
                rows[j * S + f] = root * (rows[j * S + f] - mean[f]);
        }
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, S, (int)i + 1, 1.0, rows, S, 1.0, gram,
                    S);
    }
    mirror(gram, S);
}

void statistics_window_heads(HeadSums *heads, StatisticsScratch *scratch,
                             const LayerParams *weights, const ModelShape *s)
{
    const int64_t T = scratch->T, E = s->head_dim, S = statistics_features(s);
#pragma omp parallel for schedule(static)
    for (int h = 0; h < s->n_heads; h++) {
        const int thread = omp_get_thread_num();
        double *square = scratch->squares + thread * E * E;
        Head head = head_of(scratch, h, thread, s);
        attend(&head, scratch);
        sum_features(heads->gram + h * S * S, scratch->features + thread * (T + 1) * S, &head);
        output_square(square, weights->o, h, s);
        heads->tau[h] = sum_spread(&head, square);
        sum_queries(heads->query + h * E * E, &head);
    }
}

// ---- large sums --------------------------------------------------------------------------------

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

// Means of heads first .. first + n - 1 are in scratch->means.
static void add_means(StatisticsSums *sums, StatisticsScratch *scratch, const double *scaled_tau,
                      int first, int n, const ModelShape *s)
{
    const int T = scratch->T, D = s->d_model;
    const int64_t square = (int64_t)D * D;
    for (int i = 0; i < n; i++) {
        const double *means = scratch->means + (int64_t)i * T * D;
        const int64_t pool = statistics_pool_of(s, sums->n_pools, first + i);
        const ExactTarget targets[] = {{sums->value + pool * square, 1.0},
                                       {sums->key + pool * square, -scaled_tau[first + i]}};
        exact_add_product(targets, 2, means, means, D, D, T, sums->quantum, true, scratch->tiles);
    }
}

// sum += x^T diag(mass) x, mass [T]; NULL: of ones. `weighted` [T, D] is memory for the rows.
static void add_inputs(double *sum, StatisticsScratch *scratch, const double *mass,
                       double *weighted, double quantum, const ModelShape *s)
{
    const int T = scratch->T, D = s->d_model;
    const ExactTarget target = {sum, 1.0};
    for (int64_t t = 0; t < T; t++)
        for (int d = 0; d < D; d++)
            weighted[t * D + d] = scratch->x[t * D + d] * (mass != NULL ? mass[t] : 1.0);
    exact_add_product(&target, 1, weighted, scratch->x, D, D, T, quantum, true, scratch->tiles);
}

// means [T, D] = attention weights times inputs, of one head, and its masses.
static void average_inputs(StatisticsScratch *scratch, int h, int thread, const ModelShape *s)
{
    const int T = scratch->T, D = s->d_model;
    double *means = scratch->means + (int64_t)thread * T * D;
    Head head = head_of(scratch, h, thread, s);
    attend(&head, scratch);
    memcpy(means, scratch->x, (size_t)T * (size_t)D * sizeof *means);
    cblas_dtrmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, T, D, 1.0,
                head.weights, T, means, D);
}

// tau over the largest of a layer: at most 1.
static double largest_tau(const double *tau, int n_heads)
{
    double largest = 0;
    for (int h = 0; h < n_heads; h++)
        largest = fmax(largest, tau[h]);
    return largest > 0 ? largest : 1;
}

// Sum over a pool's heads of tau times the masses: what its keys' moment weights inputs with.
static void weigh_masses(double *mass, const StatisticsScratch *scratch, const double *scaled_tau,
                         int pool, int n_pools, const ModelShape *s)
{
    const int64_t T = scratch->T;
    memset(mass, 0, (size_t)T * sizeof *mass);
    for (int h = 0; h < s->n_heads; h++)
        if (statistics_pool_of(s, n_pools, h) == pool)
            for (int64_t t = 0; t < T; t++)
                mass[t] += scaled_tau[h] * scratch->masses[h * T + t];
}

void statistics_window_moments(StatisticsSums *sums, StatisticsScratch *scratch, const double *tau,
                               const ModelShape *s)
{
    const int n_threads = scratch->n_threads;
    const int64_t square = (int64_t)s->d_model * s->d_model;
    add_inputs(sums->covariance, scratch, NULL, scratch->means, sums->quantum, s);
    if (tau == NULL)
        return;
    double *scaled_tau = scratch->scaled_tau;
    const double largest = largest_tau(tau, s->n_heads);
    for (int h = 0; h < s->n_heads; h++)
        scaled_tau[h] = tau[h] / largest;
    for (int first = 0; first < s->n_heads; first += n_threads) {
        const int n = min_int(n_threads, s->n_heads - first);
#pragma omp parallel for schedule(static)
        for (int i = 0; i < n; i++)
            average_inputs(scratch, first + i, i, s);
        add_means(sums, scratch, scaled_tau, first, n, s);
    }
    for (int pool = 0; pool < sums->n_pools; pool++) {
        weigh_masses(scratch->mass, scratch, scaled_tau, pool, sums->n_pools, s);
        add_inputs(sums->key + pool * square, scratch, scratch->mass, scratch->means, sums->quantum,
                   s);
    }
}

// ---- means -------------------------------------------------------------------------------------

// to [D, D] = from, whole and unscaled, times `factor`.
static void unscale(double *to, const double *from, const int *exponents, double factor, int D)
{
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = i; j < D; j++)
            to[i * D + j] = ldexp(from[i * D + j] * factor, exponents[i] + exponents[j]);
    mirror(to, D);
    // A difference of sums may be negative by rounding.
    for (int64_t i = 0; i < D; i++)
        to[i * D + i] = fmax(to[i * D + i], 0);
}

void statistics_finish(LayerStatistics *out, const StatisticsSums *sums, const HeadSums *heads,
                       const ModelShape *s, int64_t n_tokens, int64_t n_attention_tokens)
{
    const int D = s->d_model;
    const int64_t square = (int64_t)D * D, n_heads = s->n_heads, S = statistics_features(s);
    const double n = (double)n_attention_tokens, pool_tokens = n * s->n_heads / sums->n_pools;
    const double tau = largest_tau(heads->tau, s->n_heads) / n;
    unscale(out->covariance, sums->covariance, sums->exponents, 1.0 / (double)n_tokens, D);
    for (int64_t pool = 0; pool < sums->n_pools; pool++) {
        unscale(out->value + pool * square, sums->value + pool * square, sums->exponents,
                1 / pool_tokens, D);
        unscale(out->key + pool * square, sums->key + pool * square, sums->exponents,
                tau / pool_tokens, D);
    }
    for (int64_t h = 0; h < n_heads; h++)
        out->tau[h] = heads->tau[h] / n;
    for (int64_t i = 0; i < n_heads * s->head_dim * s->head_dim; i++)
        out->query[i] = heads->query[i] / n;
    for (int64_t i = 0; i < n_heads * S * S; i++)
        out->gram[i] = heads->gram[i] / n;
}
