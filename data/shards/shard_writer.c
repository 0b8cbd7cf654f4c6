// HDF5 compresses a chunk when it leaves its cache and writes metadata when the file is closed, so
// a full disk may show at any call and at the close: everything is checked, and the file gets its
// name only after the close.
#include "base/file.h"
#include "base/hdf5_error.h"
#include "base/hdf5_file.h"
#include "base/temporary.h"
#include "data/shards/shard.h"
#include "data/shards/shard_format.h"

#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

// Appends go through buffers of whole chunks, so that HDF5 compresses each chunk once.
enum { BUFFER_TOKENS = 8 * SHARD_CHUNK_TOKENS, BUFFER_DOCUMENTS = SHARD_CHUNK_DOCUMENTS };

struct ShardWriter {
    char path[PATH_BYTES];
    char temporary[PATH_BYTES];
    int vocab_size;
    hid_t file, tokens, documents;
    int64_t tokens_written, documents_written; // in the file; offsets for documents
    int n_token_buffer, n_document_buffer;     // used of the buffers
    int32_t token_buffer[BUFFER_TOKENS];
    uint64_t document_buffer[BUFFER_DOCUMENTS];
    int64_t n_documents;
    uLong tokens_crc32; // of the ids in the file
};

// An extendable one-dimensional data set. Shuffle and deflate save a fifth of 16-bit ids and half
// of 32-bit ones; level 1, since level 4 saves 2 % more and takes 1.7 times as long. Fletcher32
// comes last, so it covers what is stored.
static hid_t create_dataset(hid_t file, const char *name, hid_t type, hsize_t chunk)
{
    const hsize_t none = 0, unlimited = H5S_UNLIMITED;
    hid_t dataset = H5I_INVALID_HID;
    hid_t space = H5Screate_simple(1, &none, &unlimited);
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    if (space >= 0 && plist >= 0 && H5Pset_chunk(plist, 1, &chunk) >= 0 &&
        H5Pset_shuffle(plist) >= 0 && H5Pset_deflate(plist, 1) >= 0 &&
        H5Pset_fletcher32(plist) >= 0)
        dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Pclose(plist);
    H5Sclose(space);
    return dataset;
}

// `stored` is the type in the file, `type` the one in memory.
static bool write_attribute(hid_t file, const char *name, hid_t stored, hid_t type,
                            const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT);
    bool written = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    if (attribute >= 0 && H5Aclose(attribute) < 0)
        written = false;
    H5Sclose(space);
    return written;
}

// Fixed length: such text lies in the object header, which has a checksum.
static bool write_text_attribute(hid_t file, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    bool written = type >= 0 && H5Tset_size(type, strlen(text) + 1) >= 0 &&
                   H5Tset_cset(type, H5T_CSET_UTF8) >= 0 &&
                   write_attribute(file, name, type, type, text);
    H5Tclose(type);
    return written;
}

