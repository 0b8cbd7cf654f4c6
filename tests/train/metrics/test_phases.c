// Seconds of phases on this rank and over all of them, at every number of ranks CTest starts this
// with. Ranks make their times by hand, so that expected tables are sums of known numbers.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "base/log.h"
#include "train/metrics/phases.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static Comm comm;

static void wait_ms(int ms)
{
    const struct timespec time = {.tv_nsec = ms * 1000000L};
    nanosleep(&time, NULL);
}

static void test_time_goes_to_the_phase_that_runs(void **state)
{
    (void)state;
    Phases phases = {0};
    const double start_s = log_seconds();
    wait_ms(5); // nothing runs
    phases_enter(&phases, PHASE_FORWARD);
    wait_ms(20);
    phases_enter(&phases, PHASE_REDUCE);
    phases_enter(&phases, PHASE_FORWARD);
    wait_ms(20);
    phases_leave(&phases);
    wait_ms(5);
    phases_leave(&phases); // nothing runs
    const double whole_s = log_seconds() - start_s;
    assert_true(phases.seconds[PHASE_FORWARD] >= 0.04);
    assert_true(phases.seconds[PHASE_FORWARD] <= whole_s - 0.01);
    assert_true(phases.seconds[PHASE_REDUCE] >= 0 && phases.seconds[PHASE_REDUCE] < whole_s - 0.05);
    assert_true(phases.seconds[PHASE_UPDATE] == 0);
}

static void test_taking_gives_what_is_new(void **state)
{
    (void)state;
    Phases phases = {0};
    double first[N_PHASES], second[N_PHASES];
    phases_enter(&phases, PHASE_DATA);
    wait_ms(5);
    phases_take(&phases, first); // also of the phase that runs on
    wait_ms(10);
    phases_leave(&phases);
    phases_take(&phases, second);
    assert_true(first[PHASE_DATA] >= 0.005 && second[PHASE_DATA] >= 0.01);
    assert_true(first[PHASE_DATA] + second[PHASE_DATA] == phases.seconds[PHASE_DATA]);
    assert_true(second[PHASE_FORWARD] == 0);
    phases_take(&phases, second);
    assert_true(second[PHASE_DATA] == 0);
}

// Rank r has r + 1 seconds of forward and size - r of backward, beside one of each reported before.
static Phases by_hand(void)
{
    Phases phases = {0};
    phases.seconds[PHASE_FORWARD] = comm.rank + 2;
    phases.seconds[PHASE_BACKWARD] = comm.size - comm.rank + 1;
    phases.seconds[PHASE_REDUCE] = 3;
    phases.reported[PHASE_FORWARD] = phases.reported[PHASE_BACKWARD] = 1;
    return phases;
}

static void test_table_over_ranks(void **state)
{
    (void)state;
    const Phases phases = by_hand();
    PhaseTable table;
    phases_gather(&table, &phases, &comm);
    const double mean = (comm.size + 1) / 2.0;
    assert_true(table.min[PHASE_FORWARD] == 1 && table.max[PHASE_FORWARD] == comm.size);
    assert_true(table.mean[PHASE_FORWARD] == mean && table.mean[PHASE_BACKWARD] == mean);
    assert_int_equal(table.slowest[PHASE_FORWARD], comm.size - 1);
    assert_int_equal(table.slowest[PHASE_BACKWARD], 0);
    assert_int_equal(table.slowest[PHASE_REDUCE], 0); // the lowest of equals
    assert_true(table.min[PHASE_REDUCE] == 3 && table.max[PHASE_REDUCE] == 3);
    assert_true(table.max[PHASE_SAVE] == 0);
}

static void test_reports_do_not_overlap(void **state)
{
    (void)state;
    Phases phases = by_hand();
    PhaseTable table;
    phases_report(&phases, &comm, 10);
    assert_int_equal(phases.reported_step, 10);
    phases_gather(&table, &phases, &comm);
    assert_true(table.max[PHASE_FORWARD] == 0 && table.max[PHASE_REDUCE] == 0);
    phases.seconds[PHASE_FORWARD] += 1;
    phases_report(&phases, &comm, 10); // no step since: nothing is said, nothing is forgotten
    phases_gather(&table, &phases, &comm);
    assert_true(table.min[PHASE_FORWARD] == 1);
}

// Says the table of a run of known times to a file and returns it.
static const char *said_of(Phases *phases, int step)
{
    static char text[2048];
    FILE *file = tmpfile();
    const int saved = dup(STDERR_FILENO);
    assert_true(file != NULL && saved >= 0);
    log_set_quiet(comm.rank != 0);
    dup2(fileno(file), STDERR_FILENO);
    phases_report_all(phases, &comm, step);
    dup2(saved, STDERR_FILENO);
    log_set_quiet(true);
    close(saved);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void test_rank_0_says_the_table_of_all_steps(void **state)
{
    (void)state;
    Phases phases;
    phases_start(&phases, 4);
    phases.seconds[PHASE_FORWARD] = 1 + comm.rank;
    phases.seconds[PHASE_UPDATE] = (comm.size + 1) / 2.0;
    phases_report(&phases, &comm, 9);
    const char *text = said_of(&phases, 14);
    if (comm.rank > 0) {
        assert_string_equal(text, "");
        return;
    }
    char line[128];
    assert_non_null(strstr(text, "mha2mla: seconds of a rank in steps 5 to 14, over "));
    snprintf(line, sizeof line, "mha2mla:      forward      1.000 %10.3f %10.3f  %7d  50.0 %%\n",
             (comm.size + 1) / 2.0, (double)comm.size, comm.size - 1);
    assert_non_null(strstr(text, line));
    assert_null(strstr(text, "save")); // there was none
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_goes_to_the_phase_that_runs),
        cmocka_unit_test(test_taking_gives_what_is_new),
        cmocka_unit_test(test_table_over_ranks),
        cmocka_unit_test(test_reports_do_not_overlap),
        cmocka_unit_test(test_rank_0_says_the_table_of_all_steps),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    log_set_quiet(true);
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
