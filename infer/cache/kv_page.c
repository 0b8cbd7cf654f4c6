// Reading and writing pages of a KV cache. See kv_page.h.
#include "infer/cache/kv_page.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "model/kernels/half.h"

#include <string.h>

enum { T = KV_BLOCK_TOKENS };

KvPageLayout kv_page_layout(const ModelShape *shape, const KvFormat *format)
{
    KvPageLayout layout = {.format = *format,
                           .n_layers = shape->n_layers,
                           .key = kv_key_part(shape),
                           .value = kv_value_part(shape),
                           .n_factors = shape_key_factors(shape)};
    // 64 numbers are whole cache lines, so that every layer and part begins on one, unpadded.
    const int64_t channel_bytes = T * kv_type_bytes(format->type);
    layout.rows_key_bytes = kv_part_channels(layout.key) * channel_bytes;
    layout.rows_bytes = layout.rows_key_bytes + kv_part_channels(layout.value) * channel_bytes;
    if (format->scheme == KV_PLAIN)
        return layout;
    layout.codes_key_bytes = kv_codes_packed_bytes(layout.key, format->key_bits);
    layout.codes_bytes =
        layout.codes_key_bytes + kv_codes_packed_bytes(layout.value, format->value_bits);
    layout.scales_bytes = kv_codes_scales_bytes(layout.key) + kv_codes_scales_bytes(layout.value);
    layout.key_grouping = kv_codes_grouping(format, layout.key);
    layout.value_grouping = kv_codes_grouping(format, layout.value);
    return layout;
}

// Of a layer, without factors.
static int64_t numbers_bytes(const KvPageLayout *layout, KvPageKind kind)
{
    return kind == KV_PAGE_ROWS ? layout->rows_bytes : layout->codes_bytes + layout->scales_bytes;
}

static int64_t factors_bytes(const KvPageLayout *layout)
{
    return (int64_t)layout->n_factors * T * (int64_t)sizeof(float);
}

int64_t kv_page_bytes(const KvPageLayout *layout, KvPageKind kind)
{
    const int64_t layer = numbers_bytes(layout, kind);
    if (layer == 0)
        return 0;
    return layout->n_layers * (layer + factors_bytes(layout));
}

// Where a layer's factors begin, behind the numbers of all layers; these are whole floats.
static int64_t factors_at(const KvPageLayout *layout, KvPageKind kind, int layer)
{
    return layout->n_layers * numbers_bytes(layout, kind) + layer * factors_bytes(layout);
}

// 64 codes take 16, 24, 32 or 64 bytes. Scales of 2 bytes between them would move the next layer's
// codes off these multiples, so the codes of all layers come first.
static KvBlock codes_block(const KvPageLayout *layout, KvPage *page, int layer)
{
    uint8_t *packed = page->bytes + layer * layout->codes_bytes;
    uint8_t *scales =
        page->bytes + layout->n_layers * layout->codes_bytes + layer * layout->scales_bytes;
    KvBlock block = {.key_part = layout->key, .value_part = layout->value, .count = T};
    block.key_codes = kv_codes_at(packed, (uint16_t *)scales, layout->key, layout->format.key_bits,
                                  layout->key_grouping);
    block.value_codes = kv_codes_at(
        packed + layout->codes_key_bytes, (uint16_t *)(scales + kv_codes_scales_bytes(layout->key)),
        layout->value, layout->format.value_bits, layout->value_grouping);
    bool is_per_channel =
        layout->key_grouping == KV_PER_CHANNEL && layout->value_grouping == KV_PER_CHANNEL;
    block.kind = is_per_channel ? KV_CODES : KV_GROUPS;
    return block;
}

static KvBlock rows_block(const KvPageLayout *layout, KvPage *page, int layer)
{
    const unsigned char *rows = page->bytes + layer * layout->rows_bytes;
    return (KvBlock){.kind = KV_ROWS,
                     .count = T,
                     .key_part = layout->key,
                     .value_part = layout->value,
                     .type = layout->format.type,
                     .key = rows,
                     .value = rows + layout->rows_key_bytes};
}

KvBlock kv_page_block(const KvPageLayout *layout, KvPage *page, int layer)
{
    // Pages of a plain format are not asked: their header would be one more miss per block.
    const bool is_coded = layout->format.scheme != KV_PLAIN && page->kind == KV_PAGE_CODES;
    KvBlock block = is_coded ? codes_block(layout, page, layer) : rows_block(layout, page, layer);
    const int64_t at = factors_at(layout, is_coded ? KV_PAGE_CODES : KV_PAGE_ROWS, layer);
    if (layout->n_factors > 0)
        block.key_factor = (const float *)(const void *)(page->bytes + at);
    return block;
}

// out [n_channels][64] from the slot of the first token on, in [n, n_channels]. Tokens are the
// inner loop: a channel's are neighbours in `out`, and the at most 64 lines that they come from
// serve the next channels from the first cache.
HOT static void write_channels_bfloat16(uint16_t *restrict out, const float *restrict in, int ld_in,
                                        int n_channels, int n)
{
    for (int c = 0; c < n_channels; c++)
        for (int t = 0; t < n; t++)
            out[(int64_t)c * T + t] = half_f32_to_bf16(in[(int64_t)t * ld_in + c]);
}

