// Inputs and targets are two copies shifted by one token rather than one row of T + 1: the model
// then reads plain [B, T] arrays, for 4 bytes more per token.
#include "data/batch.h"

#include <string.h>

void batch_place(Batch *batch, Arena *arena, int B, int T)
{
    int64_t N = (int64_t)B * T;
    *batch = (Batch){
        .B = B,
        .T = T,
        .inputs = arena_place(arena, N, sizeof(int32_t)),
        .targets = arena_place(arena, N, sizeof(int32_t)),
        .sample = arena_place(arena, (int64_t)T + 1, sizeof(int32_t)),
    };
}

void batch_set(Batch *batch, int b)
{
    // Targets are the inputs one position on, so each token but the first is predicted once.
    CHECK(b >= 0 && b < batch->B, "row %d of %d", b, batch->B);
    size_t bytes = (size_t)batch->T * sizeof(int32_t);
    memcpy(batch->inputs + (int64_t)b * batch->T, batch->sample, bytes);
    memcpy(batch->targets + (int64_t)b * batch->T, batch->sample + 1, bytes);
}
