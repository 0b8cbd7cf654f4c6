// MLA's products with the latent on the matrix units for bfloat16 (Intel AMX): tiles of 16 rows of
// 64 bytes, and c [16, 16] += a [16, 32] b [32, 16] with float sums, where b lies in pairs of rows:
// [16][16][2].
//
//     scores^T [64 tokens, rows]  =  c [64, R]  q^T [R, rows]      a: the cache as it lies
//     sums [rows, R]             +=  p [rows, 64]  c [64, R]       b: rows of the cache in pairs
//
// Queries and probabilities are float and are split into a high and a low bfloat16 part, x = high +
// low to 2^-17, so every product is done twice; the cache is bfloat16 already. Keys' rotated dims
// differ by KV head, too few rows for a tile: those are AVX-512's.
#include "infer/attention/attend_avx512.h"

#include "base/intmath.h"
#include "infer/attention/attend_codes.h"
#include "model/kernels/tile.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX    __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#define INLINE AMX __attribute__((always_inline)) static inline

enum {
    KEYS = ATTEND_KEYS,
    SIDE = 16,           // rows of a tile
    DEPTH = 32,          // bfloat16 numbers of a row
    TILE = SIDE * DEPTH, // bfloat16 numbers of a tile
    SLAB = 4,            // tiles of columns of `sums` that are computed together
    MIN_ROWS_OF_CODES = 24,
    MIN_PRODUCTS = 512 // of a token: rows times width of the latent
};

// The kernel's own scratch of a thread.
typedef struct Own {
    uint16_t *q;         // [groups of 16 rows][steps of 32 channels][high, low][tile b]
    uint16_t *last_rows; // [16, steps * 32]; see whole_steps()
    uint16_t *decoded_high, *decoded_low; // [64, R in whole steps] the latent of quantized blocks
    float *scores;                        // [64, 16] of a group, transposed
    uint16_t *p_high, *p_low;             // [groups * 16, 64]
    uint16_t *pairs[2];                   // [SLAB][2][tile b]
} Own;

static int n_groups(int rows)
{
    return ceil_div(rows, SIDE);
}

static int n_steps(const AttendDims *d)
{
    return ceil_div(d->latent, DEPTH);
}

static int decoded_ld(const AttendDims *d)
{
    return round_up(d->cache_width, DEPTH);
}

static int64_t place_own(Own *own, float *block, const AttendDims *d, int rows)
{
    Arena arena = block != NULL ? arena_over("amx", block, INT64_MAX) : arena_start("amx");
    const int groups = n_groups(rows), steps = n_steps(d);
    const size_t half = sizeof(uint16_t);
    own->q = arena_place(&arena, (int64_t)groups * steps * 2 * TILE, half);
    own->last_rows = arena_place(&arena, (int64_t)SIDE * steps * DEPTH, half);
    own->decoded_high = arena_place(&arena, (int64_t)KEYS * decoded_ld(d), half);
    own->decoded_low = arena_place(&arena, (int64_t)KEYS * decoded_ld(d), half);
    own->scores = arena_floats(&arena, KEYS * SIDE);
    own->p_high = arena_place(&arena, (int64_t)groups * SIDE * KEYS, half);
    own->p_low = arena_place(&arena, (int64_t)groups * SIDE * KEYS, half);
    for (int i = 0; i < 2; i++)
        own->pairs[i] = arena_place(&arena, SLAB * 2 * TILE, half);
    return arena.used_bytes / (int64_t)sizeof(float);
}

static int64_t own_floats(const AttendDims *d, int rows)
{
    Own own;
    return place_own(&own, NULL, d, rows);
}

