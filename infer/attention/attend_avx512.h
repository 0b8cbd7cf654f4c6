// Products of float rows with bfloat16 matrices that are widened in registers, for AVX-512, and
// what else the kernels of attention share there. Private to infer/attention.
#ifndef MHA2MLA_INFER_ATTENTION_AVX512_TARGET_H
#define MHA2MLA_INFER_ATTENTION_AVX512_TARGET_H

#include "infer/attention/attend_kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

// Asked at run time, once per process by gcc.
static inline bool attend_has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

#define AVX512_TARGET __attribute__((target("avx512f,avx512bw")))

// c = a b, or c += a b if `add`.
void attend_multiply_bf16(float *c, int ldc,          // [m, n]
                          const float *a, int lda,    // [m, k]
                          const uint16_t *b, int ldb, // [k, n] bfloat16
                          int m, int n, int k, bool add);

// Scores of the tile's rows with the keys as the cache has them, = or +=.
void attend_key_scores_bf16(const AttendWork *work, const AttendTile *tile, const KvBlock *block,
                            bool add);

// attend_tile_softmax().
void attend_softmax_avx512(const AttendTile *tile, const AttendDims *dims, float *scores,
                           const float *key_factor, int first_key, int keys);

// A block of KV_CODES as float32 in the thread's scratch.
AttendFloats attend_block_decode(const AttendWork *work, const KvBlock *block);

// 16 x 16 numbers of 32 bits, in place.
AVX512_TARGET __attribute__((always_inline)) static inline void attend_transpose_16(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // Quarter L of r[4 i + k] now holds column 4 L + k of rows 4 i to 4 i + 3.
    for (int k = 0; k < 4; k++) {
        const __m512i even_low = _mm512_shuffle_i32x4(r[k], r[4 + k], 0x88),
                      even_high = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0x88),
                      odd_low = _mm512_shuffle_i32x4(r[k], r[4 + k], 0xdd),
                      odd_high = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0xdd);
        t[k] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        t[4 + k] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        t[8 + k] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
        t[12 + k] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}
#endif

extern const AttendKernel attend_avx512, attend_amx;

#endif
