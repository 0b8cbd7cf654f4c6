// Two rows are worked on together where panels are written: a panel interleaves them, so that one
// store of 16 pairs is one row of a panel and no transpose is needed.
#include "model/attention/attention_softmax.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/compute.h"
#include "model/kernels/half.h"
#include "model/kernels/vexp.h"

#include <math.h>
#include <stddef.h>

enum { LANES = SOFTMAX_LANES, PANEL_ROW = 2 * LANES }; // halves of a panel's row

// How many of the block's keys its row r sees: the causal mask.
static inline int visible_keys(const ScoreBlock *block, int r)
{
    const int row = block->first_row + r;
    if (row >= block->n_rows)
        return 0;
    const int visible = block->q0 + row % block->n - block->k0 + 1;
    return visible < 0 ? 0 : min_int(visible, block->keys);
}

// ---- any CPU -----------------------------------------------------------------------------------

// For x up to 127.
static inline float exp2_plain(float x)
{
    return vexp_to_88(x * 0.693147180559945309f);
}

static inline void fill_zeros(uint16_t *halves, int first, int end)
{
    for (int j = first; j < end; j++)
        halves[j] = 0;
}

static inline void rescale(float *restrict out, int width, float *restrict sums, float shrink)
{
    for (int l = 0; l < LANES; l++)
        sums[l] *= shrink;
    for (int e = 0; e < width; e++)
        out[e] *= shrink;
}

// One row. The lanes' sums are of the numbers before they are rounded.
HOT static void forward_row(uint16_t *restrict p, float *restrict sums, const float *restrict s,
                            int visible, int keys, float factor, float top)
{
    float lanes[LANES] = {0};
    const int whole = visible / LANES * LANES;
    for (int j = 0; j < whole; j += LANES)
#pragma omp simd
        for (int l = 0; l < LANES; l++) {
            const float e = exp2_plain((s[j + l] - top) * factor);
            lanes[l] += e;
            p[j + l] = half_f32_to_bf16(e);
        }
    for (int j = whole; j < visible; j++) {
        const float e = exp2_plain((s[j] - top) * factor);
        lanes[j - whole] += e;
        p[j] = half_f32_to_bf16(e);
    }
    fill_zeros(p, visible, keys);
    for (int l = 0; l < LANES; l++)
        sums[l] += lanes[l];
}

// A NaN is passed over: it makes its own exponential and so the row's sum NaN.
HOT static float find_max(const float *s, int count)
{
    float max = -INFINITY;
#pragma omp simd reduction(max : max)
    for (int j = 0; j < count; j++)
        max = s[j] > max ? s[j] : max;
    return max;
}

static void forward_plain(uint16_t *p, int ldp, float *out, int ld_out, float *row_max,
                          float *row_sums, const ScoreBlock *block, float factor)
{
    for (int r = 0; r < block->rows; r++) {
        const float *s = block->scores + (int64_t)r * block->ld;
        float *sums = row_sums + (int64_t)r * LANES;
        const int visible = visible_keys(block, r);
        const float max = find_max(s, visible);
        if (max > row_max[r]) {
            rescale(out + (int64_t)r * ld_out, ld_out, sums,
                    exp2_plain((row_max[r] - max) * factor));
            row_max[r] = max;
        }
        forward_row(p + (int64_t)r * ldp, sums, s, visible, block->keys, factor, row_max[r]);
    }
}

// One row of a pair, `odd` 0 or 1.
HOT static void backward_row(const SoftmaxGradient *to, const float *restrict s,
                             const float *restrict d_s, int row, int visible, int keys,
                             float factor, float lse2, float delta)
{
    uint16_t *restrict d_row = to->d_rows + (int64_t)row * to->ld;
    const int64_t at = row / 2 * PANEL_ROW + row % 2;
    for (int j = 0; j < keys; j++) {
        const int64_t in_panel = j / LANES * to->panel_step + at + j % LANES * 2;
        const float p = j < visible ? exp2_plain(s[j] * factor - lse2) : 0;
        to->p_panels[in_panel] = half_f32_to_bf16(p);
        d_row[j] = half_f32_to_bf16(j < visible ? p * (d_s[j] - delta) : 0);
        to->d_panels[in_panel] = d_row[j];
    }
}

