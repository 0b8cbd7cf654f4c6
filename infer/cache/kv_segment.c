// Tensors of a quantized beginning. See kv_segment.h. Codes are packed in runs of 64 as they lie in
// the tensor, so that a block's are unpacked alone.
#include "infer/cache/kv_segment.h"

#include "base/intmath.h"
#include "infer/cache/code_pack.h"
#include "infer/cache/quantize_hqq.h"
#include "infer/cache/quantize_quanto.h"

#include <stdlib.h>

// One part of a layer.
typedef struct Tensor {
    KvPart part;
    int bits;
    QuantGroups groups;
    float *scale, *zero; // [groups.count]
    uint8_t *packed;     // [runs][8 bits]
} Tensor;

struct KvSegment {
    KvFormat format;
    int n_tokens;
    int64_t size_bytes; // of memory
    atomic_int n_references;
    unsigned char *memory; // of all tensors: scales and zeros, then codes
    Tensor tensors[];      // [L][2]: keys, values
};

static int64_t n_runs(const Tensor *t)
{
    return (t->groups.n + CODE_RUN - 1) / CODE_RUN;
}

static Tensor describe(const KvFormat *f, KvPart part, int bits, int n_tokens)
{
    int64_t n = (int64_t)kv_part_channels(part) * n_tokens;
    QuantGroups groups = f->scheme == KV_HQQ ? hqq_groups(f->axis, n, part.width)
                                             : quanto_groups(f->axis, n, part.width);
    return (Tensor){.part = part, .bits = bits, .groups = groups};
}

static int64_t tensor_bytes(const Tensor *t)
{
    return t->groups.count * 2 * (int64_t)sizeof(float) + n_runs(t) * code_bytes(CODE_RUN, t->bits);
}

// Floats of all tensors come before the codes, whose sizes are not multiples of 4.
static void place(KvSegment *segment, int n_tensors)
{
    float *floats = (float *)(void *)segment->memory;
    for (int i = 0; i < n_tensors; i++) {
        Tensor *t = &segment->tensors[i];
        t->scale = floats;
        t->zero = floats + t->groups.count;
        floats += 2 * t->groups.count;
    }
    uint8_t *packed = (uint8_t *)floats;
    for (int i = 0; i < n_tensors; i++) {
        segment->tensors[i].packed = packed;
        packed += n_runs(&segment->tensors[i]) * code_bytes(CODE_RUN, segment->tensors[i].bits);
    }
}

Status kv_segment_create(KvSegment **out, const KvPageLayout *layout, KvPool *pool, int n_tokens)
{
    const KvFormat *f = &layout->format;
    const int n_tensors = 2 * layout->n_layers;
    KvSegment *segment = calloc(1, sizeof *segment + (size_t)n_tensors * sizeof(Tensor));
    if (segment == NULL)
        return fail(FAILED, "KV cache: no memory");
    segment->format = *f;
    segment->n_tokens = n_tokens;
    atomic_init(&segment->n_references, 1);
    for (int i = 0; i < n_tensors; i++) {
        segment->tensors[i] = i % 2 == 0 ? describe(f, layout->key, f->key_bits, n_tokens)
                                         : describe(f, layout->value, f->value_bits, n_tokens);
        segment->size_bytes += tensor_bytes(&segment->tensors[i]);
    }
    Status status;
    TRY_GOTO(free_segment, kv_pool_charge(pool, segment->size_bytes));
    segment->memory = malloc((size_t)segment->size_bytes);
    if (segment->memory == NULL) {
        status = fail(FAILED, "KV cache: no memory to quantize %d tokens in", n_tokens);
        goto uncharge;
    }
    place(segment, n_tensors);
    *out = segment;
    return OK;
uncharge:
    kv_pool_uncharge(pool, segment->size_bytes);
free_segment:
    free(segment);
    return status;
}

int64_t kv_segment_scratch_bytes(const KvSegment *segment)
{
    // Keys and values of layer 0 stand for all layers.
    return max_int64(segment->tensors[0].groups.n, segment->tensors[1].groups.n);
}

