// data/text/json_lines: rows of files that are plain, compressed, long, and broken.
#include "tests/support/testing.h"

#include "base/file.h"
#include "data/text/json_lines.h"
#include "tests/support/testing_compress.h"

#include <stdlib.h>
#include <string.h>

// Sums "n" of all rows, and the lines they are on.
static Status sum_rows(int64_t *sum, int64_t *line_sum, const char *path)
{
    Status status;
    JsonLines lines;
    json_t *row;
    *sum = *line_sum = 0;
    TRY(json_lines_open(&lines, path));
    while ((status = json_lines_next(&row, &lines)) == OK && row != NULL) {
        *sum += json_integer_value(json_object_get(row, "n"));
        *line_sum += lines.number;
        json_decref(row);
    }
    json_lines_close(&lines);
    return status;
}

static const char *write_text(const char *name, const char *text)
{
    const char *path = testing_path(testing_dir(), name);
    assert_ok(file_write(path, text, (int64_t)strlen(text)));
    return path;
}

static void check(const char *path, int64_t sum, int64_t line_sum)
{
    int64_t got, got_lines;
    assert_ok(sum_rows(&got, &got_lines, path));
    assert_int_equal(got, sum);
    assert_int_equal(got_lines, line_sum);
}

static void check_refused(const char *text, const char *part)
{
    int64_t sum, lines;
    const char *path = write_text("rows.jsonl", text);
    assert_fails(BAD_INPUT, part, sum_rows(&sum, &lines, path));
}

static void test_rows_and_their_lines(void **state)
{
    (void)state;
    static const char text[] = "{\"n\": 1}\n\n \t\r\n{\"n\": 2}\r\n{\"n\": 3}";
    check(write_text("a.jsonl", text), 6, 1 + 4 + 5);
    check(write_text("a.jsonl", ""), 0, 0);
    check(write_text("a.jsonl", "\xef\xbb\xbf{\"n\": 7}\n"), 7, 1);
    const char *path = testing_path(testing_dir(), "a.jsonl.gz");
    testing_append_gzip(path, text, strlen(text));
    check(path, 6, 10);
    path = testing_path(testing_dir(), "a.jsonl.zst");
    testing_append_zstd(path, text, strlen(text));
    check(path, 6, 10);
}

static void test_rows_are_skipped_by_their_bytes(void **state)
{
    (void)state;
    static const int64_t bytes[] = {8, 9, 3, 0, 0};
    JsonLines lines;
    // What is no JSON is not looked at.
    const char *path = write_text("a.jsonl", "\xef\xbb\xbf{\"n\": 1}\n \n{\"n\": 2}\r\n{\"n");
    assert_ok(json_lines_open(&lines, path));
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        int64_t size;
        assert_ok(json_lines_skip(&size, &lines));
        assert_int_equal(size, bytes[i]);
    }
    json_lines_close(&lines);
}

// Lines longer than the blocks that are read, behind short ones.
static void test_long_lines(void **state)
{
    (void)state;
    enum { LONG = 3 * TEXT_BLOCK_BYTES + 17, BYTES = 4 * LONG };
    char *text = malloc(BYTES);
    char *at = text;
    for (int n = 1; n <= 3; n++) {
        at += sprintf(at, "{\"n\": %d, \"text\": \"", n);
        memset(at, 'x', LONG);
        at += LONG;
        at += sprintf(at, "\"}\n{\"n\": 10}\n");
    }
    check(write_text("long.jsonl", text), 36, 21);
    free(text);
}

static void test_bad_rows_name_their_line(void **state)
{
    (void)state;
    check_refused("{\"n\": 1}\n{\"n\": }\n", "rows.jsonl:2:7: not valid JSON");
    check_refused("{\"n\": 1}\n\n[1]\n", "rows.jsonl:3: is not a JSON object");
    check_refused("{\"n\": \"\xe9\"}\n", "rows.jsonl:1");
    int64_t sum, lines;
    const char *path = testing_path(testing_dir(), "cut.jsonl.gz");
    testing_append_gzip(path, "{\"n\": 1}\n", 9);
    FileMap map;
    assert_ok(file_map(&map, path));
    assert_ok(file_write(path, map.bytes, map.size_bytes - 4));
    file_unmap(&map);
    assert_fails(BAD_INPUT, "truncated gzip", sum_rows(&sum, &lines, path));
    assert_fails(BAD_INPUT, "absent", sum_rows(&sum, &lines, testing_absent("rows.jsonl")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_and_their_lines),
        cmocka_unit_test(test_rows_are_skipped_by_their_bytes),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_bad_rows_name_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
