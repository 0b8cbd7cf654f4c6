#include "train/evaluate/tasks_result.h"

#include "base/file.h"

#include <math.h>
#include <string.h>

enum { NAME_BYTES = 256 };

// ---- the table
// -----------------------------------------------------------------------------------

static void print_metric(FILE *out, double value, double standard_error)
{
    if (isnan(standard_error))
        fprintf(out, "  %8.4f  %7s", value, "N/A");
    else
        fprintf(out, "  %8.4f  %7.4f", value, standard_error);
}

static void print_task(FILE *out, const TaskSet *set, int width)
{
    const TaskScore score = task_set_measure(set, -1);
    const TaskShown shown = evaluate_tasks_shown(set);
    fprintf(out, "%-*s", width, set->task->name);
    print_metric(out, score.acc, score.acc_stderr);
    if (set->task->has_acc_norm)
        print_metric(out, score.acc_norm, score.acc_norm_stderr);
    else
        fprintf(out, "  %8s  %7s", "-", "-");
    fprintf(out, "  %6lld  %5d", (long long)score.n, 0);
    if (shown.is_near_chance)
        fprintf(out, "  within 2 stderr of chance, %.4f", shown.chance);
    fprintf(out, "\n");
}

static void print_average(FILE *out, const TasksEvaluation *evaluation)
{
    TasksAverage average;
    if (!evaluate_tasks_average(&average, evaluation)) {
        fprintf(out, "no average of six: a task is missing\n");
        return;
    }
    fprintf(out,
            "average of six %.4f, stderr %.4f: acc_norm, or acc where there is no other; ARC "
            "is the mean of easy and challenge\n",
            average.score, average.standard_error);
}

void tasks_result_print(FILE *out, const TasksResult *result)
{
    const TasksEvaluation *evaluation = result->evaluation;
    char format[KV_FORMAT_TEXT_BYTES];
    int width = 4;
    for (int i = 0; i < evaluation->n_sets; i++) {
        const int size = (int)strlen(evaluation->sets[i].task->name);
        width = size > width ? size : width;
    }
    fprintf(out, "rules %s, %s, at most %d tokens", task_rules_names[evaluation->rules],
            evaluation->puts_begin ? "BOS put before every text" : "no BOS put",
            evaluation->max_length);
    if (evaluation->n_cut > 0)
        fprintf(out, " (%lld questions cut on the left)", (long long)evaluation->n_cut);
    fprintf(out, ", KV cache %s: %.1f bytes/token%s\n", kv_format_describe(format, result->format),
            kv_format_bytes_per_token(result->format, result->shape),
            result->compute == COMPUTE_BFLOAT16 ? ", products in bfloat16" : "");
    fprintf(out, "%-*s  %8s  %7s  %8s  %7s  %6s  %5s\n", width, "task", "acc", "stderr", "acc_norm",
            "stderr", "n", "shots");
    for (int i = 0; i < evaluation->n_sets; i++)
        print_task(out, &evaluation->sets[i], width);
    print_average(out, evaluation);
}

// ---- lm-eval's objects
// ---------------------------------------------------------------------------
// jansson's setters take NULL, which a failed allocation gives, and say so; the last step looks for
// one (is_whole).

typedef struct Document {
    json_t *results, *groups, *subtasks, *configs, *versions, *shots, *higher, *counts; // owned
} Document;

static json_t *error_value(double standard_error)
{
    return isnan(standard_error) ? json_string("N/A") : json_real(standard_error);
}

static json_t *metrics_object(const char *alias, const TaskScore *score, bool has_acc_norm)
{
    json_t *object = json_pack("{s:s, s:f, s:o}", "alias", alias, "acc,none", score->acc,
                               "acc_stderr,none", error_value(score->acc_stderr));
    if (has_acc_norm) {
        json_object_set_new(object, "acc_norm,none", json_real(score->acc_norm));
        json_object_set_new(object, "acc_norm_stderr,none", error_value(score->acc_norm_stderr));
    }
    return object;
}

