// Validation loss over ranks: the same for any number of them, and never a number that is none.
// Every rank makes the shard and the model for itself.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "base/log.h"
#include "data/shards/shard.h"
#include "train/validation.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { T = 6, VOCAB = 17, WINDOWS = 5 };

static Comm comm;
static const ModelShape shape = {.n_layers = 2,
                                 .d_model = 8,
                                 .n_heads = 2,
                                 .n_kv_heads = 1,
                                 .head_dim = 4,
                                 .d_ffn = 12,
                                 .vocab_size = VOCAB,
                                 .max_positions = 16,
                                 .rope_pairs = 2,
                                 .tied_head = true,
                                 .rope_theta = 10000,
                                 .rms_eps = 1e-5};

typedef struct Setup {
    char path[4096];
    char *shards[1];
    Config config;
    Model model;
} Setup;

// A shard of WINDOWS windows of T, and a model whose weights are Normal(0, std).
static void start(Setup *s, double std)
{
    *s = (Setup){.shards = {s->path}};
    strcpy(s->path, testing_path(testing_dir(), "valid.h5"));
    ShardInfo info = {.vocab_size = VOCAB, .eos_id = -1};
    memset(info.tokenizer_sha256, 'a', SHA256_HEX_BYTES - 1);
    ShardWriter *writer;
    int32_t ids[WINDOWS * T + 1];
    for (int i = 0; i <= WINDOWS * T; i++)
        ids[i] = i * i % VOCAB;
    assert_ok(shard_create(&writer, s->path, &info));
    assert_ok(shard_append(writer, ids, WINDOWS * T + 1));
    assert_ok(shard_finish(writer));
    s->config.data.seq_len = T;
    s->config.data.validation =
        (ValidationConfig){.given = true, .shards = s->shards, .n_shards = 1, .sequences = WINDOWS};
    assert_ok(model_create(&s->model, &shape));
    model_init_random(&s->model, std, 7);
}

// The mean loss of the first n windows, by this rank alone.
static double loss_alone(const Setup *s, int n)
{
    double sum = 0;
    for (int window = 0; window < n; window++) {
        Workspace ws;
        Arena arena = arena_start("test");
        int32_t inputs[T], targets[T];
        for (int t = 0; t < T; t++) {
            int at = window * T + t;
            inputs[t] = at * at % VOCAB;
            targets[t] = (at + 1) * (at + 1) % VOCAB;
        }
        workspace_place(&ws, &arena, &arena, &shape, 1, T, omp_get_max_threads(), FORWARD_ONLY,
                        COMPUTE_FLOAT32);
        assert_ok(arena_allocate(&arena));
        workspace_place(&ws, &arena, &arena, &shape, 1, T, omp_get_max_threads(), FORWARD_ONLY,
                        COMPUTE_FLOAT32);
        transformer_start(&ws, &s->model);
        transformer_forward(&ws, &s->model, inputs, NULL);
        sum += transformer_loss(&ws, &s->model, targets, 0, NULL);
        arena_release(&arena);
    }
    return sum / (n * T);
}

static void check_loss(int sequences, int n_read)
{
    Setup s;
    double loss = 0;
    start(&s, 0.5);
    s.config.data.validation.sequences = sequences;
    assert_ok(validation_measure(&loss, &s.config, &comm, &s.model, NULL));
    assert_true(fabs(loss / loss_alone(&s, n_read) - 1) < 1e-12); // seen 1e-16
    model_release(&s.model);
}

static void test_loss_is_the_mean_over_all_windows(void **state)
{
    (void)state;
    check_loss(WINDOWS, WINDOWS);
}

static void test_fewer_windows_than_ranks(void **state)
{
    (void)state;
    check_loss(1, 1);
}

static void test_more_sequences_than_windows(void **state)
{
    (void)state;
    check_loss(1000000, WINDOWS);
}

static void name_set(char out[VALIDATION_SET_BYTES], const Setup *s)
{
    Validation validation;
    assert_ok(validation_open(&validation, &s->config, VOCAB, NULL));
    strcpy(out, validation.set);
    validation_close(&validation);
}

static void test_a_set_is_named_after_its_tokens(void **state)
{
    (void)state;
    char all[VALIDATION_SET_BYTES], set[VALIDATION_SET_BYTES];
    Setup s, moved;
    start(&s, 0.5);
    start(&moved, 0.5); // the same tokens in another file
    name_set(all, &s);
    name_set(set, &moved);
    assert_int_equal(strlen(all), VALIDATION_SET_BYTES - 1);
    assert_string_equal(set, all);
    s.config.data.validation.sequences = 1000000; // there are no more
    name_set(set, &s);
    assert_string_equal(set, all);
    s.config.data.validation.sequences = WINDOWS - 1;
    name_set(set, &s);
    assert_string_not_equal(set, all);
    s.config.data.validation.sequences = WINDOWS;
    s.config.data.seq_len = T - 1;
    name_set(set, &s);
    assert_string_not_equal(set, all);
    moved.config.data.validation.given = false;
    name_set(set, &moved);
    assert_string_equal(set, "");
    model_release(&s.model);
    model_release(&moved.model);
}

static void test_nothing_configured_is_nan(void **state)
{
    (void)state;
    Config config = {0};
    double loss = 0;
    assert_ok(validation_measure(&loss, &config, &comm, NULL, NULL));
    assert_true(isnan(loss));
}

static void test_loss_that_is_no_number_is_an_error(void **state)
{
    (void)state;
    Setup s;
    double loss = -1;
    start(&s, 1e18); // SwiGLU of the first layer overflows
    assert_fails(FAILED, "validation loss is nan over 5 windows",
                 validation_measure(&loss, &s.config, &comm, &s.model, NULL));
    assert_true(loss == -1); // set on success only
    model_release(&s.model);
}

static void test_missing_shard_fails_on_all_ranks(void **state)
{
    (void)state;
    Setup s;
    double loss;
    start(&s, 0.5);
    if (comm.rank == comm.size - 1)
        strcpy(s.path, testing_absent("valid.h5"));
    assert_fails(BAD_INPUT, "/absent/valid.h5",
                 validation_measure(&loss, &s.config, &comm, &s.model, NULL));
    model_release(&s.model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_is_the_mean_over_all_windows),
        cmocka_unit_test(test_fewer_windows_than_ranks),
        cmocka_unit_test(test_more_sequences_than_windows),
        cmocka_unit_test(test_a_set_is_named_after_its_tokens),
        cmocka_unit_test(test_nothing_configured_is_nan),
        cmocka_unit_test(test_loss_that_is_no_number_is_an_error),
        cmocka_unit_test(test_missing_shard_fails_on_all_ranks),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    log_set_quiet(true);
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
