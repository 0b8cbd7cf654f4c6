#include "model/hf/tensor_name.h"

#include <stdio.h>
#include <string.h>

// Parts between dots, which no tensor of a Llama has.
static const char *const wrappers[] = {"module", "_orig_mod", "_fsdp_wrapped_module",
                                       "_checkpoint_wrapped_module"};

// First parts of names in a LlamaModel, which LlamaForCausalLM has below its "model".
static const char *const of_model[] = {"layers", "embed_tokens", "norm"};
static const char model_prefix[] = "model.";

static bool is_one_of(const char *const *words, size_t n_words, const char *part, size_t part_bytes)
{
    for (size_t i = 0; i < n_words; i++)
        if (strlen(words[i]) == part_bytes && memcmp(words[i], part, part_bytes) == 0)
            return true;
    return false;
}

#define IS_ONE_OF(words, part, part_bytes)                                                         \
    is_one_of((words), sizeof(words) / sizeof *(words), (part), (part_bytes))

// peft's adapters, also where they are saved together with the model that they belong to.
static bool is_of_adapter(const char *name)
{
    return strncmp(name, "base_model.", 11) == 0 || strstr(name, ".lora_") != NULL ||
           strstr(name, ".base_layer.") != NULL;
}

static Status fail_adapter(const char *name, const char *path)
{
    return fail(BAD_INPUT,
                "%s: tensor '%.200s' is of a model with adapters; merge them into its weights (in "
                "peft: merge_and_unload) and save it again",
                path, name);
}

Status tensor_name_unwrap(char out[PARAM_NAME_BYTES], const char *stored, const char *path)
{
    size_t used = 0;
    out[0] = '\0';
    if (strlen(stored) + strlen(model_prefix) >= PARAM_NAME_BYTES)
        return is_of_adapter(stored) ? fail_adapter(stored, path) : OK;
    for (const char *part = stored, *dot; part != NULL; part = dot != NULL ? dot + 1 : NULL) {
        dot = strchr(part, '.');
        const size_t part_bytes = dot != NULL ? (size_t)(dot - part) : strlen(part);
        if (IS_ONE_OF(wrappers, part, part_bytes))
            continue;
        const char *before = used > 0                                ? "."
                             : IS_ONE_OF(of_model, part, part_bytes) ? model_prefix
                                                                     : "";
        used += (size_t)snprintf(out + used, PARAM_NAME_BYTES - used, "%s%.*s", before,
                                 (int)part_bytes, part);
    }
    return is_of_adapter(out) ? fail_adapter(stored, path) : OK;
}
