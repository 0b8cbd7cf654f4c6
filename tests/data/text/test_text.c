// data/text/text: documents from .jsonl and .txt, plain and compressed, whole and broken.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "data/text/text.h"
#include "tests/support/testing_compress.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

static const char *write_plain(const char *name, const char *bytes, size_t size)
{
    const char *path = testing_path(testing_dir(), name);
    assert_ok(file_write(path, bytes, (int64_t)size));
    return path;
}

static const char *write_gzip(const char *name, const char *bytes, size_t size)
{
    const char *path = testing_path(testing_dir(), name);
    testing_append_gzip(path, bytes, size);
    return path;
}

static const char *write_zstd(const char *name, const char *bytes, size_t size)
{
    const char *path = testing_path(testing_dir(), name);
    testing_append_zstd(path, bytes, size);
    return path;
}

// Reads all documents and joins them with '|' behind each.
static Status read_all(char *out, size_t out_bytes, const char *path, const TextOptions *options)
{
    TextReader *reader;
    TextDocument document;
    size_t used = 0;
    TRY(text_open(&reader, path, options));
    Status status;
    while ((status = text_next(reader, &document)) == OK && document.bytes != NULL) {
        assert_true(used + (size_t)document.size_bytes + 2 <= out_bytes);
        memcpy(out + used, document.bytes, (size_t)document.size_bytes);
        used += (size_t)document.size_bytes;
        out[used++] = '|';
    }
    out[used] = '\0';
    text_close(reader);
    return status;
}

static void check_with(const char *name, const char *content, TextOptions options,
                       const char *expected)
{
    char got[1000];
    assert_ok(read_all(got, sizeof got, write_plain(name, content, strlen(content)), &options));
    assert_string_equal(got, expected);
    char packed[64];
    snprintf(packed, sizeof packed, "%s.gz", name);
    assert_ok(read_all(got, sizeof got, write_gzip(packed, content, strlen(content)), &options));
    assert_string_equal(got, expected);
    snprintf(packed, sizeof packed, "%s.zst", name);
    assert_ok(read_all(got, sizeof got, write_zstd(packed, content, strlen(content)), &options));
    assert_string_equal(got, expected);
}

static void check(const char *name, const char *content, const char *expected)
{
    check_with(name, content, (TextOptions){0}, expected);
}

static void check_refused(const char *content, const char *text)
{
    char got[1000];
    const TextOptions options = {0};
    const char *path = write_plain("bad.jsonl", content, strlen(content));
    assert_fails(BAD_INPUT, text, read_all(got, sizeof got, path, &options));
}

static void test_jsonl_lines_are_documents(void **state)
{
    (void)state;
    check("a.jsonl", "{\"text\": \"one\"}\n{\"id\": 7, \"text\": \"t\\nw\\u00f6\"}\n",
          "one|t\nw\xc3\xb6|");
}

static void test_jsonl_needs_no_last_line_break(void **state)
{
    (void)state;
    check("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}", "one|two|");
}

static void test_jsonl_takes_crlf_blank_lines_and_bom(void **state)
{
    (void)state;
    check("a.jsonl", "\xef\xbb\xbf{\"text\": \"one\"}\r\n\r\n  \t\n\n{\"text\": \"two\"}\r\n",
          "one|two|");
}

static void test_jsonl_skips_empty_documents(void **state)
{
    (void)state;
    check("a.jsonl", "{\"text\": \"\"}\n{\"text\": \"two\"}\n{\"text\": \"\"}\n", "two|");
}

static void test_jsonl_field_is_named(void **state)
{
    (void)state;
    check_with("a.jsonl", "{\"text\": \"no\", \"content\": \"yes\"}\n",
               (TextOptions){.field = "content"}, "yes|");
}

static void test_jsonl_ignores_what_numbers_are(void **state)
{
    (void)state;
    check("a.jsonl", "{\"id\": 18446744073709551615123, \"text\": \"x\"}\n", "x|");
    check("a.jsonl",
          "{\"score\": NaN, \"text\": \"x\\\\\\\"NaN\", \"of\": [-Infinity,Infinity]}\n"
          "{\"NaN\": NaN, \"text\": \"y\"}\n",
          "x\\\"NaN|y|");
    check("a.jsonl",
          "{\"score\": [1e999, -1.5E+999,1e-999, -0], \"text\": \"1e999\"}\n"
          "{\"text\": \"y\", \"score\": 1e999}\n",
          "1e999|y|");
    char content[1000] = "{\"text\": \"x\", \"id\": ";
    const size_t used = strlen(content);
    memset(content + used, '9', 500);
    strcpy(content + used + 500, "}\n");
    check("a.jsonl", content, "x|");
}

