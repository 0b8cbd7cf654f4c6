// A batch of documents on its way through tokenization: first their texts, then their token ids.
//
//     Documents texts = {0};
//     TRY_GOTO(release, documents_append(&texts, bytes, size_bytes));
//     use(texts.bytes, texts.sizes[0]);
//     texts.count = 0, texts.size_bytes = 0;   // the next batch reuses the memory
//     documents_release(&texts);
//
// Two flat arrays, so that a batch can be sent from rank to rank as it is.
#ifndef MHA2MLA_DATA_TEXT_DOCUMENTS_H
#define MHA2MLA_DATA_TEXT_DOCUMENTS_H

#include "base/status.h"

#include <stdint.h>

typedef struct Documents {
    int64_t count;
    int64_t size_bytes;     // all documents together
    int64_t *sizes;         // owned [count]: bytes of each
    char *bytes;            // owned [size_bytes]: one document after another
    int64_t capacity;       // of sizes
    int64_t capacity_bytes; // of bytes
} Documents;

// Reserves memory for `count` documents of `size_bytes` together. FAILED without memory; what the
// batch holds stays.
Status documents_reserve(Documents *documents, int64_t count, int64_t size_bytes);

Status documents_append(Documents *documents, const void *bytes, int64_t size_bytes);

void documents_release(Documents *documents); // a zeroed batch is allowed

#endif
