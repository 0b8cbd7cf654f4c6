// One table names the dims of config.json; reading, writing and comparing are loops over it.
//
// What a config asks for is refused rather than ignored wherever ignoring it would compute other
// numbers than transformers does. Keys that change nothing here (dropout, cache, token ids ...) are
// not looked at.
#include "model/hf/hf_config.h"

#include "model/hf/hf.h"

#include <stddef.h>
#include <string.h>

enum { REQUIRED = 0, DERIVED = -1 };

typedef struct DimKey {
    const char *key;
    size_t field;      // in ModelShape
    int64_t most;      // together they keep every product of two dims inside an int
    int64_t otherwise; // where the key is missing or null: REQUIRED, DERIVED or this value
} DimKey;

static const DimKey dim_keys[] = {
    {"hidden_size", offsetof(ModelShape, d_model), 1 << 20, REQUIRED},
    {"intermediate_size", offsetof(ModelShape, d_ffn), 1 << 22, REQUIRED},
    {"num_hidden_layers", offsetof(ModelShape, n_layers), 1000, REQUIRED},
    {"num_attention_heads", offsetof(ModelShape, n_heads), 4096, REQUIRED},
    {"num_key_value_heads", offsetof(ModelShape, n_kv_heads), 4096, DERIVED},
    {"head_dim", offsetof(ModelShape, head_dim), 4096, DERIVED},
    {"vocab_size", offsetof(ModelShape, vocab_size), 1 << 24, REQUIRED},
    {"max_position_embeddings", offsetof(ModelShape, max_positions), 1 << 28, 2048},
};

enum { N_DIM_KEYS = sizeof dim_keys / sizeof dim_keys[0] };

static const char plain_type[] = "llama", plain_architecture[] = "LlamaForCausalLM";
// Other names than Llama's, so that transformers refuses the files instead of filling the missing
// k_proj and v_proj with random numbers.
static const char mla_type[] = "mha2mla_llama", mla_architecture[] = "LlamaMlaForCausalLM";

static int *dim_of(ModelShape *shape, const DimKey *key)
{
    return (int *)(void *)((char *)shape + key->field);
}

static int dim_value(const ModelShape *shape, const DimKey *key)
{
    return *(const int *)(const void *)((const char *)shape + key->field);
}

// ---- what is refused ---------------------------------------------------------------------------

// A value as the user wrote it, cut to fit a line.
static Status refuse(const json_t *config, const char *where, const char *key,
                     const char *supported)
{
    char text[120] = "?";
    const json_t *value = json_object_get(config, key);
    size_t length = json_dumpb(value, text, sizeof text - 1, JSON_COMPACT | JSON_ENCODE_ANY);
    text[length < sizeof text ? length : sizeof text - 1] = '\0';
    return fail(BAD_INPUT, "%s: '%s' is %s, supported is %s", where, key, text, supported);
}

static Status check_architecture(const json_t *config, const char *where)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const json_t *list = json_object_get(config, "architectures");
    if (!json_has(config, "model_type") && !json_has(config, "architectures"))
        return fail(BAD_INPUT, "%s: neither 'model_type' nor 'architectures' says what it is",
                    where);
    if (json_has(config, "model_type") &&
        (type == NULL || (strcmp(type, plain_type) != 0 && strcmp(type, mla_type) != 0)))
        return refuse(config, where, "model_type", "\"llama\"");
    if (!json_has(config, "architectures"))
        return OK;
    const char *name = json_string_value(json_array_get(list, 0));
    if (json_array_size(list) != 1 || name == NULL ||
        (strcmp(name, plain_architecture) != 0 && strcmp(name, mla_architecture) != 0))
        return refuse(config, where, "architectures", "[\"LlamaForCausalLM\"]");
    return OK;
}

// true and numbers are refused; missing, null and false are not.
static Status check_off(const json_t *config, const char *where, const char *key)
{
    const json_t *value = json_object_get(config, key);
    bool is_off = !json_has(config, key) || json_is_false(value);
    return is_off ? OK : refuse(config, where, key, "a model without it");
}

// Old configs: rope_theta and rope_scaling {"type" ...}; transformers 5: rope_parameters
// {"rope_theta", "rope_type"}.
static Status check_rope(const json_t *config, const char *where, const char *key)
{
    json_t *rope = json_object_get(config, key), *value;
    const char *name;
    if (!json_has(config, key))
        return OK;
    if (!json_is_object(rope))
        return refuse(config, where, key, "null");
    static const char *const names[] = {"rope_type", "type"};
    for (int i = 0; i < 2; i++) {
        const char *type = json_string_value(json_object_get(rope, names[i]));
        if (json_has(rope, names[i]) && (type == NULL || strcmp(type, "default") != 0))
            return refuse(config, where, key, "RoPE without scaling (\"default\")");
    }
    json_object_foreach(rope, name, value)
    {
        // One entry per kind of layer: models whose layers differ.
        if (json_is_object(value))
            return refuse(config, where, key, "the same RoPE in every layer");
    }
    return OK;
}

