// Attention in the latent space as what it stands for: keys and values expanded in double, the
// oracle of ordinary attention on them, and its gradient brought back.
#include "tests/reference/ref.h"

#include <stdlib.h>

typedef struct RowLayout {
    const LatentDims *d;
    LatentColumns col;
    AttentionDims expanded;
    int nope, row;
} RowLayout;

static RowLayout find_layout(const LatentDims *d)
{
    return (RowLayout){
        .d = d,
        .col = latent_columns(d),
        .expanded = {d->B, d->T, d->H, d->K, d->E},
        .nope = d->E - d->rope,
        .row = latent_columns(d).row,
    };
}

// Row i of a weight [.., width] times a token's latent from `column` on.
static double expand(const float *weight, int64_t i, const float *latent, int width)
{
    double sum = 0;
    for (int r = 0; r < width; r++)
        sum += (double)weight[i * width + r] * (double)latent[r];
    return sum;
}

static void expand_token(float *qkv, const float *row, const LatentArrays *a,
                         const RowLayout *layout)
{
    const LatentDims *d = layout->d;
    const float *latent = row + layout->col.latent;
    const int E = d->E;
    for (int e = 0; e < d->H * E; e++) {
        const int h = e / E, i = e % E;
        qkv[e] = i < d->rope ? row[layout->col.q_rope + h * d->rope + i]
                             : row[layout->col.q_nope + h * layout->nope + i - d->rope];
    }
    for (int e = 0; e < d->K * E; e++) {
        const int j = e / E, i = e % E;
        qkv[d->H * E + e] = i < d->rope ? row[layout->col.k_rope + j * d->rope + i]
                                        : (float)expand(a->up_k, j * layout->nope + i - d->rope,
                                                        latent, d->key_latent);
        qkv[(d->H + d->K) * E + e] =
            (float)expand(a->up_v, e, latent + d->value_column, d->value_latent);
    }
}

float *ref_latent_expand(const LatentArrays *a, const LatentDims *d)
{
    const RowLayout layout = find_layout(d);
    const int width = attention_row(&layout.expanded);
    float *qkv = ref_floats((int64_t)d->B * d->T * width);
    for (int64_t n = 0; n < (int64_t)d->B * d->T; n++)
        expand_token(qkv + n * width, rows_floats(a->qkv, layout.row) + n * layout.row, a, &layout);
    return qkv;
}

static double *widened(const float *values, int64_t count)
{
    double *to = ref_doubles(count);
    for (int64_t i = 0; i < count; i++)
        to[i] = (double)values[i];
    return to;
}

static void shared_forward(const LatentArrays *a, const LatentDims *d)
{
    const int row = latent_columns(d).row;
    const int64_t N = (int64_t)d->B * d->T, n_out = N * d->H * d->E;
    double *rows = widened(rows_floats(a->qkv, row), N * row), *out = ref_doubles(n_out),
           *lse = ref_doubles(N * d->H);
    exact_shared_attend(out, lse, rows, a->up_k, a->up_v, d);
    ref_narrow(rows_floats(a->out, d->H * d->E), out, n_out);
    ref_narrow(a->lse, lse, N * d->H);
    free(rows);
    free(out);
    free(lse);
}

