// The row of a token between the first product of a layer and attention is the same for all forms
// of attention, with 2P = E for the original one:
//
//     queries' rotated dims [H 2P] | their others [H (E - 2P)] | keys' rotated dims [K 2P] | value
//
// where the value is the latent [R], or v [K E]; the shared form has H E others and one head of
// rotated keys. Factors of keys (infer/cache/kv_format.h) follow the value. So nothing here asks
// which form it is.
#include "infer/infer.h"

#include "base/intmath.h"
#include "infer/attention/attend.h"
#include "infer/head_norms.h"
#include "model/kernels/bias.h"
#include "model/kernels/rmsnorm.h"
#include "model/kernels/rope.h"
#include "model/kernels/swiglu.h"
#include "model/kernels/weights/weight_ffn.h"
#include "model/kernels/weights/weight_panels.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

// Columns of a token's row.
typedef struct RowColumns {
    int rotated;    // 2P, of a head
    int key, value; // where they begin; queries are at 0
    int factors;    // behind the value
    int row;
} RowColumns;

struct Infer {
    const InferWeights *weights; // borrowed
    ModelShape shape;
    RowColumns columns;
    int max_tokens, max_segments;
    bool is_reproducible;
    int n_rows;                  // of the last forward
    Arena arena;                 // owns what follows
    HeadNorms head_norms;        // of shapes with qk_norm
    AttendJob *jobs;             // [max_segments]
    float *cos_rows, *sin_rows;  // [N, E/2]
    float *x;                    // [N, D] the residual stream
    float *normed;               // [N, D]; after the last layer the hidden states
    uint16_t *rounded;           // [N, weight_panels_ld(D)] products in bfloat16: normed in layers
    float *inv_rms;              // [N]
    float *rows;                 // [N, columns.row]
    float *attended;             // [N, H E]
    float *gate_up;              // [N, 2F]
    float *act;                  // [N, F]
    float *attention, *products; // scratch
};

static RowColumns row_columns(const ModelShape *s)
{
    const int rotated = 2 * s->rope_pairs, key = shape_dim(s, DIM_QUERY);
    const int value = key + shape_rope_heads(s) * rotated;
    const int factors = value + shape_dim(s, shape_is_mla(s) ? DIM_LATENT : DIM_KV);
    return (RowColumns){rotated, key, value, factors, factors + shape_key_factors(s)};
}

// Scratch of the widest product.
static int64_t product_floats(const Infer *infer)
{
    const ModelShape *s = &infer->shape;
    const int D = s->d_model, F = s->d_ffn, Q = shape_dim(s, DIM_Q);
    const int dims[][2] = {{infer->columns.row, D}, {D, Q}, {2 * F, D}, {D, F}, {s->vocab_size, D}};
    int64_t most = weight_ffn_scratch_floats(infer->max_tokens, F);
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        most = max_int64(most,
                         weight_linear_scratch_floats(infer->max_tokens, dims[i][0], dims[i][1]));
    if (s->qk_norm && shape_dim(s, DIM_K_NOPE) > 0)
        most = max_int64(most,
                         weight_linear_scratch_floats(infer->max_tokens, shape_dim(s, DIM_K_NOPE),
                                                      shape_dim(s, DIM_UP_INPUT)));
    return most;
}

// Run twice, without memory to measure and with it to place (base/arena.h).
static void place(Infer *infer, int n_threads)
{
    const ModelShape *s = &infer->shape;
    const int64_t N = infer->max_tokens;
    Arena *arena = &infer->arena;
    head_norms_place(&infer->head_norms, arena, s);
    infer->jobs = arena_place(arena, infer->max_segments, sizeof *infer->jobs);
    infer->cos_rows = arena_floats(arena, N * (s->head_dim / 2));
    infer->sin_rows = arena_floats(arena, N * (s->head_dim / 2));
    infer->x = arena_floats(arena, N * s->d_model);
    infer->normed = arena_floats(arena, N * s->d_model);
    infer->rounded = arena_place(arena, N * weight_panels_ld(s->d_model), sizeof *infer->rounded);
    infer->inv_rms = arena_floats(arena, N);
    infer->rows = arena_floats(arena, N * infer->columns.row);
    infer->attended = arena_floats(arena, N * shape_dim(s, DIM_Q));
    infer->gate_up = arena_floats(arena, N * 2 * s->d_ffn);
    infer->act = arena_floats(arena, N * s->d_ffn);
    infer->attention = arena_floats(
        arena, attend_scratch_floats(s, infer->max_segments, infer->max_tokens, n_threads));
    infer->products = arena_floats(arena, product_floats(infer));
}

