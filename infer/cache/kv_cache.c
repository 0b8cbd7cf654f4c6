// Sequences over shared pages. See kv_cache.h.
#include "infer/cache/kv_cache.h"

#include "base/intmath.h"
#include "base/simd.h"
#include "infer/cache/kv_pool.h"
#include "model/kernels/half.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct KvCache {
    ModelShape shape;
    KvFormat format;
    KvPart key_part, value_part;
    int64_t key_bytes, layer_bytes; // of one layer in a page: keys; keys and values
    KvPool *pool;
};

struct KvSequence {
    KvCache *cache;
    KvPage **pages;  // [n_pages], page i holds positions 64 i to 64 i + 63
    int n_pages;     // those of reserved positions included
    int max_pages;   // that `pages` has room for
    int length;      // committed tokens
    int n_written[]; // [L] positions written, at least `length`
};

Status kv_cache_create(KvCache **out, const ModelShape *shape, const KvFormat *format,
                       int64_t max_bytes)
{
    TRY(kv_format_check(format, shape));
    CHECK(format->scheme == KV_PLAIN, "scheme %d", (int)format->scheme);
    KvPart key = kv_key_part(shape), value = kv_value_part(shape);
    const int64_t channel_bytes = (int64_t)KV_BLOCK_TOKENS * kv_type_bytes(format->type);
    int64_t key_bytes = kv_part_channels(key) * channel_bytes;
    int64_t layer_bytes = key_bytes + kv_part_channels(value) * channel_bytes;
    const int64_t page_bytes[N_KV_PAGE_KINDS] = {[KV_PAGE_ROWS] = shape->n_layers * layer_bytes};
    if (max_bytes > 0 && page_bytes[KV_PAGE_ROWS] > max_bytes)
        return fail(
            BAD_INPUT,
            "the KV cache may take %.2f MiB, and %d tokens of one sequence take %.2f; allow "
            "it more memory",
            (double)max_bytes / (1 << 20), KV_BLOCK_TOKENS,
            (double)page_bytes[KV_PAGE_ROWS] / (1 << 20));
    KvPool *pool;
    TRY(kv_pool_create(&pool, page_bytes, max_bytes));
    KvCache *cache = malloc(sizeof *cache);
    if (cache == NULL) {
        kv_pool_release(pool);
        return fail(FAILED, "KV cache: no memory");
    }
    *cache = (KvCache){*shape, *format, key, value, key_bytes, layer_bytes, pool};
    *out = cache;
    return OK;
}

void kv_cache_release(KvCache *cache)
{
    if (cache == NULL)
        return;
    kv_pool_release(cache->pool);
    free(cache);
}

int64_t kv_cache_bytes(const KvCache *cache)
{
    return kv_pool_bytes(cache->pool);
}

int64_t kv_cache_peak_bytes(const KvCache *cache)
{
    return kv_pool_peak_bytes(cache->pool);
}

// Room for n_pages pages in the list; the pages themselves are not taken.
static Status grow_list(KvSequence *s, int n_pages)
{
    if (n_pages <= s->max_pages)
        return OK;
    int max_pages = n_pages + n_pages / 2 + 4;
    KvPage **pages = realloc(s->pages, (size_t)max_pages * sizeof(KvPage *));
    if (pages == NULL)
        return fail(FAILED, "KV cache: no memory for a list of %d pages", max_pages);
    s->pages = pages;
    s->max_pages = max_pages;
    return OK;
}

Status kv_sequence_create(KvSequence **out, KvCache *cache)
{
    const size_t n_layers = (size_t)cache->shape.n_layers;
    KvSequence *s = calloc(1, sizeof *s + n_layers * sizeof s->n_written[0]);
    if (s == NULL)
        return fail(FAILED, "KV cache: no memory for a sequence");
    s->cache = cache;
    *out = s;
    return OK;
}

