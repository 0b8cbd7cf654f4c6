#define _GNU_SOURCE // kill, syscall
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "train/checkpoint/run_lock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Stands before the C library's in this program: the system's lock, or that of a file system that
// has none.
static int flock_error = 0;

int flock(int file, int operation)
{
    if (flock_error == 0)
        return (int)syscall(SYS_flock, file, operation);
    errno = flock_error;
    return -1;
}

// A child process that holds the lock of `dir` until it is killed.
static pid_t start_holder(const char *dir)
{
    int ready[2];
    char byte = 'r';
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        FileLock lock;
        if (run_lock_take(&lock, dir, "node7") != OK || write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void kill_holder(pid_t child)
{
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_second_run_is_refused_and_told_of_the_first(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    const pid_t child = start_holder(dir);
    FileLock lock = {0};
    char holder[64];
    snprintf(holder, sizeof holder, "another run (pid %ld on node7, since 20", (long)child);
    assert_fails(BAD_INPUT, holder, run_lock_take(&lock, dir, "node1"));
    assert_fails(BAD_INPUT, "is writing here; wait for it or set --run.name",
                 run_lock_take(&lock, dir, "node1"));
    assert_memory_equal(fail_text(), dir, strlen(dir));
    assert_false(lock.is_open);
    kill_holder(child);
}

static void test_killed_run_leaves_no_lock(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    kill_holder(start_holder(dir));
    FileLock lock = {0};
    assert_ok(run_lock_take(&lock, dir, "node1"));
    file_lock_release(&lock);
}

// Two open files of one process exclude each other as two processes do.
static void test_released_lock_can_be_taken(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    FileLock first = {0}, second = {0};
    assert_ok(run_lock_take(&first, dir, "node1"));
    assert_fails(BAD_INPUT, "another run", run_lock_take(&second, dir, "node1"));
    file_lock_release(&first);
    assert_false(first.is_open);
    assert_ok(run_lock_take(&second, dir, "node1"));
    file_lock_release(&second);
}

// As a program that is started by the run, or another reader of the file, would.
static void test_another_handle_of_the_file_does_not_drop_the_lock(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    FileLock lock = {0}, second = {0};
    assert_ok(run_lock_take(&lock, dir, "node1"));
    FILE *reader = fopen(testing_path(dir, "lock"), "re");
    assert_non_null(reader);
    fclose(reader);
    assert_fails(BAD_INPUT, "another run", run_lock_take(&second, dir, "node1"));
    file_lock_release(&lock);
}

static void test_directories_have_locks_of_their_own(void **state)
{
    (void)state;
    FileLock first = {0}, second = {0};
    assert_ok(run_lock_take(&first, testing_dir(), "node1"));
    assert_ok(run_lock_take(&second, testing_dir(), "node1"));
    file_lock_release(&first);
    file_lock_release(&second);
}

static void test_longer_line_of_before_is_gone(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *path = testing_path(dir, "lock");
    char line[256] = {0};
    memset(line, 'x', sizeof line - 1);
    assert_ok(file_write(path, line, sizeof line));
    FileLock lock = {0};
    assert_ok(run_lock_take(&lock, dir, "node1"));
    FileMap map;
    assert_ok(file_map(&map, path));
    assert_null(memchr(map.bytes, 'x', (size_t)map.size_bytes));
    file_unmap(&map);
    file_lock_release(&lock);
}

static void test_damaged_line_is_printed_as_one_line(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    FileLock lock = {0}, second = {0};
    assert_ok(run_lock_take(&lock, dir, "node1"));
    char garbage[1000];
    memset(garbage, '\033', sizeof garbage);
    FILE *file = fopen(testing_path(dir, "lock"), "we");
    assert_non_null(file);
    assert_int_equal(fwrite(garbage, 1, sizeof garbage, file), sizeof garbage);
    fclose(file);
    assert_fails(BAD_INPUT, "another run (????", run_lock_take(&second, dir, "node1"));
    assert_null(strchr(fail_text(), '\033'));
    file_lock_release(&lock);
}

static void test_file_system_without_locks_is_no_obstacle(void **state)
{
    (void)state;
    const int errors[] = {ENOLCK, ENOSYS, EOPNOTSUPP}; // NFS, Lustre, others
    for (int i = 0; i < 3; i++) {
        FileLock lock = {0};
        flock_error = errors[i];
        const Status status = run_lock_take(&lock, testing_dir(), "node1");
        flock_error = 0;
        assert_ok(status);
        assert_true(lock.is_open);
        file_lock_release(&lock);
    }
}

static void test_directory_that_is_missing(void **state)
{
    (void)state;
    FileLock lock = {0};
    assert_fails(FAILED, "lock: cannot be written: No such file or directory",
                 run_lock_take(&lock, testing_path(testing_dir(), "missing"), "node1"));
    assert_false(lock.is_open);
}

static void test_lock_that_is_a_directory(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    FileLock lock = {0};
    assert_int_equal(mkdir(testing_path(dir, "lock"), 0777), 0);
    assert_fails(FAILED, "cannot be written: Is a directory", run_lock_take(&lock, dir, "node1"));
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_run_is_refused_and_told_of_the_first),
        cmocka_unit_test(test_killed_run_leaves_no_lock),
        cmocka_unit_test(test_released_lock_can_be_taken),
        cmocka_unit_test(test_another_handle_of_the_file_does_not_drop_the_lock),
        cmocka_unit_test(test_directories_have_locks_of_their_own),
        cmocka_unit_test(test_longer_line_of_before_is_gone),
        cmocka_unit_test(test_damaged_line_is_printed_as_one_line),
        cmocka_unit_test(test_file_system_without_locks_is_no_obstacle),
        cmocka_unit_test(test_directory_that_is_missing),
        cmocka_unit_test(test_lock_that_is_a_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