static Infer describe(const ModelShape *shape, int max_tokens, int max_segments)
{
    return (Infer){.shape = *shape,
                   .columns = row_columns(shape),
                   .max_tokens = max_tokens,
                   .max_segments = max_segments,
                   .arena = arena_start("inference")};
}

int64_t infer_bytes(const ModelShape *shape, int max_tokens, int max_segments, int n_threads)
{
    Infer infer = describe(shape, max_tokens, max_segments);
    place(&infer, n_threads);
    return infer.arena.peak_bytes;
}

Status infer_create(Infer **out, const InferWeights *weights, int max_tokens, int max_segments)
{
    const int n_threads = omp_get_max_threads();
    Infer *infer = malloc(sizeof *infer);
    Status status;
    if (infer == NULL)
        return fail(FAILED, "no memory to run a model");
    *infer = describe(&weights->shape, max_tokens, max_segments);
    infer->weights = weights;
    place(infer, n_threads);
    TRY_GOTO(release, arena_allocate(&infer->arena));
    place(infer, n_threads);
    head_norms_set(&infer->head_norms, weights);
    *out = infer;
    return OK;
release:
    infer_release(infer);
    return status;
}

void infer_release(Infer *infer)
{
    if (infer == NULL)
        return;
    arena_release(&infer->arena);
    free(infer);
}

void infer_set_reproducible(Infer *infer)
{
    CHECK(infer->max_tokens > WEIGHT_DIRECT_TOKENS, "forwards of %d tokens", infer->max_tokens);
    infer->is_reproducible = true;
}

static void multiply(const Infer *infer, float *y, int ldy, const float *x, int ldx,
                     const WeightMatrix *w, int N, bool add)
{
    if (infer->is_reproducible)
        weight_linear_forward_reproducible(y, ldy, x, ldx, w, N, add, infer->products);
    else
        weight_linear_forward(y, ldy, x, ldx, w, N, add, infer->products);
}

// What products in bfloat16 read is rounded as it is written.
static Rows normed_rows(const Infer *infer)
{
    const int D = infer->shape.d_model;
    return infer->weights->compute == COMPUTE_BFLOAT16
               ? rows_bf16(infer->rounded, weight_panels_ld(D))
               : rows_f32(infer->normed, D);
}

static void normalize(const Infer *infer, Rows normed, const float *weight)
{
    const ModelShape *s = &infer->shape;
    rmsnorm_forward(normed, infer->inv_rms, NULL, infer->x, weight, infer->n_rows, s->d_model,
                    (float)s->rms_eps);
}

// y = norm(x) w^T
static void multiply_normed(const Infer *infer, float *y, int ldy, const float *norm,
                            const WeightMatrix *w)
{
    const Rows normed = normed_rows(infer);
    normalize(infer, normed, norm);
    if (normed.dtype == DTYPE_BF16)
        weight_panels_forward(y, ldy, normed.data, w, infer->n_rows);
    else
        multiply(infer, y, ldy, normed.data, normed.ld, w, infer->n_rows, false);
}

// ---- a layer -----------------------------------------------------------------------------------

// Queries and keys of row n by its position.
static void rotate_row(const Infer *infer, int layer, int n)
{
    const ModelShape *s = &infer->shape;
    const int H = s->n_heads, K = shape_rope_heads(s), G = H / K, P = s->rope_pairs;
    const int rotated = infer->columns.rotated;
    const int32_t *pairs = infer->weights->rope_pairs + (int64_t)layer * K * P;
    const float *cos_row = infer->cos_rows + (int64_t)n * (s->head_dim / 2);
    const float *sin_row = infer->sin_rows + (int64_t)n * (s->head_dim / 2);
    float *row = infer->rows + (int64_t)n * infer->columns.row;
    float *keys = row + infer->columns.key;
    for (int h = 0; h < H; h++)
        rope_rotate(row + h * rotated, row + h * rotated, cos_row, sin_row, pairs + h / G * P, P,
                    1.0f);
    for (int j = 0; j < K; j++)
        rope_rotate(keys + j * rotated, keys + j * rotated, cos_row, sin_row, pairs + j * P, P,
                    1.0f);
}

