// Weights that are neighbours in the flat vector are multiplied together: few and large products.
// Their rows are not in the order attention reads (RoPE rows of all heads come first), so rotating
// and sorting into heads is one pass over memory.
#include "model/attention/mla.h"

#include "model/attention/head_norm.h"
#include "model/attention/latent_norm.h"
#include "model/attention/rotate.h"
#include "model/kernels/bias.h"
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

AttentionDims mla_expanded_dims(const ModelShape *s, int B, int T)
{
    const int rope = shape_is_shared(s) ? 2 * s->rope_pairs : 0;
    return (AttentionDims){B, T, s->n_heads, shape_up_heads(s), s->head_dim, rope};
}

int mla_expanded_width(const ModelShape *s)
{
    return shape_dim(s, DIM_K_NOPE) + shape_dim(s, DIM_UP_VALUE) + shape_dim(s, DIM_NORM);
}

// Where the parts of one token's rows begin:
//     projected  q_rope [H 2P] | q_nope [H nope] | k_rope [.. 2P] | latent [R]
//     expanded   k_nope [.. nope] | value [.. E] | the normed latent, if it has a norm [R]
//     qkv        heads of queries | keys | values (model/attention/attention.h), RoPE dims first
typedef struct Columns {
    AttentionDims qkv;
    int head_rope;              // 2P
    int head_nope;              // E - 2P, shared form E
    int rope_heads, up_heads;   // of k_rope; of k_nope and value
    int q_nope, k_rope, latent; // in a projected row; q_rope is at 0
    int value, normed;          // in an expanded row; k_nope is at 0
} Columns;

static Columns find_columns(const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    const int k_rope = shape_dim(s, DIM_QUERY), value = shape_dim(s, DIM_K_NOPE);
    return (Columns){
        .qkv = mla_expanded_dims(s, context->B, context->T),
        .head_rope = 2 * s->rope_pairs,
        .head_nope = shape_head_nope(s),
        .rope_heads = shape_rope_heads(s),
        .up_heads = shape_up_heads(s),
        .q_nope = s->n_heads * 2 * s->rope_pairs,
        .k_rope = k_rope,
        .latent = k_rope + shape_dim(s, DIM_K_ROPE),
        .value = value,
        .normed = value + shape_dim(s, DIM_UP_VALUE),
    };
}

// A head's kept pairs and the angles of a token.
typedef struct Rotation {
    const float *cos_row, *sin_row;
    const AttentionContext *context;
} Rotation;

static Rotation find_rotation(const AttentionContext *context, int t)
{
    const int64_t first = (int64_t)t * (context->shape->head_dim / 2);
    return (Rotation){context->cos_table + first, context->sin_table + first, context};
}

// Head `head` of `n_heads`; where all heads share their pairs, those of the layer. Heads that are
// to be normed first are copied: rotate_heads().
static void rotate(Rows to, Rows from, const Rotation *rotation, int head, int n_heads,
                   float direction)
{
    const ModelShape *s = rotation->context->shape;
    const int P = s->rope_pairs, group = n_heads / shape_rope_heads(s);
    if (s->qk_norm) {
        rotate_copy(to, from, 2 * P);
        return;
    }
    rotate_head(to, from, rotation->cos_row, rotation->sin_row,
                rotation->context->pairs + (int64_t)(head / group) * P, P, direction);
}

// One token: rows of projected and expanded -> heads of queries, keys and values.
static void gather_token(Rows qkv, Rows projected, Rows expanded, const Columns *col,
                         const AttentionContext *context, int t)
{
    const Rotation rotation = find_rotation(context, t);
    const int H = col->qkv.H, width = attention_key_width(&col->qkv), rope = col->head_rope,
              nope = col->head_nope;
    for (int h = 0; h < H; h++) {
        const Rows q = rows_at(qkv, 0, h * width);
        rotate(q, rows_at(projected, 0, h * rope), &rotation, h, H, 1.0f);
        rotate_copy(rows_at(q, 0, rope), rows_at(projected, 0, col->q_nope + h * nope), nope);
    }
    for (int j = 0; j < col->up_heads; j++) {
        const Rows k = rows_at(qkv, 0, attention_key_column(&col->qkv, j));
        if (j < col->rope_heads)
            rotate(k, rows_at(projected, 0, col->k_rope + j * rope), &rotation, j, col->rope_heads,
                   1.0f);
        else // the shared form's one head
            rotate_copy(k, rows_at(qkv, 0, attention_key_column(&col->qkv, 0)), rope);
        rotate_copy(rows_at(k, 0, rope), rows_at(expanded, 0, j * nope), nope);
    }
    rotate_copy(rows_at(qkv, 0, attention_value_column(&col->qkv, 0)),
                rows_at(expanded, 0, col->value), col->up_heads * col->qkv.E);
}

// The gradient of rotated keys. All heads have read the shared form's one head.
static void scatter_rope(Rows d_k_rope, Rows d_keys, const Columns *col, const Rotation *rotation)
{
    const int width = attention_key_width(&col->qkv), n = col->rope_heads;
    if (n < col->up_heads) {
        rotate_sum(d_k_rope, d_keys, width, col->up_heads, col->head_rope);
        rotate(d_k_rope, d_k_rope, rotation, 0, 1, -1.0f);
        return;
    }
    for (int j = 0; j < n; j++)
        rotate(rows_at(d_k_rope, 0, j * col->head_rope), rows_at(d_keys, 0, j * width), rotation, j,
               n, -1.0f);
}