static void backward_plain(const SoftmaxGradient *to, const ScoreBlock *block,
                           const float *d_scores, const float *lse2, const float *delta,
                           float factor)
{
    for (int r = 0; r < block->rows; r++) {
        const int row = block->first_row + r;
        backward_row(to, block->scores + (int64_t)r * block->ld, d_scores + (int64_t)r * block->ld,
                     row, visible_keys(block, r), block->keys, factor, lse2[row], delta[row]);
    }
}

// ---- AVX-512 -----------------------------------------------------------------------------------

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET        __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")))
#define ALWAYS_INLINE __attribute__((always_inline)) static inline

// 2^x = 2^f 2^floor(x), with the polynomial 1 + f q(f) of degree 4 of least relative error on
// [0, 1]: 2.9e-6, a thousandth of bfloat16's rounding. -inf gives 0: its fraction is 0.
TARGET ALWAYS_INLINE __m512 exp2_lanes(__m512 x)
{
    const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(1.3426685135e-2f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.2242472837e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4128020540e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9304484482e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, x);
}

// The first `count` of 16 lanes.
ALWAYS_INLINE __mmask16 first_lanes(int count)
{
    const unsigned mask = count >= LANES ? 0xffffu : count <= 0 ? 0 : (1u << count) - 1;
    return (__mmask16)mask;
}

// Rounds 32 floats to bfloat16: those of `low` first.
TARGET ALWAYS_INLINE __m512i narrow(__m512 low, __m512 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

TARGET ALWAYS_INLINE float find_max_lanes(const float *s, int visible)
{
    const __m512 least = _mm512_set1_ps(-INFINITY);
    __m512 max[2] = {least, least};
    int j = 0;
    for (; j + 2 * LANES <= visible; j += 2 * LANES) {
        max[0] = _mm512_max_ps(max[0], _mm512_loadu_ps(s + j));
        max[1] = _mm512_max_ps(max[1], _mm512_loadu_ps(s + j + LANES));
    }
    for (; j < visible; j += LANES)
        max[0] =
            _mm512_max_ps(max[0], _mm512_mask_loadu_ps(least, first_lanes(visible - j), s + j));
    return _mm512_reduce_max_ps(_mm512_max_ps(max[0], max[1]));
}

// 32 probabilities of a row, those in the masks, and their part of the sum. The difference comes
// first: the probability of the row's maximum is 1 whatever its size.
TARGET ALWAYS_INLINE void forward_lanes(uint16_t *p, __m512 sums[2], const float *s, __m512 factor,
                                        __m512 top, __mmask16 low, __mmask16 high)
{
    const __m512 a = _mm512_maskz_mov_ps(
        low, exp2_lanes(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(s), top), factor)));
    const __m512 b = _mm512_maskz_mov_ps(
        high, exp2_lanes(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(s + LANES), top), factor)));
    sums[0] = _mm512_add_ps(sums[0], a);
    sums[1] = _mm512_add_ps(sums[1], b);
    _mm512_storeu_si512(p, narrow(a, b));
}

TARGET static void forward_avx512(uint16_t *p, int ldp, float *out, int ld_out, float *row_max,
                                  float *row_sums, const ScoreBlock *block, float factor)
{
    const __m512 factors = _mm512_set1_ps(factor);
    for (int r = 0; r < block->rows; r++, p += ldp) {
        const float *s = block->scores + (int64_t)r * block->ld;
        float *row_sum = row_sums + (int64_t)r * LANES;
        const int visible = visible_keys(block, r);
        const float max = find_max_lanes(s, visible);
        if (max > row_max[r]) {
            rescale(out + (int64_t)r * ld_out, ld_out, row_sum,
                    exp2_plain((row_max[r] - max) * factor));
            row_max[r] = max;
        }
        const __m512 top = _mm512_set1_ps(row_max[r]);
        __m512 sums[2] = {_mm512_loadu_ps(row_sum), _mm512_setzero_ps()};
        int j = 0;
        for (; j + 2 * LANES <= visible; j += 2 * LANES)
            forward_lanes(p + j, sums, s + j, factors, top, 0xffffu, 0xffffu);
        for (; j < visible; j += 2 * LANES)
            forward_lanes(p + j, sums, s + j, factors, top, first_lanes(visible - j),
                          first_lanes(visible - j - LANES));
        for (; j < block->keys; j += 2 * LANES)
            _mm512_storeu_si512(p + j, _mm512_setzero_si512());
        _mm512_storeu_ps(row_sum, _mm512_add_ps(sums[0], sums[1]));
    }
}

