// HDF5 files on file systems with and without locks.
//
//     hid_t file;
//     TRY(hdf5_open(&file, "shards/a.h5"));
//     ...
//     H5Fclose(file);
//
// HDF5 locks what it opens, and refuses where that fails. NFS without lockd and Lustre mounted
// without flock have no locks; nothing here needs them, as finished files are only read and new
// ones have names of their own. So a file is opened without a lock where there are none, and one
// that another program has open for writing is still refused.
#ifndef MHA2MLA_BASE_HDF5_FILE_H
#define MHA2MLA_BASE_HDF5_FILE_H

#include "base/status.h"

#include <hdf5.h>

// Opens a file for reading. BAD_INPUT if it is no regular file, not HDF5 (a known other kind is
// named, base/file_kind.h), damaged, or another program writes it.
// Calls hdf5_silence().
Status hdf5_open(hid_t *out, const char *path);

// Creates a file in place of the empty one at `temporary`, in the format of `low` or later ones,
// whose root has no times: the same content gives the same bytes.
// < 0 if it fails: hdf5_fail() then has the reason. The caller has called hdf5_silence().
hid_t hdf5_create(const char *temporary, H5F_libver_t low);

#endif