static void shared_backward(const LatentArrays *a, const LatentDims *d)
{
    const int row = latent_columns(d).row;
    const int64_t N = (int64_t)d->B * d->T, n_up = (int64_t)d->H * d->E * d->value_latent;
    double *rows = widened(rows_floats(a->qkv, row), N * row), *d_rows = ref_doubles(N * row),
           *d_out = widened(rows_floats(a->d_out, d->H * d->E), N * d->H * d->E),
           *up_k = ref_doubles(n_up), *up_v = ref_doubles(n_up);
    exact_shared_attend_backward(d_rows, up_k, up_v, d_out, rows, a->up_k, a->up_v, d);
    ref_narrow(rows_floats(a->d_qkv, row), d_rows, N * row);
    (a->add_gradients ? ref_narrow_add : ref_narrow)(a->d_up_k, up_k, n_up);
    (a->add_gradients ? ref_narrow_add : ref_narrow)(a->d_up_v, up_v, n_up);
    double *all[] = {rows, d_rows, d_out, up_k, up_v};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

void ref_attention_latent_forward(const LatentArrays *a, const LatentDims *d)
{
    if (d->is_shared) {
        shared_forward(a, d);
        return;
    }
    const RowLayout layout = find_layout(d);
    float *qkv = ref_latent_expand(a, d);
    ref_attention_forward(rows_floats(a->out, d->H * d->E), a->lse, qkv, NULL, &layout.expanded);
    free(qkv);
}

// d_row += through y = weight row i . latent: the latent's and the weight's gradient.
static void reduce(double *d_latent, double *d_weight, double gradient, const float *weight,
                   int64_t i, const float *latent, int width)
{
    for (int r = 0; r < width; r++) {
        d_latent[r] += gradient * (double)weight[i * width + r];
        d_weight[i * width + r] += gradient * (double)latent[r];
    }
}

static void reduce_token(double *d_row, double *d_up_k, double *d_up_v, const float *d_qkv,
                         const float *row, const LatentArrays *a, const RowLayout *layout)
{
    const LatentDims *d = layout->d;
    const float *latent = row + layout->col.latent;
    const int E = d->E;
    for (int e = 0; e < d->H * E; e++) {
        const int h = e / E, i = e % E;
        d_row[i < d->rope ? layout->col.q_rope + h * d->rope + i
                          : layout->col.q_nope + h * layout->nope + i - d->rope] +=
            (double)d_qkv[e];
    }
    for (int e = 0; e < d->K * E; e++) {
        const int j = e / E, i = e % E;
        const double d_k = (double)d_qkv[d->H * E + e], d_v = (double)d_qkv[(d->H + d->K) * E + e];
        if (i < d->rope)
            d_row[layout->col.k_rope + j * d->rope + i] += d_k;
        else
            reduce(d_row + layout->col.latent, d_up_k, d_k, a->up_k, j * layout->nope + i - d->rope,
                   latent, d->key_latent);
        reduce(d_row + layout->col.latent + d->value_column, d_up_v, d_v, a->up_v, e,
               latent + d->value_column, d->value_latent);
    }
}

void ref_attention_latent_backward(const LatentArrays *a, const LatentDims *d)
{
    if (d->is_shared) {
        shared_backward(a, d);
        return;
    }
    const RowLayout layout = find_layout(d);
    const int width = attention_row(&layout.expanded);
    const int64_t N = (int64_t)d->B * d->T, n_up_k = (int64_t)d->K * layout.nope * d->key_latent,
                  n_up_v = (int64_t)d->K * d->E * d->value_latent;
    float *qkv = ref_latent_expand(a, d), *d_qkv = ref_floats(N * width);
    double *rows = ref_doubles(N * layout.row), *up_k = ref_doubles(n_up_k),
           *up_v = ref_doubles(n_up_v);
    ref_attention_backward(d_qkv, rows_floats(a->d_out, d->H * d->E), NULL, NULL, qkv, NULL,
                           &layout.expanded);
    for (int64_t n = 0; n < N; n++)
        reduce_token(rows + n * layout.row, up_k, up_v, d_qkv + n * width,
                     rows_floats(a->qkv, layout.row) + n * layout.row, a, &layout);
    ref_narrow(rows_floats(a->d_qkv, layout.row), rows, N * layout.row);
    (a->add_gradients ? ref_narrow_add : ref_narrow)(a->d_up_k, up_k, n_up_k);
    (a->add_gradients ? ref_narrow_add : ref_narrow)(a->d_up_v, up_v, n_up_v);
    free(qkv);
    free(d_qkv);
    free(rows);
    free(up_k);
    free(up_v);
}
