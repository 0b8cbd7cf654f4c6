// The shared form of MLA from its definition in model/shape.h, in double, from the normed input to
// the heads' outputs: every query head expands keys and values of its own, then the whole T x T
// softmax.
#include "tests/reference/ref.h"

#include "model/attention/mla.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- one query head of one sequence ----

// What a head reads of T tokens, and gradients in the same places.
typedef struct Head {
    int T, R, E, rope, width; // width: 2P + E
    double scale;
    const float *up_k, *up_v;           // [E, R] of the head
    double *q, *k, *v, *latent, *p;     // [T, width], [T, width], [T, E], [T, R], [T, T]
    double *d_q, *d_k, *d_v, *d_latent; // the same
} Head;

static Head make_head(const LatentDims *d, const float *up_k, const float *up_v, int h)
{
    const int R = d->value_latent, width = d->rope + d->E;
    const int64_t T = d->T, weights = (int64_t)h * d->E * R;
    return (Head){
        .T = d->T,
        .R = R,
        .E = d->E,
        .rope = d->rope,
        .width = width,
        .scale = 1.0 / sqrt((double)d->E),
        .up_k = up_k + weights,
        .up_v = up_v + weights,
        .q = ref_doubles(T * width),
        .k = ref_doubles(T * width),
        .v = ref_doubles(T * d->E),
        .latent = ref_doubles(T * R),
        .p = ref_doubles(T * T),
        .d_q = ref_doubles(T * width),
        .d_k = ref_doubles(T * width),
        .d_v = ref_doubles(T * d->E),
        .d_latent = ref_doubles(T * R),
    };
}

