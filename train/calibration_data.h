// Token shards that a command calibrates on: a mixture of one source, so that sequences are drawn
// in a random order as in training.
//
//     CalibrationData data = {.shards = "shards/*.h5", .seq_len = 512, .seed = 42};
//     TRY(calibration_data_open(&mixture, &data, &shape, dir));
#ifndef MHA2MLA_TRAIN_CALIBRATION_DATA_H
#define MHA2MLA_TRAIN_CALIBRATION_DATA_H

#include "data/mixture.h"
#include "model/shape.h"

typedef struct CalibrationData {
    const char *shards; // path or glob
    int seq_len;
    int64_t seed;
    char *pattern;   // the shards as a mixture takes them; filled by calibration_data_open()
    SourceSpec spec; // likewise
} CalibrationData;

// For the model of this shape in `dir`; `data` must outlive the mixture. A model without
// tokenizer.json cannot be checked against the shards. BAD_INPUT if the sequences are too long for
// the model, named --seq-len; errors of mixture_open(). Not collective.
Status calibration_data_open(Mixture **out, CalibrationData *data, const ModelShape *shape,
                             const char *dir);

#endif
