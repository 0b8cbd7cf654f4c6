// Sequences over shared pages. See kv_cache.h.
#include "infer/cache/kv_cache.h"

#include "base/intmath.h"
#include "infer/cache/kv_page.h"
#include "infer/cache/kv_requantize.h"

#include <limits.h>
#include <omp.h>
#include <stdlib.h>

struct KvCache {
    ModelShape shape;
    KvPageLayout layout;
    KvPool *pool;
    bool is_passing; // pages have one layer, that of the last kv_write()
};

// pages: [0, n_coded) codes | [n_coded, ...) rows, the last one incomplete or only reserved
// With the reference policy, once the prompt has ended, n_coded pages are NULL: a segment holds
// their positions and some of the next page's. A branch's pages begin with NULL too: the parent has
// those positions.
struct KvSequence {
    KvCache *cache;
    KvSequence *parent; // of a branch, borrowed; else NULL
    KvPage **pages;     // [n_pages], page i holds positions 64 i to 64 i + 63
    int n_pages;        // those of reserved positions included
    int max_pages;      // that `pages` has room for
    int n_coded;        // complete pages at the beginning that are quantized
    KvSegment *segment; // reference policy: the quantized beginning; NULL before the prompt's end
    int length;         // committed tokens
    KvPage *spares;     // list of pages of codes, reserved for the next commit
    int n_spares;       //
    int n_written[];    // [L], of a passing cache [1]: positions written, at least `length`
};

static Status create(KvCache **out, const ModelShape *shape, const KvFormat *format,
                     int64_t max_bytes, bool is_passing)
{
    TRY(kv_format_check(format, shape));
    KvPageLayout layout = kv_page_layout(shape, format);
    if (is_passing)
        layout.n_layers = 1;
    const int64_t page_bytes[N_KV_PAGE_KINDS] = {kv_page_bytes(&layout, KV_PAGE_ROWS),
                                                 kv_page_bytes(&layout, KV_PAGE_CODES)};
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
    *cache = (KvCache){*shape, layout, pool, is_passing};
    *out = cache;
    return OK;
}

Status kv_cache_create(KvCache **out, const ModelShape *shape, const KvFormat *format,
                       int64_t max_bytes)
{
    return create(out, shape, format, max_bytes, false);
}

Status kv_cache_create_passing(KvCache **out, const ModelShape *shape, const KvFormat *format)
{
    CHECK(format->scheme == KV_PLAIN, "a passing cache is not quantized");
    return create(out, shape, format, 0, true);
}

// Where a layer is in n_written and in pages.
static int layer_place(const KvCache *cache, int layer)
{
    CHECK(layer >= 0 && layer < cache->shape.n_layers, "layer %d", layer);
    return cache->is_passing ? 0 : layer;
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
    int max_pages =
        n_pages + n_pages / 2 + 4; // grows by shares, as a decoded sequence does by ones
    KvPage **pages = realloc(s->pages, (size_t)max_pages * sizeof(KvPage *));
    if (pages == NULL)
        return fail(FAILED, "KV cache: no memory for a list of %d pages", max_pages);
    s->pages = pages;
    s->max_pages = max_pages;
    return OK;
}

Status kv_sequence_create(KvSequence **out, KvCache *cache)
{
    const size_t n_layers = (size_t)cache->layout.n_layers;
    KvSequence *s = calloc(1, sizeof *s + n_layers * sizeof s->n_written[0]);
    if (s == NULL)
        return fail(FAILED, "KV cache: no memory for a sequence");
    s->cache = cache;
    *out = s;
    return OK;
}

