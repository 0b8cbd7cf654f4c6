// Codes of 8, 4, 3 or 2 bits packed into bytes: what a quantized KV cache stores.
//
//     uint8_t packed[CODE_RUN * 4 / 8];
//     code_pack(packed, codes, CODE_RUN, 4);
//     code_unpack(codes, packed, CODE_RUN, 4);
//
// A run of n codes is split into equal contiguous parts that share their bytes, so that a vector of
// neighbouring codes comes out of a vector of neighbouring bytes by a shift and a mask:
//
//     8 bits: byte i holds code i
//     4 bits: byte i of n/2 holds codes i (low nibble) and i + n/2 (high nibble)
//     2 bits: byte i of n/4 holds codes i, i + n/4, i + n/2, i + 3n/4, from the low bits up
//     3 bits: the low two bits as above, then n/8 bytes of high bits: bit (i mod 8) of byte i/8 is
//             code i's, so that the high bits of 64 codes are one little-endian 64-bit mask
//
// 4 and 2 bits are optimum-quanto's layout (tensor/packed.py).
#ifndef MHA2MLA_INFER_CACHE_CODE_PACK_H
#define MHA2MLA_INFER_CACHE_CODE_PACK_H

#include <stdbool.h>
#include <stdint.h>

enum { CODE_RUN = 64 }; // codes of one channel of a block, and of a group

static inline bool code_bits_exist(int bits)
{
    return bits == 8 || bits == 4 || bits == 3 || bits == 2;
}

// Bytes of a packed run; n is a multiple of 8.
static inline int64_t code_bytes(int64_t n, int bits)
{
    return n / 8 * bits;
}

// Codes are below 2^bits.
void code_pack(uint8_t *restrict packed,      // [code_bytes(n, bits)]
               const uint8_t *restrict codes, // [n]
               int64_t n, int bits);
void code_unpack(uint8_t *restrict codes,        // [n]
                 const uint8_t *restrict packed, // [code_bytes(n, bits)]
                 int64_t n, int bits);

#endif
