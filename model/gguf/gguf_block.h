// Q8_0, ggml's blocks of 32 numbers: x ~ scale * code, with the scale, the largest magnitude over
// 127, in 16 bits.
//
//     unsigned char blocks[2 * Q8_0_BYTES];
//     q8_0_encode(blocks, values, 2 * Q8_0_NUMBERS);
#ifndef MHA2MLA_MODEL_GGUF_GGUF_BLOCK_H
#define MHA2MLA_MODEL_GGUF_GGUF_BLOCK_H

#include <stdint.h>

enum { Q8_0_NUMBERS = 32, Q8_0_BYTES = 2 + Q8_0_NUMBERS };

// As quantize_row_q8_0_ref() of ggml: codes come from the scale before it is rounded, halves away
// from zero.
void q8_0_encode(void *out,           // [count / 32 blocks]
                 const float *values, // [count], finite and below 65520
                 int64_t count);

#endif
