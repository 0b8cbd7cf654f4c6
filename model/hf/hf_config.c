// model/shape_fields.h names the keys of config.json; reading, writing and comparing are loops over
// it.
//
// What a config asks for is refused rather than ignored wherever ignoring it would compute other
// numbers than transformers does; which other keys change nothing is in hf_config_keys.c.
#include "model/hf/hf_config.h"

#include "base/json_python.h"
#include "model/hf/architecture.h"
#include "model/hf/custom_code.h"
#include "model/hf/hf.h"
#include "model/hf/hf_config_keys.h"
#include "model/shape_fields.h"

#include <stdio.h>
#include <string.h>

// ---- what is refused ---------------------------------------------------------------------------

static const char *const rope_keys[] = {"rope_scaling", "rope_parameters"};
static const char llama3[] = "llama3";

// The type of an object of RoPE; NULL without one.
static const char *rope_type_of(const json_t *rope)
{
    const char *name = json_string_value(json_object_get(rope, "rope_type"));
    return name != NULL ? name : json_string_value(json_object_get(rope, "type"));
}

// Old configs: rope_theta and rope_scaling {"type" ...}; transformers 5: rope_parameters
// {"rope_theta", "rope_type"}. Without a type, a factor would be read by nobody.
static Status check_rope(const json_t *config, const char *where, const char *key)
{
    static const char *const names[] = {"rope_type", "type"};
    static const char supported[] = "\"default\" (no scaling) or \"llama3\"";
    json_t *rope = json_object_get(config, key), *value;
    const char *name;
    char inner[PATH_BYTES + 32];
    if (!json_has(config, key))
        return OK;
    if (!json_is_object(rope))
        return hf_config_refuse(config, where, key, "null");
    snprintf(inner, sizeof inner, "%s: %s", where, key);
    for (int i = 0; i < 2; i++) {
        const char *type = json_string_value(json_object_get(rope, names[i]));
        if (json_has(rope, names[i]) &&
            (type == NULL || (strcmp(type, "default") != 0 && strcmp(type, llama3) != 0)))
            return hf_config_refuse(rope, inner, names[i], supported);
    }
    if (rope_type_of(rope) == NULL && json_has(rope, "factor") &&
        json_number_value(json_object_get(rope, "factor")) != 1.0)
        return hf_config_refuse(rope, inner, "factor", "1.0 without a 'rope_type'");
    json_object_foreach(rope, name, value)
    {
        // One entry per kind of layer: models whose layers differ.
        if (json_is_object(value))
            return hf_config_refuse(config, where, key, "the same RoPE in every layer");
    }
    return OK;
}

static Status check_partial_rope(const json_t *object, const char *where)
{
    static const char key[] = "partial_rotary_factor";
    if (json_has(object, key) && json_number_value(json_object_get(object, key)) != 1.0)
        return hf_config_refuse(object, where, key, "1.0");
    return OK;
}

// The object that transformers 5 reads RoPE from: rope_scaling before rope_parameters, an empty one
// as if it were missing. NULL: neither.
static const json_t *rope_of(const json_t *config)
{
    const json_t *scaling = json_object_get(config, "rope_scaling");
    const json_t *parameters = json_object_get(config, "rope_parameters");
    return json_object_size(scaling) > 0      ? scaling
           : json_object_size(parameters) > 0 ? parameters
                                              : NULL;
}

// Where the file says two things, transformers 4 follows the key beside the objects and
// transformers 5 one of the objects.
static Status check_one_rope(const json_t *config, const char *where)
{
    static const char theta[] = "rope_theta";
    char outer[JSON_TEXT_BYTES], inner[JSON_TEXT_BYTES];
    const json_t *rope = rope_of(config), *parameters = json_object_get(config, "rope_parameters");
    if (json_object_size(parameters) > 0 && !json_equal(rope, parameters))
        return fail(BAD_INPUT, "%s: 'rope_scaling' and 'rope_parameters' differ; keep one", where);
    const json_t *own = json_object_get(config, theta), *other = json_object_get(rope, theta);
    if (!json_has(config, theta) || !json_has(rope, theta) ||
        json_number_value(own) == json_number_value(other))
        return OK;
    return fail(BAD_INPUT,
                "%s: 'rope_theta' is %s, and %s in '%s'; versions of transformers differ in which "
                "they read: keep one",
                where, json_describe(outer, own), json_describe(inner, other),
                rope == parameters ? "rope_parameters" : "rope_scaling");
}

