// Weights that are neighbours in the flat vector are multiplied together: few and large products.
// Their rows are not in the order attention reads (RoPE rows of all heads come first), so rotating
// and sorting into heads is one pass over memory.
#include "model/attention/mla.h"

#include "model/kernels/linear.h"
#include "model/kernels/rope.h"

#include <string.h>

// Joint: keys and values read the same R columns. Split: the first R/2 serve keys, the next R/2
// values. With all pairs rotated no key dims come from the latent.
LatentDims mla_latent_dims(const ModelShape *s, int B, int T)
{
    const int width = shape_dim(s, DIM_UP_INPUT), rope = 2 * s->rope_pairs;
    return (LatentDims){
        .B = B,
        .T = T,
        .H = s->n_heads,
        .K = s->n_kv_heads,
        .E = s->head_dim,
        .rope = rope,
        .key_latent = rope < s->head_dim ? width : 0,
        .value_latent = width,
        .value_column = s->svd == SVD_JOINT ? 0 : width,
    };
}

int mla_projected_width(const ModelShape *s)
{
    return shape_dim(s, DIM_Q) + shape_dim(s, DIM_K_ROPE) + shape_dim(s, DIM_LATENT);
}

int mla_expanded_width(const ModelShape *s)
{
    return shape_dim(s, DIM_K_NOPE) + shape_dim(s, DIM_KV);
}

// Where the parts of one token's rows begin:
//     projected  q_rope [H 2P] | q_nope [H (E - 2P)] | k_rope [K 2P] | latent [R]
//     expanded   k_nope [K (E - 2P)] | value [K E]
//     qkv        heads of queries [H E] | keys [K E] | values [K E], each head RoPE dims first
typedef struct Columns {
    int head_rope;              // 2P
    int head_nope;              // E - 2P
    int q_nope, k_rope, latent; // in a projected row; q_rope is at 0
    int value;                  // in an expanded row; k_nope is at 0
    int projected, expanded, qkv;
} Columns;

static Columns find_columns(const ModelShape *s)
{
    int Q = shape_dim(s, DIM_Q);
    return (Columns){
        .head_rope = 2 * s->rope_pairs,
        .head_nope = s->head_dim - 2 * s->rope_pairs,
        .q_nope = s->n_heads * 2 * s->rope_pairs,
        .k_rope = Q,
        .latent = Q + shape_dim(s, DIM_K_ROPE),
        .value = shape_dim(s, DIM_K_NOPE),
        .projected = mla_projected_width(s),
        .expanded = mla_expanded_width(s),
        .qkv = Q + 2 * shape_dim(s, DIM_KV),
    };
}

static void copy(float *to, const float *from, int count)
{
    memcpy(to, from, (size_t)count * sizeof(float));
}

// One token: rows of projected and expanded -> heads of queries, keys and values.
static void gather_token(float *qkv, const float *projected, const float *expanded,
                         const Columns *col, const AttentionContext *context, int t)
{
    const ModelShape *s = context->shape;
    int H = s->n_heads, K = s->n_kv_heads, E = s->head_dim, P = s->rope_pairs;
    const float *cos_row = context->cos_table + (int64_t)t * (E / 2);
    const float *sin_row = context->sin_table + (int64_t)t * (E / 2);
    for (int h = 0; h < H; h++) {
        float *q = qkv + h * E;
        rope_rotate(q, projected + h * col->head_rope, cos_row, sin_row,
                    context->pairs + h / (H / K) * P, P, 1.0f);
        copy(q + col->head_rope, projected + col->q_nope + h * col->head_nope, col->head_nope);
    }
    for (int j = 0; j < K; j++) {
        float *k = qkv + (H + j) * E;
        rope_rotate(k, projected + col->k_rope + j * col->head_rope, cos_row, sin_row,
                    context->pairs + j * P, P, 1.0f);
        copy(k + col->head_rope, expanded + j * col->head_nope, col->head_nope);
    }
    copy(qkv + (H + K) * E, expanded + col->value, K * E);
}

