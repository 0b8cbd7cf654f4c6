// What lies in a page of a KV cache: all layers of 64 positions of one sequence, as rows or in
// codes.
//
//     KV_PAGE_ROWS   | layer 0: key [K][key width][64], value [heads][64][value width] | layer 1:
//     ... KV_PAGE_CODES  | layer 0: key codes, value codes | layer 1: ... |
//                    | layer 0: key scale, zero, value scale, zero | layer 1: ...
//     both kinds, last | layer 0: key factors [K][64] float32 | layer 1: ...       (kv_format.h)
//
//     KvPageLayout layout = kv_page_layout(&shape, &format);
//     const int64_t bytes = kv_page_bytes(&layout, KV_PAGE_ROWS);
//     kv_page_write(&layout, page, layer, slot, key, ld_key, value, ld_value, n);
//     KvBlock block = kv_page_block(&layout, page, layer); // 64 positions from 0 on
#ifndef MHA2MLA_INFER_CACHE_KV_PAGE_H
#define MHA2MLA_INFER_CACHE_KV_PAGE_H

#include "infer/cache/kv_block.h"
#include "infer/cache/kv_pool.h"

typedef struct KvPageLayout {
    KvFormat format;
    int n_layers;
    KvPart key, value;
    int64_t rows_key_bytes, rows_bytes;   // of a layer: keys; keys and values
    int64_t codes_key_bytes, codes_bytes; // the same of packed codes
    int64_t scales_bytes;                 // of a layer, both parts
    int n_factors;                        // of a token: K, or 0
    KvGrouping key_grouping, value_grouping;
} KvPageLayout;

KvPageLayout kv_page_layout(const ModelShape *shape, const KvFormat *format);

// Bytes of a page; 0: pages of a plain format are never in codes.
int64_t kv_page_bytes(const KvPageLayout *layout, KvPageKind kind);

// The view of a layer; the caller sets `first` and `count`, which are 0 and 64.
KvBlock kv_page_block(const KvPageLayout *layout, KvPage *page, int layer);

// n tokens into a page of rows, from slot `slot` on.
void kv_page_write(const KvPageLayout *layout, KvPage *page, int layer, int slot,
                   const float *key,               // [n, K key width], rows ld_key apart
                   int ld_key, const float *value, // [n, heads * value width, then factors]
                   int ld_value, int n);

// The first `count` tokens of a layer; nothing behind them is read, where another sequence may be
// writing. Both are pages of rows.
void kv_page_copy(const KvPageLayout *layout, KvPage *to, const KvPage *from, int layer, int count);

// A layer of a page of codes = of one of rows, all 64 positions. scratch: kv_page_scratch_bytes().
void kv_page_quantize(const KvPageLayout *layout, KvPage *codes, KvPage *rows, int layer,
                      void *scratch);
int64_t kv_page_scratch_bytes(const KvPageLayout *layout);

#endif
