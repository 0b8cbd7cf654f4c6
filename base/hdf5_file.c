#include "base/hdf5_file.h"

#include "base/file.h"
#include "base/file_kind.h"
#include "base/hdf5_error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct LockFailure {
    bool is_found;
    int error; // errno of flock(); 0 if HDF5 does not say
} LockFailure;

// HDF5 has no code for it: "unable to lock file, errno = 37, error message = '...'".
static herr_t find_lock_failure(unsigned depth, const H5E_error2_t *error, void *data)
{
    static const char number[] = "errno = ";
    LockFailure *failure = data;
    if (depth > 0 || error->desc == NULL || strstr(error->desc, "unable to lock file") == NULL)
        return 0;
    const char *at = strstr(error->desc, number);
    failure->is_found = true;
    if (at != NULL && sscanf(at + strlen(number), "%d", &failure->error) != 1)
        failure->error = 0;
    return 0;
}

// How a file is opened without a lock; libraries before 1.10.7 have only the environment variable.
static hid_t access_without_lock(void)
{
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
#ifdef HAVE_H5PSET_FILE_LOCKING
    H5Pset_file_locking(access, false, true);
#endif
    return access;
}

static LockFailure lock_failure(void)
{
    LockFailure failure = {0};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, find_lock_failure, &failure);
    return failure;
}

Status hdf5_open(hid_t *out, const char *path)
{
    int fd;
    hdf5_silence();
    TRY(file_open(&fd, path)); // H5Fopen() would wait for the writer of a named pipe
    close(fd);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    LockFailure failure = lock_failure();
    if (file < 0 && failure.is_found && failure.error == EWOULDBLOCK)
        return fail(BAD_INPUT,
                    "%s: another program has it open for writing; wait until it has closed it",
                    path);
    if (file < 0 && failure.is_found) {
        const hid_t access = access_without_lock();
        H5Eclear2(H5E_DEFAULT);
        file = H5Fopen(path, H5F_ACC_RDONLY, access);
        failure = lock_failure();
        if (file < 0)
            hdf5_keep_reason();
        H5Pclose(access);
    }
    if (file < 0 && !failure.is_found) {
        hdf5_keep_reason();
        const bool is_hdf5 = H5Fis_hdf5(path) > 0; // of any state: cut short, say
        H5Eclear2(H5E_DEFAULT);
        if (!is_hdf5)
            TRY(file_kind_check(path));
    }
    if (file < 0)
        return hdf5_fail(BAD_INPUT, path,
                         failure.is_found
                             ? "cannot be locked, as HDF5 wants; set HDF5_USE_FILE_LOCKING=FALSE"
                             : "not a readable HDF5 file");
    *out = file;
    return OK;
}

hid_t hdf5_create(const char *temporary, H5F_libver_t low)
{
    hid_t file = H5I_INVALID_HID;
    const hid_t access = access_without_lock(), creation = H5Pcreate(H5P_FILE_CREATE);
    if (access >= 0 && H5Pset_obj_track_times(creation, false) >= 0 &&
        H5Pset_libver_bounds(access, low, H5F_LIBVER_LATEST) >= 0)
        file = H5Fcreate(temporary, H5F_ACC_TRUNC, creation, access);
    if (file < 0)
        hdf5_keep_reason();
    H5Pclose(creation);
    H5Pclose(access);
    return file;
}
