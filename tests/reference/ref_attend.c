// Attention over the KV cache as what it stands for: keys and values of every head made of the
// widened blocks in double, the whole row of scores, its softmax, the weighted values.
#include "tests/reference/ref_attend.h"

#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>

// Keys and values of all heads that have their own: K, or H of the shared form.
typedef struct Expansion {
    const ModelShape *shape;
    const float *up_k, *up_v;
    int heads, rope, width; // rotated dims of a key and all of them, RoPE dims first
    double *key, *value;    // [tokens, heads, width] and [tokens, heads, E]
} Expansion;

static double up_project(const float *weight, int64_t row, const float *latent, int width)
{
    double sum = 0;
    for (int r = 0; r < width; r++)
        sum += (double)weight[row * width + r] * (double)latent[r];
    return sum;
}

// Token t of a block: keys [heads or 1][rope][64], factors [heads][64] or NULL.
static void expand_key(const Expansion *x, int64_t position, const float *key, const float *factor,
                       const float *latent, int t)
{
    const int nope = x->width - x->rope, in = shape_dim(x->shape, DIM_UP_INPUT);
    double *to = x->key + position * x->heads * x->width;
    for (int j = 0; j < x->heads; j++)
        for (int e = 0; e < x->width; e++) {
            const int from = shape_is_shared(x->shape) ? 0 : j;
            *to = e < x->rope ? (double)key[(from * x->rope + e) * KV_BLOCK_TOKENS + t]
                              : up_project(x->up_k, j * nope + e - x->rope, latent, in);
            *to++ *= factor != NULL ? (double)factor[j * KV_BLOCK_TOKENS + t] : 1;
        }
}

// Token t of a block: values [K][64][E] or latents [64][R].
static void expand_token(const Expansion *x, int64_t position, const float *key,
                         const float *factor, const float *value, int t)
{
    const ModelShape *s = x->shape;
    const int E = s->head_dim, R = shape_dim(s, DIM_LATENT), in = shape_dim(s, DIM_UP_INPUT);
    const float *latent = value + (int64_t)t * R;
    expand_key(x, position, key, factor, latent, t);
    for (int i = 0; i < x->heads * E; i++)
        x->value[position * x->heads * E + i] =
            shape_is_mla(s) ? up_project(x->up_v, i, latent + R - in, in)
                            : (double)value[((int64_t)(i / E) * KV_BLOCK_TOKENS + t) * E + i % E];
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
            expand_token(x, block.first + t, key, block.key_factor, value, t);
    }
    free(key);
    free(value);
}

// Head h of the query at `position`; p [position + 1] is scratch.
static void attend_head(float *out, const Expansion *x, const double *q, int h, int position,
                        double *p)
{
    const int E = x->shape->head_dim, j = h / (x->shape->n_heads / x->heads);
    double max = -INFINITY, sum = 0;
    for (int t = 0; t <= position; t++) {
        p[t] = 0;
        for (int e = 0; e < x->width; e++)
            p[t] += q[e] * x->key[((int64_t)t * x->heads + j) * x->width + e] / sqrt(E);
        max = fmax(max, p[t]);
    }
    for (int t = 0; t <= position; t++) {
        p[t] = exp(p[t] - max);
        sum += p[t];
    }
    for (int e = 0; e < E; e++) {
        double value = 0;
        for (int t = 0; t <= position; t++)
            value += p[t] / sum * x->value[((int64_t)t * x->heads + j) * E + e];
        out[e] = (float)value;
    }
}

static void attend_job(const AttendJob *job, const Expansion *x, int ld_q)
{
    const ModelShape *s = x->shape;
    const int H = s->n_heads, E = s->head_dim, rope = x->rope, nope = x->width - rope;
    double *p = ref_doubles(job->first + job->count), *q = ref_doubles(x->width);
    for (int i = 0; i < job->count; i++)
        for (int h = 0; h < H; h++) {
            const float *row = job->q + (int64_t)i * ld_q;
            for (int e = 0; e < x->width; e++)
                q[e] = (double)(e < rope ? row[h * rope + e] : row[H * rope + h * nope + e - rope]);
            attend_head(job->out + ((int64_t)i * H + h) * E, x, q, h, job->first + i, p);
        }
    free(p);
    free(q);
}

void ref_attend(const AttendJob *jobs, int n_jobs, int layer, const ModelShape *shape,
                const float *up_k, const float *up_v, int ld_q)
{
    const int E = shape->head_dim, heads = shape_up_heads(shape);
    const int rope = shape_is_mla(shape) ? 2 * shape->rope_pairs : E;
    const int width = shape_is_shared(shape) ? rope + E : E;
    for (int i = 0; i < n_jobs; i++) {
        const int n_tokens = jobs[i].first + jobs[i].count;
        const int64_t n = (int64_t)n_tokens * heads;
        const Expansion x = {
            shape, up_k, up_v, heads, rope, width, ref_doubles(n * width), ref_doubles(n * E)};
        expand(&x, jobs[i].sequence, layer, n_tokens);
        attend_job(&jobs[i], &x, ld_q);
        free(x.key);
        free(x.value);
    }
}
