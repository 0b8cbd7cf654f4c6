// Products in bfloat16 are so fast that reading and writing logits takes as long. So a block's
// logits are made part by part of the vocabulary: a part is in cache while it turns into
// exponentials of half the size, taken by the largest logit so far. When all parts are there, the
// sums are known and one pass makes gradients of the exponentials. Logits, sums and loss are
// float32 or double; a gradient is rounded twice, as an exponential and at last.
#include "model/kernels/head_bf16.h"

#include "base/arena.h"
#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/half.h"
#include "model/kernels/head.h"
#include "model/kernels/linear.h"

#include <math.h>

enum {
    MAX_TOKENS = 1024, // of a block: the more, the less often the head is packed
    MIN_TOKENS = 32,
    MAX_LOGITS = 64 << 20, // of a block
    WEIGHT_TOKENS = 512,   // of a product for the head's gradient, which then packs faster
    N_PARTS = 16,          // of the vocabulary
    CACHE_LINE_NUMBERS = 32,
};

// Scratch of a block of tokens. What is missing without a gradient lies last.
typedef struct Block {
    int tokens;       // the most
    int columns;      // of a part
    float *z;         // [tokens, columns] logits of a part
    float *of_target; // [tokens] logit
    HeadSum *sums;    // [tokens]
    float *maxima;    // [tokens, N_PARTS] that a part's exponentials were taken by
    Rows d_z;         // [tokens, V] exponentials, then gradients
} Block;

static Block place(Arena *arena, int N, int V, bool wants_gradient)
{
    const int fitting = min_int(MAX_LOGITS / V, MAX_TOKENS), step = rows_bf16_step(V);
    Block block = {.tokens = min_int(fitting > MIN_TOKENS ? fitting : MIN_TOKENS, N),
                   .columns = round_up(ceil_div(V, N_PARTS), CACHE_LINE_NUMBERS)};
    block.z = arena_floats(arena, (int64_t)block.tokens * block.columns);
    block.of_target = arena_floats(arena, block.tokens);
    block.sums = arena_place(arena, block.tokens, sizeof *block.sums);
    if (!wants_gradient)
        return block;
    block.maxima = arena_floats(arena, (int64_t)block.tokens * N_PARTS);
    block.d_z = rows_bf16(arena_place(arena, (int64_t)block.tokens * step, sizeof(uint16_t)), step);
    return block;
}

int64_t head_bf16_scratch_bytes(int N, int V, bool wants_gradient)
{
    Arena arena = arena_start("head");
    place(&arena, N, V, wants_gradient);
    return arena.peak_bytes;
}

// Logits z of a token's columns [first, first + count) join its sum and, if wanted, its row of
// exponentials.
static void add_part(const Block *block, int token, int part, int count, int32_t target)
{
    const int first = part * block->columns;
    float *z = block->z + (int64_t)token * block->columns;
    HeadSum *sum = &block->sums[token];
    if (part == 0)
        *sum = HEAD_SUM_EMPTY;
    if (first <= target && target < first + count)
        block->of_target[token] = z[target - first];
    head_sum_add(sum, z, count);
    if (block->d_z.data == NULL)
        return;
    block->maxima[token * N_PARTS + part] = sum->max;
    dtype_narrow(rows_at(block->d_z, token, first).data, DTYPE_BF16, z, count);
}

HOT static void scale_row(uint16_t *restrict row, int count, float factor)
{
#pragma omp simd
    for (int i = 0; i < count; i++)
        row[i] = half_f32_to_bf16(half_bf16_to_f32(row[i]) * factor);
}

// d loss / d z_v = scale (softmax(z)_v - [v = target]), in place over the exponentials.
static void make_gradient(const Block *block, int token, int V, int32_t target, double log_sum,
                          float scale)
{
    uint16_t *row = rows_at(block->d_z, token, 0).data;
    for (int part = 0, first = 0; first < V; part++, first += block->columns) {
        const double max = (double)block->maxima[token * N_PARTS + part];
        scale_row(row + first, min_int(block->columns, V - first),
                  (float)((double)scale * exp(max - log_sum)));
    }
    const double probability = exp((double)block->of_target[token] - log_sum);
    row[target] = half_f32_to_bf16((float)((double)scale * (probability - 1)));
}

// Sum of the losses of n tokens; their gradients in d_z, if there are such rows.
static double block_loss(const Block *block, Rows normed, const float *head, const int32_t *targets,
                         int n, int D, int V, float scale)
{
    double losses[MAX_TOKENS];
    for (int part = 0, first = 0; first < V; part++, first += block->columns) {
        const int count = min_int(block->columns, V - first);
        linear_forward(COMPUTE_BFLOAT16, rows_f32(block->z, block->columns), normed,
                       head + (int64_t)first * D, n, D, count, false);
#pragma omp parallel for schedule(static)
        for (int token = 0; token < n; token++)
            add_part(block, token, part, count, targets[token]);
    }
#pragma omp parallel for schedule(static)
    for (int token = 0; token < n; token++) {
        const double log_sum = head_sum_log(&block->sums[token]);
        losses[token] = log_sum - (double)block->of_target[token];
        if (block->d_z.data != NULL)
            make_gradient(block, token, V, targets[token], log_sum, scale);
    }
    double sum = 0;
    for (int token = 0; token < n; token++)
        sum += losses[token]; // in the order of the tokens, whichever thread computed which
    return sum;
}

double head_bf16_loss(float *d_normed, float *d_head, void *scratch, Rows normed, const float *head,
                      const int32_t *targets, int N, int D, int V, float scale, bool add)
{
    Arena arena = arena_over("head", scratch, INT64_MAX);
    const Block block = place(&arena, N, V, d_normed != NULL);
    double sum = 0;
    for (int first = 0; first < N; first += block.tokens) {
        const int n = min_int(block.tokens, N - first);
        const Rows x = rows_at(normed, first, 0);
        sum += block_loss(&block, x, head, targets + first, n, D, V, scale);
        if (d_normed == NULL)
            continue;
        linear_backward_input(COMPUTE_BFLOAT16, rows_f32(d_normed + (int64_t)first * D, D),
                              block.d_z, head, n, D, V, false);
        for (int i = 0; i < n; i += WEIGHT_TOKENS)
            linear_backward_weight(COMPUTE_BFLOAT16, d_head, rows_at(block.d_z, i, 0),
                                   rows_at(x, i, 0), min_int(WEIGHT_TOKENS, n - i), D, V,
                                   add || first + i > 0);
    }
    return sum;
}
