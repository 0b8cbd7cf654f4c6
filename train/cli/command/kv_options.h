// Options of commands that decode: how the KV cache holds its numbers.
//
//     typedef struct AskOptions { KvOptions kv; ... } AskOptions;
//     static const Option options[] = {KV_OPTIONS(AskOptions, kv, "bfloat16"), ...};
//     TRY(kv_options_format(&format, &options->kv, KV_BFLOAT16));
#ifndef MHA2MLA_TRAIN_CLI_COMMAND_KV_OPTIONS_H
#define MHA2MLA_TRAIN_CLI_COMMAND_KV_OPTIONS_H

#include "infer/cache/kv_format.h"
#include "train/cli/command/command.h"

typedef struct KvOptions {
    const char *bits; // NULL: not given
    int scheme;       // index in kv_option_schemes
    int policy;       // index in kv_option_policies
    int type;         // KvType; negative: not given
} KvOptions;

extern const char *const kv_option_schemes[];  // kv_scheme_names without "plain"
extern const char *const kv_option_policies[]; // "append", "reference"

// clang-format off
// type_text_: what --kv-type is where it is not given, in words.
#define KV_OPTIONS(type_, member_, type_text_)                                                     \
    {"kv-bits", OPTION_TEXT, offsetof(type_, member_.bits), "B[,B]",                               \
     "bits of a number in the KV cache: 32, 16, 8, 4, 3 or 2; two of them: of values (the "        \
     "latent) and of keys"},                                                                       \
    {"kv-scheme", OPTION_CHOICE, offsetof(type_, member_.scheme), "NAME",                          \
     "how numbers of 8 bits and fewer are quantized", .choices = kv_option_schemes},               \
    {"kv-policy", OPTION_CHOICE, offsetof(type_, member_.policy), "NAME",                          \
     "append: 64 tokens once, when 64 newer ones are there; reference: as transformers does, "     \
     "the whole prompt and everything again after 128 tokens (hqq and quanto)",                    \
     .choices = kv_option_policies},                                                               \
    {"kv-type", OPTION_CHOICE, offsetof(type_, member_.type), "NAME",                              \
     "numbers of tokens that are not quantized yet", .choices = kv_type_names,                     \
     .derived = (type_text_)}
// clang-format on

#define KV_OPTIONS_DEFAULTS                                                                        \
    {                                                                                              \
        .type = -1                                                                                 \
    }

// The format that the options ask for; without --kv-bits the plain one of --kv-type, or of `type`
// without that. BAD_INPUT names the option.
Status kv_options_format(KvFormat *out, const KvOptions *given, KvType type);

#endif
