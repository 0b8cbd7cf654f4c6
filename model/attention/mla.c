// Weights that are neighbours in the flat vector are multiplied together: few and large products.
// Their rows are not in the order attention reads (RoPE rows of all heads come first), so rotating
// and sorting into heads is one pass over memory.
#include "model/attention/mla.h"

#include "model/attention/rotate.h"
#include "model/kernels/linear.h"

// Joint: keys and values read the same R columns. Split: the first R/2 serve keys, the next R/2
// values. With all pairs rotated no key dims come from the latent.
LatentDims mla_latent_dims(const ModelShape *s, int B, int T)
{
    const int width = shape_dim(s, DIM_UP_INPUT), rope = 2 * s->rope_pairs;
    return (LatentDims){
        .B = B,
        .T = T,
        .H = s->n_heads,
        .K = shape_rope_heads(s),
        .E = s->head_dim,
        .rope = rope,
        .key_latent = shape_head_nope(s) > 0 ? width : 0,
        .value_latent = width,
        .value_column = s->svd == SVD_JOINT ? 0 : width,
        .is_shared = shape_is_shared(s),
    };
}

int mla_projected_width(const ModelShape *s)
{
    return shape_dim(s, DIM_QUERY) + shape_dim(s, DIM_K_ROPE) + shape_dim(s, DIM_LATENT);
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

// One token: rows of projected and expanded -> heads of queries, keys and values.
static void gather_token(Rows qkv, Rows projected, Rows expanded, const Columns *col,
                         const AttentionContext *context, int t)
{
    const ModelShape *s = context->shape;
    int H = s->n_heads, K = s->n_kv_heads, E = s->head_dim, P = s->rope_pairs;
    const float *cos_row = context->cos_table + (int64_t)t * (E / 2);
    const float *sin_row = context->sin_table + (int64_t)t * (E / 2);
    for (int h = 0; h < H; h++) {
        rotate_head(rows_at(qkv, 0, h * E), rows_at(projected, 0, h * col->head_rope), cos_row,
                    sin_row, context->pairs + h / (H / K) * P, P, 1.0f);
        rotate_copy(rows_at(qkv, 0, h * E + col->head_rope),
                    rows_at(projected, 0, col->q_nope + h * col->head_nope), col->head_nope);
    }
    for (int j = 0; j < K; j++) {
        const int k = (H + j) * E;
        rotate_head(rows_at(qkv, 0, k), rows_at(projected, 0, col->k_rope + j * col->head_rope),
                    cos_row, sin_row, context->pairs + j * P, P, 1.0f);
        rotate_copy(rows_at(qkv, 0, k + col->head_rope), rows_at(expanded, 0, j * col->head_nope),
                    col->head_nope);
    }
    rotate_copy(rows_at(qkv, 0, (H + K) * E), rows_at(expanded, 0, col->value), K * E);
}

// The gradient of gather_token(): its transpose, with the rotation reversed.
static void scatter_token(Rows d_projected, Rows d_expanded, Rows d_qkv, const Columns *col,
                          const AttentionContext *context, int t)
{
    const ModelShape *s = context->shape;
    int H = s->n_heads, K = s->n_kv_heads, E = s->head_dim, P = s->rope_pairs;
    const float *cos_row = context->cos_table + (int64_t)t * (E / 2);
    const float *sin_row = context->sin_table + (int64_t)t * (E / 2);
    for (int h = 0; h < H; h++) {
        rotate_head(rows_at(d_projected, 0, h * col->head_rope), rows_at(d_qkv, 0, h * E), cos_row,
                    sin_row, context->pairs + h / (H / K) * P, P, -1.0f);
        rotate_copy(rows_at(d_projected, 0, col->q_nope + h * col->head_nope),
                    rows_at(d_qkv, 0, h * E + col->head_rope), col->head_nope);
    }
    for (int j = 0; j < K; j++) {
        const int k = (H + j) * E;
        rotate_head(rows_at(d_projected, 0, col->k_rope + j * col->head_rope), rows_at(d_qkv, 0, k),
                    cos_row, sin_row, context->pairs + j * P, P, -1.0f);
        rotate_copy(rows_at(d_expanded, 0, j * col->head_nope),
                    rows_at(d_qkv, 0, k + col->head_rope), col->head_nope);
    }
    rotate_copy(rows_at(d_expanded, 0, col->value), rows_at(d_qkv, 0, (H + K) * E), K * E);
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
static void project(Rows rows, Rows normed, const AttentionContext *context)
{
    const int width = mla_projected_width(context->shape), D = context->shape->d_model;
    linear_forward(context->compute, rows, normed, context->weights->q, context->B * context->T, D,
                   width, false);
    step_times_mark(context->times, STEP_INPUT);
}

// d_normed = d_rows W, dW = d_rows^T normed for the three stacked weights at once.
static void project_backward(Rows d_normed, LayerParams *grads, Rows d_rows, Rows normed,
                             const AttentionContext *context)
{
    const int width = mla_projected_width(context->shape), D = context->shape->d_model,
              N = context->B * context->T;
    linear_backward_input(context->compute, d_normed, d_rows, context->weights->q, N, D, width,
                          false);
    linear_backward_weight(context->compute, grads->q, d_rows, normed, N, D, width,
                           context->add_gradients);
    step_times_mark(context->times, STEP_INPUT);
}

void mla_forward(Rows qkv, Rows latent, Rows normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    const Rows projected = context->projected, expanded = context->expanded;
    Columns col = find_columns(s);
    int N = context->B * context->T, R = shape_dim(s, DIM_LATENT);
    project(projected, normed, context);
    // Saved without the rest of its row: backward reads it, and the products run over whole rows.
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        rotate_copy(rows_at(latent, n, 0), rows_at(projected, n, col.latent), R);

    UpPart parts[2];
    int n_parts = up_parts(parts, context, NULL, &col);
    for (int i = 0; i < n_parts; i++)
        linear_forward(context->compute, rows_at(expanded, 0, parts[i].first),
                       rows_at(latent, 0, parts[i].column), parts[i].weight, N, parts[i].width,
                       parts[i].rows, false);
    step_times_mark(context->times, STEP_UP);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        gather_token(rows_at(qkv, n, 0), rows_at(projected, n, 0), rows_at(expanded, n, 0), &col,
                     context, n % context->T);
    step_times_mark(context->times, STEP_ROPE);
}

// The reverse of mla_forward(): out of heads, through the up-projections, through the
// down-projection. `projected` and `expanded` hold gradients now, since their forward values are
// not read again.
void mla_backward(Rows d_normed, LayerParams *grads, Rows d_qkv, Rows latent, Rows normed,
                  const AttentionContext *context)
{
    const Rows d_projected = context->projected, d_expanded = context->expanded;
    Columns col = find_columns(context->shape);
    int N = context->B * context->T;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        scatter_token(rows_at(d_projected, n, 0), rows_at(d_expanded, n, 0), rows_at(d_qkv, n, 0),
                      &col, context, n % context->T);
    step_times_mark(context->times, STEP_ROPE);

    // The latent's gradient goes into its columns of d_projected, beside those of q and k_r.
    UpPart parts[2];
    int n_parts = up_parts(parts, context, grads, &col);
    for (int i = 0; i < n_parts; i++) {
        const Rows d_part = rows_at(d_expanded, 0, parts[i].first);
        linear_backward_input(context->compute,
                              rows_at(d_projected, 0, col.latent + parts[i].column), d_part,
                              parts[i].weight, N, parts[i].width, parts[i].rows, false);
        linear_backward_weight(context->compute, parts[i].grad, d_part,
                               rows_at(latent, 0, parts[i].column), N, parts[i].width,
                               parts[i].rows, context->add_gradients);
    }
    step_times_mark(context->times, STEP_UP);
    project_backward(d_normed, grads, d_projected, normed, context);
}

// RoPE in place on rotated dims of a projected row. In the shared form all heads have the layer's
// pairs.
static void rotate_token(Rows row, const LatentColumns *col, const AttentionContext *context, int t,
                         float direction)
{
    const ModelShape *s = context->shape;
    const int P = s->rope_pairs, G = s->n_heads / shape_rope_heads(s);
    const float *cos_row = context->cos_table + (int64_t)t * (s->head_dim / 2);
    const float *sin_row = context->sin_table + (int64_t)t * (s->head_dim / 2);
    for (int head = 0; head < s->n_heads + shape_rope_heads(s); head++) {
        const int j = head < s->n_heads ? head / G : head - s->n_heads;
        const Rows dims = rows_at(
            row, 0, head < s->n_heads ? col->q_rope + head * 2 * P : col->k_rope + j * 2 * P);
        rotate_head(dims, dims, cos_row, sin_row, context->pairs + j * P, P, direction);
    }
}

// rows [N, row]: the latent form rotates in place, since its rows already have RoPE dims together.
static void rotate_rows(Rows rows, const AttentionContext *context, float direction)
{
    const LatentDims dims = mla_latent_dims(context->shape, context->B, context->T);
    const LatentColumns col = latent_columns(&dims);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < context->B * context->T; n++)
        rotate_token(rows_at(rows, n, 0), &col, context, n % context->T, direction);
    step_times_mark(context->times, STEP_ROPE);
}

void mla_latent_forward(Rows rows, Rows normed, const AttentionContext *context)
{
    project(rows, normed, context);
    rotate_rows(rows, context, 1.0f);
}

void mla_latent_backward(Rows d_normed, LayerParams *grads, Rows d_rows, Rows normed,
                         const AttentionContext *context)
{
    rotate_rows(d_rows, context, -1.0f);
    project_backward(d_normed, grads, d_rows, normed, context);
}
