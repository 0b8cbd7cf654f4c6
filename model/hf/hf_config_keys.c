// The table was made from what transformers 4.57, 5.0 and 5.24 read for a LlamaForCausalLM:
// configuration_llama.py, configuration_utils.py, modeling_rope_utils.py, masking_utils.py,
// cache_utils.py, modeling_utils.py and modeling_llama.py. Beside these are keys by which other
// families change the forward pass: Llama's code ignores them, so a config of type llama that has
// one was made for a model that neither program computes. Those that another architecture of ours
// reads are in its row (architecture.c).
#include "model/hf/hf_config_keys.h"

#include "base/file.h"
#include "base/log.h"
#include "model/shape_fields.h"

#include <stdio.h>
#include <string.h>

typedef enum KeyRule {
    KEY_ELSEWHERE, // hf_config.c reads or checks it
    KEY_HARMLESS,  // whatever it says, the logits are the same
    KEY_OFF,       // missing, null, false, 0 or empty, unless the architecture reads it
    KEY_ON,        // missing, null or true
    KEY_ONE,       // missing, null or 1: a factor
    KEY_TEXT,      // missing, null, `text`, or a list of nothing else
} KeyRule;

typedef struct ConfigKey {
    const char *name;
    KeyRule rule;
    const char *text; // KEY_TEXT
} ConfigKey;