// Two vectors of floats -> 32 numbers in their order, and what is left of them.
INLINE void split(__m512i *high, __m512i *low, __m512 first, __m512 second)
{
    const __m512i whole = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    const __m512i first_high = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(whole)),
                  second_high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(whole, 1));
    first = _mm512_sub_ps(first, _mm512_castsi512_ps(_mm512_slli_epi32(first_high, 16)));
    second = _mm512_sub_ps(second, _mm512_castsi512_ps(_mm512_slli_epi32(second_high, 16)));
    *high = whole;
    *low = (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

// The first `count` of 16 floats, zeros after them.
INLINE __m512 load_floats(const float *from, int count)
{
    return _mm512_maskz_loadu_ps((__mmask16)(count >= 16 ? 0xffffu
                                             : count > 0 ? (1u << count) - 1
                                                         : 0u),
                                 from);
}

// 16 rows by 32 channels of the queries -> tiles b [16 pairs of channels][16 rows][2].
INLINE void pack_query_tile(uint16_t *high, uint16_t *low, const float *q, int ld, int rows,
                            int channels)
{
    __m512i h[SIDE], l[SIDE];
    for (int r = 0; r < SIDE; r++) {
        h[r] = l[r] = _mm512_setzero_si512();
        if (r < rows)
            split(&h[r], &l[r], load_floats(q + (int64_t)r * ld, channels),
                  load_floats(q + (int64_t)r * ld + 16, channels - 16));
    }
    attend_transpose_16(h);
    attend_transpose_16(l);
    for (int p = 0; p < SIDE; p++) {
        _mm512_storeu_si512(high + p * DEPTH, h[p]);
        _mm512_storeu_si512(low + p * DEPTH, l[p]);
    }
}

// All eight tile registers: 16 rows of 64 bytes. Constant: gcc's _tile_loadconfig() does not say
// that it reads all of it.
static const struct TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} config = {.palette = 1,
            .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
            .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE}};

// Nor does _tile_loadd() say that it reads memory: what was stored before is in memory after this.
INLINE void complete_stores(void)
{
    __asm__ volatile("" ::: "memory");
}

AMX static void start(const AttendWork *work, const AttendTile *tile)
{
    const AttendDims *d = work->dims;
    const int rows = attend_tile_rows(tile, d), steps = n_steps(d);
    Own own;
    place_own(&own, work->own, d, rows);
    for (int g = 0; g < n_groups(rows); g++)
        for (int s = 0; s < steps; s++) {
            uint16_t *to = own.q + ((int64_t)g * steps + s) * 2 * TILE;
            pack_query_tile(to, to + TILE,
                            tile->q_latent + (int64_t)g * SIDE * d->latent + s * DEPTH, d->latent,
                            rows - g * SIDE, d->latent - s * DEPTH);
        }
    // Rows of the last group that are not there: probabilities 0.
    const size_t numbers = (size_t)n_groups(rows) * SIDE * KEYS;
    memset(own.p_high, 0, numbers * sizeof *own.p_high);
    memset(own.p_low, 0, numbers * sizeof *own.p_low);
    _tile_loadconfig(&config);
}

AMX static void finish(const AttendWork *work)
{
    (void)work;
    _tile_release();
}

// The latent of a block: bfloat16 rows, and what they leave of it where it was quantized.
typedef struct Latent {
    const uint16_t *high, *low; // [64, ld]; low: NULL for nothing
    const uint16_t *last;       // [16, last_ld] the last 16 rows of `high`
    int ld, last_ld;
} Latent;

// The latent's columns that keys are made of, for steps of 32 channels. The last step may read
// columns behind them, which queries multiply by 0; behind the last row may be nothing, so the last
// 16 rows are copied.
AMX static Latent whole_steps(const Own *own, const AttendDims *d, const uint16_t *latent)
{
    const int steps = n_steps(d), rest = d->latent % DEPTH, ld = steps * DEPTH, first = KEYS - SIDE;
    if (rest == 0)
        return (Latent){latent, NULL, latent + (int64_t)first * d->cache_width, d->cache_width,
                        d->cache_width};
    const __mmask32 mask = (__mmask32)((1u << rest) - 1);
    for (int t = 0; t < SIDE; t++)
        for (int s = 0; s < steps; s++)
            _mm512_storeu_si512(own->last_rows + t * ld + s * DEPTH,
                                _mm512_maskz_loadu_epi16(
                                    s + 1 < steps ? 0xffffffffu : mask,
                                    latent + (int64_t)(first + t) * d->cache_width + s * DEPTH));
    return (Latent){latent, NULL, own->last_rows, d->cache_width, ld};
}

