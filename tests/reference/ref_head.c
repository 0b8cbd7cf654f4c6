#include "model/kernels/head.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>

// Logits of one token -> p - onehot(target) in place; returns the token's loss.
static double token_loss(double *z, int V, int target)
{
    double max = -INFINITY, sum = 0, target_logit = z[target];
    for (int v = 0; v < V; v++)
        max = fmax(max, z[v]);
    for (int v = 0; v < V; v++)
        sum += exp(z[v] - max);
    for (int v = 0; v < V; v++)
        z[v] = exp(z[v] - max) / sum;
    z[target] -= 1.0;
    return max - target_logit + log(sum);
}

double ref_head_loss(float *d_normed, float *d_head, float *logits, const float *normed,
                     const float *head, const int32_t *targets, int N, int D, int V, float scale)
{
    (void)logits;
    double *z = ref_doubles(V), *d_head_sum = ref_doubles((int64_t)V * D), *dx = ref_doubles(D);
    double sum = 0;
    for (int n = 0; n < N; n++) {
        const float *x = normed + (int64_t)n * D;
        for (int v = 0; v < V; v++) {
            z[v] = 0;
            for (int d = 0; d < D; d++)
                z[v] += (double)x[d] * (double)head[(int64_t)v * D + d];
        }
        sum += token_loss(z, V, targets[n]);
        for (int d = 0; d < D; d++)
            dx[d] = 0;
        for (int v = 0; v < V; v++)
            for (int d = 0; d < D; d++) {
                dx[d] += (double)scale * z[v] * (double)head[(int64_t)v * D + d];
                d_head_sum[(int64_t)v * D + d] += (double)scale * z[v] * (double)x[d];
            }
        if (d_normed != NULL)
            ref_narrow(d_normed + (int64_t)n * D, dx, D);
    }
    if (d_head != NULL)
        ref_narrow_add(d_head, d_head_sum, (int64_t)V * D);
    free(z);
    free(d_head_sum);
    free(dx);
    return sum;
}

// z [V] = of one token.
static void make_logits(double *z, const float *x, const float *head, int V, int D)
{
    for (int v = 0; v < V; v++) {
        z[v] = 0;
        for (int d = 0; d < D; d++)
            z[v] += (double)x[d] * (double)head[(int64_t)v * D + d];
    }
}

// p [V] = softmax(z / T); returns the logarithm of the denominator.
static double make_softmax(double *p, const double *z, int V, double T)
{
    double max = -INFINITY, sum = 0;
    for (int v = 0; v < V; v++)
        max = fmax(max, z[v] / T);
    for (int v = 0; v < V; v++)
        sum += exp(z[v] / T - max);
    for (int v = 0; v < V; v++)
        p[v] = exp(z[v] / T - max) / sum;
    return max + log(sum);
}

// One token's losses, and their weighted gradient d_z [V].
static HeadLosses kl_token(double *d_z, const double *z, const double *t, int V, int target,
                           const HeadWeights *weights)
{
    const double T = weights->temperature;
    double *p = ref_doubles(V), *q = ref_doubles(V), *q_teacher = ref_doubles(V);
    HeadLosses losses = {.ce = make_softmax(p, z, V, 1) - z[target]};
    const double log_sum = make_softmax(q, z, V, T),
                 log_sum_teacher = make_softmax(q_teacher, t, V, T);
    for (int v = 0; v < V; v++) {
        losses.kl += T * T * q_teacher[v] * (t[v] / T - log_sum_teacher - z[v] / T + log_sum);
        d_z[v] = weights->ce * (p[v] - (v == target)) + weights->kl * T * (q[v] - q_teacher[v]);
    }
    free(p);
    free(q);
    free(q_teacher);
    return losses;
}

HeadLosses ref_head_kl_losses(float *d_normed, float *d_head, const float *normed,
                              const float *head, const int32_t *targets, const HeadTeacher *teacher,
                              const HeadWeights *weights, int N, int D, int V, float scale)
{
    double *z = ref_doubles(V), *t = ref_doubles(V), *d_z = ref_doubles(V);
    double *d_head_sum = ref_doubles((int64_t)V * D), *dx = ref_doubles(D);
    HeadLosses sum = {0};
    for (int n = 0; n < N; n++) {
        const float *x = normed + (int64_t)n * D;
        make_logits(z, x, head, V, D);
        make_logits(t, (const float *)teacher->normed.data + (int64_t)n * teacher->D, teacher->head,
                    V, teacher->D);
        const HeadLosses losses = kl_token(d_z, z, t, V, targets[n], weights);
        sum.ce += losses.ce;
        sum.kl += losses.kl;
        for (int d = 0; d < D; d++) {
            dx[d] = 0;
            for (int v = 0; v < V; v++) {
                dx[d] += (double)scale * d_z[v] * (double)head[(int64_t)v * D + d];
                d_head_sum[(int64_t)v * D + d] += (double)scale * d_z[v] * (double)x[d];
            }
        }
        if (d_normed != NULL)
            ref_narrow(d_normed + (int64_t)n * D, dx, D);
    }
    if (d_head != NULL)
        ref_narrow_add(d_head, d_head_sum, (int64_t)V * D);
    free(z);
    free(t);
    free(d_z);
    free(d_head_sum);
    free(dx);
    return sum;
}
