// Ranks that have the same agree, others are told apart: at every number of ranks CTest starts this
// with. On one rank there is nobody to differ from.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "train/parallel/contract.h"

#include <stdio.h>
#include <string.h>

static Comm comm;

static const char demand[] = "every rank needs the same config";

static Contract example(void)
{
    Contract contract = {0};
    contract_add(&contract, "run.seed", "%d", 42);
    contract_add(&contract, "optim.lr", "%s", "1.0e-3");
    contract_add(&contract, "run.name", "%s", "");
    return contract;
}

// That the ranks are refused with the rank and the text, on all of them.
static void expect_refused(Contract *contract, int rank, const char *text)
{
    char whole[512];
    if (comm.size == 1) {
        assert_ok(contract_agree(contract, &comm, OK, demand));
        return;
    }
    snprintf(whole, sizeof whole, "rank %d on %s: %s; %s", rank, comm.host, text, demand);
    assert_int_equal(contract_agree(contract, &comm, OK, demand), BAD_INPUT);
    assert_string_equal(fail_text(), whole);
    assert_null(contract->bytes);
}

static void test_equal_ranks_agree(void **state)
{
    (void)state;
    Contract contract = example(), none = {0};
    assert_ok(contract_agree(&contract, &comm, OK, demand));
    assert_null(contract.bytes);
    assert_ok(contract_agree(&none, &comm, OK, demand));
}

static void test_rank_key_and_both_values_are_named(void **state)
{
    (void)state;
    for (int rank = 1; rank < comm.size; rank++) {
        Contract contract = example();
        char text[128];
        contract_add(&contract, "train.steps", "%d", comm.rank == rank ? 7 : 9);
        contract_add(&contract, "log.every", "%d", comm.rank);
        snprintf(text, sizeof text,
                 rank == 1 ? "train.steps is 7, rank 0 on %s has 9"
                           : "log.every is 1, rank 0 on %s has 0",
                 comm.host);
        expect_refused(&contract, 1, text); // the first rank that differs
    }
}

// Rank 0 is the one that differs from all the others: they are not "one rank" each.
static void test_rank_0_may_be_the_odd_one(void **state)
{
    (void)state;
    Contract contract = example();
    char text[128];
    contract_add(&contract, "train.steps", "%d", comm.rank == 0 ? 7 : 9);
    snprintf(text, sizeof text, "train.steps is 9, rank 0 on %s has 7", comm.host);
    expect_refused(&contract, 1, text);
}

static void test_a_key_that_one_side_lacks(void **state)
{
    (void)state;
    for (int has = 0; has <= 1; has++) {
        Contract contract = {0};
        char text[128];
        contract_add(&contract, "a", "1");
        if ((comm.rank == comm.size - 1) == (has != 0))
            contract_add(&contract, "b", "2");
        contract_add(&contract, "c", "3");
        snprintf(text, sizeof text,
                 has ? "b is 2, rank 0 on %s has none" : "b is not given, rank 0 on %s has 2",
                 comm.host);
        expect_refused(&contract, comm.size - 1, text);
    }
}

static void test_a_key_more_at_the_end(void **state)
{
    (void)state;
    for (int has = 0; has <= 1; has++) {
        Contract contract = example();
        char text[128];
        if ((comm.rank == comm.size - 1) == (has != 0))
            contract_add(&contract, "z", "26");
        snprintf(text, sizeof text,
                 has ? "z is 26, rank 0 on %s has none" : "z is not given, rank 0 on %s has 26",
                 comm.host);
        expect_refused(&contract, comm.size - 1, text);
    }
}

// Key and value are told apart: "ab" "c" is not "a" "bc".
static void test_boundaries_count(void **state)
{
    (void)state;
    Contract contract = {0};
    char text[128];
    contract_add(&contract, comm.rank == 0 ? "ab" : "a", "%s", comm.rank == 0 ? "c" : "bc");
    snprintf(text, sizeof text, "a is bc, rank 0 on %s has none", comm.host);
    expect_refused(&contract, 1, text);
}

static void test_json_is_compared_number_by_number(void **state)
{
    (void)state;
    Contract contract = {0};
    char text[128];
    json_t *root =
        json_pack("{s:s, s:[{s:i, s:f}, {s:i, s:f}], s:n}", "sha256", "ab", "shards", "tokens", 10,
                  "weight", 0.25, "tokens", comm.rank == 0 ? 11 : 12, "weight", 0.5, "none");
    assert_non_null(root);
    contract_add_json(&contract, "data", root);
    json_decref(root);
    snprintf(text, sizeof text, "data.shards[1].tokens is 12, rank 0 on %s has 11", comm.host);
    expect_refused(&contract, 1, text);
}

static void test_a_failure_before_comes_first(void **state)
{
    (void)state;
    Contract contract = example();
    const int last = comm.size - 1;
    contract_add(&contract, "rank", "%d", comm.rank);
    const Status own = comm.rank == last ? fail(FAILED, "model.base is not there") : OK;
    assert_fails(FAILED, "model.base is not there", contract_agree(&contract, &comm, own, demand));
}

static void test_long_lists_and_values(void **state)
{
    (void)state;
    static char value[100000];
    memset(value, 'x', sizeof value - 1);
    for (int differs = 0; differs <= 1; differs++) {
        Contract contract = {0};
        for (int i = 0; i < 1000; i++)
            contract_add(&contract, "key", "%d", i);
        value[sizeof value - 2] = differs && comm.rank == 0 ? 'y' : 'x';
        contract_add(&contract, "long", "%s", value);
        const Status status = contract_agree(&contract, &comm, OK, demand);
        assert_int_equal(status, differs && comm.size > 1 ? BAD_INPUT : OK);
        if (status != OK)
            assert_non_null(strstr(fail_text(), demand)); // values are cut, the demand is not
    }
}

static void test_a_difference_that_only_warns(void **state)
{
    (void)state;
    Contract contract = example();
    contract_add(&contract, "kernel", "%d", comm.rank);
    assert_ok(contract_warn(&contract, &comm, "they round differently"));
    assert_null(contract.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_ranks_agree),
        cmocka_unit_test(test_rank_key_and_both_values_are_named),
        cmocka_unit_test(test_rank_0_may_be_the_odd_one),
        cmocka_unit_test(test_a_key_that_one_side_lacks),
        cmocka_unit_test(test_a_key_more_at_the_end),
        cmocka_unit_test(test_boundaries_count),
        cmocka_unit_test(test_json_is_compared_number_by_number),
        cmocka_unit_test(test_a_failure_before_comes_first),
        cmocka_unit_test(test_long_lists_and_values),
        cmocka_unit_test(test_a_difference_that_only_warns),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
