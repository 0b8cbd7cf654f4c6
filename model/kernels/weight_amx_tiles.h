// What the products by AMX's tiles share: instructions, the parts of a float, fetching. Private to
// model/kernels.
#ifndef MHA2MLA_MODEL_KERNELS_WEIGHT_AMX_TILES_H
#define MHA2MLA_MODEL_KERNELS_WEIGHT_AMX_TILES_H

#if defined(__x86_64__) && defined(__linux__)

#include <immintrin.h>
#include <stdint.h>

enum {
    PARTS = 3, // of a float
    TILE_ROWS = 16,
    STEP = 32, // inputs of a tile
    STEP_BYTES = 2 * STEP,
    TILE_HALVES = TILE_ROWS * STEP, // numbers of a tile
    AHEAD_BYTES = 1 << 10           // a tile
};

#define TARGET         __attribute__((target("avx512f,avx512bw,avx2,fma")))
#define ALWAYS_INLINE  __attribute__((always_inline)) static inline
#define UNROLLED(loop) _Pragma("GCC unroll 32") loop

#define TILE_LOAD(tile, from, stride)                                                              \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((int64_t)(stride))        \
                     : "memory")
#define TILE_STORE(tile, to, stride)                                                               \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((int64_t)(stride))      \
                     : "memory")
#define TILE_ZERO(tile)       __asm__ volatile("tilezero %%tmm" #tile ::)
#define TILE_PRODUCT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

typedef struct TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileConfig;

ALWAYS_INLINE void load_configuration(const TileConfig *config)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*config) : "memory");
}

// The parts of 32 floats, each as 16 pairs of bfloat16. Cutting off bits is exact: what is left of
// 24 bits after the first 8 fits a float, and after the second 8 a bfloat16.
TARGET ALWAYS_INLINE void split(__m512i parts[PARTS], __m512 even, __m512 odd)
{
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    // Words 1, 3, 5 ... of both: the upper halves.
    const __m512i upper =
        _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                         25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    UNROLLED(for (int p = 0; p < PARTS; p++))
    {
        const __m512i a = _mm512_castps_si512(even), b = _mm512_castps_si512(odd);
        parts[p] = _mm512_permutex2var_epi16(a, upper, b);
        even = _mm512_sub_ps(even, _mm512_castsi512_ps(_mm512_and_si512(a, high)));
        odd = _mm512_sub_ps(odd, _mm512_castsi512_ps(_mm512_and_si512(b, high)));
    }
}

// The lines of the step, AHEAD_BYTES further on: tiles are loaded late, one after the other, and
// their misses would be, too. Farther is slower (bench/results.md).
ALWAYS_INLINE void fetch_ahead(const char *w, const int tiles)
{
    UNROLLED(for (int line = 0; line < tiles * TILE_ROWS; line++))
    __builtin_prefetch(w + AHEAD_BYTES + line * STEP_BYTES, 0, 2);
}

#endif

#endif
