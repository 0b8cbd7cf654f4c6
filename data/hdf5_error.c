#include "data/hdf5_error.h"

#include <hdf5.h>
#include <stdio.h>
#include <string.h>

typedef struct Reason {
    char text[512];
} Reason;

static _Thread_local Reason kept;

void hdf5_silence(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Eclear2(H5E_DEFAULT);
    kept.text[0] = '\0';
}

static herr_t keep_innermost(unsigned depth, const H5E_error2_t *error, void *data)
{
    Reason *reason = data;
    if (depth == 0)
        snprintf(reason->text, sizeof reason->text, "%s", error->desc != NULL ? error->desc : "");
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
    for (char *c = reason.text; *c != '\0'; c++) {
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    }
    if (reason.text[0] == '\0')
        return fail(kind, "%s: %s", path, what);
    return fail(kind, "%s: %s (HDF5: %s)", path, what, reason.text);
}
