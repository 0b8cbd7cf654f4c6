// The online softmax of a tile, for functions of different instruction sets to inline: see
// attend_tile.h. Private to infer/attention.
#ifndef MHA2MLA_INFER_ATTENTION_ATTEND_SOFTMAX_H
#define MHA2MLA_INFER_ATTENTION_ATTEND_SOFTMAX_H

#include "infer/attention/attend_tile.h"
#include "model/kernels/vexp.h"

#include <math.h>
#include <string.h>

// The largest of a row of scores.
static inline float attend_largest(const float *s)
{
    float lanes[ATTEND_LANES];
    memcpy(lanes, s, sizeof lanes);
    for (int j = ATTEND_LANES; j < ATTEND_KEYS; j += ATTEND_LANES)
#pragma omp simd
        for (int l = 0; l < ATTEND_LANES; l++)
            lanes[l] = s[j + l] > lanes[l] ? s[j + l] : lanes[l];
    float max = lanes[0];
    for (int l = 1; l < ATTEND_LANES; l++)
        max = lanes[l] > max ? lanes[l] : max;
    return max;
}

// Scores -> probabilities relative to `max`, added to `sums` lane by lane.
static inline void attend_exponentiate(float *restrict s, float *restrict sums, float max)
{
    float lanes[ATTEND_LANES];
    memcpy(lanes, sums, sizeof lanes);
    for (int j = 0; j < ATTEND_KEYS; j += ATTEND_LANES)
#pragma omp simd
        for (int l = 0; l < ATTEND_LANES; l++) {
            s[j + l] = vexp_to_88(s[j + l] - max);
            lanes[l] += s[j + l];
        }
    memcpy(sums, lanes, sizeof lanes);
}

// The row's maximum grew to `max`: what earlier blocks left shrinks. At the first block the old
// maximum is -infinity and the factor 0, on zeros.
static inline void attend_raise_maximum(float *restrict row_max, float *restrict row_sums,
                                        float *restrict sums, int width, float max)
{
    const float shrink = vexp(*row_max - max);
    *row_max = max;
    for (int l = 0; l < ATTEND_LANES; l++)
        row_sums[l] *= shrink;
#pragma omp simd
    for (int e = 0; e < width; e++)
        sums[e] *= shrink;
}

static inline void attend_scale(float *restrict s, const float *restrict factor)
{
#pragma omp simd
    for (int j = 0; j < ATTEND_KEYS; j++)
        s[j] *= factor[j];
}

__attribute__((always_inline)) static inline void attend_softmax_inline(const AttendTile *tile,
                                                                        const AttendDims *dims,
                                                                        float *scores,
                                                                        const float *key_factor,
                                                                        int first_key, int keys)
{
    const int rows = attend_tile_rows(tile, dims), width = dims->value_ld;
    for (int r = 0; r < rows; r++) {
        float *s = scores + (int64_t)r * ATTEND_KEYS,
              *row_sums = tile->row_sums + (int64_t)r * ATTEND_LANES;
        const int visible = min_int(tile->first + r % tile->n - first_key + 1, keys);
        if (visible <= 0) {
            memset(s, 0, ATTEND_KEYS * sizeof *s);
            continue;
        }
        if (key_factor != NULL)
            attend_scale(s, key_factor + r / (dims->G * tile->n) * ATTEND_KEYS);
        for (int j = visible; j < ATTEND_KEYS; j++)
            s[j] = -INFINITY;
        const float max = attend_largest(s);
        if (max > tile->row_max[r])
            attend_raise_maximum(&tile->row_max[r], row_sums, tile->sums + (int64_t)r * width,
                                 width, max);
        attend_exponentiate(s, row_sums, tile->row_max[r]);
    }
}

#endif
