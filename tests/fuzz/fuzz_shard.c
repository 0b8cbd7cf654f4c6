#define _GNU_SOURCE // memmem
// data/shard: a damaged shard is refused in one line or its tokens are in the vocabulary; whatever
// it says, reading ends. An input edits one of the small shards of tests/fuzz/base: a byte of
// settings, then four bytes per edit. Either any byte can be edited, or those that say something to
// the reader: attributes, lengths, the index of the chunks, the chunks; then the checksums can be
// made right again, which chance would not do, so that the damage gets past them. Other parts of
// HDF5's headers with right checksums make HDF5 1.10 itself read through null pointers.
#include "tests/fuzz/fuzzing.h"

#include "base/file.h"
#include "data/shards/shard.h"

#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

enum { N_BASES = 2, MOST_BYTES = 1 << 14, MOST_BLOCKS = 16, EDIT_BYTES = 4 };
enum { CHOOSE_BASE = 1, MEND_HEADERS = 2, MEND_CHUNKS = 4 }; // bits of the settings

// Bytes [start, end) that are followed by their checksum.
typedef struct Block {
    size_t start, end;
} Block;

typedef struct Base {
    uint8_t bytes[MOST_BYTES];
    size_t size;
    Block headers[MOST_BLOCKS]; // of HDF5
    Block chunks[2];            // of /tokens and /documents
    Block fields[MOST_BLOCKS];  // what may be edited where headers are mended; no checksums
    int n_headers, n_fields;
} Base;

static Base bases[N_BASES];

// HDF5's own, as an oracle of ours; exported, but in no public header.
uint32_t H5_checksum_lookup3(const void *key, size_t length, uint32_t start);
uint32_t H5_checksum_fletcher32(const void *data, size_t length);

static uint32_t read_u32(const uint8_t *bytes)
{
    uint32_t number;
    memcpy(&number, bytes, sizeof number);
    return number;
}

// A header has no length that is easy to read: it ends where its checksum is right.
static void find_header(Base *base, size_t start)
{
    for (size_t end = start + 4; end + 4 <= base->size; end++) {
        uint32_t checksum = H5_checksum_lookup3(base->bytes + start, end - start, 0);
        if (checksum != read_u32(base->bytes + end))
            continue;
        CHECK(base->n_headers < MOST_BLOCKS, "more than %d headers", MOST_BLOCKS);
        base->headers[base->n_headers++] = (Block){start, end};
        return;
    }
    CHECK(false, "no end of the header at %zu", start);
}

static void find_chunk(Block *out, const char *path, const char *name)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(dataset);
    hsize_t first, size;
    haddr_t address;
    unsigned mask;
    CHECK(H5Dget_chunk_info(dataset, space, 0, &first, &mask, &address, &size) >= 0, "%s", path);
    *out = (Block){(size_t)address, (size_t)(address + size) - 4};
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
}

static void add_field(Base *base, size_t start, size_t n_bytes)
{
    CHECK(base->n_fields < MOST_BLOCKS && start + n_bytes <= base->size, "field at %zu", start);
    base->fields[base->n_fields++] = (Block){start, start + n_bytes};
}

// The value of an attribute. Its message is the sizes of name, type and space, two bytes each, a
// byte for the character set, then name, type, space and value; the type has its size at 4.
static void find_attribute(Base *base, const char *name)
{
    size_t n_bytes = strlen(name) + 1;
    const uint8_t *found = memmem(base->bytes, base->size, name, n_bytes);
    CHECK(found != NULL, "no attribute %s", name);
    size_t start = n_bytes + found[-5] + found[-3];
    add_field(base, (size_t)(found - base->bytes) + start, read_u32(found + n_bytes + 4));
}

// The length of a data set: followed by its limit, none.
static void find_length(Base *base, uint64_t length)
{
    uint64_t message[2] = {length, UINT64_MAX};
    const uint8_t *found = memmem(base->bytes, base->size, message, sizeof message);
    CHECK(found != NULL, "no data set of length %d", (int)length);
    add_field(base, (size_t)(found - base->bytes), sizeof length);
}

