// A shard of a checkpoint that the disk refuses somewhere in the middle: a limit on the size of
// files stands for the end of the disk, at places all over the file.
#include "tests/support/testing.h"

#include "base/file.h"
#include "train/checkpoint/checkpoint_shard.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const ModelShape shape = {.n_layers = 2,
                                 .d_model = 16,
                                 .n_heads = 4,
                                 .n_kv_heads = 2,
                                 .head_dim = 4,
                                 .d_ffn = 32,
                                 .vocab_size = 50,
                                 .max_positions = 64,
                                 .rope_theta = 10000,
                                 .rms_eps = 1e-5,
                                 .tied_head = true};

static Partition partition;
static CheckpointShard shard;
static float *floats; // [3, own_count]

static int make_shard(void **state)
{
    (void)state;
    if (partition_create(&partition, &shape, 1, 0) != OK)
        return 1;
    floats = malloc((size_t)partition.own_count * 3 * sizeof *floats);
    if (floats == NULL)
        return 1;
    testing_fill(floats, partition.own_count * 3, 1, 7);
    shard = (CheckpointShard){.step = 3,
                              .n_ranks = 1,
                              .partition = &partition,
                              .params = floats,
                              .m = floats + partition.own_count,
                              .v = floats + 2 * partition.own_count};
    signal(SIGXFSZ, SIG_IGN); // the write fails instead
    return 0;
}

static int release_shard(void **state)
{
    (void)state;
    partition_release(&partition);
    free(floats);
    return 0;
}

static int count_entries(const char *dir)
{
    DIR *entries = opendir(dir);
    assert_non_null(entries);
    int count = 0;
    while (readdir(entries) != NULL)
        count++;
    closedir(entries);
    return count;
}

static Status write_within(const char *dir, int64_t most_bytes, CheckpointFile *out)
{
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = (rlim_t)most_bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const Status status = checkpoint_shard_write(out, dir, &shard);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    return status;
}

static void test_refused_write_says_why_and_leaves_nothing(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    CheckpointFile file = {0};
    assert_ok(checkpoint_shard_write(&file, dir, &shard));
    const int64_t whole = file.size_bytes;
    const int n_open = count_entries("/proc/self/fd");
    for (int64_t most = 0; most < whole; most += whole / 40) {
        const char *empty = testing_path(dir, "empty");
        assert_ok(file_make_dirs(empty));
        assert_int_equal(write_within(empty, most, &file), FAILED);
        if (strstr(fail_text(), "File too large") == NULL)
            fail_msg("at %lld of %lld bytes no reason: %s", (long long)most, (long long)whole,
                     fail_text());
        assert_int_equal(count_entries(empty), 2);
    }
    assert_int_equal(count_entries("/proc/self/fd"), n_open);
}

static void test_write_succeeds_when_there_is_room_again(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    const int64_t n = partition.own_count;
    CheckpointFile first, second;
    float *read = calloc((size_t)n * 3, sizeof *read);
    assert_non_null(read);
    assert_ok(checkpoint_shard_write(&first, testing_dir(), &shard));
    for (int i = 1; i < 8; i++) {
        char path[PATH_BYTES];
        int64_t n_read = 0;
        assert_int_equal(write_within(dir, first.size_bytes * i / 8, &second), FAILED);
        assert_ok(checkpoint_shard_write(&second, dir, &shard));
        assert_int_equal(second.size_bytes, first.size_bytes);
        assert_ok(checkpoint_shard_path(path, dir, 0));
        memset(read, 0, (size_t)n * 3 * sizeof *read);
        assert_ok(checkpoint_shard_read(&n_read, path, &shard, read, read + n, read + 2 * n));
        assert_memory_equal(read, floats, (size_t)n * 3 * sizeof *read);
    }
    free(read);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_write_says_why_and_leaves_nothing),
        cmocka_unit_test(test_write_succeeds_when_there_is_room_again),
    };
    return cmocka_run_group_tests(tests, make_shard, release_shard);
}
