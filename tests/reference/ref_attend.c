// Attention over the KV cache as what it stands for: keys and values of every head made of the
// widened blocks in double, the whole row of scores, its softmax, the weighted values.
#include "tests/reference/ref_attend.h"

#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>

// A token's keys and values, [K, E] each, RoPE dims first.
typedef struct Expansion {
    const ModelShape *shape;
    const float *up_k, *up_v;
    double *key, *value; // [tokens, K E]
} Expansion;

static double up_project(const float *weight, int64_t row, const float *latent, int width)
{
    double sum = 0;
    for (int r = 0; r < width; r++)
        sum += (double)weight[row * width + r] * (double)latent[r];
    return sum;
}

// Token t of a block: keys [K][key width][64], values [K][64][E] or latents [64][R].
static void expand_token(const Expansion *x, int64_t position, const float *key, const float *value,
                         int t)
{
    const ModelShape *s = x->shape;
    const int K = s->n_kv_heads, E = s->head_dim, T = KV_BLOCK_TOKENS;
    const int rope = shape_is_mla(s) ? 2 * s->rope_pairs : E, R = shape_dim(s, DIM_LATENT);
    const int width = shape_dim(s, DIM_UP_INPUT), column = R - width;
    for (int i = 0; i < K * E; i++) {
        const int j = i / E, e = i % E;
        double *to_key = &x->key[position * K * E + i], *to_value = &x->value[position * K * E + i];
        if (e < rope)
            *to_key = (double)key[(j * rope + e) * T + t];
        else
            *to_key = up_project(x->up_k, j * (E - rope) + e - rope, value + (int64_t)t * R, width);
        if (shape_is_mla(s))
            *to_value = up_project(x->up_v, i, value + (int64_t)t * R + column, width);
        else
            *to_value = (double)value[((int64_t)j * T + t) * E + e];
    }
}

static void expand(const Expansion *x, const KvSequence *sequence, int layer, int n_tokens)
{
    const KvPart key_part = kv_key_part(x->shape), value_part = kv_value_part(x->shape);
    float *key = ref_floats((int64_t)kv_part_channels(key_part) * KV_BLOCK_TOKENS);
    float *value = ref_floats((int64_t)kv_part_channels(value_part) * KV_BLOCK_TOKENS);
    for (int i = 0; i < kv_n_blocks(sequence, n_tokens); i++) {
        const KvBlock block = kv_block(sequence, layer, i);
        kv_block_widen(&block, key, value);
        for (int t = 0; t < block.count && block.first + t < n_tokens; t++)
            expand_token(x, block.first + t, key, value, t);
    }
    free(key);
    free(value);
}

// Head h of the query at `position`; p [position + 1] is scratch.
static void attend_head(float *out, const Expansion *x, const double *q, int h, int position,
                        double *p)
{
    const int K = x->shape->n_kv_heads, E = x->shape->head_dim, G = x->shape->n_heads / K;
    double max = -INFINITY, sum = 0;
    for (int t = 0; t <= position; t++) {
        p[t] = 0;
        for (int e = 0; e < E; e++)
            p[t] += q[e] * x->key[((int64_t)t * K + h / G) * E + e] / sqrt(E);
        max = fmax(max, p[t]);
    }
    for (int t = 0; t <= position; t++) {
        p[t] = exp(p[t] - max);
        sum += p[t];
    }
    for (int e = 0; e < E; e++) {
        double value = 0;
        for (int t = 0; t <= position; t++)
            value += p[t] / sum * x->value[((int64_t)t * K + h / G) * E + e];
        out[e] = (float)value;
    }
}

static void attend_job(const AttendJob *job, const Expansion *x, int ld_q)
{
    const ModelShape *s = x->shape;
    const int H = s->n_heads, E = s->head_dim, rope = shape_is_mla(s) ? 2 * s->rope_pairs : E;
    double *p = ref_doubles(job->first + job->count), *q = ref_doubles(E);
    for (int i = 0; i < job->count; i++)
        for (int h = 0; h < H; h++) {
            const float *row = job->q + (int64_t)i * ld_q;
            for (int e = 0; e < E; e++)
                q[e] = (double)(e < rope ? row[h * rope + e]
                                         : row[H * rope + h * (E - rope) + e - rope]);
            attend_head(job->out + ((int64_t)i * H + h) * E, x, q, h, job->first + i, p);
        }
    free(p);
    free(q);
}

void ref_attend(const AttendJob *jobs, int n_jobs, int layer, const ModelShape *shape,
                const float *up_k, const float *up_v, int ld_q)
{
    const int64_t channels = (int64_t)shape->n_kv_heads * shape->head_dim;
    for (int i = 0; i < n_jobs; i++) {
        const int n_tokens = jobs[i].first + jobs[i].count;
        const Expansion x = {shape, up_k, up_v, ref_doubles(n_tokens * channels),
                             ref_doubles(n_tokens * channels)};
        expand(&x, jobs[i].sequence, layer, n_tokens);
        attend_job(&jobs[i], &x, ld_q);
        free(x.key);
        free(x.value);
    }
}
