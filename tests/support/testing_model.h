// The shape of a model that is as small as one can be; a model in memory as the source of a
// conversion; and all of a conversion on one process, as train/prepare.c does it on ranks.
//
//     const WeightSource source = testing_model_weights(&original);
//     testing_convert(&mla, &source);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_MODEL_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_MODEL_H

#include "model/convert/convert.h"

extern const ModelShape testing_tiny_shape; // one layer of width 8, original attention

// The model's tensors as they are; the model is borrowed.
WeightSource testing_model_weights(const Model *model);

extern const ConvertRecipe testing_paper; // the paper's method

// What no layer owns, then every layer. Fails the test on an error.
void testing_convert(Model *mla, const WeightSource *original);

#endif
