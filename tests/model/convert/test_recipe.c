// What form, method and strategy become where they are left to the program, and that what is given
// stays.
#include "tests/support/testing.h"

#include "model/convert/recipe.h"

typedef struct Conversion {
    ConvertTarget target;
    ConvertMethod method;
    RopeStrategy rope;
} Conversion;

static void check(Conversion given, ConvertForm form, ConvertMethod method, RopeStrategy rope)
{
    ConvertRecipe recipe = {.method = given.method, .key_weight = .1};
    recipe_complete(&recipe, &given.target, &given.rope);
    assert_int_equal(given.target.form, form);
    assert_int_equal(recipe.method, method);
    assert_int_equal(given.rope, rope);
    assert_int_equal(recipe.mixes, rope == ROPE_SHARED_UNIFORM);
    assert_true(recipe.key_weight == .1);
}

#define TARGET(...) ((ConvertTarget){.form = FORM_AUTO, __VA_ARGS__})

static void test_a_share_of_the_cache(void **state)
{
    (void)state;
    const ConvertTarget share = TARGET(.cache = .125);
    check((Conversion){share, METHOD_AUTO, ROPE_AUTO}, FORM_SHARED, METHOD_CLOSED, ROPE_KL);
    check((Conversion){share, METHOD_CLOSED, ROPE_AUTO}, FORM_SHARED, METHOD_CLOSED, ROPE_KL);
    check((Conversion){share, METHOD_AUTO, ROPE_KL}, FORM_SHARED, METHOD_CLOSED, ROPE_KL);
    check((Conversion){share, METHOD_AUTO, ROPE_SHARED_UNIFORM}, FORM_SHARED, METHOD_CLOSED,
          ROPE_SHARED_UNIFORM);
    check((Conversion){TARGET(.slots = 4, .cache = .125), METHOD_AUTO, ROPE_AUTO}, FORM_SHARED,
          METHOD_CLOSED, ROPE_KL);
    check((Conversion){TARGET(.latent = 8, .cache = .125), METHOD_WHITENED, ROPE_AUTO}, FORM_SHARED,
          METHOD_WHITENED, ROPE_2NORM);
    check((Conversion){TARGET(.latent_norm = true, .cache = .125), METHOD_AUTO, ROPE_2NORM},
          FORM_SHARED, METHOD_CLOSED, ROPE_2NORM);
}

static void test_settings_of_the_paper(void **state)
{
    (void)state;
    check((Conversion){TARGET(.rope_pairs = 4, .d_kv = 16), METHOD_AUTO, ROPE_AUTO}, FORM_PER_HEAD,
          METHOD_PAPER, ROPE_2NORM);
    check((Conversion){TARGET(.rope_pairs = 4, .d_kv = 16), METHOD_AUTO, ROPE_KL}, FORM_PER_HEAD,
          METHOD_PAPER, ROPE_KL);
    check((Conversion){TARGET(.d_kv = 16), METHOD_CLOSED, ROPE_AUTO}, FORM_PER_HEAD, METHOD_CLOSED,
          ROPE_KL);
    check((Conversion){TARGET(.svd = SVD_SPLIT, .cache = .125), METHOD_AUTO, ROPE_AUTO},
          FORM_PER_HEAD, METHOD_PAPER, ROPE_2NORM);
    const ConvertTarget share = TARGET(.cache = .125);
    check((Conversion){share, METHOD_PAPER, ROPE_AUTO}, FORM_PER_HEAD, METHOD_PAPER, ROPE_2NORM);
    check((Conversion){share, METHOD_WHITENED, ROPE_AUTO}, FORM_PER_HEAD, METHOD_WHITENED,
          ROPE_2NORM);
    const RopeStrategy papers[] = {ROPE_HIGH, ROPE_LOW, ROPE_UNIFORM, ROPE_2NORM};
    for (size_t i = 0; i < sizeof papers / sizeof *papers; i++)
        check((Conversion){share, METHOD_AUTO, papers[i]}, FORM_PER_HEAD, METHOD_PAPER, papers[i]);
}

static void test_what_is_given_stays(void **state)
{
    (void)state;
    for (int form = FORM_PER_HEAD; form < FORM_AUTO; form++)
        for (int method = METHOD_PAPER; method < METHOD_AUTO; method++)
            for (int rope = ROPE_HIGH; rope < ROPE_AUTO; rope++)
                check((Conversion){{.form = (ConvertForm)form, .cache = .125},
                                   (ConvertMethod)method,
                                   (RopeStrategy)rope},
                      (ConvertForm)form, (ConvertMethod)method, (RopeStrategy)rope);
    check((Conversion){{.form = FORM_PER_HEAD, .cache = .125}, METHOD_AUTO, ROPE_AUTO},
          FORM_PER_HEAD, METHOD_PAPER, ROPE_2NORM);
    check((Conversion){{.form = FORM_SHARED, .cache = .125}, METHOD_AUTO, ROPE_AUTO}, FORM_SHARED,
          METHOD_CLOSED, ROPE_KL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_share_of_the_cache),
        cmocka_unit_test(test_settings_of_the_paper),
        cmocka_unit_test(test_what_is_given_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