// The gradient of gather_token(): its transpose, with the rotation reversed.
static void scatter_token(Rows d_projected, Rows d_expanded, Rows d_qkv, const Columns *col,
                          const AttentionContext *context, int t)
{
    const Rotation rotation = find_rotation(context, t);
    const int H = col->qkv.H, width = attention_key_width(&col->qkv), rope = col->head_rope,
              nope = col->head_nope;
    const Rows d_keys = rows_at(d_qkv, 0, attention_key_column(&col->qkv, 0));
    for (int h = 0; h < H; h++) {
        const Rows d_q = rows_at(d_qkv, 0, h * width);
        rotate(rows_at(d_projected, 0, h * rope), d_q, &rotation, h, H, -1.0f);
        rotate_copy(rows_at(d_projected, 0, col->q_nope + h * nope), rows_at(d_q, 0, rope), nope);
    }
    scatter_rope(rows_at(d_projected, 0, col->k_rope), d_keys, col, &rotation);
    for (int j = 0; j < col->up_heads; j++)
        rotate_copy(rows_at(d_expanded, 0, j * nope), rows_at(d_keys, 0, j * width + rope), nope);
    rotate_copy(rows_at(d_expanded, 0, col->value),
                rows_at(d_qkv, 0, attention_value_column(&col->qkv, 0)),
                col->up_heads * col->qkv.E);
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
static int up_parts(UpPart parts[2], const AttentionContext *context, const LayerParams *grads)
{
    const ModelShape *s = context->shape;
    int width = shape_dim(s, DIM_UP_INPUT), rows_k = shape_dim(s, DIM_K_NOPE);
    int rows_v = shape_dim(s, DIM_UP_VALUE);
    const LayerParams *w = context->weights;
    if (s->svd == SVD_JOINT) {
        bool has_k = rows_k > 0; // up_k and up_v are neighbours: one matrix from whichever is first
        parts[0] = (UpPart){has_k ? w->up_k : w->up_v,
                            grads == NULL ? NULL : (has_k ? grads->up_k : grads->up_v),
                            0,
                            rows_k + rows_v,
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
    if (context->weights->q_bias != NULL)
        bias_forward(rows, context->weights->q_bias, context->B * context->T,
                     shape_input_bias(context->shape));
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
    bias_backward(grads->q_bias, d_rows, N, shape_input_bias(context->shape),
                  context->add_gradients);
    step_times_mark(context->times, STEP_INPUT);
}

// What the up-projections read: the latent, or after its norm, made again beside what they give.
static Rows find_up_input(Rows latent, const AttentionContext *context, const Columns *col)
{
    if (!context->shape->latent_norm)
        return latent;
    const Rows normed = rows_at(context->expanded, 0, col->normed);
    latent_norm_apply(normed, latent, context);
    return normed;
}

void mla_forward(Rows qkv, Rows latent, Rows heads, Rows normed, const AttentionContext *context)
{
    const ModelShape *s = context->shape;
    const Rows projected = context->projected, expanded = context->expanded;
    const Columns col = find_columns(context);
    int N = context->B * context->T, R = shape_dim(s, DIM_LATENT);
    project(projected, normed, context);
    // Saved without the rest of its row: backward reads it, and the products run over whole rows.
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        rotate_copy(rows_at(latent, n, 0), rows_at(projected, n, col.latent), R);

    const Rows up_input = find_up_input(latent, context, &col);
    UpPart parts[2];
    int n_parts = up_parts(parts, context, NULL);
    for (int i = 0; i < n_parts; i++)
        linear_forward(context->compute, rows_at(expanded, 0, parts[i].first),
                       rows_at(up_input, 0, parts[i].column), parts[i].weight, N, parts[i].width,
                       parts[i].rows, false);
    step_times_mark(context->times, STEP_UP);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        gather_token(rows_at(qkv, n, 0), rows_at(projected, n, 0), rows_at(expanded, n, 0), &col,
                     context, n % context->T);
    step_times_mark(context->times, STEP_ROPE);
    if (s->qk_norm)
        head_norm_forward(qkv, heads, true, context);
}

// The reverse of mla_forward(): out of heads, through the up-projections, through the
// down-projection. `projected` and `expanded` hold gradients now, since their forward values are
// not read again.
void mla_backward(Rows d_normed, LayerParams *grads, Rows d_qkv, Rows latent, Rows heads,
                  Rows normed, const AttentionContext *context)
{
    const Rows d_projected = context->projected, d_expanded = context->expanded;
    const Columns col = find_columns(context);
    int N = context->B * context->T;
    if (context->shape->qk_norm)
        head_norm_backward(d_qkv, grads, heads, context);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < N; n++)
        scatter_token(rows_at(d_projected, n, 0), rows_at(d_expanded, n, 0), rows_at(d_qkv, n, 0),
                      &col, context, n % context->T);
    step_times_mark(context->times, STEP_ROPE);

    // The latent's gradient goes into its columns of d_projected, beside those of q and k_r.
    const Rows up_input = find_up_input(latent, context, &col);
    UpPart parts[2];
    int n_parts = up_parts(parts, context, grads);
    for (int i = 0; i < n_parts; i++) {
        const Rows d_part = rows_at(d_expanded, 0, parts[i].first);
        linear_backward_input(context->compute,
                              rows_at(d_projected, 0, col.latent + parts[i].column), d_part,
                              parts[i].weight, N, parts[i].width, parts[i].rows, false);
        linear_backward_weight(context->compute, parts[i].grad, d_part,
                               rows_at(up_input, 0, parts[i].column), N, parts[i].width,
                               parts[i].rows, context->add_gradients);
    }
    step_times_mark(context->times, STEP_UP);
    if (context->shape->latent_norm)
        latent_norm_backward(d_projected, grads, latent, context);
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
