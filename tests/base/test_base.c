// base/: error texts, arenas, atomic files, random numbers, checksums.
#include "tests/support/testing.h"

#include "base/arena.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/json.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

static Status fail_with_place(void)
{
    Status kind = fail(BAD_INPUT, "'x' is %d", 7);
    return fail_within(kind, "file %s:%d", "a.yaml", 3);
}

static void test_fail_within_keeps_the_cause(void **state)
{
    (void)state;
    assert_int_equal(fail_with_place(), BAD_INPUT);
    assert_string_equal(fail_text(), "file a.yaml:3: 'x' is 7");
}

static void test_arena_places_what_it_measured(void **state)
{
    (void)state;
    Arena arena = arena_start("test");
    assert_null(arena_floats(&arena, 100));
    int64_t mark = arena.used_bytes;
    arena_floats(&arena, 1000);
    arena_rewind(&arena, mark);
    arena_floats(&arena, 500);
    assert_ok(arena_allocate(&arena));
    assert_int_equal(arena.size_bytes, 448 + 4032 + 2 * ARENA_RED_ZONE_BYTES);
    float *a = arena_floats(&arena, 100), *b = arena_floats(&arena, 1000);
    assert_ptr_equal((char *)b, (char *)a + 448 + ARENA_RED_ZONE_BYTES);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_true(b[999] == 0.0f);
    arena_release(&arena);
}

#if defined(__SANITIZE_ADDRESS__)
static bool is_poisoned(const void *byte)
{
    return __asan_address_is_poisoned(byte) != 0;
}

// One float past a buffer is poisoned, also where the size is a multiple of the alignment and where
// a rewind has let a shorter buffer take the place of a longer one, which may still be used.
static void test_arena_has_red_zones(void **state)
{
    (void)state;
    Arena arena = arena_start("test");
    arena_floats(&arena, 16 + 100 + 1000);
    arena_floats(&arena, 1);
    arena_floats(&arena, 1);
    assert_ok(arena_allocate(&arena));
    const char *block = arena.block;
    float *aligned = arena_floats(&arena, 16), *odd = arena_floats(&arena, 99);
    const int64_t mark = arena.used_bytes;
    assert_false(is_poisoned(&aligned[15]) || is_poisoned(&odd[98]));
    assert_true(is_poisoned(&aligned[16]) && is_poisoned(&odd[99]));
    float *of_one_phase = arena_floats(&arena, 500);
    arena_rewind(&arena, mark);
    float *of_another = arena_floats(&arena, 100);
    assert_ptr_equal(of_one_phase, of_another);
    assert_false(is_poisoned(&of_one_phase[100]) || is_poisoned(&of_one_phase[499]));
    assert_true(is_poisoned(&of_one_phase[500]));
    Arena inner = arena_over("inner", of_one_phase, 10000);
    float *beyond = arena_floats(&inner, 501);
    assert_true(is_poisoned(&beyond[500]));
    arena_release(&arena);
    assert_false(is_poisoned(block));
}
#endif

static void test_atomic_file_appears_whole_or_not_at_all(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    assert_ok(file_join(path, testing_dir(), "a.txt"));
    AtomicFile file;
    assert_ok(file_begin(&file, path));
    fputs("half", file.stream);
    file_abandon(&file);
    assert_false(file_exists(path));
    assert_ok(file_write(path, "whole", 5));
    FileMap map;
    assert_ok(file_map(&map, path));
    assert_int_equal(map.size_bytes, 5);
    assert_memory_equal(map.bytes, "whole", 5);
    file_unmap(&map);
    assert_false(file_exists(file.temporary));
}

static void test_full_disk_is_reported(void **state)
{
    (void)state;
    if (!file_exists("/dev/full"))
        skip();
    AtomicFile file = {.stream = fopen("/dev/full", "wb")};
    strcpy(file.path, "model.safetensors");
    strcpy(file.temporary, testing_absent("model.safetensors.tmp"));
    assert_non_null(file.stream);
    fputs("x", file.stream);
    assert_fails(FAILED, "No space left", file_commit(&file));
}

static void test_missing_file_is_named(void **state)
{
    (void)state;
    FileMap map;
    assert_fails(BAD_INPUT, "/absent/x: cannot be opened: No such file",
                 file_map(&map, testing_absent("x")));
    assert_fails(BAD_INPUT, "not a regular file", file_map(&map, "/"));
}

// A pipe that nobody writes to must not be waited for.
static void test_named_pipe_is_refused_at_once(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "pipe");
    FileMap map;
    json_t *root;
    uint32_t crc32;
    int64_t size_bytes;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_fails(BAD_INPUT, "pipe: is a named pipe, not a regular file", file_map(&map, path));
    assert_fails(BAD_INPUT, "pipe: is a named pipe", json_read(&root, path));
    assert_fails(BAD_INPUT, "pipe: is a named pipe",
                 checksum_crc32_file(&crc32, &size_bytes, path));
}

