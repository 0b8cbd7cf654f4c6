// How a KV cache holds its numbers: as floats, or quantized by one of several schemes. A format is
// a plain value; what a token costs in it follows from the shape of the model.
//
//     KvFormat format = kv_format_plain(KV_BFLOAT16);
//     TRY(kv_format_parse_bits(&format, "2,4", "--kv-bits")); // the latent at 2 bits, k_r at 4
//     TRY(kv_format_check(&format, &shape));
//     double bytes = kv_format_bytes_per_token(&format, &shape);
//
// A token leaves two parts per layer:
//
//     part     original attention       MLA (split SVD too)
//     key      K heads of E, rotated    K heads of 2P, rotated: k_r; shared form: one head of 2P
//     value    K heads of E             one head of R: the latent c (split: the keys' half first;
//                                       with latent_norm the normed one)
//
// MLA with qk_norm leaves a third part, one factor for each head of keys: 1 / rms of the key before
// its norm, which multiplies the scores. Factors are float32 in every format.
#ifndef MHA2MLA_INFER_CACHE_KV_FORMAT_H
#define MHA2MLA_INFER_CACHE_KV_FORMAT_H

#include "model/shape.h"

// Positions of a block of the cache, and of a quantization group along the tokens.
enum { KV_BLOCK_TOKENS = 64 };

// Rows from which on a quantized format quantizes: the oldest block of them, or, by the reference
// policy, everything.
enum { KV_RESIDUAL_TOKENS = 128 };

// Of rows that are not quantized.
typedef enum KvType { KV_FLOAT32, KV_BFLOAT16 } KvType;

typedef enum KvScheme {
    KV_PLAIN,   // not quantized
    KV_CHANNEL, // one scale and zero per channel and 64 tokens (infer/cache/quantize_channel.h)
    KV_HQQ,     // Half-Quadratic Quantization's groups of 64 elements (quantize_hqq.h)
    KV_QUANTO,  // optimum-quanto's (quantize_quanto.h)
} KvScheme;

typedef struct KvFormat {
    KvType type; // of rows; quantized schemes keep the newest tokens in it
    KvScheme scheme;
    bool reference_policy; // transformers' QuantizedCache: the prompt is quantized whole, and all
                           // of it again whenever 128 tokens are full precision; KV_HQQ, KV_QUANTO
    int value_bits, key_bits; // 8, 4, 3 or 2; 0 with KV_PLAIN
    int axis;                 // KV_HQQ: 0 or 1; KV_QUANTO: 0 or -1; else 0
} KvFormat;

// One of a token's two parts in one layer: n_heads * width numbers, its channels.
typedef struct KvPart {
    int n_heads, width;
} KvPart;

KvPart kv_key_part(const ModelShape *shape);
KvPart kv_value_part(const ModelShape *shape);

static inline int kv_part_channels(KvPart part)
{
    return part.n_heads * part.width;
}

static inline int kv_type_bytes(KvType type)
{
    return type == KV_FLOAT32 ? 4 : 2;
}

// By value of the enum, closed by NULL: choices of options.
extern const char *const kv_type_names[];
extern const char *const kv_scheme_names[];

KvFormat kv_format_plain(KvType type);

// Sets the bits from "4" (both parts) or "2,4" (value, key), and KV_CHANNEL if the scheme is
// KV_PLAIN; "16" and "32" make the format plain bfloat16 and float32. BAD_INPUT names `setting` and
// what is allowed.
Status kv_format_parse_bits(KvFormat *format, const char *text, const char *setting);

// BAD_INPUT if the fields do not fit together or the scheme's groups do not fit the shape.
Status kv_format_check(const KvFormat *format, const ModelShape *shape);

// "bfloat16", "channel 4 bits", "hqq 2 bits, keys 4 bits, reference policy". Returns `out`.
enum { KV_FORMAT_TEXT_BYTES = 80 };
const char *kv_format_describe(char out[KV_FORMAT_TEXT_BYTES], const KvFormat *format);

// Bytes of a token over all layers in a full block, with 4 for each factor. Plain: the width of the
// type per number. Quantized: bits + 0.5, as 64 codes share a 16-bit scale and a 16-bit zero; the
// 64 to 127 newest tokens, which are not quantized yet, cost what they do in the plain format.
double kv_format_bytes_per_token(const KvFormat *format, const ModelShape *shape);

// Complete blocks at the beginning of a sequence of n_tokens that are codes, whichever chunks the
// tokens came in: the newest 64 to 127 tokens are rows. 0 in plain formats and the reference
// policy.
int kv_format_coded_blocks(const KvFormat *format, int n_tokens);

// Bytes that a sequence of n_tokens takes in the cache's pages if it shares none: blocks of rows
// count whole. Not for the reference policy.
int64_t kv_format_sequence_bytes(const KvFormat *format, const ModelShape *shape, int n_tokens);

#endif
