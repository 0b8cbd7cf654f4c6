// Where a tensor goes follows from its field in LayerParams or Params by one table. Tensors that
// are rows of one matrix here follow one another in the table of parameters (model/params.h), so
// each is put behind the rows that its matrix has already.
#include "infer/weights.h"

#include "base/progress.h"
#include "infer/latent_rotation.h"
#include "model/hf/hf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A tensor's field in LayerParams or Params, and the field in InferLayer or InferWeights that it
// belongs to: a float pointer for vectors, else a WeightMatrix.
typedef struct Slot {
    size_t param, field;
} Slot;

#define LAYER_SLOT(param, field)                                                                   \
    {                                                                                              \
        offsetof(LayerParams, param), offsetof(InferLayer, field)                                  \
    }
#define MODEL_SLOT(param)                                                                          \
    {                                                                                              \
        offsetof(Params, param), offsetof(InferWeights, param)                                     \
    }

static const Slot layer_slots[] = {
    LAYER_SLOT(attn_norm, attn_norm),
    LAYER_SLOT(q, qkv),
    LAYER_SLOT(k, qkv),
    LAYER_SLOT(v, qkv),
    LAYER_SLOT(k_r, qkv),
    LAYER_SLOT(down_kv, qkv),
    LAYER_SLOT(latent_norm, latent_norm),
    LAYER_SLOT(up_k, up_k),
    LAYER_SLOT(up_v, up_v),
    LAYER_SLOT(o, o),
    LAYER_SLOT(q_norm, q_norm),
    LAYER_SLOT(k_norm, k_norm),
    LAYER_SLOT(q_bias, qkv_bias),
    LAYER_SLOT(k_bias, qkv_bias),
    LAYER_SLOT(v_bias, qkv_bias),
    LAYER_SLOT(k_r_bias, qkv_bias),
    LAYER_SLOT(o_bias, o_bias),
    LAYER_SLOT(ffn_norm, ffn_norm),
    LAYER_SLOT(gate, gate_up),
    LAYER_SLOT(up, gate_up),
    LAYER_SLOT(down, down),
};

static const Slot model_slots[] = {MODEL_SLOT(embed), MODEL_SLOT(norm), MODEL_SLOT(head)};

static size_t field_of(const ParamInfo *info)
{
    const Slot *slots = info->layer >= 0 ? layer_slots : model_slots;
    const size_t n_slots = info->layer >= 0 ? sizeof layer_slots / sizeof *layer_slots
                                            : sizeof model_slots / sizeof *model_slots;
    size_t i = 0;
    while (i < n_slots && slots[i].param != info->field)
        i++;
    CHECK(i < n_slots, "tensor %s has no place in inference", info->name);
    return slots[i].field;
}

// Neighbouring tensors of one matrix, or a vector.
typedef struct Group {
    int first_tensor, n_tensors, layer;
    size_t field;
    int rows, cols;
    bool is_vector;
} Group;

static bool next_group(Group *group, const ModelShape *shape, int first_tensor)
{
    const int end = params_n_tensors(shape);
    *group = (Group){.first_tensor = first_tensor};
    for (int t = first_tensor; t < end; t++) {
        const ParamInfo info = params_info(shape, t);
        const size_t field = field_of(&info);
        if (t > first_tensor && (info.layer != group->layer || field != group->field))
            break;
        group->layer = info.layer;
        group->field = field;
        group->is_vector = info.is_vector;
        group->rows += info.rows;
        group->cols = info.cols;
        group->n_tensors++;
    }
    return group->n_tensors > 0;
}

// What the matrices are made for.
typedef struct MatrixType {
    DType dtype;
    ComputeType compute;
} MatrixType;

static MatrixType matrix_type(DType dtype, ComputeType compute)
{
    return (MatrixType){compute == COMPUTE_BFLOAT16 ? DTYPE_BF16 : dtype, compute};
}

