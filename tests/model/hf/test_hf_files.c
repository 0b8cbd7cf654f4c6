// Weights as other programs leave them: names that a wrapper changed, a head in place of the
// embedding, double precision, indexes with "./" and shards without one; and config.json as Python
// writes it. Each is read as the same model, or refused in one line.
#define _GNU_SOURCE // asprintf
#include "tests/support/testing_hf.h"

#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What one tensor of a model is called in a file that write_weights() makes; false: it is left out.
typedef bool (*NameOf)(char *out, const char *name);

static const char *prefix; // of with_prefix()

static bool same(char *out, const char *name)
{
    return snprintf(out, PARAM_NAME_BYTES, "%s", name) > 0;
}

static bool with_prefix(char *out, const char *name)
{
    return snprintf(out, PARAM_NAME_BYTES, "%s%s", prefix, name) > 0;
}

static bool without_model(char *out, const char *name)
{
    return snprintf(out, PARAM_NAME_BYTES, "%s", name + strlen("model.")) > 0;
}

// As FSDP with torch.compile of every layer has them.
static bool wrapped_inside(char *out, const char *name)
{
    const char *mlp = strstr(name, "mlp.");
    return mlp == NULL ? same(out, name)
                       : snprintf(out, PARAM_NAME_BYTES, "%.*s_fsdp_wrapped_module._orig_mod.%s",
                                  (int)(mlp - name), name, mlp) > 0;
}

static bool head_for_embedding(char *out, const char *name)
{
    return same(out, strcmp(name, "model.embed_tokens.weight") == 0 ? "lm_head.weight" : name);
}

// The model's tensors first .. end - 1 as a file of its own, in float32 or, with is_double, in F64.
static void write_weights(const Model *model, int first, int end, NameOf name_of, bool is_double,
                          const char *path)
{
    const int64_t size = is_double ? 8 : 4;
    int64_t at = 0;
    json_t *header = json_object();
    double *values = malloc((size_t)model->params.count * sizeof *values);
    assert_non_null(values);
    for (int t = first; t < end; t++) {
        const ParamInfo info = params_info(&model->shape, t);
        const int64_t count = (int64_t)info.rows * info.cols;
        char name[PARAM_NAME_BYTES];
        if (!name_of(name, info.name))
            continue;
        json_t *dims = info.is_vector ? json_pack("[i]", info.rows)
                                      : json_pack("[i, i]", info.rows, info.cols);
        json_object_set_new(header, name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", is_double ? "F64" : "F32",
                                      "shape", dims, "data_offsets", (json_int_t)(at * size),
                                      (json_int_t)((at + count) * size)));
        for (int64_t i = 0; i < count; i++, at++) {
            const float value = model->params.flat[info.offset + i];
            if (is_double)
                values[at] = (double)value;
            else
                memcpy((float *)values + at, &value, sizeof value);
        }
    }
    char *text = json_dumps(header, 0);
    const uint64_t length = strlen(text);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&length, 8, 1, file), 1);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fwrite(values, (size_t)size, (size_t)at, file), at);
    assert_int_equal(fclose(file), 0);
    free(text);
    free(values);
    json_decref(header);
}

// A random model of the shape, and its directory, whose weights are written by write_weights().
static void make(Model *model, char dir[PATH_BYTES], const ModelShape *shape, NameOf name_of,
                 bool is_double)
{
    testing_hf_save(dir, shape);
    testing_hf_random(model, shape);
    write_weights(model, 0, params_n_tensors(shape), name_of, is_double,
                  testing_path(dir, "model.safetensors"));
}

static void assert_loads_as(const Model *model, const char *dir)
{
    Model loaded;
    DType dtype;
    assert_ok(hf_load(&loaded, dir));
    testing_hf_assert_same(&loaded.shape, &model->shape);
    assert_memory_equal(loaded.params.flat, model->params.flat,
                        (size_t)model->params.count * sizeof(float));
    assert_ok(hf_saved_dtype(&dtype, dir));
    assert_int_equal(dtype, DTYPE_F32);
    model_release(&loaded);
}

