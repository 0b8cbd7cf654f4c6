// Standard values and rules of keys are those of transformers' configuration_*.py and
// modeling_*.py, 4.57 and 5.24.
#include "model/hf/architecture.h"

#include "model/hf/custom_code.h"
#include "model/hf/hf_config_keys.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define BIAS   "attention_bias"
#define WINDOW "sliding_window"
// The window counts only where this is true.
#define WINDOW_SWITCH "use_sliding_window"
// A list of 1 for layers with RoPE and 0 for those without; in its absence every n-th is without.
#define NO_ROPE          "no_rope_layers"
#define NO_ROPE_INTERVAL "no_rope_layer_interval"

static const Architecture rows[] = {
    {.type = "llama", .name = "LlamaForCausalLM", .reads = {BIAS}},
    {.type = "mistral",
     .name = "MistralForCausalLM",
     .standard = {{SHAPE_N_KV_HEADS, 8},
                  {SHAPE_MAX_POSITIONS, 131072},
                  {SHAPE_SLIDING_WINDOW, 4096}},
     .reads = {WINDOW}},
    {.type = "qwen2",
     .name = "Qwen2ForCausalLM",
     .fixed = {{SHAPE_ATTENTION_BIAS, BIAS_QKV}},
     .standard = {{SHAPE_N_KV_HEADS, 32},
                  {SHAPE_MAX_POSITIONS, 32768},
                  {SHAPE_SLIDING_WINDOW, 4096}},
     .reads = {WINDOW, WINDOW_SWITCH}},
    {.type = "qwen3",
     .name = "Qwen3ForCausalLM",
     .fixed = {{SHAPE_QK_NORM, 1}},
     .standard = {{SHAPE_N_KV_HEADS, 32}, {SHAPE_HEAD_DIM, 128}, {SHAPE_MAX_POSITIONS, 32768}},
     .reads = {WINDOW, WINDOW_SWITCH}},
    {.type = "smollm3",
     .name = "SmolLM3ForCausalLM",
     .standard = {{SHAPE_N_KV_HEADS, 4},
                  {SHAPE_MAX_POSITIONS, 32768},
                  {SHAPE_ROPE_THETA, 2e6},
                  {SHAPE_TIED_HEAD, 1}},
     .reads = {BIAS, WINDOW, WINDOW_SWITCH, NO_ROPE, NO_ROPE_INTERVAL}},
    // Another name than Llama's, so that transformers asks for the code beside the files instead of
    // filling the missing k_proj and v_proj with random numbers.
    {.type = "mha2mla_llama",
     .name = custom_code_architecture,
     .older_name = "LlamaMlaForCausalLM"}, // of files without the code
};

enum { N_ROWS = sizeof rows / sizeof rows[0], NAMES_BYTES = 256 };

const Architecture *const architecture_plain = &rows[0];
const Architecture *const architecture_mla = &rows[N_ROWS - 1];

// ---- finding -----------------------------------------------------------------------------------

// "\"llama\", \"mistral\"": what a file may be before it is converted.
static Status refuse(const json_t *config, const char *where, const char *key)
{
    const bool is_type = strcmp(key, "model_type") == 0;
    char names[NAMES_BYTES] = "";
    for (const Architecture *row = rows; row < architecture_mla; row++) {
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, is_type ? "%s\"%s\"" : "%s[\"%s\"]",
                 used > 0 ? ", " : "", is_type ? row->type : row->name);
    }
    return hf_config_refuse(config, where, key, names);
}

// The layers without a head are a class of their own, which the whole model's class loads.
static bool is_headless(const Architecture *row, const char *name)
{
    const size_t stem = strlen(row->name) - strlen("ForCausalLM");
    return strncmp(name, row->name, stem) == 0 && strcmp(name + stem, "Model") == 0;
}

static bool has_name(const Architecture *row, const char *name)
{
    return strcmp(name, row->name) == 0 || is_headless(row, name) ||
           (row->older_name != NULL && strcmp(name, row->older_name) == 0);
}

