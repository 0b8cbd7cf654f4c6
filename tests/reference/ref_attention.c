// The whole T x T matrix of probabilities, one head after another.
#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Where token t of sequence b keeps a head: heads 0..H-1 queries, then K keys, then K values.
static int64_t at(const AttentionDims *d, int b, int t, int head)
{
    return ((int64_t)b * d->T + t) * attention_row(d) + (int64_t)head * d->E;
}

static int key_head(const AttentionDims *d, int h)
{
    return d->H + h / (d->H / d->K);
}

static int value_head(const AttentionDims *d, int h)
{
    return key_head(d, h) + d->K;
}

static double dot(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

// p [T, T]: softmax of the scaled scores of head h of sequence b, 0 above the diagonal; lse [T].
static void probabilities(double *p, double *lse, const float *qkv, const AttentionDims *d, int b,
                          int h)
{
    for (int t = 0; t < d->T; t++) {
        double *row = p + (int64_t)t * d->T, max = -INFINITY, sum = 0;
        memset(row, 0, (size_t)d->T * sizeof *row);
        for (int j = 0; j <= t; j++) {
            row[j] = dot(qkv + at(d, b, t, h), qkv + at(d, b, j, key_head(d, h)), d->E) /
                     sqrt((double)d->E);
            max = fmax(max, row[j]);
        }
        for (int j = 0; j <= t; j++)
            sum += exp(row[j] - max);
        for (int j = 0; j <= t; j++)
            row[j] = exp(row[j] - max) / sum;
        lse[t] = max + log(sum);
    }
}

void exact_attention_forward(double *out, double *lse, const float *qkv, const AttentionDims *d)
{
    double *p = ref_doubles((int64_t)d->T * d->T), *row_lse = ref_doubles(d->T);
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++) {
            probabilities(p, row_lse, qkv, d, b, h);
            for (int t = 0; t < d->T; t++) {
                int64_t token = (int64_t)b * d->T + t;
                double *o = out + (token * d->H + h) * d->E;
                lse[token * d->H + h] = row_lse[t];
                memset(o, 0, (size_t)d->E * sizeof *o);
                for (int j = 0; j <= t; j++)
                    for (int e = 0; e < d->E; e++)
                        o[e] += p[(int64_t)t * d->T + j] *
                                (double)qkv[at(d, b, j, value_head(d, h)) + e];
            }
        }
    free(p);
    free(row_lse);
}

void ref_attention_forward(float *out, float *lse, const float *qkv, float *scratch,
                           const AttentionDims *d)
{
    (void)scratch;
    int64_t rows = (int64_t)d->B * d->T * d->H;
    double *exact_out = ref_doubles(rows * d->E), *exact_lse = ref_doubles(rows);
    exact_attention_forward(exact_out, exact_lse, qkv, d);
    ref_narrow(out, exact_out, rows * d->E);
    ref_narrow(lse, exact_lse, rows);
    free(exact_out);
    free(exact_lse);
}

// With P = softmax(S), O = P V:  dV = P^T dO,  dP = dO V^T,  dS = P (dP - sum_j P dP).
static void backward_head(double *d_qkv, const double *p, const float *d_out, const float *qkv,
                          const AttentionDims *d, int b, int h)
{
    double *dp = ref_doubles(d->T), scale = 1.0 / sqrt((double)d->E);
    for (int t = 0; t < d->T; t++) {
        const float *g = d_out + (((int64_t)b * d->T + t) * d->H + h) * d->E;
        const double *row = p + (int64_t)t * d->T;
        double mean = 0;
        for (int j = 0; j <= t; j++) {
            dp[j] = dot(g, qkv + at(d, b, j, value_head(d, h)), d->E);
            mean += row[j] * dp[j];
        }
        for (int j = 0; j <= t; j++) {
            double ds = row[j] * (dp[j] - mean) * scale;
            int64_t q = at(d, b, t, h), k = at(d, b, j, key_head(d, h));
            int64_t v = at(d, b, j, value_head(d, h));
            for (int e = 0; e < d->E; e++) {
                d_qkv[q + e] += ds * (double)qkv[k + e];
                d_qkv[k + e] += ds * (double)qkv[q + e];
                d_qkv[v + e] += row[j] * (double)g[e];
            }
        }
    }
    free(dp);
}

void ref_attention_backward(float *d_qkv, const float *d_out, const float *out, const float *lse,
                            const float *qkv, float *scratch, const AttentionDims *d)
{
    (void)out, (void)lse, (void)scratch;
    int64_t count = (int64_t)d->B * d->T * attention_row(d);
    double *sum = ref_doubles(count), *p = ref_doubles((int64_t)d->T * d->T);
    double *row_lse = ref_doubles(d->T);
    for (int b = 0; b < d->B; b++)
        for (int h = 0; h < d->H; h++) {
            probabilities(p, row_lse, qkv, d, b, h);
            backward_head(sum, p, d_out, qkv, d, b, h);
        }
    ref_narrow(d_qkv, sum, count);
    free(sum);
    free(p);
    free(row_lse);
}