static void test_jsonl_ignores_halves_of_pairs_beside_the_text(void **state)
{
    (void)state;
    check("a.jsonl", "{\"title\": \"\\ud83d\", \"text\": \"x\"}\n", "x|");
    check("a.jsonl",
          "{\"\\uDC00\": [\"\\ud83d\\u0041\", \"\\\\\\ud83d\\ud83d\"], \"text\": "
          "\"\\ud83d\\ude00\\\\ud83d\\ufffd\", \"of\": 1e999}\n",
          "\xf0\x9f\x98\x80\\ud83d\xef\xbf\xbd|");
}

static void test_jsonl_text_may_hold_zero_bytes(void **state)
{
    (void)state;
    const char *content = "{\"text\": \"a\\u0000b\"}\n";
    const TextOptions options = {0};
    char got[10];
    assert_ok(
        read_all(got, sizeof got, write_plain("a.jsonl", content, strlen(content)), &options));
    assert_memory_equal(got, "a\0b|", 5);
}

static void test_jsonl_errors_name_the_line(void **state)
{
    (void)state;
    check_refused("{\"text\": \"x\"}\n\n{\"text\": \n", "bad.jsonl:3: not valid JSON at column 8");
    check_refused("{\"text\": \"x\"}\n{\"title\": \"x\"}\n",
                  "bad.jsonl:2: no field 'text'; name the one with the text by --text-field");
    check_refused("{\"text\": 5}", "bad.jsonl:1: field 'text' is not a string");
    check_refused("{\"text\": null}", "bad.jsonl:1: field 'text' is not a string");
    check_refused("[\"text\"]", "bad.jsonl:1: not a JSON object");
    check_refused("{\"text\": \"x\"} {\"text\": \"y\"}\n", "bad.jsonl:1: not valid JSON");
    check_refused("{\"text\": \"smile \\ud83d end\"}\n",
                  "bad.jsonl:1: field 'text' has half of a surrogate pair (\\ud800 to \\udfff)");
    check_refused("{\"text\": \"x\\udc00\", \"score\": NaN}\n", "half of a surrogate pair");
    check_refused("{\"text\": \"x\", \"score\": -NaN}\n", "bad.jsonl:1: not valid JSON");
    check_refused("{\"text\": \"x\", \"score\": 01e999}\n", "bad.jsonl:1: not valid JSON");
    check_refused("{\"text\": \"x\", \"score\": 1e999e999}\n", "bad.jsonl:1: not valid JSON");
    check_refused("{\"text\": NaN}\n", "field 'text' is not a string");
    check_refused("{\"text\": \"x\", \"score\": nan}\n", "bad.jsonl:1: not valid JSON");
    check_refused("{\"text\": \"x\" NaN}\n", "bad.jsonl:1: not valid JSON");
    check_refused("{\"text\": \"x\", \"score\": 0x1F}\n", "bad.jsonl:1: not valid JSON");
}

static void test_jsonl_of_deep_nesting_is_refused(void **state)
{
    (void)state;
    char content[20000];
    memset(content, '[', sizeof content - 1);
    content[sizeof content - 1] = '\0';
    check_refused(content, "bad.jsonl:1: not valid JSON");
}

static void test_txt_is_one_document_byte_for_byte(void **state)
{
    (void)state;
    check("a.txt", "one\r\ntwo\n\n", "one\r\ntwo\n\n|");
}

static void test_txt_is_split_at_the_separator(void **state)
{
    (void)state;
    check_with("a.txt",
               "one\ntwo\r\n<|endoftext|>\n\n three \n<|endoftext|>\n<|endoftext|><|endof\n",
               (TextOptions){.separator = "<|endoftext|>"}, "one\ntwo| three |<|endof|");
}

static void test_separator_may_be_line_breaks(void **state)
{
    (void)state;
    check_with("a.txt", "\none\ntwo\n\n\nthree\n", (TextOptions){.separator = "\n\n"},
               "one\ntwo|three|");
}

static void test_empty_files_have_no_documents(void **state)
{
    (void)state;
    check("a.txt", "", "");
    check("a.jsonl", "", "");
    check("a.jsonl", "\n\n", "");
    check("a.txt", "\xef\xbb\xbf", "");
}

