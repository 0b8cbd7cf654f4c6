// What a layer's attention is given besides its data: the same for all forms
// (model/attention/attention_form.h). All pointers are borrowed.
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_CONTEXT_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_CONTEXT_H

#include "model/kernels/compute.h"
#include "model/kernels/rows.h"
#include "model/kernels/step_times.h"
#include "model/params.h"

// Called with queries and keys before RoPE.
typedef struct QkObserver {
    void (*call)(void *observer,
                 Rows qkv); // [N, ...]: H heads of queries, K of keys, E wide, and more
    void *observer;
} QkObserver;

typedef struct AttentionContext {
    ComputeType compute; // of products; in float32 all rows are float32
    const ModelShape *shape;
    const LayerParams *weights;
    const int32_t *pairs;   // [K, P]
    const float *cos_table; // [T, E/2] of the layer: ones without RoPE
    const float *sin_table; // [T, E/2] zeros without RoPE
    int B, T;
    Rows projected;                // scratch [N, AttentionWidths.projected]
    Rows expanded;                 // scratch [N, AttentionWidths.expanded]
    void *tiles;                   // scratch [AttentionForm.tile_bytes()]
    bool add_gradients;            // of weights: += instead of =
    StepTimes *times;              // NULL: nothing is measured
    const QkObserver *qk_observer; // NULL: none; original attention only
} AttentionContext;

#endif
