// infer/cache/quantize_hqq and quantize_quanto against hqq 0.2.8 and optimum-quanto 0.2.7: keys,
// latents and rotated keys quantized by the libraries as transformers calls them, in float32 and
// bfloat16.
#include "tests/support/testing.h"

#include "infer/cache/quantize_hqq.h"
#include "infer/cache/quantize_quanto.h"
#include "model/hf/safetensors.h"
#include "model/kernels/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 80 };

typedef void Quantize(uint8_t *restrict codes, float *restrict scale, float *restrict zero,
                      const float *restrict values, const QuantGroups *groups, int bits,
                      bool in_bfloat16);
typedef void Dequantize(float *restrict values, const uint8_t *restrict codes,
                        const float *restrict scale, const float *restrict zero,
                        const QuantGroups *groups, int64_t first, int64_t count, bool in_bfloat16);

typedef struct Library {
    const char *name, *zero_name;
    int axes[2];
    const char *axis_names[2];
    QuantGroups (*groups)(int axis, int64_t n, int width);
    Quantize *quantize;
    Dequantize *dequantize;
    // Largest allowed errors of scale and zero in float32, absolute; a bfloat16 may be the next
    // one.
    double scale_error, zero_error;
} Library;

static const Library hqq = {
    // HQQ's means are summed in another order than PyTorch's; observed 4.5e-6.
    "hqq", "zero", {0, 1}, {"axis0", "axis1"}, hqq_groups, quantize_hqq, dequantize_hqq, 0, 5e-6,
};
static const Library quanto = {
    "quanto",          "shift", {0, -1}, {"axis0", "axislast"}, quanto_groups, quantize_quanto,
    dequantize_quanto, 0,       0,
};

// One quantized tensor of the golden file, and the same made here.
typedef struct Case {
    char name[NAME_BYTES];
    const Library *library;
    int bits, axis, width;
    bool in_bfloat16;
    int64_t n;
    QuantGroups groups;
    float *values, *scale, *zero, *read, *expected; // [n]; expected is scratch for any of them
    uint8_t *codes;
} Case;

static const TensorInfo *find(const SafeTensors *file, const Case *c, const char *part)
{
    char name[NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s.%s", c->name, part);
    const TensorInfo *info = safetensors_find(file, name);
    if (info == NULL)
        fail_msg("no tensor %s", name);
    return info;
}

static void read_floats(float *out, const SafeTensors *file, const TensorInfo *info)
{
    int dims[SAFETENSORS_MAX_DIMS];
    for (int i = 0; i < info->n_dims; i++)
        dims[i] = (int)info->dims[i];
    assert_ok(safetensors_read_f32(file, info->name, dims, info->n_dims, out));
}

static void expect_close(const SafeTensors *file, const Case *c, const char *part, const float *got,
                         int64_t count, double tolerance)
{
    read_floats(c->expected, file, find(file, c, part));
    for (int64_t i = 0; i < count; i++) {
        double want = c->expected[i], allowed = tolerance;
        if (c->in_bfloat16 && tolerance > 0) // the error may cross the border between two of them
            allowed += fabs(want) / 128;
        if (!(fabs(got[i] - want) <= allowed))
            fail_msg("%s.%s[%lld] is %.9g, expected %.9g", c->name, part, (long long)i, got[i],
                     want);
    }
}

// The grid [groups, 64] or [64, groups] of the libraries holds the elements in their order, but for
// CHANNELS, whose columns are groups.
static int64_t grid_index(const Case *c, int64_t element)
{
    if (c->groups.layout != CHANNELS)
        return element;
    int64_t in_group = element / c->width % QUANT_GROUP;
    return in_group * c->groups.count + quant_group_of(&c->groups, element);
}

static void check_case(const SafeTensors *file, Case *c)
{
    const Library *library = c->library;
    char input[NAME_BYTES];
    snprintf(input, sizeof input, "%.*s.input", (int)strcspn(c->name, "."), c->name);
    read_floats(c->values, file, safetensors_find(file, input));
    for (int64_t i = 0; c->in_bfloat16 && i < c->n; i++)
        c->values[i] = half_bf16_to_f32(half_f32_to_bf16(c->values[i]));

    c->groups = library->groups(c->axis, c->n, c->width);
    library->quantize(c->codes, c->scale, c->zero, c->values, &c->groups, c->bits, c->in_bfloat16);
    const uint8_t *expected = find(file, c, "codes")->bytes;
    int n_differing = 0;
    for (int64_t i = 0; i < c->n; i++)
        n_differing += c->codes[i] != expected[grid_index(c, i)];
    if (n_differing > 0)
        fail_msg("%s: %d of %lld codes differ", c->name, n_differing, (long long)c->n);
    expect_close(file, c, "scale", c->scale, c->groups.count, library->scale_error);
    expect_close(file, c, library->zero_name, c->zero, c->groups.count, library->zero_error);

    // From the library's own scales, so that reading is held to equality; in two halves.
    read_floats(c->scale, file, find(file, c, "scale"));
    read_floats(c->zero, file, find(file, c, library->zero_name));
    int64_t half = c->n / 2 + 5;
    library->dequantize(c->read, c->codes, c->scale, c->zero, &c->groups, 0, half, c->in_bfloat16);
    library->dequantize(c->read + half, c->codes + half, c->scale, c->zero, &c->groups, half,
                        c->n - half, c->in_bfloat16);
    expect_close(file, c, "deq", c->read, c->n, 0);
}

static void check_tensor(const SafeTensors *file, const Library *library, const char *tensor,
                         int width, int64_t n)
{
    Case c = {.library = library, .width = width, .n = n};
    float **arrays[] = {&c.values, &c.scale, &c.zero, &c.read, &c.expected};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        *arrays[i] = test_malloc((size_t)n * sizeof(float));
    c.codes = test_malloc((size_t)n);
    for (c.bits = 2; c.bits <= 4; c.bits += 2)
        for (int a = 0; a < 2; a++)
            for (int type = 0; type < 2; type++) {
                c.axis = library->axes[a];
                c.in_bfloat16 = type == 1;
                snprintf(c.name, sizeof c.name, "%s.%s.b%d.%s.%s", tensor, library->name, c.bits,
                         library->axis_names[a], type == 1 ? "bf16" : "f32");
                check_case(file, &c);
            }
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        test_free(*arrays[i]);
    test_free(c.codes);
}

static void check_library(const Library *library)
{
    SafeTensors file;
    assert_ok(safetensors_open(&file, testing_asset("golden/quant/kv_quant.safetensors")));
    check_tensor(&file, library, "c", 32, 128 * 32);     // a latent
    check_tensor(&file, library, "c24", 24, 128 * 24);   // a narrow one
    check_tensor(&file, library, "kr", 4, 2 * 128 * 4);  // rotated keys of two heads
    check_tensor(&file, library, "k", 32, 2 * 128 * 32); // original keys
    safetensors_close(&file);
}

static void hqq_is_the_librarys(void **state)
{
    (void)state;
    check_library(&hqq);
}

static void quanto_is_the_librarys(void **state)
{
    (void)state;
    check_library(&quanto);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hqq_is_the_librarys),
        cmocka_unit_test(quanto_is_the_librarys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