// Row n's latent, before it is cached. What the layer's first product has read is scratch by now,
// and R <= D.
static void normalize_latent(const Infer *infer, const float *weight, int n)
{
    const ModelShape *s = &infer->shape;
    float *latent = infer->rows + (int64_t)n * infer->columns.row + infer->columns.value,
          *copy = infer->normed + (int64_t)n * s->d_model, inv_rms;
    memcpy(copy, latent, (size_t)s->latent * sizeof *copy);
    rmsnorm_forward(rows_f32(latent, s->latent), &inv_rms, NULL, copy, weight, 1, s->latent,
                    (float)s->rms_eps);
}

// Queries and keys of all rows. What keys get from the latent is made where attention's output will
// be, which is at least as wide.
static void normalize_heads(const Infer *infer, int layer)
{
    const ModelShape *s = &infer->shape;
    const RowColumns *col = &infer->columns;
    const WeightMatrix *up_k = &infer->weights->layers[layer].up_k;
    float *nope = infer->attended;
    if (!s->qk_norm)
        return;
    const int width = up_k->n_out; // 0 without such dims
    if (width > 0)
        multiply(infer, nope, width, infer->rows + col->value, col->row, up_k, infer->n_rows,
                 false);
#pragma omp parallel for schedule(static) if (infer->n_rows > 1)
    for (int n = 0; n < infer->n_rows; n++) {
        float *row = infer->rows + (int64_t)n * col->row;
        head_norms_apply(&infer->head_norms, layer, row, row + col->key, row + col->factors,
                         nope + (int64_t)n * width);
    }
}

// A job's q points to its segment's first row.
static int first_row(const Infer *infer, int segment)
{
    return (int)((infer->jobs[segment].q - infer->rows) / infer->columns.row);
}

// Branches read what the others write.
static void write_cache(const Infer *infer, const InferSegment *segments, int n_segments, int layer)
{
    const RowColumns *col = &infer->columns;
    for (int branches = 0; branches < 2; branches++)
#pragma omp parallel for schedule(dynamic) if (n_segments > 1)
        for (int i = 0; i < n_segments; i++) {
            const float *rows = infer->rows + (int64_t)first_row(infer, i) * col->row;
            if (kv_sequence_is_branch(segments[i].sequence) == (branches > 0))
                kv_write(segments[i].sequence, layer, rows + col->key, col->row, rows + col->value,
                         col->row, segments[i].count);
        }
}

// x += o(attention(norm(x))); the new tokens' keys and values go to the cache on the way.
static void attention_block(Infer *infer, const InferSegment *segments, int n_segments, int layer)
{
    const ModelShape *s = &infer->shape;
    const InferLayer *w = &infer->weights->layers[layer];
    const RowColumns *col = &infer->columns;
    const int N = infer->n_rows, D = s->d_model;
    multiply_normed(infer, infer->rows, col->row, w->attn_norm, &w->qkv);
    if (w->qkv_bias != NULL)
        bias_forward(rows_f32(infer->rows, col->row), w->qkv_bias, N, shape_input_bias(s));
    normalize_heads(infer, layer);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int n = 0; n < N; n++) {
        if (shape_rotates(s, layer))
            rotate_row(infer, layer, n);
        if (w->latent_norm != NULL)
            normalize_latent(infer, w->latent_norm, n);
    }
    write_cache(infer, segments, n_segments, layer);
    attend(infer->jobs, n_segments, layer, s, &w->up_k, &w->up_v, col->row, infer->attention);
    multiply(infer, infer->x, D, infer->attended, shape_dim(s, DIM_Q), &w->o, N, true);
    if (w->o_bias != NULL)
        bias_forward(rows_f32(infer->x, D), w->o_bias, N, D);
}

