// config.json of Hugging Face model directories, behind model/hf/hf.h: from JSON to a shape
// (hf_load_shape) and, for saving, from a shape back to JSON.
//
//     json_t *config;
//     TRY(hf_config_make(&config, &shape, "/models/SmolLM-135M", DTYPE_BF16));
//     status = json_write(config, "out/config.json");
//     json_decref(config);
#ifndef MHA2MLA_MODEL_HF_HF_CONFIG_H
#define MHA2MLA_MODEL_HF_HF_CONFIG_H

#include "base/json.h"
#include "model/hf/safetensors.h"
#include "model/shape.h"

// The config.json of a model of this shape: base_dir's with what changed replaced, or a plain one
// if base_dir is NULL. The caller owns *out. BAD_INPUT if base_dir's model has other dims.
Status hf_config_make(json_t **out, const ModelShape *shape, const char *base_dir, DType dtype);

// Warns of what hf_load_shape() has let pass: keys that are not known, token ids outside of the
// vocabulary. For a directory whose shape has been loaded.
void hf_config_warn(const char *dir);

#endif
