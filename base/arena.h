// Memory that is placed, not allocated: one block per purpose, sized by running the placing code
// with no memory behind it.
//
//     Arena arena = arena_start("activations");
//     place_activations(&acts, &arena, shape);   // measures: pointers are NULL
//     TRY(arena_allocate(&arena));               // one block of the measured size
//     place_activations(&acts, &arena, shape);   // places
//     ...
//     arena_release(&arena);
//
// An arena that was only measured is what `--dry-run` and `plan` print. Single-threaded.
//
//     block: | buffer 0 ...|pad| buffer 1 ......|pad| buffer 2 ..|pad|        each starts at 64 n
//                                               ^ used_bytes: a mark to rewind to
//
// In builds with the address sanitizer the padding is 64 bytes longer and touching it is an error.
#ifndef MHA2MLA_BASE_ARENA_H
#define MHA2MLA_BASE_ARENA_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
enum { ARENA_RED_ZONE_BYTES = 64 };
#else
enum { ARENA_RED_ZONE_BYTES = 0 };
#endif

typedef struct Arena {
    const char *name; // borrowed
    char *block;      // owned if owns_block, else borrowed; NULL while measuring
    bool owns_block;
    int64_t used_bytes;
    int64_t peak_bytes; // the most that was ever used: what arena_allocate() asks for
    int64_t size_bytes; // 0 while measuring
} Arena;

// A measuring arena: arena_place() counts and returns NULL.
Arena arena_start(const char *name);

// Allocates what was measured, zeroed, and starts placing from its beginning. FAILED if the machine
// has not the memory.
Status arena_allocate(Arena *arena);

// Starts placing in memory [size_bytes] that another arena holds; it needs no release.
Arena arena_over(const char *name, void *memory, int64_t size_bytes);

// Places count objects of size_bytes each, aligned to 64 bytes; NULL while measuring.
void *arena_place(Arena *arena, int64_t count, size_t size_bytes);

// Places count floats.
float *arena_floats(Arena *arena, int64_t count);

// Forgets what was placed after the mark `used_bytes`, so that phases can share that memory.
void arena_rewind(Arena *arena, int64_t used_bytes);

void arena_release(Arena *arena);

#endif
