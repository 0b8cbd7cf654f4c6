// The shape of a model: a Llama-family transformer with its original attention (MHA, GQA, MQA) or
// with multi-head latent attention (MLA), and what follows from the shape alone.
//
// Legend of dims, used in every shape comment of this project (row-major, [out, in] for weights):
//   B sequences   T tokens of a sequence   N = B T        L layers        V vocabulary
//   D model width H query heads            K key/value heads              G = H / K
//   E head width  F feed-forward width     P RoPE pairs kept per KV head  R = K d_kv latent width
//
// RoPE pair p of a head is its dims (p, p + E/2), as in Hugging Face's rotate_half. The original
// attention keeps all of them: P = E/2.
#ifndef MHA2MLA_MODEL_SHAPE_H
#define MHA2MLA_MODEL_SHAPE_H

#include "base/status.h"

#include <stdint.h>

typedef enum SvdKind { SVD_JOINT, SVD_SPLIT } SvdKind;

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
    int d_kv;          // latent width per KV head; 0: original attention
    SvdKind svd;       // joint: one latent for keys and values; split: half of it for each
    bool tied_head;    // the head is the embedding
    double rope_theta;
    double rms_eps;
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
    DIM_Q,        // H E
    DIM_KV,       // K E
    DIM_K_ROPE,   // K 2P
    DIM_K_NOPE,   // K (E - 2P)
    DIM_LATENT,   // R
    DIM_UP_INPUT, // columns of the latent that up_k and up_v each read: R (joint), R / 2 (split)
} ShapeDim;

int shape_dim(const ModelShape *shape, ShapeDim dim);

static inline bool shape_is_mla(const ModelShape *shape)
{
    return shape->d_kv > 0;
}

// The original attention's shape with the attention replaced by MLA.
// BAD_INPUT names the allowed range if rope_pairs or d_kv does not fit.
Status shape_convert(ModelShape *out, const ModelShape *original, int rope_pairs, int d_kv,
                     SvdKind svd);

// The shape before conversion; a shape with the original attention is its own.
ModelShape shape_original(const ModelShape *shape);

// BAD_INPUT if a field is out of its bounds (model/shape_fields.h) or the fields do not fit
// together; `where` names the file or config in the text. What has passed can be computed with: no
// dim is 0, no product of dims overflows.
Status shape_check(const ModelShape *shape, const char *where);

// The part of it that says something of n_layers, n_heads, n_kv_heads and head_dim alone, for files
// that know no more of a model.
Status shape_check_heads(const ModelShape *shape, const char *where);

// BAD_INPUT if a sequence of T tokens is longer than the model was made for; `setting` and `model`
// name in the text what asks for it and what was asked.
Status shape_check_length(const ModelShape *shape, int64_t T, const char *setting,
                          const char *model);

// After training on sequences of T tokens: the longest ones count. A model with the original
// attention stays as it is, as it was trained for max_positions.
void shape_set_healed(ModelShape *shape, int T);

// Warns if T tokens reach beyond the length that a converted model was healed at, where its loss
// rises at once; `setting` and `model` as in shape_check_length(). To be called once a command.
void shape_warn_healed(const ModelShape *shape, int64_t T, const char *setting, const char *model);

// Numbers a token leaves in the KV cache over all layers: L K 2E, or L K (2P + d_kv).
int64_t shape_cache_numbers(const ModelShape *shape);

// Floating-point operations of forward and backward of one sequence of T tokens, the causal half of
// attention counted, nothing counted twice.
double shape_train_flops(const ModelShape *shape, int T);

// "joint" and "split": by value of the enum, closed by NULL.
extern const char *const shape_svd_names[];
const char *shape_svd_name(SvdKind svd);
bool shape_svd_parse(SvdKind *out, const char *name); // false: neither of them

#endif
