// The page's data of evaluations; train/report/page/scores.js reads the members by the names given
// here.
#include "train/report/report_json.h"
#include "train/report/report_scores.h"

// [score, standard error, items, whether it is near chance, chance].
static bool set_score(json_t *scores, const EvalScore *score)
{
    json_t *cell = json_array();
    return json_object_set_new(scores, score->task, cell) == 0 &&
           json_array_append_new(cell, json_real(score->score)) == 0 &&
           json_array_append_new(cell, real_or_null(score->error)) == 0 &&
           json_array_append_new(cell, json_integer(score->n)) == 0 &&
           json_array_append_new(cell, json_boolean(report_eval_is_near_chance(score))) == 0 &&
           json_array_append_new(cell, real_or_null(score->chance)) == 0;
}

static bool set_scores(json_t *object, const ReportEval *eval)
{
    json_t *scores = json_object();
    bool is_done = json_object_set_new(object, "scores", scores) == 0;
    for (int i = 0; i < eval->n_scores && is_done; i++)
        is_done = set_score(scores, &eval->scores[i]);
    return is_done;
}

static bool set_cache(json_t *object, const ReportRun *run, const ReportEval *eval)
{
    return set_text(object, "cache", eval->cache) && set_text(object, "scheme", eval->scheme) &&
           set_int(object, "value_bits", eval->value_bits) &&
           set_int(object, "key_bits", eval->key_bits) &&
           set_real(object, "bytes", eval->bytes_per_token) &&
           set_real(object, "share", report_scores_share(run, eval));
}

static bool set_settings(json_t *object, const ReportEval *eval)
{
    return set_text(object, "rules", eval->rules) && set_int(object, "bos", eval->bos) &&
           set_count(object, "shots", eval->shots) &&
           set_count(object, "max_length", eval->max_length) &&
           set_count(object, "n_cut", eval->n_cut) && set_count(object, "step", eval->step) &&
           set_count(object, "tokens", eval->tokens);
}

// One evaluation of the run at `place`.
static bool append_eval(json_t *list, const Report *report, int place, const ReportEval *eval)
{
    json_t *object = json_object();
    char reason[REASON_BYTES];
    report_scores_reason(reason, report, eval);
    return json_array_append_new(list, object) == 0 && set_int(object, "run", place) &&
           set_text(object, "kind", report_eval_kinds[eval->kind]) &&
           set_text(object, "file", eval->file) && set_int(object, "suite", eval->suite) &&
           set_cache(object, &report->runs[place], eval) && set_settings(object, eval) &&
           set_scores(object, eval) && set_real(object, "average", eval->average.score) &&
           set_real(object, "error", eval->average.error) &&
           set_bool(object, "is_near_chance", report_eval_is_near_chance(&eval->average)) &&
           set_bool(object, "is_mean", eval->is_average_ours) &&
           set_bool(object, "is_baseline", report_scores_baseline(report, eval->suite) == eval) &&
           set_real(object, "difference", eval->difference) && set_text(object, "reason", reason);
}

// What the evaluations of a suite have in common; the object stands at the suite's number.
static bool add_suite(json_t *suites, const ReportEval *eval)
{
    json_t *object = json_object();
    char text[REASON_BYTES];
    if (eval->suite < (int)json_array_size(suites)) {
        json_decref(object);
        return true;
    }
    return json_array_append_new(suites, object) == 0 &&
           set_text(object, "kind", report_eval_kinds[eval->kind]) &&
           set_text(object, "text", report_scores_settings(text, eval)) &&
           set_real(object, "chance", eval->average.chance);
}

// Tasks in the order of their columns, with the score of guessing as far as it is known.
static bool set_tasks(json_t *root, const char *key, json_t *names)
{
    json_t *tasks = json_array();
    bool is_done = json_object_set_new(root, key, tasks) == 0;
    for (size_t i = 0; i < json_array_size(names) && is_done; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        json_t *task = json_object();
        is_done = json_array_append_new(tasks, task) == 0 && set_text(task, "name", name) &&
                  set_real(task, "chance", report_eval_chance(name));
    }
    json_decref(names);
    return is_done;
}

bool report_scores_set(json_t *root, const Report *report)
{
    json_t *evaluations = json_object(), *list = json_array(), *suites = json_array(), *names;
    bool is_done = json_object_set_new(root, "evaluations", evaluations) == 0;
    is_done = json_object_set_new(evaluations, "list", list) == 0 && is_done;
    is_done = json_object_set_new(evaluations, "suites", suites) == 0 && is_done;
    for (int kind = 0; kind < N_EVAL_KINDS && is_done; kind++)
        is_done = report_scores_tasks(&names, report, (EvalKind)kind) == OK &&
                  set_tasks(evaluations, report_eval_kinds[kind], names);
    is_done = is_done && report_scores_curve_tasks(&names, report) == OK &&
              set_tasks(evaluations, "training", names);
    for (int i = 0; i < report->n_runs; i++) {
        const ReportEvals *evals = &report->runs[i].evals;
        for (int k = 0; k < evals->n && is_done; k++)
            is_done =
                add_suite(suites, &evals->list[k]) && append_eval(list, report, i, &evals->list[k]);
    }
    return is_done;
}

// {"step": [...], "scores": [{"piqa": 0.5}, ...]}.
bool report_scores_set_curve(json_t *object, const ReportRun *run)
{
    json_t *curve = json_object(), *steps = json_array(), *scores = json_array();
    bool is_done = json_object_set_new(object, "task_points", curve) == 0;
    is_done = json_object_set_new(curve, "step", steps) == 0 && is_done;
    is_done = json_object_set_new(curve, "scores", scores) == 0 && is_done;
    for (int i = 0; i < run->n_task_points && is_done; i++)
        is_done = json_array_append_new(steps, json_integer(run->task_points[i].step)) == 0 &&
                  json_array_append(scores, run->task_points[i].scores) == 0;
    return is_done;
}