// Scores of 64 tokens and group g's rows, transposed: four tiles of 16 tokens each.
AMX static void group_scores(const Own *own, const Latent *rows, const uint16_t *q, int steps)
{
    const uint16_t *latent = rows->high, *low = rows->low, *last = rows->last, *q_high = q;
    const int ld = rows->ld;
    const size_t stride = (size_t)ld * sizeof *latent,
                 last_stride = (size_t)rows->last_ld * sizeof *last;
    complete_stores();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int s = 0; s < steps; s++, latent += DEPTH, last += DEPTH, q += 2 * TILE) {
        _tile_loadd(6, q, 2 * DEPTH);
        _tile_loadd(7, q + TILE, 2 * DEPTH);
        _tile_loadd(4, latent, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(0, 4, 7);
        _tile_loadd(5, latent + (int64_t)SIDE * ld, stride);
        _tile_dpbf16ps(1, 5, 6);
        _tile_dpbf16ps(1, 5, 7);
        _tile_loadd(4, latent + (int64_t)2 * SIDE * ld, stride);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, last, last_stride);
        _tile_dpbf16ps(3, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    for (int s = 0; low != NULL && s < steps; s++, low += DEPTH, q_high += 2 * TILE) {
        _tile_loadd(6, q_high, 2 * DEPTH);
        _tile_loadd(4, low, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, low + (int64_t)SIDE * ld, stride);
        _tile_dpbf16ps(1, 5, 6);
        _tile_loadd(4, low + (int64_t)2 * SIDE * ld, stride);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(5, low + (int64_t)3 * SIDE * ld, stride);
        _tile_dpbf16ps(3, 5, 6);
    }
    _tile_stored(0, own->scores, 4 * SIDE);
    _tile_stored(1, own->scores + SIDE * SIDE, 4 * SIDE);
    _tile_stored(2, own->scores + 2 * SIDE * SIDE, 4 * SIDE);
    _tile_stored(3, own->scores + 3 * SIDE * SIDE, 4 * SIDE);
}

// [64, 16] -> the first `rows` rows of scores [16, 64].
AMX static void transpose_scores(float *scores, const float *transposed, int rows)
{
    for (int t = 0; t < KEYS; t += SIDE) {
        __m512i r[SIDE];
        for (int i = 0; i < SIDE; i++)
            r[i] = _mm512_loadu_si512(transposed + (t + i) * SIDE);
        attend_transpose_16(r);
        for (int i = 0; i < rows && i < SIDE; i++)
            _mm512_storeu_si512(scores + i * KEYS + t, r[i]);
    }
}

AMX static void split_probabilities(const Own *own, const float *p, int rows)
{
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < KEYS; t += DEPTH) {
            __m512i high, low;
            split(&high, &low, _mm512_loadu_ps(p + r * KEYS + t),
                  _mm512_loadu_ps(p + r * KEYS + t + 16));
            _mm512_storeu_si512(own->p_high + r * KEYS + t, high);
            _mm512_storeu_si512(own->p_low + r * KEYS + t, low);
        }
}

// 64 tokens of n_tiles * 16 channels -> tiles b [n_tiles][2][16 pairs of tokens][16 channels][2].
INLINE void pack_pairs(uint16_t *pairs, const uint16_t *value, int ld, int channels)
{
    // Numbers 0, 32, 1, 33, ...: of two rows of 32 numbers the first halves and the second.
    const __m512i step = _mm512_set1_epi32(0x00010001),
                  low = _mm512_add_epi16(
                      _mm512_set1_epi32(0x00200000),
                      _mm512_mullo_epi16(
                          step, _mm512_setr_epi32(0x00000000, 0x00010001, 0x00020002, 0x00030003,
                                                  0x00040004, 0x00050005, 0x00060006, 0x00070007,
                                                  0x00080008, 0x00090009, 0x000a000a, 0x000b000b,
                                                  0x000c000c, 0x000d000d, 0x000e000e, 0x000f000f))),
                  high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int c = 0; c < channels; c += DEPTH) {
        const int count = min_int(DEPTH, channels - c);
        const __mmask32 mask = count < DEPTH ? (__mmask32)((1u << count) - 1) : 0xffffffffu;
        uint16_t *first = pairs + c / SIDE * 2 * TILE, *second = first + 2 * TILE;
        for (int t = 0; t < KEYS; t += 2) {
            const uint16_t *rows = value + (int64_t)t * ld + c;
            const __m512i even = _mm512_maskz_loadu_epi16(mask, rows),
                          odd = _mm512_maskz_loadu_epi16(mask, rows + ld);
            _mm512_storeu_si512(first + t * SIDE, _mm512_permutex2var_epi16(even, low, odd));
            if (count > SIDE)
                _mm512_storeu_si512(second + t * SIDE, _mm512_permutex2var_epi16(even, high, odd));
        }
    }
}

