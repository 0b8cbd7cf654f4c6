// Where forward and backward (model/transformer/transformer.h) put what they compute: what layers
// keep for backward in one arena, or over gradients that are not written yet, and scratch in
// another.
//
//     Workspace ws;
//     workspace_place(&ws, &activations, &scratch, &shape, B, T, n_threads, KEEP_ALL); // measure
//     ... arena_allocate both ...
//     workspace_place(&ws, &activations, &scratch, &shape, B, T, n_threads, KEEP_ALL); // place
#ifndef MHA2MLA_MODEL_TRANSFORMER_WORKSPACE_H
#define MHA2MLA_MODEL_TRANSFORMER_WORKSPACE_H

#include "base/arena.h"
#include "model/attention/attention.h"
#include "model/attention/attention_latent.h"
#include "model/kernels/step_times.h"
#include "model/transformer/overlay.h"

// What the layers keep from forward for backward; the rest they share, and backward computes it
// again, with the same bits.
typedef enum Keep {
    KEEP_NOTHING,       // no backward
    KEEP_ALL,           // training
    KEEP_BUT_ATTENTION, // all but what attention_block_backward needs beside x_in
    KEEP_INPUTS,        // x_in alone
} Keep;

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

// What is called at a layer: -1 is what comes before the layers, L what comes after them.
typedef struct LayerHook {
    void (*call)(void *context, int layer); // NULL: nothing
    void *context;
} LayerHook;

typedef struct Workspace {
    int B, T;     // of the next calls
    int placed_B; // the most there is room for
    Keep keep;
    Overlay overlay;         // what of the following lies over gradients
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
    LayerHook needs;      // before forward, or the loss, reads the parameters of a layer
    LayerHook done;       // in backward, after it has made the gradients of a layer final
} Workspace;

// Places the activations that wait for backward in one arena and the scratch in the other. Called
// with measuring arenas it only counts. n_threads is the most OpenMP will use.
void workspace_place(Workspace *ws, Arena *activations, Arena *scratch, const ModelShape *shape,
                     int B, int T, int n_threads, Keep keep);

// The same, with as much as fits over the gradients that are lent (copied), which then hold nothing
// from forward until backward has written them: each backward is to have fresh_gradients.
void workspace_place_over(Workspace *ws, const Overlay *overlay, Arena *activations, Arena *scratch,
                          const ModelShape *shape, int B, int T, int n_threads, Keep keep);

// Lets the next calls run on fewer sequences than were placed: the last, incomplete batch.
void workspace_set_batch(Workspace *ws, int B);

#endif
