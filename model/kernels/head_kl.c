// The logits of a block [n, V] are made by student and teacher, turned into losses and, in place of
// the student's, the gradient, and multiplied back before the next block is made. With z and t as
// logits minus their maxima, a token's row is read twice: first for the sums of exp(z),
// exp(z / T), exp(t / T) and of exp(t / T) (t - z) / T; then for the gradient
//
//     ce_weight (softmax(z) - onehot) + kl_weight T (softmax(z / T) - softmax(t / T))
//
// T^2 of the loss times 1 / T of the logits' scale leave the factor T.
#include "model/kernels/head_kl.h"

#include "base/arena.h"
#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/head.h"
#include "model/kernels/linear.h"
#include "model/kernels/vexp.h"

#include <math.h>
#include <string.h>

// A part's sums are floats, which are added up in double.
enum { MAX_TOKENS = 512, PART = 2048 };

// Scratch of a block of tokens; rows begin at cache lines.
typedef struct Block {
    int tokens;     // the most
    int ld;         // floats from row to row
    float *student; // [tokens, ld]; gradients in the end
    float *teacher; // [tokens, ld]
} Block;

// As many tokens as without a teacher, in twice the memory: with half as many the head's gradient
// is read and written twice as often, which takes a third more time in bfloat16.
static Block place(Arena *arena, int N, int V)
{
    Block block = {.tokens = min_int(N, head_block(V)), .ld = rows_bf16_step(V)};
    block.student = arena_floats(arena, (int64_t)block.tokens * block.ld);
    block.teacher = arena_floats(arena, (int64_t)block.tokens * block.ld);
    return block;
}

int64_t head_kl_scratch_bytes(int N, int V)
{
    Arena arena = arena_start("head");
    place(&arena, N, V);
    return arena.peak_bytes;
}

// What a row's softmaxes are made of.
typedef struct RowSums {
    double student, tempered, teacher; // of exp(z), exp(z / T), exp(t / T)
    double dot;                        // of exp(t / T) (t - z) / T
} RowSums;

// z -> z - max, t -> exp((t - max) / T); adds a part of at most PART logits to the sums.
HOT static void add_part(RowSums *sums, float *restrict z, float *restrict t, int count,
                         float max_z, float max_t, float inverse_T)
{
    const bool is_tempered = inverse_T != 1.0f;
    float student = 0, tempered = 0, teacher = 0, dot = 0;
#pragma omp simd reduction(+ : student, tempered, teacher, dot)
    for (int v = 0; v < count; v++) {
        const float z_v = z[v] - max_z, t_v = t[v] - max_t;
        const float of_student = vexp(z_v), of_teacher = vexp(t_v * inverse_T);
        student += of_student;
        tempered += is_tempered ? vexp(z_v * inverse_T) : of_student;
        teacher += of_teacher;
        dot += of_teacher * ((t_v - z_v) * inverse_T);
        z[v] = z_v;
        t[v] = of_teacher;
    }
    sums->student += (double)student;
    sums->tempered += (double)tempered;
    sums->teacher += (double)teacher;
    sums->dot += (double)dot;
}

// Factors of exp(z), exp(z / T) and exp(t / T) in a row's gradient.
typedef struct RowFactors {
    float student, tempered, teacher, inverse_T;
} RowFactors;

HOT static void make_gradient(float *restrict to, const float *restrict z,
                              const float *restrict exp_t, int count, const RowFactors *factors)
{
    const float student = factors->student, tempered = factors->tempered;
    const float teacher = factors->teacher, inverse_T = factors->inverse_T;
    const bool is_tempered = inverse_T != 1.0f;
#pragma omp simd
    for (int v = 0; v < count; v++) {
        const float of_student = vexp(z[v]);
        const float of_tempered = is_tempered ? vexp(z[v] * inverse_T) : of_student;
        to[v] = student * of_student + tempered * of_tempered - teacher * exp_t[v];
    }
}

