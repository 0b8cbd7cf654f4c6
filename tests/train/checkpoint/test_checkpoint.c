// Checkpoints: what any number of ranks wrote, any number reads back to the bit; what is missing or
// damaged is refused by name.
#include "tests/support/testing.h"

#include "train/checkpoint/checkpoint_shard.h"
#include "train/checkpoint/resume.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The embedding alone is more than two blocks of shares.
static const ModelShape shape = {.n_layers = 2,
                                 .d_model = 16,
                                 .n_heads = 2,
                                 .n_kv_heads = 1,
                                 .head_dim = 8,
                                 .d_ffn = 40,
                                 .vocab_size = 300,
                                 .max_positions = 32,
                                 .rope_pairs = 2,
                                 .d_kv = 6,
                                 .rope_theta = 12345.678,
                                 .rms_eps = 1e-6};

static const RunState saved = {.step = 7,
                               .loss = 1.0 / 3,
                               .grad_norm = 0.1,
                               .valid_loss = 2.0 / 7,
                               .valid_step = 6,
                               .valid_set = "5d1f08a3"};

// A state that is the same for any number of ranks.
typedef struct State {
    Model model;
    float *m, *v; // of the whole flat vector
    int64_t count;
} State;

static void state_start(State *s)
{
    assert_ok(model_create(&s->model, &shape));
    s->count = params_count(&shape);
    s->m = malloc((size_t)s->count * sizeof(float));
    s->v = malloc((size_t)s->count * sizeof(float));
    assert_non_null(s->m);
    assert_non_null(s->v);
    testing_fill(s->model.params.flat, s->count, 1, 1);
    testing_fill(s->m, s->count, 1e-3, 2);
    testing_fill(s->v, s->count, 1e-6, 3);
    s->model.rope_pairs[0] = 1;
    s->model.rope_pairs[1] = 3;
}

static void state_stop(State *s)
{
    model_release(&s->model);
    free(s->m);
    free(s->v);
}

// The moments of one rank, as they lie in its memory.
static float *own_part(const float *whole, const Partition *partition)
{
    float *own = malloc((size_t)(partition->own_count + 1) * sizeof(float));
    assert_non_null(own);
    for (int i = 0; i < partition->n_buckets; i++) {
        const Bucket *b = &partition->buckets[i];
        memcpy(own + b->moments_first, whole + b->own_first, (size_t)b->own_count * sizeof(float));
    }
    return own;
}

static void write_rank(CheckpointFile *file, const char *dir, const State *s, int rank, int n_ranks)
{
    Partition partition;
    assert_ok(partition_create(&partition, &shape, n_ranks, rank));
    float *m = own_part(s->m, &partition), *v = own_part(s->v, &partition);
    const CheckpointShard shard = {.step = saved.step,
                                   .rank = rank,
                                   .n_ranks = n_ranks,
                                   .partition = &partition,
                                   .params = s->model.params.flat,
                                   .m = m,
                                   .v = v};
    assert_ok(checkpoint_shard_write(file, dir, &shard));
    free(m);
    free(v);
    partition_release(&partition);
}

// Writes RUN/checkpoints/step-00000007 as n_ranks would; returns its path.
static const char *write_checkpoint(const char *run_dir, const State *s, int n_ranks)
{
    static char dir[PATH_BYTES];
    CheckpointFile files[8];
    const Config config = {.run.name = (char *)(uintptr_t) "run",
                           .data.seq_len = 32,
                           .train = {.global_batch = 8, .micro_batch = 2, .sum_groups = 4}};
    json_t *data = json_pack("{s:i, s:i}", "seed", 42, "seq_len", 32);
    const CheckpointContext context = {
        .config = &config, .tokenizer_sha256 = "", .data_fingerprint = data};
    assert_ok(checkpoint_path(dir, run_dir, saved.step));
    assert_ok(checkpoint_begin(dir));
    for (int rank = 0; rank < n_ranks; rank++)
        write_rank(&files[rank], dir, s, rank, n_ranks);
    assert_ok(checkpoint_commit(dir, &saved, &s->model, &context, files, n_ranks));
    json_decref(data);
    return dir;
}

static void read_rank(const Checkpoint *checkpoint, const State *s, int rank, int n_ranks)
{
    Partition partition;
    assert_ok(partition_create(&partition, &shape, n_ranks, rank));
    float *params = calloc((size_t)s->count, sizeof(float));
    float *m = calloc((size_t)partition.own_count + 1, sizeof(float));
    float *v = calloc((size_t)partition.own_count + 1, sizeof(float));
    assert_ok(checkpoint_read(checkpoint, &partition, params, m, v));
    for (int i = 0; i < partition.n_buckets; i++) {
        const Bucket *b = &partition.buckets[i];
        const size_t bytes = (size_t)b->own_count * sizeof(float);
        assert_memory_equal(params + b->own_first, s->model.params.flat + b->own_first, bytes);
        assert_memory_equal(m + b->moments_first, s->m + b->own_first, bytes);
        assert_memory_equal(v + b->moments_first, s->v + b->own_first, bytes);
    }
    free(params);
    free(m);
    free(v);
    partition_release(&partition);
}

