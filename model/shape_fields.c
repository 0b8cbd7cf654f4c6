// A field's kind is looked at in one switch for each thing that can be done with a field; all
// callers are loops over the table.
#include "model/shape_fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// An order of magnitude above the largest open models (Llama 3.1 405B: 16384 wide, 128 heads;
// vocabularies of 256 k), so that they refuse what is damaged and no model.
enum {
    MAX_WIDTH = 1 << 20,
    MAX_FFN = 1 << 22,
    MAX_HEADS = 4096,
    MAX_HEAD_DIM = 4096,
    MAX_VOCAB = 1 << 24,
    MAX_POSITIONS = 1 << 28,
    MAX_FACTOR = 1 << 20, // of RoPE's scaling
    MAX_D_KV = 1 << 18,
    MAX_SLOTS = 1 << 15,        // of the shared form
    MAX_LATENT = 2 * MAX_WIDTH, // of a shape that shape_check() has passed: twice the rank
    MAX_HEADS_DIM = MAX_HEADS * MAX_HEAD_DIM,
};

// The bounds keep every product that the code forms of dims in range: those of two dims in an int
// (the latent before shape_check() has seen it, K d_kv, is the largest), the number of parameters
// and the bytes of weights, gradients and two moments in an int64_t.
_Static_assert((int64_t)MAX_HEADS *MAX_D_KV <= INT32_MAX, "width of the latent");
_Static_assert((int64_t)MAX_HEADS *(MAX_HEAD_DIM + 2LL * MAX_SLOTS) <= INT32_MAX,
               "width of all heads");
_Static_assert(2LL * MAX_VOCAB * MAX_WIDTH +
                       SHAPE_MAX_LAYERS *
                           (3LL * MAX_WIDTH * MAX_FFN + 4LL * MAX_WIDTH * MAX_HEADS_DIM +
                            2LL * MAX_WIDTH * MAX_HEADS * MAX_SLOTS +
                            2LL * MAX_LATENT * MAX_HEADS_DIM +
                            4LL * MAX_HEADS * (MAX_HEAD_DIM + 2LL * MAX_SLOTS)) <=
                   INT64_MAX / 16,
               "bytes of the parameters and of what training keeps for each");

// An epsilon of 0 leaves RMSNorm of a row of zeros undefined. Models have 1e-5 or 1e-6, some 1e-8.
#define MIN_EPS 1e-12

// One row of the table: MEMBER names the member and where it lies, INT and REAL the kind with both
// bounds, STANDARD the value that an absent key stands for. INSIDE: where a member's member lies.
#define MEMBER(member) .name = #member, .offset = offsetof(ModelShape, member)
#define INSIDE(member) .offset = offsetof(ModelShape, member)
#define INT(a, b)      .kind = SHAPE_INT, .least = (a), .most = (b)
#define REAL(a, b)     .kind = SHAPE_REAL, .least = (a), .most = (b)
#define STANDARD(x)    .presence = SHAPE_STANDARD, .standard = (x)

