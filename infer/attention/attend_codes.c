// code_pack.h splits a run into parts that share bytes, so that 16 neighbouring codes come out of
// 16 neighbouring bytes by one shift and one mask.
#include "infer/attention/attend_codes.h"

#include "infer/attention/attend_avx512.h"
#include "infer/cache/code_pack.h"
#include "model/kernels/half.h"

#include <string.h>

#if defined(__x86_64__)

#define INLINE AVX512_TARGET __attribute__((always_inline)) static inline

enum { KEYS = ATTEND_KEYS };

// Codes [16 q, 16 q + 16) of a run, as 32-bit numbers.
INLINE __m512i sixteen_codes(const uint8_t *run, const int bits, const int q)
{
    const int low_bits = bits == 3 ? 2 : bits; // of the parts that share bytes
    const int run_bytes = KEYS / 8 * low_bits; // of them together
    const int at = 16 * q % run_bytes, shift = 16 * q / run_bytes * low_bits;
    const __m512i bytes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(run + at)));
    const __m512i codes = _mm512_and_si512(_mm512_srli_epi32(bytes, (unsigned)shift),
                                           _mm512_set1_epi32((1 << low_bits) - 1));
    if (bits != 3)
        return codes;
    uint16_t high; // the third bits
    memcpy(&high, run + run_bytes + 2 * q, sizeof high);
    return _mm512_mask_or_epi32(codes, high, codes, _mm512_set1_epi32(4));
}

INLINE void decode(float *columns, const KvCodes *codes, int first, int n, const int bits)
{
    const int run_bytes = KEYS / 8 * bits;
    for (int c = first; c < first + n; c++, columns += KEYS) {
        const __m512 scale = _mm512_set1_ps(half_bf16_to_f32(codes->scale[c])),
                     zero = _mm512_set1_ps(half_bf16_to_f32(codes->zero[c]));
        const uint8_t *run = codes->codes + (int64_t)c * run_bytes;
        for (int q = 0; q < KEYS / 16; q++)
            _mm512_storeu_ps(
                columns + 16 * q,
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(sixteen_codes(run, bits, q)), scale, zero));
    }
}

AVX512_TARGET void attend_decode_columns(float *columns, const KvCodes *codes, int first, int n)
{
    switch (codes->bits) {
    case 8:
        decode(columns, codes, first, n, 8);
        break;
    case 4:
        decode(columns, codes, first, n, 4);
        break;
    case 3:
        decode(columns, codes, first, n, 3);
        break;
    default:
        decode(columns, codes, first, n, 2);
    }
}

AVX512_TARGET void attend_transpose_columns(float *rows, int ld, const float *columns, int n)
{
    for (int c = 0; c < n; c += 16) {
        const int count = n - c < 16 ? n - c : 16;
        const __mmask16 mask = (__mmask16)((1u << count) - 1);
        for (int t = 0; t < KEYS; t += 16) {
            __m512i r[16];
            for (int i = 0; i < 16; i++)
                r[i] = i < count ? _mm512_loadu_si512(columns + (int64_t)(c + i) * KEYS + t)
                                 : _mm512_setzero_si512();
            attend_transpose_16(r);
            for (int i = 0; i < 16; i++)
                _mm512_mask_storeu_epi32(rows + (int64_t)(t + i) * ld + c, mask, r[i]);
        }
    }
}
#endif
