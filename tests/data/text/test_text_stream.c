// data/text/text_stream: gzip and zstd in all their forms, and what is damaged. Plain files are
// tested through text.c.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/random.h"
#include "data/text/text_stream.h"
#include "tests/support/testing_compress.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// Frames of no content: RFC 8878, 3.1.
static const char SKIPPABLE[] = "\x5a\x2a\x4d\x18\x03\x00\x00\x00???";

// Reads the whole file by pieces; its bytes. *damage: static, "" where it is sound.
static size_t read_all(char *out, size_t capacity, size_t piece, const char *path,
                       const char **damage)
{
    static char text[sizeof((TextStream *)0)->damage];
    TextStream stream;
    size_t n = 0;
    const int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_ok(text_stream_open(&stream, fd, path, NULL));
    while (!stream.at_end && n < capacity)
        n += text_stream_read(&stream, out + n, capacity - n < piece ? capacity - n : piece);
    assert_true(text_stream_offset_bytes(&stream) >= 0);
    memcpy(text, stream.damage, sizeof text);
    text_stream_close(&stream);
    *damage = text;
    return n;
}

static void check(const char *path, const char *expected, const char *said)
{
    for (size_t piece = 1; piece < 100; piece += 7) {
        char got[400];
        const char *damage;
        const size_t n = read_all(got, sizeof got, piece, path, &damage);
        assert_int_equal(n, strlen(expected));
        assert_memory_equal(got, expected, n);
        if (strstr(damage, said) == NULL || (said[0] == '\0' && damage[0] != '\0'))
            fail_msg("'%s' instead of '%s'", damage, said);
    }
}

static void append(const char *path, const void *bytes, size_t size)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_true(fd >= 0 && write(fd, bytes, size) == (ssize_t)size && close(fd) == 0);
}

static void test_frames_are_one_text(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "frames");
    testing_append_zstd(path, "one ", 4);
    testing_append_zstd(path, "", 0);
    testing_append_zstd(path, "two ", 4);
    append(path, SKIPPABLE, sizeof SKIPPABLE - 1);
    testing_append_zstd(path, "three", 5);
    check(path, "one two three", "");
}

static void test_skippable_frame_may_come_first(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "skippable");
    append(path, SKIPPABLE, sizeof SKIPPABLE - 1);
    check(path, "", "");
    testing_append_zstd(path, "one", 3);
    append(path, SKIPPABLE, sizeof SKIPPABLE - 1);
    check(path, "one", "");
}

// Larger than the input block and than one block of zstd; the bytes do not compress.
static void test_long_frames(void **state)
{
    (void)state;
    enum { SIZE = 5 * TEXT_BLOCK_BYTES + 13 };
    char *content = malloc(SIZE), *got = malloc(2 * SIZE + 1);
    const char *path = testing_path(testing_dir(), "long"), *damage;
    assert_true(content != NULL && got != NULL);
    for (int i = 0; i < SIZE; i++)
        content[i] = (char)random_bits(1, (uint64_t)i);
    testing_append_zstd(path, content, SIZE);
    testing_append_zstd(path, content, SIZE);
    assert_int_equal(read_all(got, 2 * SIZE + 1, TEXT_BLOCK_BYTES, path, &damage), 2 * SIZE);
    assert_string_equal(damage, "");
    assert_memory_equal(got, content, SIZE);
    assert_memory_equal(got + SIZE, content, SIZE);
    free(content);
    free(got);
}

static void test_truncated_frame_is_told_wherever_it_ends(void **state)
{
    (void)state;
    static const char content[] = "one two three four one two three four one two three four";
    const char *path = testing_path(testing_dir(), "whole");
    testing_append_zstd(path, content, sizeof content - 1);
    FileMap map;
    assert_ok(file_map(&map, path));
    const char *cut = testing_path(testing_dir(), "cut");
    for (int64_t size = 4; size < map.size_bytes; size++) {
        char got[400];
        const char *damage;
        assert_ok(file_write(cut, map.bytes, size));
        const size_t n = read_all(got, sizeof got, sizeof got, cut, &damage);
        assert_memory_equal(got, content, n);
        assert_string_equal(damage, "cannot be read: unexpected end of file (truncated zstd; fetch "
                                    "the file again)");
    }
    // Also where a whole frame precedes it.
    assert_ok(file_write(cut, map.bytes, map.size_bytes));
    append(cut, map.bytes, 3);
    check(cut, content, "unexpected end of file (truncated zstd");
    file_unmap(&map);
}

static void test_damaged_frame_is_told(void **state)
{
    (void)state;
    static const char content[] = "one two three four one two three four one two three four";
    const char *path = testing_path(testing_dir(), "whole");
    testing_append_zstd(path, content, sizeof content - 1);
    FileMap map;
    assert_ok(file_map(&map, path));
    char *bytes = malloc((size_t)map.size_bytes);
    assert_non_null(bytes);
    const char *bad = testing_path(testing_dir(), "bad");
    for (int64_t at = 4; at < map.size_bytes; at++) {
        char got[400];
        const char *damage;
        memcpy(bytes, map.bytes, (size_t)map.size_bytes);
        bytes[at] ^= 4;
        assert_ok(file_write(bad, bytes, map.size_bytes));
        read_all(got, sizeof got, sizeof got, bad, &damage);
        if (strncmp(damage, "cannot be read: ", 16) != 0)
            fail_msg("byte %d: '%s'", (int)at, damage);
    }
    free(bytes);
    file_unmap(&map);
}

