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
    if (count > documents->most_count) {
        const int64_t most = grown(documents->most_count, count);
        int64_t *sizes = realloc(documents->sizes, (size_t)most * sizeof *sizes);
        if (sizes == NULL)
            return fail(FAILED, "out of memory for a batch of %lld documents", (long long)count);
        documents->sizes = sizes;
        documents->most_count = most;
    }
    if (size_bytes > documents->most_bytes) {
        const int64_t most = grown(documents->most_bytes, size_bytes);
        char *bytes = realloc(documents->bytes, (size_t)most);
        if (bytes == NULL)
            return fail(FAILED, "out of memory for documents of %lld bytes", (long long)size_bytes);
        documents->bytes = bytes;
        documents->most_bytes = most;
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
