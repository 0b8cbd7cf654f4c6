// A block of outputs x tokens stays in registers while the inputs run, as in tile.c; here the
// vectors run along the inputs, since that is how rows of weights lie in memory, and are summed at
// the end. Each weight is read and widened once for all tokens of a block, from the first cache for
// the next block. Each target's kernels are an instance of one macro, and the multiply-add is
// inline assembly, for the reasons that tile.c gives.
#include "model/kernels/weights/weight_kernel.h"

#include "base/intmath.h"
#include "model/kernels/half.h"

#include <stddef.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef float Vector16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float Vector8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float Vector4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t Words16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t Words8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t Words4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint16_t Halves16 __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint16_t Halves8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint16_t Halves4 __attribute__((vector_size(8), aligned(2), may_alias));

#define ALWAYS_INLINE  __attribute__((always_inline)) static inline
#define UNROLLED(loop) _Pragma("GCC unroll 32") loop
#define SHUFFLE        __builtin_shufflevector

#define FMA_X86(sum, x, y)     __asm__("vfmadd231ps %1, %2, %0" : "+v"(sum) : "v"(x), "v"(y))
#define SPREAD_X86(to, from)   __asm__("vbroadcastss %1, %0" : "=v"(to) : "m"(from))
#define FMA_PLAIN(sum, x, y)   ((sum) += (x) * (y))
#define SPREAD_PLAIN(to, from) ((to) = (Vector4){from, from, from, from})

// Float16: an instruction where there is one.
#define WIDEN_AVX512(halves) ((Vector16)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(halves))))
#define WIDEN_AVX2(halves)   ((Vector8)_mm256_cvtph_ps(_mm_loadu_si128((const void *)(halves))))
#define WIDEN_PLAIN(halves)                                                                        \
    ((Vector4){half_f16_to_f32((halves)[0]), half_f16_to_f32((halves)[1]),                         \
               half_f16_to_f32((halves)[2]), half_f16_to_f32((halves)[3])})

// Sums of the lanes of four vectors, as one vector of four. A round adds two vectors, shuffled
// within every 128 bits so that the sums of both stay apart.
ALWAYS_INLINE Vector4 sum_lanes_plain(Vector4 a, Vector4 b, Vector4 c, Vector4 d)
{
    const Vector4 ab = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
    const Vector4 cd = SHUFFLE(c, d, 0, 4, 1, 5) + SHUFFLE(c, d, 2, 6, 3, 7);
    return SHUFFLE(ab, cd, 0, 1, 4, 5) + SHUFFLE(ab, cd, 2, 3, 6, 7);
}

#if defined(__x86_64__)
#define TARGET_AVX2   __attribute__((target("avx2,fma,f16c")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx2,fma,f16c")))

