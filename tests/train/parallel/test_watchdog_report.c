#include "tests/support/testing.h"

#include "base/file.h"
#include "train/parallel/watchdog_report.h"

#include <stdio.h>
#include <string.h>

enum { NOON = 1769860800 }; // 2026-01-31T12:00:00Z

static WatchdogRank waiting(void)
{
    return (WatchdogRank){.state = WATCHDOG_WAITS, .phase = "reduce", .step = 412, .since = NOON};
}

static void describe(char out[2048], const WatchdogRank *ranks, int n_ranks, int reporter)
{
    static char hosts[1000][WATCHDOG_HOST_BYTES];
    for (int r = 0; r < n_ranks; r++)
        snprintf(hosts[r], sizeof hosts[r], "node%d", r);
    watchdog_describe(out, 2048, ranks, (const char(*)[WATCHDOG_HOST_BYTES])hosts, n_ranks,
                      reporter, 30, "run.stall_minutes");
}

static void test_line_names_ranks_phase_and_time(void **state)
{
    (void)state;
    WatchdogRank ranks[8];
    for (int r = 0; r < 8; r++)
        ranks[r] = waiting();
    ranks[3].state = WATCHDOG_SILENT;
    char text[2048];
    describe(text, ranks, 8, 0);
    assert_string_equal(text, "stalled for 30 min in reduce of step 412: rank 3 on node3 is silent "
                              "since 2026-01-31T12:00:00Z; ranks 0-2, 4-7 wait; raise "
                              "run.stall_minutes if they are only slow");
}

static void test_single_rank_waits(void **state)
{
    (void)state;
    WatchdogRank ranks[2] = {waiting(), waiting()};
    ranks[0].state = WATCHDOG_BUSY;
    ranks[0].step = 0;
    strcpy(ranks[0].phase, "export");
    char text[2048];
    describe(text, ranks, 2, 1);
    assert_string_equal(text, "stalled for 30 min in reduce of step 412: rank 0 on node0 is busy "
                              "in export since 2026-01-31T12:00:00Z; rank 1 waits; raise "
                              "run.stall_minutes if they are only slow");
}

static void test_rank_that_waits_elsewhere_is_named(void **state)
{
    (void)state;
    WatchdogRank ranks[3] = {waiting(), waiting(), waiting()};
    ranks[1].step = 413;
    char text[2048];
    describe(text, ranks, 3, 0);
    assert_non_null(strstr(text, ": rank 1 on node1 waits in reduce of step 413 since "));
    assert_non_null(strstr(text, "; ranks 0, 2 wait; "));
}

static void test_many_silent_ranks_are_counted(void **state)
{
    (void)state;
    WatchdogRank ranks[1000];
    for (int r = 0; r < 1000; r++) {
        ranks[r] = waiting();
        if (r >= 10)
            ranks[r].state = WATCHDOG_SILENT;
    }
    char text[2048];
    describe(text, ranks, 1000, 0);
    assert_non_null(strstr(text, "rank 17 on node17 is silent"));
    assert_null(strstr(text, "rank 18 "));
    assert_non_null(strstr(text, "; 982 more ranks likewise; ranks 0-9 wait; "));
}

static void test_longest_line_is_cut(void **state)
{
    (void)state;
    WatchdogRank ranks[1000];
    for (int r = 0; r < 1000; r++) { // 500 groups of one
        ranks[r] = waiting();
        ranks[r].step += r % 2;
    }
    char text[2048];
    describe(text, ranks, 1000, 0);
    assert_int_equal(strlen(text), 2047);
}

static void test_written_file_is_read(void **state)
{
    (void)state;
    const char *dir = testing_path(testing_dir(), "ranks");
    WatchdogRank own = waiting(), read = {0};
    own.idle_s = 450.5;
    own.beat = 17;
    assert_ok(watchdog_write(dir, 3, "node7", &own, true));
    assert_ok(watchdog_read(&read, dir, 3));
    assert_int_equal(read.state, WATCHDOG_WAITS);
    assert_string_equal(read.phase, "reduce");
    assert_int_equal(read.step, 412);
    assert_true(read.idle_s == 450.5);
    assert_int_equal(read.since, NOON);
    assert_int_equal(read.beat, 17);
}

static void test_rank_has_one_file(void **state)
{
    (void)state;
    const char *dir = testing_path(testing_dir(), "ranks");
    const WatchdogRank own = waiting();
    for (int asks = 0; asks <= 1; asks++) {
        assert_ok(watchdog_write(dir, 3, "node7", &own, asks != 0));
        assert_int_equal(file_exists(testing_path(dir, "rank-0003-waits.json")), asks);
        assert_int_equal(file_exists(testing_path(dir, "rank-0003-busy.json")), !asks);
    }
    watchdog_remove(dir, 3);
    assert_false(file_exists(testing_path(dir, "rank-0003-waits.json")));
}

static void test_only_other_ranks_that_wait_ask(void **state)
{
    (void)state;
    const char *dir = testing_path(testing_dir(), "ranks");
    const WatchdogRank own = waiting();
    assert_false(watchdog_is_asked(dir, 0)); // no directory
    assert_ok(watchdog_write(dir, 0, "node0", &own, true));
    assert_ok(watchdog_write(dir, 1, "node1", &own, false));
    assert_ok(file_write(testing_path(dir, ".rank-0002-waits.json.tmp-node2-11-0"), "{}", 2));
    assert_false(watchdog_is_asked(dir, 0));
    assert_true(watchdog_is_asked(dir, 1));
    assert_ok(watchdog_write(dir, 12345, "node9", &own, true));
    assert_true(watchdog_is_asked(dir, 0));
}

static void test_damaged_files_are_no_answer(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    const char *path = testing_path(dir, "rank-0000-busy.json");
    const char *const damaged[] = {"", "{", "[]", "{\"state\": 7}",
                                   "{\"state\": \"busy\", \"phase\": \"x\", \"step\": -1}"};
    WatchdogRank read;
    assert_fails(BAD_INPUT, "cannot be opened", watchdog_read(&read, dir, 0));
    for (int i = 0; i < 5; i++) {
        assert_ok(file_write(path, damaged[i], (int64_t)strlen(damaged[i])));
        assert_fails(BAD_INPUT, "rank-0000-busy.json", watchdog_read(&read, dir, 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line_names_ranks_phase_and_time),
        cmocka_unit_test(test_single_rank_waits),
        cmocka_unit_test(test_rank_that_waits_elsewhere_is_named),
        cmocka_unit_test(test_many_silent_ranks_are_counted),
        cmocka_unit_test(test_longest_line_is_cut),
        cmocka_unit_test(test_written_file_is_read),
        cmocka_unit_test(test_rank_has_one_file),
        cmocka_unit_test(test_only_other_ranks_that_wait_ask),
        cmocka_unit_test(test_damaged_files_are_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