static void release_head(Head *head)
{
    double *all[] = {head->q,   head->k,   head->v,   head->latent,  head->p,
                     head->d_q, head->d_k, head->d_v, head->d_latent};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

// Where a token's row keeps what the head reads (latent_columns()).
static double *token_row(double *rows, const LatentDims *d, int b, int t)
{
    return rows + ((int64_t)b * d->T + t) * latent_columns(d).row;
}

static void read_head(Head *head, const double *rows, const LatentDims *d, int b, int h)
{
    const LatentColumns column = latent_columns(d);
    for (int t = 0; t < head->T; t++) {
        const double *row = rows + ((int64_t)b * d->T + t) * column.row;
        double *q = head->q + t * head->width, *k = head->k + t * head->width,
               *latent = head->latent + t * head->R;
        for (int i = 0; i < head->rope; i++) {
            q[i] = row[column.q_rope + h * head->rope + i];
            k[i] = row[column.k_rope + i];
        }
        for (int r = 0; r < head->R; r++)
            latent[r] = row[column.latent + r];
        for (int e = 0; e < head->E; e++) {
            q[head->rope + e] = row[column.q_nope + h * head->E + e];
            for (int r = 0; r < head->R; r++) {
                k[head->rope + e] += (double)head->up_k[e * head->R + r] * latent[r];
                head->v[t * head->E + e] += (double)head->up_v[e * head->R + r] * latent[r];
            }
        }
    }
}

// p, and the log of the softmax's denominators [T].
static void attend(Head *head, double *lse)
{
    for (int t = 0; t < head->T; t++) {
        double *p = head->p + (int64_t)t * head->T, max = -INFINITY, sum = 0;
        for (int j = 0; j <= t; j++) {
            p[j] = 0;
            for (int i = 0; i < head->width; i++)
                p[j] += head->scale * head->q[t * head->width + i] * head->k[j * head->width + i];
            max = fmax(max, p[j]);
        }
        for (int j = 0; j <= t; j++)
            sum += exp(p[j] - max);
        for (int j = 0; j <= t; j++)
            p[j] = exp(p[j] - max) / sum;
        lse[t] = max + log(sum);
    }
}

static void attend_backward(Head *head, const double *d_out, int64_t step)
{
    double *d_p = ref_doubles(head->T);
    for (int t = 0; t < head->T; t++) {
        const double *p = head->p + (int64_t)t * head->T, *g = d_out + t * step;
        double mean = 0;
        for (int j = 0; j <= t; j++) {
            d_p[j] = 0;
            for (int e = 0; e < head->E; e++) {
                d_p[j] += g[e] * head->v[j * head->E + e];
                head->d_v[j * head->E + e] += p[j] * g[e];
            }
            mean += p[j] * d_p[j];
        }
        for (int j = 0; j <= t; j++) {
            const double d_score = head->scale * p[j] * (d_p[j] - mean);
            for (int i = 0; i < head->width; i++) {
                head->d_q[t * head->width + i] += d_score * head->k[j * head->width + i];
                head->d_k[j * head->width + i] += d_score * head->q[t * head->width + i];
            }
        }
    }
    free(d_p);
}

// y = weight latent: the weight's and the latent's gradients.
static void expand_backward(Head *head, double *d_weight, const float *weight, const double *d_y,
                            int step)
{
    for (int t = 0; t < head->T; t++)
        for (int e = 0; e < head->E; e++)
            for (int r = 0; r < head->R; r++) {
                const double d = d_y[(int64_t)t * step + e];
                d_weight[e * head->R + r] += d * head->latent[t * head->R + r];
                head->d_latent[t * head->R + r] += d * (double)weight[e * head->R + r];
            }
}

static void add_head(double *d_rows, const Head *head, const LatentDims *d, int b, int h)
{
    const LatentColumns column = latent_columns(d);
    for (int t = 0; t < head->T; t++) {
        double *row = token_row(d_rows, d, b, t);
        const double *d_q = head->d_q + t * head->width, *d_k = head->d_k + t * head->width;
        for (int i = 0; i < head->rope; i++) {
            row[column.q_rope + h * head->rope + i] += d_q[i];
            row[column.k_rope + i] += d_k[i];
        }
        for (int e = 0; e < head->E; e++)
            row[column.q_nope + h * head->E + e] += d_q[head->rope + e];
        for (int r = 0; r < head->R; r++)
            row[column.latent + r] += head->d_latent[t * head->R + r];
    }
}

// ---- all heads ----

void exact_shared_attend(double *out, double *lse, const double *rows, const float *up_k,
                         const float *up_v, const LatentDims *d)
{
    double *head_lse = ref_doubles(d->T);
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++) {
            Head head = make_head(d, up_k, up_v, h);
            read_head(&head, rows, d, b, h);
            attend(&head, head_lse);
            for (int t = 0; t < d->T; t++) {
                const int64_t at = ((int64_t)b * d->T + t) * d->H + h;
                lse[at] = head_lse[t];
                for (int e = 0; e < d->E; e++) {
                    out[at * d->E + e] = 0;
                    for (int j = 0; j <= t; j++)
                        out[at * d->E + e] += head.p[(int64_t)t * d->T + j] * head.v[j * d->E + e];
                }
            }
            release_head(&head);
        }
    free(head_lse);
}

void exact_shared_attend_backward(double *d_rows, double *d_up_k, double *d_up_v,
                                  const double *d_out, const double *rows, const float *up_k,
                                  const float *up_v, const LatentDims *d)
{
    double *lse = ref_doubles(d->T);
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++) {
            Head head = make_head(d, up_k, up_v, h);
            const int64_t weights = (int64_t)h * d->E * head.R;
            read_head(&head, rows, d, b, h);
            attend(&head, lse);
            attend_backward(&head, d_out + ((int64_t)b * d->T * d->H + h) * d->E,
                            (int64_t)d->H * d->E);
            expand_backward(&head, d_up_k + weights, head.up_k, head.d_k + head.rope, head.width);
            expand_backward(&head, d_up_v + weights, head.up_v, head.d_v, head.E);
            add_head(d_rows, &head, d, b, h);
            release_head(&head);
        }
    free(lse);
}

