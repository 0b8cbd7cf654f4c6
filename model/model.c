// Random weights are a function of seed and position in the flat vector, so that every rank, and
// any number of threads, makes the same model.
#include "model/model.h"

#include "base/intmath.h"
#include "base/random.h"

// A model is placed twice by the same code, once to measure and once in memory (base/arena.h). In
// training the parameters lie in memory that the ranks of a host share, so they may be borrowed.
static void place(Model *model, Arena *arena, float **flat, bool is_borrowed)
{
    const ModelShape *s = &model->shape;
    if (!is_borrowed)
        *flat = arena_floats(arena, params_count(s));
    model->rope_pairs = arena_place(arena, model_n_pairs(s), sizeof *model->rope_pairs);
}

int64_t model_bytes(const ModelShape *shape)
{
    Model model = {.shape = *shape, .arena = arena_start("parameters")};
    float *flat;
    place(&model, &model.arena, &flat, false);
    return model.arena.peak_bytes;
}

Status model_create(Model *out, const ModelShape *shape)
{
    return model_create_in(out, shape, NULL);
}

Status model_create_in(Model *out, const ModelShape *shape, float *flat)
{
    Model model = {.shape = *shape, .arena = arena_start("parameters")};
    const bool is_borrowed = flat != NULL;
    place(&model, &model.arena, &flat, is_borrowed);
    TRY(arena_allocate(&model.arena));
    place(&model, &model.arena, &flat, is_borrowed);
    Status status;
    TRY_GOTO(release_arena, params_place(&model.params, shape, flat));
    for (int64_t i = 0; i < model_n_pairs(shape); i++)
        // The identity is the selection of an original model; a conversion or a file overwrites it.
        // A shared form may have more slots than there are pairs.
        model.rope_pairs[i] = (int32_t)min_int64(i % shape->rope_pairs, shape->head_dim / 2 - 1);
    *out = model;
    return OK;
release_arena:
    arena_release(&model.arena);
    return status;
}

static Status read_random(const void *context, const ParamInfo *info, float *values)
{
    const RandomWeights *weights = context;
    const uint64_t key = random_key(weights->seed, "init");
    const int64_t count = (int64_t)info->rows * info->cols;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++)
        // The counter is the index in the flat vector, not in the tensor: no two tensors get the
        // same numbers, and a thread computes its range alone.
        values[i] = info->is_bias ? 0.0f
                    : info->is_vector
                        ? 1.0f
                        : (float)(weights->std * random_normal(key, (uint64_t)(info->offset + i)));
    return OK;
}

WeightSource random_weights(const RandomWeights *weights)
{
    return (WeightSource){&weights->shape, weights, read_random};
}

void model_init_random(Model *model, double std, uint64_t seed)
{
    const RandomWeights weights = {model->shape, std, seed};
    int n_tensors = params_n_tensors(&model->shape);
    for (int t = 0; t < n_tensors; t++) {
        ParamInfo info = params_info(&model->shape, t);
        read_random(&weights, &info, model->params.flat + info.offset);
    }
}

void model_release(Model *model)
{
    params_release(&model->params);
    arena_release(&model->arena);
    *model = (Model){0};
}
