// data/text: the same documents and the same errors whether a file is plain, gzip of one member or
// of two, or zstd of two frames, and wherever the reader's blocks end in it (they are small in the
// fuzz build). The first three bytes are settings.
#include "tests/fuzz/fuzzing.h"

#include "base/file_kind.h"
#include "data/text/text.h"
#include "data/tokenizer/tokenizer_text.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum {
    GZIP_BYTES = 23,     // around the data of a member
    LEAST_BEFORE = 16,   // bytes of a document with what ends it
    MOST_STORED = 65535, // bytes of a stored deflate block
};

typedef struct Settings {
    bool is_jsonl;
    bool is_compressed; // the text is read out of gzip and zstd, too
    bool is_as_given;   // the input is the file; else it is its text
    size_t cut;         // bytes of the first member
    size_t before;      // bytes of a document before the input; 0: none
    TextOptions options;
} Settings;

// What a file came to: its documents, hashed one after another with their sizes, and its end.
typedef struct Outcome {
    int64_t n, bytes;
    uint32_t hash;
    Status status;
    TextSkips skipped;
} Outcome;

static void put_number(uint8_t *out, uint32_t number, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        out[i] = (uint8_t)(number >> (8 * i));
}

// One gzip member whose deflate data is one stored block.
static size_t put_member(uint8_t *out, const uint8_t *bytes, size_t size)
{
    static const uint8_t header[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1};
    memcpy(out, header, sizeof header);
    put_number(out + 11, (uint32_t)size, 2);
    put_number(out + 13, ~(uint32_t)size, 2);
    if (size > 0)
        memcpy(out + 15, bytes, size);
    put_number(out + 15 + size, (uint32_t)crc32(0, bytes, (uInt)size), 4);
    put_number(out + 19 + size, (uint32_t)size, 4);
    return size + GZIP_BYTES;
}

static void add_document(Outcome *outcome, const TextDocument *document, const char *path)
{
    uint32_t size = (uint32_t)document->size_bytes;
    CHECK(document->size_bytes > 0, "%s: an empty document", path);
    outcome->n++;
    outcome->bytes += document->size_bytes;
    outcome->hash = (uint32_t)crc32(outcome->hash, (const Bytef *)&size, sizeof size);
    outcome->hash = (uint32_t)crc32(outcome->hash, (const Bytef *)document->bytes, size);
}

// Reads the file to its end or first error, leaving out the first `n_before` documents.
static Outcome read_file(const char *path, const TextOptions *options, int n_before)
{
    Outcome outcome = {0};
    TextOptions own = *options;
    TextReader *reader;
    if (own.skipped != NULL)
        own.skipped = &outcome.skipped;
    outcome.status = text_open(&reader, path, &own);
    CHECK(outcome.status == OK, "%s", fail_text());
    for (;;) {
        TextDocument document;
        outcome.status = text_next(reader, &document);
        if (outcome.status != OK || document.bytes == NULL)
            break;
        if (n_before-- <= 0)
            add_document(&outcome, &document, path);
    }
    if (outcome.status != OK)
        fuzz_check_refusal(outcome.status);
    else if (own.skipped == NULL)
        CHECK(text_offset_bytes(reader) >= 0, "%s: offset", path);
    text_close(reader);
    return outcome;
}

static void check_same(const Outcome *a, const Outcome *b, const char *what)
{
    CHECK(a->n == b->n && a->bytes == b->bytes && a->hash == b->hash && a->status == b->status &&
              memcmp(&a->skipped, &b->skipped, sizeof a->skipped) == 0,
          "%s: %lld documents of %lld bytes, status %d; %lld of %lld, status %d: %s", what,
          (long long)b->n, (long long)b->bytes, (int)b->status, (long long)a->n,
          (long long)a->bytes, (int)a->status, fail_text());
}

static const char *put_file(const Settings *settings, const void *bytes, size_t size)
{
    return fuzz_file(settings->is_jsonl ? "text.jsonl.gz" : "text.txt.gz", bytes, size);
}

static void check_gzip(const Settings *settings, const FuzzInput *text, const Outcome *plain)
{
    uint8_t *file = malloc(text->size + 2 * GZIP_BYTES);
    size_t cut = settings->cut < text->size ? settings->cut : text->size;
    CHECK(file != NULL, "no memory");
    size_t used = put_member(file, text->bytes, cut);
    used += put_member(file + used, text->bytes + cut, text->size - cut);
    Outcome outcome = read_file(put_file(settings, file, used), &settings->options, 0);
    free(file);
    check_same(plain, &outcome, "gzip");
}

