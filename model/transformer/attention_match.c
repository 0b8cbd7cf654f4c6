// A target of zeros has no scale to be relative to: such a sequence counts as matched.
#include "model/transformer/attention_match.h"

#include "base/simd.h"

#include <string.h>

void attention_match_place(AttentionMatch *out, Arena *arena, const ModelShape *shape,
                           ComputeType compute, int B, int T)
{
    const int64_t N = (int64_t)B * T;
    const int D = shape->d_model;
    *out = (AttentionMatch){.n_layers = shape->n_layers, .T = T, .D = D};
    out->output = arena_floats(arena, N * D);
    out->squares = arena_place(arena, 2 * N, sizeof *out->squares);
    out->losses = arena_place(arena, B, sizeof *out->losses);
    out->layers = arena_place(arena, shape->n_layers, sizeof *out->layers);
    for (int l = 0; l < shape->n_layers; l++) {
        Rows rows = compute_rows(compute, D);
        rows.data = arena_place(arena, N * rows.ld, (size_t)dtype_size_bytes(rows.dtype));
        if (out->layers != NULL) // placing
            out->layers[l] = rows;
    }
}

void attention_match_start(AttentionMatch *match, float scale, int B)
{
    match->scale = scale;
    memset(match->losses, 0, (size_t)B * sizeof *match->losses);
}

// ---- rows of either type -----------------------------------------------------------------------

// The row as floats: itself, or widened into the buffer.
static const float *read_row(Rows rows, int64_t n, float *buffer, int D)
{
    const Rows row = rows_at(rows, n, 0);
    if (row.dtype == DTYPE_F32)
        return row.data;
    dtype_widen(buffer, row.data, row.dtype, D);
    return buffer;
}

static void write_row(Rows rows, int64_t n, const float *values, int D)
{
    const Rows row = rows_at(rows, n, 0);
    if (row.dtype == DTYPE_BF16)
        dtype_narrow(row.data, DTYPE_BF16, values, D);
    else if (row.data != values)
        memcpy(row.data, values, (size_t)D * sizeof *values);
}

void attention_match_keep(const AttentionMatch *match, int layer, int B)
{
    const int D = match->D;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < B * match->T; n++)
        write_row(match->layers[layer], n, match->output + (int64_t)n * D, D);
}

// ---- the loss and its gradient -----------------------------------------------------------------

// output -> output - target.
HOT static void subtract_row(float *restrict output, const float *restrict target, int D,
                             double *of_error, double *of_target)
{
    double error = 0, square = 0;
#pragma omp simd reduction(+ : error, square)
    for (int d = 0; d < D; d++) {
        output[d] -= target[d];
        error += (double)output[d] * (double)output[d];
        square += (double)target[d] * (double)target[d];
    }
    *of_error = error;
    *of_target = square;
}

HOT static void scale_row(float *restrict row, int D, float factor)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        row[d] *= factor;
}

HOT static void add_row(float *restrict to, const float *restrict a, const float *restrict b, int D)
{
#pragma omp simd
    for (int d = 0; d < D; d++)
        to[d] = a[d] + b[d];
}

enum { PIECE = 1024 }; // numbers of a row that are widened at a time

static void subtract_target(const AttentionMatch *match, Rows targets, int64_t n)
{
    float *output = match->output + n * match->D, buffer[PIECE];
    double error = 0, square = 0;
    for (int first = 0; first < match->D; first += PIECE) {
        const int count = match->D - first < PIECE ? match->D - first : PIECE;
        const float *target = read_row(rows_at(targets, n, first), 0, buffer, count);
        double of_error, of_target;
        subtract_row(output + first, target, count, &of_error, &of_target);
        error += of_error;
        square += of_target;
    }
    match->squares[2 * n] = error;
    match->squares[2 * n + 1] = square;
}

// Sums over a sequence in the order of its tokens: its loss, and what its errors are multiplied
// with to become the gradient.
static float finish_sequence(const AttentionMatch *match, int b)
{
    const double *squares = match->squares + (int64_t)b * match->T * 2;
    double error = 0, square = 0;
    for (int t = 0; t < match->T; t++) {
        error += squares[2 * t];
        square += squares[2 * t + 1];
    }
    if (square == 0)
        return 0;
    match->losses[b] += error / square;
    return (float)(2.0 * (double)match->scale / (square * match->n_layers));
}

void attention_match_compare(const AttentionMatch *match, int layer, int B)
{
    const Rows rows = match->layers[layer];
    const int T = match->T, D = match->D;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < B * T; n++)
        subtract_target(match, rows, n);
    for (int b = 0; b < B; b++) {
        const float factor = finish_sequence(match, b);
#pragma omp parallel for schedule(static)
        for (int n = b * T; n < (b + 1) * T; n++) {
            scale_row(match->output + (int64_t)n * D, D, factor);
            write_row(rows, n, match->output + (int64_t)n * D, D);
        }
    }
}

Rows attention_match_gradient(const AttentionMatch *match, int layer, const float *dx, int B)
{
    const Rows rows = match->layers[layer];
    const int D = match->D;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < B * match->T; n++) {
        float buffer[PIECE], sum[PIECE];
        for (int first = 0; first < D; first += PIECE) {
            const int count = D - first < PIECE ? D - first : PIECE;
            const Rows piece = rows_at(rows, n, first);
            add_row(sum, read_row(piece, 0, buffer, count), dx + (int64_t)n * D + first, count);
            write_row(piece, 0, sum, count);
        }
    }
    return rows;
}

double attention_match_loss(const AttentionMatch *match, int B)
{
    double sum = 0;
    for (int b = 0; b < B; b++)
        sum += match->losses[b];
    return sum / match->n_layers;
}
