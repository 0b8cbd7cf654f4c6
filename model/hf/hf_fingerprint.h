// What tells the weights of one Hugging Face model directory from another's, wherever the
// directories are: the tensors, and of each a few kilobytes. Two machines compare their copies by
// it without reading them whole.
//
//     json_t *fingerprint;
//     TRY(hf_fingerprint(&fingerprint, "/models/SmolLM-135M"));
//     ... {"lm_head.weight": "F32 [49152, 576] 0f3a...", ...} ...
//     json_decref(fingerprint);
#ifndef MHA2MLA_MODEL_HF_HF_FINGERPRINT_H
#define MHA2MLA_MODEL_HF_HF_FINGERPRINT_H

#include "base/status.h"

#include <jansson.h>

// The tensors in the order of their names, whichever files hold them: dtype, dims and the beginning
// of a checksum. Another fine-tuning of a model has other bytes in every tensor and is told apart;
// a change of a few numbers within a large tensor need not be. BAD_INPUT for files that are missing
// or damaged, as hf_load(). The caller owns *out.
Status hf_fingerprint(json_t **out, const char *dir);

#endif
