// Blocks come from mmap: zeroed, page-aligned, and resident only once touched, so that a block's
// measured size is an upper bound of what it costs.
#define _GNU_SOURCE
#include "base/arena.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
// Under the address sanitizer a block starts out poisoned and placing unpoisons exactly what was
// asked for, so the gap behind every buffer catches what runs over its end. Nothing is poisoned
// again, so buffers that share memory after a rewind stay usable. An arena over another one's
// buffer leaves the poison alone: what it places beyond that buffer is then caught, too.
#define POISON(start, size_bytes)   __asan_poison_memory_region(start, (size_t)(size_bytes))
#define UNPOISON(start, size_bytes) __asan_unpoison_memory_region(start, (size_t)(size_bytes))
#else
#define POISON(start, size_bytes)   ((void)(start))
#define UNPOISON(start, size_bytes) ((void)(start))
#endif

enum { ALIGN_BYTES = 64 }; // a cache line, and a vector of AVX-512

Arena arena_start(const char *name)
{
    return (Arena){.name = name};
}

Status arena_allocate(Arena *arena)
{
    CHECK(arena->block == NULL, "arena %s allocated twice", arena->name);
    // mmap() refuses a length of 0.
    int64_t size = arena->peak_bytes > 0 ? arena->peak_bytes : ALIGN_BYTES;
    void *block =
        mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return fail(FAILED,
                    "%s: no memory for %.2f GiB: %s; use more ranks or a smaller micro batch",
                    arena->name, (double)size / (1 << 30), strerror(errno));
    madvise(block, (size_t)size, MADV_HUGEPAGE); // advice: a kernel without huge pages is fine
    POISON(block, size);
    arena->block = block;
    arena->owns_block = true;
    arena->size_bytes = size;
    arena->used_bytes = 0;
    return OK;
}

// Not owned: a rewind or a release of this arena leaves the memory to whoever holds it.
Arena arena_over(const char *name, void *memory, int64_t size_bytes)
{
    return (Arena){.name = name, .block = memory, .size_bytes = size_bytes};
}

void *arena_place(Arena *arena, int64_t count, size_t size_bytes)
{
    // Products beyond this bound would overflow the sums below.
    CHECK(count >= 0 && (count == 0 || size_bytes <= (size_t)(INT64_MAX / 2) / (size_t)count),
          "arena %s: %lld objects of %zu bytes", arena->name, (long long)count, size_bytes);
    // Every buffer begins on a cache line, so no two threads write one line through neighbouring
    // buffers, and vector loads are aligned.
    int64_t offset = arena->used_bytes;
    int64_t bytes = count * (int64_t)size_bytes;
    arena->used_bytes += (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    arena->used_bytes += ARENA_RED_ZONE_BYTES;
    if (arena->used_bytes > arena->peak_bytes)
        arena->peak_bytes = arena->used_bytes;
    if (arena->block == NULL)
        return NULL;
    CHECK(arena->used_bytes <= arena->size_bytes, "arena %s: %lld bytes placed, %lld measured",
          arena->name, (long long)arena->used_bytes, (long long)arena->size_bytes);
    if (arena->owns_block)
        UNPOISON(arena->block + offset, bytes);
    return arena->block + offset;
}

float *arena_floats(Arena *arena, int64_t count)
{
    return arena_place(arena, count, sizeof(float));
}

void arena_rewind(Arena *arena, int64_t used_bytes)
{
    CHECK(used_bytes <= arena->used_bytes, "arena %s rewound forwards", arena->name);
    arena->used_bytes = used_bytes;
}

void arena_release(Arena *arena)
{
    if (arena->owns_block) {
        UNPOISON(arena->block, arena->size_bytes); // what is mapped here next is not ours
        munmap(arena->block, (size_t)arena->size_bytes);
    }
    *arena = arena_start(arena->name);
}