// x += down(swiglu(norm(x)))
static void ffn_block(Infer *infer, int layer)
{
    const ModelShape *s = &infer->shape;
    const InferLayer *w = &infer->weights->layers[layer];
    const int N = infer->n_rows, D = s->d_model, F = s->d_ffn;
    if (weight_ffn_fits(&w->gate_up, &w->down)) {
        normalize(infer, normed_rows(infer), w->ffn_norm);
        weight_ffn_forward(infer->x, D, infer->rounded, &w->gate_up, &w->down, N, infer->products);
        return;
    }
    multiply_normed(infer, infer->gate_up, 2 * F, w->ffn_norm, &w->gate_up);
    swiglu_forward(rows_f32(infer->act, F), rows_f32(infer->gate_up, 2 * F), N, F);
    multiply(infer, infer->x, D, infer->act, F, &w->down, N, true);
}

// ---- forward -----------------------------------------------------------------------------------

// Room in the cache for all segments, or for none of them.
static Status reserve(const InferSegment *segments, int n_segments)
{
    for (int i = 0; i < n_segments; i++)
        TRY(kv_sequence_reserve(segments[i].sequence, segments[i].count));
    return OK;
}

// What follows from the tokens and positions alone: jobs, rotations, embeddings.
static void enter(Infer *infer, const InferSegment *segments, int n_segments)
{
    const ModelShape *s = &infer->shape;
    const int half = s->head_dim / 2, Q = shape_dim(s, DIM_Q);
    int n = 0;
    for (int i = 0; i < n_segments; i++) {
        const InferSegment *segment = &segments[i];
        const int first = kv_sequence_length(segment->sequence);
        CHECK(n + segment->count <= infer->max_tokens, "more than %d tokens in a forward",
              infer->max_tokens);
        infer->jobs[i] = (AttendJob){.sequence = segment->sequence,
                                     .q = infer->rows + (int64_t)n * infer->columns.row,
                                     .out = infer->attended + (int64_t)n * Q,
                                     .first = first,
                                     .count = segment->count,
                                     .compute = infer->weights->compute};
#pragma omp parallel for schedule(static) if (segment->count > 1)
        for (int t = 0; t < segment->count; t++) {
            weight_row_read(infer->x + (int64_t)(n + t) * s->d_model, &infer->weights->embed,
                            segment->tokens[t]);
            rope_row(infer->cos_rows + (int64_t)(n + t) * half,
                     infer->sin_rows + (int64_t)(n + t) * half, first + t, s->head_dim,
                     s->rope_theta, &s->rope_scaling);
        }
        n += segment->count;
    }
    infer->n_rows = n;
}

Status infer_forward(Infer *infer, const InferSegment *segments, int n_segments)
{
    const ModelShape *s = &infer->shape;
    CHECK(n_segments >= 1 && n_segments <= infer->max_segments, "%d segments, room for %d",
          n_segments, infer->max_segments);
    TRY(reserve(segments, n_segments));
    enter(infer, segments, n_segments);
    for (int l = 0; l < s->n_layers; l++) {
        attention_block(infer, segments, n_segments, l);
        ffn_block(infer, l);
    }
    normalize(infer, rows_f32(infer->normed, s->d_model), infer->weights->norm);
    for (int i = 0; i < n_segments; i++)
        TRY(kv_sequence_commit(segments[i].sequence, segments[i].count));
    return OK;
}

Status infer_prefill(Infer *infer, KvSequence *sequence, const int32_t *tokens, int64_t count)
{
    for (int64_t first = 0; first < count; first += infer->max_tokens) {
        const int n = (int)min_int64(count - first, infer->max_tokens);
        TRY(infer_forward(infer, &(InferSegment){sequence, tokens + first, n}, 1));
    }
    return kv_sequence_end_prompt(sequence);
}

const float *infer_hidden(const Infer *infer, int row)
{
    const int from = row >= 0 ? row : infer->n_rows - 1;
    CHECK(from < infer->n_rows, "row %d of a forward of %d", from, infer->n_rows);
    return infer->normed + (int64_t)from * infer->shape.d_model;
}

void infer_logits_part(Infer *infer, float *logits, const float *hidden, int n, int first,
                       int count)
{
    const WeightMatrix rows = weight_rows(&infer->weights->head, first, count);
    multiply(infer, logits, count, hidden, infer->shape.d_model, &rows, n, false);
}

void infer_logits(Infer *infer, float *logits, const float *hidden, int n)
{
    infer_logits_part(infer, logits, hidden, n, 0, infer->shape.vocab_size);
}
