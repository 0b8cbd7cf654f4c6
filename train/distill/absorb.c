// Heads are small, [E, R] each, so plain loops in double do: this runs twice a layer.
#include "train/distill/absorb.h"

#include <lapacke.h>
#include <stdlib.h>
#include <string.h>

// The up-projection of keys or of values as the heads see it.
typedef struct Side {
    float *up;    // [n_up * rows, width]
    float *basis; // the same
    int n_up;     // heads of up
    int rows;     // of each
    int width;
} Side;

static Side key_side(const Absorption *a, const LayerParams *w)
{
    const ModelShape *s = &a->shape;
    return (Side){w->up_k, a->basis, shape_up_heads(s), shape_head_nope(s),
                  shape_dim(s, DIM_UP_INPUT)};
}

static Side value_side(const Absorption *a, const LayerParams *w)
{
    const ModelShape *s = &a->shape;
    const int width = shape_dim(s, DIM_UP_INPUT);
    return (Side){w->up_v, a->basis + (int64_t)shape_dim(s, DIM_K_NOPE) * width, shape_up_heads(s),
                  s->head_dim, width};
}

int64_t absorb_count(const ModelShape *s)
{
    return (int64_t)(shape_dim(s, DIM_K_NOPE) + shape_dim(s, DIM_UP_VALUE)) *
           shape_dim(s, DIM_UP_INPUT);
}

Absorption absorb_start(const ModelShape *s, float *basis)
{
    Absorption a = {.shape = *s, .basis = basis};
    const LayerParams none = {0};
    const Side keys = key_side(&a, &none), values = value_side(&a, &none);
    a.keys = keys.width <= keys.rows && !s->qk_norm; // a norm between them
    a.values = values.width <= values.rows;
    return a;
}

// basis = Q of the QR decomposition of every head of up.
static Status find_basis(const Side *side)
{
    const int64_t count = (int64_t)side->rows * side->width;
    double *matrix = malloc((size_t)(count + side->width) * sizeof *matrix);
    if (matrix == NULL)
        return fail(FAILED, "no memory for up-projections of %d x %d", side->rows, side->width);
    double *tau = matrix + count;
    int failure = 0;
    for (int head = 0; head < side->n_up && failure == 0; head++) {
        for (int64_t i = 0; i < count; i++)
            matrix[i] = side->up[head * count + i];
        failure =
            LAPACKE_dgeqrf(LAPACK_ROW_MAJOR, side->rows, side->width, matrix, side->width, tau);
        if (failure == 0)
            failure = LAPACKE_dorgqr(LAPACK_ROW_MAJOR, side->rows, side->width, side->width, matrix,
                                     side->width, tau);
        for (int64_t i = 0; i < count; i++)
            side->basis[head * count + i] = (float)matrix[i];
    }
    free(matrix);
    return failure == 0 ? OK : fail(FAILED, "the up-projections have no QR decomposition");
}

// One head's block in place: rows of queries [rows, D] or columns of the output projection
// [D, rows], as element (i, d) at block[i * of_row + d * of_model]. With `transposed` its first
// `width` rows become map^T block and the others 0, else all become map times the first ones.
static void multiply(float *block, int64_t of_row, int64_t of_model, int D, const float *map,
                     const Side *side, bool transposed, double *column)
{
    const int n_in = transposed ? side->rows : side->width;
    for (int d = 0; d < D; d++) {
        float *of_d = block + d * of_model;
        for (int i = 0; i < side->rows; i++) {
            column[i] = 0;
            for (int j = 0; j < n_in && (i < side->width || !transposed); j++)
                column[i] += (double)of_d[j * of_row] *
                             (double)map[transposed ? j * side->width + i : i * side->width + j];
        }
        for (int i = 0; i < side->rows; i++)
            of_d[i * of_row] = (float)column[i];
    }
}

static void set_identity(const Side *side)
{
    for (int i = 0; i < side->n_up * side->rows; i++)
        for (int j = 0; j < side->width; j++)
            side->up[(int64_t)i * side->width + j] = i % side->rows == j;
}

// What reads the up-projections, head by head: NoPE rows of q and of its bias, columns of o.
static Status multiply_heads(const Absorption *a, const LayerParams *w, const Side *side,
                             bool is_key, bool transposed)
{
    const ModelShape *s = &a->shape;
    const int D = s->d_model, Q = shape_dim(s, DIM_Q), H = s->n_heads;
    const int64_t count = (int64_t)side->rows * side->width;
    float *q_nope = w->q + (int64_t)H * 2 * s->rope_pairs * D;
    double *column = malloc((size_t)side->rows * sizeof *column);
    if (column == NULL)
        return fail(FAILED, "no memory for a head of %d", side->rows);
    for (int h = 0; h < H; h++) {
        const float *map = (transposed ? side->up : side->basis) + h / (H / side->n_up) * count;
        if (is_key && w->q_bias != NULL)
            multiply(w->q_bias + H * 2 * s->rope_pairs + h * side->rows, 1, 1, 1, map, side,
                     transposed, column);
        if (is_key)
            multiply(q_nope + (int64_t)h * side->rows * D, D, 1, D, map, side, transposed, column);
        else
            multiply(w->o + h * side->rows, 1, Q, D, map, side, transposed, column);
    }
    free(column);
    return OK;
}

static Status take_over(const Absorption *a, const LayerParams *w, const Side *side, bool is_key)
{
    TRY(find_basis(side));
    TRY(multiply_heads(a, w, side, is_key, true));
    set_identity(side);
    return OK;
}

static Status give_back(const Absorption *a, const LayerParams *w, const Side *side, bool is_key)
{
    TRY(multiply_heads(a, w, side, is_key, false));
    memcpy(side->up, side->basis,
           (size_t)(side->n_up * side->rows) * (size_t)side->width * sizeof *side->up);
    return OK;
}

Status absorb_layer(const Absorption *a, LayerParams *w)
{
    const Side keys = key_side(a, w), values = value_side(a, w);
    if (a->keys)
        TRY(take_over(a, w, &keys, true));
    return a->values ? take_over(a, w, &values, false) : OK;
}

Status absorb_undo(const Absorption *a, LayerParams *w)
{
    const Side keys = key_side(a, w), values = value_side(a, w);
    if (a->keys)
        TRY(give_back(a, w, &keys, true));
    return a->values ? give_back(a, w, &values, false) : OK;
}
