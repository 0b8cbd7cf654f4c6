// A model in memory: shape, parameters, and for MLA which RoPE pairs each KV head keeps.
//
//     Model model;
//     TRY(hf_load(&model, "SmolLM-135M"));      // or model_create() and random or converted values
//     ...
//     model_release(&model);
#ifndef MHA2MLA_MODEL_MODEL_H
#define MHA2MLA_MODEL_MODEL_H

#include "base/arena.h"
#include "model/params.h"
#include "model/shape.h"
#include "model/weight_source.h"

typedef struct Model {
    ModelShape shape;
    Arena arena; // owns what follows, except parameters that are borrowed
    Params params;
    int32_t *rope_pairs; // [L, K, P], ascending in each row; pair p rotates by theta^(-2p/E) per
                         // position. The original attention: 0, 1, ... E/2 - 1. The shared form
                         // has one row per layer, in which pairs may be equal: a slot of each.
} Model;

// Allocates a model of this shape: parameters zero, rope_pairs 0..P-1. FAILED if memory is short.
Status model_create(Model *out, const ModelShape *shape);

// The same with parameters in `flat`, params_count() floats, borrowed and as they are.
Status model_create_in(Model *out, const ModelShape *shape, float *flat);

// Bytes that model_create() takes.
int64_t model_bytes(const ModelShape *shape);

// Normal(0, std) for matrices, 1 for norms, 0 for biases: the same values for the same seed
// everywhere.
typedef struct RandomWeights {
    ModelShape shape;
    double std;
    uint64_t seed;
} RandomWeights;

void model_init_random(Model *model, double std, uint64_t seed);
WeightSource random_weights(const RandomWeights *weights);

// Numbers of rope_pairs.
static inline int64_t model_n_pairs(const ModelShape *shape)
{
    return (int64_t)shape->n_layers * shape_rope_heads(shape) * shape->rope_pairs;
}

// The row of pairs of one KV head, P of them; in the shared form all have the layer's.
static inline const int32_t *model_pairs(const Model *model, int layer, int kv_head)
{
    const ModelShape *s = &model->shape;
    const int64_t row = (int64_t)layer * shape_rope_heads(s) + (shape_is_shared(s) ? 0 : kv_head);
    return model->rope_pairs + row * s->rope_pairs;
}

// What number i of rope_pairs may be at least, after those before it: rows ascend, strictly but in
// the shared form.
static inline int32_t model_least_pair(const ModelShape *shape, const int32_t *pairs, int64_t i)
{
    return i % shape->rope_pairs == 0 ? 0 : pairs[i - 1] + (shape_is_shared(shape) ? 0 : 1);
}

void model_release(Model *model);

#endif