static const ConfigKey keys[] = {
    {"architectures", KEY_ELSEWHERE},
    {"model_type", KEY_ELSEWHERE},
    {"hidden_act", KEY_ELSEWHERE},
    {"rope_scaling", KEY_ELSEWHERE},
    {"rope_parameters", KEY_ELSEWHERE},
    {"original_max_position_embeddings", KEY_ELSEWHERE},
    {"partial_rotary_factor", KEY_ELSEWHERE},
    {"mha2mla", KEY_ELSEWHERE},
    {"RoPE", KEY_ELSEWHERE},
    {"SVD", KEY_ELSEWHERE},

    // Weights that are added, taken away, packed, or in another file.
    {"attention_bias", KEY_OFF},
    {"mlp_bias", KEY_OFF},
    {"bias", KEY_OFF},
    {"use_bias", KEY_OFF},
    {"qkv_bias", KEY_OFF},
    {"qk_norm", KEY_OFF},
    {"use_qk_norm", KEY_OFF},
    {"qk_layernorm", KEY_OFF},
    {"pruned_heads", KEY_OFF},
    {"num_local_experts", KEY_OFF},
    {"num_experts", KEY_OFF},
    {"n_routed_experts", KEY_OFF},
    {"q_lora_rank", KEY_OFF},
    {"kv_lora_rank", KEY_OFF},
    {"quantization_config", KEY_OFF},
    {"compression_config", KEY_OFF},
    {"transformers_weights", KEY_OFF},
    {"per_layer_config", KEY_OFF}, // layers of different shapes

    // Other masks, positions and scores.
    {"sliding_window", KEY_OFF},
    {"use_sliding_window", KEY_OFF},
    {"attention_chunk_size", KEY_OFF},
    {"layer_types", KEY_TEXT, "full_attention"},
    {"num_kv_shared_layers", KEY_OFF},
    {"dual_chunk_attention_config", KEY_OFF},
    {"use_bidirectional_attention", KEY_OFF},
    {"is_causal", KEY_ON},
    {"is_encoder_decoder", KEY_OFF},
    {"add_cross_attention", KEY_OFF},
    {"alibi", KEY_OFF},
    {"use_alibi", KEY_OFF},
    {"no_rope_layers", KEY_OFF},
    {"no_rope_layer_interval", KEY_OFF},
    {"rope_interleaved", KEY_OFF},
    {"rope_ratio", KEY_ONE},
    {"clip_qkv", KEY_OFF},
    {"query_pre_attn_scalar", KEY_OFF},
    {"attention_multiplier", KEY_OFF},
    {"attn_logit_softcapping", KEY_OFF},
    {"final_logit_softcapping", KEY_OFF},

    // Factors on activations and logits.
    {"embedding_multiplier", KEY_ONE},
    {"residual_multiplier", KEY_ONE},
    {"lm_head_multiplier", KEY_ONE},
    {"logits_scaling", KEY_ONE},
    {"logit_scale", KEY_ONE},
    {"scale_emb", KEY_ONE},
    {"scale_depth", KEY_OFF},
    {"dim_model_base", KEY_OFF},
    {"loss_type", KEY_TEXT, "ForCausalLM"},

    // Where the file comes from. Without trust_remote_code, auto_map is not followed.
    {"name_or_path", KEY_HARMLESS},
    {"transformers_version", KEY_HARMLESS},
    {"auto_map", KEY_HARMLESS},
    {"custom_pipelines", KEY_HARMLESS},
    {"transformers.js_config", KEY_HARMLESS},
    {"is_llama_config", KEY_HARMLESS},
    {"unsloth_fixed", KEY_HARMLESS},
    {"unsloth_version", KEY_HARMLESS},

    // The files' own dtypes are read; arithmetic is in float32.
    {"dtype", KEY_HARMLESS},
    {"torch_dtype", KEY_HARMLESS},
    {"use_bfloat16", KEY_HARMLESS},

    // Random weights, and training in transformers alone: healing has no dropout.
    {"initializer_range", KEY_HARMLESS},
    {"attention_dropout", KEY_HARMLESS},
    {"hidden_dropout", KEY_HARMLESS},
    {"classifier_dropout", KEY_HARMLESS},
    {"gradient_checkpointing", KEY_HARMLESS},

    // The same function computed another way. pretraining_tp cut products into parts until 4.45 and
    // is not read any more.
    {"pretraining_tp", KEY_HARMLESS},
    {"use_cache", KEY_HARMLESS},
    {"cache_implementation", KEY_HARMLESS},
    {"attn_implementation", KEY_HARMLESS},
    {"experts_implementation", KEY_HARMLESS},
    {"chunk_size_feed_forward", KEY_HARMLESS},
    {"torchscript", KEY_HARMLESS},
    {"tf_legacy_loss", KEY_HARMLESS},
    {"distributed_config", KEY_HARMLESS},
    {"base_model_tp_plan", KEY_HARMLESS},
    {"base_model_pp_plan", KEY_HARMLESS},
    {"base_model_ep_plan", KEY_HARMLESS},
    {"base_model_fsdp_plan", KEY_HARMLESS},
    {"serialize_explicit_per_layer_config", KEY_HARMLESS},
    {"allow_global_per_layer_attribute_access", KEY_HARMLESS},

    // Which layers a sliding window is for: none is longer than it here.
    {"max_window_layers", KEY_HARMLESS},

    // What a call returns besides the logits.
    {"output_attentions", KEY_HARMLESS},
    {"output_hidden_states", KEY_HARMLESS},
    {"output_scores", KEY_HARMLESS},
    {"return_dict", KEY_HARMLESS},
    {"return_dict_in_generate", KEY_HARMLESS},

    // The tokenizer's. pad_token_id stops the gradient of that row of the embedding; samples here
    // have no padding.
    {"bos_token_id", KEY_HARMLESS},
    {"eos_token_id", KEY_HARMLESS},
    {"pad_token_id", KEY_HARMLESS},
    {"sep_token_id", KEY_HARMLESS},
    {"unk_token_id", KEY_HARMLESS},
    {"decoder_start_token_id", KEY_HARMLESS},
    {"tokenizer_class", KEY_HARMLESS},
    {"prefix", KEY_HARMLESS},

    // Heads of other tasks, encoders.
    {"id2label", KEY_HARMLESS},
    {"label2id", KEY_HARMLESS},
    {"num_labels", KEY_HARMLESS},
    {"problem_type", KEY_HARMLESS},
    {"finetuning_task", KEY_HARMLESS},
    {"task_specific_params", KEY_HARMLESS},
    {"is_decoder", KEY_HARMLESS},
    {"cross_attention_hidden_size", KEY_HARMLESS},
    {"tie_encoder_decoder", KEY_HARMLESS},

    // Text generation.
    {"max_length", KEY_HARMLESS},
    {"min_length", KEY_HARMLESS},
    {"do_sample", KEY_HARMLESS},
    {"early_stopping", KEY_HARMLESS},
    {"num_beams", KEY_HARMLESS},
    {"num_beam_groups", KEY_HARMLESS},
    {"diversity_penalty", KEY_HARMLESS},
    {"temperature", KEY_HARMLESS},
    {"top_k", KEY_HARMLESS},
    {"top_p", KEY_HARMLESS},
    {"typical_p", KEY_HARMLESS},
    {"epsilon_cutoff", KEY_HARMLESS},
    {"eta_cutoff", KEY_HARMLESS},
    {"repetition_penalty", KEY_HARMLESS},
    {"length_penalty", KEY_HARMLESS},
    {"encoder_repetition_penalty", KEY_HARMLESS},
    {"no_repeat_ngram_size", KEY_HARMLESS},
    {"encoder_no_repeat_ngram_size", KEY_HARMLESS},
    {"bad_words_ids", KEY_HARMLESS},
    {"num_return_sequences", KEY_HARMLESS},
    {"forced_bos_token_id", KEY_HARMLESS},
    {"forced_eos_token_id", KEY_HARMLESS},
    {"remove_invalid_values", KEY_HARMLESS},
    {"exponential_decay_length_penalty", KEY_HARMLESS},
    {"suppress_tokens", KEY_HARMLESS},
    {"begin_suppress_tokens", KEY_HARMLESS},
    {"num_assistant_tokens", KEY_HARMLESS},
    {"num_assistant_tokens_schedule", KEY_HARMLESS},
    {"assistant_confidence_threshold", KEY_HARMLESS},
    {"assistant_lookbehind", KEY_HARMLESS},
    {"target_lookbehind", KEY_HARMLESS},
    {"max_new_tokens", KEY_HARMLESS},
    {"min_new_tokens", KEY_HARMLESS},
    {"max_time", KEY_HARMLESS},
    {"stop_strings", KEY_HARMLESS},
    {"min_p", KEY_HARMLESS},
    {"top_h", KEY_HARMLESS},
    {"penalty_alpha", KEY_HARMLESS},
    {"guidance_scale", KEY_HARMLESS},
    {"sequence_bias", KEY_HARMLESS},
    {"force_words_ids", KEY_HARMLESS},
    {"constraints", KEY_HARMLESS},
    {"renormalize_logits", KEY_HARMLESS},
    {"watermarking_config", KEY_HARMLESS},
    {"token_healing", KEY_HARMLESS},
    {"dola_layers", KEY_HARMLESS},
    {"low_memory", KEY_HARMLESS},
    {"prompt_lookup_num_tokens", KEY_HARMLESS},
    {"cache_config", KEY_HARMLESS},
};

