// Weights are brought into the order of each KV head's dims first, so that the loops over heads
// know no order. Their gradient is summed in blocks of tokens, which the shape fixes, and then over
// the blocks: the bits do not depend on the number of threads.
#include "model/attention/head_norm.h"

#include "base/arena.h"
#include "base/intmath.h"
#include "model/attention/rotate.h"
#include "model/head_rows.h"
#include "model/kernels/rmsnorm.h"
#include "model/kernels/rope.h"

#include <string.h>

enum { BLOCK_TOKENS = 32 };

typedef struct HeadNorm {
    int H, K, E, N, n_blocks;
    float eps;
    // Scratch of all threads.
    int *order;     // [K, E] of head_rows_order()
    float *weights; // [2, K, E]: of queries, of keys, in a head's order
    // Of every block.
    float *head; // [n_blocks, 3, E] input, output, gradient
    float *sums; // [n_blocks, 2, K, E] gradient of weights, backward
} HeadNorm;

int head_norm_width(const ModelShape *s)
{
    return s->qk_norm ? shape_dim(s, DIM_Q) + shape_dim(s, DIM_KV) : 0;
}

static HeadNorm describe(const ModelShape *s, int64_t N)
{
    return (HeadNorm){.H = s->n_heads,
                      .K = s->n_kv_heads,
                      .E = s->head_dim,
                      .N = (int)N,
                      .n_blocks = ceil_div((int)N, BLOCK_TOKENS),
                      .eps = (float)s->rms_eps};
}

static void place_scratch(HeadNorm *norm, Arena *arena, bool is_backward)
{
    const int64_t all = (int64_t)norm->K * norm->E;
    norm->order = arena_place(arena, all, sizeof *norm->order);
    norm->weights = arena_floats(arena, 2 * all);
    norm->head = arena_floats(arena, (int64_t)norm->n_blocks * 3 * norm->E);
    if (is_backward)
        norm->sums = arena_floats(arena, norm->n_blocks * 2 * all);
}

int64_t head_norm_scratch_bytes(const ModelShape *s, int64_t N, bool is_training)
{
    HeadNorm norm = describe(s, N);
    Arena arena = arena_start("norm of heads");
    if (s->qk_norm)
        place_scratch(&norm, &arena, is_training);
    return arena.used_bytes;
}

// Places the scratch and orders the weights.
static HeadNorm start(const AttentionContext *context, bool is_backward)
{
    const ModelShape *s = context->shape;
    HeadNorm norm = describe(s, (int64_t)context->B * context->T);
    Arena arena = arena_over("norm of heads", context->tiles, INT64_MAX);
    place_scratch(&norm, &arena, is_backward);
    const int E = norm.E, all = norm.K * E;
    for (int j = 0; j < norm.K; j++) {
        int *order = norm.order + j * E;
        head_rows_order(order, context->pairs + (int64_t)j * s->rope_pairs, s->rope_pairs, E);
        for (int e = 0; e < E; e++) {
            norm.weights[j * E + e] = context->weights->q_norm[order[e]];
            norm.weights[all + j * E + e] = context->weights->k_norm[order[e]];
        }
    }
    return norm;
}

// Heads 0 .. H - 1 are queries, then come the keys. The KV head that a head belongs to.
static int kv_head_of(const HeadNorm *norm, int head)
{
    return head < norm->H ? head / (norm->H / norm->K) : head - norm->H;
}

// Where a head's weights begin.
static int64_t weights_of(const HeadNorm *norm, int head)
{
    return (int64_t)((head < norm->H ? 0 : norm->K) + kv_head_of(norm, head)) * norm->E;
}

// RoPE of a head of token n, whose rotated dims come first.
static void rotate(float *head, int kv_head, int n, const AttentionContext *context,
                   float direction)
{
    const int P = context->shape->rope_pairs, half = context->shape->head_dim / 2;
    const int64_t row = (int64_t)(n % context->T) * half;
    rope_rotate(head, head, context->cos_table + row, context->sin_table + row,
                context->pairs + (int64_t)kv_head * P, P, direction);
}

