// Which tensors of a model are trained: `all`, those of `attention`, or those whose names match one
// of several patterns. The others are frozen: they keep their values, their gradients are not
// computed, and the optimizer keeps nothing for them.
//
//     char *patterns[] = {"*.self_attn.*", "model.layers.3.mlp.*"};
//     const Trainable trained = {patterns, 2};
//     TRY(trainable_check(&trained, &shape));        // every pattern matches some tensor
//     if (trainable_has(&trained, "model.norm.weight"))
//         ...
//     TRY(trainable_place(&grads, &shape, &trained, flat));    // backward leaves out what is
//     frozen
//
// Patterns are those of a shell, fnmatch(3): * stands for any text, ? for a character, [..] for one
// of several. Names are those of model/params.c.
#ifndef MHA2MLA_MODEL_TRAINABLE_H
#define MHA2MLA_MODEL_TRAINABLE_H

#include "base/status.h"
#include "model/params.h"

typedef struct Trainable {
    char *const *patterns; // borrowed [n_patterns]
    int n_patterns;        // 0: all tensors are trained
} Trainable;

// BAD_INPUT names the first pattern that no tensor of the shape matches.
Status trainable_check(const Trainable *trained, const ModelShape *shape);

bool trainable_has(const Trainable *trained, const char *name);

// Whether no tensor is frozen.
bool trainable_has_all(const Trainable *trained, const ModelShape *shape);

// Numbers that are trained.
int64_t trainable_count(const Trainable *trained, const ModelShape *shape);

// The first tensor that one of both trains and the other does not; false: there is none.
bool trainable_differs(ParamInfo *out, const Trainable *a, const Trainable *b,
                       const ModelShape *shape);

// Gradients that are computed lie one behind the other, in the order of the flat vector. Those of
// tensors that are one matrix product (model/params.h) are computed together, if any of them is
// trained. How many floats they take: all of them; those of a layer, -1 stands for what lies before
// the layers, L for what lies behind; those of one tensor, 0 if it has none.
int64_t trainable_gradients(const Trainable *trained, const ModelShape *shape);
int64_t trainable_layer_gradients(const Trainable *trained, const ModelShape *shape, int layer);
int64_t trainable_tensor_gradients(const Trainable *trained, const ModelShape *shape, int tensor);

// Points into `flat` (trainable_gradients() floats); pointers to gradients that are not computed
// are NULL. As params_place().
Status trainable_place(Params *out, const ModelShape *shape, const Trainable *trained, float *flat);

// Floating-point operations of forward and backward of one sequence of T tokens, as
// shape_train_flops(), without the gradients of frozen weights.
double trainable_flops(const Trainable *trained, const ModelShape *shape, int T);

#endif
