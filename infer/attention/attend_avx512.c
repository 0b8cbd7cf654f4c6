// A vector of 32 bfloat16 numbers is one of 16 pairs: shifted left by 16 bits it holds the even
// columns as floats, with the low bits cleared the odd ones. Two instructions widen 32 numbers, and
// sums stay in that order until they are stored.
#include "infer/attention/attend_avx512.h"

#include "base/intmath.h"
#include "infer/attention/attend_codes.h"
#include "infer/attention/attend_softmax.h"
#include "model/kernels/tile.h"

#if defined(__x86_64__)

#define INLINE         AVX512_TARGET __attribute__((always_inline)) static inline
#define UNROLLED(loop) _Pragma("GCC unroll 16") loop

enum { KEYS = ATTEND_KEYS, HALVES = 32 }; // HALVES: numbers of a vector

typedef struct HalfOperands {
    float *c;
    const float *a;
    const uint16_t *b;
    int ldc, lda, ldb, k;
    bool add;
} HalfOperands;

INLINE __m512 widen_even(__m512i halves)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(halves, 16));
}

INLINE __m512 widen_odd(__m512i halves)
{
    return _mm512_castsi512_ps(_mm512_and_si512(halves, _mm512_set1_epi32((int32_t)0xffff0000u)));
}

// Even and odd columns -> 32 columns of c. `mask`: those that exist.
INLINE void store_columns(float *c, __m512 even, __m512 odd, __mmask32 mask, bool add)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    __m512 first = _mm512_permutex2var_ps(even, low, odd),
           second = _mm512_permutex2var_ps(even, high, odd);
    const __mmask16 in_first = (__mmask16)mask, in_second = (__mmask16)(mask >> 16);
    if (add) {
        first = _mm512_add_ps(first, _mm512_maskz_loadu_ps(in_first, c));
        second = _mm512_add_ps(second, _mm512_maskz_loadu_ps(in_second, c + 16));
    }
    _mm512_mask_storeu_ps(c, in_first, first);
    _mm512_mask_storeu_ps(c + 16, in_second, second);
}

// A block of c: its sums stay in registers. `mask`: columns of the last vector that exist.
INLINE void sums(const HalfOperands *o, const int rows, const int vectors, __mmask32 mask)
{
    __m512 even[6][4], odd[6][4];
    UNROLLED(for (int r = 0; r < rows; r++))
    UNROLLED(for (int v = 0; v < vectors; v++))
    even[r][v] = odd[r][v] = _mm512_setzero_ps();
    const float *a = o->a;
    const uint16_t *b = o->b;
    for (int p = 0; p < o->k; p++, b += o->ldb) {
        UNROLLED(for (int v = 0; v < vectors; v++))
        {
            const __m512i halves = v + 1 < vectors ? _mm512_loadu_si512(b + v * HALVES)
                                                   : _mm512_maskz_loadu_epi16(mask, b + v * HALVES);
            const __m512 right_even = widen_even(halves), right_odd = widen_odd(halves);
            UNROLLED(for (int r = 0; r < rows; r++))
            {
                const __m512 left = _mm512_set1_ps(a[(int64_t)r * o->lda + p]);
                even[r][v] = _mm512_fmadd_ps(left, right_even, even[r][v]);
                odd[r][v] = _mm512_fmadd_ps(left, right_odd, odd[r][v]);
            }
        }
    }
    UNROLLED(for (int r = 0; r < rows; r++))
    UNROLLED(for (int v = 0; v < vectors; v++))
    store_columns(o->c + (int64_t)r * o->ldc + v * HALVES, even[r][v], odd[r][v],
                  v + 1 < vectors ? 0xffffffffu : mask, o->add);
}

// All rows of `vectors` vectors of columns.
INLINE void strip(const HalfOperands *shared, int m, const int vectors, const int height,
                  __mmask32 mask)
{
    HalfOperands o = *shared;
    int i = 0;
#define ROWS(count)                                                                                \
    for (; i + count <= m; i += count) {                                                           \
        sums(&o, count, vectors, mask);                                                            \
        o.a += (int64_t)count * o.lda;                                                             \
        o.c += (int64_t)count * o.ldc;                                                             \
    }
    if (height >= 6)
        ROWS(6)
    ROWS(3)
    ROWS(2)
    ROWS(1)
#undef ROWS
}

AVX512_TARGET static void strip_1(const HalfOperands *o, int m, __mmask32 mask)
{
    strip(o, m, 1, 6, mask);
}

AVX512_TARGET static void strip_2(const HalfOperands *o, int m, __mmask32 mask)
{
    strip(o, m, 2, 6, mask);
}

AVX512_TARGET static void strip_4(const HalfOperands *o, int m, __mmask32 mask)
{
    strip(o, m, 4, 3, mask);
}

void attend_multiply_bf16(float *c, int ldc, const float *a, int lda, const uint16_t *b, int ldb,
                          int m, int n, int k, bool add)
{
    HalfOperands o = {c, a, b, ldc, lda, ldb, k, add};
    // Few rows: wide blocks, which read whole rows of b and have enough sums to hide latency.
    const int most = m <= 3 ? 4 * HALVES : 2 * HALVES;
    for (int j = 0; j < n;) {
        const int left = n - j, rest = left % HALVES;
        const int columns = left >= most ? most : (left > HALVES ? 2 * HALVES : HALVES);
        const __mmask32 mask = columns > left ? (__mmask32)((1u << rest) - 1) : 0xffffffffu;
        if (columns == 4 * HALVES)
            strip_4(&o, m, mask);
        else if (columns == 2 * HALVES)
            strip_2(&o, m, mask);
        else
            strip_1(&o, m, mask);
        o.b += columns;
        o.c += columns;
        j += columns;
    }
}

