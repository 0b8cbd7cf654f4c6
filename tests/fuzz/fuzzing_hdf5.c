#define _GNU_SOURCE // memmem
#include "tests/fuzz/fuzzing_hdf5.h"

#include "base/file.h"

#include <hdf5.h>
#include <string.h>

enum { EDIT_BYTES = 4, MOST_RANK = 4 };

// HDF5's own, as an oracle of ours; exported, but in no public header.
uint32_t H5_checksum_lookup3(const void *key, size_t length, uint32_t start);
uint32_t H5_checksum_fletcher32(const void *data, size_t length);

static uint32_t read_u32(const uint8_t *bytes)
{
    uint32_t number;
    memcpy(&number, bytes, sizeof number);
    return number;
}

// ---- the whole file ----------------------------------------------------------------------------

// A header has no length that is easy to read: it ends where its checksum is right.
static void find_header(Hdf5Base *base, size_t start)
{
    for (size_t end = start + 4; end + 4 <= base->size; end++) {
        uint32_t checksum = H5_checksum_lookup3(base->bytes + start, end - start, 0);
        if (checksum != read_u32(base->bytes + end))
            continue;
        CHECK(base->n_headers < HDF5_MOST_BLOCKS, "more than %d headers", HDF5_MOST_BLOCKS);
        base->headers[base->n_headers++] = (Hdf5Block){start, end};
        return;
    }
    CHECK(false, "no end of the header at %zu", start);
}

void hdf5_base_load(Hdf5Base *base, const char *path)
{
    static const char *const signatures[] = {"\x89HDF", "OHDR", "OCHK"};
    FileMap map;
    H5set_free_list_limits(-1, -1, -1, -1, -1, -1); // its cache of metadata is half a MB
    *base = (Hdf5Base){.path = path};
    CHECK(file_map(&map, path) == OK && map.size_bytes <= HDF5_MOST_BYTES, "%s: %s", path,
          fail_text());
    base->size = (size_t)map.size_bytes;
    memcpy(base->bytes, map.bytes, base->size);
    file_unmap(&map);
    for (size_t at = 0; at + 8 <= base->size; at++)
        for (size_t i = 0; i < sizeof signatures / sizeof signatures[0]; i++)
            if (memcmp(base->bytes + at, signatures[i], 4) == 0)
                find_header(base, at);
}

