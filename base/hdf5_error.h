// HDF5 says what went wrong by printing a stack of its own calls. These keep it quiet and take the
// innermost reason for our one line.
//
//     hdf5_silence();
//     hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
//     if (file < 0)
//         return hdf5_fail(BAD_INPUT, path, "not a readable HDF5 file");
#ifndef MHA2MLA_BASE_HDF5_ERROR_H
#define MHA2MLA_BASE_HDF5_ERROR_H

#include "base/status.h"

// Turns off HDF5's printing in the calling thread and forgets earlier errors; cheap. To be
// called before anything else of HDF5, whose own clean-up at exit it turns off too.
void hdf5_silence(void);

// Keeps the reason of the call that has just failed for the next hdf5_fail(): every later call of
// HDF5, to close what is open, forgets it.
void hdf5_keep_reason(void);

// Writes "path: what (HDF5: reason)", one line, and returns `kind`.
Status hdf5_fail(Status kind, const char *path, const char *what);

#endif