// The gradient of gather_token(): its transpose, with the rotation reversed.
static void scatter_token(float *d_projected, float *d_expanded, const float *d_qkv,
                          const Columns *col, const AttentionContext *context, int t)
{
    const ModelShape *s = context->shape;
    int H = s->n_heads, K = s->n_kv_heads, E = s->head_dim, P = s->rope_pairs;
    const float *cos_row = context->cos_table + (int64_t)t * (E / 2);
    const float *sin_row = context->sin_table + (int64_t)t * (E / 2);
    for (int h = 0; h < H; h++) {
        const float *dq = d_qkv + h * E;
        rope_rotate(d_projected + h * col->head_rope, dq, cos_row, sin_row,
                    context->pairs + h / (H / K) * P, P, -1.0f);
        copy(d_projected + col->q_nope + h * col->head_nope, dq + col->head_rope, col->head_nope);
    }
    for (int j = 0; j < K; j++) {
        const float *dk = d_qkv + (H + j) * E;
        rope_rotate(d_projected + col->k_rope + j * col->head_rope, dk, cos_row, sin_row,
                    context->pairs + j * P, P, -1.0f);
        copy(d_expanded + j * col->head_nope, dk + col->head_rope, col->head_nope);
    }
    copy(d_expanded + col->value, d_qkv + (H + K) * E, K * E);
}

// One product of the up-projection: weight rows [first, first + rows) of the stacked [up_k; up_v]
// times the latent's columns [column, column + width). Joint: one product; split: two.
typedef struct UpPart {
    const float *weight;
    float *grad;
    int first, rows, column, width;
} UpPart;

// The products of the up-projection for this shape; grads NULL in forward. Returns how many there
// are.
static int up_parts(UpPart parts[2], const AttentionContext *context, const LayerParams *grads,
                    const Columns *col)
{
    const ModelShape *s = context->shape;
    int width = shape_dim(s, DIM_UP_INPUT), rows_k = shape_dim(s, DIM_K_NOPE);
    int rows_v = shape_dim(s, DIM_KV);
    const LayerParams *w = context->weights;
    if (s->svd == SVD_JOINT) {
        bool has_k = rows_k > 0; // up_k and up_v are neighbours: one matrix from whichever is first
        parts[0] = (UpPart){has_k ? w->up_k : w->up_v,
                            grads == NULL ? NULL : (has_k ? grads->up_k : grads->up_v),
                            0,
                            col->expanded,
                            0,
                            width};
        return 1;
    }
    parts[0] = (UpPart){w->up_k, grads == NULL ? NULL : grads->up_k, 0, rows_k, 0, width};
    parts[1] = (UpPart){w->up_v, grads == NULL ? NULL : grads->up_v, rows_k, rows_v, width, width};
    return 2;
}

// The product that both forms begin with.
static void project(float *rows, const float *normed, const AttentionContext *context)
{
    const int width = mla_projected_width(context->shape), D = context->shape->d_model;
    linear_forward(COMPUTE_FLOAT32, rows_f32(rows, width), rows_read_f32(normed, D),
                   context->weights->q, context->B * context->T, D, width, false);
    step_times_mark(context->times, STEP_INPUT);
}

// d_normed = d_rows W, dW = d_rows^T normed for the three stacked weights at once.
static void project_backward(float *d_normed, LayerParams *grads, const float *d_rows,
                             const float *normed, const AttentionContext *context)
{
    const int width = mla_projected_width(context->shape), D = context->shape->d_model,
              N = context->B * context->T;
    linear_backward_input(COMPUTE_FLOAT32, rows_f32(d_normed, D), rows_read_f32(d_rows, width),
                          context->weights->q, N, D, width, false);
    linear_backward_weight(COMPUTE_FLOAT32, grads->q, rows_read_f32(d_rows, width),
                           rows_read_f32(normed, D), N, D, width, context->add_gradients);
    step_times_mark(context->times, STEP_INPUT);
}

