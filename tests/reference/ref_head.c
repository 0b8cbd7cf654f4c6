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
