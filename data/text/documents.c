// Growable flat arrays: the bytes of all documents and their sizes. Memory is never given back
// between batches, so a rank settles on the size of its largest batch.
#include "data/text/documents.h"

#include <stdlib.h>
#include <string.h>

// Half as much again, so that appending costs the same per byte however long the batch becomes.
static int64_t grown(int64_t capacity, int64_t wanted)
{
    const int64_t more = capacity + capacity / 2;
    return more > wanted ? more : wanted;
}

// On failure what was grown stays grown: both arrays are valid at any time.
Status documents_reserve(Documents *documents, int64_t count, int64_t size_bytes)
{
    if (count > documents->capacity) {
        const int64_t capacity = grown(documents->capacity, count);
        int64_t *sizes = realloc(documents->sizes, (size_t)capacity * sizeof *sizes);
        if (sizes == NULL)
            return fail(FAILED, "out of memory for a batch of %lld documents", (long long)count);
        documents->sizes = sizes;
        documents->capacity = capacity;
    }
    if (size_bytes > documents->capacity_bytes) {
        const int64_t capacity = grown(documents->capacity_bytes, size_bytes);
        char *bytes = realloc(documents->bytes, (size_t)capacity);
        if (bytes == NULL)
            return fail(FAILED, "out of memory for documents of %lld bytes", (long long)size_bytes);
        documents->bytes = bytes;
        documents->capacity_bytes = capacity;
    }
    return OK;
}

Status documents_append(Documents *documents, const void *bytes, int64_t size_bytes)
{
    TRY(documents_reserve(documents, documents->count + 1, documents->size_bytes + size_bytes));
    if (size_bytes > 0)
        memcpy(documents->bytes + documents->size_bytes, bytes, (size_t)size_bytes);
    documents->sizes[documents->count++] = size_bytes;
    documents->size_bytes += size_bytes;
    return OK;
}

void documents_release(Documents *documents)
{
    free(documents->sizes);
    free(documents->bytes);
    *documents = (Documents){0};
}
