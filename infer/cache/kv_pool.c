// Pages by reference counts and a list of unused ones per kind. See kv_pool.h.
//
// Pages are cut from slabs of many, which ask the system for huge pages: attention reads a few
// kilobytes of every page per layer, and walking the page tables for each of them costs more than
// the reading (2.9 against 11.6 GB/s for parts of 9 KiB, 4.6 against 12.4 for 48 KiB, on one core
// of a virtual machine).
//
// Unused pages stay in their slabs. Where they and those in use would exceed the limit, the memory
// of unused ones is given back to the system, and comes again as zeros when it is touched.
#define _GNU_SOURCE
#include "infer/cache/kv_pool.h"

#include "base/arena.h"
#include "base/intmath.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLAB_BYTES = 32 << 20 }; // at least: many huge pages

typedef struct Slab {
    Arena arena;
    int n_left; // pages that were never taken
    struct Slab *next;
} Slab;

struct KvPool {
    pthread_mutex_t lock; // over everything below
    int64_t size_bytes[N_KV_PAGE_KINDS];
    int64_t max_bytes; // 0: no limit
    Slab *slabs[N_KV_PAGE_KINDS];
    KvPage *unused[N_KV_PAGE_KINDS];
    int64_t used_bytes, peak_bytes;
    int64_t resident_bytes; // of unused pages that were not given back to the system
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

static KvPage *take_unused(KvPool *pool, KvPageKind kind)
{
    KvPage *page = pool->unused[kind];
    if (page == NULL)
        return NULL;
    pool->unused[kind] = page->next;
    if (page->is_resident)
        pool->resident_bytes -= pool->size_bytes[kind];
    return page;
}

// Whole system pages of what lies behind the header.
static void give_to_system(KvPool *pool, KvPage *page)
{
    const uintptr_t system_page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t bytes = (uintptr_t)page->bytes;
    const uintptr_t first = (bytes + system_page - 1) / system_page * system_page;
    const uintptr_t end =
        (bytes + (uintptr_t)pool->size_bytes[page->kind]) / system_page * system_page;
    if (first < end)
        madvise((void *)first, end - first, MADV_DONTNEED);
    page->is_resident = false;
    pool->resident_bytes -= pool->size_bytes[page->kind];
}

// Makes room for new_bytes under the limit, as far as unused pages do.
static void shrink(KvPool *pool, int64_t new_bytes)
{
    for (int kind = 0; pool->max_bytes > 0 && kind < N_KV_PAGE_KINDS; kind++)
        for (KvPage *page = pool->unused[kind];
             page != NULL && pool->used_bytes + pool->resident_bytes + new_bytes > pool->max_bytes;
             page = page->next)
            if (page->is_resident)
                give_to_system(pool, page);
}

// The address space of a slab; NULL if there is none.
static Slab *add_slab(KvPool *pool, KvPageKind kind)
{
    Slab *slab = calloc(1, sizeof *slab);
    if (slab == NULL)
        return NULL;
    const size_t page_bytes = sizeof(KvPage) + (size_t)pool->size_bytes[kind];
    slab->n_left = (int)max_int64(1, SLAB_BYTES / (int64_t)page_bytes);
    slab->arena = arena_start("KV cache");
    for (int i = 0; i < slab->n_left; i++)
        arena_place(&slab->arena, 1, page_bytes);
    if (arena_allocate(&slab->arena) != OK) {
        free(slab);
        return NULL;
    }
    slab->next = pool->slabs[kind];
    pool->slabs[kind] = slab;
    return slab;
}

// A page that was never used before; NULL if the machine has not the memory.
static KvPage *cut(KvPool *pool, KvPageKind kind)
{
    Slab *slab = pool->slabs[kind];
    if (slab == NULL || slab->n_left == 0)
        slab = add_slab(pool, kind);
    if (slab == NULL)
        return NULL;
    slab->n_left--;
    return arena_place(&slab->arena, 1, sizeof(KvPage) + (size_t)pool->size_bytes[kind]);
}

static KvPage *take_one(KvPool *pool, KvPageKind kind)
{
    KvPage *page = take_unused(pool, kind);
    shrink(pool, pool->size_bytes[kind]);
    if (page == NULL)
        page = cut(pool, kind);
    if (page == NULL)
        return NULL;
    page->kind = kind;
    page->is_resident = true;
    page->next = page->coded = NULL;
    atomic_init(&page->n_references, 1);
    pool->used_bytes += pool->size_bytes[kind];
    return page;
}

static void give_back(KvPool *pool, KvPage *page)
{
    pool->used_bytes -= pool->size_bytes[page->kind];
    pool->resident_bytes += pool->size_bytes[page->kind];
    page->next = pool->unused[page->kind];
    pool->unused[page->kind] = page;
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

// The lock orders it against kv_pool_coded() of the page's other holders.
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

// Releases the caller's reads to whoever finds the page exclusive later, and acquires those of all
// others for the last.
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
        for (Slab *slab; (slab = pool->slabs[kind]) != NULL;) {
            pool->slabs[kind] = slab->next;
            arena_release(&slab->arena);
            free(slab);
        }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
