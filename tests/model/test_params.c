// The table of parameters: the flat vector has no gaps and the order the header promises; names are
// Hugging Face's.
#include "tests/support/testing.h"

#include "model/model.h"
#include "model/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Dims that all differ, so that no two of them can be mixed up unseen.
static ModelShape original_shape(bool tied_head)
{
    return (ModelShape){.n_layers = 3,
                        .d_model = 24,
                        .n_heads = 6,
                        .n_kv_heads = 2,
                        .head_dim = 10,
                        .d_ffn = 44,
                        .vocab_size = 51,
                        .max_positions = 64,
                        .rope_pairs = 5,
                        .tied_head = tied_head,
                        .rope_theta = 1e4,
                        .rms_eps = 1e-5};
}

static ModelShape mla_shape(bool tied_head, int pairs, SvdKind svd)
{
    ModelShape original = original_shape(tied_head), shape;
    assert_ok(shape_convert(&shape, &original, pairs, 6, svd));
    return shape;
}

typedef struct Expected {
    const char *name;
    int rows, cols; // cols 0: a vector
} Expected;

// `expected`: the tensors before the layers, of a layer (less "model.layers.N."), after the layers.
static void assert_table(const ModelShape *shape, const Expected *expected, int n_in_layer)
{
    const int n_tensors = params_n_tensors(shape);
    assert_int_equal(n_tensors, 1 + 3 * n_in_layer + (shape->tied_head ? 1 : 2));
    int64_t offset = 0;
    for (int i = 0; i < n_tensors; i++) {
        ParamInfo info = params_info(shape, i);
        int layer = i == 0 || i > 3 * n_in_layer ? -1 : (i - 1) / n_in_layer;
        const Expected *e = i == 0       ? &expected[0]
                            : layer >= 0 ? &expected[1 + (i - 1) % n_in_layer]
                                         : &expected[i - 2 * n_in_layer];
        char name[PARAM_NAME_BYTES];
        if (layer < 0)
            snprintf(name, sizeof name, "%s", e->name);
        else
            snprintf(name, sizeof name, "model.layers.%d.%s", layer, e->name);
        assert_string_equal(info.name, name);
        assert_int_equal(info.layer, layer);
        assert_int_equal(info.rows, e->rows);
        assert_int_equal(info.cols, e->cols == 0 ? 1 : e->cols);
        assert_int_equal(info.is_vector, e->cols == 0);
        assert_int_equal(info.offset, offset); // no gaps
        offset += (int64_t)info.rows * info.cols;
    }
    assert_int_equal(params_count(shape), offset);
}

static void test_table_of_the_original_attention(void **state)
{
    (void)state;
    static const Expected expected[] = {
        {"model.embed_tokens.weight", 51, 24},
        {"input_layernorm.weight", 24, 0},
        {"self_attn.q_proj.weight", 60, 24},
        {"self_attn.k_proj.weight", 20, 24},
        {"self_attn.v_proj.weight", 20, 24},
        {"self_attn.o_proj.weight", 24, 60},
        {"post_attention_layernorm.weight", 24, 0},
        {"mlp.gate_proj.weight", 44, 24},
        {"mlp.up_proj.weight", 44, 24},
        {"mlp.down_proj.weight", 24, 44},
        {"model.norm.weight", 24, 0},
        {"lm_head.weight", 51, 24},
    };
    ModelShape tied = original_shape(true), untied = original_shape(false);
    assert_table(&tied, expected, 9);
    assert_table(&untied, expected, 9);
}

static void assert_mla_table(SvdKind svd, int latent_1)
{
    const Expected expected[] = {
        {"model.embed_tokens.weight", 51, 24},
        {"input_layernorm.weight", 24, 0},
        {"self_attn.q_proj.weight", 60, 24},
        {"self_attn.k_r_proj.weight", 8, 24},
        {"self_attn.kv_proj.down_kv.weight", 12, 24},
        {"self_attn.kv_proj.up_k.weight", 12, latent_1},
        {"self_attn.kv_proj.up_v.weight", 20, latent_1},
        {"self_attn.o_proj.weight", 24, 60},
        {"post_attention_layernorm.weight", 24, 0},
        {"mlp.gate_proj.weight", 44, 24},
        {"mlp.up_proj.weight", 44, 24},
        {"mlp.down_proj.weight", 24, 44},
        {"model.norm.weight", 24, 0},
        {"lm_head.weight", 51, 24},
    };
    ModelShape tied = mla_shape(true, 2, svd), untied = mla_shape(false, 2, svd);
    assert_table(&tied, expected, 11);
    assert_table(&untied, expected, 11);
}

static void test_table_of_latent_attention(void **state)
{
    (void)state;
    assert_mla_table(SVD_JOINT, 12);
    assert_mla_table(SVD_SPLIT, 6);
}

static void test_empty_tensor_is_left_out(void **state)
{
    (void)state;
    ModelShape shape = mla_shape(true, 5, SVD_JOINT); // every pair kept: no up_k
    assert_int_equal(params_n_tensors(&shape), 1 + 3 * 10 + 1);
    for (int i = 0; i < params_n_tensors(&shape); i++)
        assert_null(strstr(params_info(&shape, i).name, "up_k"));
}

static void assert_neighbours(const float *first, int64_t count, const float *second)
{
    assert_non_null(first);
    assert_ptr_equal(first + count, second);
}

