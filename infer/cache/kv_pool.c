// Pages by reference counts and a list of unused ones per kind. See kv_pool.h.
//
// Pages in use plus unused pages never exceed the limit: an unused page of another kind is given
// back to the system where a new page would.
#include "infer/cache/kv_pool.h"

#include "base/intmath.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct KvPool {
    pthread_mutex_t lock; // over everything below
    int64_t size_bytes[N_KV_PAGE_KINDS];
    int64_t max_bytes; // 0: no limit
    KvPage *unused[N_KV_PAGE_KINDS];
    int64_t used_bytes, unused_bytes, peak_bytes;
};

Status kv_pool_create(KvPool **out, const int64_t *size_bytes, int64_t max_bytes)
{
    KvPool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return fail(FAILED, "KV cache: no memory");
    pthread_mutex_init(&pool->lock, NULL);
    memcpy(pool->size_bytes, size_bytes, sizeof pool->size_bytes);
    pool->max_bytes = max_bytes;
    *out = pool;
    return OK;
}

static void put_unused(KvPool *pool, KvPage *page)
{
    page->next = pool->unused[page->kind];
    pool->unused[page->kind] = page;
    pool->unused_bytes += pool->size_bytes[page->kind];
}

static KvPage *take_unused(KvPool *pool, KvPageKind kind)
{
    KvPage *page = pool->unused[kind];
    if (page != NULL) {
        pool->unused[kind] = page->next;
        pool->unused_bytes -= pool->size_bytes[kind];
    }
    return page;
}

// Frees unused pages until the pool holds at most max_bytes - new_bytes, as far as there are any.
static void shrink(KvPool *pool, int64_t new_bytes)
{
    for (int kind = 0; kind < N_KV_PAGE_KINDS; kind++)
        while (pool->used_bytes + pool->unused_bytes + new_bytes > pool->max_bytes &&
               pool->unused[kind] != NULL)
            free(take_unused(pool, (KvPageKind)kind));
}

// NULL if the machine has not the memory.
static KvPage *take_one(KvPool *pool, KvPageKind kind)
{
    KvPage *page = take_unused(pool, kind);
    if (page == NULL) {
        if (pool->max_bytes > 0)
            shrink(pool, pool->size_bytes[kind]);
        // aligned_alloc() takes multiples of the alignment.
        size_t size = sizeof *page + ((size_t)pool->size_bytes[kind] + 63) / 64 * 64;
        page = aligned_alloc(64, size);
        if (page == NULL)
            return NULL;
    }
    page->kind = kind;
    page->next = page->coded = NULL;
    atomic_init(&page->n_references, 1);
    pool->used_bytes += pool->size_bytes[kind];
    return page;
}

static void give_back(KvPool *pool, KvPage *page)
{
    pool->used_bytes -= pool->size_bytes[page->kind];
    put_unused(pool, page);
}

static Status check_limit(const KvPool *pool, int64_t new_bytes)
{
    const double mib = 1 << 20;
    if (pool->max_bytes == 0 || pool->used_bytes + new_bytes <= pool->max_bytes)
        return OK;
    return fail(FAILED,
                "KV cache: %.2f MiB more are needed, and %.2f of at most %.2f MiB are in use; "
                "allow it more memory, or use shorter texts, fewer at a time, or fewer bits",
                (double)new_bytes / mib, (double)pool->used_bytes / mib,
                (double)pool->max_bytes / mib);
}

static void note_peak(KvPool *pool)
{
    pool->peak_bytes = max_int64(pool->peak_bytes, pool->used_bytes);
}

static Status take_all(KvPool *pool, KvPageKind kind, int count, KvPage **pages)
{
    int64_t new_bytes = count * pool->size_bytes[kind];
    TRY(check_limit(pool, new_bytes));
    for (int i = 0; i < count; i++) {
        pages[i] = take_one(pool, kind);
        if (pages[i] != NULL)
            continue;
        while (i-- > 0)
            give_back(pool, pages[i]);
        return fail(FAILED, "KV cache: no memory for %.2f MiB more beside the %.2f MiB in use",
                    (double)new_bytes / (1 << 20), (double)pool->used_bytes / (1 << 20));
    }
    note_peak(pool);
    return OK;
}

