// The calibration pass on any number of ranks: the same sums, bit by bit, as one rank's.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"
#include "tests/support/testing_run.h"

#include "eval/forward_pass.h"
#include "train/calibrate.h"
#include "train/stop.h"

#include <math.h>
#include <signal.h>
#include <string.h>

enum { T = TESTING_RUN_T };

static Comm comm;
static const char *const no_overrides[] = {NULL};

typedef struct Setup {
    TestingRun run;
    Model model;
    Mixture *mixture;
} Setup;

static void open_mixture(Setup *s)
{
    const DataConfig *data = &s->run.config.data;
    assert_ok(
        mixture_open(&s->mixture, data->sources, data->n_sources, T, 42, NULL, TESTING_RUN_VOCAB));
}

static void start(Setup *s)
{
    stop_install();
    testing_run_config(&s->run, &comm, no_overrides);
    assert_ok(model_create(&s->model, &s->run.config.model.init.shape));
    model_init_random(&s->model, 0.5, 7);
    open_mixture(s);
}

static void end(Setup *s)
{
    mixture_close(s->mixture);
    model_release(&s->model);
    testing_run_release(&s->run);
}

// Sums of the first n samples by this rank alone: each sample's rounded to 2^-24, as on all ranks.
static void sum_alone(RopeScores *out, Setup *s, int n)
{
    ForwardPass pass = {0};
    RopeScores one;
    const int64_t count = rope_scores_count(&s->model.shape);
    assert_ok(forward_pass_start(&pass, &s->model, T, COMPUTE_FLOAT32));
    assert_ok(rope_scores_create(out, &s->model.shape));
    assert_ok(rope_scores_create(&one, &s->model.shape));
    for (int64_t i = 0; i < n; i++) {
        assert_ok(mixture_read(s->mixture, i, pass.batch.sample));
        batch_set(&pass.batch, 0);
        memset(one.block, 0, (size_t)count * sizeof(double));
        transformer_forward(&pass.ws, &s->model, pass.batch.inputs, &one);
        for (int64_t j = 0; j < count; j++)
            out->block[j] += round(one.block[j] * (1 << 24)) / (1 << 24);
    }
    rope_scores_release(&one);
    forward_pass_release(&pass);
}

static void check_sums(int n)
{
    Setup s;
    RopeScores scores, expected;
    start(&s);
    assert_ok(calibrate_run(&scores, &comm, &s.model, s.mixture, n, T, COMPUTE_FLOAT32));
    sum_alone(&expected, &s, n);
    const int64_t count = rope_scores_count(&s.model.shape);
    assert_true(*scores.n_tokens == n * T);
    for (int64_t i = 0; i < count; i++)
        assert_true(scores.block[i] == expected.block[i]);
    rope_scores_release(&expected);
    rope_scores_release(&scores);
    end(&s);
}

static void test_sums_are_those_of_one_rank(void **state)
{
    (void)state;
    check_sums(12);
}

static void test_samples_that_ranks_do_not_share_evenly(void **state)
{
    (void)state;
    check_sums(7);
    check_sums(1); // fewer than ranks
}

static void test_all_ranks_stop_when_one_is_asked_to(void **state)
{
    (void)state;
    Setup s;
    RopeScores scores;
    start(&s);
    if (comm.rank == comm.size - 1)
        raise(SIGUSR1);
    assert_fails(STOPPED, "SIGUSR1",
                 calibrate_run(&scores, &comm, &s.model, s.mixture, 12, T, COMPUTE_FLOAT32));
    end(&s);
    stop_install();
}

static void test_sample_that_one_rank_cannot_read(void **state)
{
    (void)state;
    Setup s;
    RopeScores scores;
    int32_t tokens[TESTING_RUN_TOKENS];
    start(&s);
    testing_run_tokens(tokens);
    tokens[5 * T + 3] = TESTING_RUN_SHARD_VOCAB - 1;
    mixture_close(s.mixture);
    testing_run_write_shard(&s.run, tokens);
    open_mixture(&s);
    assert_fails(BAD_INPUT, "token 43 is 999, the model's vocabulary has 301",
                 calibrate_run(&scores, &comm, &s.model, s.mixture, TESTING_RUN_SAMPLES, T,
                               COMPUTE_FLOAT32));
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_are_those_of_one_rank),
        cmocka_unit_test(test_samples_that_ranks_do_not_share_evenly),
        cmocka_unit_test(test_all_ranks_stop_when_one_is_asked_to),
        cmocka_unit_test(test_sample_that_one_rank_cannot_read),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
