// What a backward would need is not kept (FORWARD_ONLY), so activations and scratch share one
// arena: each layer writes over the one below.
#include "eval/forward_pass.h"

#include <omp.h>

// Run twice, without memory to measure and with it to place (base/arena.h). B = 1: a single
// sequence keeps all cores busy within its matrix products.
static void place(ForwardPass *pass, const ModelShape *shape, int T, ComputeType compute)
{
    Arena *arena = &pass->arena;
    workspace_place(&pass->ws, arena, arena, shape, 1, T, omp_get_max_threads(), FORWARD_ONLY,
                    compute);
    batch_place(&pass->batch, arena, 1, T);
}

int64_t forward_pass_bytes(const ModelShape *shape, int T, ComputeType compute)
{
    ForwardPass pass = {.arena = arena_start("forward pass")};
    place(&pass, shape, T, compute);
    return pass.arena.peak_bytes;
}

Status forward_pass_start(ForwardPass *out, const Model *model, int T, ComputeType compute)
{
    ForwardPass pass = {.arena = arena_start("forward pass")};
    place(&pass, &model->shape, T, compute);
    TRY(arena_allocate(&pass.arena));
    place(&pass, &model->shape, T, compute);
    transformer_start(&pass.ws, model);
    *out = pass;
    return OK;
}

void forward_pass_release(ForwardPass *pass)
{
    arena_release(&pass->arena);
    *pass = (ForwardPass){0};
}

int64_t forward_pass_layer_bytes(const ModelShape *shape, int T, ComputeType compute)
{
    ModelShape layers = *shape;
    layers.vocab_size = 1;
    return forward_pass_bytes(&layers, T, compute);
}