static void test_any_number_of_ranks_reads_what_any_other_wrote(void **state)
{
    (void)state;
    State s;
    state_start(&s);
    const int numbers[] = {1, 2, 3, 5, 8};
    char first_digest[SHA256_HEX_BYTES] = "";
    for (int w = 0; w < 5; w++) {
        Checkpoint checkpoint;
        char digest[SHA256_HEX_BYTES];
        assert_ok(checkpoint_open(&checkpoint, write_checkpoint(testing_dir(), &s, numbers[w])));
        assert_int_equal(checkpoint.manifest.n_files, numbers[w]);
        assert_ok(checkpoint_verify(&checkpoint, 0, 1));
        for (int r = 0; r < 5; r++)
            for (int rank = 0; rank < numbers[r]; rank++)
                read_rank(&checkpoint, &s, rank, numbers[r]);
        assert_ok(checkpoint_digest(digest, &checkpoint));
        if (w == 0)
            strcpy(first_digest, digest);
        assert_string_equal(digest, first_digest);
        checkpoint_close(&checkpoint);
    }
    state_stop(&s);
}

static void test_digest_tells_a_bit(void **state)
{
    (void)state;
    State s;
    Checkpoint checkpoint;
    char before[SHA256_HEX_BYTES], after[SHA256_HEX_BYTES];
    state_start(&s);
    assert_ok(checkpoint_open(&checkpoint, write_checkpoint(testing_dir(), &s, 2)));
    assert_ok(checkpoint_digest(before, &checkpoint));
    checkpoint_close(&checkpoint);
    s.v[s.count - 1] = nextafterf(s.v[s.count - 1], 1);
    assert_ok(checkpoint_open(&checkpoint, write_checkpoint(testing_dir(), &s, 2)));
    assert_ok(checkpoint_digest(after, &checkpoint));
    checkpoint_close(&checkpoint);
    assert_string_not_equal(before, after);
    state_stop(&s);
}

static void test_manifest_keeps_every_bit(void **state)
{
    (void)state;
    State s;
    Checkpoint c;
    Model model;
    state_start(&s);
    assert_ok(checkpoint_open(&c, write_checkpoint(testing_dir(), &s, 2)));
    assert_int_equal(c.manifest.state.step, 7);
    assert_int_equal(c.manifest.state.valid_step, 6);
    const RunState *read = &c.manifest.state;
    assert_true(read->loss == saved.loss && read->grad_norm == saved.grad_norm);
    assert_true(read->valid_loss == saved.valid_loss);
    assert_true(c.manifest.has_checksum);
    assert_string_equal(read->valid_set, saved.valid_set);
    assert_ok(checkpoint_check_shape(&c, &shape));
    assert_true(c.manifest.shape.rope_theta == shape.rope_theta);
    assert_true(c.manifest.shape.rms_eps == shape.rms_eps);
    assert_ok(checkpoint_load_model(&model, &c));
    assert_memory_equal(model.rope_pairs, s.model.rope_pairs, 4 * sizeof(int32_t));
    assert_memory_equal(model.params.flat, s.model.params.flat, (size_t)s.count * sizeof(float));
    model_release(&model);
    checkpoint_close(&c);
    state_stop(&s);
}

static void test_another_shape_is_named(void **state)
{
    (void)state;
    State s;
    Checkpoint c;
    state_start(&s);
    assert_ok(checkpoint_open(&c, write_checkpoint(testing_dir(), &s, 1)));
    ModelShape other = shape;
    other.d_kv = 8;
    assert_fails(BAD_INPUT, "its model has d_kv 6, the config's 8",
                 checkpoint_check_shape(&c, &other));
    other = shape;
    other.rope_theta *= 2;
    assert_fails(BAD_INPUT, "rope_theta", checkpoint_check_shape(&c, &other));
    other = shape;
    other.svd = SVD_SPLIT;
    assert_fails(BAD_INPUT, "its model has svd joint, the config's split",
                 checkpoint_check_shape(&c, &other));
    checkpoint_close(&c);
    state_stop(&s);
}

// Opens and verifies: what resuming does before it trusts a checkpoint.
static Status open_and_verify(const char *dir)
{
    Checkpoint checkpoint;
    TRY(checkpoint_open(&checkpoint, dir));
    Status status = checkpoint_verify(&checkpoint, 0, 1);
    checkpoint_close(&checkpoint);
    return status;
}

static char *within(const char *dir, const char *name)
{
    static char path[PATH_BYTES];
    assert_ok(file_join(path, dir, name));
    return path;
}

static void flip_byte(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 16, file);
    fclose(file);
}