static void test_names_of_wrappers_are_left_out(void **state)
{
    (void)state;
    static const char *const prefixes[] = {"module.", "_orig_mod.", "module._orig_mod.",
                                           "_orig_mod.module."};
    char dir[PATH_BYTES];
    Model model;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        prefix = prefixes[i];
        make(&model, dir, &testing_hf_shape, with_prefix, false);
        assert_loads_as(&model, dir);
        model_release(&model);
    }
    make(&model, dir, &testing_hf_shape, wrapped_inside, false);
    assert_loads_as(&model, dir);
    model_release(&model);
}

static void test_a_model_without_a_head_is_one_with_a_tied_head(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model, loaded;
    make(&model, dir, &testing_hf_shape, without_model, false);
    json_t *config = testing_hf_read_config(dir);
    json_object_set_new(config, "architectures", json_pack("[s]", "LlamaModel"));
    testing_hf_write_config(config, dir);
    assert_loads_as(&model, dir);
    json_object_set_new(config, "tie_word_embeddings", json_false());
    testing_hf_write_config(config, dir);
    assert_fails(BAD_INPUT, "missing in the weights: lm_head.weight; if the head is the embedding",
                 hf_load(&loaded, dir));
    json_decref(config);
    model_release(&model);
}

static void test_a_tied_head_may_be_all_that_is_stored(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model, loaded;
    make(&model, dir, &testing_hf_shape, head_for_embedding, false);
    assert_loads_as(&model, dir);
    json_t *config = testing_hf_read_config(dir);
    json_object_set_new(config, "tie_word_embeddings", json_false());
    testing_hf_write_config(config, dir);
    assert_fails(BAD_INPUT, "missing in the weights: model.embed_tokens.weight",
                 hf_load(&loaded, dir));
    json_decref(config);
    model_release(&model);
}

static void test_double_precision_is_rounded(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model, loaded;
    HfSource *source;
    DType dtype;
    make(&model, dir, &testing_hf_shape, same, true);
    assert_loads_as(&model, dir);
    assert_ok(hf_source_open(&source, dir));
    assert_ok(hf_source_dtype(&dtype, source));
    assert_int_equal(dtype, DTYPE_F32);
    hf_source_close(source);
    // The last numbers of the file are the last tensor's, model.norm.weight.
    const double beyond = 1e300;
    FILE *file = fopen(testing_path(dir, "model.safetensors"), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -8, SEEK_END), 0);
    assert_int_equal(fwrite(&beyond, 8, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    assert_fails(BAD_INPUT, "'model.norm.weight' has inf at row 23", hf_load(&loaded, dir));
    model_release(&model);
}

static void test_adapters_and_pairs_of_names_are_refused(void **state)
{
    (void)state;
    static const char *const prefixes[] = {"base_model.model.", "module.base_model."};
    char dir[PATH_BYTES];
    Model model, loaded;
    for (int i = 0; i < 2; i++) {
        prefix = prefixes[i];
        make(&model, dir, &testing_hf_shape, with_prefix, false);
        assert_fails(BAD_INPUT, "is of a model with adapters; merge them into its weights",
                     hf_load(&loaded, dir));
        model_release(&model);
    }
    make(&model, dir, &testing_hf_shape, same, false);
    const char text[] = "{\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
                        "\"module.norm.weight\":{\"dtype\":\"F32\",\"shape\":[0],"
                        "\"data_offsets\":[0,0]}}";
    char bytes[8 + sizeof text - 1];
    const uint64_t length = sizeof text - 1;
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, text, sizeof text - 1);
    assert_ok(file_write(testing_path(dir, "model.safetensors"), bytes, sizeof bytes));
    assert_fails(BAD_INPUT, "two tensors are 'model.norm.weight' under different names",
                 hf_load(&loaded, dir));
    model_release(&model);
}