static Status check_supported(const json_t *config, const Architecture *architecture,
                              const char *where)
{
    const char *act = json_string_value(json_object_get(config, "hidden_act"));
    if (json_has(config, "hidden_act") && (act == NULL || strcmp(act, "silu") != 0))
        return hf_config_refuse(config, where, "hidden_act", "\"silu\"");
    TRY(hf_config_keys_check(config, architecture, where));
    for (int i = 0; i < 2; i++)
        TRY(check_rope(config, where, rope_keys[i]));
    TRY(check_one_rope(config, where));
    TRY(check_partial_rope(config, where));
    return check_partial_rope(rope_of(config), where);
}

// ---- reading -----------------------------------------------------------------------------------

// Transformers 5 moved rope_theta into an object; files of both kinds are about.
static const json_t *owner_of(const json_t *config, const ShapeField *field)
{
    const json_t *rope = rope_of(config);
    return field == &shape_fields[SHAPE_ROPE_THETA] && json_has(rope, field->key) ? rope : config;
}

// The fields with keys of their own; those that follow from others stay 0 where they are left out.
static Status read_fields(ModelShape *shape, const Architecture *architecture, const json_t *config,
                          const char *where)
{
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        const json_t *owner = owner_of(config, field);
        const double standard = architecture_standard(architecture, field);
        if (field->owner != SHAPE_OF_MODEL)
            continue;
        if (json_has(owner, field->key) || field->presence == SHAPE_REQUIRED)
            TRY(shape_field_read(shape, field, owner, field->key, where));
        else if (standard != 0 && json_object_get(owner, field->key) == NULL)
            shape_field_set(field, shape, standard);
        else if (field->presence == SHAPE_STANDARD)
            shape_field_set(field, shape, field->standard);
    }
    return OK;
}

// transformers 5 prefers the key beside the object, transformers 4 reads the object alone.
static Status check_original_positions(const json_t *config, const json_t *rope, const char *where)
{
    const char *key = shape_fields[SHAPE_ROPE_ORIGINAL_POSITIONS].key;
    char outer[JSON_TEXT_BYTES], inner[JSON_TEXT_BYTES];
    const json_t *beside = json_object_get(config, key), *within = json_object_get(rope, key);
    if (!json_has(config, key) || json_number_value(beside) == json_number_value(within))
        return OK;
    return fail(BAD_INPUT, "%s: '%s' is %s, and %s in the object of RoPE: keep that one", where,
                key, json_describe(outer, beside), json_describe(inner, within));
}

// All keys of llama3 are to be there: versions of transformers differ in what they take instead.
static Status read_rope_scaling(ModelShape *shape, const json_t *config, const char *path)
{
    const json_t *rope = rope_of(config);
    const char *type = rope_type_of(rope);
    char where[PATH_BYTES + 32];
    if (type == NULL || strcmp(type, llama3) != 0)
        return OK;
    snprintf(where, sizeof where, "%s: %s", path,
             rope_keys[rope != json_object_get(config, rope_keys[0])]);
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        ShapeField field = shape_fields[i];
        field.may_miss = false;
        if (field.owner == SHAPE_OF_ROPE)
            TRY(shape_field_read(shape, &field, rope, field.key, where));
    }
    if (shape->rope_scaling.factor == 0)
        return fail(BAD_INPUT, "%s: 'factor' is 0, allowed are numbers from 1", where);
    return check_original_positions(config, rope, path);
}

static Status derive_heads(ModelShape *shape, const char *where)
{
    if (shape->n_kv_heads == 0)
        shape->n_kv_heads = shape->n_heads;
    if (shape->head_dim != 0)
        return OK;
    if (shape->d_model % shape->n_heads != 0)
        return fail(BAD_INPUT,
                    "%s: 'hidden_size' %d does not divide among %d heads and 'head_dim' is missing",
                    where, shape->d_model, shape->n_heads);
    shape->head_dim = shape->d_model / shape->n_heads;
    return OK;
}

