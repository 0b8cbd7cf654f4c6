// Groups of micro-batches: every micro-batch once, in order, whatever the number of ranks.
#include "tests/support/testing.h"

#include "train/parallel/batch_schedule.h"

// Walks all groups in the order in which they are summed; returns a checksum of their borders.
static int64_t walk(int n_micro_batches, int n_groups, int n_ranks)
{
    BatchSchedule schedule = batch_schedule_make(n_micro_batches, n_groups, n_ranks);
    int64_t borders = 0;
    int end = 0, groups = 0;
    for (int round = 0; round < schedule.n_rounds; round++)
        for (int rank = 0; rank < n_ranks; rank++) {
            const MicroBatches group = batch_schedule_group(&schedule, round, rank);
            assert_int_equal(group.count > 0, rank < batch_schedule_senders(&schedule, round));
            if (group.count == 0)
                continue;
            assert_int_equal(group.first, end);
            end = group.first + group.count;
            groups++;
            borders = borders * 31 + group.first;
        }
    assert_int_equal(end, n_micro_batches);
    assert_int_equal(groups, n_groups);
    return borders;
}

static void test_groups_are_the_same_for_any_number_of_ranks(void **state)
{
    (void)state;
    for (int n_micro_batches = 1; n_micro_batches <= 12; n_micro_batches++)
        for (int n_groups = 1; n_groups <= n_micro_batches; n_groups++)
            for (int n_ranks = 1; n_ranks <= n_groups; n_ranks++)
                assert_int_equal(walk(n_micro_batches, n_groups, n_ranks),
                                 walk(n_micro_batches, n_groups, 1));
}

static void test_rounds_are_as_few_as_can_be(void **state)
{
    (void)state;
    assert_int_equal(batch_schedule_make(32, 32, 8).n_rounds, 4);
    assert_int_equal(batch_schedule_make(32, 32, 5).n_rounds, 7);
    assert_int_equal(batch_schedule_make(32, 8, 8).n_rounds, 1);
    assert_int_equal(batch_schedule_make(32, 1, 1).n_rounds, 1);
}

static void test_groups_differ_by_one_micro_batch_at_most(void **state)
{
    (void)state;
    BatchSchedule schedule = batch_schedule_make(30, 8, 8);
    for (int rank = 0; rank < 8; rank++) {
        const int count = batch_schedule_group(&schedule, 0, rank).count;
        assert_true(count == 3 || count == 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_are_the_same_for_any_number_of_ranks),
        cmocka_unit_test(test_rounds_are_as_few_as_can_be),
        cmocka_unit_test(test_groups_differ_by_one_micro_batch_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
