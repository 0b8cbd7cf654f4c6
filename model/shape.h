// The shape of a model: a Llama-family transformer with its original attention (MHA, GQA, MQA) or
// with multi-head latent attention (MLA), and what follows from the shape alone.
//
// MLA has two forms. Per KV head, as MHA2MLA defines it (arXiv 2502.14837), every KV head keeps P
// pairs of its own, and the latent serves its other E - 2P dims. In the shared form, that of
// DeepSeek's MLA, a layer has P rotated slots that all query heads see, each head has E more dims
// that carry no position, and every query head has up-projections of its own.
//
// Legend of dims, used in every shape comment of this project (row-major, [out, in] for weights):
//   B sequences   T tokens of a sequence   N = B T        L layers        V vocabulary
//   D model width H query heads            K key/value heads              G = H / K
//   E head width  F feed-forward width     P RoPE pairs kept per KV head  R = K d_kv latent width
//   shared form: P rotated slots of a layer, R its latent width
//
// RoPE pair p of a head is its dims (p, p + E/2), as in Hugging Face's rotate_half. The original
// attention keeps all of them: P = E/2.
#ifndef MHA2MLA_MODEL_SHAPE_H
#define MHA2MLA_MODEL_SHAPE_H

#include "base/status.h"
#include "model/kernels/rope.h"
#include "model/layer_set.h"

#include <stdint.h>

typedef enum SvdKind { SVD_JOINT, SVD_SPLIT } SvdKind;

// Which projections of attention have a bias. Once the model is converted, that of the values is
// part of the output's, and that of keys without position cancels in the softmax.
typedef enum BiasKind {
    BIAS_NONE,
    BIAS_QKV,    // q, k and v; converted: q, k_r and o
    BIAS_QKV_OUT // also o
} BiasKind;

typedef struct ModelShape {
    int n_layers;      // L
    int d_model;       // D
    int n_heads;       // H
    int n_kv_heads;    // K
    int head_dim;      // E, even
    int d_ffn;         // F
    int vocab_size;    // V
    int max_positions; // longest sequence the model was made for, in tokens
    int rope_pairs;    // P
    int d_kv;          // latent width per KV head; 0: original attention or shared form
    SvdKind svd;       // joint: one latent for keys and values; split: half of it for each
    bool tied_head;    // the head is the embedding
    double rope_theta;
    double rms_eps;
    int latent;         // R of the shared form; 0: not the shared form
    bool latent_norm;   // shared form: RMSNorm of the latent before the up-projections
    int attention_bias; // BiasKind
    bool qk_norm;       // RMSNorm of every head of queries and of keys before RoPE (Qwen3)
    RopeScaling rope_scaling;
    LayerSet no_rope;   // layers whose pairs are not rotated (SmolLM3); they keep P all the same
    int sliding_window; // tokens that a token attends to, itself included; 0: all. Sequences are no
                        // longer, so that attention never leaves one out
    // MLA: tokens of the longest sequences that the converted attention was trained on; 0: unknown
    // or none. It is remembered with the shape but is no part of what makes two shapes the same, so
    // it has no row in model/shape_fields.h.
    int healed_seq_len;
} ModelShape;

// Dims a table can name (model/params.c); every one follows from the shape.
typedef enum ShapeDim {
    DIM_ONE,
    DIM_D,
    DIM_F,
    DIM_V,
    DIM_Q,         // H E: the heads' outputs
    DIM_KV,        // K E
    DIM_QUERY,     // rows of q: H E, or H (2P + E) (shared form)
    DIM_K_ROPE,    // K 2P, or 2P
    DIM_K_NOPE,    // rows of up_k: K (E - 2P), or H E
    DIM_UP_VALUE,  // rows of up_v: K E, or H E
    DIM_LATENT,    // R
    DIM_NORM,      // R with latent_norm, else 0
    DIM_HEAD_NORM, // E with qk_norm, else 0
    DIM_Q_BIAS,    // DIM_QUERY with biases, else 0
    DIM_KV_BIAS,   // DIM_KV with biases, else 0
    DIM_K_R_BIAS,  // DIM_K_ROPE with biases, else 0
    DIM_O_BIAS,    // D if o has a bias, else 0
    DIM_UP_INPUT,  // columns of the latent that up_k and up_v each read: R (joint), R / 2 (split)
} ShapeDim;

int shape_dim(const ModelShape *shape, ShapeDim dim);

