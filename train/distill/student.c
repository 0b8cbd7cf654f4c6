// The sum over a window is added up token by token, each token's in a fixed order, so that its bits
// depend neither on threads nor on ranks.
#include "train/distill/student.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

// What lies before the feed-forward's norm in a layer: attn_norm and what attention reads.
static int64_t attention_count(const ModelShape *one)
{
    int64_t first, count;
    ParamInfo ffn;
    params_layer_range(one, 0, &first, &count);
    CHECK(params_find(&ffn, one, "model.layers.0.post_attention_layernorm.weight"),
          "a layer without feed-forward");
    return ffn.offset - first;
}

static ModelShape one_layer(const ModelShape *mla)
{
    ModelShape one = *mla;
    one.n_layers = 1; // no_rope stays the whole model's: there is room for tables without RoPE
    return one;
}

int64_t student_n_trained(const ModelShape *mla)
{
    const ModelShape one = one_layer(mla);
    return attention_count(&one) - one.d_model;
}

void student_place(Student *student, Arena *arena, const ModelShape *mla, int T,
                   ComputeType compute, int n_threads)
{
    const ModelShape one = one_layer(mla);
    *student = (Student){.shape = one, .count = attention_count(&one)};
    student->n_trained = student->count - one.d_model;
    student->values = arena_floats(arena, student->count);
    student->gradient = arena_floats(arena, student->count);
    student->basis = arena_floats(arena, absorb_count(&one));
    student->out = arena_floats(arena, (int64_t)T * one.d_model);
    student->row_sums = arena_place(arena, T, sizeof(double));
    workspace_place(&student->ws, arena, arena, &one, 1, T, n_threads, RECOMPUTE_NONE, compute);
}

// Points the tensors of attention into `flat`, by the table of parameters.
static void point(LayerParams *layer, float *flat, const Student *student)
{
    Params params = {.layers = layer};
    int64_t first, count;
    const int n = params_n_tensors(&student->shape);
    params_layer_range(&student->shape, 0, &first, &count);
    for (int t = 0; t < n; t++) {
        const ParamInfo info = params_info(&student->shape, t);
        if (info.layer == 0 && info.offset - first < student->count)
            *params_field(&info, &params) = flat + (info.offset - first);
    }
}

Status student_load(Student *student, const Model *mla, int layer)
{
    const LayerParams *from = &mla->params.layers[layer];
    CHECK(from->ffn_norm - from->attn_norm == student->count, "a layer of another shape");
    memcpy(student->values, from->attn_norm, (size_t)student->count * sizeof(float));
    memset(student->gradient, 0, (size_t)student->count * sizeof(float));
    student->trained = student->values + student->shape.d_model;
    student->weights = *from;
    student->slopes = (LayerParams){0};
    point(&student->weights, student->values, student);
    student->weights.o_bias = NULL; // not part of the targets
    point(&student->slopes, student->gradient, student);
    student->slopes.o_bias = NULL;
    student->grads = (Params){.layers = &student->slopes};
    student->shape.no_rope = (LayerSet){0};
    layer_set_put(&student->shape.no_rope, 0, !shape_rotates(&mla->shape, layer));
    student->model = (Model){.shape = student->shape,
                             .params = {.layers = &student->weights},
                             .rope_pairs = mla->rope_pairs +
                                           (model_pairs(mla, layer, 0) - model_pairs(mla, 0, 0))};
    student->ws.fresh_gradients = true;
    transformer_start(&student->ws, &student->model);
    student->absorption = absorb_start(&student->shape, student->basis);
    return absorb_layer(&student->absorption, &student->weights);
}

Status student_store(Student *student, float *layer)
{
    TRY(absorb_undo(&student->absorption, &student->weights));
    memcpy(layer, student->values, (size_t)student->count * sizeof(float));
    return OK;
}

static void add_part(StudentPart *parts, int *n, int64_t first, int64_t count)
{
    if (count == 0)
        return;
    CHECK(*n < STUDENT_MAX_PARTS, "%d tensors of attention", *n);
    parts[(*n)++] = (StudentPart){first, count, 0};
}

int student_parts(const Student *student, StudentPart parts[STUDENT_MAX_PARTS])
{
    const ModelShape *s = &student->shape;
    const int64_t rotated = (int64_t)s->n_heads * 2 * s->rope_pairs * s->d_model;
    double squares = 0, n_live = 0;
    int n = 0, first_tensor, n_tensors;
    params_layer_tensors(s, 0, &first_tensor, &n_tensors);
    const int64_t norm = params_info(s, first_tensor).offset, origin = norm + s->d_model;
    for (int t = first_tensor + 1; t < first_tensor + n_tensors; t++) {
        const ParamInfo info = params_info(s, t);
        const int64_t first = info.offset - origin, count = (int64_t)info.rows * info.cols;
        if (first >= student->n_trained)
            break;
        const int64_t split = info.field == offsetof(LayerParams, q) ? rotated : 0;
        add_part(parts, &n, first, split);
        add_part(parts, &n, first + split, count - split);
    }
    for (int i = 0; i < n; i++) {
        double sum = 0, live = 0;
        for (int64_t k = parts[i].first; k < parts[i].first + parts[i].count; k++) {
            sum += (double)student->trained[k] * (double)student->trained[k];
            live += student->trained[k] != 0;
        }
        parts[i].size = live > 0 ? sqrt(sum / live) : 0;
        squares += sum;
        n_live += live;
    }
    for (int i = 0; i < n; i++)
        if (!(parts[i].size > 0))
            parts[i].size = squares > 0 ? sqrt(squares / n_live) : 1;
    return n;
}

// out = (out - target) times 2 scale and the token's weight.
static double compare(Student *student, const float *target, const float *weights, float scale)
{
    const int T = student->ws.T, D = student->shape.d_model;
    double sum = 0;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++) {
        float *out = student->out + (int64_t)t * D;
        const float *wanted = target + (int64_t)t * D;
        double row_sum = 0;
        for (int d = 0; d < D; d++) {
            const float difference = out[d] - wanted[d];
            row_sum += (double)difference * (double)difference;
            out[d] = 2 * scale * weights[t] * difference;
        }
        student->row_sums[t] = (double)weights[t] * row_sum;
    }
    for (int t = 0; t < T; t++)
        sum += student->row_sums[t];
    return sum;
}

// The up-projections that were absorbed stay as they are.
double student_backward(Student *student, const float *x, const float *target, const float *weights,
                        float scale)
{
    const ModelShape *s = &student->shape;
    const size_t row = (size_t)shape_dim(s, DIM_UP_INPUT) * sizeof(float);
    transformer_attention(&student->ws, &student->model, 0, x, student->out);
    const double sum = compare(student, target, weights, scale);
    transformer_attention_backward(&student->ws, &student->model, 0, student->out, &student->grads);
    if (student->absorption.keys)
        memset(student->slopes.up_k, 0, (size_t)shape_dim(s, DIM_K_NOPE) * row);
    if (student->absorption.values)
        memset(student->slopes.up_v, 0, (size_t)shape_dim(s, DIM_UP_VALUE) * row);
    return sum;
}

Rows student_heads(Student *student, const float *x)
{
    return transformer_heads(&student->ws, &student->model, 0, x);
}
