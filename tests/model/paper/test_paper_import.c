// Models of the paper's code: what v12_layout_save() wrote comes back with the same bits, configs
// say which pairs are kept, and what is missing or does not fit is named. That the golden
// directories give the losses they were made with is in tests/model/transformer/test_transformer.c.
#include "tests/support/testing_hf.h"

#include "base/log.h"
#include "model/paper/paper_import.h"
#include "model/paper/paper_ranks.h"
#include "model/paper/torch_file.h"
#include "model/paper/v12_layout.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const PaperPairs by_config = {NULL, NULL};

static Status load(Model *out, const char *dir, const PaperPairs *given)
{
    PaperConfig paper;
    TRY(paper_config_read(&paper, dir));
    const Status status = paper_load(out, &paper, dir, given);
    paper_config_release(&paper);
    return status;
}

static void assert_same(const Model *a, const Model *b)
{
    testing_hf_assert_same(&a->shape, &b->shape);
    assert_memory_equal(a->rope_pairs, b->rope_pairs,
                        (size_t)model_n_pairs(&a->shape) * sizeof(int32_t));
    assert_memory_equal(a->params.flat, b->params.flat, (size_t)a->params.count * sizeof(float));
}

// A random model and its directory in v1.2's layout.
static void make(Model *model, char dir[PATH_BYTES], const ModelShape *shape)
{
    testing_hf_new_dir(dir);
    testing_hf_random(model, shape);
    assert_ok(v12_layout_save(model, NULL, DTYPE_F32, dir));
}

// ---- models ------------------------------------------------------------------------------------

static void test_what_export_wrote_comes_back(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        char dir[PATH_BYTES], out[PATH_BYTES];
        Model model, imported, again;
        ModelShape shape = testing_hf_mla(i == 0 ? SVD_JOINT : SVD_SPLIT);
        make(&model, dir, &shape);
        assert_ok(load(&imported, dir, &by_config));
        assert_same(&imported, &model);
        // And once more through a directory of ours.
        testing_hf_new_dir(out);
        assert_ok(hf_save(&imported, dir, DTYPE_F32, out));
        assert_ok(hf_load(&again, out));
        assert_same(&again, &model);
        model_release(&model);
        model_release(&imported);
        model_release(&again);
    }
}

static void test_a_model_that_keeps_all_pairs_comes_back(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model, imported;
    ModelShape shape;
    assert_ok(shape_convert(&shape, &testing_hf_shape, 4, 6, SVD_JOINT));
    assert_ok(model_create(&model, &shape));
    testing_fill(model.params.flat, model.params.count, 0.1, 3);
    for (int64_t i = 0; i < model_n_pairs(&shape); i++)
        model.rope_pairs[i] = (int32_t)(i % 4);
    testing_hf_new_dir(dir);
    assert_ok(v12_layout_save(&model, NULL, DTYPE_F32, dir));
    assert_ok(load(&imported, dir, &by_config));
    assert_same(&imported, &model);
    model_release(&model);
    model_release(&imported);
}

// The config's path is of another machine: the file is beside the weights, or is given.
static void test_ranks_are_found_or_given(void **state)
{
    (void)state;
    char dir[PATH_BYTES], away[PATH_BYTES];
    Model model, imported;
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    make(&model, dir, &shape);
    json_t *config = testing_hf_read_config(dir);
    json_object_set_new(json_object_get(config, "mha2mla"), "qk_tensor_path",
                        json_string("../../utils/qk_rank.pth"));
    testing_hf_write_config(config, dir);
    assert_ok(load(&imported, dir, &by_config));
    assert_same(&imported, &model);
    model_release(&imported);
    snprintf(away, sizeof away, "%s", testing_path(testing_dir(), "ranks.pth"));
    assert_int_equal(rename(testing_path(dir, "qk_rank.pth"), away), 0);
    assert_fails(
        BAD_INPUT,
        "in a file of ranks called qk_rank.pth, which is not beside the weights; give it by "
        "--ranks",
        load(&imported, dir, &by_config));
    assert_ok(load(&imported, dir, &(PaperPairs){.ranks = away}));
    assert_same(&imported, &model);
    model_release(&imported);
    json_object_set_new(json_object_get(config, "mha2mla"), "qk_tensor_path", json_null());
    testing_hf_write_config(config, dir);
    assert_fails(BAD_INPUT, "in a file of ranks, which is not beside",
                 load(&imported, dir, &by_config));
    json_decref(config);
    model_release(&model);
}

