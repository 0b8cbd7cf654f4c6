#include "tests/support/testing_model.h"

#include "tests/support/testing.h"

#include "model/convert/convert.h"

#include <string.h>

const ModelShape testing_tiny_shape = {.n_layers = 1,
                                       .d_model = 8,
                                       .n_heads = 2,
                                       .n_kv_heads = 1,
                                       .head_dim = 4,
                                       .d_ffn = 12,
                                       .vocab_size = 17,
                                       .max_positions = 16,
                                       .rope_pairs = 2,
                                       .tied_head = true,
                                       .rope_theta = 10000,
                                       .rms_eps = 1e-5};

static Status read_tensor(const void *context, const ParamInfo *info, float *values)
{
    const Model *model = context;
    memcpy(values, model->params.flat + info->offset,
           (size_t)info->rows * (size_t)info->cols * sizeof *values);
    return OK;
}

WeightSource testing_model_weights(const Model *model)
{
    return (WeightSource){&model->shape, model, read_tensor};
}

const ConvertRecipe testing_paper = {METHOD_PAPER, 1};

void testing_convert(Model *mla, const WeightSource *original)
{
    assert_ok(convert_outside_layers(mla, original));
    for (int l = 0; l < mla->shape.n_layers; l++)
        assert_ok(convert_layer(mla, original, l, &testing_paper, NULL, NULL));
}