void hdf5_base_add_chunk(Hdf5Base *base, const char *name)
{
    hid_t file = H5Fopen(base->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(dataset);
    hsize_t first[MOST_RANK], size;
    haddr_t address;
    unsigned mask;
    CHECK(H5Dget_chunk_info(dataset, space, 0, first, &mask, &address, &size) >= 0, "%s",
          base->path);
    CHECK(base->n_chunks < HDF5_MOST_BLOCKS, "more than %d chunks", HDF5_MOST_BLOCKS);
    base->chunks[base->n_chunks++] = (Hdf5Block){(size_t)address, (size_t)(address + size) - 4};
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
}

static void add_field(Hdf5Base *base, size_t start, size_t n_bytes)
{
    CHECK(base->n_fields < HDF5_MOST_BLOCKS && start + n_bytes <= base->size, "field at %zu",
          start);
    base->fields[base->n_fields++] = (Hdf5Block){start, start + n_bytes};
}

// An attribute's message is the sizes of name, type and space, two bytes each, a byte for the
// character set, then name, type, space and value; the type has its size at 4.
void hdf5_base_add_attribute(Hdf5Base *base, const char *name)
{
    size_t n_bytes = strlen(name) + 1;
    const uint8_t *found = memmem(base->bytes, base->size, name, n_bytes);
    CHECK(found != NULL, "no attribute %s", name);
    size_t start = n_bytes + found[-5] + found[-3];
    add_field(base, (size_t)(found - base->bytes) + start, read_u32(found + n_bytes + 4));
}

// In the dataset's header its dims are followed by the limits of their growth.
void hdf5_base_add_dims(Hdf5Base *base, const char *name)
{
    hid_t file = H5Fopen(base->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(dataset);
    hsize_t dims[MOST_RANK], limits[MOST_RANK];
    const int rank = H5Sget_simple_extent_dims(space, dims, limits);
    CHECK(rank > 0 && rank <= MOST_RANK, "%s: rank %d", base->path, rank);
    const size_t n_bytes = (size_t)rank * sizeof *dims;
    uint8_t message[2 * sizeof dims];
    memcpy(message, dims, n_bytes);
    memcpy(message + n_bytes, limits, n_bytes);
    const uint8_t *found = memmem(base->bytes, base->size, message, 2 * n_bytes);
    CHECK(found != NULL, "no dims of %s", name);
    add_field(base, (size_t)(found - base->bytes), n_bytes);
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
}

void hdf5_base_add_rest(Hdf5Base *base)
{
    size_t end = base->headers[base->n_headers - 1].end + 4; // indices and chunks lie behind
    add_field(base, end, base->size - end);
}

// ---- the damage --------------------------------------------------------------------------------

static void put_u64(uint8_t *bytes, size_t size, uint64_t number)
{
    for (size_t i = 0; i < 8 && i < size; i++)
        bytes[i] = (uint8_t)(number >> (8 * i));
}

// From a place of a field to the field's end: an edit must not reach into what follows, a header of
// HDF5's own. Half of the places are those of the small fields.
static Hdf5Block place_in_fields(const Hdf5Base *base, size_t place)
{
    const Hdf5Block *last = &base->fields[base->n_fields - 1];
    if (place % 2 == 0)
        return (Hdf5Block){last->start + place / 2 % (last->end - last->start), last->end};
    const Hdf5Block *field = &base->fields[place / 2 % (size_t)(base->n_fields - 1)];
    return (Hdf5Block){field->start + place / 256 % (field->end - field->start), field->end};
}

// One edit of a copy of the base: where (2 bytes), what, by how much. Returns the new size.
static size_t apply(uint8_t *file, size_t size, const Hdf5Base *base, uint8_t settings,
                    const uint8_t edit[EDIT_BYTES])
{
    const size_t place = (size_t)(edit[0] | edit[1] << 8);
    Hdf5Block block = {place, size};
    if ((settings & HDF5_MEND_HEADERS) != 0)
        block = place_in_fields(base, place);
    block.start %= size;
    block.end = block.end < size ? block.end : size; // the file may have been cut before
    uint8_t *at = file + block.start;
    const size_t n = block.end > block.start ? block.end - block.start : 1;
    switch (edit[2] % 8) {
    case 0:
        *at = edit[3];
        break;
    case 1:
        *at ^= (uint8_t)(1 << (edit[3] & 7));
        break;
    case 2: // a power of two, or one less
        put_u64(at, n, ((uint64_t)1 << (edit[3] & 63)) - (edit[3] >> 7));
        break;
    case 3:
        put_u64(at, n, edit[3]);
        break;
    case 4: // bytes from further on
        if (block.start + 8u * edit[3] + 8 <= size)
            memmove(at, at + 8u * edit[3], n < 8 ? n : 8);
        break;
    case 5:
        *at = (uint8_t)(*at + edit[3]);
        break;
    case 6:
        memset(at, edit[3], n < 16 ? n : 16);
        break;
    case 7:
        return edit[3] == 0xff ? block.start + 1 : size;
    }
    return size;
}

static void put_checksum(uint8_t *file, const Hdf5Block *block, uint32_t checksum)
{
    memcpy(file + block->end, &checksum, sizeof checksum);
}

static void mend(uint8_t *file, size_t size, const Hdf5Base *base, uint8_t settings)
{
    for (int i = 0; i < base->n_headers && (settings & HDF5_MEND_HEADERS) != 0; i++) {
        const Hdf5Block *block = &base->headers[i];
        if (block->end + 4 <= size)
            put_checksum(file, block,
                         H5_checksum_lookup3(file + block->start, block->end - block->start, 0));
    }
    for (int i = 0; i < base->n_chunks && (settings & HDF5_MEND_CHUNKS) != 0; i++) {
        const Hdf5Block *block = &base->chunks[i];
        if (block->end + 4 <= size)
            put_checksum(file, block,
                         H5_checksum_fletcher32(file + block->start, block->end - block->start));
    }
}

size_t hdf5_base_edit(uint8_t file[HDF5_MOST_BYTES], const Hdf5Base *base, uint8_t settings,
                      FuzzInput *input)
{
    size_t n_bytes = base->size;
    memcpy(file, base->bytes, base->size);
    for (; input->size >= EDIT_BYTES; input->bytes += EDIT_BYTES, input->size -= EDIT_BYTES)
        n_bytes = apply(file, n_bytes, base, settings, input->bytes);
    mend(file, n_bytes, base, settings);
    return n_bytes;
}
