// The parts lie over each other: the embedding [V, D]; a layer; the head [V, D] and the norm. The
// pointers of all of them are set once.
#include "train/teacher/held_model.h"

#include "base/intmath.h"
#include "base/log.h"
#include "model/hf/hf.h"
#include "model/kernels/dtype.h"

// Floats that are widened at a time, by one thread.
enum { PIECE = 1 << 14 };

static int64_t head_floats(const ModelShape *shape)
{
    return (int64_t)shape->vocab_size * shape->d_model;
}

static int64_t part_floats(const ModelShape *shape)
{
    int64_t most = head_floats(shape) + shape->d_model;
    for (int l = 0; l < shape->n_layers; l++) {
        int64_t first, count;
        params_layer_range(shape, l, &first, &count);
        most = max_int64(most, count);
    }
    return most;
}

int64_t held_model_bytes(const ModelShape *shape, DType dtype)
{
    return params_count(shape) * dtype_size_bytes(dtype);
}

int64_t held_model_part_bytes(const ModelShape *shape, DType dtype)
{
    return dtype == DTYPE_BF16 ? part_floats(shape) * (int64_t)sizeof(float) : 0;
}

int64_t held_model_peers_bytes(const HeldModel *held)
{
    const int64_t bytes = held->window.size_bytes;
    return held->window.bytes != NULL ? bytes - bytes / held->group->size : 0;
}

// Where a tensor of its part begins in the buffer.
static int64_t place_in_part(const ModelShape *shape, const ParamInfo *info)
{
    int64_t first, count;
    if (info->layer < 0) // the norm follows the head; embedding and head begin the buffer
        return info->is_vector ? head_floats(shape) : 0;
    params_layer_range(shape, info->layer, &first, &count);
    return info->offset - first;
}

static void point_into_part(HeldModel *held)
{
    const ModelShape *shape = &held->model.shape;
    Params *params = &held->model.params;
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        *params_field(&info, params) = held->part + place_in_part(shape, &info);
    }
    params->head = held->part;
}

// The memory of all parameters: the window's, or the arena's, which may be measuring.
static void *place_parameters(HeldModel *held, const ModelShape *shape, DType dtype)
{
    if (held->window.bytes != NULL)
        return held->window.bytes;
    return arena_place(&held->arena, params_count(shape), (size_t)dtype_size_bytes(dtype));
}

static void place(HeldModel *held, const ModelShape *shape, DType dtype)
{
    void *parameters = place_parameters(held, shape, dtype);
    held->flat = dtype == DTYPE_F32 ? parameters : NULL;
    held->halves = dtype == DTYPE_BF16 ? parameters : NULL;
    held->part = dtype == DTYPE_BF16 ? arena_floats(&held->arena, part_floats(shape)) : NULL;
}

// With bfloat16 there is no flat vector of floats: `part` stands in for it until the pointers are
// set.
static Status create(HeldModel *held, const ModelShape *shape, DType dtype)
{
    held->arena = arena_start("held model");
    place(held, shape, dtype);
    TRY(arena_allocate(&held->arena));
    place(held, shape, dtype);
    TRY(model_create_in(&held->model, shape, held->flat != NULL ? held->flat : held->part));
    if (held->halves != NULL)
        point_into_part(held);
    return OK;
}

// ---- loading -----------------------------------------------------------------------------------

// One rank of those that share the halves.
static bool is_writer(const HeldModel *held)
{
    return held->window.bytes == NULL || held->group->rank == 0;
}

static Status read_tensors(HeldModel *held, const HfSource *files, float *values)
{
    const WeightSource weights = hf_source_weights(files);
    const ModelShape *shape = &held->model.shape;
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        TRY(weight_source_read(&weights, &info, values));
        dtype_narrow(held->halves + info.offset, DTYPE_BF16, values,
                     (int64_t)info.rows * info.cols);
    }
    return OK;
}

static Status read_halves(HeldModel *held, const char *dir)
{
    const ModelShape *shape = &held->model.shape;
    HfSource *files = NULL;
    Arena arena = arena_start("tensor");
    float *values = NULL;
    Status status;
    TRY(hf_source_open(&files, dir));
    arena_floats(&arena, params_largest(shape));
    TRY_GOTO(release, arena_allocate(&arena));
    values = arena_floats(&arena, params_largest(shape));
    TRY_GOTO(release, hf_source_rope_pairs(held->model.rope_pairs, files));
    TRY_GOTO(release, read_tensors(held, files, values));
    hf_source_warn(files, dir);
release:
    arena_release(&arena);
    hf_source_close(files);
    return status;
}

static Status fill(HeldModel *held, const char *dir)
{
    if (!is_writer(held))
        return hf_load_rope_pairs(held->model.rope_pairs, &held->model.shape, dir);
    return held->halves != NULL ? read_halves(held, dir) : hf_load_into(&held->model, dir);
}

Status held_model_load(HeldModel *out, const char *dir, DType dtype, const Comm *comm,
                       CommGroup *group)
{
    HeldModel held = {.group = group};
    ModelShape shape;
    Status status;
    TRY(comm_agree(comm, hf_load_shape(&shape, dir)));
    if (group->shares)
        comm_window_open(&held.window, comm, group, held_model_bytes(&shape, dtype));
    TRY_GOTO(release, comm_agree(comm, create(&held, &shape, dtype)));
    status = fill(&held, dir);
    TRY_GOTO(release, comm_agree_of(comm, is_writer(&held) || status != OK, status));
    if (held.window.bytes != NULL)
        comm_window_sync(&held.window, group);
    *out = held;
    return OK;
release:
    held_model_release(&held);
    return status;
}

void held_model_release(HeldModel *held)
{
    model_release(&held->model);
    arena_release(&held->arena);
    comm_window_close(&held->window);
    *held = (HeldModel){0};
}

// ---- widening ----------------------------------------------------------------------------------

static void widen(const HeldModel *held, int64_t to, int64_t first, int64_t count)
{
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += PIECE)
        dtype_widen(held->part + to + begin, held->halves + first + begin, DTYPE_BF16,
                    count - begin < PIECE ? count - begin : PIECE);
}

// On this thread alone: tokens that occur twice would be written by two.
void held_model_widen_rows(const HeldModel *held, const int32_t *tokens, int64_t n)
{
    const int64_t D = held->model.shape.d_model;
    for (int64_t i = 0; held->halves != NULL && i < n; i++)
        dtype_widen(held->part + tokens[i] * D, held->halves + tokens[i] * D, DTYPE_BF16, D);
}

void held_model_widen(const HeldModel *held, int layer)
{
    const ModelShape *shape = &held->model.shape;
    int64_t first, count;
    if (held->halves == NULL)
        return;
    if (layer < shape->n_layers) {
        params_layer_range(shape, layer, &first, &count);
        widen(held, 0, first, count);
        return;
    }
    // A tied head is the embedding, at the beginning of the flat vector.
    params_layer_range(shape, shape->n_layers - 1, &first, &count);
    const int64_t norm = first + count;
    widen(held, head_floats(shape), norm, shape->d_model);
    widen(held, 0, shape->tied_head ? 0 : norm + shape->d_model, head_floats(shape));
}
