// Widths of a conversion from a share of the cache, and what does not fit together.
#include "tests/support/testing.h"

#include "model/convert/convert_target.h"

#include <string.h>

static const ModelShape stories3m = {.n_layers = 6,
                                     .d_model = 192,
                                     .n_heads = 6,
                                     .n_kv_heads = 2,
                                     .head_dim = 32,
                                     .d_ffn = 512,
                                     .vocab_size = 4096,
                                     .max_positions = 512,
                                     .rope_pairs = 16,
                                     .tied_head = true,
                                     .rope_theta = 1e4,
                                     .rms_eps = 1e-5};

static ModelShape smollm2(void)
{
    ModelShape shape = stories3m;
    shape.n_layers = 30;
    shape.d_model = 576;
    shape.n_heads = 9;
    shape.n_kv_heads = 3;
    shape.head_dim = 64;
    shape.rope_pairs = 32;
    return shape;
}

static void test_widths_from_the_cache(void **state)
{
    (void)state;
    const ModelShape wide = smollm2();
    const struct {
        const ModelShape *original;
        double cache;
        int slots, latent; // shared
        int pairs, d_kv;   // per head
    } cases[] = {{&stories3m, .125, 3, 10, 2, 4},
                 {&stories3m, .1875, 4, 16, 2, 8},
                 {&stories3m, .3125, 8, 24, 2, 16},
                 {&wide, .125, 9, 30, 4, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ConvertTarget target = {.form = FORM_SHARED, .cache = cases[i].cache};
        ModelShape shape;
        assert_ok(convert_target_shape(&shape, cases[i].original, &target));
        assert_int_equal(shape.rope_pairs, cases[i].slots);
        assert_int_equal(shape.latent, cases[i].latent);
        target.form = FORM_PER_HEAD;
        assert_ok(convert_target_shape(&shape, cases[i].original, &target));
        assert_int_equal(shape.rope_pairs, cases[i].pairs);
        assert_int_equal(shape.d_kv, cases[i].d_kv);
    }
}

static void test_one_width_gives_the_other(void **state)
{
    (void)state;
    ModelShape shape;
    ConvertTarget target = {.form = FORM_SHARED, .cache = .1875, .slots = 4};
    assert_ok(convert_target_shape(&shape, &stories3m, &target));
    assert_int_equal(shape.latent, 16);
    target =
        (ConvertTarget){.form = FORM_SHARED, .cache = .1875, .latent = 16, .latent_norm = true};
    assert_ok(convert_target_shape(&shape, &stories3m, &target));
    assert_int_equal(shape.rope_pairs, 4);
    assert_true(shape.latent_norm);
    target = (ConvertTarget){.cache = .1875, .rope_pairs = 4};
    assert_ok(convert_target_shape(&shape, &stories3m, &target));
    assert_int_equal(shape.d_kv, 4);
}

static void test_what_does_not_fit(void **state)
{
    (void)state;
    const struct {
        ConvertTarget target;
        const char *text;
    } cases[] = {
        {{.form = FORM_SHARED, .slots = 4}, "slots and latent are needed"},
        {{.rope_pairs = 2}, "rope_pairs and d_kv are needed"},
        {{.form = FORM_SHARED, .cache = .01}, "too few for slots and latent"},
        {{.form = FORM_SHARED, .cache = .125, .slots = 4, .latent = 9}, "17 of 128 numbers"},
        {{.form = FORM_SHARED, .cache = .125, .d_kv = 4}, "the form is shared"},
        {{.cache = .125, .latent_norm = true}, "the form is per-head"},
        {{.form = FORM_SHARED, .slots = 33, .latent = 8}, "allowed are 1 to 32 slots"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ModelShape shape;
        assert_fails(BAD_INPUT, cases[i].text,
                     convert_target_shape(&shape, &stories3m, &cases[i].target));
    }
}

static void test_what_was_chosen_is_said(void **state)
{
    (void)state;
    const ConvertTarget target = {.form = FORM_SHARED, .cache = .125};
    ModelShape shape;
    char text[TARGET_TEXT_BYTES];
    assert_ok(convert_target_shape(&shape, &stories3m, &target));
    convert_target_describe(text, &shape);
    assert_string_equal(text,
                        "shared form: 3 slots and a latent of 10, 16 of 128 numbers per token "
                        "and layer (12.5 %)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widths_from_the_cache),
        cmocka_unit_test(test_one_width_gives_the_other),
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_what_was_chosen_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
