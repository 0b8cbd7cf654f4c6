// A micro-batch: B sequences of T inputs and their T targets, cut from samples of T + 1 tokens.
//
//     batch_place(&batch, &arena, B, T);            // twice: measure, place
//     TRY(mixture_read(mixture, index, batch.sample));
//     batch_set(&batch, b);                         // sample -> row b of inputs and targets
#ifndef MHA2MLA_DATA_BATCH_H
#define MHA2MLA_DATA_BATCH_H

#include "base/arena.h"

#include <stdint.h>

typedef struct Batch {
    int B, T;
    int32_t *inputs;  // [B, T]
    int32_t *targets; // [B, T]
    int32_t *sample;  // [T + 1]
} Batch;

void batch_place(Batch *batch, Arena *arena, int B, int T);
void batch_set(Batch *batch, int b);

#endif