// The gradient of a row in place of its logits; as bfloat16 in the first half of its memory, which
// has been read before it is written.
static void write_gradient(float *z, const float *exp_t, int V, int32_t target,
                           const RowFactors *factors, float of_target, ComputeType type)
{
    float part[PART];
    for (int first = 0; first < V; first += PART) {
        const int count = min_int(V - first, PART);
        make_gradient(part, z + first, exp_t + first, count, factors);
        if (first <= target && target < first + count)
            part[target - first] -= of_target;
        if (type == COMPUTE_BFLOAT16)
            dtype_narrow((uint16_t *)z + first, DTYPE_BF16, part, count);
        else
            memcpy(z + first, part, (size_t)count * sizeof *part);
    }
}

// The losses of one token; its logits become the gradient.
static HeadLosses token_losses(float *z, float *t, int V, int32_t target,
                               const HeadWeights *weights, float scale, ComputeType type)
{
    const double T = weights->temperature;
    const float max_z = head_largest(z, V), max_t = head_largest(t, V),
                inverse_T = (float)(1.0 / T);
    RowSums sums = {0};
    for (int first = 0; first < V; first += PART)
        add_part(&sums, z + first, t + first, min_int(V - first, PART), max_z, max_t, inverse_T);
    const HeadLosses losses = {
        .ce = log(sums.student) - (double)z[target],
        .kl = T * T * (sums.dot / sums.teacher - log(sums.teacher) + log(sums.tempered)),
    };
    const double ce = (double)scale * weights->ce, kl = (double)scale * weights->kl * T;
    const RowFactors factors = {(float)(ce / sums.student), (float)(kl / sums.tempered),
                                (float)(kl / sums.teacher), inverse_T};
    write_gradient(z, t, V, target, &factors, (float)ce, type);
    return losses;
}

// Sums over a block's tokens, in their order, whichever thread computed which.
static HeadLosses block_losses(const Block *block, const int32_t *targets, int n, int V,
                               const HeadWeights *weights, float scale, ComputeType type)
{
    HeadLosses losses[MAX_TOKENS], sum = {0};
#pragma omp parallel for schedule(static)
    for (int token = 0; token < n; token++)
        losses[token] = token_losses(block->student + (int64_t)token * block->ld,
                                     block->teacher + (int64_t)token * block->ld, V, targets[token],
                                     weights, scale, type);
    for (int token = 0; token < n; token++) {
        sum.ce += losses[token].ce;
        sum.kl += losses[token].kl;
    }
    return sum;
}

HeadLosses head_kl_losses(ComputeType type, float *d_normed, float *d_head, void *scratch,
                          Rows normed, const float *head, const int32_t *targets,
                          const HeadTeacher *teacher, const HeadWeights *weights, int N, int D,
                          int V, float scale, bool add)
{
    Arena arena = arena_over("head", scratch, INT64_MAX);
    const Block block = place(&arena, N, V);
    const Rows z = rows_f32(block.student, block.ld), t = rows_f32(block.teacher, block.ld);
    const Rows d_z =
        type == COMPUTE_BFLOAT16 ? rows_bf16((uint16_t *)block.student, 2 * block.ld) : z;
    HeadLosses sum = {0};
    for (int first = 0; first < N; first += block.tokens) {
        const int n = min_int(block.tokens, N - first);
        const Rows x = rows_at(normed, first, 0);
        linear_forward(type, z, x, head, n, D, V, false);
        linear_forward(type, t, rows_at(teacher->normed, first, 0), teacher->head, n, teacher->D, V,
                       false);
        const HeadLosses losses = block_losses(&block, targets + first, n, V, weights, scale, type);
        sum.ce += losses.ce;
        sum.kl += losses.kl;
        linear_backward_input(type, rows_f32(d_normed + (int64_t)first * D, D), d_z, head, n, D, V,
                              false);
        linear_backward_weight(type, d_head, d_z, x, n, D, V, add || first > 0);
    }
    return sum;
}
