// The model that a run starts with: the same on every rank as one rank alone would make it.
#include "tests/support/testing.h"
#include "tests/support/testing_model.h"
#include "tests/support/testing_ranks.h"
#include "tests/support/testing_run.h"

#include "model/convert/convert.h"
#include "train/calibrate.h"
#include "train/prepare.h"

#include <stdlib.h>
#include <string.h>

static Comm comm;
static const char *const no_overrides[] = {NULL};

static void check_same_model(const Model *a, const Model *b)
{
    const ModelShape *shape = &a->shape;
    const size_t n_pairs = (size_t)shape->n_layers * shape->n_kv_heads * shape->rope_pairs;
    assert_int_equal(params_count(shape), params_count(&b->shape));
    assert_memory_equal(a->params.flat, b->params.flat,
                        (size_t)params_count(shape) * sizeof(float));
    assert_memory_equal(a->rope_pairs, b->rope_pairs, n_pairs * sizeof(int32_t));
}

static void check_original(const char *const *overrides)
{
    TestingRun run;
    Replica replica;
    Model expected;
    testing_run_config(&run, &comm, overrides);
    const InitConfig *init = &run.config.model.init;
    assert_ok(prepare_original(&replica, &run.config, &comm, &run.group));
    assert_ok(model_create(&expected, &init->shape));
    model_init_random(&expected, init->initializer_range, (uint64_t)run.config.run.seed);
    check_same_model(&replica.model, &expected);
    model_release(&expected);
    replica_release(&replica);
    testing_run_release(&run);
}

static void test_random_weights_are_the_seeds(void **state)
{
    (void)state;
    const char *const apart[] = {"train.ranks_per_copy=1", "run.seed=7", NULL};
    check_original(no_overrides);
    check_original(apart);
}

static void test_base_that_is_missing_fails_on_all_ranks(void **state)
{
    (void)state;
    TestingRun run;
    Replica replica;
    testing_run_config(&run, &comm, no_overrides);
    const InitConfig init = run.config.model.init;
    run.config.model.init.given = false;
    run.config.model.base = strdup(testing_path(run.dir, "missing"));
    assert_fails(BAD_INPUT, "missing", prepare_original(&replica, &run.config, &comm, &run.group));
    assert_fails(BAD_INPUT, "missing",
                 prepare_converted(&replica, NULL, &run.config, &comm, &run.group));
    run.config.model.init = init;
    testing_run_release(&run);
}

static void test_tokenizer_that_a_model_does_not_have(void **state)
{
    (void)state;
    TestingRun run;
    char sha256[SHA256_HEX_BYTES] = "?";
    testing_run_config(&run, &comm, no_overrides);
    assert_ok(prepare_tokenizer_sha256(sha256, &run.config));
    assert_string_equal(sha256, "");
    testing_run_release(&run);
}

static const char *const highest[] = {"model.convert.rope=high", "model.convert.rope_pairs=2",
                                      "model.convert.d_kv=4", NULL};
static const char *const calibrated[] = {"model.convert.rope=2-norm", "model.convert.rope_pairs=2",
                                         "model.convert.d_kv=4",      "model.convert.samples=5",
                                         "model.convert.svd=split",   NULL};

static void test_pairs_that_need_no_calibration(void **state)
{
    (void)state;
    TestingRun run;
    int32_t *pairs;
    testing_run_config(&run, &comm, highest);
    const ModelShape *shape = &run.config.model.init.shape;
    assert_ok(prepare_pairs(&pairs, NULL, shape, &run.config, &comm, ""));
    for (int i = 0; i < shape->n_layers * shape->n_kv_heads * 2; i++)
        assert_int_equal(pairs[i], i % 2);
    free(pairs);
    testing_run_release(&run);
}

static void test_pairs_by_calibration(void **state)
{
    (void)state;
    TestingRun run;
    Replica original;
    Mixture *mixture;
    RopeScores scores;
    int32_t *pairs, expected[64];
    testing_run_config(&run, &comm, calibrated);
    const DataConfig *data = &run.config.data;
    assert_ok(prepare_original(&original, &run.config, &comm, &run.group));
    const ModelShape *shape = &original.model.shape;
    assert_ok(prepare_pairs(&pairs, &original.model, shape, &run.config, &comm, ""));
    assert_ok(mixture_open(&mixture, data->sources, data->n_sources, data->seq_len,
                           (uint64_t)run.config.run.seed, NULL, shape->vocab_size));
    assert_ok(
        calibrate_run(&scores, &comm, &original.model, mixture, 5, data->seq_len, COMPUTE_FLOAT32));
    assert_ok(rope_select(expected, shape, 2, ROPE_2NORM, &scores));
    assert_memory_equal(pairs, expected,
                        (size_t)shape->n_layers * shape->n_kv_heads * 2 * sizeof(int32_t));
    free(pairs);
    rope_scores_release(&scores);
    mixture_close(mixture);
    replica_release(&original);
    testing_run_release(&run);
}

static void test_scores_that_are_missing_fail_on_all_ranks(void **state)
{
    (void)state;
    TestingRun run;
    int32_t *pairs;
    testing_run_config(&run, &comm, calibrated);
    run.config.model.convert.scores = strdup(testing_path(run.dir, "scores.h5"));
    assert_fails(BAD_INPUT, "scores.h5",
                 prepare_pairs(&pairs, NULL, &run.config.model.init.shape, &run.config, &comm, ""));
    testing_run_release(&run);
}

static void check_converted(const char *const *overrides, bool is_apart)
{
    TestingRun run;
    Replica mla;
    Model expected;
    ModelShape shape;
    testing_run_config(&run, &comm, overrides);
    const InitConfig *init = &run.config.model.init;
    const ConvertConfig *convert = &run.config.model.convert;
    if (is_apart) {
        comm_group_end(&run.group);
        assert_ok(comm_group_start(&run.group, &comm, 1));
    }
    const RandomWeights random = {init->shape, init->initializer_range,
                                  (uint64_t)run.config.run.seed};
    const WeightSource original = random_weights(&random);
    int32_t pairs[64];
    for (int i = 0; i < 64; i++)
        pairs[i] = i % 2 == 0 ? i / 2 % 3 : 3; // {0, 3}, {1, 3}, {2, 3}, ...
    assert_ok(prepare_converted(&mla, pairs, &run.config, &comm, &run.group));
    assert_ok(shape_convert(&shape, &init->shape, 2, 4, convert->target.svd));
    assert_ok(model_create(&expected, &shape));
    memcpy(expected.rope_pairs, pairs,
           (size_t)shape.n_layers * shape.n_kv_heads * 2 * sizeof(int32_t));
    assert_ok(convert_outside_layers(&expected, &original));
    for (int l = 0; l < shape.n_layers; l++)
        assert_ok(convert_layer(&expected, &original, l, &testing_paper, NULL, NULL));
    check_same_model(&mla.model, &expected);
    model_release(&expected);
    replica_release(&mla);
    testing_run_release(&run);
}

static void test_ranks_convert_as_one_does(void **state)
{
    (void)state;
    check_converted(highest, false);
    check_converted(highest, true);
    check_converted(calibrated, false); // keys and values apart
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_weights_are_the_seeds),
        cmocka_unit_test(test_base_that_is_missing_fails_on_all_ranks),
        cmocka_unit_test(test_tokenizer_that_a_model_does_not_have),
        cmocka_unit_test(test_pairs_that_need_no_calibration),
        cmocka_unit_test(test_pairs_by_calibration),
        cmocka_unit_test(test_scores_that_are_missing_fail_on_all_ranks),
        cmocka_unit_test(test_ranks_convert_as_one_does),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
