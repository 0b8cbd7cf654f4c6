// All ranks resume from the same checkpoint, whoever of them reads the damaged file, and refuse the
// same configs. The checkpoints are those of a tiny run, one for every step.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"
#include "tests/support/testing_run.h"

#include "train/checkpoint/resume.h"
#include "train/loop.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STEPS = TESTING_RUN_STEPS };

static Comm comm;

static void train(TestingRun *run)
{
    const char *const overrides[] = {"checkpoint.every=1", "checkpoint.keep=5", NULL};
    testing_run_config(run, &comm, overrides);
    testing_run_start(run, NULL);
    assert_ok(loop_run(&run->trainer));
    testing_run_stop(run);
}

static void wait_for_all(void)
{
    double nothing = 0;
    comm_sum_doubles(&comm, &nothing, 1);
}

// A file of the checkpoint of a step; static storage.
static const char *path_of(const TestingRun *run, int step, const char *name)
{
    char dir[PATH_BYTES];
    assert_ok(checkpoint_path(dir, run->dir, step));
    return testing_path(dir, name);
}

// Changes a byte in the middle of a file, or cuts the file there.
static void damage(const TestingRun *run, int step, const char *name, bool cuts)
{
    if (comm.rank == 0) {
        FILE *file = fopen(path_of(run, step, name), "r+b");
        assert_non_null(file);
        assert_int_equal(fseek(file, 0, SEEK_END), 0);
        const long size = ftell(file);
        if (cuts) {
            assert_int_equal(ftruncate(fileno(file), size / 2), 0);
        } else {
            assert_int_equal(fseek(file, size / 2, SEEK_SET), 0);
            const int byte = fgetc(file);
            assert_int_equal(fseek(file, size / 2, SEEK_SET), 0);
            fputc(byte ^ 1, file);
        }
        assert_int_equal(fclose(file), 0);
    }
    wait_for_all();
}

// The step that is found; -1: none.
static int find(const TestingRun *run)
{
    Checkpoint checkpoint = {0};
    bool is_found;
    assert_ok(resume_find(&checkpoint, &is_found, run->dir, &comm));
    const int step = is_found ? checkpoint.manifest.state.step : -1;
    if (is_found)
        checkpoint_close(&checkpoint);
    return step;
}

static void test_all_ranks_find_the_newest_that_is_whole(void **state)
{
    (void)state;
    TestingRun run;
    train(&run);
    assert_int_equal(find(&run), STEPS);
    damage(&run, STEPS, "shard-0000.h5", false); // the checksum tells
    assert_int_equal(find(&run), STEPS - 1);
    char last[32];
    snprintf(last, sizeof last, "shard-%04d.h5", comm.size - 1);
    damage(&run, STEPS - 1, last, true);
    assert_int_equal(find(&run), STEPS - 2);
    testing_run_release(&run);
}

static void test_config_that_a_checkpoint_cannot_follow(void **state)
{
    (void)state;
    TestingRun run;
    Checkpoint checkpoint;
    bool is_found;
    train(&run);
    assert_ok(resume_find(&checkpoint, &is_found, run.dir, &comm));
    assert_true(is_found);
    ModelShape shape = run.config.model.init.shape;
    assert_ok(resume_check(&checkpoint, &run.config, &shape));
    run.config.train.steps = STEPS + 5;
    run.config.optim.adamw.weight_decay = 0.5; // may change
    assert_ok(resume_check(&checkpoint, &run.config, &shape));
    run.config.train.steps = STEPS - 1;
    assert_fails(BAD_INPUT, "is of step 3, train.steps is 2",
                 resume_check(&checkpoint, &run.config, &shape));
    run.config.train.steps = STEPS;
    run.config.train.global_batch = 2 * TESTING_RUN_BATCH;
    assert_fails(BAD_INPUT, "made with train.global_batch 8, the config has 16",
                 resume_check(&checkpoint, &run.config, &shape));
    run.config.train.global_batch = TESTING_RUN_BATCH;
    shape.d_ffn = 128;
    assert_fails(BAD_INPUT, "96", resume_check(&checkpoint, &run.config, &shape));
    checkpoint_close(&checkpoint);
    testing_run_release(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_ranks_find_the_newest_that_is_whole),
        cmocka_unit_test(test_config_that_a_checkpoint_cannot_follow),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
