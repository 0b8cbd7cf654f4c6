// Files of weights that are missing, damaged or of another model, each refused by its text.
#define _GNU_SOURCE // memmem
#include "tests/support/testing_hf.h"

#include "base/log.h"
#include "model/hf/hf_weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_missing_files_are_named(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    assert_fails(BAD_INPUT, "/absent/model: not a directory",
                 hf_load(&model, testing_absent("model")));
    testing_hf_save(dir, &testing_hf_shape);
    assert_int_equal(unlink(testing_path(dir, "model.safetensors")), 0);
    assert_fails(BAD_INPUT, "neither model.safetensors nor model.safetensors.index.json",
                 hf_load(&model, dir));
    assert_ok(file_write(testing_path(dir, "pytorch_model.bin"), "x", 1));
    assert_fails(BAD_INPUT, "pytorch_model.bin: not supported", hf_load(&model, dir));
    assert_int_equal(unlink(testing_path(dir, "config.json")), 0);
    assert_fails(BAD_INPUT, "config.json is missing", hf_load(&model, dir));
}

static void test_missing_tensors_are_listed(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    testing_hf_save(dir, &testing_hf_shape);
    json_t *config = testing_hf_read_config(dir);
    json_object_set_new(config, "tie_word_embeddings", json_false());
    testing_hf_write_config(config, dir);
    assert_fails(BAD_INPUT, "missing in the weights: lm_head.weight; if the head is the embedding",
                 hf_load(&model, dir));
    json_object_set_new(config, "num_hidden_layers", json_integer(3));
    testing_hf_write_config(config, dir);
    assert_fails(BAD_INPUT,
                 "weights: model.layers.2.input_layernorm.weight, model.layers.2.self_attn.q_proj."
                 "weight, model.layers.2.self_attn.k_proj.weight and more",
                 hf_load(&model, dir));
    json_decref(config);
    testing_hf_save(dir, &shape);
    config = testing_hf_read_config(dir);
    json_object_set_new(config, "num_key_value_heads", json_integer(4));
    json_object_del(json_object_get(config, "mha2mla"), "cache_numbers_per_token");
    testing_hf_write_config(config, dir);
    assert_fails(BAD_INPUT, "has shape [2, 2], expected is [4, 2]", hf_load(&model, dir));
    json_decref(config);
}

// Replaces one tensor of a saved model by others' bytes, found through the map's offset.
static void overwrite(const char *dir, const char *tensor, int64_t offset, const void *bytes,
                      size_t size)
{
    const char *path = testing_path(dir, "model.safetensors");
    SafeTensors file;
    assert_ok(safetensors_open(&file, path));
    const TensorInfo *info = safetensors_find(&file, tensor);
    assert_non_null(info);
    int64_t place = info->bytes - file.map.bytes + offset;
    safetensors_close(&file);
    FILE *stream = fopen(path, "r+b");
    assert_non_null(stream);
    assert_int_equal(fseeko(stream, (off_t)place, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

static void test_weights_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    const float bad[2] = {-INFINITY, NAN};
    testing_hf_save(dir, &testing_hf_shape);
    overwrite(dir, "model.layers.1.mlp.down_proj.weight", 4 * (20 * 2 + 5), bad, sizeof bad);
    assert_fails(BAD_INPUT,
                 "tensor 'model.layers.1.mlp.down_proj.weight' has -inf at row 2, column 5",
                 hf_load(&model, dir));
}

static void test_rope_pairs_must_ascend_in_range(void **state)
{
    (void)state;
    static const struct {
        int32_t pairs[2];
        const char *text;
    } cases[] = {
        {{1, 1}, "has 1 at KV head 1, pair 1: pairs ascend from 0 to 3"},
        {{3, 2}, "has 2 at KV head 1, pair 1"},
        {{0, 4}, "has 4 at KV head 1, pair 1"},
        {{-1, 2}, "has -1 at KV head 1, pair 0"},
        {{INT32_MAX, 2}, "has 2147483647 at KV head 1, pair 0"},
    };
    char dir[PATH_BYTES];
    Model model;
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    testing_hf_save(dir, &shape);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        overwrite(dir, "model.layers.1.self_attn.rope_pairs", 8, cases[i].pairs, 8);
        assert_fails(BAD_INPUT, cases[i].text, hf_load(&model, dir));
    }
}

static void test_model_without_its_rope_pairs_is_refused(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    testing_hf_save(dir, &shape);
    // A name of the same length in the header makes the tensor another one.
    FileMap map;
    const char *path = testing_path(dir, "model.safetensors");
    assert_ok(file_map(&map, path));
    char *bytes = malloc((size_t)map.size_bytes);
    assert_non_null(bytes);
    memcpy(bytes, map.bytes, (size_t)map.size_bytes);
    int64_t size = map.size_bytes;
    file_unmap(&map);
    char *name = memmem(bytes, (size_t)size, "layers.0.self_attn.rope_pairs", 29);
    assert_non_null(name);
    memcpy(name + 24, "quads", 5);
    assert_ok(file_write(path, bytes, size));
    free(bytes);
    assert_fails(BAD_INPUT, "'model.layers.0.self_attn.rope_pairs' is missing",
                 hf_load(&model, dir));
}

// ---- shards ------------------------------------------------------------------------------------

static void test_damaged_indexes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *index, *text;
    } cases[] = {
        {"{}", "'weight_map' is not an object"},
        {"[]", "'weight_map' is not an object"},
        {"{\"weight_map\":{\"a\":5}}", "'a' is not given the name of a file"},
        {"{\"weight_map\":{\"a\":\"../x\"}}", "'a' is not given the name of a file"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\"}}", "x.safetensors: the file is missing; "},
        {"{\"weight_map\":{}}", "missing in the weights: model.embed_tokens.weight, "},
        {"{\"weight_map\":{\"model.embed_tokens.weight\":\"model-00002-of-00004.safetensors\"}}",
         "tensor 'model.embed_tokens.weight' is missing; model.safetensors.index.json says"},
    };
    char dir[PATH_BYTES];
    Model model;
    testing_hf_new_dir(dir);
    testing_hf_random(&model, &testing_hf_shape);
    assert_ok(hf_save_sharded(&model, NULL, DTYPE_F32, dir, 12000));
    model_release(&model);
    assert_true(file_exists(testing_path(dir, "model-00004-of-00004.safetensors")));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(file_write(testing_path(dir, "model.safetensors.index.json"), cases[i].index,
                             (int64_t)strlen(cases[i].index)));
        assert_fails(BAD_INPUT, cases[i].text, hf_load(&model, dir));
    }
}

static void test_each_shard_is_mapped_once(void **state)
{
    (void)state;
    HfWeights weights;
    const SafeTensors *file;
    assert_ok(hf_weights_open(&weights, GOLDEN_DIR "/models/mqa_sharded"));
    assert_int_equal(weights.n_files, 3);
    assert_ok(hf_weights_find(&file, &weights, "lm_head.weight"));
    assert_non_null(strstr(file->path, "model-00003-of-00003.safetensors"));
    assert_ok(hf_weights_find(&file, &weights, "no.such"));
    assert_null(file);
    hf_weights_close(&weights);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_files_are_named),
        cmocka_unit_test(test_missing_tensors_are_listed),
        cmocka_unit_test(test_weights_that_are_not_finite_are_refused),
        cmocka_unit_test(test_rope_pairs_must_ascend_in_range),
        cmocka_unit_test(test_model_without_its_rope_pairs_is_refused),
        cmocka_unit_test(test_damaged_indexes_are_refused),
        cmocka_unit_test(test_each_shard_is_mapped_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
