// Saves that fail leave the checkpoints before them.
#include "tests/support/testing.h"
#include "tests/support/testing_model.h"

#include "base/log.h"
#include "train/checkpoint/retention.h"
#include "train/checkpoint/saver.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static const Comm alone = {.size = 1};

static const RunState first = {.step = 1, .valid_loss = NAN, .valid_step = -1};
static const RunState second = {.step = 2, .valid_loss = NAN, .valid_step = -1};
static const RunState third = {.step = 3, .valid_loss = NAN, .valid_step = -1};

typedef struct Setup {
    Config config;
    json_t *data;
    Model model;
    Partition partition;
    float *moments;
    Saver saver;
} Setup;

// A saver of one rank that has saved step 1 of RUN.
static void start(Setup *s, const char *run_dir)
{
    *s = (Setup){.config = {.run.name = (char *)(uintptr_t) "run",
                            .data.seq_len = 16,
                            .train = {.global_batch = 4, .micro_batch = 2, .sum_groups = 2},
                            .checkpoint = {.keep = 1}},
                 .data = json_pack("{s:i, s:i}", "seed", 42, "seq_len", 16)};
    assert_ok(model_create(&s->model, &testing_tiny_shape));
    assert_ok(partition_create(&s->partition, &testing_tiny_shape, 1, 0));
    s->moments = calloc((size_t)s->partition.own_count, sizeof *s->moments);
    assert_non_null(s->moments);
    const CheckpointContext context = {
        .config = &s->config, .tokenizer_sha256 = "", .data_fingerprint = s->data};
    const CheckpointShard shard = {.partition = &s->partition,
                                   .params = s->model.params.flat,
                                   .m = s->moments,
                                   .v = s->moments};
    assert_ok(saver_open(&s->saver, &alone, run_dir, &context, &s->model, &shard));
    assert_ok(saver_begin(&s->saver, &first, OK));
    assert_ok(saver_finish(&s->saver));
    assert_int_equal(s->saver.saved_step, 1);
}

static void stop(Setup *s)
{
    saver_close(&s->saver);
    free(s->moments);
    partition_release(&s->partition);
    model_release(&s->model);
    json_decref(s->data);
}

static void assert_is_whole(const char *run_dir, int step)
{
    char dir[PATH_BYTES];
    Checkpoint checkpoint;
    assert_ok(checkpoint_path(dir, run_dir, step));
    assert_ok(checkpoint_open(&checkpoint, dir));
    assert_ok(checkpoint_verify(&checkpoint, 0, 1));
    checkpoint_close(&checkpoint);
}

// The metrics could not be brought to the disk.
static void test_save_that_may_not_begin_leaves_the_one_before(void **state)
{
    (void)state;
    Setup s;
    const char *run_dir = testing_dir();
    start(&s, run_dir);
    assert_ok(saver_begin(&s.saver, &second, fail(FAILED, "no room")));
    assert_is_whole(run_dir, 1);
    s.config.checkpoint.on_error = SAVE_FAILURE_STOP;
    assert_fails(FAILED, "step 2 is not written, the newest is that of step 1: no room",
                 saver_begin(&s.saver, &second, fail(FAILED, "no room")));
    assert_is_whole(run_dir, 1);
    stop(&s);
}

// A file has the name of the directory to write in.
static void test_save_that_fails_leaves_the_one_before(void **state)
{
    (void)state;
    Setup s;
    char dir[PATH_BYTES];
    const char *run_dir = testing_dir();
    start(&s, run_dir);
    assert_ok(checkpoint_path(dir, run_dir, 2));
    assert_ok(file_write(dir, "x", 1));
    assert_ok(saver_begin(&s.saver, &second, OK));
    assert_int_equal(s.saver.saved_step, 1);
    assert_is_whole(run_dir, 1);
    stop(&s);
}

