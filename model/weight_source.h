// Where a model's tensors come from, one at a time: files or a seed. So a model can be converted
// that is never in memory as a whole.
//
//     WeightSource source = hf_source_weights(files);   // or random_weights()
//     for (int t = 0; t < params_n_tensors(source.shape); t++) {
//         ParamInfo info = params_info(source.shape, t);
//         TRY(weight_source_read(&source, &info, values));
//     }
#ifndef MHA2MLA_MODEL_WEIGHT_SOURCE_H
#define MHA2MLA_MODEL_WEIGHT_SOURCE_H

#include "model/params.h"

typedef struct WeightSource {
    const ModelShape *shape; // borrowed
    const void *context;     // borrowed
    // values [info->rows, info->cols]. BAD_INPUT names the tensor and what is wrong with it; a
    // number that is not finite is.
    Status (*read)(const void *context, const ParamInfo *info, float *values);
} WeightSource;

static inline Status weight_source_read(const WeightSource *source, const ParamInfo *info,
                                        float *values)
{
    return source->read(source->context, info, values);
}

#endif
