#include "eval/inference.h"

#include <omp.h>

static void place(Inference *inference, const ModelShape *shape, int T)
{
    Arena *arena = &inference->arena;
    workspace_place(&inference->ws, arena, arena, shape, 1, T, omp_get_max_threads(), FORWARD_ONLY);
    batch_place(&inference->batch, arena, 1, T);
}

int64_t inference_bytes(const ModelShape *shape, int T)
{
    Inference inference = {.arena = arena_start("inference")};
    place(&inference, shape, T);
    return inference.arena.peak_bytes;
}

Status inference_start(Inference *out, const Model *model, int T)
{
    Inference inference = {.arena = arena_start("inference")};
    place(&inference, &model->shape, T);
    TRY(arena_allocate(&inference.arena));
    place(&inference, &model->shape, T);
    transformer_start(&inference.ws, model);
    *out = inference;
    return OK;
}

void inference_release(Inference *inference)
{
    arena_release(&inference->arena);
    *inference = (Inference){0};
}
