// Where forward and backward (model/transformer/transformer.h) put what they compute: what layers
// keep for backward in one arena, or in gradient memory that is not written yet, and scratch in
// another.
//
//     Workspace ws;
//     workspace_place(&ws, &activations, &scratch, &shape, B, T, n_threads, RECOMPUTE_NONE); //
//     measure
//     ... arena_allocate both ...
//     workspace_place(&ws, &activations, &scratch, &shape, B, T, n_threads, RECOMPUTE_NONE); //
//     place
#ifndef MHA2MLA_MODEL_TRANSFORMER_WORKSPACE_H
#define MHA2MLA_MODEL_TRANSFORMER_WORKSPACE_H

#include "base/arena.h"
#include "model/attention/attention.h"
#include "model/attention/attention_latent.h"
#include "model/kernels/step_times.h"
#include "model/transformer/activation_policy.h"
#include "model/transformer/gradient_reuse.h"

// What forward leaves for backward, each layer its own or shared.
typedef struct LayerSaved {
    float *x_in;         // [N, D] input of the layer
    float *attn_inv_rms; // [N] of x_in
    float *latent;       // [N, R], MLA that expands keys and values
    float *qkv;          // [N, qkv_width()] after RoPE
    float *attn_out;     // [N, Q]; shared by all layers with attention in the latent space
    float *values;       // [N, H W] there: what the heads took of the latent's W columns
    float *lse;          // [N, H] of the softmax
    float *x_mid;        // [N, D] after attention
    float *ffn_inv_rms;  // [N] of x_mid
    float *gate_up;      // [N, 2F]; backward leaves its gradient there
} LayerSaved;

// Called with the index of a layer; -1 stands for the embedding, L for the last norm and the head.
typedef struct LayerCallback {
    void (*call)(void *context, int layer); // NULL: none
    void *context;
} LayerCallback;

typedef struct Workspace {
    int B, T;     // of the next calls
    int placed_B; // the most there is room for
    ActivationPolicy policy;
    GradientReuse reuse;     // of gradient memory for activations
    bool is_latent;          // attention in the latent space (model/attention/attention_latent.h)
    AttentionDims attention; // of keys and values expanded, elsewhere
    LatentDims latent;
    LayerSaved *layers; // [L]
    float *hidden;      // [N, D] output of the last layer
    float *inv_rms;     // [N] of hidden
    float *cos_table;   // [T, E/2]
    float *sin_table;   // [T, E/2]
    float *head_in;     // [N, D] the last norm of hidden
    float *d_head_in;   // [N, D], from the loss to backward
    // Scratch of the layers and of the head, in one place.
    float *normed, *d_normed; // [N, D]; d_normed: training; head_in and d_head_in, if not apart
    float *dx;                // [N, D] gradient of the residual stream, backward
    float *projected;         // [N, Q + K 2P + R], MLA that expands
    float *expanded;          // [N, K (E - 2P) + K E], likewise
    float *attention_scratch; // per thread
    float *attn_out;          // [N, Q], attention in the latent space
    float *d_qkv;             // [N, qkv_width()], training
    float *d_attn_out;        // [N, Q], training
    float *act;               // [N, F]; in backward its gradient, too
    float *logits;            // [min(N, head_block(V)), V]
    bool fresh_gradients; // loss and backward write gradients (=), without reading what is there
    StepTimes *times;     // borrowed; NULL: nothing is measured
    LayerCallback before_layer;   // before forward, or the loss, reads a layer's parameters
    LayerCallback after_backward; // after backward has made a layer's gradients final
} Workspace;

// Places the activations that wait for backward in one arena and the scratch in the other. Called
// with measuring arenas it only counts. n_threads is the most OpenMP will use.
void workspace_place(Workspace *ws, Arena *activations, Arena *scratch, const ModelShape *shape,
                     int B, int T, int n_threads, ActivationPolicy policy);

// The same, with as many activations as fit in gradient memory that may be reused (copied). Those
// gradients are lost from forward until backward has written them: each backward is to have
// fresh_gradients.
void workspace_place_reusing(Workspace *ws, const GradientReuse *reuse, Arena *activations,
                             Arena *scratch, const ModelShape *shape, int B, int T, int n_threads,
                             ActivationPolicy policy);

// Lets the next calls run on fewer sequences than were placed: the last, incomplete batch.
void workspace_set_batch(Workspace *ws, int B);

#endif
