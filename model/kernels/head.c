// In float32 a block of logits [n, V] is made, turned into losses and its own gradient, and
// multiplied back before the next block is made.
#include "model/kernels/head.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/head_bf16.h"
#include "model/kernels/linear.h"
#include "model/kernels/vexp.h"

#include <math.h>
#include <stdbool.h>

// Large enough that packing the head and adding to d_head once per block cost little compared to
// the products; small enough to stay far below the activations.
enum { MAX_TOKENS = 512, MIN_TOKENS = 32, MAX_LOGITS = 32 << 20, SUMMED_IN_FLOAT = 2048 };

int head_block(int V)
{
    int tokens = MAX_LOGITS / V;
    if (tokens > MAX_TOKENS)
        return MAX_TOKENS;
    return tokens < MIN_TOKENS ? MIN_TOKENS : tokens;
}

// Subtracting the maximum keeps exp() in range; the loss does not change by it.
HOT float head_largest(const float *restrict z, int V)
{
    float max = z[0];
#pragma omp simd reduction(max : max)
    for (int v = 0; v < V; v++)
        max = z[v] > max ? z[v] : max;
    return max;
}

// z -> exp(z - max); returns their sum.
HOT static float exponentiate(float *restrict z, int count, float max)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int v = 0; v < count; v++) {
        z[v] = vexp(z[v] - max);
        sum += z[v];
    }
    return sum;
}

// z -> exp(z - max); returns their sum. One float for the sum over a vocabulary would lose two
// digits, so parts are added in double.
static double exponentiate_row(float *z, int V, float max)
{
    double sum = 0;
    for (int first = 0; first < V; first += SUMMED_IN_FLOAT)
        sum += (double)exponentiate(z + first,
                                    V - first < SUMMED_IN_FLOAT ? V - first : SUMMED_IN_FLOAT, max);
    return sum;
}

double head_token_loss(float *restrict z, int V, int32_t target, float *inverse_sum)
{
    // The difference of max and target is taken in double: both may be large.
    const float target_logit = z[target], max = head_largest(z, V);
    const double sum = exponentiate_row(z, V, max);
    *inverse_sum = (float)(1.0 / sum);
    return (double)max - (double)target_logit + log(sum);
}

void head_sum_add(HeadSum *sum, float *z, int count)
{
    const float max = head_largest(z, count);
    if (max > sum->max) {
        sum->sum *= exp((double)sum->max - (double)max);
        sum->max = max;
    }
    sum->sum += exponentiate_row(z, count, sum->max);
}

double head_sum_log(const HeadSum *sum)
{
    return (double)sum->max + log(sum->sum);
}

HOT static void scale_row(float *restrict z, int V, float factor)
{
#pragma omp simd
    for (int v = 0; v < V; v++)
        z[v] *= factor;
}

// Sum of the losses of a block's tokens; logits become the gradient of scale * loss, softmax minus
// one-hot target, if wanted.
static double block_loss(float *logits, const int32_t *targets, int n_tokens, int V, float scale,
                         bool wants_gradient)
{
    double losses[MAX_TOKENS];
#pragma omp parallel for schedule(static)
    for (int n = 0; n < n_tokens; n++) {
        float *z = logits + (int64_t)n * V, inverse_sum;
        losses[n] = head_token_loss(z, V, targets[n], &inverse_sum);
        if (wants_gradient) {
            // d loss / d z_v = scale (softmax(z)_v - [v = target]), in place over exp(z - max).
            scale_row(z, V, inverse_sum * scale);
            z[targets[n]] -= scale;
        }
    }
    double sum = 0;
    for (int n = 0; n < n_tokens; n++)
        // In the order of the tokens, whichever thread computed which.
        sum += losses[n];
    return sum;
}

int64_t head_scratch_bytes(ComputeType type, int N, int V, bool wants_gradient)
{
    if (type == COMPUTE_BFLOAT16)
        return head_bf16_scratch_bytes(N, V, wants_gradient);
    return (int64_t)min_int(N, head_block(V)) * V * (int64_t)sizeof(float);
}

double head_loss(ComputeType type, float *d_normed, float *d_head, void *scratch, Rows normed,
                 const float *head, const int32_t *targets, int N, int D, int V, float scale,
                 bool add)
{
    if (type == COMPUTE_BFLOAT16)
        return head_bf16_loss(d_normed, d_head, scratch, normed, head, targets, N, D, V, scale,
                              add);
    const int block = head_block(V);
    const Rows z = rows_f32(scratch, V);
    double sum = 0;
    for (int first = 0; first < N; first += block) {
        int n = N - first < block ? N - first : block;
        const Rows x = rows_at(normed, first, 0);
        linear_forward(type, z, x, head, n, D, V, false);
        sum += block_loss(scratch, targets + first, n, V, scale, d_normed != NULL);
        if (d_normed == NULL)
            continue;
        linear_backward_input(type, rows_f32(d_normed + (int64_t)first * D, D), z, head, n, D, V,
                              false);
        linear_backward_weight(type, d_head, z, x, n, D, V, add || first > 0);
    }
    return sum;
}