Status kv_pool_take(KvPool *pool, KvPageKind kind, int count, KvPage **pages)
{
    pthread_mutex_lock(&pool->lock);
    Status status = take_all(pool, kind, count, pages);
    pthread_mutex_unlock(&pool->lock);
    // Attention multiplies positions that are not written yet by 0: they must be finite.
    for (int i = 0; status == OK && i < count; i++)
        memset(pages[i]->bytes, 0, (size_t)pool->size_bytes[kind]);
    return status;
}

Status kv_pool_charge(KvPool *pool, int64_t bytes)
{
    pthread_mutex_lock(&pool->lock);
    Status status = check_limit(pool, bytes);
    if (status == OK) {
        if (pool->max_bytes > 0)
            shrink(pool, bytes);
        pool->used_bytes += bytes;
        note_peak(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    return status;
}

void kv_pool_uncharge(KvPool *pool, int64_t bytes)
{
    pthread_mutex_lock(&pool->lock);
    pool->used_bytes -= bytes;
    pthread_mutex_unlock(&pool->lock);
}

void kv_pool_retain(KvPage *page)
{
    atomic_fetch_add_explicit(&page->n_references, 1, memory_order_relaxed);
}

// Acquires what kv_pool_drop() of the others released: their reads of the page come before the
// caller's writes.
bool kv_pool_is_exclusive(KvPage *page)
{
    return atomic_load_explicit(&page->n_references, memory_order_acquire) == 1;
}

KvPage *kv_pool_coded(KvPool *pool, KvPage *page)
{
    pthread_mutex_lock(&pool->lock);
    KvPage *coded = page->coded;
    if (coded != NULL)
        kv_pool_retain(coded);
    pthread_mutex_unlock(&pool->lock);
    return coded;
}

KvPage *kv_pool_set_coded(KvPool *pool, KvPage *page, KvPage *coded)
{
    pthread_mutex_lock(&pool->lock);
    KvPage *unneeded = page->coded == NULL ? NULL : coded;
    if (unneeded == NULL)
        page->coded = coded;
    coded = page->coded;
    kv_pool_retain(coded);
    pthread_mutex_unlock(&pool->lock);
    if (unneeded != NULL)
        kv_pool_drop(pool, unneeded);
    return coded;
}

void kv_pool_forget_coded(KvPool *pool, KvPage *page)
{
    KvPage *coded = page->coded;
    page->coded = NULL;
    if (coded != NULL)
        kv_pool_drop(pool, coded);
}

void kv_pool_drop(KvPool *pool, KvPage *page)
{
    if (atomic_fetch_sub_explicit(&page->n_references, 1, memory_order_acq_rel) > 1)
        return;
    KvPage *coded = page->coded;
    pthread_mutex_lock(&pool->lock);
    give_back(pool, page);
    pthread_mutex_unlock(&pool->lock);
    if (coded != NULL)
        kv_pool_drop(pool, coded); // a page of codes is not quantized again: no third level
}

int64_t kv_pool_bytes(KvPool *pool)
{
    pthread_mutex_lock(&pool->lock);
    int64_t bytes = pool->used_bytes;
    pthread_mutex_unlock(&pool->lock);
    return bytes;
}

int64_t kv_pool_peak_bytes(KvPool *pool)
{
    pthread_mutex_lock(&pool->lock);
    int64_t bytes = pool->peak_bytes;
    pthread_mutex_unlock(&pool->lock);
    return bytes;
}

void kv_pool_release(KvPool *pool)
{
    if (pool == NULL)
        return;
    CHECK(pool->used_bytes == 0, "%lld bytes of pages are in use", (long long)pool->used_bytes);
    for (int kind = 0; kind < N_KV_PAGE_KINDS; kind++)
        for (KvPage *page; (page = take_unused(pool, (KvPageKind)kind)) != NULL;)
            free(page);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