static void test_pairs_are_given_by_hand(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",    "0",   "0,",   "0,2,3", "2,0",  "0,0",  "0,4",  "0,2,",
        "a,2", "0;2", " 0,2", "+0,2",  "0,+2", "-1,2", "0, 2", "0,99999999999999999999"};
    char dir[PATH_BYTES], text[128];
    Model model, imported;
    ModelShape shape = testing_hf_mla(SVD_SPLIT);
    make(&model, dir, &shape);
    assert_ok(load(&imported, dir, &(PaperPairs){.list = "1,3"}));
    for (int64_t i = 0; i < model_n_pairs(&shape); i++)
        assert_int_equal(imported.rope_pairs[i], 1 + 2 * (i % 2));
    model_release(&imported);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(text, sizeof text, "--rope-pairs %s: expected are the 2 pairs", wrong[i]);
        assert_fails(BAD_INPUT, text, load(&imported, dir, &(PaperPairs){.list = wrong[i]}));
    }
    assert_fails(BAD_INPUT, "--ranks is for pairs by 2-norm without --rope-pairs",
                 load(&imported, dir, &(PaperPairs){.list = "0,1", .ranks = "x.pth"}));
    model_release(&model);
}

static void test_missing_and_other_tensors_are_named(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    Model model, imported;
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    make(&model, dir, &shape);
    json_t *config = testing_hf_read_config(dir), *block = json_object_get(config, "mha2mla");
    json_object_set_new(block, "svd_init_method", json_string("split"));
    json_object_set_new(block, "low_rank", json_integer(3));
    testing_hf_write_config(config, dir);
    assert_fails(BAD_INPUT, "tensor 'model.layers.0.self_attn.kv_proj.down_k.weight' is missing",
                 load(&imported, dir, &by_config));
    json_object_set_new(block, "svd_init_method", json_string("joint"));
    json_object_set_new(block, "low_rank", json_integer(5));
    testing_hf_write_config(config, dir);
    assert_fails(BAD_INPUT, "down_kv.weight' has shape [12, 24], expected is [10, 24]",
                 load(&imported, dir, &by_config));
    json_decref(config);
    model_release(&model);
}

// ---- ranks -------------------------------------------------------------------------------------

static void test_ranks_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    uint8_t ranks[2 * 2 * 8];
    int32_t pairs[8];
    ModelShape shape = testing_hf_mla(SVD_JOINT);
    const char *path = testing_path(testing_dir(), "r.pth");
    for (int i = 0; i < 32; i++)
        ranks[i] = (uint8_t)(3 - i % 4);
    assert_ok(torch_file_write_u8(path, ranks, (int32_t[]){2, 2, 8}));
    assert_ok(paper_ranks_read(pairs, &shape, path));
    for (int i = 0; i < 8; i++)
        assert_int_equal(pairs[i], 2 + i % 2);
    assert_ok(torch_file_write_u8(path, ranks, (int32_t[]){2, 4, 4}));
    assert_fails(BAD_INPUT, "ranks of [2, 4, 4], the model needs [2, 2, 8]",
                 paper_ranks_read(pairs, &shape, path));
    ranks[17] = 0;
    assert_ok(torch_file_write_u8(path, ranks, (int32_t[]){2, 2, 8}));
    assert_fails(BAD_INPUT, "layer 1, KV head 0: the dims of pair 1 differ in rank",
                 paper_ranks_read(pairs, &shape, path));
    ranks[21] = 0;
    assert_ok(torch_file_write_u8(path, ranks, (int32_t[]){2, 2, 8}));
    assert_fails(BAD_INPUT, "layer 1, KV head 0: 3 pairs have ranks below 2",
                 paper_ranks_read(pairs, &shape, path));
}

// ---- configs -----------------------------------------------------------------------------------

#define V10(rope, svd) "\"RoPE\":{" rope "},\"SVD\":{" svd "}"
#define V12(rope)                                                                                  \
    "\"mha2mla\":{" rope ",\"low_rank\":6,\"svd_init_method\":\"joint\",\"is_baseline\":false}"
#define JOINT "\"method\":7,\"low_rank\":6"