// ---- shards ------------------------------------------------------------------------------------

enum { N_SHARDS = 4 };

static void make_shards(Model *model, char dir[PATH_BYTES])
{
    testing_hf_new_dir(dir);
    testing_hf_random(model, &testing_hf_shape);
    assert_ok(hf_save_sharded(model, NULL, DTYPE_F32, dir, 12000));
    assert_true(file_exists(testing_path(dir, "model-00004-of-00004.safetensors")));
}

static void test_an_index_may_name_files_from_here(void **state)
{
    (void)state;
    char dir[PATH_BYTES], here[PATH_BYTES];
    const char *tensor;
    json_t *index, *file;
    void *next;
    Model model;
    make_shards(&model, dir);
    const char *path = testing_path(dir, "model.safetensors.index.json");
    assert_ok(json_read(&index, path));
    json_t *map = json_object_get(index, "weight_map"), *wrapped = json_object();
    json_object_foreach_safe(map, next, tensor, file)
    {
        snprintf(here, sizeof here, "./%s", json_string_value(file));
        assert_int_equal(json_object_set_new(wrapped, tensor, json_string(here)), 0);
    }
    json_object_set_new(index, "weight_map", wrapped);
    assert_int_equal(json_dump_file(index, path, 0), 0);
    json_decref(index);
    assert_loads_as(&model, dir);
    model_release(&model);
}

static void test_shards_need_no_index(void **state)
{
    (void)state;
    char dir[PATH_BYTES], from[PATH_BYTES], to[PATH_BYTES];
    Model model, loaded;
    make_shards(&model, dir);
    assert_int_equal(unlink(testing_path(dir, "model.safetensors.index.json")), 0);
    assert_loads_as(&model, dir);
    // Another model's shard beside them.
    snprintf(from, sizeof from, "%s", testing_path(dir, "model-00002-of-00004.safetensors"));
    snprintf(to, sizeof to, "%s", testing_path(dir, "model-00002-of-00003.safetensors"));
    assert_int_equal(rename(from, to), 0);
    assert_fails(BAD_INPUT, "has shards of 3 and of 4 files, and no model.safetensors.index.json",
                 hf_load(&loaded, dir));
    assert_int_equal(unlink(to), 0);
    assert_fails(BAD_INPUT,
                 "model-00002-of-00004.safetensors: the file is missing; others of the 4",
                 hf_load(&loaded, dir));
    assert_ok(file_copy(testing_path(dir, "model-00001-of-00004.safetensors"), from));
    assert_fails(BAD_INPUT, "two tensors are 'model.", hf_load(&loaded, dir));
    model_release(&model);
}

// A single shard is numbered too.
static void test_one_shard_needs_no_index(void **state)
{
    (void)state;
    char dir[PATH_BYTES], from[PATH_BYTES];
    Model model;
    make(&model, dir, &testing_hf_shape, same, false);
    snprintf(from, sizeof from, "%s", testing_path(dir, "model.safetensors"));
    assert_int_equal(rename(from, testing_path(dir, "model-00001-of-00001.safetensors")), 0);
    assert_loads_as(&model, dir);
    model_release(&model);
}

// ---- what Python writes, and pointers ----------------------------------------------------------

// Puts `text` before the last brace of config.json.
static void add_to_config(const char *dir, const char *text)
{
    json_t *config = testing_hf_read_config(dir);
    char *json = json_dumps(config, JSON_COMPACT), *all;
    assert_true(asprintf(&all, "%.*s,%s}", (int)strlen(json) - 1, json, text) > 0);
    assert_ok(file_write(testing_path(dir, "config.json"), all, (int64_t)strlen(all)));
    free(all);
    free(json);
    json_decref(config);
}