static void test_files_of_other_kinds_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"},
        {"\n<!DOCTYPE HTML><html>", "is a web page"},
        {"<HTML>", "is a web page"},
        {"(\xb5/\xfd....", "is zstd-compressed; decompress it with zstd -d"},
        {"PAR1....", "is a Parquet file"},
    };
    const char *dir = testing_dir(), *path = testing_path(dir, "a.json");
    json_t *root;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(file_write(path, cases[i].bytes, (int64_t)strlen(cases[i].bytes)));
        assert_fails(BAD_INPUT, cases[i].text, file_kind_check(path));
        assert_fails(BAD_INPUT, cases[i].text, json_read(&root, path));
    }
    assert_ok(file_write(path, "{\"version\": 1}", 14));
    assert_ok(file_kind_check(path));
    assert_ok(file_write(testing_path(dir, "a.json.aria2"), "", 0));
    assert_fails(BAD_INPUT, "a.json: its download is not finished", file_kind_check(path));
    assert_ok(file_kind_check(testing_absent("x")));
}

static void test_whole_numbers_are_written_whole(void **state)
{
    (void)state;
    json_t *root = json_pack("{s:f, s:f}", "two", 2.0, "half", 0.5);
    int64_t value;
    assert_non_null(root);
    assert_fails(BAD_INPUT, "x: 'two' is not a whole number: 2.0; write it as 2",
                 json_get_int(&value, root, "x", "two", 0, 9));
    assert_fails(BAD_INPUT, "x: 'half' is not a whole number: 0.5",
                 json_get_int(&value, root, "x", "half", 0, 9));
    json_decref(root);
}

static void test_target_of_long_work_is_checked_before(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *path = testing_path(dir, "a.h5");
    const char *file = testing_path(dir, "file");
    assert_ok(file_check_target(path));
    assert_int_equal(testing_count_files(dir), 0);
    assert_ok(file_write(file, "x", 1));
    assert_ok(file_check_target(file)); // will be replaced, is not yet
    assert_true(file_exists(file));
    assert_fails(BAD_INPUT, "is a directory; name a file to write", file_check_target(dir));
    assert_fails(FAILED, "/absent/a.h5: cannot be written: No such file",
                 file_check_target(testing_absent("a.h5")));
    assert_fails(FAILED, "file: directory cannot be made: a file has this name",
                 file_make_dirs(testing_path(dir, "file/below")));
    const char *dangling = testing_path(dir, "dangling"); // of mkdir, not of the look that follows
    assert_int_equal(symlink("nowhere", dangling), 0);
    assert_fails(FAILED, "dangling: directory cannot be made: a file has this name",
                 file_make_dirs(dangling));
}

// Small files fail when they are closed, large ones while they are written.
static void test_json_that_does_not_fit_says_why(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *path = testing_path(dir, "a.json");
    json_t *root = json_array();
    for (int n = 1; n <= 4096; n *= 64) {
        while ((int)json_array_size(root) < n)
            json_array_append_new(root, json_integer(123456));
        testing_limit_files(n); // bytes
        assert_fails(FAILED, "a.json: write failed: File too large", json_write(root, path));
        testing_limit_files(-1);
        assert_int_equal(testing_count_files(dir), 0);
    }
    json_decref(root);
}

// A config's eps that was rounded to float before is a long number; a short one stays short.
static void test_json_that_is_exact_is_read_back_as_it_is(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "exact.json");
    const double reals[] = {9.999999747378752e-06, 1.0 / 3, 0.1, -5e-324, 1.7976931348623157e308};
    for (int n = 1; n <= (int)(sizeof reals / sizeof *reals); n++) {
        json_t *root = json_pack("{s:f, s:{s:[f]}}", "short", 0.5, "deep", "list", reals[n - 1]);
        json_t *back;
        assert_ok(json_write_exact(root, path));
        assert_ok(json_read(&back, path));
        assert_true(json_equal(root, back));
        json_decref(back);
        json_decref(root);
    }
    json_t *root = json_pack("[f]", 0.1);
    assert_ok(json_write_exact(root, path));
    FileMap map;
    assert_ok(file_map(&map, path));
    assert_int_equal(map.size_bytes, strlen("[\n  0.1\n]\n"));
    assert_memory_equal(map.bytes, "[\n  0.1\n]\n", map.size_bytes);
    file_unmap(&map);
    json_decref(root);
}

