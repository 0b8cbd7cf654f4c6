// train/job/config_history and run_json: which settings trained which step, over the processes of a
// run, some of which leave no checkpoint; and what run.json keeps of earlier ones.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "train/config/config_values.h"
#include "train/job/config_history.h"
#include "train/job/run_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NEW_RUN = -1 };

static const char yaml[] =
    "run: {name: r}\n"
    "model: {init: {hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2,\n"
    "  num_attention_heads: 4, vocab_size: 100}}\n"
    "data: {sources: [{name: s, shards: [a.h5]}]}\n"
    "train: {steps: 900, global_batch: 4}\n";

typedef struct Run {
    char dir[PATH_BYTES];
} Run;

static Run make_run(void)
{
    Run run;
    strcpy(run.dir, testing_dir());
    assert_ok(file_write(testing_path(run.dir, "start.yaml"), yaml, (int64_t)strlen(yaml)));
    return run;
}

// A process of the run that starts from `step` with one override ("": none) and writes what a job
// writes before its first step. original_loss as it has measured it.
static void start(const Run *run, int step, const char *override, double original_loss)
{
    char word[256];
    Config config;
    ConfigHistory history;
    RunDir dir = {.is_resumed = step != NEW_RUN};
    dir.checkpoint.manifest.state.step = step;
    strcpy(dir.path, run->dir);
    snprintf(word, sizeof word, "%s", override);
    assert_ok(config_load(&config, testing_path(run->dir, "start.yaml"), (char *[]){word},
                          override[0] != '\0'));
    const Plan plan = {.original = config.model.init.shape, .shape = config.model.init.shape};
    assert_ok(config_history_read(&history, &dir, &config));
    const RunDescription description = {
        .config = &config, .plan = &plan, .history = &history, .original_loss = original_loss};
    assert_ok(run_json_write(&dir, &description));
    assert_ok(config_history_write_yaml(&history, &dir, &config));
    config_history_release(&history);
    config_release(&config);
}

static json_t *read_json(const Run *run)
{
    json_t *root;
    assert_ok(json_read(&root, testing_path(run->dir, "run.json")));
    return root;
}

