// What a rank is fed: the ranks of this program share the micro-batches of every step.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"
#include "tests/support/testing_run.h"

#include "base/log.h"
#include "train/feed.h"

#include <stdio.h>
#include <string.h>

enum { T = TESTING_RUN_T, G = TESTING_RUN_BATCH };

static Comm comm;

typedef struct Setup {
    TestingRun run;
    Mixture *mixture;
    Arena arena;
    PrefetchMemory memory;
    BatchSchedule schedule;
    Feed feed;
} Setup;

static void start(Setup *s)
{
    const char *const overrides[] = {"train.micro_batch=2", "train.sum_groups=4", NULL};
    testing_run_config(&s->run, &comm, overrides);
    const Config *config = &s->run.config;
    s->schedule = batch_schedule_make(G / 2, config->train.sum_groups, comm.size);
    assert_ok(mixture_open(&s->mixture, config->data.sources, config->data.n_sources, T, 42, NULL,
                           TESTING_RUN_VOCAB));
    s->arena = arena_start("test");
    prefetch_place(&s->memory, &s->arena, 2, T);
    assert_ok(arena_allocate(&s->arena));
    prefetch_place(&s->memory, &s->arena, 2, T);
    s->feed = (Feed){.mixture = s->mixture,
                     .memory = &s->memory,
                     .config = config,
                     .schedule = &s->schedule,
                     .rank = comm.rank};
}

static void end(Setup *s)
{
    feed_stop(&s->feed);
    feed_stop(&s->feed); // does nothing
    arena_release(&s->arena);
    mixture_close(s->mixture);
    testing_run_release(&s->run);
}

// Takes this rank's micro-batches of a step, in the order of its rounds. Every micro-batch that is
// taken counts in times [G / 2], and keeps its tokens for check_tokens().
typedef struct Taken {
    double times[G / 2];
    int32_t tokens[G / 2][2][T + 1];
} Taken;

static void take_step(Taken *taken, Setup *s, int step)
{
    *taken = (Taken){0};
    for (int round = 0; round < s->schedule.n_rounds; round++) {
        const MicroBatches group = batch_schedule_group(&s->schedule, round, comm.rank);
        for (int m = group.first; m < group.first + group.count; m++) {
            const Batch *batch;
            assert_ok(feed_next(&s->feed, &batch, step, m));
            taken->times[m]++;
            for (int b = 0; b < 2; b++) {
                memcpy(taken->tokens[m][b], batch->inputs + b * T, T * sizeof(int32_t));
                taken->tokens[m][b][T] = batch->targets[b * T + T - 1];
            }
        }
    }
}

// The feed must be stopped: it reads the mixture.
static void check_tokens(const Taken *taken, Setup *s, int step)
{
    for (int m = 0; m < G / 2; m++)
        for (int b = 0; b < 2 && taken->times[m] > 0; b++) {
            int32_t expected[T + 1];
            const int64_t sample = (step - 1) * G + m * 2 + b;
            assert_ok(mixture_read(s->mixture, sample, expected));
            assert_memory_equal(taken->tokens[m][b], expected, sizeof expected);
        }
}

static void test_ranks_share_the_samples_of_every_step(void **state)
{
    (void)state;
    Setup s;
    Taken taken[TESTING_RUN_STEPS];
    start(&s);
    assert_ok(feed_start(&s.feed, 1));
    for (int step = 1; step <= TESTING_RUN_STEPS; step++)
        take_step(&taken[step - 1], &s, step);
    feed_stop(&s.feed);
    for (int step = 1; step <= TESTING_RUN_STEPS; step++) {
        double times[G / 2];
        check_tokens(&taken[step - 1], &s, step);
        memcpy(times, taken[step - 1].times, sizeof times);
        comm_sum_doubles(&comm, times, G / 2);
        for (int m = 0; m < G / 2; m++)
            assert_true(times[m] == 1);
    }
    end(&s);
}

static void test_starting_again_drops_what_was_read_ahead(void **state)
{
    (void)state;
    Setup s;
    Taken taken;
    start(&s);
    assert_ok(feed_start(&s.feed, 1));
    take_step(&taken, &s, 1);
    assert_ok(feed_start(&s.feed, 3)); // a resumed run
    take_step(&taken, &s, 3);
    assert_ok(feed_start(&s.feed, 1)); // a trace of the step at hand
    take_step(&taken, &s, 1);
    feed_stop(&s.feed);
    check_tokens(&taken, &s, 1);
    end(&s);
}

static void test_first_sample_of_a_micro_batch(void **state)
{
    (void)state;
    Setup s;
    start(&s);
    assert_int_equal(feed_first_sample(&s.feed, 1, 0), 0);
    assert_int_equal(feed_first_sample(&s.feed, 3, 1), 2 * G + 2);
    s.run.config.train.global_batch = 1 << 20; // more samples than an int holds
    assert_int_equal(feed_first_sample(&s.feed, 1 << 20, 0), ((INT64_C(1) << 20) - 1) << 20);
    s.run.config.train.global_batch = G;
    end(&s);
}

static void test_waits_are_taken_once(void **state)
{
    (void)state;
    Setup s;
    Taken taken;
    start(&s);
    assert_ok(feed_start(&s.feed, 1));
    take_step(&taken, &s, 1);
    assert_true(feed_take_wait_s(&s.feed) >= 0);
    assert_true(feed_take_wait_s(&s.feed) == 0); // nothing was read since
    end(&s);
}

static Setup *told;

static void tell_epochs(void)
{
    log_set_quiet(false);
    feed_warn_epochs(told->mixture, &told->run.config);
    feed_report_epochs(told->mixture, &told->run.config);
    log_set_quiet(true);
}

static void test_what_is_said_of_epochs(void **state)
{
    (void)state;
    Setup s;
    char said[1024];
    start(&s);
    told = &s;
    testing_capture(said, sizeof said, tell_epochs);
    assert_string_equal(said, "mha2mla: source made-up: 24 samples read, 1 epochs\n");
    s.run.config.train.steps = 2 * TESTING_RUN_STEPS;
    testing_capture(said, sizeof said, tell_epochs);
    assert_string_equal(said,
                        "mha2mla: warning: source made-up: this run reads its 24 samples 2 times; "
                        "more text, a smaller weight or fewer steps avoid that\n"
                        "mha2mla: source made-up: 48 samples read, 2 epochs\n");
    s.run.config.train.steps = 0;
    testing_capture(said, sizeof said, tell_epochs);
    assert_string_equal(said, "");
    s.run.config.train.steps = TESTING_RUN_STEPS;
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_share_the_samples_of_every_step),
        cmocka_unit_test(test_starting_again_drops_what_was_read_ahead),
        cmocka_unit_test(test_first_sample_of_a_micro_batch),
        cmocka_unit_test(test_waits_are_taken_once),
        cmocka_unit_test(test_what_is_said_of_epochs),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
