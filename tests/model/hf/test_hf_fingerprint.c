// model/hf/hf_fingerprint: equal for the same weights wherever and in however many files they are,
// other ones for other weights.
#include "tests/support/testing.h"

#include "model/hf/hf.h"
#include "model/hf/hf_fingerprint.h"

#include <stdio.h>
#include <string.h>

// Its embedding is larger than what is read of a tensor: 4096 rows of 8 floats.
static const ModelShape example = {
    .n_layers = 2,
    .d_model = 8,
    .n_heads = 2,
    .n_kv_heads = 1,
    .head_dim = 4,
    .d_ffn = 12,
    .vocab_size = 4096,
    .max_positions = 64,
    .rope_pairs = 2,
    .tied_head = true,
    .rope_theta = 10000.0,
    .rms_eps = 1e-5,
};

// Weight `changed` is another one; -1: none is.
static json_t *fingerprint_of(int64_t changed, DType dtype, int64_t max_shard_bytes)
{
    const char *dir = testing_path(testing_dir(), "model");
    Model model;
    json_t *fingerprint;
    assert_ok(model_create(&model, &example));
    testing_fill(model.params.flat, model.params.count, 0.1, 7);
    if (changed >= 0)
        model.params.flat[changed] += 1.0f;
    assert_ok(hf_save_sharded(&model, NULL, dtype, dir, max_shard_bytes));
    assert_ok(hf_fingerprint(&fingerprint, dir));
    model_release(&model);
    return fingerprint;
}

static void expect(bool is_equal, json_t *a, json_t *b)
{
    assert_int_equal(json_equal(a, b), is_equal);
    json_decref(a);
    json_decref(b);
}

static void test_it_names_dtype_dims_and_content_in_the_order_of_names(void **state)
{
    (void)state;
    json_t *tensors = fingerprint_of(-1, DTYPE_F32, INT64_MAX);
    const char *key, *before = "";
    json_t *value;
    json_object_foreach(tensors, key, value)
    {
        assert_true(strcmp(before, key) < 0);
        before = key;
    }
    const char *text = json_string_value(json_object_get(tensors, "model.embed_tokens.weight"));
    assert_non_null(text);
    assert_memory_equal(text, "F32 [4096, 8] ", 14);
    assert_int_equal(strlen(text), 14 + 16);
    text = json_string_value(json_object_get(tensors, "model.norm.weight"));
    assert_non_null(text);
    assert_memory_equal(text, "F32 [8] ", 8);
    json_decref(tensors);
}

static void test_files_do_not_count(void **state)
{
    (void)state;
    expect(true, fingerprint_of(-1, DTYPE_F32, INT64_MAX), fingerprint_of(-1, DTYPE_F32, 2000));
}

static void test_other_weights_are_told_apart(void **state)
{
    (void)state;
    Model model;
    assert_ok(model_create(&model, &example));
    const int64_t count = model.params.count, embedding = 4096 * 8;
    model_release(&model);
    // The first, middle and last of the embedding, one of a small tensor, and the last of all.
    const int64_t changed[] = {0, embedding / 2, embedding - 1, embedding + 20, count - 1};
    for (int i = 0; i < 5; i++)
        expect(false, fingerprint_of(-1, DTYPE_F32, INT64_MAX),
               fingerprint_of(changed[i], DTYPE_F32, INT64_MAX));
    expect(false, fingerprint_of(-1, DTYPE_F32, INT64_MAX),
           fingerprint_of(-1, DTYPE_BF16, INT64_MAX));
}

static void test_a_directory_without_weights_is_an_error(void **state)
{
    (void)state;
    json_t *fingerprint;
    const char *absent = testing_absent("model");
    assert_fails(BAD_INPUT, absent, hf_fingerprint(&fingerprint, absent));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_names_dtype_dims_and_content_in_the_order_of_names),
        cmocka_unit_test(test_files_do_not_count),
        cmocka_unit_test(test_other_weights_are_told_apart),
        cmocka_unit_test(test_a_directory_without_weights_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