// The up-projections are multiplied head by head, by ranges of rows.
static WeightLayout layout_of(const Group *group, MatrixType type)
{
    const bool is_up = group->layer >= 0 && (group->field == offsetof(InferLayer, up_k) ||
                                             group->field == offsetof(InferLayer, up_v));
    if (is_up)
        return WEIGHT_ROWS;
    return type.compute == COMPUTE_BFLOAT16 ? WEIGHT_PANELS
                                            : weight_layout_best(type.dtype, group->cols);
}

static WeightMatrix matrix_of(const Group *group, MatrixType type)
{
    return (WeightMatrix){NULL, type.dtype, group->rows, group->cols, layout_of(group, type)};
}

static void *place_group(Arena *arena, const Group *group, MatrixType type)
{
    const WeightMatrix w = matrix_of(group, type);
    return group->is_vector ? arena_floats(arena, (int64_t)group->rows * group->cols)
                            : arena_place(arena, weight_matrix_bytes(&w), 1);
}

static int32_t *place_pairs(Arena *arena, const ModelShape *shape)
{
    return arena_place(arena, model_n_pairs(shape), sizeof(int32_t));
}

static Arena measure(const ModelShape *shape, MatrixType type)
{
    Arena arena = arena_start("weights");
    Group group;
    place_pairs(&arena, shape);
    for (int t = 0; next_group(&group, shape, t); t += group.n_tensors)
        place_group(&arena, &group, type);
    return arena;
}

int64_t infer_weights_bytes(const ModelShape *shape, DType dtype, ComputeType compute)
{
    return measure(shape, matrix_type(dtype, compute)).peak_bytes;
}

static void *slot_of(InferWeights *weights, const Group *group)
{
    char *owner = group->layer < 0 ? (char *)weights : (char *)&weights->layers[group->layer];
    return owner + group->field;
}

static void place(InferWeights *weights)
{
    Group group;
    const MatrixType type = {weights->dtype, weights->compute};
    weights->rope_pairs = place_pairs(&weights->arena, &weights->shape);
    for (int t = 0; next_group(&group, &weights->shape, t); t += group.n_tensors) {
        void *values = place_group(&weights->arena, &group, type);
        if (group.is_vector) {
            *(float **)slot_of(weights, &group) = values;
            continue;
        }
        WeightMatrix *w = slot_of(weights, &group);
        *w = matrix_of(&group, type);
        w->values = values;
    }
    if (weights->shape.tied_head)
        weights->head = weights->embed;
}

// FAILED if a number would become infinite: of the 16-bit formats, only F16's range is short.
static Status check_range(const ParamInfo *info, const float *values, DType dtype)
{
    const float limit = 65520.0f; // rounds to infinity, as in IEEE 754
    const int64_t count = (int64_t)info->rows * info->cols;
    for (int64_t i = 0; dtype == DTYPE_F16 && i < count; i++)
        if (!(fabsf(values[i]) < limit))
            return fail(FAILED, "tensor '%s' has %g at row %lld, column %lld, which %s cannot hold",
                        info->name, (double)values[i], (long long)(i / info->cols),
                        (long long)(i % info->cols), dtype_name(dtype));
    return OK;
}

// Reads a tensor's rows into a matrix, from row `first` on, through `scratch` unless it is stored
// as floats. The block is ours: a matrix is `const` for its readers alone.
static Status read_rows(WeightMatrix *w, int first, const WeightSource *source,
                        const ParamInfo *info, float *scratch)
{
    char *values = *(char **)(void *)&w->values;
    if (w->dtype == DTYPE_F32)
        return weight_source_read(source, info, (float *)(void *)values + (int64_t)first * w->n_in);
    TRY(weight_source_read(source, info, scratch));
    TRY(check_range(info, scratch, w->dtype));
    weight_rows_write(values, w, first, info->rows, scratch);
    return OK;
}

static Status read_group(InferWeights *weights, const Group *group, const WeightSource *source,
                         ProgressMeter *meter, float *scratch)
{
    void *slot = slot_of(weights, group);
    int row = 0;
    for (int t = group->first_tensor; t < group->first_tensor + group->n_tensors; t++) {
        const ParamInfo info = params_info(&weights->shape, t);
        if (info.is_vector)
            TRY(weight_source_read(source, &info, *(float **)slot + row));
        else
            TRY(read_rows(slot, row, source, &info, scratch));
        row += info.rows;
        progress_show(meter, info.offset + (int64_t)info.rows * info.cols);
    }
    return OK;
}

