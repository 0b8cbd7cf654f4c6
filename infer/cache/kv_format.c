// Formats of the KV cache: names, limits, and bytes per token. See kv_format.h.
#include "infer/cache/kv_format.h"

#include "base/intmath.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const kv_type_names[] = {[KV_FLOAT32] = "float32", [KV_BFLOAT16] = "bfloat16", NULL};
const char *const kv_scheme_names[] = {
    [KV_PLAIN] = "plain", [KV_CHANNEL] = "channel", [KV_HQQ] = "hqq", [KV_QUANTO] = "quanto", NULL};

KvPart kv_key_part(const ModelShape *s)
{
    return (KvPart){shape_rope_heads(s), shape_is_mla(s) ? 2 * s->rope_pairs : s->head_dim};
}

// Split SVD needs no case of its own: its two latents lie side by side in one row of R numbers.
KvPart kv_value_part(const ModelShape *s)
{
    if (shape_is_mla(s))
        return (KvPart){1, shape_dim(s, DIM_LATENT)};
    return (KvPart){s->n_kv_heads, s->head_dim};
}

KvFormat kv_format_plain(KvType type)
{
    return (KvFormat){.type = type};
}

static bool are_bits(int bits)
{
    return bits == 8 || bits == 4 || bits == 3 || bits == 2;
}

Status kv_format_parse_bits(KvFormat *format, const char *text, const char *setting)
{
    if (strcmp(text, "16") == 0 || strcmp(text, "32") == 0) {
        *format = kv_format_plain(text[0] == '1' ? KV_BFLOAT16 : KV_FLOAT32);
        return OK;
    }
    // One digit, or two with a comma between them; nothing else is a width.
    size_t length = strlen(text);
    bool is_pair = length == 3 && text[1] == ',';
    int value_bits = text[0] - '0', key_bits = is_pair ? text[2] - '0' : value_bits;
    if ((length != 1 && !is_pair) || !are_bits(value_bits) || !are_bits(key_bits))
        return fail(BAD_INPUT,
                    "%s %s: allowed are 32, 16, 8, 4, 3 and 2 bits, or two of 8, 4, 3 and 2 for "
                    "values and keys, as in 2,4",
                    setting, text);
    format->value_bits = value_bits;
    format->key_bits = key_bits;
    if (format->scheme == KV_PLAIN)
        format->scheme = KV_CHANNEL;
    return OK;
}

static Status check_quantized(const KvFormat *f, const ModelShape *shape)
{
    const char *name = kv_scheme_names[f->scheme];
    if (!are_bits(f->value_bits) || !are_bits(f->key_bits))
        return fail(BAD_INPUT,
                    "KV scheme %s: %d bits for values and %d for keys, allowed are 8, 4, "
                    "3 and 2",
                    name, f->value_bits, f->key_bits);
    // The libraries' names of their axes; infer/cache/quant_groups.h says what each groups.
    int other_axis = f->scheme == KV_HQQ ? 1 : f->scheme == KV_QUANTO ? -1 : 0;
    if (f->axis != 0 && f->axis != other_axis)
        return fail(BAD_INPUT, "KV scheme %s: axis is %d, allowed are 0 and %d", name, f->axis,
                    other_axis);
    if (f->reference_policy && f->scheme == KV_CHANNEL)
        return fail(BAD_INPUT,
                    "KV scheme %s has no reference policy; choose hqq or quanto, or append", name);
    if (f->reference_policy && shape_key_factors(shape) > 0)
        return fail(BAD_INPUT,
                    "KV scheme %s: the reference policy quantizes all that is cached, and the "
                    "factors of a converted model's normed keys (qk_norm) are not; choose append",
                    name);
    return OK;
}

// The shape is checked, too: what follows multiplies its dims without looking for overflow.
Status kv_format_check(const KvFormat *f, const ModelShape *shape)
{
    TRY(shape_check(shape, "KV cache"));
    if (f->scheme != KV_PLAIN)
        return check_quantized(f, shape);
    if (f->value_bits != 0 || f->key_bits != 0 || f->reference_policy || f->axis != 0)
        return fail(BAD_INPUT,
                    "a KV cache that is not quantized has no bits, axis or policy; choose "
                    "a scheme: channel, hqq or quanto");
    return OK;
}

const char *kv_format_describe(char out[KV_FORMAT_TEXT_BYTES], const KvFormat *f)
{
    if (f->scheme == KV_PLAIN) {
        snprintf(out, KV_FORMAT_TEXT_BYTES, "%s", kv_type_names[f->type]);
        return out;
    }
    char keys[24] = "";
    if (f->key_bits != f->value_bits)
        snprintf(keys, sizeof keys, ", keys %d bits", f->key_bits);
    snprintf(out, KV_FORMAT_TEXT_BYTES, "%s %d bits%s%s", kv_scheme_names[f->scheme], f->value_bits,
             keys, f->reference_policy ? ", reference policy" : "");
    return out;
}

double kv_format_bytes_per_token(const KvFormat *f, const ModelShape *shape)
{
    const int values = kv_part_channels(kv_value_part(shape)),
              keys = kv_part_channels(kv_key_part(shape));
    const double factor_bytes = shape_key_factors(shape) * (double)sizeof(float);
    if (f->scheme == KV_PLAIN)
        return shape->n_layers * ((values + keys) * (double)kv_type_bytes(f->type) + factor_bytes);
    const double overhead_bits = 2 * 16.0 / KV_BLOCK_TOKENS; // scale and zero
    double bits = values * (f->value_bits + overhead_bits) + keys * (f->key_bits + overhead_bits);
    return shape->n_layers * (bits / 8 + factor_bytes);
}

int kv_format_coded_blocks(const KvFormat *f, int n_tokens)
{
    if (f->scheme == KV_PLAIN || f->reference_policy || n_tokens < KV_RESIDUAL_TOKENS)
        return 0;
    return n_tokens / KV_BLOCK_TOKENS - (KV_RESIDUAL_TOKENS / KV_BLOCK_TOKENS - 1);
}

int64_t kv_format_sequence_bytes(const KvFormat *f, const ModelShape *shape, int n_tokens)
{
    CHECK(!f->reference_policy, "reference policy");
    const KvFormat rows = kv_format_plain(f->type);
    int n_coded = kv_format_coded_blocks(f, n_tokens);
    int n_rows = ceil_div(n_tokens, KV_BLOCK_TOKENS) - n_coded;
    // Both are whole numbers: a block of b-bit codes with scale and zero has 8 b + 4 bytes a
    // channel.
    return (int64_t)(KV_BLOCK_TOKENS * (n_coded * kv_format_bytes_per_token(f, shape) +
                                        n_rows * kv_format_bytes_per_token(&rows, shape)));
}
