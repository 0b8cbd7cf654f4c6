// A model's weights for inference: matrices in the dtype of their file, or in bfloat16 for products
// in bfloat16, norms as floats, all in one block of memory (huge pages where the system grants
// them). There is no float copy of the model; tensors are read one at a time.
//
//     InferWeights weights;
//     TRY(infer_weights_load(&weights, "SmolLM-135M", COMPUTE_FLOAT32));
//     weight_linear_forward(qkv, ld, x, D, &weights.layers[0].qkv, N, false, scratch);
//     infer_weights_release(&weights);
//
//     block: | rope_pairs | norm | embed | head | layer 0: attn_norm, qkv, up_k, ... | layer 1 ...
//            (each at a multiple of 64 bytes; a tied head is the embedding)
#ifndef MHA2MLA_INFER_WEIGHTS_H
#define MHA2MLA_INFER_WEIGHTS_H

#include "base/arena.h"
#include "model/kernels/compute.h"
#include "model/kernels/weights/weight_linear.h"
#include "model/weight_source.h"

typedef struct InferLayer {
    float *attn_norm;       // [D]
    WeightMatrix qkv;       // [H E + 2 K E, D]: q | k | v. MLA [H E + K 2P + R, D]: q | k_r |
                            // down_kv, rows of q and down_kv as in model/params.h; shared
                            // [H (2P + E) + 2P + R, D]
    float *qkv_bias;        // of its rows, without the latent's; NULL: no biases
    float *q_norm, *k_norm; // of a shape with qk_norm: [E] each, in the original's order; else NULL
    float *latent_norm;     // shared, if the shape has one: [R]; else NULL
    WeightMatrix up_k, up_v; // MLA: [K (E - 2P), R] and [K E, R], split: R / 2 columns. up_k has no
                             // rows if P = E / 2. Shared: [H E, R] each.
    WeightMatrix o;          // [D, H E]
    float *o_bias;           // [D] or NULL
    float *ffn_norm;         // [D]
    WeightMatrix gate_up;    // [2F, D]: gate | up
    WeightMatrix down;       // [D, F]
} InferLayer;

typedef struct InferWeights {
    ModelShape shape;
    DType dtype;         // of the matrices: F32, F16 or BF16
    ComputeType compute; // BFLOAT16: matrices are BF16 in panels, but for up_k and up_v, in rows
    Arena arena;         // owns what the pointers name, but for `layers`
    int32_t *rope_pairs; // [L, K, P]; shared: [L, 1, P]
    WeightMatrix embed;  // [V, D]
    WeightMatrix head;   // [V, D]
    float *norm;         // [D]
    InferLayer *layers;  // owned, L of them
    int64_t size_bytes;  // of the block
} InferWeights;

// Reads a Hugging Face directory, original or converted, in its files' dtype; one with matrices in
// several dtypes in F32. BAD_INPUT and FAILED as hf_load() (model/hf/hf.h).
Status infer_weights_load(InferWeights *out, const char *dir, ComputeType compute);

// The same with an orthogonal rotation of the latent in the weights (infer/latent_rotation.h).
Status infer_weights_load_rotated(InferWeights *out, const char *dir, ComputeType compute);

// Reads any source's tensors and narrows them to `dtype`, which does not count where products are
// in bfloat16. rope_pairs is copied. FAILED if a weight is too large for F16.
Status infer_weights_read(InferWeights *out, const WeightSource *source, const int32_t *rope_pairs,
                          DType dtype, ComputeType compute);

// Bytes of the block for a shape, size_bytes of InferWeights; reading needs the largest tensor's
// floats besides.
int64_t infer_weights_bytes(const ModelShape *shape, DType dtype, ComputeType compute);

void infer_weights_release(InferWeights *weights);

#endif
