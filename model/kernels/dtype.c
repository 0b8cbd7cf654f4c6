#include "model/kernels/dtype.h"

#include "base/simd.h"
#include "base/status.h"
#include "model/kernels/half.h"

#include <string.h>

typedef struct DTypeDesc {
    const char *name;       // in safetensors
    const char *torch_name; // NULL: not a dtype of weights
    int size_bytes;
} DTypeDesc;

static const DTypeDesc table[DTYPE_OTHER] = {
    [DTYPE_F32] = {"F32", "float32", 4},    [DTYPE_F16] = {"F16", "float16", 2},
    [DTYPE_BF16] = {"BF16", "bfloat16", 2}, [DTYPE_I32] = {"I32", NULL, 4},
    [DTYPE_F64] = {"F64", NULL, 8},
};

int64_t dtype_size_bytes(DType dtype)
{
    CHECK((int)dtype >= 0 && dtype < DTYPE_OTHER, "dtype %d", (int)dtype);
    return table[dtype].size_bytes;
}

const char *dtype_name(DType dtype)
{
    return (int)dtype >= 0 && dtype < DTYPE_OTHER ? table[dtype].name : "other";
}

const char *dtype_torch_name(DType dtype)
{
    CHECK((int)dtype >= 0 && dtype < DTYPE_OTHER && table[dtype].torch_name != NULL, "dtype %d",
          (int)dtype);
    return table[dtype].torch_name;
}

bool dtype_is_float(DType dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16 || dtype == DTYPE_F64;
}

DType dtype_of_memory(DType dtype)
{
    return dtype == DTYPE_F64 ? DTYPE_F32 : dtype;
}

HOT static void widen_f16(float *restrict out, const uint16_t *restrict halves, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = half_f16_to_f32(halves[i]);
}

HOT static void widen_bf16(float *restrict out, const uint16_t *restrict halves, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = half_bf16_to_f32(halves[i]);
}

// Not widened, but rounded to nearest; beyond the range of float to infinity.
HOT static void round_f64(float *restrict out, const double *restrict values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)values[i];
}

void dtype_widen(float *out, const void *values, DType dtype, int64_t count)
{
    CHECK(dtype_is_float(dtype), "dtype %d", (int)dtype);
    if (dtype == DTYPE_F32)
        memcpy(out, values, (size_t)count * sizeof *out);
    else if (dtype == DTYPE_F16)
        widen_f16(out, values, count);
    else if (dtype == DTYPE_F64)
        round_f64(out, values, count);
    else
        widen_bf16(out, values, count);
}

HOT static void narrow_f16(uint16_t *restrict out, const float *restrict values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = half_f32_to_f16(values[i]);
}

HOT static void narrow_bf16(uint16_t *restrict out, const float *restrict values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = half_f32_to_bf16(values[i]);
}

void dtype_narrow(void *out, DType dtype, const float *values, int64_t count)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16, "dtype %d", (int)dtype);
    if (dtype == DTYPE_F32)
        memcpy(out, values, (size_t)count * sizeof *values);
    else if (dtype == DTYPE_F16)
        narrow_f16(out, values, count);
    else
        narrow_bf16(out, values, count);
}