// The disk is full when the manifest is due, after all shards.
static void test_save_without_a_manifest_leaves_the_one_before(void **state)
{
    (void)state;
    Setup s;
    char dir[PATH_BYTES];
    const char *run_dir = testing_dir();
    start(&s, run_dir);
    assert_ok(checkpoint_path(dir, run_dir, 2));
    assert_ok(saver_begin(&s.saver, &second, OK));
    while (!atomic_load(&s.saver.is_written))
        usleep(1000);
    testing_limit_files(0);
    assert_ok(saver_finish(&s.saver));
    testing_limit_files(-1);
    assert_int_equal(s.saver.saved_step, 1);
    assert_false(file_exists(dir));
    assert_is_whole(run_dir, 1);
    stop(&s);
}

static bool has_step(const char *run_dir, int step)
{
    char dir[PATH_BYTES];
    assert_ok(checkpoint_path(dir, run_dir, step));
    return file_exists(dir);
}

// The first attempt fails at its manifest, the second finds room. With keep 2, step 3 and step 2
// would stay: step 1 may go before step 3 is complete, step 2 may not.
static void test_save_that_fails_makes_room_of_what_keep_would_remove(void **state)
{
    (void)state;
    Setup s;
    char dir[PATH_BYTES];
    const char *run_dir = testing_dir();
    start(&s, run_dir);
    s.config.checkpoint.keep = 2;
    assert_ok(saver_begin(&s.saver, &second, OK));
    assert_ok(saver_finish(&s.saver));
    assert_true(has_step(run_dir, 1));
    assert_ok(checkpoint_path(dir, run_dir, 3));
    assert_ok(saver_begin(&s.saver, &third, OK));
    while (!atomic_load(&s.saver.is_written))
        usleep(1000);
    assert_int_equal(rename(dir, testing_path(run_dir, "away")), 0);
    assert_ok(saver_finish(&s.saver));
    assert_int_equal(s.saver.saved_step, 3);
    assert_int_equal(s.saver.n_failed, 0);
    assert_false(has_step(run_dir, 1));
    assert_is_whole(run_dir, 2);
    assert_is_whole(run_dir, 3);
    stop(&s);
}

// Every number is a multiple of keep_every but 0, which would stay for ever.
static void test_keep_every_does_not_keep_the_start(void **state)
{
    (void)state;
    Setup s;
    const char *run_dir = testing_dir();
    const RunState zeroth = {.step = 0, .valid_loss = NAN, .valid_step = -1};
    start(&s, run_dir);
    s.config.checkpoint.keep_every = 2;
    assert_ok(saver_begin(&s.saver, &zeroth, OK));
    assert_ok(saver_finish(&s.saver));
    for (int step = 1; step <= 4; step++) {
        const RunState now = {.step = step, .valid_loss = NAN, .valid_step = -1};
        assert_ok(saver_begin(&s.saver, &now, OK));
        assert_ok(saver_finish(&s.saver));
    }
    assert_false(has_step(run_dir, 0));
    assert_false(has_step(run_dir, 1));
    assert_is_whole(run_dir, 2);
    assert_false(has_step(run_dir, 3));
    assert_is_whole(run_dir, 4);
    stop(&s);
}

static void save(Setup *s, int step)
{
    const RunState now = {.step = step, .valid_loss = NAN, .valid_step = -1};
    assert_ok(saver_begin(&s->saver, &now, OK));
    assert_ok(saver_finish(&s->saver));
    assert_int_equal(s->saver.saved_step, step);
}

static const char *path_in(const char *run_dir, int step, const char *name)
{
    static char path[PATH_BYTES];
    assert_true(snprintf(path, sizeof path, "%.2000s/checkpoints/step-%08d%s", run_dir, step,
                         name) < PATH_BYTES);
    return path;
}

// Saves steps 2 and 3 with keep 3, then goes on as after a resume from step 1.
static const char *start_behind(Setup *s)
{
    const char *run_dir = testing_dir();
    start(s, run_dir);
    s->config.checkpoint.keep = 3;
    save(s, 2);
    save(s, 3);
    s->saver.saved_step = 1;
    return run_dir;
}

