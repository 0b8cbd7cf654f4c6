// Files that torch.load() reads, also with weights_only=True: a zip archive without compression of
// a pickled description and the numbers.
#ifndef MHA2MLA_MODEL_HF_TORCH_FILE_H
#define MHA2MLA_MODEL_HF_TORCH_FILE_H

#include "base/status.h"

#include <stdint.h>

// Writes one tensor of uint8, whole or not at all. Up to 2 GB.
Status torch_file_write_u8(const char *path, const uint8_t *values, const int32_t dims[3]);

#endif
