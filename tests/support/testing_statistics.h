// Statistics of activations in a file, for tests of conversions on any number of ranks.
//
//     int32_t *tokens = testing_read_tokens(&file, "tokens", &n, &T);
//     const StatisticsRequest request = {tokens, n, n_attention, T, POOL_LAYER};
//     testing_write_statistics(path, &comm, &model, &request);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_STATISTICS_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_STATISTICS_H

#include "base/file.h"
#include "model/hf/safetensors.h"
#include "train/calibrate_statistics.h"

// Tokens [n, T] of a golden file, freed by the caller.
int32_t *testing_read_tokens(const SafeTensors *file, const char *name, int *n, int *T);

// Collective. Rank 0 writes the file, in its own folder; the path is that of all ranks.
void testing_write_statistics(char path[PATH_BYTES], const Comm *comm, const Model *model,
                              const StatisticsRequest *request);

#endif