enum { N_KEYS = sizeof keys / sizeof keys[0], UNKNOWN_SHOWN = 3, NAME_SHOWN_BYTES = 64 };

// ---- what is refused ---------------------------------------------------------------------------

Status hf_config_refuse(const json_t *config, const char *where, const char *key,
                        const char *supported)
{
    char text[JSON_TEXT_BYTES];
    return fail(BAD_INPUT, "%s: '%s' is %s, supported is %s", where, key,
                json_describe(text, json_object_get(config, key)), supported);
}

static bool is_off(const json_t *value)
{
    return json_is_false(value) || (json_is_number(value) && json_number_value(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool is_text(const json_t *value, const char *text)
{
    const char *own = json_string_value(value);
    return own != NULL && strcmp(own, text) == 0;
}

static bool is_only_text(const json_t *value, const char *text)
{
    if (!json_is_array(value))
        return is_text(value, text);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!is_text(json_array_get(value, i), text))
            return false;
    return true;
}

static Status check_key(const json_t *config, const char *where, const ConfigKey *key)
{
    const json_t *value = json_object_get(config, key->name);
    char text[NAME_SHOWN_BYTES];
    if (!json_has(config, key->name))
        return OK;
    switch (key->rule) {
    case KEY_ELSEWHERE:
    case KEY_HARMLESS:
        return OK;
    case KEY_OFF:
        return is_off(value) ? OK
                             : hf_config_refuse(config, where, key->name, "a model without it");
    case KEY_ON:
        return json_is_true(value) ? OK : hf_config_refuse(config, where, key->name, "true");
    case KEY_ONE:
        return json_number_value(value) == 1 ? OK
                                             : hf_config_refuse(config, where, key->name, "1.0");
    case KEY_TEXT:
        snprintf(text, sizeof text, "\"%s\"", key->text);
        return is_only_text(value, key->text) ? OK
                                              : hf_config_refuse(config, where, key->name, text);
    }
    CHECK(false, "%s has rule %d", key->name, (int)key->rule);
}

Status hf_config_keys_check(const json_t *config, const Architecture *architecture,
                            const char *where)
{
    for (int i = 0; i < N_KEYS; i++)
        if (keys[i].rule != KEY_OFF || !architecture_reads(architecture, keys[i].name))
            TRY(check_key(config, where, &keys[i]));
    return OK;
}

// ---- what is warned of -------------------------------------------------------------------------

// Names with an underscore first are private to transformers: where a model was loaded from, which
// attention kernel it had.
static bool is_known(const char *name)
{
    if (name[0] == '_')
        return true;
    for (int i = 0; i < N_KEYS; i++)
        if (strcmp(keys[i].name, name) == 0)
            return true;
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        if (shape_fields[i].owner == SHAPE_OF_MODEL && strcmp(shape_fields[i].key, name) == 0)
            return true;
    return false;
}

// What transformers reads from rope_scaling or rope_parameters for any of its types.
static bool is_known_of_rope(const char *name)
{
    static const char *const known[] = {"rope_type",        "type",
                                        "rope_theta",       "partial_rotary_factor",
                                        "factor",           "original_max_position_embeddings",
                                        "low_freq_factor",  "high_freq_factor",
                                        "beta_fast",        "beta_slow",
                                        "attention_factor", "mscale",
                                        "mscale_all_dim",   "truncate",
                                        "short_factor",     "long_factor"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i], name) == 0)
            return true;
    return false;
}