// sums [16, 16 n_tiles] += p [16, 64] times the packed slab. p_low may be NULL.
INLINE void group_sums(float *sums, int ld, const uint16_t *p_high, const uint16_t *p_low,
                       const uint16_t *pairs, const int n_tiles)
{
    const size_t stride = (size_t)ld * sizeof *sums;
    complete_stores();
    _tile_loadd(0, sums, stride);
    if (n_tiles > 1)
        _tile_loadd(1, sums + SIDE, stride);
    if (n_tiles > 2)
        _tile_loadd(2, sums + 2 * SIDE, stride);
    if (n_tiles > 3)
        _tile_loadd(3, sums + 3 * SIDE, stride);
    for (int half = 0; half < 2; half++) {
        _tile_loadd(4, p_high + half * DEPTH, 2 * KEYS);
        if (p_low != NULL)
            _tile_loadd(5, p_low + half * DEPTH, 2 * KEYS);
        const uint16_t *b = pairs + half * TILE;
        _tile_loadd(6, b, 2 * DEPTH);
        _tile_dpbf16ps(0, 4, 6);
        if (p_low != NULL)
            _tile_dpbf16ps(0, 5, 6);
        if (n_tiles > 1) {
            _tile_loadd(7, b + 2 * TILE, 2 * DEPTH);
            _tile_dpbf16ps(1, 4, 7);
            if (p_low != NULL)
                _tile_dpbf16ps(1, 5, 7);
        }
        if (n_tiles > 2) {
            _tile_loadd(6, b + 4 * TILE, 2 * DEPTH);
            _tile_dpbf16ps(2, 4, 6);
            if (p_low != NULL)
                _tile_dpbf16ps(2, 5, 6);
        }
        if (n_tiles > 3) {
            _tile_loadd(7, b + 6 * TILE, 2 * DEPTH);
            _tile_dpbf16ps(3, 4, 7);
            if (p_low != NULL)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums, stride);
    if (n_tiles > 1)
        _tile_stored(1, sums + SIDE, stride);
    if (n_tiles > 2)
        _tile_stored(2, sums + 2 * SIDE, stride);
    if (n_tiles > 3)
        _tile_stored(3, sums + 3 * SIDE, stride);
}

// Slab i of the values' columns into its buffer.
AMX static void pack_slab(const Own *own, const AttendDims *d, const uint16_t *value, int ld, int i)
{
    const int c = i * SLAB * SIDE;
    pack_pairs(own->pairs[i % 2], value + c, ld, min_int(SLAB * SIDE, d->value_width - c));
}

// The first slab is packed already. The next one is packed before a slab is read: the matrix units
// wait for stores that are not in the cache yet.
AMX static void add_values(const Own *own, const AttendTile *tile, const AttendDims *d,
                           const uint16_t *value, int ld, bool by_high_alone)
{
    const int rows = attend_tile_rows(tile, d);
    const int n_slabs = ceil_div(d->value_width, SLAB * SIDE);
    for (int i = 0; i < n_slabs; i++) {
        const int c = i * SLAB * SIDE;
        const int n_tiles = ceil_div(min_int(SLAB * SIDE, d->value_width - c), SIDE);
        if (i + 1 < n_slabs)
            pack_slab(own, d, value, ld, i + 1);
        for (int g = 0; g < n_groups(rows); g++) {
            float *sums = tile->sums + (int64_t)g * SIDE * d->value_ld + c;
            const uint16_t *p_high = own->p_high + g * SIDE * KEYS,
                           *p_low = by_high_alone ? NULL : own->p_low + g * SIDE * KEYS,
                           *pairs = own->pairs[i % 2];
            switch (n_tiles) {
            case 4:
                group_sums(sums, d->value_ld, p_high, p_low, pairs, 4);
                break;
            case 3:
                group_sums(sums, d->value_ld, p_high, p_low, pairs, 3);
                break;
            case 2:
                group_sums(sums, d->value_ld, p_high, p_low, pairs, 2);
                break;
            default:
                group_sums(sums, d->value_ld, p_high, p_low, pairs, 1);
            }
        }
    }
}

// Decodes a quantized block: keys into work->key, the latent into own's two parts.
AMX static Latent decode_latent(const Own *own, const AttendWork *work, const KvBlock *block)
{
    const AttendDims *d = work->dims;
    const int ld = decoded_ld(d), width = d->cache_width;
    attend_decode_columns(work->key, &block->key_codes, 0, d->K * d->key_width);
    for (int c = 0; c < width; c += DEPTH) {
        float columns[DEPTH * KEYS], rows[DEPTH * KEYS];
        const int count = min_int(DEPTH, width - c);
        attend_decode_columns(columns, &block->value_codes, c, count);
        attend_transpose_columns(rows, DEPTH, columns, count);
        for (int t = 0; t < KEYS; t++) {
            __m512i high, low;
            split(&high, &low, load_floats(rows + t * DEPTH, count),
                  load_floats(rows + t * DEPTH + 16, count - 16));
            _mm512_storeu_si512(own->decoded_high + (int64_t)t * ld + c, high);
            _mm512_storeu_si512(own->decoded_low + (int64_t)t * ld + c, low);
        }
    }
    return (Latent){own->decoded_high, own->decoded_low, own->decoded_high + (KEYS - SIDE) * ld, ld,
                    ld};
}

AMX static void latent_block(const AttendWork *work, const AttendTile *tile, const KvBlock *block)
{
    const bool is_codes = block->kind == KV_CODES;
    const int rows = attend_tile_rows(tile, work->dims);
    // Floats are AVX-512's; so are codes where the rows are too few to pay for splitting them, and
    // products so small that a block takes longer to arrive than to be multiplied.
    if ((is_codes ? rows < MIN_ROWS_OF_CODES
                  : block->kind != KV_ROWS || block->type != KV_BFLOAT16) ||
        rows * work->dims->latent < MIN_PRODUCTS) {
        attend_avx512.block(work, tile, block);
        return;
    }
    const AttendDims *d = work->dims;
    const int steps = n_steps(d), column = d->value_column;
    Own own;
    place_own(&own, work->own, d, rows);
    const Latent latent =
        is_codes ? decode_latent(&own, work, block) : whole_steps(&own, d, block->value);
    pack_slab(&own, d, latent.high + column, latent.ld, 0);
    kv_fetch_slice(work->ahead);
    for (int g = 0; g < n_groups(rows); g++) {
        group_scores(&own, &latent, own.q + (int64_t)g * steps * 2 * TILE, steps);
        transpose_scores(work->scores + g * SIDE * KEYS, own.scores, rows - g * SIDE);
    }
    if (is_codes)
        attend_key_scores(work, tile, work->key, true);
    else
        attend_key_scores_bf16(work, tile, block, true);
    kv_fetch_slice(work->ahead);
    attend_softmax_avx512(tile, d, work->scores, block->key_factor, block->first, block->count);
    kv_fetch_slice(work->ahead);
    split_probabilities(&own, work->scores, rows);
    add_values(&own, tile, d, latent.high + column, latent.ld, false);
    if (latent.low != NULL) {
        pack_slab(&own, d, latent.low + column, latent.ld, 0);
        add_values(&own, tile, d, latent.low + column, latent.ld, true);
    }
}

// Linux gives the tiles' registers to processes that ask for them.
static bool has_amx(void)
{
    enum { LEAF = 7, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    static _Atomic int known = -1;
    if (known < 0) {
        unsigned a, b, c, features = 0, more_features = 0;
        const bool has_leaf = __get_cpuid_count(LEAF, 0, &a, &b, &c, &features) != 0 &&
                              __get_cpuid_count(LEAF, 1, &more_features, &b, &c, &a) != 0;
        const unsigned tiles = 1u << 24 | 1u << 22,
                       avx512_bf16 = 1u << 5; // AMX-TILE, AMX-BF16
        known = has_leaf && attend_has_avx512() && (features & tiles) == tiles &&
                (more_features & avx512_bf16) != 0 &&
                syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    }
    return known != 0;
}

// Without other dims than rotated ones, keys are not made of the latent: AVX-512's kernel serves.
static bool fits(const AttendDims *d)
{
    return d->latent > 0 && has_amx();
}

const AttendKernel attend_amx = {"AMX", 4, fits, own_floats, start, latent_block, finish};
#else
static bool fits(const AttendDims *dims)
{
    (void)dims;
    return false;
}

const AttendKernel attend_amx = {.fits = fits};
#endif