static void write_channels_float32(float *restrict out, const float *restrict in, int ld_in,
                                   int n_channels, int n)
{
    for (int c = 0; c < n_channels; c++)
        for (int t = 0; t < n; t++)
            out[(int64_t)c * T + t] = in[(int64_t)t * ld_in + c];
}

HOT static void write_row_bfloat16(uint16_t *restrict out, const float *restrict in, int width)
{
    for (int i = 0; i < width; i++)
        out[i] = half_f32_to_bf16(in[i]);
}

static void write_value(const KvPageLayout *layout, unsigned char *values, int slot,
                        const float *value, int ld_value, int n)
{
    const KvPart part = layout->value;
    for (int h = 0; h < part.n_heads; h++)
        for (int t = 0; t < n; t++) {
            int64_t at = ((int64_t)h * T + slot + t) * part.width;
            const float *row = value + (int64_t)t * ld_value + h * part.width;
            if (layout->format.type == KV_FLOAT32)
                memcpy((float *)values + at, row, (size_t)part.width * sizeof *row);
            else
                write_row_bfloat16((uint16_t *)values + at, row, part.width);
        }
}

void kv_page_write(const KvPageLayout *layout, KvPage *page, int layer, int slot, const float *key,
                   int ld_key, const float *value, int ld_value, int n)
{
    unsigned char *rows = page->bytes + layer * layout->rows_bytes;
    const int n_channels = kv_part_channels(layout->key);
    if (layout->format.type == KV_FLOAT32)
        write_channels_float32((float *)rows + slot, key, ld_key, n_channels, n);
    else
        write_channels_bfloat16((uint16_t *)rows + slot, key, ld_key, n_channels, n);
    write_value(layout, rows + layout->rows_key_bytes, slot, value, ld_value, n);
    float *factors = (float *)(void *)(page->bytes + factors_at(layout, KV_PAGE_ROWS, layer));
    write_channels_float32(factors + slot, value + kv_part_channels(layout->value), ld_value,
                           layout->n_factors, n);
}

void kv_page_copy(const KvPageLayout *layout, KvPage *to, const KvPage *from, int layer, int count)
{
    const size_t number = (size_t)kv_type_bytes(layout->format.type), channel_bytes = T * number;
    size_t at = (size_t)(layer * layout->rows_bytes);
    for (int c = 0; c < kv_part_channels(layout->key); c++, at += channel_bytes)
        memcpy(to->bytes + at, from->bytes + at, (size_t)count * number);
    const KvPart part = layout->value;
    for (int h = 0; h < part.n_heads; h++, at += part.width * channel_bytes)
        memcpy(to->bytes + at, from->bytes + at, (size_t)count * part.width * number);
    at = (size_t)factors_at(layout, KV_PAGE_ROWS, layer);
    for (int j = 0; j < layout->n_factors; j++, at += T * sizeof(float))
        memcpy(to->bytes + at, from->bytes + at, (size_t)count * sizeof(float));
}

// Keys and values are quantized one after the other in the same scratch.
static KvPart larger_part(const KvPageLayout *layout)
{
    bool is_key = kv_part_channels(layout->key) > kv_part_channels(layout->value);
    return is_key ? layout->key : layout->value;
}

int64_t kv_page_scratch_bytes(const KvPageLayout *layout)
{
    KvPart part = larger_part(layout);
    return (int64_t)kv_part_channels(part) * T * (int64_t)sizeof(float) +
           kv_codes_scratch_bytes(part);
}

static float number_at(const void *numbers, KvType type, int64_t at)
{
    return type == KV_FLOAT32 ? ((const float *)numbers)[at]
                              : half_bf16_to_f32(((const uint16_t *)numbers)[at]);
}

void kv_page_quantize(const KvPageLayout *layout, KvPage *codes, KvPage *rows, int layer,
                      void *scratch)
{
    const KvBlock from = kv_page_block(layout, rows, layer);
    const KvBlock to = kv_page_block(layout, codes, layer);
    // [heads][64][width] of either part: the libraries' order of elements, which decides their
    // groups.
    float *tensor = scratch;
    void *rest = tensor + (int64_t)kv_part_channels(larger_part(layout)) * T;
    const int width = layout->key.width;
    for (int64_t c = 0; c < kv_part_channels(layout->key); c++)
        for (int t = 0; t < T; t++)
            tensor[(c / width * T + t) * width + c % width] =
                number_at(from.key, from.type, c * T + t);
    kv_codes_quantize(&to.key_codes, layout->key, tensor, &layout->format, rest);
    for (int64_t i = 0; i < (int64_t)kv_part_channels(layout->value) * T; i++)
        tensor[i] = number_at(from.value, from.type, i);
    kv_codes_quantize(&to.value_codes, layout->value, tensor, &layout->format, rest);
    memcpy(codes->bytes + factors_at(layout, KV_PAGE_CODES, layer),
           rows->bytes + factors_at(layout, KV_PAGE_ROWS, layer), (size_t)factors_bytes(layout));
}
