// Groups of 64 elements of a tensor [heads, tokens, width] that share a scale and a zero, in the
// three layouts that the quantizers of KV caches use. Elements are numbered as they lie in memory.
//
//     NEIGHBOURS  group g: elements 64 g .. 64 g + 63        hqq axis 1, quanto axis 0
//     SPREAD      group g of G: elements g, g + G, g + 2 G   hqq axis 0
//     CHANNELS    64 rows of one channel; rows are heads * tokens. Group c * runs + r: channel c of
//                 rows 64 r .. 64 r + 63                     quanto axis -1
//
// The libraries refuse tensors that groups of 64 do not fill; here the last groups are short.
//
//     QuantGroups groups = quant_groups(SPREAD, n, width);
//     QuantSpan span = quant_group_span(&groups, quant_group_of(&groups, element));
#ifndef MHA2MLA_INFER_CACHE_QUANT_GROUPS_H
#define MHA2MLA_INFER_CACHE_QUANT_GROUPS_H

#include <stdint.h>

enum { QUANT_GROUP = 64 };

typedef enum QuantLayout { NEIGHBOURS, SPREAD, CHANNELS } QuantLayout;

typedef struct QuantGroups {
    QuantLayout layout;
    int64_t n;    // elements, a multiple of width, at least 1
    int width;    // channels of a row
    int64_t runs; // CHANNELS: groups of a channel
    int64_t count;
} QuantGroups;

// Elements first, first + stride, ...: `count` of them, 1 to 64.
typedef struct QuantSpan {
    int64_t first, stride;
    int count;
} QuantSpan;

static inline int64_t quant_group_ceil(int64_t n)
{
    return (n + QUANT_GROUP - 1) / QUANT_GROUP;
}

static inline QuantGroups quant_groups(QuantLayout layout, int64_t n, int width)
{
    QuantGroups groups = {.layout = layout, .n = n, .width = width};
    groups.runs = quant_group_ceil(n / width);
    groups.count = layout == CHANNELS ? width * groups.runs : quant_group_ceil(n);
    return groups;
}

static inline QuantSpan quant_group_span(const QuantGroups *groups, int64_t group)
{
    QuantSpan span = {.first = group * QUANT_GROUP, .stride = 1};
    int64_t count = groups->n - span.first;
    if (groups->layout == SPREAD) {
        span = (QuantSpan){.first = group, .stride = groups->count};
        count = (groups->n - 1 - group) / groups->count + 1;
    } else if (groups->layout == CHANNELS) {
        int64_t channel = group / groups->runs, row = group % groups->runs * QUANT_GROUP;
        span = (QuantSpan){.first = row * groups->width + channel, .stride = groups->width};
        count = groups->n / groups->width - row;
    }
    span.count = (int)(count < QUANT_GROUP ? count : QUANT_GROUP);
    return span;
}

static inline int64_t quant_group_of(const QuantGroups *groups, int64_t element)
{
    if (groups->layout == NEIGHBOURS)
        return element / QUANT_GROUP;
    if (groups->layout == SPREAD)
        return element % groups->count;
    int64_t row = element / groups->width, channel = element % groups->width;
    return channel * groups->runs + row / QUANT_GROUP;
}

// The group of element + 1, given the element's: divides once a row at most.
static inline int64_t quant_group_next(const QuantGroups *groups, int64_t element, int64_t group)
{
    if (groups->layout == NEIGHBOURS)
        return (element + 1) / QUANT_GROUP;
    int64_t step = groups->layout == SPREAD ? 1 : groups->runs;
    if (group + step < groups->count)
        return group + step;
    return groups->layout == SPREAD ? 0 : (element + 1) / groups->width / QUANT_GROUP;
}

// The elements of a group one behind the other, and codes back to their places.
static inline void quant_group_gather(float out[QUANT_GROUP], const float *values, QuantSpan span)
{
    for (int i = 0; i < span.count; i++)
        out[i] = values[span.first + i * span.stride];
}

static inline void quant_group_scatter(uint8_t *codes, const uint8_t group[QUANT_GROUP],
                                       QuantSpan span)
{
    for (int i = 0; i < span.count; i++)
        codes[span.first + i * span.stride] = group[i];
}

#endif