static inline bool shape_is_shared(const ModelShape *shape)
{
    return shape->latent > 0;
}

static inline bool shape_is_mla(const ModelShape *shape)
{
    return shape->d_kv > 0 || shape_is_shared(shape);
}

// Heads of rotated keys: K, or the one of the shared form.
static inline int shape_rope_heads(const ModelShape *shape)
{
    return shape_is_shared(shape) ? 1 : shape->n_kv_heads;
}

// Heads that have up-projections of their own: K, or H.
static inline int shape_up_heads(const ModelShape *shape)
{
    return shape_is_shared(shape) ? shape->n_heads : shape->n_kv_heads;
}

// Dims of a head that carry no position: E - 2P, or E.
static inline int shape_head_nope(const ModelShape *shape)
{
    return shape->head_dim - (shape_is_shared(shape) ? 0 : 2 * shape->rope_pairs);
}

// Whether a layer has RoPE. One without is computed as one whose angles are all 0: conversion and
// cache know no other difference.
static inline bool shape_rotates(const ModelShape *shape, int layer)
{
    return !layer_set_has(&shape->no_rope, layer);
}

// Numbers of a layer's biases of queries and keys (and values) as they are first projected: MLA's
// latent has none. 0 without biases.
static inline int shape_input_bias(const ModelShape *shape)
{
    return shape_dim(shape, DIM_Q_BIAS) + (shape_is_mla(shape) ? shape_dim(shape, DIM_K_R_BIAS)
                                                               : 2 * shape_dim(shape, DIM_KV_BIAS));
}

// Heads whose cached keys carry a number that their scores are multiplied by, 1 / rms of the key
// before its norm: K with MLA and qk_norm, else 0. Keys of the original attention are cached
// normalized.
static inline int shape_key_factors(const ModelShape *shape)
{
    return shape_is_mla(shape) && shape->qk_norm ? shape->n_kv_heads : 0;
}

// The original attention's shape with the attention replaced by MLA.
// BAD_INPUT names the allowed range if rope_pairs or d_kv does not fit.
Status shape_convert(ModelShape *out, const ModelShape *original, int rope_pairs, int d_kv,
                     SvdKind svd);

// The same by the shared form of `slots` rotated slots a layer and a latent of `latent` numbers.
Status shape_convert_shared(ModelShape *out, const ModelShape *original, int slots, int latent,
                            bool latent_norm);

// The shape before conversion; a shape with the original attention is its own.
ModelShape shape_original(const ModelShape *shape);

// BAD_INPUT if a field is out of its bounds (model/shape_fields.h) or the fields do not fit
// together; `where` names the file or config in the text. What has passed can be computed with: no
// dim is 0, no product of dims overflows.
Status shape_check(const ModelShape *shape, const char *where);

// The part of it that says something of n_layers, n_heads, n_kv_heads and head_dim alone, for files
// that know no more of a model.
Status shape_check_heads(const ModelShape *shape, const char *where);

// Tokens of the longest sequence that the model computes: its positions, or its sliding window.
static inline int shape_longest(const ModelShape *shape)
{
    const int window = shape->sliding_window;
    return window > 0 && window < shape->max_positions ? window : shape->max_positions;
}

// BAD_INPUT if a sequence of T tokens is longer than that; `setting` and `model` name in the text
// what asks for it and what was asked.
Status shape_check_length(const ModelShape *shape, int64_t T, const char *setting,
                          const char *model);

// After training on sequences of T tokens: the longest ones count. A model with the original
// attention stays as it is, as it was trained for max_positions.
void shape_set_healed(ModelShape *shape, int T);

// Warns if T tokens reach beyond the length that a converted model was healed at, where its loss
// rises at once; `setting` and `model` as in shape_check_length(). To be called once a command.
void shape_warn_healed(const ModelShape *shape, int64_t T, const char *setting, const char *model);

// Numbers a token leaves in the KV cache over all layers: L K 2E, L K (2P + d_kv), with qk_norm
// L K (2P + d_kv + 1), or L (2P + R).
int64_t shape_cache_numbers(const ModelShape *shape);

// Floating-point operations of forward and backward of one sequence of T tokens, the causal half of
// attention counted, nothing counted twice.
double shape_train_flops(const ModelShape *shape, int T);

// "joint" and "split": by value of the enum, closed by NULL.
extern const char *const shape_svd_names[];
const char *shape_svd_name(SvdKind svd);
bool shape_svd_parse(SvdKind *out, const char *name); // false: neither of them

#endif
