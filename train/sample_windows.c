#include "train/sample_windows.h"

#include <stdlib.h>
#include <string.h>

Status sample_windows_read(int32_t **out, Mixture *mixture, int n, int T, int seq_len)
{
    Status status;
    int32_t *windows = malloc((size_t)n * (size_t)T * sizeof *windows);
    int32_t *sample = malloc(((size_t)seq_len + 1) * sizeof *sample);
    if (windows == NULL || sample == NULL) {
        status = fail(FAILED, "no memory for %d windows of %d tokens", n, T);
        goto release;
    }
    for (int i = 0; i < n; i++) {
        TRY_GOTO(release, mixture_read(mixture, i, sample));
        memcpy(windows + (int64_t)i * T, sample, (size_t)T * sizeof *windows);
    }
    free(sample);
    *out = windows;
    return OK;
release:
    free(sample);
    free(windows);
    return status;
}
