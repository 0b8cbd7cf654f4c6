#include "model/model.h"

#include "base/random.h"

static void place(Model *model, Arena *arena, float **flat)
{
    const ModelShape *s = &model->shape;
    *flat = arena_floats(arena, params_count(s));
    model->rope_pairs = arena_place(arena, (int64_t)s->n_layers * s->n_kv_heads * s->rope_pairs,
                                    sizeof *model->rope_pairs);
}

void model_measure(Arena *arena, const ModelShape *shape)
{
    Model model = {.shape = *shape};
    float *flat;
    place(&model, arena, &flat);
}

Status model_create(Model *out, const ModelShape *shape)
{
    Model model = {.shape = *shape, .arena = arena_start("parameters")};
    float *flat;
    place(&model, &model.arena, &flat);
    TRY(arena_allocate(&model.arena));
    place(&model, &model.arena, &flat);
    Status status;
    TRY_GOTO(release_arena, params_place(&model.params, shape, flat));
    for (int row = 0; row < shape->n_layers * shape->n_kv_heads; row++)
        for (int p = 0; p < shape->rope_pairs; p++)
            model.rope_pairs[(int64_t)row * shape->rope_pairs + p] = p;
    *out = model;
    return OK;
release_arena:
    arena_release(&model.arena);
    return status;
}

void model_init_random(Model *model, double std, uint64_t seed)
{
    uint64_t key = random_key(seed, "init");
    int n_tensors = params_n_tensors(&model->shape);
    for (int t = 0; t < n_tensors; t++) {
        ParamInfo info = params_info(&model->shape, t);
        int64_t count = (int64_t)info.rows * info.cols;
        float *values = model->params.flat + info.offset;
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < count; i++)
            values[i] = info.is_vector
                            ? 1.0f
                            : (float)(std * random_normal(key, (uint64_t)(info.offset + i)));
    }
}

void model_release(Model *model)
{
    params_release(&model->params);
    arena_release(&model->arena);
    *model = (Model){0};
}
