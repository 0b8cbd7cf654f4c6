// Which tensors are trained: words and patterns, what is refused, and what is saved by it.
#include "tests/support/testing.h"
#include "tests/support/testing_model.h"

#include "model/trainable.h"

static char *const attention[] = {(char *)(uintptr_t) "attention"};
static char *const by_glob[] = {(char *)(uintptr_t) "*.self_attn.[qkvo]_proj.weight"};
static char *const two[] = {(char *)(uintptr_t) "model.norm.weight",
                            (char *)(uintptr_t) "model.layers.0.mlp.up_proj.*"};
static char *const wrong[] = {(char *)(uintptr_t) "all", (char *)(uintptr_t) "*.mpl.*"};

static void test_words_and_patterns(void **state)
{
    (void)state;
    const Trainable none = {0}, some = {two, 2};
    assert_true(trainable_has(&none, "model.norm.weight"));
    assert_true(trainable_has(&some, "model.norm.weight"));
    assert_true(trainable_has(&some, "model.layers.0.mlp.up_proj.weight"));
    assert_false(trainable_has(&some, "model.layers.1.mlp.up_proj.weight"));
    assert_true(trainable_has_all(&none, &testing_tiny_shape));
    assert_true(trainable_has_all(&(Trainable){wrong, 1}, &testing_tiny_shape));
    assert_false(trainable_has_all(&some, &testing_tiny_shape));
}

static void test_a_pattern_without_a_tensor_is_refused(void **state)
{
    (void)state;
    assert_ok(trainable_check(&(Trainable){two, 2}, &testing_tiny_shape));
    assert_fails(BAD_INPUT, "'*.mpl.*' matches no tensor",
                 trainable_check(&(Trainable){wrong, 2}, &testing_tiny_shape));
}

static void test_sets_are_compared_by_their_tensors(void **state)
{
    (void)state;
    ParamInfo info;
    const Trainable by_word = {attention, 1}, same = {by_glob, 1}, other = {two, 2};
    assert_false(trainable_differs(&info, &by_word, &same, &testing_tiny_shape));
    assert_true(trainable_differs(&info, &by_word, &other, &testing_tiny_shape));
    assert_string_equal(info.name, "model.layers.0.self_attn.q_proj.weight");
}

static void test_counts(void **state)
{
    (void)state;
    const ModelShape *s = &testing_tiny_shape;
    const Trainable trained = {attention, 1}, all = {0};
    const int64_t projections =
        (int64_t)s->d_model * (2 * shape_dim(s, DIM_Q) + 2 * shape_dim(s, DIM_KV));
    const int64_t matrices = projections + (int64_t)s->d_model * (3 * s->d_ffn + s->vocab_size);
    assert_int_equal(trainable_count(&trained, s), projections * s->n_layers);
    assert_int_equal(trainable_count(&all, s), params_count(s));
    // Two operations per token fewer for each weight that is frozen.
    assert_true(trainable_flops(&all, s, 16) == shape_train_flops(s, 16));
    assert_true(trainable_flops(&trained, s, 16) ==
                shape_train_flops(s, 16) - 2.0 * 16 * (double)(matrices - projections));
}

static void test_a_product_is_computed_whole(void **state)
{
    (void)state;
    const ModelShape *s = &testing_tiny_shape;
    const Trainable trained = {two, 2};
    const int64_t one = (int64_t)s->d_ffn * s->d_model;
    float flat[4096];
    Params grads;
    assert_int_equal(trainable_gradients(&trained, s), 2 * one + s->d_model);
    assert_int_equal(trainable_layer_gradients(&trained, s, -1), 0);
    assert_int_equal(trainable_layer_gradients(&trained, s, 0), 2 * one);
    assert_int_equal(trainable_layer_gradients(&trained, s, 1), s->d_model);
    assert_true(trainable_gradients(&trained, s) <= 4096);
    assert_ok(trainable_place(&grads, s, &trained, flat));
    const LayerParams *layer = &grads.layers[0];
    assert_ptr_equal(layer->gate, flat); // is frozen, and of one product with up
    assert_ptr_equal(layer->up, flat + one);
    assert_ptr_equal(grads.norm, flat + 2 * one);
    assert_null(layer->down);
    assert_null(layer->q);
    assert_null(layer->ffn_norm);
    assert_null(grads.embed);
    assert_null(grads.head);
    params_release(&grads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_and_patterns),
        cmocka_unit_test(test_a_pattern_without_a_tensor_is_refused),
        cmocka_unit_test(test_sets_are_compared_by_their_tensors),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_a_product_is_computed_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