static Status check_partial_rope(const json_t *object, const char *where)
{
    static const char key[] = "partial_rotary_factor";
    if (json_has(object, key) && json_number_value(json_object_get(object, key)) != 1.0)
        return refuse(object, where, key, "1.0");
    return OK;
}

static Status check_supported(const json_t *config, const char *where)
{
    static const char *const must_be_off[] = {"attention_bias", "mlp_bias", "sliding_window",
                                              "quantization_config"};
    const char *act = json_string_value(json_object_get(config, "hidden_act"));
    TRY(check_architecture(config, where));
    if (json_has(config, "hidden_act") && (act == NULL || strcmp(act, "silu") != 0))
        return refuse(config, where, "hidden_act", "\"silu\"");
    for (size_t i = 0; i < sizeof must_be_off / sizeof must_be_off[0]; i++)
        TRY(check_off(config, where, must_be_off[i]));
    TRY(check_rope(config, where, "rope_scaling"));
    TRY(check_rope(config, where, "rope_parameters"));
    TRY(check_partial_rope(config, where));
    return check_partial_rope(json_object_get(config, "rope_parameters"), where);
}

// ---- reading -----------------------------------------------------------------------------------

static Status read_dims(ModelShape *shape, const json_t *config, const char *where)
{
    for (int i = 0; i < N_DIM_KEYS; i++) {
        const DimKey *key = &dim_keys[i];
        int64_t value = key->otherwise;
        if (json_has(config, key->key) || key->otherwise == REQUIRED)
            TRY(json_get_int(&value, config, where, key->key, 1, key->most));
        *dim_of(shape, key) = (int)value;
    }
    if (shape->n_kv_heads == DERIVED)
        shape->n_kv_heads = shape->n_heads;
    if (shape->head_dim != DERIVED)
        return OK;
    if (shape->d_model % shape->n_heads != 0)
        return fail(BAD_INPUT,
                    "%s: 'hidden_size' %d does not divide among %d heads and 'head_dim' is missing",
                    where, shape->d_model, shape->n_heads);
    shape->head_dim = shape->d_model / shape->n_heads;
    return OK;
}

