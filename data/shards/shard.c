// The reader trusts nothing: a shard is checked when it is opened as far as that is cheap
// (attributes, types, filters, where documents lie), and its tokens when they are read (checksum of
// each chunk, every id below the vocabulary). A wrong token would train the model on noise without
// a sign.
#include "data/shards/shard.h"

#include "base/file.h"
#include "base/hdf5_error.h"
#include "base/hdf5_file.h"
#include "data/shards/shard_format.h"
#include "data/shards/shard_row.h"

#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

struct Shard {
    char path[PATH_BYTES];
    hid_t file;                 // owned
    ShardRow tokens, documents; // owned
    ShardInfo info;
};

// An attribute of the root. A handle that fails to open is negative; HDF5 refuses it in every later
// call, so one check at the read is enough.
static Status open_attribute(hid_t *out, const Shard *shard, const char *name)
{
    char what[128];
    snprintf(what, sizeof what, "attribute '%s' is missing", name);
    if (H5Aexists(shard->file, name) <= 0)
        return hdf5_fail(BAD_INPUT, shard->path, what);
    *out = H5Aopen(shard->file, name, H5P_DEFAULT);
    return OK;
}

// Reads a scalar attribute of the root as int64. h5py may have written another width or sign.
static Status read_int(int64_t *out, const Shard *shard, const char *name, int64_t min, int64_t max)
{
    char what[128];
    hid_t attribute = H5I_INVALID_HID;
    TRY(open_attribute(&attribute, shard, name));
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    int64_t value = 0;
    snprintf(what, sizeof what, "attribute '%s' is not one whole number", name);
    Status status = OK;
    if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
        H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0)
        status = hdf5_fail(BAD_INPUT, shard->path, what);
    else if (value < min || value > max)
        status = fail(BAD_INPUT, "%s: attribute '%s' is %lld, allowed are %lld to %lld",
                      shard->path, name, (long long)value, (long long)min, (long long)max);
    else
        *out = value;
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

// h5py writes variable-length text, we write fixed-length text: a new string with either, or NULL.
static char *read_any_text(hid_t attribute, hid_t type)
{
    if (H5Tis_variable_str(type) > 0) {
        char *text = NULL, *copy = NULL;
        hid_t memory_type = H5Tcopy(H5T_C_S1);
        H5Tset_size(memory_type, H5T_VARIABLE);
        H5Tset_cset(memory_type, H5Tget_cset(type));
        if (H5Aread(attribute, memory_type, &text) >= 0 && text != NULL)
            copy = strdup(text);
        H5free_memory(text);
        H5Tclose(memory_type);
        return copy;
    }
    size_t size = H5Tget_size(type);
    if (size == 0 || size > 1 << 20) // a damaged type may claim any size
        return NULL;
    char *text = calloc(size + 1, 1); // the file's text need not end in a zero
    if (text != NULL && H5Aread(attribute, type, text) < 0) {
        free(text);
        return NULL;
    }
    return text;
}

