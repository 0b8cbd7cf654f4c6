// Signals go to this process, or, where they end it, to children of it.
#define _GNU_SOURCE // kill, nanosleep
#include "tests/support/testing.h"

#include "train/stop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void wait_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&time, &time) != 0)
        ;
}

static void test_nothing_is_requested_at_first(void **state)
{
    (void)state;
    stop_install();
    assert_false(stop_requested());
    assert_int_equal(stop_cause(), 0);
}

static void test_each_signal_is_a_request_and_named(void **state)
{
    (void)state;
    const int signals[] = {SIGTERM, SIGINT, SIGUSR1};
    const char *const names[] = {"SIGTERM", "SIGINT", "SIGUSR1"};
    for (int i = 0; i < 3; i++) {
        stop_install();
        assert_false(stop_requested());
        raise(signals[i]);
        assert_true(stop_requested());
        assert_int_equal(stop_cause(), signals[i]);
        assert_string_equal(stop_cause_name(stop_cause()), names[i]);
    }
}

static void test_first_signal_is_the_cause(void **state)
{
    (void)state;
    stop_install();
    raise(SIGUSR1);
    raise(SIGTERM);
    assert_int_equal(stop_cause(), SIGUSR1);
}

static void test_minutes_pass(void **state)
{
    (void)state;
    stop_install();
    stop_after_minutes(1000);
    assert_false(stop_requested());
    stop_after_minutes(0.01 / 60);
    wait_ms(20);
    assert_true(stop_requested());
    assert_int_equal(stop_cause(), STOP_MINUTES);
    assert_string_equal(stop_cause_name(STOP_MINUTES), "run.max_minutes");
}

static void test_zero_minutes_are_no_limit(void **state)
{
    (void)state;
    stop_install();
    stop_after_minutes(0);
    wait_ms(5);
    assert_false(stop_requested());
}

static void test_ignored_signal_stays_ignored(void **state)
{
    (void)state;
    struct sigaction ignored = {.sa_handler = SIG_IGN}, usual = {.sa_handler = SIG_DFL};
    sigaction(SIGINT, &ignored, NULL);
    stop_install();
    raise(SIGINT);
    assert_false(stop_requested());
    sigaction(SIGINT, &usual, NULL);
}

// Children that get two signals, all at the same time: one leaves with ALIVE if the second has not
// ended it.
enum { ALIVE = 7, N_CHILDREN = 5, PAUSE_MS = 1010 };

typedef struct Child {
    int first, second; // PAUSE_MS later
    bool is_slurm_job;
    pid_t id;
    int status;
} Child;

static Child children[N_CHILDREN] = {
    {SIGTERM, SIGTERM}, {SIGTERM, SIGINT},        {SIGUSR1, SIGUSR1},
    {SIGUSR1, SIGTERM}, {SIGTERM, SIGTERM, true},
};

// Says through `ready` that the handlers are set, and again that the first signal has come: on a
// loaded machine it may come late. `done` is closed once both signals are sent.
static _Noreturn void live_on(const Child *child, const int ready[2], const int done[2])
{
    char byte = 'r';
    if (child->is_slurm_job)
        setenv("SLURM_JOB_ID", "1", 1);
    else
        unsetenv("SLURM_JOB_ID");
    stop_install();
    close(done[1]);
    if (write(ready[1], &byte, 1) != 1)
        _exit(8);
    while (!stop_requested())
        wait_ms(1);
    if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 0)
        _exit(8);
    _exit(stop_cause() == child->first ? ALIVE : 9);
}

static int send_signals(void **state)
{
    (void)state;
    int ready[2], done[2];
    char byte;
    if (pipe(ready) != 0 || pipe(done) != 0)
        return 1;
    for (Child *c = children; c < children + N_CHILDREN; c++) {
        c->id = fork();
        if (c->id == 0)
            live_on(c, ready, done);
        if (c->id < 0 || read(ready[0], &byte, 1) != 1)
            return 1;
    }
    for (Child *c = children; c < children + N_CHILDREN; c++)
        kill(c->id, c->first);
    for (int i = 0; i < N_CHILDREN; i++)
        if (read(ready[0], &byte, 1) != 1)
            return 1;
    wait_ms(PAUSE_MS);
    for (Child *c = children; c < children + N_CHILDREN; c++)
        kill(c->id, c->second);
    close(done[0]);
    close(done[1]);
    for (Child *c = children; c < children + N_CHILDREN; c++)
        if (waitpid(c->id, &c->status, 0) != c->id)
            return 1;
    close(ready[0]);
    close(ready[1]);
    return 0;
}

static void check_child(int number, int expected)
{
    const int status = children[number].status;
    assert_true(WIFEXITED(status)); // never killed by the signal itself
    assert_int_equal(WEXITSTATUS(status), expected);
}

static void test_second_signal_ends_at_once(void **state)
{
    (void)state;
    check_child(0, 128 + SIGTERM);
    check_child(1, 128 + SIGINT);
}

static void test_same_request_forwarded_twice_is_one(void **state)
{
    (void)state;
    stop_install();
    raise(SIGTERM);
    raise(SIGTERM); // would end this process
    assert_int_equal(stop_cause(), SIGTERM);
}

static void test_usr1_never_ends(void **state)
{
    (void)state;
    check_child(2, ALIVE);
    check_child(3, ALIVE);
}

static void test_second_signal_does_not_end_a_slurm_job(void **state)
{
    (void)state;
    check_child(4, ALIVE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_requested_at_first),
        cmocka_unit_test(test_each_signal_is_a_request_and_named),
        cmocka_unit_test(test_first_signal_is_the_cause),
        cmocka_unit_test(test_minutes_pass),
        cmocka_unit_test(test_zero_minutes_are_no_limit),
        cmocka_unit_test(test_ignored_signal_stays_ignored),
        cmocka_unit_test(test_second_signal_ends_at_once),
        cmocka_unit_test(test_same_request_forwarded_twice_is_one),
        cmocka_unit_test(test_usr1_never_ends),
        cmocka_unit_test(test_second_signal_does_not_end_a_slurm_job),
    };
    return cmocka_run_group_tests(tests, send_signals, NULL);
}
