#include "tests/support/testing_golden.h"

#include "model/hf/hf.h"
#include "tests/support/testing.h"

#include <stdio.h>
#include <string.h>

enum { B = GOLDEN_B, T = GOLDEN_T };

const char *const golden_models[] = {
    "gqa_tied",    "mha_untied", "mqa_head_dim", "gqa_bf16", "gqa_f16",
    "mqa_sharded", "gqa_theta",  "qwen3_gqa",    "llama3",   "mistral",
    "qwen3",       "qwen2",      "llama_bias",   "smollm3",  NULL,
};
const char *const *const golden_architectures = &golden_models[8];

void golden_open(Golden *out, const char *name)
{
    char file_name[128];
    int32_t tokens[B * (T + 1)], how[4];
    *out = (Golden){.name = name};
    snprintf(file_name, sizeof file_name, "%s.safetensors", name);
    assert_ok(safetensors_open(&out->file, testing_path(GOLDEN_DIR, file_name)));
    assert_ok(safetensors_read_i32(&out->file, "tokens", (int[]){B, T + 1}, 2, tokens));
    for (int b = 0; b < B; b++) {
        memcpy(out->inputs + b * T, tokens + b * (T + 1), T * sizeof *tokens);
        memcpy(out->targets + b * T, tokens + b * (T + 1) + 1, T * sizeof *tokens);
    }
    if (safetensors_find(&out->file, "case") == NULL)
        return;
    assert_ok(safetensors_read_i32(&out->file, "case", (int[]){4}, 1, how));
    out->strategy = (RopeStrategy)how[0];
    out->svd = (SvdKind)how[1];
    out->rope_pairs = how[2];
    out->d_kv = how[3];
}

void golden_close(Golden *golden)
{
    safetensors_close(&golden->file);
}

Model golden_load_model(const char *name)
{
    char directory[128];
    snprintf(directory, sizeof directory, "models/%s", name);
    Model model;
    assert_ok(hf_load(&model, testing_path(GOLDEN_DIR, directory)));
    return model;
}
