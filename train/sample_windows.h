// The beginnings of a mixture's first samples, which passes over data before training read.
//
//     int32_t *windows;
//     TRY(sample_windows_read(&windows, mixture, 40, 512, seq_len));
//     ...
//     free(windows);
#ifndef MHA2MLA_TRAIN_SAMPLE_WINDOWS_H
#define MHA2MLA_TRAIN_SAMPLE_WINDOWS_H

#include "data/mixture.h"

// windows [n, T]: the first T inputs of the samples 0 .. n - 1 of seq_len tokens, freed by the
// caller. Errors of mixture_read(); FAILED: no memory. Not collective.
Status sample_windows_read(int32_t **out, Mixture *mixture, int n, int T, int seq_len);

#endif