Status kv_sequence_fork(KvSequence **out, KvSequence *parent)
{
    KvSequence *s;
    Status status;
    TRY(kv_sequence_create(&s, parent->cache));
    int n_pages = ceil_div(parent->length, KV_BLOCK_TOKENS);
    TRY_GOTO(release, grow_list(s, n_pages));
    for (int i = 0; i < n_pages; i++) {
        s->pages[i] = parent->pages[i];
        kv_page_retain(s->pages[i]);
    }
    s->n_pages = n_pages;
    s->length = parent->length;
    for (int layer = 0; layer < parent->cache->shape.n_layers; layer++)
        s->n_written[layer] = parent->length;
    *out = s;
    return OK;
release:
    kv_sequence_release(s);
    return status;
}

void kv_sequence_release(KvSequence *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < s->n_pages; i++)
        kv_pool_drop(s->cache->pool, s->pages[i]);
    free(s->pages);
    free(s);
}

int kv_sequence_length(const KvSequence *s)
{
    return s->length;
}

// The view of what a layer has in a page.
static KvBlock rows_block(const KvCache *cache, KvPage *page, int layer, int first, int count)
{
    const unsigned char *rows = page->bytes + layer * cache->layer_bytes;
    return (KvBlock){.kind = KV_ROWS,
                     .first = first,
                     .count = count,
                     .key_part = cache->key_part,
                     .value_part = cache->value_part,
                     .type = cache->format.type,
                     .key = rows,
                     .value = rows + cache->key_bytes};
}

// Copies the first `count` tokens of a layer and nothing behind them, where another sequence may be
// writing.
static void copy_rows(KvPage *to, const KvPage *from, const KvCache *cache, int layer, int count)
{
    const size_t number = (size_t)kv_type_bytes(cache->format.type);
    const size_t channel_bytes = KV_BLOCK_TOKENS * number;
    size_t at = (size_t)(layer * cache->layer_bytes);
    for (int c = 0; c < kv_part_channels(cache->key_part); c++, at += channel_bytes)
        memcpy(to->bytes + at, from->bytes + at, (size_t)count * number);
    const KvPart part = cache->value_part;
    for (int h = 0; h < part.n_heads; h++, at += part.width * channel_bytes)
        memcpy(to->bytes + at, from->bytes + at, (size_t)count * part.width * number);
}

Status kv_sequence_reserve(KvSequence *s, int n_tokens)
{
    CHECK(n_tokens >= 0 && n_tokens < INT_MAX - KV_BLOCK_TOKENS - s->length, "%d tokens after %d",
          n_tokens, s->length);
    KvCache *cache = s->cache;
    int last = s->length / KV_BLOCK_TOKENS; // the page that is written next
    bool is_shared = n_tokens > 0 && last < s->n_pages && !kv_page_is_exclusive(s->pages[last]);
    int n_pages = ceil_div(s->length + n_tokens, KV_BLOCK_TOKENS);
    int n_new = (n_pages > s->n_pages ? n_pages - s->n_pages : 0) + (is_shared ? 1 : 0);
    TRY(grow_list(s, s->n_pages + n_new));
    TRY(kv_pool_take(cache->pool, KV_PAGE_ROWS, n_new, s->pages + s->n_pages));
    if (is_shared) {
        KvPage *shared = s->pages[last], *copy = s->pages[s->n_pages + --n_new];
        for (int layer = 0; layer < cache->shape.n_layers; layer++)
            copy_rows(copy, shared, cache, layer,
                      min_int(s->n_written[layer] - last * KV_BLOCK_TOKENS, KV_BLOCK_TOKENS));
        s->pages[last] = copy;
        kv_pool_drop(cache->pool, shared);
    }
    s->n_pages += n_new;
    return OK;
}

// out [n_channels][64] from the slot of the first token on, in [n, n_channels].
HOT static void write_channels_bfloat16(uint16_t *restrict out, const float *restrict in, int ld_in,
                                        int n_channels, int n)
{
    for (int c = 0; c < n_channels; c++)
        for (int t = 0; t < n; t++)
            out[(int64_t)c * KV_BLOCK_TOKENS + t] = half_f32_to_bf16(in[(int64_t)t * ld_in + c]);
}