static void find_fields(Base *base, const char *path)
{
    static const char *const names[] = {"format",     "version", "tokenizer_sha256",
                                        "vocab_size", "eos_id",  "source"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        find_attribute(base, names[i]);
    Shard *shard;
    CHECK(shard_open(&shard, path) == OK, "%s", fail_text());
    find_length(base, (uint64_t)shard_info(shard)->n_tokens);
    find_length(base, (uint64_t)shard_info(shard)->n_documents + 1);
    shard_close(shard);
    size_t end = base->headers[base->n_headers - 1].end + 4; // indices and chunks lie behind
    add_field(base, end, base->size - end);
}

static void load_base(Base *base, const char *path)
{
    static const char *const signatures[] = {"\x89HDF", "OHDR", "OCHK"};
    FileMap map;
    CHECK(file_map(&map, path) == OK && map.size_bytes <= MOST_BYTES, "%s: %s", path, fail_text());
    base->size = (size_t)map.size_bytes;
    memcpy(base->bytes, map.bytes, base->size);
    file_unmap(&map);
    for (size_t at = 0; at + 8 <= base->size; at++)
        for (size_t i = 0; i < sizeof signatures / sizeof signatures[0]; i++)
            if (memcmp(base->bytes + at, signatures[i], 4) == 0)
                find_header(base, at);
    find_chunk(&base->chunks[0], path, "tokens");
    find_chunk(&base->chunks[1], path, "documents");
    find_fields(base, path);
}

static void put_u64(uint8_t *file, size_t size, size_t at, uint64_t number)
{
    for (size_t i = 0; i < 8 && at + i < size; i++)
        file[at + i] = (uint8_t)(number >> (8 * i));
}

// Half of the places are those of the small fields.
static size_t place_in_fields(const Base *base, size_t place)
{
    const Block *last = &base->fields[base->n_fields - 1];
    if (place % 2 == 0)
        return last->start + place / 2 % (last->end - last->start);
    const Block *field = &base->fields[place / 2 % (size_t)(base->n_fields - 1)];
    return field->start + place / 256 % (field->end - field->start);
}

// One edit of a copy of the base: where (2 bytes), what, by how much. Returns the new size.
static size_t apply(uint8_t *file, size_t size, const Base *base, uint8_t settings,
                    const uint8_t edit[EDIT_BYTES])
{
    size_t at = (size_t)(edit[0] | edit[1] << 8);
    if ((settings & MEND_HEADERS) != 0)
        at = place_in_fields(base, at);
    at %= size;
    switch (edit[2] % 8) {
    case 0:
        file[at] = edit[3];
        break;
    case 1:
        file[at] ^= (uint8_t)(1 << (edit[3] & 7));
        break;
    case 2: // a power of two, or one less
        put_u64(file, size, at, ((uint64_t)1 << (edit[3] & 63)) - (edit[3] >> 7));
        break;
    case 3:
        put_u64(file, size, at, edit[3]);
        break;
    case 4: // bytes from further on
        if (at + 8u * edit[3] + 8 <= size)
            memmove(file + at, file + at + 8u * edit[3], 8);
        break;
    case 5:
        file[at] = (uint8_t)(file[at] + edit[3]);
        break;
    case 6:
        memset(file + at, edit[3], size - at < 16 ? size - at : 16);
        break;
    case 7:
        return edit[3] == 0xff ? at + 1 : size;
    }
    return size;
}

static void put_checksum(uint8_t *file, const Block *block, uint32_t checksum)
{
    memcpy(file + block->end, &checksum, sizeof checksum);
}

static void mend(uint8_t *file, size_t size, const Base *base, uint8_t settings)
{
    for (int i = 0; i < base->n_headers && (settings & MEND_HEADERS) != 0; i++) {
        const Block *block = &base->headers[i];
        if (block->end + 4 <= size)
            put_checksum(file, block,
                         H5_checksum_lookup3(file + block->start, block->end - block->start, 0));
    }
    for (int i = 0; i < 2 && (settings & MEND_CHUNKS) != 0; i++) {
        const Block *block = &base->chunks[i];
        if (block->end + 4 <= size)
            put_checksum(file, block,
                         H5_checksum_fletcher32(file + block->start, block->end - block->start));
    }
}

static int check_shard(const char *path)
{
    Shard *shard;
    int64_t n_chunks = 0;
    Status status = shard_open(&shard, path);
    if (status != OK)
        return fuzz_check_refusal(status);
    const ShardInfo *info = shard_info(shard);
    int32_t ids[64];
    int64_t n = info->n_tokens < 64 ? info->n_tokens : 64;
    CHECK(info->n_documents > 0 && info->n_tokens > 0, "%s: empty", path);
    status = shard_read(shard, info->n_tokens - n, n, ids);
    for (int64_t i = 0; i < n && status == OK; i++)
        CHECK(ids[i] >= 0 && ids[i] < info->vocab_size, "%s: token %d", path, (int)ids[i]);
    if (status != OK)
        fuzz_check_refusal(status);
    status = shard_verify(shard, &n_chunks);
    if (status != OK)
        fuzz_check_refusal(status);
    shard_close(shard);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[MOST_BYTES];
    FuzzInput input = {data, size};
    uint8_t settings = fuzz_take_byte(&input);
    if (bases[0].size == 0) {
        H5set_free_list_limits(-1, -1, -1, -1, -1, -1); // its cache of metadata is half a MB
        load_base(&bases[0], FUZZ_DIR "/base/uint16.h5");
        load_base(&bases[1], FUZZ_DIR "/base/uint32.h5");
    }
    const Base *base = &bases[settings & CHOOSE_BASE];
    size_t file_bytes = base->size;
    memcpy(file, base->bytes, base->size);
    for (; input.size >= EDIT_BYTES; input.bytes += EDIT_BYTES, input.size -= EDIT_BYTES)
        file_bytes = apply(file, file_bytes, base, settings, input.bytes);
    mend(file, file_bytes, base, settings);
    return check_shard(fuzz_file("shard.h5", file, file_bytes));
}
