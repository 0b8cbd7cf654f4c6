// Files that torch.save() writes and torch.load() reads, also with weights_only=True: a zip archive
// without compression of a pickled description and the numbers. One tensor of three dims is all
// that is read and written here, and the pickle is compared with what it must be rather than run.
//
//     TorchTensor tensor;
//     TRY(torch_file_open(&tensor, "qk_rank.pth"));
//     for (int64_t i = 0; i < tensor.count; i++)
//         use(torch_file_value(&tensor, i));
//     torch_file_close(&tensor);
#ifndef MHA2MLA_MODEL_PAPER_TORCH_FILE_H
#define MHA2MLA_MODEL_PAPER_TORCH_FILE_H

#include "base/file.h"

typedef enum TorchType {
    TORCH_U8,
    TORCH_I64,
    TORCH_F32,
    TORCH_F16,
    TORCH_BF16,
    TORCH_F64,
} TorchType;

typedef struct TorchTensor {
    FileMap map; // owned
    TorchType type;
    int64_t dims[3];
    int64_t count;               // their product
    const unsigned char *values; // in the map, perhaps unaligned
} TorchTensor;

// BAD_INPUT names the file and what it is instead: no archive, damaged, a dict, another dtype, a
// tensor of other dims or whose rows do not follow each other.
Status torch_file_open(TorchTensor *out, const char *path);
void torch_file_close(TorchTensor *tensor);

bool torch_file_is_float(const TorchTensor *tensor);
double torch_file_value(const TorchTensor *tensor, int64_t i); // numbers of I64 beyond 2^53 round

// Writes one tensor of uint8, whole or not at all. Up to 2 GB.
Status torch_file_write_u8(const char *path, const uint8_t *values, const int32_t dims[3]);

#endif
