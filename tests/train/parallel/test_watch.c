// Where the ranks' watchdogs meet and for how long they wait, at every number of ranks CTest starts
// this with; how they judge is in test_watchdog.c.
#define _GNU_SOURCE // setenv
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "base/file.h"
#include "train/parallel/shared_dir.h"
#include "train/parallel/watch.h"
#include "train/parallel/watchdog.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Comm comm;

// One directory of rank 0's for all.
static const char *common_dir(void)
{
    static char dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", testing_dir());
    comm_broadcast(&comm, dir, sizeof dir, 0);
    return dir;
}

static int n_entries(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static void test_a_common_directory_is_shared(void **state)
{
    (void)state;
    const char *dir = common_dir();
    assert_ok(shared_dir_check(&comm, dir));
    assert_true(comm_all(&comm, true)); // rank 0 has taken its file away
    assert_int_equal(n_entries(dir), 0);
}

// By another path it is the same directory.
static void test_a_link_to_it_is_shared(void **state)
{
    (void)state;
    const char *dir = common_dir(), *link = testing_path(testing_dir(), "link");
    assert_int_equal(symlink(dir, link), 0);
    assert_ok(shared_dir_check(&comm, comm.rank == 0 ? dir : link));
}

static void test_a_directory_of_each_rank_is_not_shared(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    if (comm.size == 1) {
        assert_ok(shared_dir_check(&comm, dir));
        return;
    }
    assert_fails(BAD_INPUT, "take one on a file system that all ranks share",
                 shared_dir_check(&comm, dir));
    assert_memory_equal(fail_text(), "rank 1 on ", 10);
    assert_int_equal(n_entries(dir), 0);
}

// The files of checks that were killed go, others stay.
static void test_clearing_removes_what_killed_checks_left(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    assert_ok(file_write(testing_path(dir, ".shared-AbCdEf"), "", 0));
    assert_ok(file_write(testing_path(dir, ".shared"), "", 0));
    shared_dir_clear(dir);
    assert_int_equal(n_entries(dir), 1);
    assert_true(file_exists(testing_path(dir, ".shared")));
    shared_dir_clear(testing_absent("directory"));
}

static void test_a_directory_that_is_not_there_fails_everywhere(void **state)
{
    (void)state;
    if (comm.size > 1)
        assert_fails(FAILED, "absent/directory: cannot be written: No such file",
                     shared_dir_check(&comm, testing_absent("directory")));
}

// Nothing lies there while all is well, and nothing stays.
static void test_watching_leaves_no_file(void **state)
{
    (void)state;
    const char *dir = common_dir();
    setenv("TMPDIR", dir, 1);
    assert_ok(watch_ranks(&comm, NULL, 30, "run.stall_minutes"));
    assert_ok(watch_ranks(&comm, testing_path(dir, "ranks"), 30, "run.stall_minutes"));
    assert_ok(watch_ranks(&comm, NULL, 0, "run.stall_minutes"));
    assert_true(comm_all(&comm, true));
    assert_int_equal(n_entries(dir), 0);
    unsetenv("TMPDIR");
    watchdog_stop();
}

static void test_limit_is_rank_0s(void **state)
{
    (void)state;
    setenv(WATCH_LIMIT_VARIABLE, comm.rank == 0 ? "0.5" : "half an hour", 1);
    assert_ok(watch_command(&comm));
    setenv(WATCH_LIMIT_VARIABLE, comm.rank == 0 ? "half an hour" : "0.5", 1);
    assert_fails(BAD_INPUT, "MHA2MLA_STALL_MINUTES is 'half an hour', allowed are 0 to 10000000",
                 watch_command(&comm));
    assert_memory_equal(fail_text(), WATCH_LIMIT_VARIABLE, 10); // no rank is named
    setenv(WATCH_LIMIT_VARIABLE, "-1", 1);
    assert_fails(BAD_INPUT, "is '-1'", watch_command(&comm));
    unsetenv(WATCH_LIMIT_VARIABLE);
    watchdog_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_common_directory_is_shared),
        cmocka_unit_test(test_a_link_to_it_is_shared),
        cmocka_unit_test(test_a_directory_of_each_rank_is_not_shared),
        cmocka_unit_test(test_clearing_removes_what_killed_checks_left),
        cmocka_unit_test(test_a_directory_that_is_not_there_fails_everywhere),
        cmocka_unit_test(test_watching_leaves_no_file),
        cmocka_unit_test(test_limit_is_rank_0s),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
