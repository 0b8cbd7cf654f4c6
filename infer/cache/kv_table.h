// The widths a KV cache can be held in, and a table of what a token costs in each, which `inspect`
// and `plan` print.
//
//     kv_table_print(stdout, &shape);
#ifndef MHA2MLA_INFER_CACHE_KV_TABLE_H
#define MHA2MLA_INFER_CACHE_KV_TABLE_H

#include "infer/cache/kv_format.h"

#include <stdio.h>

// float32, bfloat16, then 8, 4, 3 and 2 bits per channel.
enum { N_KV_WIDTHS = 6 };

typedef struct KvWidth {
    const char *name; // "bfloat16", "4 bits"
    KvFormat format;
} KvWidth;

extern const KvWidth kv_widths[N_KV_WIDTHS];

// Bytes per token of this model and, where it is converted, of its original, in every width; and
// the bytes of this model as a share of the original's at bfloat16.
void kv_table_print(FILE *out, const ModelShape *shape);

#endif