// The child holds the pages of committed tokens alone; room that the parent has reserved behind
// them stays the parent's.
Status kv_sequence_fork(KvSequence **out, KvSequence *parent)
{
    KvSequence *s;
    Status status;
    CHECK(!parent->cache->is_passing, "what a passing cache had is gone");
    TRY(kv_sequence_create(&s, parent->cache));
    int n_pages = ceil_div(parent->length, KV_BLOCK_TOKENS);
    TRY_GOTO(release, grow_list(s, n_pages));
    for (int i = 0; i < n_pages; i++) {
        s->pages[i] = parent->pages[i];
        if (s->pages[i] != NULL)
            kv_pool_retain(s->pages[i]);
    }
    s->n_pages = n_pages;
    s->segment = parent->segment;
    if (s->segment != NULL)
        kv_segment_retain(s->segment);
    s->n_coded = parent->n_coded;
    s->length = parent->length;
    for (int layer = 0; layer < parent->cache->layout.n_layers; layer++)
        s->n_written[layer] = parent->length;
    *out = s;
    return OK;
release:
    kv_sequence_release(s);
    return status;
}

Status kv_sequence_branch(KvSequence **out, KvSequence *parent, int n_tokens)
{
    KvSequence *s;
    Status status;
    const int n_pages = n_tokens / KV_BLOCK_TOKENS; // the next one is a copy, made by kv_write()
    CHECK(parent->cache->is_passing && parent->parent == NULL, "a branch of a kept sequence");
    TRY(kv_sequence_create(&s, parent->cache));
    TRY_GOTO(release, grow_list(s, n_pages));
    for (int i = 0; i < n_pages; i++)
        s->pages[i] = NULL;
    s->n_pages = n_pages;
    s->parent = parent;
    s->length = n_tokens;
    *out = s;
    return OK;
release:
    kv_sequence_release(s);
    return status;
}

bool kv_sequence_is_branch(const KvSequence *s)
{
    return s->parent != NULL;
}

static void drop_spares(KvSequence *s)
{
    for (KvPage *page; (page = s->spares) != NULL;) {
        s->spares = page->next;
        kv_pool_drop(s->cache->pool, page);
    }
    s->n_spares = 0;
}

void kv_sequence_release(KvSequence *s)
{
    if (s == NULL)
        return;
    drop_spares(s);
    for (int i = 0; i < s->n_pages; i++)
        if (s->pages[i] != NULL)
            kv_pool_drop(s->cache->pool, s->pages[i]);
    kv_segment_drop(s->segment, s->cache->pool);
    free(s->pages);
    free(s);
}

int kv_sequence_length(const KvSequence *s)
{
    return s->length;
}

// Pages in codes once `length` tokens are committed.
static int coded_pages(const KvSequence *s, int length)
{
    int n_coded = kv_format_coded_blocks(&s->cache->layout.format, length);
    return n_coded > s->n_coded ? n_coded : s->n_coded;
}

// Pages of codes for all that a commit at `length` tokens will quantize, so that the limit is met
// here, before anything is computed, and not there.
static Status reserve_spares(KvSequence *s, int length)
{
    int n_needed = coded_pages(s, length) - s->n_coded;
    while (s->n_spares < n_needed) {
        KvPage *page;
        TRY(kv_pool_take(s->cache->pool, KV_PAGE_CODES, 1, &page));
        page->next = s->spares;
        s->spares = page;
        s->n_spares++;
    }
    return OK;
}

// The page that is written next becomes `copy`, with the committed tokens alone: one of the other
// holders may have had room in the page before it was shared, and write behind them.
static void replace_shared(KvSequence *s, int index, KvPage *copy)
{
    KvPage *shared = s->pages[index];
    for (int layer = 0; layer < s->cache->layout.n_layers; layer++)
        kv_page_copy(&s->cache->layout, copy, shared, layer, s->length - index * KV_BLOCK_TOKENS);
    s->pages[index] = copy;
    kv_pool_drop(s->cache->pool, shared);
}

