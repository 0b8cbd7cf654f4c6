// The parameters of a model: one table says which tensors there are, their Hugging Face names and
// their shapes; placing, loading, saving, converting and counting are loops over it.
//
// All parameters lie in one flat vector without gaps, layer by layer, so that a gradient, an AdamW
// moment or a rank's share of either is a range of it. Neighbours that read the same input
// (q | k | v, or q | k_r | down_kv; gate | up; up_k | up_v) lie side by side and are one matrix
// product.
//
// Convention for every backward of model/: gradients of activations are written (=), gradients of
// parameters are added to (+=), unless the first of a sum is asked to write them.
#ifndef MHA2MLA_MODEL_PARAMS_H
#define MHA2MLA_MODEL_PARAMS_H

#include "base/status.h"
#include "model/shape.h"

#include <stddef.h>
#include <stdint.h>

enum { PARAM_NAME_BYTES = 128 };

typedef struct LayerParams {
    float *attn_norm; // [D]
    float *q;         // [H E, D]; MLA: all heads' RoPE rows (head by head, r first then r second
                      // halves), then all heads' NoPE rows (head by head); shared: [H (2P + E), D]
    float *k, *v;     // original attention: [K E, D] each
    float *k_r;       // MLA: [K 2P, D] kept key rows, as in q; shared: [2P, D]
    float *down_kv;   // MLA: [R, D]; split: first the R/2 rows of the keys, then of the values
    float *latent_norm;     // shared, if the shape has one: [R]
    float *up_k;            // MLA: [K (E - 2P), R] or [.., R/2]; shared: [H E, R]
    float *up_v;            // MLA: [K E, R] or [.., R/2]; shared: [H E, R]
    float *o;               // [D, H E]
    float *q_norm, *k_norm; // with qk_norm: [E] each, in the original order of a head's dims
    // Where the shape has biases. Those of q, k and v, or of q and k_r, are neighbours, too: of one
    // product's rows, the latent's aside.
    float *q_bias;          // as rows of q
    float *k_bias, *v_bias; // original attention: [K E] each
    float *k_r_bias;        // MLA: as rows of k_r
    float *o_bias;          // [D]
    float *ffn_norm;        // [D]
    float *gate, *up;       // [F, D] each
    float *down;            // [D, F]
} LayerParams;

typedef struct Params {
    float *flat;         // borrowed: the flat vector, `count` floats
    int64_t count;       // of the flat vector; a tied head counts once
    float *embed;        // [V, D]
    LayerParams *layers; // owned, L of them
    float *norm;         // [D]
    float *head;         // [V, D]; == embed if tied
} Params;

// One tensor as the table sees it.
typedef struct ParamInfo {
    char name[PARAM_NAME_BYTES]; // Hugging Face name, e.g. model.layers.3.self_attn.q_proj.weight
    int layer;                   // -1: belongs to no layer
    int rows, cols;              // cols == 1 and is_vector: a vector of `rows`
    bool is_vector, is_bias;
    size_t field;   // offset of its pointer in LayerParams (layer >= 0) or Params
    int64_t offset; // of its first element in the flat vector
} ParamInfo;

// Number of tensors (empty ones are left out) and of floats.
int params_n_tensors(const ModelShape *shape);
int64_t params_count(const ModelShape *shape);

// Numbers of the largest tensor.
int64_t params_largest(const ModelShape *shape);

// Describes tensor `index` in 0..params_n_tensors()-1, in the order of the flat vector.
ParamInfo params_info(const ModelShape *shape, int index);

// Describes the tensor of this name, if the shape has it.
bool params_find(ParamInfo *out, const ModelShape *shape, const char *name);

// The range of layer l in the flat vector.
void params_layer_range(const ModelShape *shape, int layer, int64_t *first, int64_t *count);

// The pointer in `params` that the tensor has.
static inline float **params_field(const ParamInfo *info, Params *params)
{
    char *owner = info->layer < 0 ? (char *)params : (char *)&params->layers[info->layer];
    return (float **)(void *)(owner + info->field);
}

// The tensors first .. first + count - 1 of layer l.
void params_layer_tensors(const ModelShape *shape, int layer, int *first, int *count);

// Points into `flat` (params_count() floats); also used for gradients. Tensors the shape does not
// have are NULL. FAILED if memory for the pointers is short.
Status params_place(Params *out, const ModelShape *shape, float *flat);

void params_release(Params *params);

#endif