static bool write_int_attribute(hid_t file, const char *name, int64_t value)
{
    return write_attribute(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

// Errors of the caller that would otherwise surface only when the shard is read.
static Status check_info(const char *path, const ShardInfo *info)
{
    if (info->vocab_size < 1 || info->eos_id < -1 || info->eos_id >= info->vocab_size)
        return fail(BAD_INPUT, "%s: no shard has vocabulary size %d and eos id %d", path,
                    info->vocab_size, info->eos_id);
    size_t n_hex = strspn(info->tokenizer_sha256, "0123456789abcdef");
    if (n_hex != SHA256_HEX_BYTES - 1 || info->tokenizer_sha256[n_hex] != '\0')
        return fail(BAD_INPUT, "%s: the tokenizer's SHA-256 '%.70s' is not 64 hexadecimal digits",
                    path, info->tokenizer_sha256);
    return OK;
}

// The order of calls matters for a full disk only: whatever fails, the temporary is removed by
// shard_abandon().
static Status create_file(ShardWriter *writer, const ShardInfo *info)
{
    // From V18 on metadata has checksums; from V110 on the file of a killed writer stays locked.
    writer->file = hdf5_create(writer->temporary, H5F_LIBVER_V18);
    if (writer->file < 0)
        return hdf5_fail(FAILED, writer->path, "cannot be written");
    hid_t type = info->vocab_size > SHARD_SMALL_VOCAB ? H5T_STD_U32LE : H5T_STD_U16LE;
    writer->tokens = create_dataset(writer->file, "tokens", type, SHARD_CHUNK_TOKENS);
    writer->documents =
        create_dataset(writer->file, "documents", H5T_STD_U64LE, SHARD_CHUNK_DOCUMENTS);
    if (writer->tokens < 0 || writer->documents < 0 ||
        !write_text_attribute(writer->file, "format", SHARD_FORMAT) ||
        !write_int_attribute(writer->file, "version", SHARD_VERSION) ||
        !write_text_attribute(writer->file, "tokenizer_sha256", info->tokenizer_sha256) ||
        !write_int_attribute(writer->file, "vocab_size", info->vocab_size) ||
        !write_int_attribute(writer->file, "eos_id", info->eos_id) ||
        !write_text_attribute(writer->file, "source", info->source))
        return hdf5_fail(FAILED, writer->path, "cannot be written");
    return OK;
}

Status shard_create(ShardWriter **out, const char *path, const ShardInfo *info)
{
    TRY(check_info(path, info));
    TRY(file_check_target(path));
    temporary_remove_dead(path);
    hdf5_silence();
    ShardWriter *writer = malloc(sizeof *writer); // with its buffers, about 280 KiB
    if (writer == NULL)
        return fail(FAILED, "%s: out of memory", path);
    memset(writer, 0, sizeof *writer);
    writer->file = writer->tokens = writer->documents = H5I_INVALID_HID;
    writer->vocab_size = info->vocab_size;
    writer->n_document_buffer = 1; // offset 0 of the first document
    Status status;
    int n = snprintf(writer->path, PATH_BYTES, "%s", path);
    if (n < 0 || n >= PATH_BYTES) {
        status = fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
        goto free_writer;
    }
    TRY_GOTO(free_writer, temporary_make(writer->temporary, path));
    TRY_GOTO(abandon, create_file(writer, info));
    *out = writer;
    return OK;
abandon:
    shard_abandon(writer);
    return status;
free_writer:
    free(writer);
    return status;
}

// Makes `dataset` longer by `count` and writes them at its end.
static bool extend(hid_t dataset, int64_t written, int64_t count, hid_t type, const void *values)
{
    const hsize_t start = (hsize_t)written, more = (hsize_t)count, size = start + more;
    if (H5Dset_extent(dataset, &size) < 0)
        return false;
    hid_t file_space = H5Dget_space(dataset);
    hid_t memory_space = H5Screate_simple(1, &more, NULL);
    bool done = file_space >= 0 && memory_space >= 0 &&
                H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &start, NULL, &more, NULL) >= 0 &&
                H5Dwrite(dataset, type, memory_space, file_space, H5P_DEFAULT, values) >= 0;
    // The extent may have grown although the write failed; the file is abandoned then.
    if (!done)
        hdf5_keep_reason();
    H5Sclose(memory_space);
    H5Sclose(file_space);
    return done;
}

// HDF5 converts from int32 to the width of the data set.
static Status flush_tokens(ShardWriter *writer)
{
    if (writer->n_token_buffer > 0 &&
        !extend(writer->tokens, writer->tokens_written, writer->n_token_buffer, H5T_NATIVE_INT32,
                writer->token_buffer))
        return hdf5_fail(FAILED, writer->path, "write failed");
    writer->tokens_crc32 =
        crc32(writer->tokens_crc32, (const Bytef *)writer->token_buffer,
              (uInt)((size_t)writer->n_token_buffer * sizeof *writer->token_buffer));
    writer->tokens_written += writer->n_token_buffer;
    writer->n_token_buffer = 0;
    return OK;
}

static Status flush_documents(ShardWriter *writer)
{
    if (writer->n_document_buffer > 0 &&
        !extend(writer->documents, writer->documents_written, writer->n_document_buffer,
                H5T_NATIVE_UINT64, writer->document_buffer))
        return hdf5_fail(FAILED, writer->path, "write failed");
    writer->documents_written += writer->n_document_buffer;
    writer->n_document_buffer = 0;
    return OK;
}

Status shard_append(ShardWriter *writer, const int32_t *ids, int64_t n_ids)
{
    CHECK(n_ids >= 0, "n_ids = %lld", (long long)n_ids);
    if (n_ids == 0)
        return OK;
    hdf5_silence();
    // An id beyond 16 bits would otherwise be clipped by HDF5's conversion without an error.
    for (int64_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= writer->vocab_size)
            return fail(BAD_INPUT, "%s: document %lld has token id %d, the vocabulary has %d",
                        writer->path, (long long)writer->n_documents, (int)ids[i],
                        writer->vocab_size);
        writer->token_buffer[writer->n_token_buffer++] = ids[i];
        if (writer->n_token_buffer == BUFFER_TOKENS) // a document may span any number of buffers
            TRY(flush_tokens(writer));
    }
    // /documents is the start of each document and the end of the last: n_documents + 1 offsets, of
    // which the first is 0.
    if (writer->n_document_buffer == BUFFER_DOCUMENTS)
        TRY(flush_documents(writer));
    writer->document_buffer[writer->n_document_buffer++] = (uint64_t)shard_writer_n_tokens(writer);
    writer->n_documents++;
    return OK;
}