// Redundant keys for other readers of the file: they must not say something else.
static Status check_redundant(const json_t *block, const char *where, const char *key,
                              int64_t expected)
{
    int64_t value = expected;
    if (json_has(block, key))
        TRY(json_get_int(&value, block, where, key, 0, INT64_MAX));
    if (value != expected)
        return fail(BAD_INPUT, "%s: '%s' is %lld, but the other keys make it %lld", where, key,
                    (long long)value, (long long)expected);
    return OK;
}

// The key is missing before any training and in files of earlier versions: 0.
static Status read_healed(ModelShape *shape, const json_t *block, const char *where)
{
    int64_t value = 0;
    if (json_has(block, "healed_seq_len"))
        TRY(json_get_int(&value, block, where, "healed_seq_len", 1,
                         (int64_t)shape_fields[SHAPE_MAX_POSITIONS].most));
    shape->healed_seq_len = (int)value;
    return OK;
}

static Status read_mla(ModelShape *shape, const json_t *config, const char *path)
{
    const json_t *block = json_object_get(config, "mha2mla");
    const char *type = json_string_value(json_object_get(config, "model_type"));
    char where[PATH_BYTES + 16];
    if (!json_has(config, "mha2mla")) {
        if (type != NULL && strcmp(type, architecture_mla->type) == 0)
            return fail(BAD_INPUT, "%s: 'mha2mla' is missing in a config of type %s", path, type);
        return OK;
    }
    if (!json_is_object(block))
        return hf_config_refuse(config, path, "mha2mla", "an object");
    snprintf(where, sizeof where, "%s: mha2mla", path);
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        if (shape_fields[i].owner == SHAPE_OF_CONVERSION ||
            shape_fields[i].owner == SHAPE_OF_ARCHITECTURE)
            TRY(shape_field_read(shape, &shape_fields[i], block, shape_fields[i].key, where));
    if (!shape_is_mla(shape))
        return fail(BAD_INPUT, "%s: 'd_kv' is 0 without 'latent', allowed are 1 to %.0f", where,
                    shape_fields[SHAPE_D_KV].most);
    TRY(read_healed(shape, block, where));
    TRY(check_redundant(block, where, "rope_dim_for_mla", 2LL * shape->rope_pairs));
    if (!shape_is_shared(shape))
        TRY(check_redundant(block, where, "low_rank", shape->d_kv));
    return check_redundant(block, where, "cache_numbers_per_token", shape_cache_numbers(shape));
}

PaperLayout hf_config_layout(const json_t *config)
{
    const json_t *block = json_object_get(config, "mha2mla");
    if (json_has(block, "rope_dim_for_mla") && !json_has(block, "rope_pairs"))
        return PAPER_V12;
    return json_is_object(json_object_get(config, "RoPE")) &&
                   json_is_object(json_object_get(config, "SVD"))
               ? PAPER_V10
               : PAPER_NONE;
}

// May the config be in a layout of the paper's code?
typedef enum PaperUse { PAPER_REFUSED, PAPER_TAKEN } PaperUse;

static Status read_shape(ModelShape *out, const json_t *config, const char *path, PaperUse use)
{
    const PaperLayout layout = hf_config_layout(config);
    ModelShape shape = {0};
    const Architecture *architecture;
    if (!json_is_object(config))
        return fail(BAD_INPUT, "%s: not a JSON object", path);
    TRY(architecture_find(&architecture, config, path));
    TRY(check_supported(config, architecture, path));
    TRY(read_fields(&shape, architecture, config, path));
    TRY(read_rope_scaling(&shape, config, path));
    TRY(architecture_read(&shape, architecture, config, path));
    TRY(derive_heads(&shape, path));
    shape.rope_pairs = shape.head_dim / 2;
    TRY(shape_check(&shape, path)); // before MLA: an odd head width has no pairs
    if (layout == PAPER_NONE)
        TRY(read_mla(&shape, config, path));
    else if (use == PAPER_REFUSED)
        return fail(BAD_INPUT,
                    "%s: a model in the layout of the paper's code, MHA2MLA %s; make one of this "
                    "program of it by mha2mla import",
                    path, layout == PAPER_V10 ? "v1.0" : "v1.2");
    TRY(shape_check(&shape, path));
    *out = shape;
    return OK;
}