// One task, or one subject of a task with groups.
static void add_entry(Document *document, const TaskSet *set, const char *name, const char *alias,
                      const TaskScore *score, int64_t n_rows)
{
    const Task *task = set->task;
    json_t *higher = json_pack("{s:b}", "acc", 1);
    if (task->has_acc_norm)
        json_object_set_new(higher, "acc_norm", json_true());
    json_object_set_new(document->results, name, metrics_object(alias, score, task->has_acc_norm));
    json_object_set_new(document->configs, name,
                        json_pack("{s:s, s:s, s:s, s:i, s:{s:f}}", "task", name, "dataset_path",
                                  set->path, "output_type", "multiple_choice", "num_fewshot", 0,
                                  "metadata", "version", task->version));
    json_object_set_new(document->versions, name, json_real(task->version));
    json_object_set_new(document->shots, name, json_integer(0));
    json_object_set_new(document->higher, name, higher);
    json_object_set_new(
        document->counts, name,
        json_pack("{s:I, s:I}", "original", (json_int_t)n_rows, "effective", (json_int_t)score->n));
}

static void add_groups(Document *document, const TaskSet *set)
{
    const char *task = set->task->name, *rest = strchr(task, '_');
    const int base = rest != NULL ? (int)(rest - task) : (int)strlen(task);
    json_t *names = json_array();
    for (int g = 0; g < set->n_groups; g++) {
        // mmlu_SUBJECT, mmlu_SUBJECT_continuation
        char name[NAME_BYTES];
        const TaskScore score = task_set_measure(set, g);
        if (score.n == 0)
            continue;
        snprintf(name, sizeof name, "%.*s_%s%s", base, task, set->groups[g],
                 rest != NULL ? rest : "");
        add_entry(document, set, name, set->groups[g], &score, set->group_rows[g]);
        json_array_append_new(names, json_string(name));
    }
    json_object_set_new(document->subtasks, task, names);
    json_object_set(document->groups, task, json_object_get(document->results, task));
}

static Document make_document(const TasksEvaluation *evaluation)
{
    Document document = {json_object(), json_object(), json_object(), json_object(),
                         json_object(), json_object(), json_object(), json_object()};
    for (int i = 0; i < evaluation->n_sets; i++) {
        const TaskSet *set = &evaluation->sets[i];
        const TaskScore score = task_set_measure(set, -1);
        add_entry(&document, set, set->task->name, set->task->name, &score, set->n_rows);
        if (set->n_groups > 0)
            add_groups(&document, set);
    }
    return document;
}

// ---- this program's object
// -----------------------------------------------------------------------

json_t *tasks_result_cache(const KvFormat *format, const ModelShape *shape)
{
    char text[KV_FORMAT_TEXT_BYTES];
    const ModelShape original = shape_original(shape);
    const KvFormat bfloat16 = kv_format_plain(KV_BFLOAT16);
    const int plain_bits = 8 * kv_type_bytes(format->type);
    const bool is_plain = format->scheme == KV_PLAIN;
    return json_pack("{s:s, s:s, s:[i, i], s:f, s:f}", "format", kv_format_describe(text, format),
                     "scheme", kv_scheme_names[format->scheme], "bits",
                     is_plain ? plain_bits : format->value_bits,
                     is_plain ? plain_bits : format->key_bits, "bytes_per_token",
                     kv_format_bytes_per_token(format, shape), "original_bytes_per_token",
                     kv_format_bytes_per_token(&bfloat16, &original));
}

static json_t *scores_object(const TasksEvaluation *evaluation)
{
    json_t *scores = json_object();
    for (int i = 0; i < evaluation->n_sets; i++) {
        const TaskShown shown = evaluate_tasks_shown(&evaluation->sets[i]);
        json_t *error = isnan(shown.standard_error) ? json_null() : json_real(shown.standard_error);
        json_object_set_new(scores, evaluation->sets[i].task->name,
                            json_pack("{s:s, s:f, s:o, s:I, s:f, s:b}", "metric", shown.metric,
                                      "score", shown.score, "stderr", error, "n",
                                      (json_int_t)shown.n, "chance", shown.chance, "near_chance",
                                      shown.is_near_chance));
    }
    return scores;
}