static void write_channels_float32(float *restrict out, const float *restrict in, int ld_in,
                                   int n_channels, int n)
{
    for (int c = 0; c < n_channels; c++)
        for (int t = 0; t < n; t++)
            out[(int64_t)c * KV_BLOCK_TOKENS + t] = in[(int64_t)t * ld_in + c];
}

HOT static void write_row_bfloat16(uint16_t *restrict out, const float *restrict in, int width)
{
    for (int i = 0; i < width; i++)
        out[i] = half_f32_to_bf16(in[i]);
}

// n tokens of one page and layer, from slot `slot` on.
static void write_rows(const KvCache *cache, unsigned char *rows, int slot, const float *key,
                       int ld_key, const float *value, int ld_value, int n)
{
    const bool is_float = cache->format.type == KV_FLOAT32;
    const int n_channels = kv_part_channels(cache->key_part);
    if (is_float)
        write_channels_float32((float *)rows + slot, key, ld_key, n_channels, n);
    else
        write_channels_bfloat16((uint16_t *)rows + slot, key, ld_key, n_channels, n);
    const KvPart part = cache->value_part;
    unsigned char *values = rows + cache->key_bytes;
    for (int h = 0; h < part.n_heads; h++)
        for (int t = 0; t < n; t++) {
            int64_t at = ((int64_t)h * KV_BLOCK_TOKENS + slot + t) * part.width;
            const float *row = value + (int64_t)t * ld_value + h * part.width;
            if (is_float)
                memcpy((float *)values + at, row, (size_t)part.width * sizeof *row);
            else
                write_row_bfloat16((uint16_t *)values + at, row, part.width);
        }
}

void kv_write(KvSequence *s, int layer, const float *key, int ld_key, const float *value,
              int ld_value, int n)
{
    CHECK(layer >= 0 && layer < s->cache->shape.n_layers, "layer %d", layer);
    CHECK(s->n_written[layer] == s->length, "layer %d is written twice before a commit", layer);
    CHECK(n >= 0 && s->length + n <= s->n_pages * KV_BLOCK_TOKENS,
          "%d tokens after %d, room is reserved for %d", n, s->length,
          s->n_pages * KV_BLOCK_TOKENS);
    for (int done = 0; done < n;) {
        int position = s->length + done, slot = position % KV_BLOCK_TOKENS;
        int count = min_int(KV_BLOCK_TOKENS - slot, n - done);
        unsigned char *page = s->pages[position / KV_BLOCK_TOKENS]->bytes;
        write_rows(s->cache, page + layer * s->cache->layer_bytes, slot,
                   key + (int64_t)done * ld_key, ld_key, value + (int64_t)done * ld_value, ld_value,
                   count);
        done += count;
    }
    s->n_written[layer] = s->length + n;
}

Status kv_sequence_commit(KvSequence *s, int n_tokens)
{
    for (int layer = 0; layer < s->cache->shape.n_layers; layer++)
        CHECK(s->n_written[layer] == s->length + n_tokens,
              "layer %d has %d positions of %d written", layer, s->n_written[layer],
              s->length + n_tokens);
    s->length += n_tokens;
    return OK;
}

Status kv_sequence_end_prompt(KvSequence *s)
{
    CHECK(s->cache->format.scheme == KV_PLAIN, "scheme %d", (int)s->cache->format.scheme);
    return OK;
}

int kv_n_blocks(const KvSequence *s, int n_tokens)
{
    CHECK(n_tokens <= s->n_pages * KV_BLOCK_TOKENS, "%d tokens of at most %d", n_tokens,
          s->n_pages * KV_BLOCK_TOKENS);
    return ceil_div(n_tokens, KV_BLOCK_TOKENS);
}

KvBlock kv_block(const KvSequence *s, int layer, int index)
{
    int first = index * KV_BLOCK_TOKENS, n_behind = s->n_written[layer] - first;
    CHECK(index >= 0 && n_behind > 0, "block %d of layer %d with %d positions", index, layer,
          s->n_written[layer]);
    return rows_block(s->cache, s->pages[index], layer, first, min_int(n_behind, KV_BLOCK_TOKENS));
}
