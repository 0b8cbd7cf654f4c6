#include "train/cli/command/kv_options.h"

const char *const kv_option_schemes[] = {"channel", "hqq", "quanto", NULL};
const char *const kv_option_policies[] = {"append", "reference", NULL};

Status kv_options_format(KvFormat *out, const KvOptions *given, KvType type)
{
    KvFormat format = kv_format_plain(given->type >= 0 ? (KvType)given->type : type);
    const bool is_default_scheme = given->scheme == 0 && given->policy == 0;
    if (given->bits != NULL) {
        format.scheme = (KvScheme)(given->scheme + KV_CHANNEL);
        TRY(kv_format_parse_bits(&format, given->bits, "--kv-bits"));
    }
    if (format.scheme == KV_PLAIN && !is_default_scheme)
        return fail(BAD_INPUT,
                    "--kv-scheme %s with --kv-policy %s quantizes the KV cache; give --kv-bits 8, "
                    "4, 3 or 2",
                    kv_option_schemes[given->scheme], kv_option_policies[given->policy]);
    format.reference_policy = given->policy == 1;
    *out = format;
    return OK;
}
