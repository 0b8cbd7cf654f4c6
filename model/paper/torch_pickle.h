// The description of a tensor in a file of torch.save(): data.pkl, behind model/paper/torch_file.h.
//
//     TorchPickle tensor;
//     if (!torch_pickle_read(&tensor, entry.bytes, entry.size_bytes))
//         ... not one tensor of three dims ...
#ifndef MHA2MLA_MODEL_PAPER_TORCH_PICKLE_H
#define MHA2MLA_MODEL_PAPER_TORCH_PICKLE_H

#include <stdbool.h>
#include <stdint.h>

enum { TORCH_TEXT_BYTES = 64 }; // longer texts are cut: none that is expected is

// As the file says it, unchecked.
typedef struct TorchPickle {
    char storage[TORCH_TEXT_BYTES]; // "torch ByteStorage"
    char key[TORCH_TEXT_BYTES];     // the numbers are in the entry data/KEY
    int64_t n_stored;               // numbers there
    int64_t offset, dims[3], strides[3];
} TorchPickle;

// False: the pickle is another one than that of a tensor of three dims.
bool torch_pickle_read(TorchPickle *out, const unsigned char *bytes, int64_t size_bytes);

bool torch_pickle_is_dict(const unsigned char *bytes, int64_t size_bytes);

#endif