// ---- projections ----

// Row i of a token's row as a weight's row: q's, then k_r's, then down_kv's.
static const float *weight_row(const LayerParams *w, const LatentColumns *column, int i, int D)
{
    const float *matrix = i < column->k_rope ? w->q : i < column->latent ? w->k_r : w->down_kv;
    const int first = i < column->k_rope ? 0 : i < column->latent ? column->k_rope : column->latent;
    return matrix + (int64_t)(i - first) * D;
}

// Turns the slots of a head's 2P numbers: slot s is numbers s and P + s, by the pair that it names.
static void turn(double *head, const AttentionContext *context, int t, double direction)
{
    const int P = context->shape->rope_pairs, half = context->shape->head_dim / 2;
    for (int s = 0; s < P; s++) {
        const int64_t at = (int64_t)t * half + context->pairs[s];
        const double cosine = (double)context->cos_table[at],
                     sine = direction * (double)context->sin_table[at];
        const double first = head[s], second = head[P + s];
        head[s] = first * cosine - second * sine;
        head[P + s] = second * cosine + first * sine;
    }
}

static void turn_row(double *row, const AttentionContext *context, const LatentColumns *column,
                     int t, double direction)
{
    const int rope = 2 * context->shape->rope_pairs;
    for (int h = 0; h < context->shape->n_heads; h++)
        turn(row + column->q_rope + h * rope, context, t, direction);
    turn(row + column->k_rope, context, t, direction);
}

static double inverse_rms(const double *latent, int R, double eps)
{
    double sum = 0;
    for (int r = 0; r < R; r++)
        sum += latent[r] * latent[r];
    return 1.0 / sqrt(sum / R + eps);
}

// raw [R]: the latent before its norm, if it has one.
static void project_token(double *row, double *raw, const float *normed,
                          const AttentionContext *context, const LatentColumns *column, int t)
{
    const ModelShape *s = context->shape;
    for (int i = 0; i < column->row; i++) {
        const float *weight = weight_row(context->weights, column, i, s->d_model);
        row[i] = 0;
        for (int e = 0; e < s->d_model; e++)
            row[i] += (double)weight[e] * (double)normed[e];
    }
    turn_row(row, context, column, t, 1.0);
    memcpy(raw, row + column->latent, (size_t)s->latent * sizeof *raw);
    if (!s->latent_norm)
        return;
    const double scale = inverse_rms(raw, s->latent, s->rms_eps);
    for (int r = 0; r < s->latent; r++)
        row[column->latent + r] = (double)context->weights->latent_norm[r] * raw[r] * scale;
}

// With s = 1 / rms: dy_i / dx_j = w_i (s delta_ij - x_i x_j s^3 / R).
static void norm_backward(double *d_latent, double *d_weight, const double *raw,
                          const AttentionContext *context)
{
    const int R = context->shape->latent;
    const double scale = inverse_rms(raw, R, context->shape->rms_eps);
    double dot = 0;
    for (int r = 0; r < R; r++)
        dot += d_latent[r] * (double)context->weights->latent_norm[r] * raw[r];
    for (int r = 0; r < R; r++) {
        const double d = d_latent[r];
        d_latent[r] = d * (double)context->weights->latent_norm[r] * scale -
                      raw[r] * dot * scale * scale * scale / R;
        d_weight[r] += d * raw[r] * scale;
    }
}

// ---- the whole form ----

// All rows, and the latents before their norm.
typedef struct Projected {
    LatentDims dims;
    LatentColumns column;
    int64_t N;
    double *rows, *raw; // [N, row], [N, R]
} Projected;

