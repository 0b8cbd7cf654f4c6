#define _GNU_SOURCE // fork
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/file_lock.h"
#include "base/log.h"
#include "base/temporary.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void assert_content(const char *path, const char *expected)
{
    FileMap map;
    assert_ok(file_map(&map, path));
    assert_int_equal(map.size_bytes, strlen(expected));
    assert_memory_equal(map.bytes, expected, strlen(expected));
    file_unmap(&map);
}

// Both are whole at any time; what was renamed last is there in the end.
static void test_two_writers_of_one_file_do_not_meet(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *path = testing_path(dir, "a.json");
    AtomicFile first, second;
    assert_ok(file_begin(&first, path));
    fputs("fir", first.stream);
    fflush(first.stream);
    assert_ok(file_begin(&second, path));
    fputs("the second", second.stream);
    fputs("st", first.stream);
    assert_ok(file_commit(&first));
    assert_content(path, "first");
    assert_ok(file_commit(&second));
    assert_content(path, "the second");
    assert_int_equal(testing_count_files(dir), 1);
}

static void test_names_are_hidden_beside_the_file_and_differ(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *path = testing_path(dir, "a.h5");
    char first[PATH_BYTES], second[PATH_BYTES];
    struct stat info;
    umask(022);
    assert_ok(temporary_make(first, path));
    assert_ok(temporary_make(second, path));
    assert_string_not_equal(first, second);
    assert_memory_equal(first, testing_path(dir, ".a.h5.tmp-"), strlen(dir) + 11);
    assert_int_equal(stat(first, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0644); // as the file itself shall have
}

// A link, so that no device is lost if this fails as root.
static void test_devices_and_pipes_are_not_replaced(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *pipe = testing_path(dir, "pipe");
    const char *device = testing_path(dir, "device");
    char temporary[PATH_BYTES];
    struct stat info;
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(symlink("/dev/null", device), 0);
    assert_fails(BAD_INPUT, "pipe: is a named pipe, not a regular file; name a file to write",
                 file_write(pipe, "x", 1));
    assert_fails(BAD_INPUT, "device: is a device, not a regular file", file_check_target(device));
    assert_fails(BAD_INPUT, "device: is a device", temporary_make(temporary, device));
    assert_int_equal(lstat(device, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(testing_count_files(dir), 2);
}

static void test_long_name_is_cut(void **state)
{
    (void)state;
    char name[256], temporary[PATH_BYTES];
    memset(name, 'n', 250);
    strcpy(name + 250, ".yaml");
    const char *path = testing_path(testing_dir(), name);
    assert_ok(temporary_make(temporary, path));
    assert_ok(file_publish(temporary, path));
    assert_true(file_exists(path));
}

// The name of a temporary file that another process, now dead, has made.
static void make_in_dead_process(const char *path)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char temporary[PATH_BYTES];
        _exit(temporary_make(temporary, path) == OK ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_leftovers_of_dead_processes_are_removed(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *path = testing_path(dir, "a.h5");
    const char *const kept[] = {
        "a.h5", ".a.h5", ".a.h5.tmp-", ".tmp-1-1", ".b.tmp-elsewhere-12-0", ".b.tmp-x-0-0"};
    char living[PATH_BYTES];
    const int n_kept = sizeof kept / sizeof *kept;
    for (int i = 0; i < n_kept; i++)
        assert_ok(file_write(testing_path(dir, kept[i]), "x", 1));
    assert_ok(temporary_make(living, path));
    make_in_dead_process(path);
    make_in_dead_process(testing_path(dir, "b"));
    assert_int_equal(testing_count_files(dir), n_kept + 3);
    temporary_remove_dead(path);
    assert_int_equal(testing_count_files(dir), n_kept + 1);
    assert_true(file_exists(living));
    temporary_remove_all(dir);
    assert_int_equal(testing_count_files(dir), n_kept - 1);
    assert_false(file_exists(testing_path(dir, ".b.tmp-elsewhere-12-0")));
    assert_true(file_exists(testing_path(dir, "a.h5")));
}

// Of two writers of a model or a report the second is refused.
static void test_directory_has_one_writer(void **state)
{
    (void)state;
    const char *dir = testing_path(testing_dir(), "model");
    FileLock first = {0}, second = {0};
    assert_ok(file_lock_directory(&first, dir));
    assert_fails(BAD_INPUT, "model: another process (pid ", file_lock_directory(&second, dir));
    assert_fails(BAD_INPUT, "is writing here; wait for it or name another directory",
                 file_lock_directory(&second, dir));
    assert_ok(file_write(testing_path(dir, "config.json"), "{}", 2));
    make_in_dead_process(testing_path(dir, "config.json"));
    file_lock_remove(&first);
    assert_ok(file_lock_directory(&second, dir));
    file_lock_remove(&second);
    assert_int_equal(testing_count_files(dir), 1);
}

static void test_directory_without_a_result_goes(void **state)
{
    (void)state;
    const char *there = testing_dir(), *dir = testing_path(there, "model");
    FileLock lock = {0};
    assert_ok(file_lock_directory(&lock, dir));
    file_lock_remove(&lock);
    assert_false(file_exists(dir));
    assert_ok(file_lock_directory(&lock, there));
    file_lock_remove(&lock);
    assert_true(file_exists(there));
    file_lock_remove(&lock); // not held: nothing
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_writers_of_one_file_do_not_meet),
        cmocka_unit_test(test_names_are_hidden_beside_the_file_and_differ),
        cmocka_unit_test(test_devices_and_pipes_are_not_replaced),
        cmocka_unit_test(test_long_name_is_cut),
        cmocka_unit_test(test_leftovers_of_dead_processes_are_removed),
        cmocka_unit_test(test_directory_has_one_writer),
        cmocka_unit_test(test_directory_without_a_result_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