Status kv_sequence_reserve(KvSequence *s, int n_tokens)
{
    CHECK(n_tokens >= 0 && n_tokens < INT_MAX - KV_BLOCK_TOKENS - s->length, "%d tokens after %d",
          n_tokens, s->length);
    KvPool *pool = s->cache->pool;
    Status status;
    for (int layer = 0; layer < s->cache->layout.n_layers; layer++)
        s->n_written[layer] = s->length;    // less what was written and not committed
    int last = s->length / KV_BLOCK_TOKENS; // the page that is written next
    bool has_last = n_tokens > 0 && last < s->n_pages;
    bool is_shared = has_last && !kv_pool_is_exclusive(s->pages[last]);
    int n_pages = ceil_div(s->length + n_tokens, KV_BLOCK_TOKENS);
    int n_new = (n_pages > s->n_pages ? n_pages - s->n_pages : 0) + (is_shared ? 1 : 0);
    TRY(grow_list(s, s->n_pages + n_new));
    KvPage **pages = s->pages + s->n_pages; // a copy of the shared one is the last of them
    TRY_GOTO(drop_spares, reserve_spares(s, s->length + n_tokens));
    TRY_GOTO(drop_spares, kv_pool_take(pool, KV_PAGE_ROWS, n_new, pages));
    if (is_shared)
        replace_shared(s, last, pages[--n_new]);
    else if (has_last)
        // What was the parent's page once, filled and quantized by the parent while this sequence
        // shared its beginning.
        kv_pool_forget_coded(pool, s->pages[last]);
    s->n_pages += n_new;
    return OK;
drop_spares:
    drop_spares(s);
    return status;
}

// Of a passing cache: forgets the layer before; a branch copies the rows of its parent's that share
// a block with its own.
static void start_layer(KvSequence *s)
{
    const int last = s->length / KV_BLOCK_TOKENS, n_copied = s->length % KV_BLOCK_TOKENS;
    s->n_written[0] = s->length;
    if (s->parent != NULL && n_copied > 0)
        kv_page_copy(&s->cache->layout, s->pages[last], s->parent->pages[last], 0, n_copied);
}

void kv_write(KvSequence *s, int layer, const float *key, int ld_key, const float *value,
              int ld_value, int n)
{
    const int place = layer_place(s->cache, layer);
    if (s->cache->is_passing)
        start_layer(s);
    CHECK(s->n_written[place] == s->length, "layer %d is written twice before a commit", layer);
    CHECK(n >= 0 && s->length + n <= s->n_pages * KV_BLOCK_TOKENS,
          "%d tokens after %d, room is reserved for %d", n, s->length,
          s->n_pages * KV_BLOCK_TOKENS);
    for (int done = 0; done < n;) {
        int position = s->length + done, slot = position % KV_BLOCK_TOKENS;
        int count = min_int(KV_BLOCK_TOKENS - slot, n - done);
        kv_page_write(&s->cache->layout, s->pages[position / KV_BLOCK_TOKENS], place, slot,
                      key + (int64_t)done * ld_key, ld_key, value + (int64_t)done * ld_value,
                      ld_value, count);
        done += count;
    }
    s->n_written[place] = s->length + n;
}

// Layers are quantized side by side, each thread in its own part of the scratch.
static void quantize_page(const KvCache *cache, KvPage *codes, KvPage *rows, char *scratch,
                          int64_t scratch_bytes)
{
#pragma omp parallel for schedule(dynamic)
    for (int layer = 0; layer < cache->shape.n_layers; layer++)
        kv_page_quantize(&cache->layout, codes, rows, layer,
                         scratch + omp_get_thread_num() * scratch_bytes);
}

// The page in codes, made here unless another sequence that shares it has made it already.
static KvPage *coded_page(KvSequence *s, KvPage *rows, char *scratch, int64_t scratch_bytes)
{
    KvPool *pool = s->cache->pool;
    KvPage *coded = kv_pool_coded(pool, rows);
    if (coded != NULL)
        return coded;
    coded = s->spares;
    s->spares = coded->next;
    s->n_spares--;
    // Outside the pool's lock: two sequences that do this at once both make it, and keep the first.
    quantize_page(s->cache, coded, rows, scratch, scratch_bytes);
    return kv_pool_is_exclusive(rows) ? coded : kv_pool_set_coded(pool, rows, coded);
}

