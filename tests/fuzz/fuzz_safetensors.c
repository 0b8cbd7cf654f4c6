// model/safetensors: no header makes it read outside the file, and what it accepts is consistent.
// The first byte says how the rest is put into the file: as it is, or as a header that ends at the
// first zero byte, with its right length before it and data behind.
#include "tests/fuzz/fuzzing.h"

#include "model/hf/safetensors.h"

#include <stdlib.h>
#include <string.h>

enum { PREFIX_BYTES = 8 };

static void build(uint8_t *out, const FuzzInput *input)
{
    const uint8_t *zero = input->size > 0 ? memchr(input->bytes, 0, input->size) : NULL;
    uint64_t length = zero != NULL ? (uint64_t)(zero - input->bytes) : input->size;
    memcpy(out, &length, PREFIX_BYTES);
    if (input->size > 0)
        memcpy(out + PREFIX_BYTES, input->bytes, input->size);
}

// Reads all of the tensor in every way there is.
static void check_tensor(const SafeTensors *file, const TensorInfo *tensor)
{
    int dims[SAFETENSORS_MAX_DIMS];
    CHECK(safetensors_find(file, tensor->name) == tensor, "'%s' is not found", tensor->name);
    CHECK(tensor->size_bytes >= 0 && tensor->size_bytes <= file->map.size_bytes, "%lld bytes",
          (long long)tensor->size_bytes);
    for (int i = 0; i < tensor->n_dims; i++) {
        if (tensor->dims[i] > INT32_MAX) // of an empty tensor: no shape of ours asks for it
            return;
        dims[i] = (int)tensor->dims[i];
    }
    float *values = malloc((size_t)tensor->size_bytes * 2 + 1);
    CHECK(values != NULL, "no memory");
    bool is_float = dtype_is_float(tensor->dtype);
    bool is_int = tensor->dtype == DTYPE_I32;
    Status status = safetensors_read_f32(file, tensor->name, dims, tensor->n_dims, values);
    CHECK((status == OK) == is_float, "'%s': status %d", tensor->name, (int)status);
    status = safetensors_read_i32(file, tensor->name, dims, tensor->n_dims, (int32_t *)values);
    CHECK((status == OK) == is_int, "'%s': status %d", tensor->name, (int)status);
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = {data, size};
    bool is_raw = fuzz_take_byte(&input) == 'r';
    uint8_t *built = malloc(input.size + PREFIX_BYTES);
    CHECK(built != NULL, "no memory");
    build(built, &input);
    const char *path = is_raw ? fuzz_file("model.safetensors", input.bytes, input.size)
                              : fuzz_file("model.safetensors", built, input.size + PREFIX_BYTES);
    free(built);
    SafeTensors file;
    Status status = safetensors_open(&file, path);
    if (status != OK)
        return fuzz_check_refusal(status);
    for (int i = 0; i < file.n_tensors; i++)
        check_tensor(&file, &file.tensors[i]);
    safetensors_close(&file);
    return 0;
}
