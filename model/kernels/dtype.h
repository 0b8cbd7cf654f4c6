// The number formats that weights are stored in.
//
//     int64_t size_bytes = count * dtype_size_bytes(DTYPE_BF16);   // 2 each
//     dtype_narrow(halves, DTYPE_BF16, values, count);
//     dtype_widen(values, halves, DTYPE_BF16, count);
#ifndef MHA2MLA_MODEL_KERNELS_DTYPE_H
#define MHA2MLA_MODEL_KERNELS_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum DType {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_F64,   // read alone, as float
    DTYPE_OTHER, // in a file, but not read or written here: TensorInfo.dtype_text says which
} DType;

int64_t dtype_size_bytes(DType dtype); // of one number; not for DTYPE_OTHER
const char *dtype_name(DType dtype);   // "F32", ..., "other"

// The names config.json and torch use: "float32", "float16", "bfloat16".
const char *dtype_torch_name(DType dtype);

// Float numbers from F32, F16 or BF16, exactly, or from F64, rounded, and to the first three,
// rounded as in model/kernels/half.h. On the calling thread alone.
bool dtype_is_float(DType dtype);    // one of the four
DType dtype_of_memory(DType dtype);  // F32 for F64, which is never kept; else the same
void dtype_widen(float *out,         // [count]
                 const void *values, // [count] of dtype
                 DType dtype, int64_t count);
void dtype_narrow(void *out, // [count] of dtype
                  DType dtype,
                  const float *values, // [count]
                  int64_t count);

#endif
