// Pages of a KV cache: pieces of memory of a few fixed sizes, counted by reference, under one
// limit.
//
//     const int64_t size_bytes[N_KV_PAGE_KINDS] = {65536, 18432}; // of rows, of codes
//     KvPool *pool;
//     TRY(kv_pool_create(&pool, size_bytes, 1 << 30));
//     KvPage *page;
//     TRY(kv_pool_take(pool, KV_PAGE_ROWS, 1, &page)); // one reference, zeroed
//     kv_pool_retain(page);                            // two
//     kv_pool_drop(pool, page);
//     kv_pool_drop(pool, page);                        // none: another take may get it
//     kv_pool_release(pool);
//
// Safe to use from several threads; a page's bytes are its holders' to protect.
#ifndef MHA2MLA_INFER_CACHE_KV_POOL_H
#define MHA2MLA_INFER_CACHE_KV_POOL_H

#include "base/status.h"

#include <stdatomic.h>
#include <stdint.h>

typedef enum KvPageKind { KV_PAGE_ROWS, KV_PAGE_CODES, N_KV_PAGE_KINDS } KvPageKind;

typedef struct KvPage {
    KvPageKind kind;
    bool is_resident; // of an unused page: its memory was not given back to the system
    atomic_int n_references;
    struct KvPage *next;  // in the pool's list of unused pages, or in one of the only holder's
    struct KvPage *coded; // one reference to what the page was quantized to; NULL: nothing yet
    _Alignas(64) unsigned char bytes[];
} KvPage;

typedef struct KvPool KvPool;

// size_bytes [N_KV_PAGE_KINDS] of a page of each kind. max_bytes: the most that pages in use may
// take; 0: no limit.
Status kv_pool_create(KvPool **out, const int64_t *size_bytes, int64_t max_bytes);

// pages [count] = pages of zeros with one reference each; all of them or none. FAILED with the
// numbers if the limit is exceeded or the machine has not the memory.
Status kv_pool_take(KvPool *pool, KvPageKind kind, int count, KvPage **pages);

void kv_pool_retain(KvPage *page);

// Whether nobody but the caller holds the page: it may be written.
bool kv_pool_is_exclusive(KvPage *page);

// What the page was quantized to, with a reference for the caller; NULL: nothing yet.
KvPage *kv_pool_coded(KvPool *pool, KvPage *page);

// Makes `coded` known to the page's other holders. If one of them was first, theirs is returned and
// the caller's dropped; the caller has one reference to what is returned.
KvPage *kv_pool_set_coded(KvPool *pool, KvPage *page, KvPage *coded);

// The page, whose only holder is the caller, is about to change: what it was quantized to is
// dropped.
void kv_pool_forget_coded(KvPool *pool, KvPage *page);

// One reference less; the last also drops what the page was quantized to.
void kv_pool_drop(KvPool *pool, KvPage *page);

// Counts bytes that are not a page as in use. FAILED with the numbers if the limit is exceeded.
Status kv_pool_charge(KvPool *pool, int64_t bytes);
void kv_pool_uncharge(KvPool *pool, int64_t bytes);

// Bytes in use, now and at most; pages' headers (64 bytes each) are not counted.
int64_t kv_pool_bytes(KvPool *pool);
int64_t kv_pool_peak_bytes(KvPool *pool);

// Every page must have been dropped and every charge undone.
void kv_pool_release(KvPool *pool);

#endif