// config.json of the original shape, E = 8 by the model's 4 heads, with `text` added.
static void write_config(char dir[PATH_BYTES], const char *text)
{
    static const char start[] = "{\"model_type\":\"llama\",\"hidden_size\":32,\"vocab_size\":31,"
                                "\"num_hidden_layers\":2,\"intermediate_size\":20,"
                                "\"num_attention_heads\":4,\"num_key_value_heads\":2,"
                                "\"max_position_embeddings\":64,";
    char all[2048];
    testing_hf_new_dir(dir);
    assert_ok(file_make_dirs(dir));
    const int size = snprintf(all, sizeof all, "%s%s}", start, text);
    assert_ok(file_write(testing_path(dir, "config.json"), all, size));
}

static void test_configs_say_which_pairs_are_kept(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int n, pairs[4]; // n = 0: by ranks
        const char *strategy;
        int d_kv;
    } cases[] = {
        {V10("\"partial_rope_version\":0", JOINT), 4, {0, 1, 2, 3}, "full-rope", 6},
        {V10("\"partial_rope_version\":1,\"top_k_rope_dim\":2", JOINT), 2, {0, 1}, "high", 6},
        {V10("\"partial_rope_version\":2,\"uniform_start_point\":0,\"uniform_step\":2", JOINT),
         2,
         {0, 2},
         "uniform",
         6},
        {V10("\"partial_rope_version\":2,\"uniform_start_point\":1,\"uniform_step\":2", JOINT),
         2,
         {1, 3},
         "uniform",
         6},
        {V10("\"partial_rope_version\":3,\"top_k_rope_dim\":1,\"last_k_rope_dim\":2", JOINT),
         3,
         {0, 2, 3},
         "high-low",
         6},
        {V10("\"partial_rope_version\":4,\"top_k_rope_dim\":3", JOINT), 0, {0}, "2-norm", 6},
        {V10("\"partial_rope_version\":5,\"last_k_rope_dim\":1", "\"method\":2,\"low_rank\":2"),
         1,
         {3},
         "low",
         4},
        {V10("\"partial_rope_version\":\"low\",\"last_k_rope_dim\":1",
             "\"method\":3,\"low_rank\":2"),
         1,
         {3},
         "low",
         4},
        {V12("\"partial_rope_version\":\"high\",\"rope_dim_for_mla\":4"), 2, {0, 1}, "high", 6},
        {V12("\"partial_rope_version\":\"low\",\"rope_dim_for_mla\":6"), 3, {1, 2, 3}, "low", 6},
        {V12("\"partial_rope_version\":\"uniform\",\"rope_dim_for_mla\":4,"
             "\"uniform_start_point\":1"),
         2,
         {1, 3},
         "uniform",
         6},
        {V12("\"partial_rope_version\":\"2-norm\",\"rope_dim_for_mla\":2"), 0, {0}, "2-norm", 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[PATH_BYTES];
        PaperConfig paper;
        write_config(dir, cases[i].text);
        assert_ok(paper_config_read(&paper, dir));
        assert_string_equal(paper.strategy, cases[i].strategy);
        assert_int_equal(paper.is_by_ranks, cases[i].n == 0);
        assert_int_equal(paper.shape.d_kv, cases[i].d_kv);
        if (cases[i].n > 0)
            assert_int_equal(paper.shape.rope_pairs, cases[i].n);
        for (int p = 0; p < cases[i].n; p++)
            assert_int_equal(paper.pairs[p], cases[i].pairs[p]);
        paper_config_release(&paper);
    }
}

