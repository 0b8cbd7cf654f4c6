// Where forward and backward (model/transformer/transformer.h) put what they compute. Memory is
// placed in two arenas, by the same code that measures it (base/arena.h):
//
//     Workspace ws;
//     workspace_place(&ws, &activations, &scratch, &shape, B, T, n_threads, RECOMPUTE_NONE,
//                     COMPUTE_FLOAT32);
//     ... arena_allocate both ...
//     workspace_place(&ws, &activations, &scratch, &shape, B, T, n_threads, RECOMPUTE_NONE,
//                     COMPUTE_FLOAT32);
//
// Activations wait from forward for backward. What each layer has for itself, and what all layers
// share since backward computes it again, the activation policy says:
//
//     activations | cos, sin | hidden | shared by layers | layer L-1 | ... | layer 1 | layer 0 |
//
//     a layer: x_in | attn_inv_rms, latent, heads, qkv, values, out, lse | x_mid, ffn_inv_rms,
//     gate_up
//
// In bfloat16 attn_normalized and ffn_normalized join the second and the third, in half the memory:
// layers share x_mid, and RECOMPUTE_NONE shares x_in, too.
//
//     RECOMPUTE_NONE       own             own                             own
//     RECOMPUTE_ATTENTION  own             shared                          own
//     RECOMPUTE_LAYER      own             shared                          shared
//     FORWARD_ONLY         shared          shared                          shared
//
// Where gradient memory may be reused (model/transformer/gradient_reuse.h), activations lie there
// instead as far as it reaches, from the last layer down; gradients of layers not yet written:
//
//     gradients   | embed | layer 0 | layer 1 | ...       | layer L-1 | norm, head |
//     forward              ...  <- layer L-2 | layer L-1 | head_in  |
//     backward     writes from right to left, each layer after its last read of what lies there
//
// Scratch is in use within a phase. Each row is one phase's use of the same memory:
//
//     head          | head_in, d_head_in | logits, their gradient                               |
//     attention     | normed, d_normed   | dx | projected, expanded, attn_out, attention_tiles, |
//                   |                    |    | d_qkv, d_attn_out                               |
//     feed-forward  | normed, d_normed   | dx | act                                             |
//
// With products in bfloat16, rows that a product reads or writes are bfloat16: normed, those of
// attention, gate_up, act, the gradients of all these but normed's. The residual stream and its
// gradient (which dx_rounded repeats for products), statistics, logits and loss stay float32.
//
// normed and d_normed are head_in and d_head_in themselves, unless those lie over gradients: then
// all of the head's scratch shares memory with all of the layers'.
#ifndef MHA2MLA_MODEL_TRANSFORMER_WORKSPACE_H
#define MHA2MLA_MODEL_TRANSFORMER_WORKSPACE_H

#include "base/arena.h"
#include "model/attention/attention_form.h"
#include "model/kernels/compute.h"
#include "model/kernels/step_times.h"
#include "model/transformer/activation_policy.h"
#include "model/transformer/attention_match.h"
#include "model/transformer/gradient_reuse.h"

// What forward leaves for backward, each layer its own or shared.
typedef struct LayerSaved {
    float *x_in;              // [N, D] input of the layer
    float *attn_inv_rms;      // [N] of x_in
    Rows attn_normalized;     // [N, D] x_in / rms(x_in), training in bfloat16; else without data
    AttentionSaved attention; // its `out` is ws.attn_out if the form makes it again
    float *x_mid;             // [N, D] after attention
    float *ffn_inv_rms;       // [N] of x_mid
    Rows ffn_normalized;      // [N, D] of x_mid, as attn_normalized
    Rows gate_up;             // [N, 2F]; backward leaves its gradient there
} LayerSaved;

// Called with the index of a layer; -1 stands for the embedding, L for the last norm and the head.
typedef struct LayerCallback {
    void (*call)(void *context, int layer); // NULL: none
    void *context;
} LayerCallback;

typedef struct Workspace {
    int B, T;     // of the next calls
    int placed_B; // the most there is memory for
    ActivationPolicy policy;
    ComputeType compute;       // of matrix products
    GradientReuse reuse;       // of gradient memory for activations
    const AttentionForm *form; // borrowed from the table
    LayerSaved *layers;        // [L]
    float *hidden;             // [N, D] output of the last layer
    float *inv_rms;            // [N] of hidden
    float *cos_table;          // [T, E/2]
    float *sin_table;          // [T, E/2]
    float *no_rope_cos;        // [T, E/2] the same of layers without RoPE, if the shape has some
    float *no_rope_sin;        // [T, E/2]
    Rows head_in;              // [N, D] the last norm of hidden
    float *d_head_in;          // [N, D], from the loss to backward; NULL without backward
    // Scratch.
    Rows normed;                  // [N, D] input of a block's first product
    float *d_normed;              // [N, D]
    float *dx;                    // [N, D] gradient of the residual stream, backward
    Rows dx_rounded;              // [N, D] the same for products in bfloat16; else without data
    Rows projected, expanded;     // [N, their widths of the form]
    Rows attn_out;                // [N, Q], if the form makes it again in backward
    void *attention_tiles;        // of the form
    Rows d_qkv;                   // [N, width of the form], backward
    Rows d_attn_out;              // [N, Q], backward
    Rows act;                     // [N, F]; in backward also its gradient
    void *head_scratch;           // of the loss
    AttentionMatch *keeps;        // borrowed; not NULL: forward leaves its layers' outputs there
    AttentionMatch *follows;      // borrowed; not NULL: forward compares them, backward adds what
                                  // the loss gives
    bool fresh_gradients;         // loss and backward write gradients (=) instead of adding
    StepTimes *times;             // borrowed; NULL: nothing is measured
    LayerCallback before_layer;   // before forward, or the loss, reads a layer's parameters
    LayerCallback after_backward; // after backward has made a layer's gradients final
} Workspace;

// Called with measuring arenas it only counts. n_threads is the most OpenMP will use.
void workspace_place(Workspace *ws, Arena *activations, Arena *scratch, const ModelShape *shape,
                     int B, int T, int n_threads, ActivationPolicy policy, ComputeType compute);

// The same, with as many activations as fit in gradient memory that may be reused (copied). Those
// gradients are lost from forward until backward has written them: each backward is to have
// fresh_gradients.
void workspace_place_reusing(Workspace *ws, const GradientReuse *reuse, Arena *activations,
                             Arena *scratch, const ModelShape *shape, int B, int T, int n_threads,
                             ActivationPolicy policy, ComputeType compute);

// Lets the next calls run on fewer sequences than were placed: the last, incomplete batch.
void workspace_set_batch(Workspace *ws, int B);

#endif