// A shard was not there when the run resumed. It is back, or may be.
static void test_incomplete_checkpoints_stay_until_the_run_is_as_far(void **state)
{
    (void)state;
    Setup s;
    const char *run_dir = start_behind(&s);
    s.config.checkpoint.keep = 1;
    assert_int_equal(unlink(path_in(run_dir, 2, "/shard-0000.h5")), 0);
    assert_int_equal(unlink(path_in(run_dir, 3, "/shard-0000.h5")), 0);
    save(&s, 2);
    assert_is_whole(run_dir, 2);
    assert_false(file_exists(path_in(run_dir, 2, ".skipped"))); // its step is saved
    assert_false(has_step(run_dir, 3));
    assert_true(file_exists(path_in(run_dir, 3, ".skipped/manifest.json")));
    save(&s, 3);
    assert_is_whole(run_dir, 3);
    assert_false(file_exists(path_in(run_dir, 3, ".skipped")));
    stop(&s);
}

// What could not be read is whole in fact.
static void test_whole_checkpoints_that_were_skipped_stay(void **state)
{
    (void)state;
    Setup s;
    const char *run_dir = start_behind(&s);
    save(&s, 2);
    assert_true(file_exists(path_in(run_dir, 3, ".skipped/shard-0000.h5")));
    stop(&s);
}

static void test_damaged_checkpoints_are_removed(void **state)
{
    (void)state;
    Setup s;
    const char *run_dir = start_behind(&s);
    assert_int_equal(truncate(path_in(run_dir, 3, "/shard-0000.h5"), 100), 0);
    save(&s, 2);
    assert_is_whole(run_dir, 2);
    assert_false(has_step(run_dir, 3));
    assert_false(file_exists(path_in(run_dir, 3, ".skipped")));
    stop(&s);
}

// Until the manifest of the new one is there.
static void test_a_skipped_one_stays_while_its_step_is_saved(void **state)
{
    (void)state;
    Setup s;
    const char *run_dir = start_behind(&s);
    assert_ok(saver_begin(&s.saver, &second, OK));
    assert_true(file_exists(path_in(run_dir, 2, ".skipped/manifest.json")));
    assert_ok(saver_finish(&s.saver));
    assert_false(file_exists(path_in(run_dir, 2, ".skipped")));
    stop(&s);
}

// As where the run was killed between its last manifest and the removal; a torn save, too.
static void test_pruning_at_a_resume(void **state)
{
    (void)state;
    Setup s;
    const char *run_dir = start_behind(&s);
    assert_ok(file_make_dirs(path_in(run_dir, 4, "")));
    assert_int_equal(retention_prune(run_dir, &s.config.checkpoint, 2, 3), 2);
    assert_false(has_step(run_dir, 1));
    assert_is_whole(run_dir, 2);
    assert_is_whole(run_dir, 3);
    assert_false(has_step(run_dir, 4));
    assert_int_equal(retention_prune(run_dir, &s.config.checkpoint, 1, 2), 0); // 3 may be whole
    assert_is_whole(run_dir, 3);
    stop(&s);
}

// A run that is stopped does not go on, whatever checkpoint.on_error says.
static void test_save_that_is_needed_fails_with_its_reason(void **state)
{
    (void)state;
    Setup s;
    start(&s, testing_dir());
    s.saver.is_needed = true;
    assert_fails(FAILED, "step 2 is not written, the newest is that of step 1: no room",
                 saver_begin(&s.saver, &second, fail(FAILED, "no room")));
    stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_save_that_may_not_begin_leaves_the_one_before),
        cmocka_unit_test(test_save_that_fails_leaves_the_one_before),
        cmocka_unit_test(test_save_without_a_manifest_leaves_the_one_before),
        cmocka_unit_test(test_save_that_fails_makes_room_of_what_keep_would_remove),
        cmocka_unit_test(test_incomplete_checkpoints_stay_until_the_run_is_as_far),
        cmocka_unit_test(test_whole_checkpoints_that_were_skipped_stay),
        cmocka_unit_test(test_damaged_checkpoints_are_removed),
        cmocka_unit_test(test_a_skipped_one_stays_while_its_step_is_saved),
        cmocka_unit_test(test_pruning_at_a_resume),
        cmocka_unit_test(test_keep_every_does_not_keep_the_start),
        cmocka_unit_test(test_save_that_is_needed_fails_with_its_reason),
    };
    log_set_quiet(true); // each failure is said
    return cmocka_run_group_tests(tests, NULL, NULL);
}
