// The layout of the paper's code: its tensors and config, and the file of ranks byte by byte.
#include "tests/support/testing_hf.h"

#include "base/log.h"
#include "model/paper/torch_file.h"
#include "model/paper/v12_layout.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void save(const Model *model, char dir[PATH_BYTES])
{
    testing_hf_new_dir(dir);
    assert_ok(v12_layout_save(model, NULL, DTYPE_F32, dir));
}

static void read_rows(float *out, const char *dir, const char *name, int rows, int cols)
{
    SafeTensors file;
    assert_ok(safetensors_open(&file, testing_path(dir, "model.safetensors")));
    assert_ok(safetensors_read_f32(&file, name, (int[]){rows, cols}, 2, out));
    safetensors_close(&file);
}

static bool has_tensor(const char *dir, const char *name)
{
    SafeTensors file;
    assert_ok(safetensors_open(&file, testing_path(dir, "model.safetensors")));
    const bool has = safetensors_find(&file, name) != NULL;
    safetensors_close(&file);
    return has;
}

static void test_the_block_has_every_argument(void **state)
{
    (void)state;
    char dir[PATH_BYTES], expected[PATH_BYTES + 400];
    Model model;
    ModelShape shape = testing_hf_mla(SVD_SPLIT);
    testing_hf_random(&model, &shape);
    save(&model, dir);
    json_t *config = testing_hf_read_config(dir);
    char *text = json_dumps(json_object_get(config, "mha2mla"), JSON_COMPACT);
    snprintf(expected, sizeof expected,
             "{\"partial_rope_version\":\"2-norm\",\"rope_dim_for_mla\":4,"
             "\"uniform_start_point\":0,\"qk_tensor_path\":\"%s/qk_rank.pth\","
             "\"svd_init_method\":\"split\",\"low_rank\":3,\"is_baseline\":false,"
             "\"is_gqa2mha2mla\":false,\"is_mla_from_scratch\":false}",
             dir);
    assert_string_equal(text, expected);
    assert_string_equal(json_string_value(json_object_get(config, "model_type")), "llama");
    assert_null(json_object_get(config, "auto_map"));
    assert_false(file_exists(testing_path(dir, "modeling_mha2mla.py")));
    free(text);
    json_decref(config);
    model_release(&model);
}

static void test_split_has_two_latents(void **state)
{
    (void)state;
    const int rows = 6, D = testing_hf_shape.d_model; // K d_kv / 2
    const char *names[2] = {"model.layers.1.self_attn.kv_proj.down_k.weight",
                            "model.layers.1.self_attn.kv_proj.down_v.weight"};
    char dir[PATH_BYTES];
    float got[6 * 24];
    Model model;
    ModelShape shape = testing_hf_mla(SVD_SPLIT);
    testing_hf_random(&model, &shape);
    save(&model, dir);
    for (int i = 0; i < 2; i++) {
        read_rows(got, dir, names[i], rows, D);
        assert_memory_equal(got, model.params.layers[1].down_kv + i * rows * D, sizeof got);
    }
    assert_false(has_tensor(dir, "model.layers.1.self_attn.kv_proj.down_kv.weight"));
    assert_false(has_tensor(dir, "model.layers.1.self_attn.rope_pairs"));
    model_release(&model);
}

// That code loads strictly, so a tied head and an up_k without rows are stored.
static void test_no_tensor_that_it_asks_for_is_missing(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    float got[31 * 24];
    Model model;
    ModelShape shape;
    assert_ok(shape_convert(&shape, &testing_hf_shape, 4, 6, SVD_JOINT));
    assert_ok(model_create(&model, &shape));
    testing_fill(model.params.flat, model.params.count, 0.1, 3);
    save(&model, dir);
    read_rows(got, dir, "lm_head.weight", 31, 24);
    assert_memory_equal(got, model.params.embed, sizeof got);
    read_rows(got, dir, "model.layers.0.self_attn.kv_proj.up_k.weight", 0, 12);
    model_release(&model);
}

static uint32_t u32_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