// Keys and standard values are those of transformers' LlamaConfig. num_key_value_heads falls back
// to num_attention_heads and head_dim to hidden_size / num_attention_heads, as there. The fields of
// a conversion have no fallback: in a file they are all present or the model is an original one.
const ShapeField shape_fields[N_SHAPE_FIELDS] = {
    [SHAPE_D_MODEL] = {MEMBER(d_model), .key = "hidden_size", INT(1, MAX_WIDTH)},
    [SHAPE_D_FFN] = {MEMBER(d_ffn), .key = "intermediate_size", INT(1, MAX_FFN)},
    [SHAPE_N_LAYERS] = {MEMBER(n_layers), .key = "num_hidden_layers", INT(1, SHAPE_MAX_LAYERS)},
    [SHAPE_N_HEADS] = {MEMBER(n_heads), .key = "num_attention_heads", INT(1, MAX_HEADS)},
    [SHAPE_N_KV_HEADS] = {MEMBER(n_kv_heads), .key = "num_key_value_heads", INT(1, MAX_HEADS),
                          .presence = SHAPE_DERIVED},
    [SHAPE_HEAD_DIM] = {MEMBER(head_dim), .key = "head_dim", INT(2, MAX_HEAD_DIM),
                        .presence = SHAPE_DERIVED},
    [SHAPE_VOCAB_SIZE] = {MEMBER(vocab_size), .key = "vocab_size", INT(1, MAX_VOCAB)},
    [SHAPE_MAX_POSITIONS] = {MEMBER(max_positions), .key = "max_position_embeddings",
                             INT(1, MAX_POSITIONS), STANDARD(2048)},
    [SHAPE_RMS_EPS] = {MEMBER(rms_eps), .key = "rms_norm_eps", REAL(MIN_EPS, 1), STANDARD(1e-6)},
    [SHAPE_ROPE_THETA] = {MEMBER(rope_theta), .key = "rope_theta", REAL(1, 1e15), STANDARD(1e4)},
    [SHAPE_ROPE_FACTOR] = {.name = "rope_factor",
                           INSIDE(rope_scaling.factor),
                           .key = "factor",
                           REAL(0, MAX_FACTOR),
                           .owner = SHAPE_OF_ROPE,
                           .may_miss = true},
    [SHAPE_ROPE_LOW_FREQ] = {.name = "rope_low_freq_factor",
                             INSIDE(rope_scaling.low_freq_factor),
                             .key = "low_freq_factor",
                             REAL(0, MAX_FACTOR),
                             .owner = SHAPE_OF_ROPE,
                             .may_miss = true},
    [SHAPE_ROPE_HIGH_FREQ] = {.name = "rope_high_freq_factor",
                              INSIDE(rope_scaling.high_freq_factor),
                              .key = "high_freq_factor",
                              REAL(0, MAX_FACTOR),
                              .owner = SHAPE_OF_ROPE,
                              .may_miss = true},
    [SHAPE_ROPE_ORIGINAL_POSITIONS] = {.name = "rope_original_positions",
                                       INSIDE(rope_scaling.original_positions),
                                       .key = "original_max_position_embeddings",
                                       INT(0, MAX_POSITIONS),
                                       .owner = SHAPE_OF_ROPE,
                                       .may_miss = true},
    [SHAPE_TIED_HEAD] = {MEMBER(tied_head), .key = "tie_word_embeddings", .kind = SHAPE_BOOL,
                         .most = 1, STANDARD(0)},
    [SHAPE_NO_ROPE] = {.name = "no_rope_layers",
                       INSIDE(no_rope),
                       .key = "no_rope_layers",
                       .kind = SHAPE_LAYERS,
                       .most = SHAPE_MAX_LAYERS,
                       .owner = SHAPE_OF_ARCHITECTURE,
                       .may_miss = true},
    [SHAPE_SLIDING_WINDOW] = {MEMBER(sliding_window), .key = "sliding_window",
                              INT(0, MAX_POSITIONS), .owner = SHAPE_OF_ARCHITECTURE,
                              .may_miss = true},
    [SHAPE_QK_NORM] = {MEMBER(qk_norm), .key = "qk_norm", .kind = SHAPE_BOOL, .most = 1,
                       .owner = SHAPE_OF_ARCHITECTURE, .may_miss = true},
    [SHAPE_ATTENTION_BIAS] = {MEMBER(attention_bias), .key = "attention_bias", INT(0, BIAS_QKV_OUT),
                              .owner = SHAPE_OF_ARCHITECTURE, .may_miss = true},
    [SHAPE_ROPE_PAIRS] = {MEMBER(rope_pairs), .key = "rope_pairs", INT(1, MAX_SLOTS),
                          .owner = SHAPE_OF_CONVERSION},
    [SHAPE_D_KV] = {MEMBER(d_kv), .key = "d_kv", INT(0, MAX_D_KV), .owner = SHAPE_OF_CONVERSION},
    [SHAPE_SVD] = {MEMBER(svd), .key = "svd", .kind = SHAPE_SVD_KIND, .most = SVD_SPLIT,
                   .owner = SHAPE_OF_CONVERSION},
    [SHAPE_LATENT] = {MEMBER(latent), .key = "latent", INT(0, MAX_WIDTH),
                      .owner = SHAPE_OF_CONVERSION, .may_miss = true},
    [SHAPE_LATENT_NORM] = {MEMBER(latent_norm), .key = "latent_norm", .kind = SHAPE_BOOL, .most = 1,
                           .owner = SHAPE_OF_CONVERSION, .may_miss = true},
};

