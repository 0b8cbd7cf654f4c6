// model/paper/torch_file: a file is refused in one line, or it is a tensor whose numbers are all in
// the file, and ranks of it are pairs of the model or refused. The first byte says how the rest is
// put into the file: as it is ('r'), or as the pickle of a right archive with 64 bytes of numbers.
#include "tests/fuzz/fuzzing.h"
#include "tests/support/testing_zip.h"

#include "model/paper/paper_ranks.h"
#include "model/paper/torch_file.h"

#include <stdlib.h>

enum { NUMBERS_BYTES = 64 };

// One whose ranks, and one whose scores, have the dims of the seeds.
static const ModelShape shapes[] = {
    {.n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .rope_pairs = 2, .d_kv = 1},
    {.n_layers = 2, .n_heads = 4, .n_kv_heads = 4, .head_dim = 10, .rope_pairs = 3, .d_kv = 1},
};

static const char *write_archive(const FuzzInput *input)
{
    static unsigned char archive[TESTING_ZIP_BYTES];
    unsigned char numbers[NUMBERS_BYTES];
    for (int i = 0; i < NUMBERS_BYTES; i++)
        numbers[i] = (unsigned char)(i * 37);
    const ZipPart parts[] = {{"a/data.pkl", input->bytes, input->size},
                             {"a/data/0", numbers, sizeof numbers}};
    const size_t size = testing_zip(archive, parts, 2);
    return fuzz_file("t.pth", archive, size);
}

static void check_ranks(const char *path, const ModelShape *shape)
{
    int32_t pairs[2 * 4 * 3];
    const Status status = paper_ranks_read(pairs, shape, path);
    const int n = shape->n_layers * shape->n_kv_heads * shape->rope_pairs;
    if (status != OK)
        fuzz_check_refusal(status);
    for (int i = 0; status == OK && i < n; i++) {
        CHECK(pairs[i] >= 0 && pairs[i] < shape->head_dim / 2, "pair %d", (int)pairs[i]);
        CHECK(i % shape->rope_pairs == 0 || pairs[i] > pairs[i - 1], "pair %d", (int)pairs[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = {data, size};
    TorchTensor tensor;
    double sum = 0;
    const bool is_raw = fuzz_take_byte(&input) == 'r';
    if (input.size > TESTING_ZIP_BYTES / 2)
        return 0;
    const char *path = is_raw ? fuzz_file("t.pth", input.bytes, input.size) : write_archive(&input);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check_ranks(path, &shapes[i]);
    const Status status = torch_file_open(&tensor, path);
    if (status != OK)
        return fuzz_check_refusal(status);
    CHECK(tensor.count == tensor.dims[0] * tensor.dims[1] * tensor.dims[2], "%lld numbers",
          (long long)tensor.count);
    for (int64_t i = 0; i < tensor.count; i++)
        sum += torch_file_value(&tensor, i);
    CHECK(sum == sum || torch_file_is_float(&tensor), "whole numbers sum to NaN");
    torch_file_close(&tensor);
    return 0;
}