// The bytes of an entry of a zip archive, by its directory; checks both headers against each other
// and the checksum.
static const unsigned char *zip_entry(const FileMap *map, const char *name, uint32_t *size_bytes)
{
    const unsigned char *end = map->bytes + map->size_bytes - 22;
    assert_memory_equal(end, "PK\5\6", 4);
    const unsigned char *entry = map->bytes + u32_at(end + 16);
    for (int i = 0; i < end[10]; i++) {
        const size_t name_bytes = entry[28];
        assert_memory_equal(entry, "PK\1\2", 4);
        const unsigned char *local = map->bytes + u32_at(entry + 42);
        assert_memory_equal(local, "PK\3\4", 4);
        assert_memory_equal(local + 4, entry + 6, 26); // version to the length of the extra field
        assert_memory_equal(local + 30, entry + 46, name_bytes);
        const unsigned char *bytes = local + 30 + name_bytes;
        *size_bytes = u32_at(entry + 24);
        assert_int_equal(crc32(0, bytes, *size_bytes), u32_at(entry + 16));
        if (name_bytes == strlen(name) && memcmp(entry + 46, name, name_bytes) == 0)
            return bytes;
        entry += 46 + name_bytes;
    }
    fail_msg("no entry %s", name);
    return NULL;
}

static void test_ranks_say_which_pairs_are_kept(void **state)
{
    (void)state;
    // Kept are 0 and 2 of head 0, 1 and 2 of head 1 in layer 0; 0 and 3, then 1 and 3 in layer 1.
    static const unsigned char expected[] = {
        0, 2, 1, 3, 0, 2, 1, 3, 2, 0, 1, 3, 2, 0, 1, 3, // layer 0
        0, 2, 3, 1, 0, 2, 3, 1, 2, 0, 3, 1, 2, 0, 3, 1,
    };
    char dir[PATH_BYTES];
    uint32_t size_bytes;
    FileMap map;
    Model model;
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    testing_hf_random(&model, &shape);
    save(&model, dir);
    assert_ok(file_map(&map, testing_path(dir, "qk_rank.pth")));
    const unsigned char *bytes = zip_entry(&map, "archive/data/0", &size_bytes);
    assert_int_equal(size_bytes, sizeof expected);
    assert_memory_equal(bytes, expected, sizeof expected);
    file_unmap(&map);
    model_release(&model);
}

// What pickle.dumps() of torch 2 makes of this tensor, but that numbers have four bytes and nothing
// is memorized; torch.load(weights_only=True) gave it back.
static void test_the_description_of_a_tensor(void **state)
{
    (void)state;
    static const unsigned char values[6] = {1, 2, 3, 4, 5, 6};
    static const char expected[] =
        "\x80\x02"
        "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nByteStorage\n"
        "X\x01\0\0\0"
        "0X\x03\0\0\0cpuJ\x06\0\0\0tQJ\0\0\0\0J\x01\0\0\0J\x02\0\0\0J\x03\0\0\0\x87"
        "J\x06\0\0\0J\x03\0\0\0J\x01\0\0\0\x87\x89"
        "ccollections\nOrderedDict\n)RtR.";
    uint32_t size_bytes;
    FileMap map;
    const char *path = testing_path(testing_dir(), "t.pth");
    assert_ok(torch_file_write_u8(path, values, (int32_t[]){1, 2, 3}));
    assert_ok(file_map(&map, path));
    const unsigned char *bytes = zip_entry(&map, "archive/data.pkl", &size_bytes);
    assert_int_equal(size_bytes, sizeof expected - 1);
    assert_memory_equal(bytes, expected, size_bytes);
    file_unmap(&map);
}

static void test_other_attention_is_refused(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model;
    ModelShape shape;
    testing_hf_new_dir(dir);
    testing_hf_random(&model, &testing_hf_shape);
    assert_fails(BAD_INPUT, "this one has its original attention",
                 v12_layout_save(&model, NULL, DTYPE_F32, dir));
    model_release(&model);
    shape = testing_hf_mla(SVD_JOINT);
    shape.qk_norm = true;
    assert_ok(model_create(&model, &shape));
    assert_fails(BAD_INPUT, "cannot hold qk_norm", v12_layout_save(&model, NULL, DTYPE_F32, dir));
    model.shape.qk_norm = false;
    layer_set_put(&model.shape.no_rope, 0, true);
    assert_fails(BAD_INPUT, "this model has none in 1 of 2",
                 v12_layout_save(&model, NULL, DTYPE_F32, dir));
    model_release(&model);
    assert_ok(shape_convert_shared(&shape, &testing_hf_shape, 2, 10, false));
    assert_ok(model_create(&model, &shape));
    assert_fails(BAD_INPUT, "this one has the shared form",
                 v12_layout_save(&model, NULL, DTYPE_F32, dir));
    assert_false(file_exists(dir));
    model_release(&model);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_block_has_every_argument),
        cmocka_unit_test(test_split_has_two_latents),
        cmocka_unit_test(test_no_tensor_that_it_asks_for_is_missing),
        cmocka_unit_test(test_ranks_say_which_pairs_are_kept),
        cmocka_unit_test(test_the_description_of_a_tensor),
        cmocka_unit_test(test_other_attention_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
