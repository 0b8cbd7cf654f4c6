// Which checkpoint a run resumes from: the newest that is whole, and the warnings on the way there.
#define _GNU_SOURCE // memmem, syscall
#include "tests/support/testing.h"
#include "tests/support/testing_model.h"

#include "base/log.h"
#include "train/checkpoint/checkpoint_shard.h"
#include "train/checkpoint/resume.h"
#include "train/checkpoint/retention.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// In place of the C library's: the next `failures` calls for a file of this name fail.
static const char *failing = "";
static int failures, failure;

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
    va_end(arguments);
    if (failures > 0 && strstr(path, failing) != NULL) {
        failures--;
        errno = failure;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static const Comm alone = {.size = 1};

static const Config config = {
    .run.name = (char *)(uintptr_t) "run",
    .data.seq_len = 16,
    .train = {.steps = 9, .global_batch = 4, .micro_batch = 2, .sum_groups = 2}};

static void write_checkpoint(const char *run_dir, int step)
{
    char dir[PATH_BYTES];
    Model model;
    Partition partition;
    CheckpointFile file;
    assert_ok(model_create(&model, &testing_tiny_shape));
    assert_ok(partition_create(&partition, &testing_tiny_shape, 1, 0));
    const CheckpointShard shard = {.step = step,
                                   .n_ranks = 1,
                                   .partition = &partition,
                                   .params = model.params.flat,
                                   .m = model.params.flat,
                                   .v = model.params.flat};
    json_t *data = json_pack("{s:i}", "seq_len", 16);
    const CheckpointContext context = {
        .config = &config, .tokenizer_sha256 = "", .data_fingerprint = data};
    const RunState state = {.step = step, .valid_step = step};
    assert_ok(checkpoint_path(dir, run_dir, step));
    assert_ok(checkpoint_begin(dir));
    assert_ok(checkpoint_shard_write(&file, dir, &shard));
    assert_ok(checkpoint_commit(dir, &state, &model, &context, &file, 1));
    json_decref(data);
    partition_release(&partition);
    model_release(&model);
}

// A run with checkpoints of the steps 2, 4 and 6.
static const char *write_run(void)
{
    const char *run_dir = testing_dir();
    for (int step = 2; step <= 6; step += 2)
        write_checkpoint(run_dir, step);
    return run_dir;
}

static char *path_of(const char *run_dir, int step, const char *name)
{
    static char path[PATH_BYTES];
    snprintf(path, sizeof path, "%.3000s/checkpoints/step-%08d/%s", run_dir, step, name);
    return path;
}

// Puts `to` where the file first has `from`, of the same length.
static void replace(const char *path, const char *from, const char *to)
{
    FileMap map;
    assert_ok(file_map(&map, path));
    unsigned char *bytes = malloc((size_t)map.size_bytes);
    assert_non_null(bytes);
    memcpy(bytes, map.bytes, (size_t)map.size_bytes);
    unsigned char *at = memmem(bytes, (size_t)map.size_bytes, from, strlen(from));
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    assert_ok(file_write(path, bytes, map.size_bytes));
    file_unmap(&map);
    free(bytes);
}

// The step that is found, -1 for none; what is said on the way in `said`.
static int find(const char *run_dir, char *said, size_t size_bytes)
{
    Checkpoint checkpoint;
    bool is_found;
    FILE *file = tmpfile();
    const int saved = dup(STDERR_FILENO);
    assert_non_null(file);
    assert_true(saved >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    const Status status = resume_find(&checkpoint, &is_found, run_dir, &alone);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    said[fread(said, 1, size_bytes - 1, file)] = '\0';
    fclose(file);
    assert_int_equal(status, OK);
    if (!is_found)
        return -1;
    const int step = checkpoint.manifest.state.step;
    checkpoint_close(&checkpoint);
    return step;
}

static void assert_said(const char *said, const char *words)
{
    if (strstr(said, words) == NULL)
        fail_msg("'%s' is not in '%s'", words, said);
}

static void test_newest_whole_one_is_found(void **state)
{
    (void)state;
    const char *run_dir = write_run();
    char said[2048];
    assert_int_equal(find(run_dir, said, sizeof said), 6);
    assert_string_equal(said, "");
    replace(path_of(run_dir, 6, "manifest.json"), "\"rope_theta\": 10000", "\"rope_theta\": 20000");
    assert_int_equal(find(run_dir, said, sizeof said), 4);
    assert_said(said, "warning: the checkpoint of step 6 is skipped: ");
    assert_said(said, "step-00000006/manifest.json: is damaged: its text has SHA-256 ");
    replace(path_of(run_dir, 4, "shard-0000.h5"), "HDF", "HDG");
    assert_int_equal(find(run_dir, said, sizeof said), 2);
    assert_said(said, "step-00000004/shard-0000.h5: is damaged: CRC-32");
    assert_int_equal(unlink(path_of(run_dir, 2, "manifest.json")), 0);
    assert_int_equal(find(run_dir, said, sizeof said), -1);
    assert_said(said, "step-00000002/manifest.json: is missing");
}

static void fail_to_open(const char *name, int times, int error)
{
    failing = name;
    failures = times;
    failure = error;
}

// As for a moment on a network file system: no steps are lost for that.
static void test_what_fails_for_a_moment_is_looked_at_again(void **state)
{
    (void)state;
    const char *run_dir = write_run();
    static const char *const names[] = {"step-00000006/manifest.json",
                                        "step-00000006/shard-0000.h5"};
    static const int errors[] = {ENOENT, EIO, ESTALE, EACCES};
    char said[2048];
    for (size_t n = 0; n < 2; n++) {
        for (size_t e = 0; e < sizeof errors / sizeof *errors; e++) {
            fail_to_open(names[n], 1, errors[e]);
            assert_int_equal(find(run_dir, said, sizeof said), 6);
            assert_string_equal(said, "");
            assert_int_equal(failures, 0);
        }
    }
    fail_to_open("", 0, 0);
}

static void test_incomplete_one_is_skipped(void **state)
{
    (void)state;
    const char *run_dir = write_run();
    char said[2048];
    assert_int_equal(unlink(path_of(run_dir, 6, "shard-0000.h5")), 0);
    assert_int_equal(find(run_dir, said, sizeof said), 4);
    assert_said(said, "warning: the checkpoint of step 6 is skipped: ");
    assert_said(said, "step-00000006/shard-0000.h5: is missing: the checkpoint is incomplete");
}

// Whether it is back, or only seems so, cannot be known: it is not removed.
static void test_what_cannot_be_read_is_set_aside(void **state)
{
    (void)state;
    static const char *const names[] = {"step-00000006/manifest.json",
                                        "step-00000006/shard-0000.h5"};
    static const int errors[] = {ENOENT, EIO};
    for (int n = 0; n < 2; n++) {
        for (int e = 0; e < 2; e++) {
            const char *run_dir = write_run();
            fail_to_open(names[n], 1000, errors[e]);
            log_set_quiet(true);
            retention_set_aside(run_dir, 5, INT_MAX);
            log_set_quiet(false);
            fail_to_open("", 0, 0);
            assert_false(file_exists(path_of(run_dir, 6, "")));
            assert_true(file_exists(testing_path(run_dir, "checkpoints/step-00000006.skipped/"
                                                          "manifest.json")));
            assert_true(file_exists(path_of(run_dir, 4, "manifest.json")));
        }
    }
}

static void test_unreadable_one_is_not_skipped(void **state)
{
    (void)state;
    const char *run_dir = write_run();
    Checkpoint checkpoint;
    bool is_found;
    fail_to_open("step-00000006/shard-0000.h5", 1000, EIO);
    assert_fails(FAILED, "shard-0000.h5: cannot be read now: Input/output error",
                 resume_find(&checkpoint, &is_found, run_dir, &alone));
    fail_to_open("", 0, 0);
}

// Of what the older version wrote: it is resumed from, with a warning.
static void test_manifest_without_checksum_is_said(void **state)
{
    (void)state;
    const char *run_dir = write_run();
    char said[2048], *path = path_of(run_dir, 6, "manifest.json");
    json_t *root;
    assert_ok(json_read(&root, path));
    json_object_del(root, "checksum");
    json_object_set_new(root, "version", json_integer(1));
    assert_ok(json_write(root, path));
    json_decref(root);
    assert_int_equal(find(run_dir, said, sizeof said), 6);
    assert_said(said, "step-00000006/manifest.json has no checksum (written by an older version)");
}

static void test_original_shape_is_that_of_the_newest_manifest_that_can_be_read(void **state)
{
    (void)state;
    char name[] = "run", dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", testing_dir());
    Config converted = {.run = {.name = name, .dir = dir}, .model.convert.given = true};
    ModelShape original;
    assert_false(resume_original_shape(&original, &converted));
    write_checkpoint(testing_path(dir, "run"), 2);
    write_checkpoint(testing_path(dir, "run"), 4);
    replace(path_of(testing_path(dir, "run"), 4, "manifest.json"), "\"d_ffn\": 12",
            "\"d_ffn\": 13");
    assert_true(resume_original_shape(&original, &converted));
    assert_int_equal(original.d_ffn, 12);
    assert_int_equal(original.rope_pairs, 2);
    assert_int_equal(original.d_kv, 0);
}

static void test_what_cannot_be_followed_is_refused(void **state)
{
    (void)state;
    const char *run_dir = write_run();
    char dir[PATH_BYTES];
    Checkpoint checkpoint;
    ModelShape other = testing_tiny_shape;
    Config changed = config;
    assert_ok(checkpoint_path(dir, run_dir, 6));
    assert_ok(resume_open(&checkpoint, dir, &alone));
    assert_ok(resume_check(&checkpoint, &config, &testing_tiny_shape));
    other.rope_theta = 20000;
    assert_fails(BAD_INPUT, "its model has rope_theta 10000, the config's 20000",
                 resume_check(&checkpoint, &config, &other));
    changed.train.global_batch = 8;
    assert_fails(BAD_INPUT, "made with train.global_batch 4, the config has 8",
                 resume_check(&checkpoint, &changed, &testing_tiny_shape));
    changed = config;
    changed.train.steps = 5;
    assert_fails(BAD_INPUT, "is of step 6, train.steps is 5",
                 resume_check(&checkpoint, &changed, &testing_tiny_shape));
    checkpoint_close(&checkpoint);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_newest_whole_one_is_found),
        cmocka_unit_test(test_what_fails_for_a_moment_is_looked_at_again),
        cmocka_unit_test(test_incomplete_one_is_skipped),
        cmocka_unit_test(test_what_cannot_be_read_is_set_aside),
        cmocka_unit_test(test_unreadable_one_is_not_skipped),
        cmocka_unit_test(test_manifest_without_checksum_is_said),
        cmocka_unit_test(test_original_shape_is_that_of_the_newest_manifest_that_can_be_read),
        cmocka_unit_test(test_what_cannot_be_followed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