static LayerSet *layers_of(const ShapeField *field, const ModelShape *shape)
{
    return (LayerSet *)((uintptr_t)shape + field->offset);
}

double shape_field_value(const ShapeField *field, const ModelShape *shape)
{
    const void *member = (const char *)shape + field->offset;
    switch (field->kind) {
    case SHAPE_INT:
        return *(const int *)member;
    case SHAPE_REAL:
        return *(const double *)member;
    case SHAPE_BOOL:
        return *(const bool *)member;
    case SHAPE_SVD_KIND:
        return (double)*(const SvdKind *)member;
    case SHAPE_LAYERS:
        return layer_set_count(layers_of(field, shape));
    }
    CHECK(false, "%s is of kind %d", field->name, (int)field->kind);
}

// The caller has checked the value against the bounds: the conversion to int would be undefined
// beyond them.
void shape_field_set(const ShapeField *field, ModelShape *shape, double value)
{
    void *member = (char *)shape + field->offset;
    switch (field->kind) {
    case SHAPE_INT:
        *(int *)member = (int)value;
        return;
    case SHAPE_REAL:
        *(double *)member = value;
        return;
    case SHAPE_BOOL:
        *(bool *)member = value != 0;
        return;
    case SHAPE_SVD_KIND:
        *(SvdKind *)member = (SvdKind)value;
        return;
    case SHAPE_LAYERS:
        break; // a number does not say which
    }
    CHECK(false, "%s is of kind %d", field->name, (int)field->kind);
}

bool shape_field_is_same(const ShapeField *field, const ModelShape *a, const ModelShape *b)
{
    if (field->kind == SHAPE_LAYERS)
        return memcmp(layers_of(field, a), layers_of(field, b), sizeof(LayerSet)) == 0;
    return shape_field_value(field, a) == shape_field_value(field, b);
}

Status shape_field_check(const ShapeField *field, const ModelShape *shape, const char *where)
{
    char value[SHAPE_TEXT_BYTES];
    const double number = shape_field_value(field, shape);
    if (number >= field->least && number <= field->most) // not so for NaN
        return OK;
    return fail(BAD_INPUT, "%s: %s is %s, allowed are %.15g to %.15g", where, field->name,
                shape_field_format(value, field, shape), field->least, field->most);
}

// An enum is text in every file, since a number would change its meaning if a kind were added.
static Status read_svd(SvdKind *out, const json_t *object, const char *key, const char *where)
{
    const char *name;
    TRY(json_get_string(&name, object, where, key));
    if (!shape_svd_parse(out, name))
        return fail(BAD_INPUT, "%s: '%s' is \"%.40s\", allowed are \"joint\" and \"split\"", where,
                    key, name);
    return OK;
}

// The list may be longer than the model has layers, as in transformers.
static Status read_layers(LayerSet *out, const json_t *object, const char *key, int n_layers,
                          const char *where)
{
    const json_t *list = json_object_get(object, key);
    LayerSet set = {0};
    char text[JSON_TEXT_BYTES];
    if (!json_is_array(list))
        return fail(BAD_INPUT, "%s: '%s' is %s, allowed is a list of 0 and 1 for %d layers", where,
                    key, json_describe(text, list), n_layers);
    if (json_array_size(list) < (size_t)n_layers)
        return fail(BAD_INPUT, "%s: '%s' is a list of %zu numbers, the model has %d layers", where,
                    key, json_array_size(list), n_layers);
    for (int l = 0; l < n_layers; l++) {
        const json_t *value = json_array_get(list, (size_t)l);
        const json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
        if (number != 0 && number != 1)
            return fail(BAD_INPUT, "%s: '%s' is %s for layer %d, allowed are 0 and 1", where, key,
                        json_describe(text, value), l);
        layer_set_put(&set, l, number == 0);
    }
    *out = set;
    return OK;
}

