// train/evaluate/evaluate_tasks: tasks divided over ranks give the same bits as one process, and
// all ranks refuse what one of them cannot use.
#include "tests/support/testing.h"

#include "model/hf/hf.h"
#include "tests/support/testing_ranks.h"
#include "train/evaluate/evaluate_tasks.h"

#include <stdio.h>
#include <string.h>

#define DEMO CONFIGS_DIR "/demo/model"

static Comm comm;
static char dir[256]; // of the rows, the same on all ranks

// Five rows of piqa, one of arc_easy: fewer than there may be ranks.
static const char piqa[] =
    "{\"goal\": \"Fry an egg\", \"sol1\": \"Use a pan.\", \"sol2\": \"Use a hat.\", \"label\": 0}\n"
    "{\"goal\": \"Dig\", \"sol1\": \"Take a spoon to the garden.\", \"sol2\": \"Take a spade.\", "
    "\"label\": 1}\n"
    "{\"goal\": \"Sleep\", \"sol1\": \"In a bed\", \"sol2\": \"On a fence\", \"label\": 0}\n"
    "{\"goal\": \"Read\", \"sol1\": \"a book\", \"sol2\": \"a brick\", \"label\": 0}\n"
    "{\"goal\": \"Write\", \"sol1\": \"with a pen\", \"sol2\": \"with a fork\", \"label\": 0}\n";
static const char arc[] =
    "{\"question\": \"What is hot?\", \"choices\": {\"text\": [\"fire\", \"ice\", \"snow\"], "
    "\"label\": [\"A\", \"B\", \"C\"]}, \"answerKey\": \"A\"}\n";

static void write_rows(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (comm.rank == 0)
        assert_ok(file_write(path, text, (int64_t)strlen(text)));
    assert_ok(comm_agree(&comm, OK));
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", testing_dir());
    comm_broadcast(&comm, dir, sizeof dir, 0);
    write_rows("piqa.jsonl", piqa);
    write_rows("arc_easy.jsonl", arc);
    return 0;
}

typedef struct Loaded {
    ModelShape shape;
    Tokenizer *tokenizer;
    InferWeights weights;
    TasksModel model;
} Loaded;

static void load(Loaded *loaded)
{
    *loaded = (Loaded){0};
    assert_ok(hf_load_shape(&loaded->shape, DEMO));
    assert_ok(tokenizer_load(&loaded->tokenizer, DEMO));
    assert_ok(infer_weights_load(&loaded->weights, DEMO, COMPUTE_FLOAT32));
    loaded->model = (TasksModel){&loaded->shape, loaded->tokenizer, -1, DEMO};
}

static void release(Loaded *loaded)
{
    infer_weights_release(&loaded->weights);
    tokenizer_release(loaded->tokenizer);
}

static TasksRequest request(const char *only)
{
    return (TasksRequest){.dir = dir, .only = only, .rules = TASK_RULES_LM_EVAL};
}

// By this process alone, all of a file at once.
static void score_alone(TaskSet *out, const Loaded *loaded, const Task *task, const char *name)
{
    char path[512];
    ChoiceScorer *scorer;
    const KvFormat exact = kv_format_plain(KV_FLOAT32);
    const TaskEncoding encoding = {.tokenizer = loaded->tokenizer,
                                   .model = DEMO,
                                   .vocab_size = loaded->shape.vocab_size,
                                   .max_length = loaded->shape.max_positions,
                                   .begin_id = -1};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(task_set_read(out, task, path, 0));
    assert_ok(task_set_encode(out, &encoding, 0, 1));
    assert_ok(choice_scorer_create(&scorer, &loaded->weights, &exact, &(ChoiceScorerOptions){0}));
    assert_ok(task_set_score(out, scorer, 0, out->n_own));
    choice_scorer_release(scorer);
}

static void check_same(const Loaded *loaded, const TaskSet *set, const char *name)
{
    TaskSet alone;
    score_alone(&alone, loaded, set->task, name);
    assert_int_equal(set->n_samples, alone.n_samples);
    for (int64_t s = 0; s < set->n_samples; s++) {
        assert_memory_equal(set->samples[s].log_likelihoods, alone.samples[s].log_likelihoods,
                            sizeof alone.samples[s].log_likelihoods);
        assert_true(set->samples[s].log_likelihoods[0] < 0);
    }
    task_set_release(&alone);
}

static void test_ranks_give_the_bits_of_one_process(void **state)
{
    (void)state;
    Loaded loaded;
    TasksEvaluation evaluation;
    const KvFormat exact = kv_format_plain(KV_FLOAT32);
    const TasksRequest all = request(NULL);
    load(&loaded);
    assert_ok(evaluate_tasks_open(&evaluation, &comm, &all, &loaded.model));
    assert_int_equal(evaluation.n_sets, 2);
    assert_false(evaluation.puts_begin);
    assert_int_equal(evaluation.max_length, loaded.shape.max_positions);
    // A second time, as a run does: what was scored first is not added to.
    for (int time = 0; time < 2; time++) {
        assert_ok(evaluate_tasks_run(&evaluation, &comm, &loaded.weights, &exact));
        check_same(&loaded, &evaluation.sets[0], "arc_easy.jsonl");
        check_same(&loaded, &evaluation.sets[1], "piqa.jsonl");
    }
    evaluate_tasks_release(&evaluation);
    release(&loaded);
}

static void test_all_ranks_refuse_what_is_wrong(void **state)
{
    (void)state;
    Loaded loaded;
    TasksEvaluation evaluation;
    load(&loaded);
    TasksRequest wanted = request("piqa,arc_eazy");
    assert_fails(BAD_INPUT, "the rules lm-eval have no task 'arc_eazy'; did you mean 'arc_easy'?",
                 evaluate_tasks_open(&evaluation, &comm, &wanted, &loaded.model));
    wanted = request("piqa,");
    assert_fails(BAD_INPUT, "no task ''; they have hellaswag, arc_easy, ",
                 evaluate_tasks_open(&evaluation, &comm, &wanted, &loaded.model));
    wanted = request("mmlu");
    assert_fails(BAD_INPUT, "has no mmlu.jsonl or mmlu.jsonl.gz, the rows of task mmlu",
                 evaluate_tasks_open(&evaluation, &comm, &wanted, &loaded.model));
    wanted = request(NULL);
    wanted.dir = "/absent/tasks";
    assert_fails(BAD_INPUT, "/absent/tasks: no directory with rows of tasks",
                 evaluate_tasks_open(&evaluation, &comm, &wanted, &loaded.model));
    write_rows("winogrande.jsonl", "{\"sentence\": \"none\"}\n");
    wanted = request("winogrande");
    assert_fails(BAD_INPUT, "winogrande.jsonl:1: 'sentence' has no '_'",
                 evaluate_tasks_open(&evaluation, &comm, &wanted, &loaded.model));
    // Only the rank that tokenizes the row can see it.
    write_rows("openbookqa.jsonl",
               "{\"question_stem\": \"\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": "
               "[\"A\", \"B\"]}, \"answerKey\": \"A\"}\n");
    wanted = request("openbookqa");
    assert_fails(BAD_INPUT, "openbookqa.jsonl:1: nothing stands before the choices",
                 evaluate_tasks_open(&evaluation, &comm, &wanted, &loaded.model));
    release(&loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_ranks_give_the_bits_of_one_process, make_dir),
        cmocka_unit_test_setup(test_all_ranks_refuse_what_is_wrong, make_dir),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