// What is the same for all keys of two rows.
typedef struct RowPair {
    const float *s, *d_s;
    float lse2[2], delta[2];
    int ld, visible[2];
} RowPair;

// Halves 0, 16, 1, 17 ... of 32: two rows of 16 as the pairs of a panel's row.
TARGET ALWAYS_INLINE __m512i pair_up(__m512i rows)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, rows);
}

// 16 keys of two rows.
TARGET ALWAYS_INLINE void backward_lanes(uint16_t *p_panel, uint16_t *d_panel, uint16_t *d_rows,
                                         int ld, const RowPair *pair, int j, __m512 factor,
                                         __mmask16 first, __mmask16 second)
{
    const __mmask16 masks[2] = {first, second};
    __m512 p[2], d[2];
    for (int i = 0; i < 2; i++) {
        const int64_t at = (int64_t)i * pair->ld + j;
        p[i] = _mm512_maskz_mov_ps(masks[i],
                                   exp2_lanes(_mm512_fmsub_ps(_mm512_loadu_ps(pair->s + at), factor,
                                                              _mm512_set1_ps(pair->lse2[i]))));
        d[i] = _mm512_maskz_mul_ps(
            masks[i], p[i],
            _mm512_sub_ps(_mm512_loadu_ps(pair->d_s + at), _mm512_set1_ps(pair->delta[i])));
    }
    const __m512i d_pair = narrow(d[0], d[1]);
    _mm512_storeu_si512(p_panel, pair_up(narrow(p[0], p[1])));
    _mm512_storeu_si512(d_panel, pair_up(d_pair));
    _mm256_storeu_si256((__m256i *)(void *)d_rows, _mm512_castsi512_si256(d_pair));
    _mm256_storeu_si256((__m256i *)(void *)(d_rows + ld), _mm512_extracti64x4_epi64(d_pair, 1));
}

TARGET static void backward_avx512(const SoftmaxGradient *to, const ScoreBlock *block,
                                   const float *d_scores, const float *lse2, const float *delta,
                                   float factor)
{
    const __m512 factors = _mm512_set1_ps(factor);
    for (int r = 0; r < block->rows; r += 2) {
        const int row = block->first_row + r;
        const int64_t first = (int64_t)r * block->ld;
        const RowPair pair = {block->scores + first,
                              d_scores + first,
                              {lse2[row], lse2[row + 1]},
                              {delta[row], delta[row + 1]},
                              block->ld,
                              {visible_keys(block, r), visible_keys(block, r + 1)}};
        const int whole = min_int(pair.visible[0], pair.visible[1]);
        uint16_t *p = to->p_panels + (int64_t)row * LANES, *d = to->d_panels + (int64_t)row * LANES,
                 *d_rows = to->d_rows + (int64_t)row * to->ld;
        int j = 0;
        for (; j + LANES <= whole; j += LANES, p += to->panel_step, d += to->panel_step)
            backward_lanes(p, d, d_rows + j, to->ld, &pair, j, factors, 0xffffu, 0xffffu);
        for (; j < block->keys; j += LANES, p += to->panel_step, d += to->panel_step)
            backward_lanes(p, d, d_rows + j, to->ld, &pair, j, factors,
                           first_lanes(pair.visible[0] - j), first_lanes(pair.visible[1] - j));
    }
}

#endif

// ---- the CPU decides ---------------------------------------------------------------------------

void softmax_forward(uint16_t *p, int ldp, float *out, int ld_out, float *row_max, float *row_sums,
                     const ScoreBlock *block, float factor)
{
#if defined(__x86_64__)
    if (bf16_kernel() != BF16_EMULATED) {
        forward_avx512(p, ldp, out, ld_out, row_max, row_sums, block, factor);
        return;
    }
#endif
    forward_plain(p, ldp, out, ld_out, row_max, row_sums, block, factor);
}

void softmax_backward(const SoftmaxGradient *to, const ScoreBlock *block, const float *d_scores,
                      const float *lse2, const float *delta, float factor)
{
#if defined(__x86_64__)
    if (bf16_kernel() != BF16_EMULATED) {
        backward_avx512(to, block, d_scores, lse2, delta, factor);
        return;
    }
#endif
    backward_plain(to, block, d_scores, lse2, delta, factor);
}