// A directory without config.json: often the one above a model, such as that of a run.
static Status fail_no_config(const char *dir)
{
    char below[PATH_BYTES];
    if (file_join(below, dir, "model/config.json") == OK && file_exists(below))
        return fail(BAD_INPUT,
                    "%s: not a Hugging Face model itself; the one of this run is %s/model", dir,
                    dir);
    if (file_join(below, dir, "checkpoints") == OK && file_is_dir(below))
        return fail(BAD_INPUT,
                    "%s: a run directory without an exported model; export one of %s/checkpoints "
                    "by mha2mla export",
                    dir, dir);
    return fail(BAD_INPUT, "%s: not a Hugging Face model, config.json is missing", dir);
}

static Status read_config(json_t **out, ModelShape *shape, const char *dir, PaperUse use)
{
    char path[PATH_BYTES], adapter[PATH_BYTES];
    json_t *config;
    if (!file_is_dir(dir))
        return fail(BAD_INPUT, "%s: not a directory with a Hugging Face model", dir);
    TRY(file_join(path, dir, "config.json"));
    if (!file_exists(path))
        return fail_no_config(dir);
    TRY(file_join(adapter, dir, "adapter_config.json"));
    if (file_exists(adapter)) // transformers adds it to the weights
        return fail(BAD_INPUT,
                    "%s: an adapter is not supported; merge it into the weights (in peft: "
                    "merge_and_unload) or move it out of the directory",
                    adapter);
    TRY(json_read(&config, path));
    Status status;
    TRY_GOTO(release_config, read_shape(shape, config, path, use));
    *out = config;
    return OK;
release_config:
    json_decref(config);
    return status;
}

Status hf_load_shape(ModelShape *out, const char *dir)
{
    json_t *config;
    TRY(read_config(&config, out, dir, PAPER_REFUSED));
    json_decref(config);
    return OK;
}

Status hf_config_read_original(json_t **out, ModelShape *original, const char *dir)
{
    return read_config(out, original, dir, PAPER_TAKEN);
}

void hf_config_warn(const char *dir)
{
    ModelShape shape;
    json_t *config;
    if (read_config(&config, &shape, dir, PAPER_REFUSED) != OK)
        return; // has been reported by who read the shape
    hf_config_keys_warn(config, &shape, dir);
    json_decref(config);
}

// ---- writing -----------------------------------------------------------------------------------

// The saved config.json is the base's except for what follows from the conversion. So the base must
// be the model that is saved: with another rope_theta, a reader would compute other numbers.
static Status check_same_fields(const ModelShape *base, const ModelShape *shape,
                                const char *base_dir)
{
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        char have[SHAPE_TEXT_BYTES], want[SHAPE_TEXT_BYTES];
        if (field->owner == SHAPE_OF_CONVERSION || shape_field_is_same(field, base, shape))
            continue;
        return fail(BAD_INPUT, "%s: '%s' is %s, the model to save has %s; name its own base",
                    base_dir, field->key, shape_field_format(have, field, base),
                    shape_field_format(want, field, shape));
    }
    return OK;
}

static int set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value); // takes NULL for out of memory
}

static json_t *rope_scaling_to_json(const ModelShape *shape)
{
    if (shape->rope_scaling.factor == 0)
        return json_null();
    json_t *rope = json_pack("{s:s}", "rope_type", llama3);
    int errors = 0;
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        if (shape_fields[i].owner == SHAPE_OF_ROPE)
            errors += set(rope, shape_fields[i].key, shape_field_to_json(&shape_fields[i], shape));
    if (errors == 0)
        return rope;
    json_decref(rope);
    return NULL;
}

// A config from the shape alone.
static int set_plain(json_t *config, const ModelShape *shape)
{
    int errors = 0;
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        if (shape_fields[i].owner == SHAPE_OF_MODEL)
            errors +=
                set(config, shape_fields[i].key, shape_field_to_json(&shape_fields[i], shape));
    errors += set(config, "hidden_act", json_string("silu"));
    errors += set(config, "rope_scaling", rope_scaling_to_json(shape));
    errors += set(config, "attention_bias", json_boolean(shape->attention_bias == BIAS_QKV_OUT));
    errors += set(config, "mlp_bias", json_false());
    return errors;
}

