#define _GNU_SOURCE // syscall
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/hdf5_error.h"
#include "base/hdf5_file.h"
#include "base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Stands before the C library's in this program and for HDF5: the system's lock, or that of a file
// system that has none.
static int flock_error = 0, n_failed_locks = 0;

int flock(int file, int operation)
{
    if (flock_error == 0)
        return (int)syscall(SYS_flock, file, operation);
    n_failed_locks++;
    errno = flock_error;
    return -1;
}

static const char *written_file(void)
{
    static char path[PATH_BYTES];
    char temporary[PATH_BYTES];
    snprintf(path, sizeof path, "%s", testing_path(testing_dir(), "a.h5"));
    hdf5_silence();
    assert_ok(temporary_make(temporary, path));
    const hid_t file = hdf5_create(temporary, H5F_LIBVER_V18);
    assert_true(file >= 0);
    assert_true(H5Fclose(file) >= 0);
    assert_ok(file_publish(temporary, path));
    return path;
}

// NFS without lockd, Linux's own ENOTSUPP, which comes through from some of its file systems, and
// Lustre without flock.
static void test_file_system_without_locks_is_no_obstacle(void **state)
{
    (void)state;
    const int errors[] = {ENOLCK, 524, EOPNOTSUPP};
    for (int i = 0; i < 3; i++) {
        hid_t file = -1;
        flock_error = errors[i];
        const Status status = hdf5_open(&file, written_file());
        flock_error = 0;
        assert_ok(status);
        assert_true(H5Fclose(file) >= 0);
    }
    assert_true(n_failed_locks >= 3); // HDF5's locks came here
}

static void test_file_that_is_written_elsewhere_says_that(void **state)
{
    (void)state;
    const char *path = written_file();
    hid_t file = -1;
    const int writer = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(writer, LOCK_EX), 0);
    assert_fails(BAD_INPUT, "a.h5: another program has it open for writing; wait until",
                 hdf5_open(&file, path));
    close(writer);
    assert_ok(hdf5_open(&file, path));
    assert_true(H5Fclose(file) >= 0);
}

static void test_other_files_are_refused(void **state)
{
    (void)state;
    const char *path = testing_path(testing_dir(), "a.h5");
    hid_t file = -1;
    assert_ok(file_write(path, "text", 4));
    assert_fails(BAD_INPUT, "a.h5: not a readable HDF5 file", hdf5_open(&file, path));
    flock_error = ENOLCK;
    const Status status = hdf5_open(&file, path);
    flock_error = 0;
    assert_fails(BAD_INPUT, "a.h5: not a readable HDF5 file", status);
    const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    assert_ok(file_write(path, pointer, sizeof pointer - 1));
    assert_fails(BAD_INPUT, "a.h5: is a Git LFS pointer", hdf5_open(&file, path));
    const char *pipe = testing_path(testing_dir(), "pipe.h5");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_fails(BAD_INPUT, "pipe.h5: is a named pipe", hdf5_open(&file, pipe)); // and at once
}

int main(void)
{
    unsetenv("HDF5_USE_FILE_LOCKING");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_system_without_locks_is_no_obstacle),
        cmocka_unit_test(test_file_that_is_written_elsewhere_says_that),
        cmocka_unit_test(test_other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