// What only Python writes is read where JSON is read from a file, and strings stay as they are.
static void test_numbers_of_python_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected; // NULL: refused
    } cases[] = {
        {"[NaN, -Infinity,Infinity]", "[\"NaN\",\"-Infinity\",\"Infinity\"]"},
        {"{\"a\":1e999,\"b\":-9223372036854775809,\"c\":9223372036854775807}",
         "{\"a\":\"1e999\",\"b\":-9.2233720368547758e18,\"c\":9223372036854775807}"},
        {"[\"NaN 1e999 \\\" 99999999999999999999\", NaN]",
         "[\"NaN 1e999 \\\" 99999999999999999999\",\"NaN\"]"},
        {"[-NaN]", NULL},
        {"[NaN", NULL},
        {"[1NaN]", NULL},
        {"[NaN, \"", NULL},
        {"[NaN, \"\\", NULL},
    };
    const char *path = testing_path(testing_dir(), "p.json");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *root;
        assert_ok(file_write(path, cases[i].text, (int64_t)strlen(cases[i].text)));
        if (cases[i].expected == NULL) {
            assert_fails(BAD_INPUT, "p.json:1:", json_read(&root, path));
            continue;
        }
        assert_ok(json_read(&root, path));
        char *text = json_dumps(root, JSON_COMPACT);
        assert_string_equal(text, cases[i].expected);
        free(text);
        json_decref(root);
    }
}

// 400 digits are more than a double holds: a string.
static void test_integers_beyond_doubles_are_texts(void **state)
{
    (void)state;
    char text[403];
    json_t *root;
    const char *path = testing_path(testing_dir(), "p.json");
    memset(text, '7', sizeof text);
    text[0] = '[';
    text[401] = ']';
    assert_ok(file_write(path, text, 402));
    assert_ok(json_read(&root, path));
    assert_int_equal(json_string_length(json_array_get(root, 0)), 400);
    json_decref(root);
}

static void test_json_errors_name_the_place(void **state)
{
    (void)state;
    json_t *root;
    assert_fails(BAD_INPUT, "c.json:2:", json_parse(&root, "{\"a\": 1,\n b}", 12, "c.json"));
    assert_fails(BAD_INPUT, "c.json: empty, not JSON", json_parse(&root, NULL, 0, "c.json"));
    assert_fails(BAD_INPUT, "m.jsonl:7:5: not valid JSON",
                 json_parse_line(&root, "{\"a\"!", 5, "m.jsonl", 7));
    assert_ok(json_parse(&root, "{\"a\": 5, \"s\": \"x\"}", 18, "c.json"));
    int64_t a;
    assert_ok(json_get_int(&a, root, "c.json", "a", 0, 10));
    assert_int_equal(a, 5);
    assert_fails(BAD_INPUT, "'a' is 5, allowed are 6 to 9",
                 json_get_int(&a, root, "c.json", "a", 6, 9));
    assert_fails(BAD_INPUT, "'b' is missing", json_get_int(&a, root, "c.json", "b", 0, 1));
    assert_fails(BAD_INPUT,
                 "'s' is not a whole number: ", json_get_int(&a, root, "c.json", "s", 0, 1));
    json_decref(root);
}

static void test_sha256_of_abc(void **state)
{
    (void)state;
    char hex[SHA256_HEX_BYTES];
    assert_ok(checksum_sha256_bytes(hex, "abc", 3)); // FIPS 180-4, appendix
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_random_normal_has_its_moments(void **state)
{
    (void)state;
    uint64_t key = random_key(42, "test");
    assert_true(key != random_key(42, "init") && key != random_key(43, "test"));
    double sum = 0, squares = 0;
    const int n = 100000;
    for (int i = 0; i < n; i++) {
        double x = random_normal(key, (uint64_t)i);
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / n) < 0.01);            // 3 standard errors; seen 0.0007
    assert_true(fabs(squares / n - 1.0) < 0.015); // seen 0.002
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail_within_keeps_the_cause),
        cmocka_unit_test(test_arena_places_what_it_measured),
#if defined(__SANITIZE_ADDRESS__)
        cmocka_unit_test(test_arena_has_red_zones),
#endif
        cmocka_unit_test(test_atomic_file_appears_whole_or_not_at_all),
        cmocka_unit_test(test_full_disk_is_reported),
        cmocka_unit_test(test_missing_file_is_named),
        cmocka_unit_test(test_named_pipe_is_refused_at_once),
        cmocka_unit_test(test_files_of_other_kinds_are_told),
        cmocka_unit_test(test_whole_numbers_are_written_whole),
        cmocka_unit_test(test_target_of_long_work_is_checked_before),
        cmocka_unit_test(test_json_that_does_not_fit_says_why),
        cmocka_unit_test(test_json_that_is_exact_is_read_back_as_it_is),
        cmocka_unit_test(test_numbers_of_python_are_read),
        cmocka_unit_test(test_integers_beyond_doubles_are_texts),
        cmocka_unit_test(test_json_errors_name_the_place),
        cmocka_unit_test(test_sha256_of_abc),
        cmocka_unit_test(test_random_normal_has_its_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