void attend_key_scores_bf16(const AttendWork *work, const AttendTile *tile, const KvBlock *block,
                            bool add)
{
    const AttendDims *d = work->dims;
    const int group_rows = d->G * tile->n;
    const uint16_t *key = block->key;
    for (int j = 0; j < tile->n_heads; j++)
        attend_multiply_bf16(work->scores + (int64_t)j * group_rows * KEYS, KEYS,
                             tile->q_key + (int64_t)j * group_rows * d->key_width, d->key_width,
                             key + (int64_t)j * d->key_width * KEYS, KEYS, group_rows, KEYS,
                             d->key_width, add);
}

// gcc's own choice are vectors of 256 bits.
#if defined(__clang__)
#define WIDE_VECTORS AVX512_TARGET
#else
#define WIDE_VECTORS __attribute__((target("avx512f,avx512bw,prefer-vector-width=512")))
#endif

WIDE_VECTORS void attend_softmax_avx512(const AttendTile *tile, const AttendDims *dims,
                                        float *scores, const float *key_factor, int first_key,
                                        int keys)
{
    attend_softmax_inline(tile, dims, scores, key_factor, first_key, keys);
}

// Value channels [first, first + n) of a head's rows, from its first channel on.
static void decode_rows(float *rows, int ld, const KvCodes *codes, int head_channel, int first,
                        int n)
{
    float columns[16 * KEYS];
    for (int c = first; c < first + n; c += 16) {
        const int count = min_int(16, first + n - c);
        attend_decode_columns(columns, codes, head_channel + c, count);
        attend_transpose_columns(rows + c, ld, columns, count);
    }
}

AttendFloats attend_block_decode(const AttendWork *work, const KvBlock *block)
{
    const AttendDims *d = work->dims;
    const KvCodes *codes = &block->value_codes;
    const int width = d->cache_width;
    attend_decode_columns(work->key, &block->key_codes, 0, d->K * d->key_width);
    if (d->latent > 0)
        attend_decode_columns(work->latent_columns, codes, 0, d->latent);
    if (d->latent > 0 && d->value_column == 0) // keys and values are made of the same columns
        attend_transpose_columns(work->value, width, work->latent_columns, d->value_width);
    else
        for (int j = 0; j < d->value_heads; j++)
            decode_rows(work->value + (int64_t)j * KEYS * width, width, codes, j * width,
                        d->value_column, d->value_width);
    return attend_work_floats(work, block);
}

// [64, width] bfloat16 -> [width, 64] float.
AVX512_TARGET static void widen_columns(float *columns, const uint16_t *rows, int ld, int width)
{
    for (int c = 0; c < width; c += HALVES) {
        const int count = min_int(HALVES, width - c);
        const __mmask32 mask = count < HALVES ? (__mmask32)((1u << count) - 1) : 0xffffffffu;
        for (int t = 0; t < KEYS; t += 16) {
            __m512i r[16];
            UNROLLED(for (int i = 0; i < 16; i++))
            r[i] = _mm512_maskz_loadu_epi16(mask, rows + (int64_t)(t + i) * ld + c);
            attend_transpose_16(r);
            for (int i = 0; i < 16; i++) {
                float *to = columns + (int64_t)(c + 2 * i) * KEYS + t;
                if (2 * i < count)
                    _mm512_storeu_ps(to, widen_even(r[i]));
                if (2 * i + 1 < count)
                    _mm512_storeu_ps(to + KEYS, widen_odd(r[i]));
            }
        }
    }
}

static void rows_block(const AttendWork *work, const AttendTile *tile, const KvBlock *block)
{
    if (block->kind == KV_CODES) {
        const AttendFloats floats = attend_block_decode(work, block);
        attend_block_floats(work, tile, &floats);
        return;
    }
    if (block->kind != KV_ROWS || block->type != KV_BFLOAT16) {
        attend_block_widened(work, tile, block);
        return;
    }
    const AttendDims *d = work->dims;
    const uint16_t *value = block->value;
    const int rows = attend_tile_rows(tile, d);
    kv_fetch_slice(work->ahead);
    attend_key_scores_bf16(work, tile, block, false);
    if (d->latent > 0) {
        widen_columns(work->latent_columns, value, d->cache_width, d->latent);
        kv_fetch_slice(work->ahead);
        tile_multiply(work->scores, KEYS, tile->q_latent, d->latent, work->latent_columns, KEYS,
                      rows, KEYS, d->latent, true);
    }
    attend_softmax_avx512(tile, d, work->scores, block->key_factor, block->first, block->count);
    kv_fetch_slice(work->ahead);
    const int n_products = d->value_heads == 1 ? 1 : tile->n_heads, m = rows / n_products;
    for (int j = 0; j < n_products; j++)
        attend_multiply_bf16(tile->sums + (int64_t)j * m * d->value_ld, d->value_ld,
                             work->scores + (int64_t)j * m * KEYS, KEYS,
                             value + (int64_t)j * KEYS * d->cache_width + d->value_column,
                             d->cache_width, m, d->value_width, KEYS, true);
}

static bool fits(const AttendDims *dims)
{
    (void)dims;
    return attend_has_avx512();
}

const AttendKernel attend_avx512 = {"AVX-512", 1, fits, NULL, NULL, rows_block, NULL};
#else
static bool fits(const AttendDims *dims)
{
    (void)dims;
    return false;
}

const AttendKernel attend_avx512 = {.fits = fits};
#endif
