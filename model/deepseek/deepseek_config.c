#include "model/deepseek/deepseek_config.h"

#include "base/json_python.h"

#include <math.h>

// Layers without experts: the keys of experts are read by vLLM, which wants numbers there.
static const struct {
    const char *key;
    int value;
} no_experts[] = {
    {"n_routed_experts", 8}, {"num_experts_per_tok", 2}, {"n_shared_experts", 1},
    {"n_group", 1},          {"topk_group", 1},          {"num_nextn_predict_layers", 0},
};

static int set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value); // takes NULL for out of memory
}

// What a longrope table divides the plain frequency of slot i, theta^(-2i / rho), by to get that of
// the original's pair p: theta^(2p / E - 2i / rho), times what scaling divides the pair's by.
static double longrope_factor(const ModelShape *s, int p, int i, int rho)
{
    return pow(s->rope_theta, 2.0 * p / s->head_dim - 2.0 * i / rho) *
           rope_slowdown(p, s->head_dim, s->rope_theta, &s->rope_scaling);
}

static int set_rope(json_t *config, const Deepseek *d)
{
    const ModelShape *s = &d->model->shape;
    int errors = set(config, "rope_theta", json_real(d->slots.theta));
    if (d->slots.stride > 0)
        return errors + set(config, "rope_scaling", json_null());
    json_t *factors = json_array();
    for (int i = 0; i < d->slots.n_slots; i++)
        errors += json_array_append_new(
            factors, json_real(longrope_factor(s, d->slots.pairs[i], i, d->rho)));
    json_t *scaling =
        json_pack("{s:s, s:o, s:O, s:f, s:f, s:i}", "rope_type", "longrope", "short_factor",
                  factors, "long_factor", factors, "factor", 1.0, "attention_factor", 1.0,
                  "original_max_position_embeddings", shape_longest(s));
    return errors + set(config, "rope_scaling", scaling);
}

static int set_shape(json_t *config, const Deepseek *d)
{
    const ModelShape *s = &d->model->shape;
    const struct {
        const char *key;
        int value;
    } dims[] = {
        {"hidden_size", s->d_model},
        {"intermediate_size", s->d_ffn},
        {"moe_intermediate_size", s->d_ffn},
        {"num_hidden_layers", s->n_layers},
        {"first_k_dense_replace", s->n_layers},
        {"num_attention_heads", s->n_heads},
        {"num_key_value_heads", s->n_heads},
        {"kv_lora_rank", d->latent},
        {"qk_rope_head_dim", d->rho},
        {"qk_nope_head_dim", d->nope},
        {"v_head_dim", s->head_dim},
        {"vocab_size", s->vocab_size},
        {"max_position_embeddings", shape_longest(s)},
    };
    int errors = 0;
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        errors += set(config, dims[i].key, json_integer(dims[i].value));
    for (size_t i = 0; i < sizeof no_experts / sizeof no_experts[0]; i++)
        errors += set(config, no_experts[i].key, json_integer(no_experts[i].value));
    errors += set(config, "q_lora_rank", json_null());
    errors += set(config, "rms_norm_eps", json_real(d->eps));
    errors += set(config, "tie_word_embeddings", json_boolean(s->tied_head));
    return errors;
}

// The base's keys that say the same of the model in any format.
static Status copy_from_base(json_t *config, const char *base_dir)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                       "initializer_range"};
    char path[PATH_BYTES];
    json_t *base;
    int errors = 0;
    TRY(file_join(path, base_dir, "config.json"));
    TRY(json_read(&base, path));
    json_python_drop(base);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_has(base, keys[i]))
            errors += json_object_set(config, keys[i], json_object_get(base, keys[i]));
    json_decref(base);
    return errors == 0 ? OK : fail(FAILED, "no memory for a config.json");
}

Status deepseek_config_make(json_t **out, const Deepseek *d, const char *base_dir, DType dtype)
{
    Status status = OK;
    json_t *config =
        json_pack("{s:[s], s:s, s:s, s:b, s:b, s:s}", "architectures", "DeepseekV3ForCausalLM",
                  "model_type", "deepseek_v3", "hidden_act", "silu", "attention_bias", 0,
                  "rope_interleave", 1, "torch_dtype", dtype_torch_name(dtype));
    if (config == NULL || set_shape(config, d) + set_rope(config, d) != 0) {
        status = fail(FAILED, "no memory for a config.json");
        goto release;
    }
    if (base_dir != NULL)
        TRY_GOTO(release, copy_from_base(config, base_dir));
    *out = config;
    return OK;
release:
    json_decref(config);
    return status;
}