// Reads a text attribute of the root, cut to out_bytes - 1 bytes.
static Status read_text(char *out, size_t out_bytes, const Shard *shard, const char *name)
{
    char what[128];
    hid_t attribute = H5I_INVALID_HID;
    TRY(open_attribute(&attribute, shard, name));
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    char *text = NULL;
    if (H5Tget_class(type) == H5T_STRING && H5Sget_simple_extent_npoints(space) == 1)
        text = read_any_text(attribute, type);
    Status status = OK;
    snprintf(what, sizeof what, "attribute '%s' is not one text", name);
    if (text == NULL)
        status = hdf5_fail(BAD_INPUT, shard->path, what);
    else
        snprintf(out, out_bytes, "%s", text);
    for (char *c = out; text != NULL && *c != '\0'; c++) {
        if ((unsigned char)*c < ' ') // it may be shown in a one-line message
            *c = ' ';
    }
    free(text);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

// The attributes of the root, each with its bounds; info is filled at the end.
static Status read_attributes(Shard *shard)
{
    char format[64];
    if (H5Aexists(shard->file, "format") <= 0)
        return fail(BAD_INPUT,
                    "%s: not a token shard, attribute 'format' is missing; make shards with "
                    "mha2mla tokenize",
                    shard->path);
    TRY(read_text(format, sizeof format, shard, "format"));
    if (strcmp(format, SHARD_FORMAT) != 0)
        return fail(BAD_INPUT,
                    "%s: its format is '%s', not '%s'; make shards with mha2mla tokenize",
                    shard->path, format, SHARD_FORMAT);
    int64_t version, vocab_size, eos_id;
    // The version is checked before anything else is read: a newer format may give the other
    // attributes another meaning.
    TRY(read_int(&version, shard, "version", SHARD_VERSION, SHARD_VERSION));
    TRY(read_int(&vocab_size, shard, "vocab_size", 1, INT32_MAX));
    // -1: the tokenizer has no token that ends a document.
    TRY(read_int(&eos_id, shard, "eos_id", -1, vocab_size - 1));
    char sha256[SHA256_HEX_BYTES + 1]; // one more, so that a longer text shows
    TRY(read_text(sha256, sizeof sha256, shard, "tokenizer_sha256"));
    if (strlen(sha256) != SHA256_HEX_BYTES - 1 ||
        strspn(sha256, "0123456789abcdef") != SHA256_HEX_BYTES - 1)
        return fail(BAD_INPUT,
                    "%s: attribute 'tokenizer_sha256' is '%s', not 64 hexadecimal digits",
                    shard->path, sha256);
    TRY(read_text(shard->info.source, sizeof shard->info.source, shard, "source"));
    shard->info.tokens_crc32 = -1;
    if (H5Aexists(shard->file, "tokens_crc32") > 0) // of older versions none has it
        TRY(read_int(&shard->info.tokens_crc32, shard, "tokens_crc32", 0, UINT32_MAX));
    memcpy(shard->info.tokenizer_sha256, sha256, SHA256_HEX_BYTES);
    shard->info.vocab_size = (int)vocab_size;
    shard->info.eos_id = (int)eos_id;
    return OK;
}

// The offsets start at 0, never descend and end at the number of tokens.
// Read once, in blocks on the stack: a shard of 10^7 documents would otherwise hold 80 MB of
// offsets that training never asks for.
static Status check_offsets(Shard *shard)
{
    enum { BLOCK = 4096 };
    int64_t block[BLOCK], before = 0;
    const int64_t n = shard->info.n_documents + 1;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        TRY(shard_row_read64(&shard->documents, first, count, block));
        for (int64_t i = 0; i < count; i++) {
            const bool starts_wrong = first + i == 0 && block[i] != 0;
            if (starts_wrong || block[i] < before || block[i] > shard->info.n_tokens)
                return fail(BAD_INPUT,
                            "%s: /documents[%lld] is %lld after %lld, of %lld tokens; offsets "
                            "start at 0 and do not descend",
                            shard->path, (long long)(first + i), (long long)block[i],
                            (long long)before, (long long)shard->info.n_tokens);
            before = block[i];
        }
        shard->info.documents_crc32 =
            (uint32_t)crc32(shard->info.documents_crc32, (const Bytef *)block,
                            (uInt)((size_t)count * sizeof *block));
    }
    if (before != shard->info.n_tokens)
        return fail(BAD_INPUT, "%s: its documents end at token %lld, but it has %lld", shard->path,
                    (long long)before, (long long)shard->info.n_tokens);
    return OK;
}

// Attributes before data sets: a file of another kind or version gets the message that says so, not
// one about a missing /tokens.
static Status read_header(Shard *shard)
{
    TRY(hdf5_open(&shard->file, shard->path));
    TRY(read_attributes(shard));
    // The width follows from the vocabulary; a file that has another one is refused.
    const int token_bytes = shard->info.vocab_size > SHARD_SMALL_VOCAB ? 4 : 2;
    TRY(shard_row_open(&shard->tokens, shard->file, shard->path, "tokens", token_bytes));
    TRY(shard_row_open(&shard->documents, shard->file, shard->path, "documents", 8));
    shard->info.n_tokens = shard->tokens.length;
    shard->info.n_documents = shard->documents.length - 1;
    if (shard->info.n_tokens < 1 || shard->info.n_documents < 1)
        return fail(BAD_INPUT, "%s: empty: %lld tokens, %lld document offsets", shard->path,
                    (long long)shard->tokens.length, (long long)shard->documents.length);
    return check_offsets(shard);
}