static void test_damage_is_named(void **state)
{
    (void)state;
    State s;
    state_start(&s);
    const char *dir = write_checkpoint(testing_dir(), &s, 2);
    assert_ok(open_and_verify(dir));
    const long places[] = {0, 100, 5000, -1};
    for (int i = 0; i < 4; i++) {
        flip_byte(within(dir, "shard-0001.h5"), places[i]);
        assert_fails(BAD_INPUT, "shard-0001.h5: is damaged: CRC-32", open_and_verify(dir));
        flip_byte(within(dir, "shard-0001.h5"), places[i]);
    }
    assert_ok(open_and_verify(dir));
    assert_int_equal(truncate(within(dir, "shard-0000.h5"), 1000), 0);
    assert_fails(BAD_INPUT, "shard-0000.h5: has 1000 bytes, the manifest says",
                 open_and_verify(dir));
    assert_int_equal(truncate(within(dir, "shard-0000.h5"), 0), 0);
    assert_fails(BAD_INPUT, "shard-0000.h5: has 0 bytes", open_and_verify(dir));
    assert_int_equal(unlink(within(dir, "shard-0000.h5")), 0);
    assert_fails(BAD_INPUT, "shard-0000.h5: is missing: the checkpoint is incomplete",
                 open_and_verify(dir));
    state_stop(&s);
}

static void test_damage_of_the_manifest_is_named(void **state)
{
    (void)state;
    State s;
    state_start(&s);
    const char *dir = write_checkpoint(testing_dir(), &s, 2);
    const long places[] = {100, 1000, -100, -5};
    for (int i = 0; i < 4; i++) {
        flip_byte(within(dir, "manifest.json"), places[i]);
        assert_fails(BAD_INPUT, "manifest.json:", open_and_verify(dir));
        flip_byte(within(dir, "manifest.json"), places[i]);
    }
    assert_ok(open_and_verify(dir));
    assert_int_equal(truncate(within(dir, "manifest.json"), 200), 0);
    assert_fails(BAD_INPUT, "manifest.json:", open_and_verify(dir));
    assert_int_equal(unlink(within(dir, "manifest.json")), 0);
    assert_fails(BAD_INPUT, "manifest.json: is missing", open_and_verify(dir));
    state_stop(&s);
}

// Files of one checkpoint in another's place, with the sizes and checksums right.
static void test_shard_of_another_step_is_refused(void **state)
{
    (void)state;
    State s;
    state_start(&s);
    const char *dir = write_checkpoint(testing_dir(), &s, 2);
    Partition partition;
    int64_t n_read = 0;
    assert_ok(partition_create(&partition, &shape, 1, 0));
    CheckpointShard expected = {.step = 8, .rank = 1, .n_ranks = 2, .partition = &partition};
    assert_fails(BAD_INPUT, "step is 7, the manifest says 8",
                 checkpoint_shard_read(&n_read, within(dir, "shard-0001.h5"), &expected,
                                       s.model.params.flat, NULL, NULL));
    expected.step = 7;
    expected.rank = 0;
    assert_fails(BAD_INPUT, "rank is 1, the manifest says 0",
                 checkpoint_shard_read(&n_read, within(dir, "shard-0001.h5"), &expected,
                                       s.model.params.flat, NULL, NULL));
    partition_release(&partition);
    state_stop(&s);
}

static void make_step(const char *run_dir, const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%.3000s/checkpoints/%s", run_dir, name);
    assert_ok(file_make_dirs(path));
}

static void test_list_is_descending_and_of_checkpoints_alone(void **state)
{
    (void)state;
    const char *run_dir = testing_dir();
    int *steps, n_steps;
    assert_ok(checkpoint_list(&steps, &n_steps, run_dir));
    assert_int_equal(n_steps, 0); // no directory yet
    free(steps);
    const char *const names[] = {"step-00000500",    "step-00001000", "step-123456789",
                                 "step-99999999999", "step-1",        "step-0000x500",
                                 "latest",           "step-00000000", "step-0000000500"};
    for (int i = 0; i < 9; i++)
        make_step(run_dir, names[i]);
    assert_ok(checkpoint_list(&steps, &n_steps, run_dir));
    assert_int_equal(n_steps, 4);
    const int expected[] = {123456789, 1000, 500, 0};
    assert_memory_equal(steps, expected, sizeof expected);
    free(steps);
}

static void test_removal_takes_all_of_it(void **state)
{
    (void)state;
    State s;
    state_start(&s);
    const char *dir = write_checkpoint(testing_dir(), &s, 3);
    checkpoint_remove(dir);
    assert_false(file_exists(dir));
    checkpoint_remove(dir); // again: nothing to do
    state_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_ranks_reads_what_any_other_wrote),
        cmocka_unit_test(test_digest_tells_a_bit),
        cmocka_unit_test(test_manifest_keeps_every_bit),
        cmocka_unit_test(test_another_shape_is_named),
        cmocka_unit_test(test_damage_is_named),
        cmocka_unit_test(test_damage_of_the_manifest_is_named),
        cmocka_unit_test(test_shard_of_another_step_is_refused),
        cmocka_unit_test(test_list_is_descending_and_of_checkpoints_alone),
        cmocka_unit_test(test_removal_takes_all_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