// A skippable frame between two others makes no difference.
static void check_zstd(const Settings *settings, const FuzzInput *text, const Outcome *plain)
{
    static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'};
    const size_t cut = settings->cut < text->size ? settings->cut : text->size;
    const size_t capacity = 2 * ZSTD_compressBound(text->size) + sizeof skippable;
    uint8_t *file = malloc(capacity);
    CHECK(file != NULL, "no memory");
    size_t used = ZSTD_compress(file, capacity, text->bytes, cut, 1);
    CHECK(!ZSTD_isError(used), "zstd");
    memcpy(file + used, skippable, sizeof skippable);
    used += sizeof skippable;
    const size_t last =
        ZSTD_compress(file + used, capacity - used, text->bytes + cut, text->size - cut, 1);
    CHECK(!ZSTD_isError(last), "zstd");
    Outcome outcome = read_file(put_file(settings, file, used + last), &settings->options, 0);
    free(file);
    check_same(plain, &outcome, "zstd");
}

static bool is_compressed_itself(const FuzzInput *text)
{
    const uint8_t *b = text->bytes;
    if (text->size >= 2 && memcmp(b, "\x1f\x8b", 2) == 0)
        return true;
    return text->size >= 4 && (memcmp(b, "\x28\xb5\x2f\xfd", 4) == 0 ||
                               ((b[0] & 0xf0) == 0x50 && memcmp(b + 1, "\x2a\x4d\x18", 3) == 0));
}

// Behind another document these bytes are nothing special: a byte order mark, the magic number of
// another kind of file, UTF-16.
static bool is_told_by_its_start(const FuzzInput *text)
{
    if (text->size >= 3 && memcmp(text->bytes, "\xef\xbb\xbf", 3) == 0)
        return true;
    return file_kind_of_bytes(text->bytes, (int64_t)text->size) != NULL ||
           (text->size >= 4 && memchr(text->bytes, 0, 4) != NULL);
}

// A .txt without a separator is one document: the bytes behind the byte order mark, if they are
// UTF-8 without zeros and not a file of another kind, as which they may be refused.
static void check_whole(const Settings *settings, const FuzzInput *text, const Outcome *plain)
{
    if (settings->is_jsonl || settings->options.separator != NULL ||
        plain->skipped.counts[TEXT_DAMAGED] > 0 || plain->status != OK)
        return;
    size_t mark = text->size >= 3 && memcmp(text->bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    Outcome whole = {0};
    TextDocument document = {(const char *)text->bytes + mark, (int64_t)(text->size - mark)};
    if (utf8_valid_bytes(document.bytes, document.size_bytes) < document.size_bytes ||
        memchr(document.bytes, 0, (size_t)document.size_bytes) != NULL)
        whole.skipped.counts[TEXT_NOT_UTF8] = 1;
    else if (document.size_bytes > 0)
        add_document(&whole, &document, "the text");
    check_same(&whole, plain, "as one document");
}

// The input behind a document, so that blocks end at other places in it.
static void check_behind_another(const Settings *settings, const FuzzInput *text,
                                 const Outcome *plain)
{
    static const char start[] = "{\"text\":\"", end[] = "\"}\n";
    const char *mark = settings->is_jsonl ? end : settings->options.separator;
    size_t size = settings->before, mark_bytes = strlen(mark);
    uint8_t *file = malloc(size + text->size);
    CHECK(file != NULL, "no memory");
    memset(file, 'a', size);
    if (settings->is_jsonl)
        memcpy(file, start, sizeof start - 1);
    memcpy(file + size - mark_bytes, mark, mark_bytes);
    if (text->size > 0)
        memcpy(file + size, text->bytes, text->size);
    Outcome outcome = read_file(put_file(settings, file, size + text->size), &settings->options, 1);
    free(file);
    check_same(plain, &outcome, "behind another document");
}

static Settings take_settings(FuzzInput *input)
{
    static TextSkips count;
    static const char *const separators[] = {NULL, "\n", "<|endoftext|>", "aab"};
    uint8_t flags = fuzz_take_byte(input), cut = fuzz_take_byte(input);
    uint8_t before = fuzz_take_byte(input);
    Settings settings = {
        .is_jsonl = flags & 1, .is_as_given = flags & 2, .is_compressed = flags & 4};
    settings.cut = cut;
    settings.options.separator = separators[flags >> 4 & 3];
    settings.options.skipped = flags & 8 ? &count : NULL;
    settings.options.field = flags & 64 ? "content" : NULL;
    bool can_follow =
        settings.is_jsonl ? settings.options.field == NULL : settings.options.separator != NULL;
    if ((flags & 128) != 0 && can_follow)
        settings.before = LEAST_BEFORE + before;
    return settings;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = {data, size};
    Settings settings = take_settings(&input);
    Outcome plain = read_file(put_file(&settings, input.bytes, input.size), &settings.options, 0);
    if (settings.is_as_given || is_compressed_itself(&input) || input.size > MOST_STORED)
        return 0;
    check_whole(&settings, &input, &plain);
    if (settings.is_compressed) {
        check_gzip(&settings, &input, &plain);
        check_zstd(&settings, &input, &plain);
    }
    if (settings.before > 0 && !is_told_by_its_start(&input))
        check_behind_another(&settings, &input, &plain);
    return 0;
}