// `what` is what they are no keys of.
static void warn_unknown(const json_t *object, bool (*is_known_name)(const char *name),
                         const char *what, const char *where)
{
    char names[UNKNOWN_SHOWN * (NAME_SHOWN_BYTES + 4)] = "";
    const char *name;
    json_t *value;
    int n_unknown = 0;
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (is_known_name(name) || json_is_null(value))
            continue;
        size_t used = strlen(names);
        if (n_unknown++ < UNKNOWN_SHOWN)
            snprintf(names + used, sizeof names - used, "%s'%.*s'", used > 0 ? ", " : "",
                     NAME_SHOWN_BYTES, name);
    }
    if (n_unknown > 0)
        log_warn("%s: %s%s: no key of %s, ignored", where, names,
                 n_unknown > UNKNOWN_SHOWN ? " and more" : "", what);
}

static void raise_to_id(int64_t *n_ids, const json_t *id)
{
    if (json_is_integer(id) && json_integer_value(id) >= *n_ids)
        *n_ids = json_integer_value(id) + 1;
}

// The highest id of the directory's tokenizer.json and one; 0: there is none that can be read. The
// vocabulary of the model is often padded to a round number beyond it.
static int64_t count_tokenizer_ids(const char *dir)
{
    char path[PATH_BYTES];
    json_t *root, *token;
    const char *name;
    int64_t n_ids = 0;
    size_t i;
    if (file_join(path, dir, "tokenizer.json") != OK || !file_exists(path) ||
        json_read(&root, path) != OK)
        return 0;
    json_object_foreach(json_object_get(json_object_get(root, "model"), "vocab"), name, token)
        raise_to_id(&n_ids, token);
    json_array_foreach(json_object_get(root, "added_tokens"), i, token)
        raise_to_id(&n_ids, json_object_get(token, "id"));
    json_decref(root);
    return n_ids;
}

// -1 stands for none in some of the oldest configs.
static bool is_outside(const json_t *id, int64_t n_ids)
{
    return json_is_integer(id) && (json_integer_value(id) < -1 || json_integer_value(id) >= n_ids);
}

// Logits do not depend on them, so the model is taken; text generation with it would fail.
static void warn_token_ids(const json_t *config, const ModelShape *shape, const char *dir,
                           const char *where)
{
    const int64_t n_own = count_tokenizer_ids(dir);
    const bool has_tokenizer = n_own > 0 && n_own < shape->vocab_size;
    const int64_t n_ids = has_tokenizer ? n_own : shape->vocab_size;
    static const char *const names[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char text[JSON_TEXT_BYTES];
        const json_t *value = json_object_get(config, names[i]);
        bool is_bad = is_outside(value, n_ids);
        for (size_t id = 0; id < json_array_size(value); id++)
            is_bad = is_bad || is_outside(json_array_get(value, id), n_ids);
        if (is_bad)
            log_warn("%s: '%s' is %s, the %s has tokens 0 to %lld; text generation with the model "
                     "will fail",
                     where, names[i], json_describe(text, value),
                     has_tokenizer ? "tokenizer" : "vocabulary", (long long)n_ids - 1);
    }
}

void hf_config_keys_warn(const json_t *config, const ModelShape *shape, const char *dir)
{
    static const char *const ropes[] = {"rope_scaling", "rope_parameters"};
    char where[PATH_BYTES], what[32];
    if (file_join(where, dir, "config.json") != OK)
        return;
    warn_unknown(config, is_known, "a supported model", where);
    for (int i = 0; i < 2; i++) {
        snprintf(what, sizeof what, "'%s'", ropes[i]);
        warn_unknown(json_object_get(config, ropes[i]), is_known_of_rope, what, where);
    }
    warn_token_ids(config, shape, dir, where);
}
