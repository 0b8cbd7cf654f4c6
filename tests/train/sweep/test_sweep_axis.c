// One varied key: cutting its values, the names they give, what is refused.
#include "tests/support/testing.h"

#include "train/sweep/sweep_axis.h"

#include <string.h>

// Parses, and compares overrides and names, each closed by NULL.
static void expect(const char *text, const char *const *overrides, const char *const *names)
{
    SweepAxis axis;
    assert_ok(sweep_axis_parse(&axis, text));
    int n = 0;
    for (; overrides[n] != NULL; n++) {
        assert_true(n < axis.n);
        assert_string_equal(axis.items[n].override, overrides[n]);
        assert_string_equal(axis.items[n].name, names[n]);
    }
    assert_int_equal(axis.n, n);
    sweep_axis_release(&axis);
}

static void test_values_are_cut_at_commas(void **state)
{
    (void)state;
    expect("model.convert.rope=high,2-norm",
           (const char *const[]){"--model.convert.rope=high", "--model.convert.rope=2-norm", NULL},
           (const char *const[]){"rope-high", "rope-2-norm", NULL});
    expect("optim.lr= 1e-4 , 5.0e-4 ",
           (const char *const[]){"--optim.lr=1e-4", "--optim.lr=5.0e-4", NULL},
           (const char *const[]){"lr-1e-4", "lr-5.0e-4", NULL});
    expect(
        "model.convert.scores=none,a=b.h5",
        (const char *const[]){"--model.convert.scores=none", "--model.convert.scores=a=b.h5", NULL},
        (const char *const[]){"scores-none", "scores-a-b.h5", NULL});
}

static void test_commas_in_quotes_and_brackets_belong_to_the_value(void **state)
{
    (void)state;
    expect("data.validation.shards=[a.h5, 'b,c.h5'],\"d,\\\",e\",it's,'it''s, too'",
           (const char *const[]){
               "--data.validation.shards=[a.h5, 'b,c.h5']", "--data.validation.shards=\"d,\\\",e\"",
               "--data.validation.shards=it's", "--data.validation.shards='it''s, too'", NULL},
           (const char *const[]){"shards-a.h5-b-c.h5", "shards-d-e", "shards-it-s",
                                 "shards-it-s-too", NULL});
}

static void test_paths_give_their_last_part(void **state)
{
    (void)state;
    expect("model.base=/models/SmolLM-135M,models/Llama 2/",
           (const char *const[]){"--model.base=/models/SmolLM-135M", "--model.base=models/Llama 2/",
                                 NULL},
           (const char *const[]){"base-SmolLM-135M", "base-Llama-2", NULL});
}

static void test_d_kv_has_its_short_name(void **state)
{
    (void)state;
    const char *const overrides[] = {"--model.convert.d_kv=16", "--model.convert.d_kv=8", NULL};
    const char *const names[] = {"dkv16", "dkv8", NULL};
    expect("model.convert.d_kv=16,8", overrides, names);
    SweepAxis axis;
    assert_ok(sweep_axis_parse_d_kvs(&axis, "16,8"));
    assert_string_equal(axis.items[1].override, overrides[1]);
    assert_string_equal(axis.items[1].name, names[1]);
    assert_true(sweep_axis_is_in(&axis, "model.convert"));
    assert_true(sweep_axis_is_in(&axis, "model.convert.d_kv"));
    assert_false(sweep_axis_is_in(&axis, "model.conv"));
    sweep_axis_release(&axis);
}

static void refused(const char *part, const char *text)
{
    SweepAxis axis;
    assert_fails(BAD_INPUT, part, sweep_axis_parse(&axis, text));
}

static void test_what_is_no_axis(void **state)
{
    (void)state;
    refused("write KEY=VALUE,VALUE,...", "optim.lr");
    refused("write KEY=VALUE,VALUE,...", "=1");
    refused("has an empty value; write none", "optim.lr=");
    refused("has an empty value; write none", "optim.lr=1, ,2");
    refused("has an empty value; write none", "optim.lr=1,");
    refused("a quote or bracket that is not closed", "optim.lr='1,2");
    refused("a quote or bracket that is not closed", "optim.lr=[1,2");
    refused("a quote or bracket that is not closed", "optim.lr=1],2");
    refused("optim.lr has 1e-4 twice", "optim.lr=1e-4,2e-4,1e-4");
    refused("both give a run the name base-model", "model.base=a/model,b/model");
    refused("no character that can be in a run's name", "model.base=**,a");
    refused("is longer than the 64 bytes", "model.base=0123456789012345678901234567890123456789012"
                                           "3456789012345678901234567890");
    refused("the sweep itself names the runs", "run.name=a,b");
    refused("the sweep itself names the runs", "run.dir=a,b");
    refused("has keys of its own", "model.convert=none");
    refused("has keys of its own", "optim={lr: 1}");
    refused("is a list, which a sweep cannot vary", "data.sources=[{name: a}]");
}

// 8 and 08 would be two runs of one width.
static void test_widths_are_whole_numbers(void **state)
{
    (void)state;
    const char *const wrong[] = {"", "16,", ",16", "16,,8", "16, 8", "08", "0", "-4", "4x", "1e2"};
    SweepAxis axis;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_fails(BAD_INPUT, "give whole numbers, such as 16,8,4",
                     sweep_axis_parse_d_kvs(&axis, wrong[i]));
    assert_fails(BAD_INPUT, "--d-kv has 4 twice", sweep_axis_parse_d_kvs(&axis, "4,2,4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_cut_at_commas),
        cmocka_unit_test(test_commas_in_quotes_and_brackets_belong_to_the_value),
        cmocka_unit_test(test_paths_give_their_last_part),
        cmocka_unit_test(test_d_kv_has_its_short_name),
        cmocka_unit_test(test_widths_are_whole_numbers),
        cmocka_unit_test(test_what_is_no_axis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