// Longer than several blocks of the reader, with marks on and around the blocks' borders.
static void test_long_documents_and_borders(void **state)
{
    (void)state;
    enum { LONG = 1 << 19 };
    char *content = malloc(LONG + 100), *got = malloc(LONG + 100);
    assert_true(content != NULL && got != NULL);
    for (int shift = -4; shift <= 4; shift++) {
        memset(content, 'x', LONG);
        memcpy(content + (1 << 17) + shift, "<sep>", 5);
        memcpy(content + (3 << 17) + shift, "<sep>", 5);
        const TextOptions options = {.separator = "<sep>"};
        assert_ok(read_all(got, LONG + 100, write_gzip("a.txt.gz", content, LONG), &options));
        assert_int_equal(strchr(got, '|') - got, (1 << 17) + shift);
        assert_int_equal(strlen(got), LONG - 10 + 3);
    }
    memset(content, 'y', LONG);
    memcpy(content, "{\"text\": \"", 10);
    memcpy(content + LONG - 18, "\"}\n{\"text\": \"z\"}\n", 18);
    const TextOptions options = {0};
    assert_ok(read_all(got, LONG + 100, write_plain("a.jsonl", content, LONG - 1), &options));
    assert_int_equal(strlen(got), LONG - 28 + 3);
    assert_string_equal(got + LONG - 30, "yy|z|");
    free(content);
    free(got);
}

static void test_gzip_goes_by_content_and_has_members(void **state)
{
    (void)state;
    char got[100];
    const TextOptions options = {0};
    const char *path = write_gzip("a.jsonl", "{\"text\": \"one\"}\n", 16); // no .gz
    testing_append_gzip(path, "{\"text\": \"two\"}\n", 16);
    assert_ok(read_all(got, sizeof got, path, &options));
    assert_string_equal(got, "one|two|");
    assert_ok(read_all(got, sizeof got, write_plain("plain.txt.gz", "abc", 3), &options));
    assert_string_equal(got, "abc|");
}

static void test_damaged_gzip_is_refused(void **state)
{
    (void)state;
    char content[200 * 16 + 1], got[4000];
    for (int i = 0; i < 200; i++)
        snprintf(content + 16 * i, 17, "{\"text\":\"%04d\"}\n", i * 37);
    const char *path = write_gzip("a.jsonl.gz", content, sizeof content - 1);
    const TextOptions options = {0};
    FileMap map;
    assert_ok(file_map(&map, path));
    unsigned char *bytes = malloc((size_t)map.size_bytes);
    assert_non_null(bytes);
    const char *cut = testing_path(testing_dir(), "cut.jsonl.gz");
    for (int64_t size = 2; size < map.size_bytes; size++) {
        assert_ok(file_write(cut, map.bytes, size));
        assert_fails(BAD_INPUT, ": cannot be read: unexpected end of file (truncated",
                     read_all(got, sizeof got, cut, &options));
    }
    memcpy(bytes, map.bytes, (size_t)map.size_bytes);
    bytes[map.size_bytes / 2] ^= 1;
    assert_ok(file_write(cut, bytes, map.size_bytes));
    assert_fails(BAD_INPUT, ": cannot be read: ", read_all(got, sizeof got, cut, &options));
    free(bytes);
    file_unmap(&map);
}

// What is left of a file when faults are skipped, and what is said of it.
static void check_skipped(const char *path, TextOptions options, const char *expected,
                          const char *said)
{
    char got[4000], text[TEXT_SKIPS_BYTES];
    TextSkips skipped = {{0}};
    options.skipped = &skipped;
    log_set_quiet(true);
    assert_ok(read_all(got, sizeof got, path, &options));
    log_set_quiet(false);
    assert_string_equal(got, expected);
    text_describe_skips(text, &skipped);
    assert_string_equal(text, said);
}

static void test_faulty_lines_are_skipped_by_kind(void **state)
{
    (void)state;
    const char content[] = "{\"text\": \"one\"}\n{\"text\": \"t\n[1]\n{\"title\": \"x\"}\n"
                           "{\"text\": 5}\n{\"text\": null}\n{\"text\": \"two\"}\n{\"te";
    check_skipped(write_plain("a.jsonl", content, sizeof content - 1), (TextOptions){0}, "one|two|",
                  "3 lines of broken JSON, 1 line without the field, "
                  "2 lines with no string in the field");
    check_skipped(write_plain("b.jsonl", content, 16), (TextOptions){0}, "one|", "");
}