// What the base's architecture takes for a key that is not there, once the model is of another: its
// readers would take LlamaConfig's value.
static int set_standards(json_t *config, const Architecture *base, const ModelShape *shape)
{
    int errors = 0;
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        if (field->owner == SHAPE_OF_MODEL && architecture_standard(base, field) != 0 &&
            json_object_get(owner_of(config, field), field->key) == NULL)
            errors += set(config, field->key, shape_field_to_json(field, shape));
    }
    return errors;
}

// RoPE as every version of transformers reads it: 4 takes LlamaConfig's own for rope_parameters,
// which it does not know.
static int set_rope(json_t *config, const ModelShape *shape)
{
    const ShapeField *theta = &shape_fields[SHAPE_ROPE_THETA];
    if (json_object_get(config, "rope_parameters") == NULL)
        return 0;
    json_object_del(config, "rope_parameters");
    return set(config, theta->key, shape_field_to_json(theta, shape)) +
           set(config, "rope_scaling", rope_scaling_to_json(shape));
}

static int set_mla(json_t *config, const ModelShape *shape)
{
    json_object_del(config, "mha2mla");
    json_object_del(config, "RoPE");
    json_object_del(config, "SVD");
    if (!shape_is_mla(shape))
        return 0;
    architecture_drop_keys(config);
    // With it transformers makes one mask for each kind of layer, which Llama's layers do not know.
    json_object_del(config, "layer_types");
    json_int_t pairs = shape->rope_pairs, d_kv = shape->d_kv;
    json_t *block = json_pack("{s:I, s:I, s:I, s:s, s:I}", "rope_pairs", pairs, "rope_dim_for_mla",
                              2 * pairs, "d_kv", d_kv, "svd", shape_svd_name(shape->svd),
                              "cache_numbers_per_token", (json_int_t)shape_cache_numbers(shape));
    int errors = set_rope(config, shape);
    if (shape_is_shared(shape)) {
        errors += set(block, "latent", json_integer(shape->latent));
        errors += set(block, "latent_norm", json_boolean(shape->latent_norm));
    } else {
        errors += set(block, "low_rank", json_integer(d_kv));
    }
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        if (shape_fields[i].owner == SHAPE_OF_ARCHITECTURE &&
            shape_field_value(&shape_fields[i], shape) != 0)
            errors += set(block, shape_fields[i].key, shape_field_to_json(&shape_fields[i], shape));
    if (shape->healed_seq_len > 0)
        errors += set(block, "healed_seq_len", json_integer(shape->healed_seq_len));
    errors += set(config, "auto_map", custom_code_auto_map());
    return errors + set(config, "mha2mla", block);
}

// transformers 5 writes "dtype", older ones "torch_dtype"; both read the older name.
static int set_dtype(json_t *config, DType dtype)
{
    const char *name = dtype_torch_name(dtype);
    int errors = 0;
    bool has_new = json_object_get(config, "dtype") != NULL;
    if (has_new)
        errors += set(config, "dtype", json_string(name));
    if (!has_new || json_object_get(config, "torch_dtype") != NULL)
        errors += set(config, "torch_dtype", json_string(name));
    return errors;
}

Status hf_config_make(json_t **out, const ModelShape *shape, const char *base_dir, DType dtype)
{
    Status status;
    json_t *config = NULL;
    ModelShape saved = *shape;
    const Architecture *base_architecture = architecture_plain;
    int errors = 0;
    if (base_dir != NULL) {
        ModelShape base;
        TRY(read_config(&config, &base, base_dir, PAPER_TAKEN));
        TRY_GOTO(release_config, check_same_fields(&base, shape, base_dir));
        TRY_GOTO(release_config, architecture_find(&base_architecture, config, base_dir));
        shape_set_healed(&saved, base.healed_seq_len); // a converted base was trained before
        json_python_drop(config);
    } else {
        config = json_object();
    }
    const Architecture *own = shape_is_mla(shape) ? architecture_mla : base_architecture;
    errors += set(config, "architectures", json_pack("[s]", own->name));
    errors += set(config, "model_type", json_string(own->type));
    if (base_dir == NULL)
        errors += set_plain(config, shape);
    else if (own != base_architecture)
        errors += set_standards(config, base_architecture, shape);
    errors += set_dtype(config, dtype) + set_mla(config, &saved);
    if (errors != 0) {
        status = fail(FAILED, "no memory for a config.json");
        goto release_config;
    }
    *out = config;
    return OK;
release_config:
    json_decref(config);
    return status;
}