static void test_what_follows_a_frame_must_be_one(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "tail");
    testing_append_zstd(path, "one", 3);
    append(path, "text of its own", 15);
    check(path, "one", "cannot be read: something else follows a zstd frame (damaged zstd");
}

// Frame headers by hand (RFC 8878, 3.1.1.1): no single segment, window descriptor (log2 - 10) << 3;
// and a dictionary's number.
static void test_frames_beyond_the_decoder_are_named(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "window");
    append(path, "\x28\xb5\x2f\xfd\x00\x90\x01\x00\x00", 9);
    check(path, "", "its zstd window is larger than 128 MiB; decompress it with zstd -d --long=31");
    path = testing_path(testing_dir(), "largest");
    append(path, "\x28\xb5\x2f\xfd\x00\x88\x19\x00\x00one", 12);
    check(path, "one", "");
    path = testing_path(testing_dir(), "dictionary");
    append(path, "\x28\xb5\x2f\xfd\x01\x00\x07\x19\x00\x00one", 13);
    check(path, "", "it was compressed with a dictionary; decompress it with zstd -d -D");
}

static void test_members_are_one_text_and_zeros_may_follow(void **state)
{
    (void)state;
    static const char zeros[700] = "";
    const char *path = testing_path(testing_dir(), "members");
    testing_append_gzip(path, "one ", 4);
    testing_append_gzip(path, "", 0);
    append(path, zeros, 3);
    testing_append_gzip(path, "two", 3);
    append(path, zeros, sizeof zeros);
    check(path, "one two", "");
}

// gzread() of zlib drops it without a word.
static void test_what_follows_a_member_must_be_one(void **state)
{
    (void)state;
    static const char *const tails[] = {"text of its own", "\0\0x", "\x1f", "\x28\xb5\x2f\xfd"};
    static const size_t sizes[] = {15, 3, 1, 4};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *path = testing_path(testing_dir(), "tail");
        testing_append_gzip(path, "one", 3);
        append(path, tails[i], sizes[i]);
        check(path, "one", "cannot be read: something else follows a gzip member (damaged gzip");
    }
    const char *path = testing_path(testing_dir(), "cut");
    testing_append_gzip(path, "one", 3);
    append(path, "\x1f\x8b", 2);
    check(path, "one", "cannot be read: unexpected end of file (truncated gzip");
}

// Members whose ends and beginnings lie on and around the borders of the input's blocks.
static void test_members_end_anywhere(void **state)
{
    (void)state;
    char *content = malloc(TEXT_BLOCK_BYTES), *got = malloc(2 * TEXT_BLOCK_BYTES);
    assert_true(content != NULL && got != NULL);
    for (int i = 0; i < TEXT_BLOCK_BYTES; i++)
        content[i] = (char)random_bits(2, (uint64_t)i);
    for (size_t size = TEXT_BLOCK_BYTES - 90; size < TEXT_BLOCK_BYTES; size++) {
        const char *path = testing_path(testing_dir(), "borders"), *damage;
        testing_append_gzip(path, content, size);
        testing_append_gzip(path, "two", 3);
        const size_t n = read_all(got, 2 * TEXT_BLOCK_BYTES, TEXT_BLOCK_BYTES, path, &damage);
        assert_string_equal(damage, "");
        assert_int_equal(n, size + 3);
        assert_memory_equal(got, content, size);
        assert_memory_equal(got + size, "two", 3);
    }
    free(content);
    free(got);
}

// As `gzip x.zst` makes it.
static void test_zstd_inside_gzip(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "inner");
    testing_append_zstd(path, "one", 3);
    FileMap map;
    assert_ok(file_map(&map, path));
    const char *outer = testing_path(testing_dir(), "outer");
    testing_append_gzip(outer, map.bytes, (size_t)map.size_bytes);
    file_unmap(&map);
    check(outer, "one", "");
}

static void test_pipe(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "file");
    const char *pipe_path = testing_path(testing_dir(), "pipe");
    testing_append_zstd(path, "one", 3);
    FileMap map;
    assert_ok(file_map(&map, path));
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const int fd = open(pipe_path, O_WRONLY);
        _exit(fd >= 0 && write(fd, map.bytes, (size_t)map.size_bytes) == map.size_bytes ? 0 : 1);
    }
    char got[10];
    const char *damage;
    const size_t n = read_all(got, sizeof got, sizeof got, pipe_path, &damage);
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    assert_int_equal(n, 3);
    assert_memory_equal(got, "one", 3);
    assert_string_equal(damage, "");
    file_unmap(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_are_one_text),
        cmocka_unit_test(test_skippable_frame_may_come_first),
        cmocka_unit_test(test_long_frames),
        cmocka_unit_test(test_truncated_frame_is_told_wherever_it_ends),
        cmocka_unit_test(test_damaged_frame_is_told),
        cmocka_unit_test(test_what_follows_a_frame_must_be_one),
        cmocka_unit_test(test_frames_beyond_the_decoder_are_named),
        cmocka_unit_test(test_members_are_one_text_and_zeros_may_follow),
        cmocka_unit_test(test_what_follows_a_member_must_be_one),
        cmocka_unit_test(test_members_end_anywhere),
        cmocka_unit_test(test_zstd_inside_gzip),
        cmocka_unit_test(test_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