void mla_forward(float *qkv, float *latent, const float *normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    Columns col = find_columns(s);
    int N = context->B * context->T, R = shape_dim(s, DIM_LATENT);
    project(context->projected, normed, context);
    // Saved without the rest of its row: backward reads it, and the products run over whole rows.
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        copy(latent + (int64_t)n * R, context->projected + (int64_t)n * col.projected + col.latent,
             R);

    UpPart parts[2];
    int n_parts = up_parts(parts, context, NULL, &col);
    for (int i = 0; i < n_parts; i++)
        linear_forward(COMPUTE_FLOAT32, rows_f32(context->expanded + parts[i].first, col.expanded),
                       rows_read_f32(latent + parts[i].column, R), parts[i].weight, N,
                       parts[i].width, parts[i].rows, false);
    step_times_mark(context->times, STEP_UP);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        gather_token(qkv + (int64_t)n * col.qkv, context->projected + (int64_t)n * col.projected,
                     context->expanded + (int64_t)n * col.expanded, &col, context, n % context->T);
    step_times_mark(context->times, STEP_ROPE);
}

// The reverse of mla_forward(): out of heads, through the up-projections, through the
// down-projection. `projected` and `expanded` hold gradients now, since their forward values are
// not read again.
void mla_backward(float *d_normed, LayerParams *grads, const float *d_qkv, const float *latent,
                  const float *normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    Columns col = find_columns(s);
    int N = context->B * context->T, R = shape_dim(s, DIM_LATENT);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        scatter_token(context->projected + (int64_t)n * col.projected,
                      context->expanded + (int64_t)n * col.expanded, d_qkv + (int64_t)n * col.qkv,
                      &col, context, n % context->T);
    step_times_mark(context->times, STEP_ROPE);

    // The latent's gradient goes into its columns of d_projected, beside those of q and k_r.
    UpPart parts[2];
    int n_parts = up_parts(parts, context, grads, &col);
    for (int i = 0; i < n_parts; i++) {
        const Rows d_part = rows_f32(context->expanded + parts[i].first, col.expanded);
        linear_backward_input(
            COMPUTE_FLOAT32,
            rows_f32(context->projected + col.latent + parts[i].column, col.projected), d_part,
            parts[i].weight, N, parts[i].width, parts[i].rows, false);
        linear_backward_weight(COMPUTE_FLOAT32, parts[i].grad, d_part,
                               rows_read_f32(latent + parts[i].column, R), N, parts[i].width,
                               parts[i].rows, context->add_gradients);
    }
    step_times_mark(context->times, STEP_UP);
    project_backward(d_normed, grads, context->projected, normed, context);
}

// RoPE in place on rotated dims of a projected row.
static void rotate_token(float *row, const LatentColumns *col, const AttentionContext *context,
                         int t, float direction)
{
    const ModelShape *s = context->shape;
    const int P = s->rope_pairs, G = s->n_heads / s->n_kv_heads;
    const float *cos_row = context->cos_table + (int64_t)t * (s->head_dim / 2);
    const float *sin_row = context->sin_table + (int64_t)t * (s->head_dim / 2);
    for (int head = 0; head < s->n_heads + s->n_kv_heads; head++) {
        const int j = head < s->n_heads ? head / G : head - s->n_heads;
        float *dims =
            row + (head < s->n_heads ? col->q_rope + head * 2 * P : col->k_rope + j * 2 * P);
        rope_rotate(dims, dims, cos_row, sin_row, context->pairs + j * P, P, direction);
    }
}

// rows [N, row]: the latent form rotates in place, since its rows already have RoPE dims together.
static void rotate_rows(float *rows, const AttentionContext *context, float direction)
{
    const LatentDims dims = mla_latent_dims(context->shape, context->B, context->T);
    const LatentColumns col = latent_columns(&dims);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < context->B * context->T; n++)
        rotate_token(rows + (int64_t)n * col.row, &col, context, n % context->T, direction);
    step_times_mark(context->times, STEP_ROPE);
}

void mla_latent_forward(float *rows, const float *normed, const AttentionContext *context)
{
    project(rows, normed, context);
    rotate_rows(rows, context, 1.0f);
}

void mla_latent_backward(float *d_normed, LayerParams *grads, float *d_rows, const float *normed,
                         const AttentionContext *context)
{
    rotate_rows(d_rows, context, -1.0f);
    project_backward(d_normed, grads, d_rows, normed, context);
}
