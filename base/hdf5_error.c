// HDF5 keeps its errors on a stack of its own for each thread, with the call that first noticed at
// the bottom. Only that one says what a user can act on ("No space left on device", "wrong
// signature"); the calls above it add where in HDF5 they were.
#include "base/hdf5_error.h"

#include <hdf5.h>
#include <stdio.h>
#include <string.h>

typedef struct Reason {
    char text[512];
} Reason;

static _Thread_local Reason kept; // what hdf5_keep_reason() found; "" if nothing

void hdf5_silence(void)
{
    H5dont_atexit(); // its clean-up crashes after a file that could not be closed: a full disk
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Eclear2(H5E_DEFAULT);
    kept.text[0] = '\0';
}

// Where a system call failed, HDF5 writes "..., errno = 28, error message = 'No space left on
// device', buf = ...": the quoted words are enough.
static herr_t keep_innermost(unsigned depth, const H5E_error2_t *error, void *data)
{
    static const char before[] = "error message = '";
    Reason *reason = data;
    if (depth > 0 || error->desc == NULL)
        return 0;
    const char *words = strstr(error->desc, before);
    words = words != NULL ? words + strlen(before) : error->desc;
    // Another text is taken whole: it may have quotes of its own.
    const size_t length = words != error->desc ? strcspn(words, "'") : strlen(words);
    snprintf(reason->text, sizeof reason->text, "%.*s", (int)length, words);
    return 0;
}

void hdf5_keep_reason(void)
{
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &kept);
}

Status hdf5_fail(Status kind, const char *path, const char *what)
{
    Reason reason = {""};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &reason);
    H5Eclear2(H5E_DEFAULT);
    if (reason.text[0] == '\0')
        reason = kept;
    kept.text[0] = '\0';
    // The message is one line; a system's text may have line ends.
    for (char *c = reason.text; *c != '\0'; c++) {
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    }
    if (reason.text[0] == '\0')
        return fail(kind, "%s: %s", path, what);
    return fail(kind, "%s: %s (HDF5: %s)", path, what, reason.text);
}