static void test_numbers_of_python_are_read_where_they_do_not_matter(void **state)
{
    (void)state;
    char dir[PATH_BYTES], out[PATH_BYTES];
    Model model;
    make(&model, dir, &testing_hf_shape, same, false);
    add_to_config(dir, "\"initializer_range\":NaN,\"temperature\":Infinity,\"top_k\":"
                       "1000000000000000019884624838656,\"length_penalty\":-Infinity,"
                       "\"_note\":\"NaN, 1e999\"");
    assert_loads_as(&model, dir);
    testing_hf_new_dir(out);
    assert_ok(hf_save(&model, dir, DTYPE_F32, out));
    json_t *config = testing_hf_read_config(out);
    assert_null(json_object_get(config, "initializer_range"));
    assert_null(json_object_get(config, "temperature"));
    assert_true(json_real_value(json_object_get(config, "top_k")) == 1e30);
    assert_string_equal(json_string_value(json_object_get(config, "_note")), "NaN, 1e999");
    json_decref(config);
    assert_loads_as(&model, out);
    model_release(&model);
}

static void test_numbers_of_python_are_refused_where_they_matter(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *text;
    } cases[] = {
        {"rope_theta", "NaN", "'rope_theta' is not a number: \"NaN\""},
        {"rms_norm_eps", "-Infinity", "'rms_norm_eps' is not a number: \"-Infinity\""},
        {"num_hidden_layers", "1000000000000000019884624838656",
         "'num_hidden_layers' is not a whole number: 1e30"},
        {"attention_bias", "NaN", "'attention_bias' is not true or false: \"NaN\""},
    };
    char dir[PATH_BYTES], text[256];
    ModelShape shape;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        testing_hf_save(dir, &testing_hf_shape);
        json_t *config = testing_hf_read_config(dir);
        json_object_del(config, cases[i].key);
        testing_hf_write_config(config, dir);
        json_decref(config);
        snprintf(text, sizeof text, "\"%s\":%s", cases[i].key, cases[i].value);
        add_to_config(dir, text);
        assert_fails(BAD_INPUT, cases[i].text, hf_load_shape(&shape, dir));
    }
}

static void test_pointers_of_git_lfs_are_named(void **state)
{
    (void)state;
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    static const char *const names[] = {"tokenizer.model", "tokenizer.json", "model.safetensors",
                                        "config.json"};
    char dir[PATH_BYTES], out[PATH_BYTES], expected[PATH_BYTES + 64];
    Model model, loaded;
    make(&model, dir, &testing_hf_shape, same, false);
    testing_hf_new_dir(out);
    for (int i = 0; i < 4; i++) {
        assert_ok(file_write(testing_path(dir, names[i]), pointer, sizeof pointer - 1));
        snprintf(expected, sizeof expected, "%s: is a Git LFS pointer, not the file itself",
                 names[i]);
        // A tokenizer is not read with a model, but it would be copied.
        assert_fails(BAD_INPUT, expected,
                     i < 2 ? hf_check_target(dir, out) : hf_load(&loaded, dir));
        if (i < 2)
            assert_int_equal(unlink(testing_path(dir, names[i])), 0);
    }
    assert_false(file_exists(out));
    model_release(&model);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_wrappers_are_left_out),
        cmocka_unit_test(test_a_model_without_a_head_is_one_with_a_tied_head),
        cmocka_unit_test(test_a_tied_head_may_be_all_that_is_stored),
        cmocka_unit_test(test_double_precision_is_rounded),
        cmocka_unit_test(test_adapters_and_pairs_of_names_are_refused),
        cmocka_unit_test(test_an_index_may_name_files_from_here),
        cmocka_unit_test(test_shards_need_no_index),
        cmocka_unit_test(test_one_shard_needs_no_index),
        cmocka_unit_test(test_numbers_of_python_are_read_where_they_do_not_matter),
        cmocka_unit_test(test_numbers_of_python_are_refused_where_they_matter),
        cmocka_unit_test(test_pointers_of_git_lfs_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