static void test_neighbours_of_the_original_are_adjacent(void **state)
{
    (void)state;
    ModelShape shape = original_shape(true);
    Model model;
    assert_ok(model_create(&model, &shape));
    for (int l = 0; l < 3; l++) {
        const LayerParams *p = &model.params.layers[l];
        assert_neighbours(p->q, 60 * 24, p->k);
        assert_neighbours(p->k, 20 * 24, p->v);
        assert_neighbours(p->gate, 44 * 24, p->up);
        assert_null(p->k_r);
        assert_null(p->down_kv);
        assert_null(p->up_k);
        assert_null(p->up_v);
    }
    assert_ptr_equal(model.params.embed, model.params.flat);
    assert_ptr_equal(model.params.head, model.params.embed);
    model_release(&model);
}

static void test_neighbours_of_latent_attention_are_adjacent(void **state)
{
    (void)state;
    ModelShape shape = mla_shape(false, 2, SVD_JOINT);
    Model model;
    assert_ok(model_create(&model, &shape));
    for (int l = 0; l < 3; l++) {
        const LayerParams *p = &model.params.layers[l];
        assert_neighbours(p->q, 60 * 24, p->k_r);
        assert_neighbours(p->k_r, 8 * 24, p->down_kv);
        assert_neighbours(p->up_k, 12 * 12, p->up_v);
        assert_neighbours(p->gate, 44 * 24, p->up);
        assert_null(p->k);
        assert_null(p->v);
    }
    assert_neighbours(model.params.norm, 24, model.params.head);
    assert_neighbours(model.params.head, 51 * 24, model.params.flat + model.params.count);
    model_release(&model);
}

// Embedding, then the layers one after the other, then norm and head.
static void assert_layers_partition(const ModelShape *shape)
{
    int64_t next = (int64_t)shape->vocab_size * shape->d_model;
    for (int l = 0; l < shape->n_layers; l++) {
        int64_t first, count;
        params_layer_range(shape, l, &first, &count);
        assert_int_equal(first, next);
        assert_true(count > 0);
        next = first + count;
    }
    int64_t head = shape->tied_head ? 0 : (int64_t)shape->vocab_size * shape->d_model;
    assert_int_equal(next + shape->d_model + head, params_count(shape));
}

static void test_layer_ranges_partition_the_vector(void **state)
{
    (void)state;
    ModelShape shapes[] = {original_shape(true), original_shape(false),
                           mla_shape(true, 2, SVD_JOINT), mla_shape(false, 5, SVD_JOINT),
                           mla_shape(true, 1, SVD_SPLIT)};
    for (int i = 0; i < 5; i++)
        assert_layers_partition(&shapes[i]);
}

static void test_tied_head_counts_once(void **state)
{
    (void)state;
    ModelShape tied = original_shape(true), untied = original_shape(false);
    assert_int_equal(params_count(&untied) - params_count(&tied), 51 * 24);
    assert_int_equal(params_n_tensors(&untied) - params_n_tensors(&tied), 1);
}

// params_place() points where params_info() says.
static void test_pointers_agree_with_the_table(void **state)
{
    (void)state;
    ModelShape shape = mla_shape(false, 2, SVD_SPLIT);
    Params params;
    float *flat = calloc((size_t)params_count(&shape), sizeof *flat);
    assert_non_null(flat);
    assert_ok(params_place(&params, &shape, flat));
    assert_int_equal(params.count, params_count(&shape));
    assert_ptr_equal(params.flat, flat);
    const LayerParams *l2 = &params.layers[2];
    const float *of_layer[] = {l2->attn_norm, l2->q,    l2->k_r, l2->down_kv,
                               l2->up_k,      l2->up_v, l2->o,   l2->ffn_norm,
                               l2->gate,      l2->up,   l2->down};
    for (int i = 0; i < 11; i++)
        assert_ptr_equal(of_layer[i], flat + params_info(&shape, 1 + 2 * 11 + i).offset);
    assert_ptr_equal(params.norm, flat + params_info(&shape, 34).offset);
    assert_ptr_equal(params.head, flat + params_info(&shape, 35).offset);
    params_release(&params);
    free(flat);
}

static void test_tensors_are_found_by_name(void **state)
{
    (void)state;
    const ModelShape shapes[] = {original_shape(false), original_shape(true),
                                 mla_shape(false, 2, SVD_JOINT)};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int i = 0; i < params_n_tensors(&shapes[s]); i++) {
            ParamInfo info = params_info(&shapes[s], i), found;
            assert_true(params_find(&found, &shapes[s], info.name));
            assert_string_equal(found.name, info.name);
            assert_int_equal(found.offset, info.offset);
            assert_int_equal(found.cols, info.cols);
        }
}

static void test_other_names_are_not_found(void **state)
{
    (void)state;
    ParamInfo info = {.rows = -7};
    const ModelShape tied = original_shape(true);
    static const char *const names[] = {
        "lm_head.weight", // tied
        "model.layers.3.mlp.up_proj.weight",
        "model.layers.-1.model.norm.weight",
        "model.layers.0.",
        "model.layers.0.self_attn.k_r_proj.weight",
        "mlp.up_proj.weight",
        "",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (params_find(&info, &tied, names[i]))
            fail_msg("'%s' is found", names[i]);
    assert_int_equal(info.rows, -7); // set if found only
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_of_the_original_attention),
        cmocka_unit_test(test_table_of_latent_attention),
        cmocka_unit_test(test_empty_tensor_is_left_out),
        cmocka_unit_test(test_neighbours_of_the_original_are_adjacent),
        cmocka_unit_test(test_neighbours_of_latent_attention_are_adjacent),
        cmocka_unit_test(test_layer_ranges_partition_the_vector),
        cmocka_unit_test(test_tied_head_counts_once),
        cmocka_unit_test(test_pointers_agree_with_the_table),
        cmocka_unit_test(test_tensors_are_found_by_name),
        cmocka_unit_test(test_other_names_are_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
