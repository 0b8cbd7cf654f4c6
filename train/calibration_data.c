#include "train/calibration_data.h"

#include "data/tokenizer/tokenizer_file.h"

static char source_name[] = "calibration";

Status calibration_data_open(Mixture **out, CalibrationData *data, const ModelShape *shape,
                             const char *dir)
{
    char sha256[SHA256_HEX_BYTES];
    data->pattern = (char *)(uintptr_t)data->shards;
    data->spec =
        (SourceSpec){.name = source_name, .shards = &data->pattern, .n_shards = 1, .weight = 1};
    TRY(shape_check_length(shape, data->seq_len, "--seq-len", dir));
    TRY(tokenizer_file_sha256(sha256, dir));
    return mixture_open(out, &data->spec, 1, data->seq_len, (uint64_t)data->seed,
                        sha256[0] != '\0' ? sha256 : NULL, shape->vocab_size);
}
