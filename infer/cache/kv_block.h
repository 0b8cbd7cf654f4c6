// What attention reads of a KV cache: the keys and values of up to 64 positions of one layer, as
// the cache holds them.
//
//     for (int i = 0; i < kv_n_blocks(sequence, n_tokens); i++) {
//         KvBlock block = kv_block(sequence, layer, i);
//         if (block.kind == KV_ROWS && block.type == KV_BFLOAT16)
//             ...read block.key and block.value...
//         else
//             kv_block_widen(&block, key, value);
//     }
//
// Keys lie channel by channel, so that the scores of 16 neighbouring positions fill a vector;
// values lie token by token, so that weighted sums over positions do. (Heads and widths of the two
// parts: kv_format.h.)
//
//     KV_ROWS    key   [K][key width][64]        float32 or bfloat16
//                value [heads][64][value width]  the same
//     KV_CODES   both  [heads][width] channels of 64 codes, each with a scale and a zero: 64 of 64
//                      positions, quantized for good (kv_codes.h)
//     KV_GROUPS  both  the same, but at least one part in groups that are not channels, as the
//                      libraries' axes make them; for kv_block_widen()
//     KV_SEGMENT       positions below `n_quantized` are in `segment`, for kv_block_widen(); those
//                      behind are in key and value as KV_ROWS has them: the reference policy
//
// Keys of MLA with qk_norm have a factor each, [K][64] float32 whatever the kind, that their scores
// are to be multiplied by.
//
// Block i of a sequence holds positions 64 i to 64 i + 63; only the last can be incomplete.
#ifndef MHA2MLA_INFER_CACHE_KV_BLOCK_H
#define MHA2MLA_INFER_CACHE_KV_BLOCK_H

#include "infer/cache/kv_codes.h"

typedef struct KvSegment KvSegment; // infer/cache/kv_segment.h

typedef enum KvBlockKind { KV_ROWS, KV_CODES, KV_GROUPS, KV_SEGMENT } KvBlockKind;

// Everything is borrowed from the sequence, until it is committed or released, and not to be
// written.
typedef struct KvBlock {
    KvBlockKind kind;
    int first;               // position of the block's first token
    int count;               // tokens from there on, 1 to 64
    KvPart key_part;         // heads and width of the arrays below
    KvPart value_part;       //
    KvType type;             // of the rows
    const void *key;         // KV_ROWS, KV_SEGMENT; 64-byte aligned, finite beyond `count`
    const void *value;       // the same
    const float *key_factor; // [K][64], finite; NULL: none
    KvCodes key_codes;       // KV_CODES and KV_GROUPS
    KvCodes value_codes;
    const KvSegment *segment; // KV_SEGMENT
    int layer;                //
    int n_quantized;          // tokens that the segment holds, from position 0 on
} KvBlock;

// What is left to ask memory for of a block that comes next, while another one is computed: a
// layer's blocks are too short and too far apart for the hardware's prefetcher.
typedef struct KvFetch {
    const char *at;
    int n_lines, n_slices; // left
} KvFetch;

// A block of rows in n_slices slices. Codes are few and are asked for at once.
KvFetch kv_block_fetch(const KvBlock *block, int n_slices);

// Asks for the next slice. As many lines as the processor can wait for without waiting itself are
// best: some dozens.
static inline void kv_fetch_slice(KvFetch *fetch)
{
    enum { LINE_BYTES = 64 };
    if (fetch->n_slices == 0)
        return;
    const int n = fetch->n_lines / fetch->n_slices;
    for (int line = 0; line < n; line++)
        __builtin_prefetch(fetch->at + line * LINE_BYTES, 0, 2);
    fetch->at += n * LINE_BYTES;
    fetch->n_lines -= n;
    fetch->n_slices--;
}

// Keys and values as float32, whatever the block's kind; positions beyond `count` are 0.
void kv_block_widen(const KvBlock *block,
                    float *key,    // [K][key width][64]
                    float *value); // [heads][64][value width]

#endif