static Status read_all(InferWeights *weights, const WeightSource *source)
{
    const ModelShape *shape = &weights->shape;
    Group group;
    Arena scratch = arena_start("a tensor of the weights");
    const int64_t count = weights->dtype == DTYPE_F32 ? 0 : params_largest(shape);
    arena_floats(&scratch, count);
    if (arena_allocate(&scratch) != OK)
        return fail(FAILED, "no memory to read a tensor of %lld numbers", (long long)count);
    float *values = arena_floats(&scratch, count);
    ProgressMeter meter = progress_start("reading the weights", "numbers", params_count(shape));
    Status status = OK;
    for (int t = 0; next_group(&group, shape, t); t += group.n_tensors)
        TRY_GOTO(end, read_group(weights, &group, source, &meter, values));
end:
    progress_end(&meter);
    arena_release(&scratch);
    return status;
}

static Status allocate(InferWeights *weights)
{
    weights->layers = calloc((size_t)weights->shape.n_layers, sizeof *weights->layers);
    weights->size_bytes = weights->arena.peak_bytes;
    if (weights->layers == NULL || arena_allocate(&weights->arena) != OK)
        return fail(FAILED, "no memory for weights of %.2f GiB",
                    (double)weights->size_bytes / (1 << 30));
    return OK;
}

Status infer_weights_read(InferWeights *out, const WeightSource *source, const int32_t *rope_pairs,
                          DType dtype, ComputeType compute)
{
    const ModelShape *shape = source->shape;
    const MatrixType type = matrix_type(dtype, compute);
    InferWeights weights = {
        .shape = *shape, .dtype = type.dtype, .compute = compute, .arena = measure(shape, type)};
    Status status;
    TRY_GOTO(release_weights, allocate(&weights));
    place(&weights);
    memcpy(weights.rope_pairs, rope_pairs, (size_t)model_n_pairs(shape) * sizeof *rope_pairs);
    TRY_GOTO(release_weights, read_all(&weights, source));
    *out = weights;
    return OK;
release_weights:
    infer_weights_release(&weights);
    return status;
}

static Status load_from(InferWeights *out, const HfSource *files, const WeightSource *source,
                        const char *dir, ComputeType compute)
{
    const ModelShape *s = source->shape;
    DType dtype;
    Status status;
    TRY(hf_source_dtype(&dtype, files));
    int32_t *pairs = calloc((size_t)model_n_pairs(s), sizeof *pairs);
    if (pairs == NULL)
        return fail(FAILED, "%s: no memory for its RoPE pairs", dir);
    TRY_GOTO(free_pairs, hf_source_rope_pairs(pairs, files));
    TRY_GOTO(free_pairs, infer_weights_read(out, source, pairs, dtype, compute));
    hf_source_warn(files, dir);
free_pairs:
    free(pairs);
    return status;
}

Status infer_weights_load(InferWeights *out, const char *dir, ComputeType compute)
{
    HfSource *files;
    TRY(hf_source_open(&files, dir));
    const WeightSource source = hf_source_weights(files);
    const Status status = load_from(out, files, &source, dir, compute);
    hf_source_close(files);
    return status;
}

Status infer_weights_load_rotated(InferWeights *out, const char *dir, ComputeType compute)
{
    HfSource *files;
    LatentRotation *rotation = NULL;
    Status status;
    TRY(hf_source_open(&files, dir));
    const WeightSource source = hf_source_weights(files);
    TRY_GOTO(close, latent_rotation_create(&rotation, &source));
    const WeightSource rotated = latent_rotation_weights(rotation);
    TRY_GOTO(close, load_from(out, files, &rotated, dir, compute));
close:
    latent_rotation_release(rotation);
    hf_source_close(files);
    return status;
}

void infer_weights_release(InferWeights *weights)
{
    arena_release(&weights->arena);
    free(weights->layers);
    weights->layers = NULL;
}