Status architecture_find(const Architecture **out, const json_t *config, const char *where)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const json_t *list = json_object_get(config, "architectures");
    const char *name =
        json_array_size(list) == 1 ? json_string_value(json_array_get(list, 0)) : NULL;
    const bool has_type = json_has(config, "model_type"),
               has_list = json_has(config, "architectures");
    bool is_type_known = false;
    if (!has_type && !has_list)
        return fail(BAD_INPUT, "%s: neither 'model_type' nor 'architectures' says what it is",
                    where);
    for (int i = 0; i < N_ROWS; i++) {
        if (has_type && (type == NULL || strcmp(type, rows[i].type) != 0))
            continue;
        is_type_known = true;
        if (has_list && (name == NULL || !has_name(&rows[i], name)))
            continue;
        *out = &rows[i];
        return OK;
    }
    return refuse(config, where, is_type_known ? "architectures" : "model_type");
}

bool architecture_reads(const Architecture *architecture, const char *key)
{
    for (int i = 0; i < N_ROWS; i++)
        for (int k = 0; k < ARCHITECTURE_KEYS && rows[i].reads[k] != NULL; k++)
            if ((architecture == &rows[i] || architecture == architecture_mla) &&
                strcmp(rows[i].reads[k], key) == 0)
                return true;
    return false;
}

void architecture_drop_keys(json_t *config)
{
    for (int i = 0; i < N_ROWS; i++)
        for (int k = 0; k < ARCHITECTURE_KEYS && rows[i].reads[k] != NULL; k++)
            if (!architecture_reads(architecture_plain, rows[i].reads[k]))
                json_object_del(config, rows[i].reads[k]);
}

// ---- fields ------------------------------------------------------------------------------------

double architecture_standard(const Architecture *architecture, const ShapeField *field)
{
    for (int i = 0; i < ARCHITECTURE_VALUES && architecture->standard[i].value != 0; i++)
        if (field == &shape_fields[architecture->standard[i].field])
            return architecture->standard[i].value;
    return 0;
}

// null is no window; an absent key is the standard one.
static Status read_window(ModelShape *shape, const Architecture *architecture, const json_t *config,
                          const char *where)
{
    const ShapeField *field = &shape_fields[SHAPE_SLIDING_WINDOW];
    bool is_on = true;
    if (architecture_reads(architecture, WINDOW_SWITCH))
        TRY(json_get_bool_or(&is_on, config, where, WINDOW_SWITCH, false));
    if (!is_on)
        return OK;
    if (json_object_get(config, WINDOW) == NULL)
        shape_field_set(field, shape, architecture_standard(architecture, field));
    return shape_field_read(shape, field, config, WINDOW, where);
}

static Status read_no_rope(ModelShape *shape, const json_t *config, const char *where)
{
    int64_t interval = 4;
    if (json_has(config, NO_ROPE))
        return shape_field_read(shape, &shape_fields[SHAPE_NO_ROPE], config, NO_ROPE, where);
    if (json_object_get(config, NO_ROPE_INTERVAL) != NULL)
        TRY(json_get_int(&interval, config, where, NO_ROPE_INTERVAL, 1, INT_MAX));
    for (int l = 0; l < shape->n_layers; l++)
        layer_set_put(&shape->no_rope, l, (l + 1) % interval == 0);
    return OK;
}

Status architecture_read(ModelShape *shape, const Architecture *architecture, const json_t *config,
                         const char *where)
{
    for (int i = 0; i < ARCHITECTURE_VALUES && architecture->fixed[i].value != 0; i++)
        shape_field_set(&shape_fields[architecture->fixed[i].field], shape,
                        architecture->fixed[i].value);
    if (architecture == architecture_mla) // its block says it all
        return OK;
    bool has_bias = false;
    if (architecture_reads(architecture, BIAS))
        TRY(json_get_bool_or(&has_bias, config, where, BIAS, false));
    if (has_bias)
        shape->attention_bias = BIAS_QKV_OUT;
    if (architecture_reads(architecture, WINDOW))
        TRY(read_window(shape, architecture, config, where));
    if (architecture_reads(architecture, NO_ROPE))
        TRY(read_no_rope(shape, config, where));
    return OK;
}