void head_norm_forward(Rows qkv, Rows heads, bool rotates, const AttentionContext *context)
{
    const HeadNorm norm = start(context, false);
    const int E = norm.E, n_heads = norm.H + norm.K;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < norm.n_blocks; b++) {
        float *in = norm.head + (int64_t)b * 3 * E, *out = in + E;
        for (int n = b * BLOCK_TOKENS; n < min_int((b + 1) * BLOCK_TOKENS, norm.N); n++) {
            rotate_copy(rows_at(heads, n, 0), rows_at(qkv, n, 0), n_heads * E);
            for (int head = 0; head < n_heads; head++) {
                rotate_copy(rows_f32(in, E), rows_at(heads, n, (int64_t)head * E), E);
                rmsnorm_row(out, in, norm.weights + weights_of(&norm, head), E, norm.eps);
                if (rotates)
                    rotate(out, kv_head_of(&norm, head), n, context, 1.0f);
                rotate_copy(rows_at(qkv, n, (int64_t)head * E), rows_f32(out, E), E);
            }
        }
    }
    step_times_mark(context->times, STEP_NORM);
}

// Token n; its terms of the weights' gradient are added to sums [2, K, E].
static void backward_token(const HeadNorm *norm, Rows d_qkv, Rows heads, int n, float *buffers,
                           float *sums, const AttentionContext *context)
{
    const int E = norm->E;
    float *in = buffers, *d_out = in + E, *d_in = d_out + E;
    for (int head = 0; head < norm->H + norm->K; head++) {
        const int64_t at = weights_of(norm, head), column = (int64_t)head * E;
        const float *weight = norm->weights + at;
        const Rows d_head = rows_at(d_qkv, n, column);
        rotate_copy(rows_f32(in, E), rows_at(heads, n, column), E);
        const float inv_rms = rmsnorm_row(d_out, in, weight, E, norm->eps);
        rotate_copy(rows_f32(d_out, E), d_head, E);
        rotate(d_out, kv_head_of(norm, head), n, context, -1.0f);
        memset(d_in, 0, (size_t)E * sizeof *d_in);
        rmsnorm_row_backward(d_in, d_out, inv_rms, in, weight, E);
        rotate_copy(d_head, rows_f32(d_in, E), E);
        for (int e = 0; e < E; e++)
            sums[at + e] += d_out[e];
    }
}

// grad [E] += or = the sums over blocks of the weight's part of all KV heads, dims in their order.
static void add_gradient(float *grad, const HeadNorm *norm, int part, bool adds)
{
    const int E = norm->E, all = norm->K * E;
    if (grad == NULL)
        return;
    if (!adds)
        memset(grad, 0, (size_t)E * sizeof *grad);
    for (int b = 0; b < norm->n_blocks; b++)
        for (int i = 0; i < all; i++)
            grad[norm->order[i]] += norm->sums[((int64_t)b * 2 + part) * all + i];
}

void head_norm_backward(Rows d_qkv, LayerParams *grads, Rows heads, const AttentionContext *context)
{
    const HeadNorm norm = start(context, true);
    const int64_t block_sums = (int64_t)2 * norm.K * norm.E;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < norm.n_blocks; b++) {
        float *sums = norm.sums + b * block_sums;
        memset(sums, 0, (size_t)block_sums * sizeof *sums);
        for (int n = b * BLOCK_TOKENS; n < min_int((b + 1) * BLOCK_TOKENS, norm.N); n++)
            backward_token(&norm, d_qkv, heads, n, norm.head + (int64_t)b * 3 * norm.E, sums,
                           context);
    }
    add_gradient(grads->q_norm, &norm, 0, context->add_gradients);
    add_gradient(grads->k_norm, &norm, 1, context->add_gradients);
    step_times_mark(context->times, STEP_NORM);
}
