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

// The layouts of the paper's own code (github.com/JT-Ushio/MHA2MLA), by what config.json has. They
// are no models here until mha2mla import has made them (model/paper/paper_import.h).
typedef enum PaperLayout {
    PAPER_NONE,
    PAPER_V10, // objects RoPE and SVD
    PAPER_V12, // object mha2mla, without the pairs that were kept
} PaperLayout;

PaperLayout hf_config_layout(const json_t *config);

// config.json of a directory in such a layout or in none, owned by the caller, and the shape of the
// original model: what the layout says of the conversion is not read.
Status hf_config_read_original(json_t **out, ModelShape *original, const char *dir);

// The config.json of a model of this shape: base_dir's with what changed replaced, or a plain one
// if base_dir is NULL. base_dir may be in a layout of the paper's code, whose keys are left out.
// The caller owns *out. BAD_INPUT if base_dir's model has other dims.
Status hf_config_make(json_t **out, const ModelShape *shape, const char *base_dir, DType dtype);

// Warns of what hf_load_shape() has let pass: keys that are not known, token ids outside of the
// vocabulary. For a directory whose shape has been loaded.
void hf_config_warn(const char *dir);

#endif