static void add_average(json_t *own, const TasksEvaluation *evaluation)
{
    TasksAverage average;
    if (!evaluate_tasks_average(&average, evaluation))
        return;
    json_t *members = json_array();
    for (int i = 0; i < EVALUATE_AVERAGED; i++)
        json_array_append_new(members, json_string(average.members[i]));
    json_object_set_new(own, "average", json_real(average.score));
    if (!isnan(average.standard_error))
        json_object_set_new(own, "average_stderr", json_real(average.standard_error));
    json_object_set_new(own, "average_of", members);
}

static json_t *limit_value(const TasksEvaluation *evaluation)
{
    return evaluation->limit > 0 ? json_integer(evaluation->limit) : json_null();
}

static json_t *own_object(const TasksResult *result)
{
    const TasksEvaluation *evaluation = result->evaluation;
    json_t *own =
        json_pack("{s:s, s:i, s:s, s:s, s:s, s:b, s:i, s:i, s:o, s:I, s:o}", "format",
                  "mha2mla-eval", "version", 1, "kind", "tasks", "model", result->model, "rules",
                  task_rules_names[evaluation->rules], "bos", evaluation->puts_begin, "max_length",
                  evaluation->max_length, "shots", 0, "limit", limit_value(evaluation), "n_cut",
                  (json_int_t)evaluation->n_cut, "scores", scores_object(evaluation));
    add_average(own, evaluation);
    json_object_set_new(own, "cache", tasks_result_cache(result->format, result->shape));
    json_object_set_new(own, "compute", json_string(compute_name(result->compute)));
    if (result->is_in_run) {
        json_object_set_new(own, "step", json_integer(result->step));
        json_object_set_new(own, "tokens", json_integer(result->tokens));
    }
    return own;
}

Status tasks_result_write(const TasksResult *result, const char *path)
{
    char arguments[PATH_BYTES + 32];
    const TasksEvaluation *evaluation = result->evaluation;
    const Document document = make_document(evaluation);
    snprintf(arguments, sizeof arguments, "pretrained=%s,max_length=%d", result->model,
             evaluation->max_length);
    json_t *root = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:s, s:s, s:o}, s:s, s:o}", "results",
        document.results, "groups", document.groups, "group_subtasks", document.subtasks, "configs",
        document.configs, "versions", document.versions, "n-shot", document.shots,
        "higher_is_better", document.higher, "n-samples", document.counts, "config", "model",
        "mha2mla", "model_args", arguments, "limit", limit_value(evaluation), "model_name",
        result->model, "mha2mla", own_object(result));
    if (root == NULL)
        return fail(FAILED, "%s: no memory for the result", path);
    const Status status = json_write(root, path);
    json_decref(root);
    return status;
}

// ---- samples
// -------------------------------------------------------------------------------------

static json_t *sample_object(const TaskSet *set, const TaskSample *sample)
{
    const int plain = task_sample_choose(sample, false), divided = task_sample_choose(sample, true);
    json_t *values = json_array();
    for (int i = 0; i < sample->n_choices; i++)
        json_array_append_new(values, json_real(sample->log_likelihoods[i]));
    json_t *object =
        json_pack("{s:s, s:I, s:i, s:o, s:i, s:i, s:i, s:i}", "task", set->task->name, "index",
                  (json_int_t)sample->row, "gold", sample->gold, "log_likelihoods", values,
                  "prediction", plain, "prediction_norm", divided, "acc", plain == sample->gold,
                  "acc_norm", divided == sample->gold);
    if (object != NULL && set->n_groups > 0)
        json_object_set_new(object, "subject", json_string(set->groups[sample->group]));
    return object;
}

static Status write_samples(FILE *out, const TaskSet *set, const char *path)
{
    for (int64_t s = 0; s < set->n_samples; s++) {
        json_t *object = sample_object(set, &set->samples[s]);
        const int failed = object == NULL || json_dumpf(object, out, JSON_COMPACT) != 0;
        json_decref(object);
        if (failed || fputc('\n', out) == EOF)
            return fail(FAILED, "%s: write failed", path);
    }
    return OK;
}

Status tasks_result_write_samples(const TasksResult *result, const char *path)
{
    AtomicFile file;
    TRY(file_begin(&file, path));
    for (int i = 0; i < result->evaluation->n_sets; i++) {
        const Status status = write_samples(file.stream, &result->evaluation->sets[i], path);
        if (status != OK) {
            file_abandon(&file);
            return status;
        }
    }
    return file_commit(&file);
}