static Projected project(const float *normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    Projected p = {.dims = mla_latent_dims(s, context->B, context->T),
                   .N = (int64_t)context->B * context->T};
    p.column = latent_columns(&p.dims);
    p.rows = ref_doubles(p.N * p.column.row);
    p.raw = ref_doubles(p.N * s->latent);
    for (int64_t n = 0; n < p.N; n++)
        project_token(p.rows + n * p.column.row, p.raw + n * s->latent, normed + n * s->d_model,
                      context, &p.column, (int)(n % context->T));
    return p;
}

void exact_shared_forward(double *out, double *lse, const float *normed,
                          const AttentionContext *context)
{
    Projected p = project(normed, context);
    exact_shared_attend(out, lse, p.rows, context->weights->up_k, context->weights->up_v, &p.dims);
    free(p.rows);
    free(p.raw);
}

void ref_shared_forward(float *out, float *lse, const float *normed,
                        const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    const int64_t n_lse = (int64_t)context->B * context->T * s->n_heads,
                  n_out = n_lse * s->head_dim;
    double *exact_out = ref_doubles(n_out), *exact_lse = ref_doubles(n_lse);
    exact_shared_forward(exact_out, exact_lse, normed, context);
    ref_narrow(out, exact_out, n_out);
    ref_narrow(lse, exact_lse, n_lse);
    free(exact_out);
    free(exact_lse);
}

// Gradients of the three stacked weights [row, D], in the order of a token's row, and of normed.
static void project_backward(double *d_weights, double *d_normed, double *d_latent_norm,
                             double *d_rows, const Projected *p, const float *normed,
                             const AttentionContext *context)
{
    const int D = context->shape->d_model, R = context->shape->latent;
    for (int64_t n = 0; n < p->N; n++) {
        double *d_row = d_rows + n * p->column.row;
        if (context->shape->latent_norm)
            norm_backward(d_row + p->column.latent, d_latent_norm, p->raw + n * R, context);
        turn_row(d_row, context, &p->column, (int)(n % context->T), -1.0);
        for (int i = 0; i < p->column.row; i++) {
            const float *weight = weight_row(context->weights, &p->column, i, D);
            for (int e = 0; e < D; e++) {
                d_normed[n * D + e] += d_row[i] * (double)weight[e];
                d_weights[(int64_t)i * D + e] += d_row[i] * (double)normed[n * D + e];
            }
        }
    }
}

void ref_shared_backward(float *d_normed, LayerParams *grads, const float *d_out,
                         const float *normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    const int64_t D = s->d_model, R = s->latent, n_up = (int64_t)s->n_heads * s->head_dim * R;
    Projected p = project(normed, context);
    const int64_t n_out = p.N * s->n_heads * s->head_dim, n_q = p.column.k_rope * D,
                  n_k = (p.column.latent - p.column.k_rope) * D;
    double *d_rows = ref_doubles(p.N * p.column.row), *up_k = ref_doubles(n_up),
           *up_v = ref_doubles(n_up), *weights = ref_doubles(p.column.row * D),
           *d_input = ref_doubles(p.N * D), *norm = ref_doubles(R), *g = ref_doubles(n_out);
    for (int64_t i = 0; i < n_out; i++)
        g[i] = (double)d_out[i];
    exact_shared_attend_backward(d_rows, up_k, up_v, g, p.rows, context->weights->up_k,
                                 context->weights->up_v, &p.dims);
    project_backward(weights, d_input, norm, d_rows, &p, normed, context);
    ref_narrow(d_normed, d_input, p.N * D);
    ref_narrow_add(grads->q, weights, n_q);
    ref_narrow_add(grads->k_r, weights + n_q, n_k);
    ref_narrow_add(grads->down_kv, weights + n_q + n_k, R * D);
    ref_narrow_add(grads->up_k, up_k, n_up);
    ref_narrow_add(grads->up_v, up_v, n_up);
    if (s->latent_norm)
        ref_narrow_add(grads->latent_norm, norm, R);
    double *all[] = {d_rows, up_k, up_v, weights, d_input, norm, g, p.rows, p.raw};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}