static void quantize(const Tensor *t, const float *values, const KvFormat *f, uint8_t *codes)
{
    const bool in_bfloat16 = f->type == KV_BFLOAT16;
    if (f->scheme == KV_HQQ)
        quantize_hqq(codes, t->scale, t->zero, values, &t->groups, t->bits, in_bfloat16);
    else
        quantize_quanto(codes, t->scale, t->zero, values, &t->groups, t->bits, in_bfloat16);
    for (int64_t run = 0; run < n_runs(t); run++) {
        uint8_t filled[CODE_RUN] = {0}; // the last run may be short
        const uint8_t *of_run = codes + run * CODE_RUN;
        for (int i = 0; i < CODE_RUN && run * CODE_RUN + i < t->groups.n; i++)
            filled[i] = of_run[i];
        code_pack(t->packed + run * code_bytes(CODE_RUN, t->bits), filled, CODE_RUN, t->bits);
    }
}

void kv_segment_quantize(KvSegment *segment, int layer, const float *key, const float *value,
                         void *scratch)
{
    quantize(&segment->tensors[2 * layer], key, &segment->format, scratch);
    quantize(&segment->tensors[2 * layer + 1], value, &segment->format, scratch);
}

// Elements first .. first + count - 1 of the tensor, all of one run.
static void read_run(float values[CODE_RUN], const Tensor *t, const KvFormat *f, int64_t first,
                     int count)
{
    const bool in_bfloat16 = f->type == KV_BFLOAT16;
    const int64_t run = first / CODE_RUN;
    uint8_t codes[CODE_RUN];
    code_unpack(codes, t->packed + run * code_bytes(CODE_RUN, t->bits), CODE_RUN, t->bits);
    const uint8_t *wanted = codes + first % CODE_RUN;
    if (f->scheme == KV_HQQ)
        dequantize_hqq(values, wanted, t->scale, t->zero, &t->groups, first, count, in_bfloat16);
    else
        dequantize_quanto(values, wanted, t->scale, t->zero, &t->groups, first, count, in_bfloat16);
}

// Tokens from `token` on of a head: numbers of a token are `channel_stride` apart in `out`, tokens
// `token_stride`.
static void read_head(float *out, int channel_stride, int token_stride, const Tensor *t,
                      const KvFormat *f, int64_t first, int64_t count)
{
    for (int64_t done = 0; done < count;) {
        int64_t at = first + done, left_in_run = CODE_RUN - at % CODE_RUN;
        int n = (int)(count - done < left_in_run ? count - done : left_in_run);
        float values[CODE_RUN];
        read_run(values, t, f, at, n);
        for (int i = 0; i < n; i++) {
            int64_t token = (done + i) / t->part.width, channel = (done + i) % t->part.width;
            out[token * token_stride + channel * channel_stride] = values[i];
        }
        done += n;
    }
}

void kv_segment_read(float *key, float *value, const KvSegment *segment, int layer, int first,
                     int count)
{
    for (int which = 0; which < 2; which++) {
        const Tensor *t = &segment->tensors[2 * layer + which];
        const int width = t->part.width, T = KV_BLOCK_TOKENS;
        for (int64_t h = 0; h < t->part.n_heads; h++) {
            int64_t element = (h * segment->n_tokens + first) * width;
            if (which == 0)
                read_head(key + h * width * T, T, 1, t, &segment->format, element,
                          (int64_t)count * width);
            else
                read_head(value + h * width * T, 1, width, t, &segment->format, element,
                          (int64_t)count * width);
        }
    }
}

int kv_segment_tokens(const KvSegment *segment)
{
    return segment->n_tokens;
}

void kv_segment_retain(KvSegment *segment)
{
    atomic_fetch_add_explicit(&segment->n_references, 1, memory_order_relaxed);
}

void kv_segment_drop(KvSegment *segment, KvPool *pool)
{
    if (segment == NULL ||
        atomic_fetch_sub_explicit(&segment->n_references, 1, memory_order_acq_rel) > 1)
        return;
    kv_pool_uncharge(pool, segment->size_bytes);
    free(segment->memory);
    free(segment);
}