// The list of changes as "500 optim.lr 0.0001>0.0002;", none for a key that was not there.
static void assert_changes(const Run *run, const char *expected)
{
    char text[2048] = "";
    json_t *root = read_json(run);
    const json_t *list = json_object_get(root, "config_changes");
    assert_true(json_is_array(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *change = json_array_get(list, i);
        const char *old = json_string_value(json_object_get(change, "old"));
        const char *new = json_string_value(json_object_get(change, "new"));
        snprintf(text + strlen(text), sizeof text - strlen(text), "%lld %s %s>%s;",
                 (long long)json_integer_value(json_object_get(change, "step")),
                 json_string_value(json_object_get(change, "key")), old != NULL ? old : "none",
                 new != NULL ? new : "none");
    }
    json_decref(root);
    assert_string_equal(text, expected);
}

static void test_a_run_that_keeps_its_config_has_no_changes(void **state)
{
    (void)state;
    const Run run = make_run();
    start(&run, NEW_RUN, "", NAN);
    start(&run, 500, "", NAN);
    assert_changes(&run, "");
    json_t *root = read_json(&run);
    const json_t *config = json_object_get(root, "config");
    assert_string_equal(json_string_value(json_object_get(config, "optim.lr")), "0.0001");
    json_decref(root);
}

static void test_each_change_has_its_step(void **state)
{
    (void)state;
    const Run run = make_run();
    start(&run, NEW_RUN, "", NAN);
    start(&run, 500, "--optim.lr=2.0e-4", NAN);
    start(&run, 600, "--optim.lr=2.0e-4", NAN);
    start(&run, 700, "--log.every=20", NAN); // and the learning rate as at first
    assert_changes(&run, "500 optim.lr 0.0001>0.0002;"
                         "700 optim.lr 0.0002>0.0001;700 log.every 10>20;");
}

static void test_keys_that_come_and_go_are_changes(void **state)
{
    (void)state;
    const Run run = make_run();
    start(&run, NEW_RUN, "", NAN);
    start(&run, 500, "--data.validation={shards: [v.h5]}", NAN);
    start(&run, 600, "", NAN);
    assert_changes(&run, "500 data.validation.shards none>[v.h5];"
                         "500 data.validation.every none>0;"
                         "500 data.validation.sequences none>64;"
                         "600 data.validation.shards [v.h5]>none;"
                         "600 data.validation.every 0>none;"
                         "600 data.validation.sequences 64>none;");
}

// The second process has written its config and dies before its first checkpoint.
static void test_changes_that_trained_no_saved_step_are_undone(void **state)
{
    (void)state;
    const Run run = make_run();
    start(&run, NEW_RUN, "", NAN);
    start(&run, 500, "--optim.lr=2.0e-4", NAN);
    start(&run, 500, "--optim.lr=3.0e-4", NAN);
    assert_changes(&run, "500 optim.lr 0.0001>0.0003;");
    start(&run, 500, "--optim.clip=2", NAN);
    assert_changes(&run, "500 optim.clip 1>2;");
    start(&run, 500, "", NAN);
    assert_changes(&run, "");
}

// The checkpoints after step 500 are damaged: what was changed later has trained nothing that
// stays.
static void test_a_resume_further_back_undoes_later_changes(void **state)
{
    (void)state;
    const Run run = make_run();
    start(&run, NEW_RUN, "", NAN);
    start(&run, 400, "--optim.lr=2.0e-4", NAN);
    start(&run, 600, "--data.validation={shards: [v.h5]}", NAN);
    start(&run, 700, "--optim.lr=4.0e-4", NAN);
    start(&run, 500, "--optim.lr=2.0e-4", NAN);
    assert_changes(&run, "400 optim.lr 0.0001>0.0002;");
}

// A process that is killed between the two files has replaced run.json alone.
static void test_run_json_counts_where_config_yaml_is_older(void **state)
{
    (void)state;
    const Run run = make_run();
    char path[PATH_BYTES];
    strcpy(path, testing_path(run.dir, "config.yaml"));
    start(&run, NEW_RUN, "", NAN);
    assert_ok(file_copy(path, testing_path(run.dir, "older.yaml")));
    start(&run, 500, "--optim.lr=2.0e-4", NAN);
    assert_ok(file_copy(testing_path(run.dir, "older.yaml"), path));
    start(&run, 600, "--optim.lr=2.0e-4", NAN); // step 600 was trained with it
    assert_changes(&run, "500 optim.lr 0.0001>0.0002;");
}

static void test_config_yaml_counts_where_run_json_does_not_know(void **state)
{
    (void)state;
    const Run run = make_run();
    char path[PATH_BYTES];
    strcpy(path, testing_path(run.dir, "run.json"));
    const char *const unknowing[] = {"{}", "{\"config\": {}, \"config_changes\": 5}",
                                     "{\"config\": {\"optim.lr\": 1}, \"config_changes\": []}",
                                     "{\"config\": {}, \"config_changes\": [{\"step\": 1}]}",
                                     "cut off"};
    for (size_t i = 0; i < sizeof unknowing / sizeof *unknowing; i++) {
        start(&run, NEW_RUN, "", NAN);
        assert_ok(file_write(path, unknowing[i], (int64_t)strlen(unknowing[i])));
        start(&run, 500, "--optim.lr=2.0e-4", NAN);
        assert_changes(&run, "500 optim.lr 0.0001>0.0002;");
    }
    unlink(path);
    unlink(testing_path(run.dir, "config.yaml"));
    start(&run, 500, "--optim.lr=5.0e-4", NAN);
    assert_changes(&run, "");
}

static void test_config_yaml_tells_the_changes_and_can_be_trained(void **state)
{
    (void)state;
    const Run run = make_run();
    start(&run, NEW_RUN, "", NAN);
    start(&run, 500, "--optim.lr=2.0e-4", NAN);
    start(&run, 600, "--train.micro_batch=2", NAN);
    const char *path = testing_path(run.dir, "config.yaml");
    Config config;
    FileMap map;
    assert_ok(config_load(&config, path, NULL, 0));
    assert_int_equal(config.train.micro_batch, 2);
    config_release(&config);
    assert_ok(file_map(&map, path));
    static const char head[] =
        "# What the newest steps are trained with. Changed while the run was trained:\n"
        "#   after step 500: optim.lr 0.0001 -> 0.0002\n"
        "#   after step 600: optim.lr 0.0002 -> 0.0001\n"
        "#   after step 600: train.micro_batch 1 -> 2 (moves the result by rounding)\n"
        "#   after step 600: train.sum_groups 4 -> 2 (moves the result by rounding)\n"
        "run:\n";
    assert_true(map.size_bytes > (int64_t)sizeof head);
    assert_memory_equal(map.bytes, head, sizeof head - 1);
    file_unmap(&map);
}

static void test_run_json_keeps_what_earlier_processes_knew(void **state)
{
    (void)state;
    const Run run = make_run();
    RunDir dir = {0};
    strcpy(dir.path, run.dir);
    start(&run, NEW_RUN, "", 1.25);
    assert_ok(run_json_set_exported(&dir, 500, 400));
    start(&run, 500, "", NAN);
    start(&run, 600, "", NAN);
    json_t *root = read_json(&run);
    assert_true(json_real_value(json_object_get(root, "original_valid_loss")) == 1.25);
    assert_int_equal(json_integer_value(json_object_get(root, "exported_step")), 500);
    const json_t *resumed = json_object_get(root, "resumed_steps");
    assert_int_equal(json_array_size(resumed), 2);
    assert_int_equal(json_integer_value(json_array_get(resumed, 1)), 600);
    json_decref(root);
    assert_false(run_json_is_exported(&dir, 500, DTYPE_BF16)); // RUN/model is not there
    assert_ok(file_make_dirs(testing_path(run.dir, "model")));
    static const char config[] = "{\"torch_dtype\": \"bfloat16\"}";
    assert_ok(file_write(testing_path(run.dir, "model/config.json"), config, sizeof config - 1));
    assert_true(run_json_is_exported(&dir, 500, DTYPE_BF16));
    assert_false(run_json_is_exported(&dir, 600, DTYPE_BF16));
    assert_false(run_json_is_exported(&dir, 500, DTYPE_F32));
    assert_true(run_json_is_validated(&dir, 400));
    assert_false(run_json_is_validated(&dir, 500));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_that_keeps_its_config_has_no_changes),
        cmocka_unit_test(test_each_change_has_its_step),
        cmocka_unit_test(test_keys_that_come_and_go_are_changes),
        cmocka_unit_test(test_changes_that_trained_no_saved_step_are_undone),
        cmocka_unit_test(test_a_resume_further_back_undoes_later_changes),
        cmocka_unit_test(test_run_json_counts_where_config_yaml_is_older),
        cmocka_unit_test(test_config_yaml_counts_where_run_json_does_not_know),
        cmocka_unit_test(test_config_yaml_tells_the_changes_and_can_be_trained),
        cmocka_unit_test(test_run_json_keeps_what_earlier_processes_knew),
    };
    log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
