#include "tests/support/testing_hf.h"

#include <stdio.h>

const ModelShape testing_hf_shape = {
    .n_layers = 2,
    .d_model = 24,
    .n_heads = 4,
    .n_kv_heads = 2,
    .head_dim = 8,
    .d_ffn = 20,
    .vocab_size = 31,
    .max_positions = 64,
    .rope_pairs = 4,
    .tied_head = true,
    .rope_theta = 10000.0,
    .rms_eps = 1e-5,
};

ModelShape testing_hf_mla(SvdKind svd)
{
    ModelShape shape;
    assert_ok(shape_convert(&shape, &testing_hf_shape, 2, 6, svd));
    return shape;
}

void testing_hf_random(Model *out, const ModelShape *shape)
{
    assert_ok(model_create(out, shape));
    testing_fill(out->params.flat, out->params.count, 0.1, 7);
    if (!shape_is_mla(shape))
        return;
    for (int row = 0; row < shape->n_layers * shape->n_kv_heads; row++) {
        out->rope_pairs[2 * row] = row % 2;
        out->rope_pairs[2 * row + 1] = 2 + row / 2 % 2;
    }
}

void testing_hf_new_dir(char out[PATH_BYTES])
{
    static const char *root = NULL;
    static int n = 0;
    char name[16];
    if (root == NULL)
        root = testing_dir();
    snprintf(name, sizeof name, "d%d", n++);
    snprintf(out, PATH_BYTES, "%s", testing_path(root, name));
}

void testing_hf_save(char dir[PATH_BYTES], const ModelShape *shape)
{
    Model model;
    testing_hf_new_dir(dir);
    testing_hf_random(&model, shape);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, dir));
    model_release(&model);
}

json_t *testing_hf_read_config(const char *dir)
{
    json_t *config;
    assert_ok(json_read(&config, testing_path(dir, "config.json")));
    return config;
}

void testing_hf_write_config(const json_t *config, const char *dir)
{
    assert_int_equal(json_dump_file(config, testing_path(dir, "config.json"), 0), 0);
}

void testing_hf_assert_same(const ModelShape *a, const ModelShape *b)
{
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->d_model, b->d_model);
    assert_int_equal(a->n_heads, b->n_heads);
    assert_int_equal(a->n_kv_heads, b->n_kv_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->d_ffn, b->d_ffn);
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_int_equal(a->max_positions, b->max_positions);
    assert_int_equal(a->rope_pairs, b->rope_pairs);
    assert_int_equal(a->d_kv, b->d_kv);
    assert_int_equal(a->svd, b->svd);
    assert_int_equal(a->tied_head, b->tied_head);
    assert_true(a->rope_theta == b->rope_theta && a->rms_eps == b->rms_eps);
}
