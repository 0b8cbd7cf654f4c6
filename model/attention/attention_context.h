// What a layer's attention is given besides its data: the same for all forms
// (model/attention/attention_form.h). All pointers are borrowed.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_CONTEXT_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_CONTEXT_H

#include "model/kernels/step_times.h"
#include "model/params.h"

// Called with queries and keys before RoPE.
typedef struct QkObserver {
    void (*call)(void *observer,
                 const float *qkv, // [N, row]: H heads of queries, K of keys, E wide, and more
                 int64_t row);     // floats from one token to the next
    void *observer;
} QkObserver;

typedef struct AttentionContext {
    const ModelShape *shape;
    const LayerParams *weights;
    const int32_t *pairs;   // [K, P]
    const float *cos_table; // [T, E/2]
    const float *sin_table; // [T, E/2]
    int B, T;
    float *projected;              // scratch [N, AttentionWidths.projected]
    float *expanded;               // scratch [N, AttentionWidths.expanded]
    float *tiles;                  // scratch [AttentionForm.tile_floats()]
    bool add_gradients;            // of weights: += instead of =
    StepTimes *times;              // NULL: nothing is measured
    const QkObserver *qk_observer; // NULL: none; original attention only
} AttentionContext;

#endif