static void test_configs_that_are_not_supported_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"\"use_cache\":true", "of v1.0; it needs no import"},
        {V10("\"partial_rope_version\":6", JOINT), "'partial_rope_version' is 6, supported is"},
        {V10("\"partial_rope_version\":1", JOINT), "RoPE: 'top_k_rope_dim' is missing"},
        {V10("\"partial_rope_version\":1,\"top_k_rope_dim\":1e30", JOINT), "not a whole number"},
        {V10("\"partial_rope_version\":1,\"top_k_rope_dim\":0", JOINT), "rope_pairs is 0"},
        {V10("\"partial_rope_version\":4,\"top_k_rope_dim\":9", JOINT), "rope_pairs is 9"},
        {V10("\"partial_rope_version\":2,\"uniform_start_point\":0,\"uniform_step\":3", JOINT),
         "RoPE: of RoPE pair 0 only one dim is kept"},
        {V10("\"partial_rope_version\":2,\"uniform_start_point\":0,\"uniform_step\":0", JOINT),
         "'uniform_step' is 0, allowed are 1"},
        {V10("\"partial_rope_version\":2,\"uniform_start_point\":-1,\"uniform_step\":1", JOINT),
         "'uniform_start_point' is -1"},
        {V10("\"partial_rope_version\":1,\"top_k_rope_dim\":1", "\"method\":8,\"low_rank\":1"),
         "SVD: 'method' is 8, allowed are 1 to 7"},
        {V10("\"partial_rope_version\":1,\"top_k_rope_dim\":1", "\"method\":7"),
         "SVD: 'low_rank' is missing"},
        {V10("\"partial_rope_version\":1,\"top_k_rope_dim\":1", "\"method\":7,\"low_rank\":1000"),
         "d_kv is 1000"},
        {V12("\"partial_rope_version\":\"high\",\"rope_dim_for_mla\":3"),
         "'rope_dim_for_mla' is 3, supported is an even number"},
        {V12("\"partial_rope_version\":\"high\",\"rope_dim_for_mla\":\"4\""),
         "is not a whole number"},
        {V12("\"partial_rope_version\":\"middle\",\"rope_dim_for_mla\":4"),
         "'partial_rope_version' is \"middle\""},
        {V12("\"partial_rope_version\":\"uniform\",\"rope_dim_for_mla\":6,"
             "\"uniform_start_point\":0"),
         "'rope_dim_for_mla' is 6, but 'uniform' keeps 8 dims of 8"},
        {"\"attention_bias\":true," V12("\"partial_rope_version\":\"high\",\"rope_dim_for_mla\":4"),
         "'attention_bias' is true, supported is a model without it"},
        {"\"mha2mla\":{\"rope_dim_for_mla\":4,\"is_baseline\":true}", "'is_baseline' is true"},
        {"\"mha2mla\":{\"rope_dim_for_mla\":4,\"is_gqa2mha2mla\":true}",
         "'is_gqa2mha2mla' is true"},
        {"\"mha2mla\":{\"rope_dim_for_mla\":4,\"low_rank\":4,\"svd_init_method\":\"only_key\"}",
         "'svd_init_method' is \"only_key\", supported is"},
        {"\"mha2mla\":{\"rope_dim_for_mla\":4,\"low_rank\":4,\"svd_init_method\":\"none\"}",
         "'svd_init_method' is \"none\""},
        {V12("\"partial_rope_version\":\"2-norm\",\"rope_dim_for_mla\":4,"
             "\"qk_tensor_path\":\"a\\nb\""),
         "'qk_tensor_path' has control characters"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[PATH_BYTES];
        PaperConfig paper;
        write_config(dir, cases[i].text);
        assert_fails(BAD_INPUT, cases[i].message, paper_config_read(&paper, dir));
    }
}

// Loaded as what it is not, it says what to do.
static void test_other_commands_say_to_import(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    ModelShape shape;
    write_config(dir, V10("\"partial_rope_version\":0", JOINT));
    assert_fails(BAD_INPUT, "MHA2MLA v1.0; make one of this program of it by mha2mla import",
                 hf_load_shape(&shape, dir));
    write_config(dir, V12("\"partial_rope_version\":\"high\",\"rope_dim_for_mla\":4"));
    assert_fails(BAD_INPUT, "MHA2MLA v1.2; make one of this program of it by mha2mla import",
                 hf_load_shape(&shape, dir));
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_export_wrote_comes_back),
        cmocka_unit_test(test_a_model_that_keeps_all_pairs_comes_back),
        cmocka_unit_test(test_ranks_are_found_or_given),
        cmocka_unit_test(test_pairs_are_given_by_hand),
        cmocka_unit_test(test_missing_and_other_tensors_are_named),
        cmocka_unit_test(test_ranks_that_do_not_fit_are_refused),
        cmocka_unit_test(test_configs_say_which_pairs_are_kept),
        cmocka_unit_test(test_configs_that_are_not_supported_are_refused_by_name),
        cmocka_unit_test(test_other_commands_say_to_import),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