Status shape_field_read(ModelShape *shape, const ShapeField *field, const json_t *object,
                        const char *key, const char *where)
{
    int64_t whole;
    double real;
    bool is_true;
    SvdKind svd;
    if (field->may_miss && !json_has(object, key))
        return OK;
    switch (field->kind) {
    case SHAPE_INT:
        TRY(json_get_int(&whole, object, where, key, (int64_t)field->least, (int64_t)field->most));
        shape_field_set(field, shape, (double)whole);
        return OK;
    case SHAPE_REAL:
        TRY(json_get_real(&real, object, where, key, field->least, field->most));
        shape_field_set(field, shape, real);
        return OK;
    case SHAPE_BOOL:
        TRY(json_get_bool(&is_true, object, where, key));
        shape_field_set(field, shape, is_true);
        return OK;
    case SHAPE_SVD_KIND:
        TRY(read_svd(&svd, object, key, where));
        shape_field_set(field, shape, (double)svd);
        return OK;
    case SHAPE_LAYERS:
        return read_layers(layers_of(field, shape), object, key, shape->n_layers, where);
    }
    CHECK(false, "%s is of kind %d", field->name, (int)field->kind);
}

static json_t *layers_to_json(const LayerSet *set, int n_layers)
{
    int errors = 0;
    if (layer_set_count(set) == 0)
        return json_null();
    json_t *list = json_array();
    for (int l = 0; l < n_layers; l++)
        errors += json_array_append_new(list, json_integer(!layer_set_has(set, l)));
    if (errors == 0)
        return list;
    json_decref(list);
    return NULL;
}

// The inverse of shape_field_read(); jansson prints reals with 17 digits, so a double survives.
json_t *shape_field_to_json(const ShapeField *field, const ModelShape *shape)
{
    const double value = shape_field_value(field, shape);
    switch (field->kind) {
    case SHAPE_INT:
        return json_integer((json_int_t)value);
    case SHAPE_REAL:
        return json_real(value);
    case SHAPE_BOOL:
        return json_boolean(value != 0);
    case SHAPE_SVD_KIND:
        return json_string(shape_svd_name((SvdKind)value));
    case SHAPE_LAYERS:
        return layers_to_json(layers_of(field, shape), shape->n_layers);
    }
    CHECK(false, "%s is of kind %d", field->name, (int)field->kind);
}

const char *shape_field_format(char out[SHAPE_TEXT_BYTES], const ShapeField *field,
                               const ModelShape *shape)
{
    const double value = shape_field_value(field, shape);
    switch (field->kind) {
    case SHAPE_INT:
        snprintf(out, SHAPE_TEXT_BYTES, "%.0f", value);
        return out;
    case SHAPE_REAL:
        // The fewest digits that read back as the same double, so that 1e-05 is not shown as
        // 1.0000000000000001e-05; 17 always suffice.
        for (int digits = 6; digits <= 17; digits++) {
            snprintf(out, SHAPE_TEXT_BYTES, "%.*g", digits, value);
            if (strtod(out, NULL) == value)
                break;
        }
        return out;
    case SHAPE_BOOL:
        snprintf(out, SHAPE_TEXT_BYTES, "%s", value != 0 ? "true" : "false");
        return out;
    case SHAPE_SVD_KIND:
        snprintf(out, SHAPE_TEXT_BYTES, "%s", shape_svd_name((SvdKind)value));
        return out;
    case SHAPE_LAYERS:
        for (int l = 0; l < shape->n_layers; l++)
            out[l] = layer_set_has(layers_of(field, shape), l) ? '0' : '1';
        out[shape->n_layers] = '\0';
        return out;
    }
    CHECK(false, "%s is of kind %d", field->name, (int)field->kind);
}
