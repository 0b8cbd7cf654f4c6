// Quantization of one block of the KV cache per channel: the 64 tokens of a channel share a scale
// and a zero,
//
//     value = scale * code + zero,      0 <= code < 2^bits
//
// What suits rotated keys and latents, whose channels differ in spread far more than tokens do
// (KIVI, arXiv 2402.02750, found it for keys; the latent's channels are scaled by roots of singular
// values).
//
//     uint8_t codes[width * CODE_RUN];
//     uint16_t scale[width], zero[width];
//     quantize_channel(codes, scale, zero, rows, width, CODE_RUN, 4);
//     code_pack(packed, codes, CODE_RUN, 4);                          // channel by channel
//     dequantize_channel(rows, codes, scale, zero, width);
//
// With 8 bits, codes lie between the channel's minimum and maximum. With 4, 3 and 2 bits scale and
// zero are fitted from there by least squares, which saves 42 % of what 2 bits cost in loss where
// every read is quantized (demo, d_kv 16: 0.299 -> 0.172 nats per token).
//
// scale and zero are stored as bfloat16, and codes are chosen for the stored numbers: rounding them
// widens a step between minimum and maximum by at most 1/128 and 1/128 of |minimum| / (maximum -
// minimum), and moves nothing.
#ifndef MHA2MLA_INFER_CACHE_QUANTIZE_CHANNEL_H
#define MHA2MLA_INFER_CACHE_QUANTIZE_CHANNEL_H

#include "infer/cache/code_pack.h"

#include <stdint.h>

// The first `count` tokens (1 to 64) of each channel are quantized, codes of others are 0. A
// channel with a number that is not finite is not finite when it is read again.
void quantize_channel(uint8_t *restrict codes,    // [width][64]
                      uint16_t *restrict scale,   // [width] bfloat16
                      uint16_t *restrict zero,    // [width] bfloat16
                      const float *restrict rows, // [width][64], channel-major
                      int width, int count, int bits);

// All 64 tokens of each channel.
void dequantize_channel(float *restrict rows,           // [width][64]
                        const uint8_t *restrict codes,  // [width][64]
                        const uint16_t *restrict scale, // [width] bfloat16
                        const uint16_t *restrict zero,  // [width] bfloat16
                        int width);

#endif