TARGET_AVX2 ALWAYS_INLINE Vector4 sum_lanes_avx2(Vector8 a, Vector8 b, Vector8 c, Vector8 d)
{
    const Vector8 ab =
        SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    const Vector8 cd =
        SHUFFLE(c, d, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
    const Vector8 all =
        SHUFFLE(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    return SHUFFLE(all, all, 0, 1, 2, 3) + SHUFFLE(all, all, 4, 5, 6, 7);
}

TARGET_AVX512 ALWAYS_INLINE Vector4 sum_lanes_avx512(Vector16 a, Vector16 b, Vector16 c, Vector16 d)
{
    const Vector16 ab = SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
                        SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    const Vector16 cd = SHUFFLE(c, d, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
                        SHUFFLE(c, d, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    const Vector16 all =
        SHUFFLE(ab, cd, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
        SHUFFLE(ab, cd, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    const Vector8 half =
        SHUFFLE(all, all, 0, 1, 2, 3, 4, 5, 6, 7) + SHUFFLE(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
    return SHUFFLE(half, half, 0, 1, 2, 3) + SHUFFLE(half, half, 4, 5, 6, 7);
}
#endif

// Lanes from 16 on are kept: the last vector of a row begins earlier where n_in is not whole
// vectors, and lanes that were summed already are masked.
static const uint32_t tail_mask[32] = {[16] = ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
                                       ~0u,        ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};

// The first tokens' pass over 4 rows fetches the next 4 into the second cache: the hardware's
// prefetcher starts anew in every row. Where a row is longer than a page it does better alone with
// AVX-512, not with AVX2 (bench/results.md).
enum { PAGE_BYTES = 4096 };

// NAME_dots_block, NAME_sums_block: a block whose size is a constant. MOST_TOKENS and MOST_VECTORS
// fill the registers beside the operands: of dots with 4 rows of weights, of sums with 6 tokens.
#define DEFINE_WEIGHT(NAME, TARGET, VECTOR, WORDS, HALVES, MOST_TOKENS, MOST_VECTORS, FMA, SPREAD, \
                      WIDEN_F16)                                                                   \
    enum { NAME##_LANES = sizeof(VECTOR) / sizeof(float) };                                        \
    TARGET ALWAYS_INLINE VECTOR NAME##_widen(const void *w, int64_t i, const DType dtype)          \
    {                                                                                              \
        if (dtype == DTYPE_F32)                                                                    \
            return *(const VECTOR *)((const float *)w + i);                                        \
        const uint16_t *halves = (const uint16_t *)w + i;                                          \
        if (dtype == DTYPE_F16)                                                                    \
            return WIDEN_F16(halves);                                                              \
        return (VECTOR)(__builtin_convertvector(*(const HALVES *)halves, WORDS) << 16);            \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_dots_block(const WeightOperands *operands, int row,           \
                                                int token, const int rows, const int tokens,       \
                                                const DType dtype)                                 \
    {                                                                                              \
        const int n_in = operands->n_in, ldx = operands->ldx,                                      \
                  whole = n_in / NAME##_LANES * NAME##_LANES;                                      \
        const int64_t at = (int64_t)row * n_in;                                                    \
        const float *x = operands->x + (int64_t)token * ldx;                                       \
        VECTOR sum[4][MOST_TOKENS], left[MOST_TOKENS];                                             \
        UNROLLED(for (int r = 0; r < 4; r++))                                                      \
        UNROLLED(for (int t = 0; t < tokens; t++)) sum[r][t] = (VECTOR){0};                        \
        const int size = dtype == DTYPE_F32 ? 4 : 2; /* bytes of a weight */                       \
        const bool is_ahead = token == 0 && (NAME##_LANES < 16 || n_in * size <= PAGE_BYTES);      \
        const char *next = (const char *)operands->w + (at + rows * (int64_t)n_in) * size;         \
        for (int i = 0; i < whole; i += NAME##_LANES) {                                            \
            if (is_ahead) {                                                                        \
                UNROLLED(for (int b = 0; b < rows * NAME##_LANES * size; b += 64))                 \
                __builtin_prefetch(next + b, 0, 2);                                                \
                next += rows * NAME##_LANES * size;                                                \
            }                                                                                      \
            UNROLLED(for (int t = 0; t < tokens; t++))                                             \
            left[t] = *(const VECTOR *)(x + (int64_t)t * ldx + i);                                 \
            UNROLLED(for (int r = 0; r < rows; r++))                                               \
            {                                                                                      \
                const VECTOR right = NAME##_widen(operands->w, at + (int64_t)r * n_in + i, dtype); \
                UNROLLED(for (int t = 0; t < tokens; t++)) FMA(sum[r][t], left[t], right);         \
            }                                                                                      \
        }                                                                                          \
        if (whole < n_in) {                                                                        \
            const int i = n_in - NAME##_LANES;                                                     \
            const WORDS mask = *(const WORDS *)(tail_mask + 16 - NAME##_LANES + n_in - whole);     \
            UNROLLED(for (int t = 0; t < tokens; t++))                                             \
            left[t] = *(const VECTOR *)(x + (int64_t)t * ldx + i);                                 \
            UNROLLED(for (int r = 0; r < rows; r++))                                               \
            {                                                                                      \
                const VECTOR right =                                                               \
                    (VECTOR)((WORDS)NAME##_widen(operands->w, at + (int64_t)r * n_in + i, dtype) & \
                             mask);                                                                \
                UNROLLED(for (int t = 0; t < tokens; t++)) FMA(sum[r][t], left[t], right);         \
            }                                                                                      \
        }                                                                                          \
        UNROLLED(for (int t = 0; t < tokens; t++))                                                 \
        {                                                                                          \
            float *y = operands->y + (int64_t)(token + t) * operands->ldy + row;                   \
            Vector4 sums = sum_lanes_##NAME(sum[0][t], sum[1][t], sum[2][t], sum[3][t]);           \
            if (rows == 1) {                                                                       \
                *y = (operands->add ? *y : 0) + sums[0];                                           \
            } else {                                                                               \
                if (operands->add)                                                                 \
                    sums += *(const Vector4 *)y;                                                   \
                *(Vector4 *)y = sums;                                                              \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_dots_tokens(const WeightOperands *operands, int row,          \
                                                 const DType dtype)                                \
    {                                                                                              \
        int t = 0;                                                                                 \
        for (; t + MOST_TOKENS <= operands->N; t += MOST_TOKENS)                                   \
            NAME##_dots_block(operands, row, t, 4, MOST_TOKENS, dtype);                            \
        switch (operands->N - t) { /* fewer than MOST_TOKENS */                                    \
        case 5:                                                                                    \
            if (MOST_TOKENS > 5)                                                                   \
                NAME##_dots_block(operands, row, t, 4, 5, dtype);                                  \
            break;                                                                                 \
        case 4:                                                                                    \
            if (MOST_TOKENS > 4)                                                                   \
                NAME##_dots_block(operands, row, t, 4, 4, dtype);                                  \
            break;                                                                                 \
        case 3:                                                                                    \
            if (MOST_TOKENS > 3)                                                                   \
                NAME##_dots_block(operands, row, t, 4, 3, dtype);                                  \
            break;                                                                                 \
        case 2:                                                                                    \
            NAME##_dots_block(operands, row, t, 4, 2, dtype);                                      \
            break;                                                                                 \
        case 1:                                                                                    \
            NAME##_dots_block(operands, row, t, 4, 1, dtype);                                      \
            break;                                                                                 \
        default:                                                                                   \
            break;                                                                                 \
        }                                                                                          \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_dots_of(const WeightOperands *operands, int first, int count, \
                                             const DType dtype)                                    \
    {                                                                                              \
        const int end = first + count;                                                             \
        int row = first;                                                                           \
        for (; row + 4 <= end; row += 4)                                                           \
            NAME##_dots_tokens(operands, row, dtype);                                              \
        for (; row < end; row++)                                                                   \
            for (int t = 0; t < operands->N; t++)                                                  \
                NAME##_dots_block(operands, row, t, 1, 1, dtype);                                  \
    }                                                                                              \
    TARGET static void NAME##_dots(const WeightOperands *operands, int first, int count)           \
    {                                                                                              \
        if (operands->dtype == DTYPE_BF16)                                                         \
            NAME##_dots_of(operands, first, count, DTYPE_BF16);                                    \
        else if (operands->dtype == DTYPE_F16)                                                     \
            NAME##_dots_of(operands, first, count, DTYPE_F16);                                     \
        else                                                                                       \
            NAME##_dots_of(operands, first, count, DTYPE_F32);                                     \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_sums_block(const WeightOperands *operands, int token,         \
                                                int column, int skipped, const int tokens,         \
                                                const int vectors, const DType dtype)              \
    {                                                                                              \
        const int n_in = operands->n_in, ldx = operands->ldx;                                      \
        const float *x = operands->x + (int64_t)token * ldx;                                       \
        VECTOR sum[6][MOST_VECTORS];                                                               \
        UNROLLED(for (int t = 0; t < tokens; t++))                                                 \
        UNROLLED(for (int v = 0; v < vectors; v++)) sum[t][v] = (VECTOR){0};                       \
        for (int o = 0; o < operands->n_out; o++) {                                                \
            VECTOR right[MOST_VECTORS];                                                            \
            UNROLLED(for (int v = 0; v < vectors; v++))                                            \
            right[v] =                                                                             \
                NAME##_widen(operands->w, (int64_t)o * n_in + column + v * NAME##_LANES, dtype);   \
            UNROLLED(for (int t = 0; t < tokens; t++))                                             \
            {                                                                                      \
                VECTOR left;                                                                       \
                SPREAD(left, x[(int64_t)t * ldx + o]);                                             \
                UNROLLED(for (int v = 0; v < vectors; v++)) FMA(sum[t][v], left, right[v]);        \
            }                                                                                      \
        }                                                                                          \
        UNROLLED(for (int t = 0; t < tokens; t++))                                                 \
        {                                                                                          \
            float *y = operands->y + (int64_t)(token + t) * operands->ldy + column;                \
            UNROLLED(for (int v = 0; v < vectors; v++))                                            \
            {                                                                                      \
                VECTOR *to = (VECTOR *)(y + v * NAME##_LANES);                                     \
                if (skipped > 0) {                                                                 \
                    const VECTOR last = sum[t][v];                                                 \
                    for (int i = skipped; i < NAME##_LANES; i++)                                   \
                        y[i] = (operands->add ? y[i] : 0) + last[i];                               \
                    continue;                                                                      \
                }                                                                                  \
                if (operands->add)                                                                 \
                    sum[t][v] += *to;                                                              \
                *to = sum[t][v];                                                                   \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_sums_columns(const WeightOperands *operands, int token,       \
                                                  const int tokens, const DType dtype)             \
    {                                                                                              \
        const int n_in = operands->n_in;                                                           \
        int j = 0;                                                                                 \
        for (; j + MOST_VECTORS * NAME##_LANES <= n_in; j += MOST_VECTORS * NAME##_LANES)          \
            NAME##_sums_block(operands, token, j, 0, tokens, MOST_VECTORS, dtype);                 \
        for (; MOST_VECTORS > 2 && j + 2 * NAME##_LANES <= n_in; j += 2 * NAME##_LANES)            \
            NAME##_sums_block(operands, token, j, 0, tokens, 2, dtype);                            \
        for (; j + NAME##_LANES <= n_in; j += NAME##_LANES)                                        \
            NAME##_sums_block(operands, token, j, 0, tokens, 1, dtype);                            \
        if (j < n_in) /* a vector that begins earlier, of which the last lanes are written */      \
            NAME##_sums_block(operands, token, n_in - NAME##_LANES, NAME##_LANES - (n_in - j),     \
                              tokens, 1, dtype);                                                   \
    }                                                                                              \
    TARGET ALWAYS_INLINE void NAME##_sums_of(const WeightOperands *operands, const DType dtype)    \
    {                                                                                              \
        int t = 0;                                                                                 \
        for (; t + 6 <= operands->N; t += 6)                                                       \
            NAME##_sums_columns(operands, t, 6, dtype);                                            \
        for (; t + 3 <= operands->N; t += 3)                                                       \
            NAME##_sums_columns(operands, t, 3, dtype);                                            \
        for (; t < operands->N; t++)                                                               \
            NAME##_sums_columns(operands, t, 1, dtype);                                            \
    }                                                                                              \
    TARGET static void NAME##_sums(const WeightOperands *operands)                                 \
    {                                                                                              \
        if (operands->dtype == DTYPE_BF16)                                                         \
            NAME##_sums_of(operands, DTYPE_BF16);                                                  \
        else if (operands->dtype == DTYPE_F16)                                                     \
            NAME##_sums_of(operands, DTYPE_F16);                                                   \
        else                                                                                       \
            NAME##_sums_of(operands, DTYPE_F32);                                                   \
    }

#if defined(__x86_64__)
DEFINE_WEIGHT(avx512, TARGET_AVX512, Vector16, Words16, Halves16, 6, 4, FMA_X86, SPREAD_X86,
              WIDEN_AVX512)
DEFINE_WEIGHT(avx2, TARGET_AVX2, Vector8, Words8, Halves8, 3, 2, FMA_X86, SPREAD_X86, WIDEN_AVX2)
#endif
DEFINE_WEIGHT(plain, , Vector4, Words4, Halves4, 3, 2, FMA_PLAIN, SPREAD_PLAIN, WIDEN_PLAIN)

static float widen_one(const WeightOperands *operands, int64_t i)
{
    float value;
    dtype_widen(&value, (const char *)operands->w + i * dtype_size_bytes(operands->dtype),
                operands->dtype, 1);
    return value;
}

// Matrices narrower than any vector.
static void narrow_dots(const WeightOperands *operands, int first, int count)
{
    const int n_in = operands->n_in;
    for (int t = 0; t < operands->N; t++)
        for (int o = first; o < first + count; o++) {
            float *y = operands->y + (int64_t)t * operands->ldy + o, sum = 0;
            for (int i = 0; i < n_in; i++)
                sum += operands->x[(int64_t)t * operands->ldx + i] *
                       widen_one(operands, (int64_t)o * n_in + i);
            *y = (operands->add ? *y : 0) + sum;
        }
}

static void narrow_sums(const WeightOperands *operands)
{
    const int n_in = operands->n_in;
    for (int t = 0; t < operands->N; t++)
        for (int i = 0; i < n_in; i++) {
            float *y = operands->y + (int64_t)t * operands->ldy + i, sum = 0;
            for (int o = 0; o < operands->n_out; o++)
                sum += operands->x[(int64_t)t * operands->ldx + o] *
                       widen_one(operands, (int64_t)o * n_in + i);
            *y = (operands->add ? *y : 0) + sum;
        }
}

static const WeightKernel kernels[N_WEIGHT_TARGETS] = {
    [WEIGHT_NARROW] = {"narrow", 1, narrow_dots, narrow_sums},
    [WEIGHT_PLAIN] = {"plain", 4, plain_dots, plain_sums},
#if defined(__x86_64__)
    [WEIGHT_AVX2] = {"AVX2", 8, avx2_dots, avx2_sums},
    [WEIGHT_AVX512] = {"AVX-512", 16, avx512_dots, avx512_sums},
#endif
};

static bool machine_has(WeightTarget target)
{
#if defined(__x86_64__)
    // Every CPU with AVX2 has F16C; clang 14 cannot ask for it.
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (target == WEIGHT_AVX512)
        return has_avx2 && __builtin_cpu_supports("avx512f");
    if (target == WEIGHT_AVX2)
        return has_avx2;
#endif
    return target <= WEIGHT_PLAIN;
}

const WeightKernel *weight_kernel(WeightTarget target)
{
    return machine_has(target) ? &kernels[target] : NULL;
}

WeightTarget weight_target(int n_in)
{
    WeightTarget target = N_WEIGHT_TARGETS - 1;
    while (target > WEIGHT_NARROW && (!machine_has(target) || n_in < kernels[target].lanes))
        target--;
    return target;
}
