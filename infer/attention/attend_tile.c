// A row's maximum and denominator over the blocks seen so far stand beside its weighted sums; a
// block whose scores exceed the maximum shrinks what the earlier ones left. Sums of a row are kept
// lane by lane and added up once at the end.
#include "infer/attention/attend_tile.h"

#include "base/simd.h"
#include "infer/attention/attend_softmax.h"
#include "model/kernels/tile.h"

#include <math.h>
#include <string.h>

enum { KEYS = ATTEND_KEYS, LANES = ATTEND_LANES };

// Floats of an accumulator's row: whole vectors, and not a multiple of 256 bytes, as the 16 rows of
// a tile would then compete for a few sets of the first cache.
static int accumulator_ld(int width)
{
    const int padded = tile_padded(width);
    return padded % 64 == 0 ? padded + TILE_WIDTH : padded;
}

AttendDims attend_expanded_dims(const ModelShape *s)
{
    const int heads = shape_up_heads(s), group = s->n_heads / heads;
    return (AttendDims){
        .H = s->n_heads,
        .K = heads,
        .G = group,
        .E = s->head_dim,
        .up_heads = heads,
        .up_group = group,
        .key_width = 2 * s->rope_pairs + shape_head_nope(s),
        .value_heads = heads,
        .cache_width = s->head_dim,
        .value_width = s->head_dim,
        .value_ld = accumulator_ld(s->head_dim),
        .scale = 1.0f / sqrtf((float)s->head_dim),
    };
}

AttendDims attend_dims(const ModelShape *s)
{
    AttendDims d = attend_expanded_dims(s);
    if (!shape_is_mla(s))
        return d;
    const int width = shape_dim(s, DIM_UP_INPUT);
    d.is_mla = true;
    d.K = shape_rope_heads(s);
    d.G = d.H / d.K;
    d.key_width = 2 * s->rope_pairs;
    d.nope = shape_head_nope(s);
    d.latent = d.nope > 0 ? width : 0;
    d.value_heads = 1;
    d.cache_width = shape_dim(s, DIM_LATENT);
    d.value_column = d.cache_width - width;
    d.value_width = width;
    d.value_ld = accumulator_ld(width);
    return d;
}

void attend_tile_start(const AttendTile *tile, const AttendDims *dims)
{
    const int rows = attend_tile_rows(tile, dims);
    memset(tile->sums, 0, (size_t)rows * (size_t)dims->value_ld * sizeof(float));
    memset(tile->row_sums, 0, (size_t)rows * LANES * sizeof(float));
    for (int r = 0; r < rows; r++)
        tile->row_max[r] = -INFINITY;
}

HOT void attend_tile_softmax(const AttendTile *tile, const AttendDims *dims, float *scores,
                             const float *key_factor, int first_key, int keys)
{
    attend_softmax_inline(tile, dims, scores, key_factor, first_key, keys);
}

// A part in which the row sees no key has the maximum -infinity and so the weight 0.
HOT void attend_tile_merge(float *restrict out, const AttendTile *tile, const AttendDims *dims,
                           int n_parts, int row)
{
    const int64_t part_rows = attend_part_rows(tile, dims);
    float max = -INFINITY, denominator = 0;
    for (int p = 0; p < n_parts; p++)
        max = fmaxf(max, tile->row_max[p * part_rows + row]);
    memset(out, 0, (size_t)dims->value_width * sizeof *out);
    for (int p = 0; p < n_parts; p++) {
        const int64_t at = p * part_rows + row;
        const float weight = vexp(tile->row_max[at] - max),
                    *sums = tile->sums + at * dims->value_ld;
        float sum = 0;
        for (int l = 0; l < LANES; l++)
            sum += tile->row_sums[at * LANES + l];
        denominator += weight * sum;
        for (int e = 0; e < dims->value_width; e++)
            out[e] += weight * sums[e];
    }
    const float inverse = 1.0f / denominator;
    for (int e = 0; e < dims->value_width; e++)
        out[e] *= inverse;
}