Status shard_open(Shard **out, const char *path)
{
    hdf5_silence();
    // HDF5 says only "unable to open file" of a missing name and of a directory.
    if (access(path, R_OK) != 0)
        return fail(BAD_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    if (file_is_dir(path))
        return fail(BAD_INPUT, "%s: is a directory, not a token shard", path);
    Shard *shard = calloc(1, sizeof *shard);
    if (shard == NULL)
        return fail(FAILED, "%s: out of memory", path);
    shard->file = H5I_INVALID_HID;
    Status status;
    if (snprintf(shard->path, PATH_BYTES, "%s", path) >= PATH_BYTES) {
        status = fail(BAD_INPUT, "%.200s...: path longer than %d bytes", path, PATH_BYTES);
        goto close;
    }
    TRY_GOTO(close, read_header(shard));
    *out = shard;
    return OK;
close:
    shard_close(shard);
    return status;
}

const ShardInfo *shard_info(const Shard *shard)
{
    return &shard->info;
}

const char *shard_path(const Shard *shard)
{
    return shard->path;
}

int64_t shard_chunk_tokens(const Shard *shard)
{
    return shard->tokens.chunk_length;
}

Status shard_read(Shard *shard, int64_t first, int64_t count, int32_t *out)
{
    CHECK(first >= 0 && count >= 0 && first <= shard->info.n_tokens - count,
          "%s: tokens %lld + %lld of %lld", shard->path, (long long)first, (long long)count,
          (long long)shard->info.n_tokens);
    hdf5_silence();
    // Checked per token and not per chunk: the checksum covers what was written, not that it was
    // right.
    TRY(shard_row_read32(&shard->tokens, first, count, out));
    for (int64_t i = 0; i < count; i++) {
        // A stored id above INT32_MAX arrives as INT32_MAX, which no vocabulary has either.
        if (out[i] < 0 || out[i] >= shard->info.vocab_size)
            return fail(BAD_INPUT, "%s: token %lld is %d, the vocabulary has %d; damaged?",
                        shard->path, (long long)(first + i), (int)out[i], shard->info.vocab_size);
    }
    return OK;
}

// Chunks whose own checksums are right may still be others than those that were written: a program
// that changes tokens through HDF5 makes new checksums of chunks, but not this one.
static Status check_tokens_crc32(const Shard *shard, uint32_t computed)
{
    const int64_t stored = shard->info.tokens_crc32;
    if (stored < 0 || stored == computed)
        return OK;
    return fail(BAD_INPUT,
                "%s: its tokens were changed after it was written: they have CRC-32 %08x, "
                "attribute 'tokens_crc32' is %08llx; make the shard again",
                shard->path, computed, (unsigned long long)stored);
}

// /documents was read whole when the shard was opened.
// For mha2mla inspect: every chunk is decoded, damaged or not.
Status shard_verify(Shard *shard, int64_t *n_chunks)
{
    const int64_t length = shard->tokens.chunk_length, n = shard_row_n_chunks(&shard->tokens);
    char first_text[1024] = "";
    int64_t n_damaged = 0;
    uint32_t tokens_crc32 = 0;
    Status first = OK;
    int32_t *ids = malloc((size_t)length * sizeof *ids);
    if (ids == NULL)
        return fail(FAILED, "%s: out of memory for a chunk of %lld tokens", shard->path,
                    (long long)length);
    // All of them: how many are damaged tells a bad copy from one bad bit.
    for (int64_t c = 0; c < n; c++) {
        const int64_t rest = shard->info.n_tokens - c * length;
        const int64_t count = rest < length ? rest : length;
        const Status status = shard_read(shard, c * length, count, ids);
        if (status == OK) {
            tokens_crc32 = (uint32_t)crc32(tokens_crc32, (const Bytef *)ids,
                                           (uInt)((size_t)count * sizeof *ids));
            continue;
        }
        if (n_damaged++ == 0) {
            first = status;
            snprintf(first_text, sizeof first_text, "%s", fail_text());
        }
    }
    free(ids);
    if (n_damaged > 1)
        return fail(first, "%s; %lld of %lld chunks are damaged", first_text, (long long)n_damaged,
                    (long long)n);
    if (n_damaged == 1)
        return fail(first, "%s", first_text);
    TRY(check_tokens_crc32(shard, tokens_crc32));
    *n_chunks = n + shard_row_n_chunks(&shard->documents);
    return OK;
}

// Also for a shard that was opened half-way.
void shard_close(Shard *shard)
{
    if (shard == NULL)
        return;
    hdf5_silence();
    shard_row_close(&shard->tokens);
    shard_row_close(&shard->documents);
    if (shard->file >= 0)
        H5Fclose(shard->file);
    free(shard);
}