// Quantizes what is due with `length` tokens. FAILED, with nothing changed, if there is no memory
// for scratch.
static Status quantize_due(KvSequence *s, int length)
{
    int n_coded = coded_pages(s, length);
    if (n_coded == s->n_coded)
        return OK;
    // Whole cache lines, so that threads do not share one.
    int64_t scratch_bytes = (kv_page_scratch_bytes(&s->cache->layout) + 63) / 64 * 64;
    char *scratch = malloc((size_t)(scratch_bytes * omp_get_max_threads()));
    if (scratch == NULL)
        return fail(FAILED, "KV cache: no memory to quantize %d tokens in", KV_BLOCK_TOKENS);
    for (; s->n_coded < n_coded; s->n_coded++) {
        KvPage *rows = s->pages[s->n_coded];
        s->pages[s->n_coded] = coded_page(s, rows, scratch, scratch_bytes);
        kv_pool_drop(s->cache->pool, rows);
    }
    free(scratch);
    return OK;
}

// Reference policy: everything up to `length` becomes the segment. The page that holds tokens
// behind it stays, with rows in front of them that are not read again.
static Status replace_segment(KvSequence *s, int length)
{
    KvSegment *segment;
    TRY(kv_requantize(&segment, s, &s->cache->layout, s->cache->pool, length));
    kv_segment_drop(s->segment, s->cache->pool);
    s->segment = segment;
    for (; s->n_coded < length / KV_BLOCK_TOKENS; s->n_coded++) {
        kv_pool_drop(s->cache->pool, s->pages[s->n_coded]);
        s->pages[s->n_coded] = NULL;
    }
    return OK;
}

Status kv_sequence_commit(KvSequence *s, int n_tokens)
{
    for (int layer = 0; layer < s->cache->layout.n_layers; layer++)
        CHECK(s->n_written[layer] == s->length + n_tokens,
              "layer %d has %d positions of %d written", layer, s->n_written[layer],
              s->length + n_tokens);
    const int length = s->length + n_tokens;
    TRY(quantize_due(s, length));
    if (s->segment != NULL && length - kv_segment_tokens(s->segment) >= KV_RESIDUAL_TOKENS)
        TRY(replace_segment(s, length));
    drop_spares(s);
    s->length = length;
    return OK;
}

Status kv_sequence_end_prompt(KvSequence *s)
{
    bool is_due = s->cache->layout.format.reference_policy && s->segment == NULL && s->length > 0;
    return is_due ? replace_segment(s, s->length) : OK;
}

int kv_n_blocks(const KvSequence *s, int n_tokens)
{
    CHECK(n_tokens <= s->n_pages * KV_BLOCK_TOKENS, "%d tokens of at most %d", n_tokens,
          s->n_pages * KV_BLOCK_TOKENS);
    return ceil_div(n_tokens, KV_BLOCK_TOKENS);
}

KvBlock kv_block(const KvSequence *s, int layer, int index)
{
    if (s->parent != NULL && s->pages[index] == NULL)
        return kv_block(s->parent, layer, index);
    const int place = layer_place(s->cache, layer);
    int first = index * KV_BLOCK_TOKENS, n_behind = s->n_written[place] - first;
    CHECK(index >= 0 && n_behind > 0, "block %d of layer %d with %d positions", index, layer,
          s->n_written[place]);
    const KvPageLayout *layout = &s->cache->layout;
    KvBlock block = {.key_part = layout->key, .value_part = layout->value};
    if (s->pages[index] != NULL)
        block = kv_page_block(layout, s->pages[index], place);
    block.first = first;
    block.count = min_int(n_behind, KV_BLOCK_TOKENS);
    if (s->segment != NULL && first < kv_segment_tokens(s->segment)) {
        block.kind = KV_SEGMENT;
        block.segment = s->segment;
        block.layer = layer;
        block.n_quantized = kv_segment_tokens(s->segment);
    }
    return block;
}