int64_t shard_writer_n_tokens(const ShardWriter *writer)
{
    return writer->tokens_written + writer->n_token_buffer;
}

int64_t shard_writer_n_documents(const ShardWriter *writer)
{
    return writer->n_documents;
}

// Closes what is open; HDF5 writes its caches now, so this is where a full disk shows.
static bool close_file(ShardWriter *writer)
{
    bool closed = true;
    if (writer->tokens >= 0 && H5Dclose(writer->tokens) < 0) {
        closed = false;
        hdf5_keep_reason(); // the next call forgets it
    }
    if (writer->documents >= 0 && H5Dclose(writer->documents) < 0) {
        closed = false;
        hdf5_keep_reason();
    }
    if (writer->file >= 0 && H5Fclose(writer->file) < 0) {
        closed = false;
        hdf5_keep_reason();
    }
    writer->file = writer->tokens = writer->documents = H5I_INVALID_HID;
    return closed;
}

Status shard_finish(ShardWriter *writer)
{
    Status status;
    hdf5_silence();
    if (writer->n_documents == 0) {
        status = fail(BAD_INPUT, "%s: no tokens to write; is the text empty?", writer->path);
        goto abandon;
    }
    TRY_GOTO(abandon, flush_tokens(writer));
    TRY_GOTO(abandon, flush_documents(writer));
    const bool is_written =
        write_int_attribute(writer->file, "tokens_crc32", (int64_t)writer->tokens_crc32);
    if (!close_file(writer) || !is_written) {
        status = hdf5_fail(FAILED, writer->path, "write failed");
        goto abandon;
    }
    // HDF5 does not sync: file_publish() does, before the rename.
    status = file_publish(writer->temporary, writer->path); // removes the temporary if it fails
    free(writer);
    return status;
abandon:
    shard_abandon(writer);
    return status;
}

// The file is closed before it is removed, since HDF5 would write its caches into it.
void shard_abandon(ShardWriter *writer)
{
    if (writer == NULL)
        return;
    hdf5_silence();
    close_file(writer);
    unlink(writer->temporary);
    free(writer);
}