static void test_documents_before_a_truncation_are_kept(void **state)
{
    (void)state;
    // Stored, not deflated: the bytes before the cut are all there.
    const char *path = testing_path(testing_dir(), "a.jsonl.gz");
    const char content[] = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n{\"text\": \"three\"}\n";
    gzFile file = gzopen(path, "wb0");
    assert_int_equal(gzwrite(file, content, sizeof content - 1), sizeof content - 1);
    assert_int_equal(gzclose(file), Z_OK);
    FileMap map;
    assert_ok(file_map(&map, path));
    const char *cut = testing_path(testing_dir(), "cut.jsonl.gz");
    assert_ok(file_write(cut, map.bytes, map.size_bytes - 8 - 5)); // of trailer and third line
    check_skipped(cut, (TextOptions){0}, "one|two|", "1 damaged file (its rest)");
    char got[100];
    assert_fails(BAD_INPUT,
                 "cut.jsonl.gz:3: cannot be read: unexpected end of file (truncated gzip",
                 read_all(got, sizeof got, cut, &(TextOptions){0}));
    const char *text = testing_path(testing_dir(), "cut.txt.gz");
    assert_ok(file_write(text, map.bytes, map.size_bytes - 8 - 5));
    check_skipped(text, (TextOptions){.separator = "\n"},
                  "{\"text\": \"one\"}|{\"text\": \"two\"}|", "1 damaged file (its rest)");
    check_skipped(text, (TextOptions){0}, "", "1 damaged file (its rest)");
    file_unmap(&map);
}

static void test_flipped_bits_are_skipped_with_the_rest(void **state)
{
    (void)state;
    char content[200 * 16 + 1], got[4000];
    for (int i = 0; i < 200; i++)
        snprintf(content + 16 * i, 17, "{\"text\":\"%04d\"}\n", i * 37);
    const char *path = write_gzip("a.jsonl.gz", content, sizeof content - 1);
    FileMap map;
    assert_ok(file_map(&map, path));
    unsigned char *bytes = malloc((size_t)map.size_bytes);
    assert_non_null(bytes);
    const char *dir = testing_dir();
    log_set_quiet(true);
    for (int64_t at = 10; at < map.size_bytes; at++) {
        memcpy(bytes, map.bytes, (size_t)map.size_bytes);
        bytes[at] ^= 4;
        const char *bad = testing_path(dir, "bad.jsonl.gz");
        assert_ok(file_write(bad, bytes, map.size_bytes));
        TextSkips skipped = {{0}};
        assert_ok(read_all(got, sizeof got, bad, &(TextOptions){.skipped = &skipped}));
        assert_int_equal(skipped.counts[TEXT_DAMAGED], 1);
    }
    log_set_quiet(false);
    free(bytes);
    file_unmap(&map);
}

static void test_what_is_no_text_file_is_refused(void **state)
{
    (void)state;
    TextReader *reader;
    const TextOptions options = {0};
    assert_fails(BAD_INPUT, "/absent/a.txt: cannot be opened: No such file",
                 text_open(&reader, testing_absent("a.txt"), &options));
    assert_fails(BAD_INPUT, "a.parquet: the name of a text file ends in",
                 text_open(&reader, "a.parquet", &options));
    assert_fails(BAD_INPUT, "write the text column", text_open(&reader, "a.parquet", &options));
    assert_fails(BAD_INPUT, "with xz -d", text_open(&reader, "a.jsonl.xz", &options));
    assert_fails(BAD_INPUT, "gz: the name of a text file ends in",
                 text_open(&reader, "gz", &options));
    const char *dir = testing_path(testing_dir(), "d.txt");
    assert_ok(file_make_dirs(dir));
    assert_fails(BAD_INPUT, "d.txt: is a directory", text_open(&reader, dir, &options));
}

static void test_json_lines_may_be_named_json(void **state)
{
    (void)state;
    check("c4.json", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n", "one|two|");
}

static void test_other_kinds_of_files_are_told(void **state)
{
    (void)state;
    check_refused("[\n{\"text\": \"x\"}\n]\n", "a JSON array is not JSON lines");
    check_refused("{\n\"text\": \"x\"\n}\n", "an object over several lines is not JSON lines");
    check_refused("<!DOCTYPE html><html>", "bad.jsonl:1: is a web page");
    char got[100];
    const TextOptions options = {0};
    const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    const char *path = write_plain("a.txt", lfs, sizeof lfs - 1);
    assert_fails(BAD_INPUT, "a.txt: is a Git LFS pointer",
                 read_all(got, sizeof got, path, &options));
    path = write_plain("a.txt.gz", "BZh9....", 8);
    assert_fails(BAD_INPUT, "decompress it with bzip2 -d",
                 read_all(got, sizeof got, path, &options));
    check_skipped(path, options, "", "1 damaged file (its rest)");
    check("b.txt", "<html>kept</html>", "<html>kept</html>|");
}

static void test_text_that_is_not_utf8_is_told(void **state)
{
    (void)state;
    char got[100];
    TextOptions options = {.separator = "\n"};
    const char latin1[] = "\xef\xbb\xbfone\ncaf\xe9 na\xefve\ntwo\n";
    const char *path = write_plain("latin1.txt", latin1, sizeof latin1 - 1);
    assert_fails(BAD_INPUT, "latin1.txt: byte 0xE9 at offset 10 is not UTF-8; convert the file",
                 read_all(got, sizeof got, path, &options));
    assert_string_equal(got, "one|");
    check_skipped(path, options, "one|two|", "1 document that is not UTF-8 text");
    const char lines[] = "{\"text\": \"one\"}\n{\"text\": \"caf\xe9\"}\n{\"text\": \"two\"}\n";
    path = write_plain("latin1.jsonl", lines, sizeof lines - 1);
    options.separator = NULL;
    assert_fails(BAD_INPUT, "latin1.jsonl:2: byte 0xE9 at column 14 is not UTF-8; convert the file",
                 read_all(got, sizeof got, path, &options));
    check_skipped(path, options, "one|two|", "1 document that is not UTF-8 text");
    path = write_plain("cut.txt", "caf\xc3", 4);
    assert_fails(BAD_INPUT, "cut.txt: byte 0xC3 at offset 3 is not UTF-8",
                 read_all(got, sizeof got, path, &options));
}

// "Привет мир" in UTF-16: but for the space all bytes are ASCII.
static void test_zero_bytes_are_told(void **state)
{
    (void)state;
    char got[100];
    static const char russian[] = "\x1f\x04\x40\x04\x38\x04\x32\x04\x35\x04\x42\x04 \0\x3c\x04"
                                  "\x38\x04\x40\x04";
    const char *path = write_plain("le.txt", russian, sizeof russian - 1);
    assert_fails(BAD_INPUT, "le.txt: byte 0x00 at offset 13 is not text; convert UTF-16",
                 read_all(got, sizeof got, path, &(TextOptions){0}));
    check_skipped(path, (TextOptions){0}, "", "1 document that is not UTF-8 text");
    path = write_plain("be.txt", "\x04\x1f\x04\x40\0\n\x04\x1f", 8);
    check_skipped(path, (TextOptions){.separator = "\n"}, "\x04\x1f|",
                  "1 document that is not UTF-8 text");
    path = write_plain("le.jsonl", "{\"text\": \"x\0\"}", 14);
    assert_fails(BAD_INPUT, "le.jsonl:1: not valid JSON",
                 read_all(got, sizeof got, path, &(TextOptions){0}));
}

static void test_utf32_is_told(void **state)
{
    (void)state;
    static const char *const starts[] = {"x\0\0\0y\0\0\0", "\0\0\0x\0\0\0y"};
    for (size_t i = 0; i < 2; i++) {
        char got[100];
        const char *path = write_plain("utf32.txt", starts[i], 8);
        assert_fails(BAD_INPUT, "utf32.txt: is UTF-32 text; convert it with iconv -f UTF-32",
                     read_all(got, sizeof got, path, &(TextOptions){0}));
    }
}

// Past the first block, where the buffer no longer begins with the text.
static void test_offset_of_a_byte_counts_from_the_start(void **state)
{
    (void)state;
    enum { SIZE = 400000, AT = 300000 };
    char *content = malloc(SIZE), got[100];
    assert_non_null(content);
    memset(content, '\n', SIZE);
    content[AT] = '\xff';
    const char *path = write_gzip("long.txt", content, SIZE);
    free(content);
    assert_fails(BAD_INPUT, "long.txt: byte 0xFF at offset 300000 is not UTF-8",
                 read_all(got, sizeof got, path, &(TextOptions){.separator = "\n"}));
}

static void test_utf16_is_told(void **state)
{
    (void)state;
    static const char *const starts[] = {"\xff\xfe{\0\"\0", "\xfe\xff\0{\0\"", "{\0\"\0t\0",
                                         "\0{\0\"\0t"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        char got[100];
        const TextOptions options = {0};
        const char *path = write_plain("utf16.jsonl", starts[i], 6);
        assert_fails(BAD_INPUT, "utf16.jsonl:1: is UTF-16 text; convert it with iconv -f UTF-16",
                     read_all(got, sizeof got, path, &options));
        path = write_plain("utf16.txt", starts[i], 6);
        assert_fails(BAD_INPUT, "utf16.txt: is UTF-16 text",
                     read_all(got, sizeof got, path, &options));
    }
}

// Few bytes on the disk: what they unpack to is what counts.
static void test_too_long_a_document_is_refused(void **state)
{
    (void)state;
    enum { PIECE = 1 << 20 };
    static char piece[PIECE], got[100];
    const char *dir = testing_dir();
    memset(piece, 'x', PIECE);
    for (int64_t done = 0; done < TEXT_MAX_BYTES + (int64_t)PIECE; done += PIECE) {
        testing_append_gzip(testing_path(dir, "a.txt.gz"), piece, PIECE);
        testing_append_zstd(testing_path(dir, "a.txt.zst"), piece, PIECE);
    }
    assert_fails(BAD_INPUT, "name what separates its documents by --separator",
                 read_all(got, sizeof got, testing_path(dir, "a.txt.gz"), &(TextOptions){0}));
    check_skipped(testing_path(dir, "a.txt.zst"), (TextOptions){0}, "",
                  "1 damaged file (its rest)");
}

// The writer is a child, as both ends of a pipe wait for each other.
static void test_named_pipe_is_read(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "pipe.jsonl");
    const char line[] = "{\"text\": \"one\"}\n";
    char got[100];
    assert_int_equal(mkfifo(path, 0600), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const int fd = open(path, O_WRONLY);
        _exit(fd >= 0 && write(fd, line, sizeof line - 1) == sizeof line - 1 ? 0 : 1);
    }
    const Status status = read_all(got, sizeof got, path, &(TextOptions){0});
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_ok(status);
    assert_int_equal(code, 0);
    assert_string_equal(got, "one|");
}

static void test_stop_ends_the_wait_for_a_pipe(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "pipe.jsonl");
    const volatile sig_atomic_t stop = 1;
    TextReader *reader;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_fails(FAILED, "pipe.jsonl: interrupted",
                 text_open(&reader, path, &(TextOptions){.stop = &stop}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jsonl_lines_are_documents),
        cmocka_unit_test(test_jsonl_needs_no_last_line_break),
        cmocka_unit_test(test_jsonl_takes_crlf_blank_lines_and_bom),
        cmocka_unit_test(test_jsonl_skips_empty_documents),
        cmocka_unit_test(test_jsonl_field_is_named),
        cmocka_unit_test(test_jsonl_ignores_what_numbers_are),
        cmocka_unit_test(test_jsonl_ignores_halves_of_pairs_beside_the_text),
        cmocka_unit_test(test_jsonl_text_may_hold_zero_bytes),
        cmocka_unit_test(test_jsonl_errors_name_the_line),
        cmocka_unit_test(test_jsonl_of_deep_nesting_is_refused),
        cmocka_unit_test(test_txt_is_one_document_byte_for_byte),
        cmocka_unit_test(test_txt_is_split_at_the_separator),
        cmocka_unit_test(test_separator_may_be_line_breaks),
        cmocka_unit_test(test_empty_files_have_no_documents),
        cmocka_unit_test(test_long_documents_and_borders),
        cmocka_unit_test(test_gzip_goes_by_content_and_has_members),
        cmocka_unit_test(test_damaged_gzip_is_refused),
        cmocka_unit_test(test_faulty_lines_are_skipped_by_kind),
        cmocka_unit_test(test_documents_before_a_truncation_are_kept),
        cmocka_unit_test(test_flipped_bits_are_skipped_with_the_rest),
        cmocka_unit_test(test_what_is_no_text_file_is_refused),
        cmocka_unit_test(test_json_lines_may_be_named_json),
        cmocka_unit_test(test_other_kinds_of_files_are_told),
        cmocka_unit_test(test_text_that_is_not_utf8_is_told),
        cmocka_unit_test(test_offset_of_a_byte_counts_from_the_start),
        cmocka_unit_test(test_utf16_is_told),
        cmocka_unit_test(test_zero_bytes_are_told),
        cmocka_unit_test(test_utf32_is_told),
        cmocka_unit_test(test_too_long_a_document_is_refused),
        cmocka_unit_test(test_named_pipe_is_read),
        cmocka_unit_test(test_stop_ends_the_wait_for_a_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