static Status read_numbers(ModelShape *shape, const json_t *config, const char *where)
{
    const json_t *rope = json_object_get(config, "rope_parameters");
    const json_t *owner = json_has(rope, "rope_theta") ? rope : config;
    shape->rope_theta = 10000.0;
    if (json_has(owner, "rope_theta"))
        TRY(json_get_real(&shape->rope_theta, owner, where, "rope_theta", 1.0, 1e15));
    shape->rms_eps = 1e-6;
    if (json_has(config, "rms_norm_eps"))
        TRY(json_get_real(&shape->rms_eps, config, where, "rms_norm_eps", 0.0, 1.0));
    shape->tied_head = false;
    if (json_has(config, "tie_word_embeddings"))
        TRY(json_get_bool(&shape->tied_head, config, where, "tie_word_embeddings"));
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

static Status read_mla(ModelShape *shape, const json_t *config, const char *path)
{
    const json_t *block = json_object_get(config, "mha2mla");
    const char *type = json_string_value(json_object_get(config, "model_type")), *svd;
    char where[PATH_BYTES + 16];
    int64_t rope_pairs, d_kv;
    if (!json_has(config, "mha2mla")) {
        if (type != NULL && strcmp(type, mla_type) == 0)
            return fail(BAD_INPUT, "%s: 'mha2mla' is missing in a config of type %s", path, type);
        return OK;
    }
    if (!json_is_object(block))
        return refuse(config, path, "mha2mla", "an object");
    snprintf(where, sizeof where, "%s: mha2mla", path);
    if (json_has(block, "rope_dim_for_mla") && !json_has(block, "rope_pairs"))
        return fail(BAD_INPUT,
                    "%s: 'rope_pairs' is missing: the files do not say which pairs were kept; "
                    "convert the original model with mha2mla convert",
                    where);
    TRY(json_get_int(&rope_pairs, block, where, "rope_pairs", 1, shape->head_dim / 2));
    TRY(json_get_int(&d_kv, block, where, "d_kv", 1, 1 << 18));
    TRY(json_get_string(&svd, block, where, "svd"));
    if (strcmp(svd, "joint") != 0 && strcmp(svd, "split") != 0)
        return refuse(block, where, "svd", "\"joint\" or \"split\"");
    shape->rope_pairs = (int)rope_pairs;
    shape->d_kv = (int)d_kv;
    shape->svd = strcmp(svd, "split") == 0 ? SVD_SPLIT : SVD_JOINT;
    TRY(check_redundant(block, where, "rope_dim_for_mla", 2 * rope_pairs));
    TRY(check_redundant(block, where, "low_rank", d_kv));
    return check_redundant(block, where, "cache_numbers_per_token", shape_cache_numbers(shape));
}

static Status read_shape(ModelShape *out, const json_t *config, const char *path)
{
    ModelShape shape = {0};
    if (!json_is_object(config))
        return fail(BAD_INPUT, "%s: not a JSON object", path);
    TRY(check_supported(config, path));
    TRY(read_dims(&shape, config, path));
    TRY(read_numbers(&shape, config, path));
    shape.rope_pairs = shape.head_dim / 2;
    TRY(shape_check(&shape, path)); // before MLA: an odd head width has no pairs
    TRY(read_mla(&shape, config, path));
    TRY(shape_check(&shape, path));
    *out = shape;
    return OK;
}

static Status read_config(json_t **out, ModelShape *shape, const char *dir)
{
    char path[PATH_BYTES];
    json_t *config;
    if (!file_is_dir(dir))
        return fail(BAD_INPUT, "%s: not a directory with a Hugging Face model", dir);
    TRY(file_join(path, dir, "config.json"));
    if (!file_exists(path))
        return fail(BAD_INPUT, "%s: not a Hugging Face model, config.json is missing", dir);
    TRY(json_read(&config, path));
    Status status = read_shape(shape, config, path);
    if (status == OK)
        *out = config;
    else
        json_decref(config);
    return status;
}

Status hf_load_shape(ModelShape *out, const char *dir)
{
    json_t *config;
    TRY(read_config(&config, out, dir));
    json_decref(config);
    return OK;
}

// ---- writing -----------------------------------------------------------------------------------

static Status check_same_dims(const ModelShape *base, const ModelShape *shape, const char *base_dir)
{
    for (int i = 0; i < N_DIM_KEYS; i++) {
        int have = dim_value(base, &dim_keys[i]), want = dim_value(shape, &dim_keys[i]);
        if (have != want)
            return fail(BAD_INPUT, "%s: '%s' is %d, the model to save has %d; name its own base",
                        base_dir, dim_keys[i].key, have, want);
    }
    if (base->tied_head != shape->tied_head)
        return fail(BAD_INPUT, "%s: 'tie_word_embeddings' is not the model's; name its own base",
                    base_dir);
    return OK;
}

static int set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value); // takes NULL for out of memory
}

// A config from the shape alone.
static int set_plain(json_t *config, const ModelShape *shape)
{
    int errors = 0;
    for (int i = 0; i < N_DIM_KEYS; i++)
        errors += set(config, dim_keys[i].key, json_integer(dim_value(shape, &dim_keys[i])));
    errors += set(config, "hidden_act", json_string("silu"));
    errors += set(config, "rms_norm_eps", json_real(shape->rms_eps));
    errors += set(config, "rope_theta", json_real(shape->rope_theta));
    errors += set(config, "rope_scaling", json_null());
    errors += set(config, "attention_bias", json_false());
    errors += set(config, "mlp_bias", json_false());
    errors += set(config, "tie_word_embeddings", json_boolean(shape->tied_head));
    return errors;
}

static int set_mla(json_t *config, const ModelShape *shape)
{
    json_object_del(config, "mha2mla");
    if (!shape_is_mla(shape))
        return 0;
    json_int_t pairs = shape->rope_pairs, d_kv = shape->d_kv;
    return set(config, "mha2mla",
               json_pack("{s:I, s:I, s:I, s:I, s:s, s:I}", "rope_pairs", pairs, "rope_dim_for_mla",
                         2 * pairs, "d_kv", d_kv, "low_rank", d_kv, "svd",
                         shape_svd_name(shape->svd), "cache_numbers_per_token",
                         (json_int_t)shape_cache_numbers(shape)));
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
    bool is_mla = shape_is_mla(shape);
    int errors = 0;
    if (base_dir != NULL) {
        ModelShape base;
        TRY(read_config(&config, &base, base_dir));
        TRY_GOTO(release_config, check_same_dims(&base, shape, base_dir));
    } else {
        config = json_object();
    }
    errors += set(config, "architectures",
                  json_pack("[s]", is_mla ? mla_architecture : plain_architecture));
    errors += set(config, "model_type", json_string(is_mla ? mla_type : plain_type));
    if (base_dir == NULL)
        errors += set_plain(config, shape);
    errors += set_dtype(config, dtype) + set_mla(config, shape);
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
