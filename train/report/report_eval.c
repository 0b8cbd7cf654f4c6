// Bounds are checked where a number is read, and texts are refused if they have control characters:
// after that the writers of the report take everything as it is.
#include "train/report/report_eval.h"

#include "base/file.h"
#include "base/log.h"

#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };

const char *const report_eval_kinds[N_EVAL_KINDS] = {
    [EVAL_TASKS] = "tasks", [EVAL_LONGBENCH] = "longbench"};

// A file with its object, and a member of that, for errors.
enum { WHERE_BYTES = PATH_BYTES + 16, PLACE_BYTES = WHERE_BYTES + 128 };

bool report_eval_is_printable(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return false;
    return true;
}

// ---- scores ------------------------------------------------------------------------------------

typedef struct Choices {
    const char *task;
    int n;
} Choices;

// A few of ARC's questions have three or five choices; that changes its chance by less than 0.001.
static const Choices choices[] = {
    {"hellaswag", 4},     {"arc", 4},        {"arc_easy", 4},
    {"arc_challenge", 4}, {"openbookqa", 4}, {"piqa", 2},
    {"winogrande", 2},    {"mmlu", 4},       {"mmlu_continuation", 4},
};

double report_eval_chance(const char *task)
{
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++)
        if (strcmp(choices[i].task, task) == 0)
            return 1.0 / choices[i].n;
    return NAN;
}

bool report_eval_is_near_chance(const EvalScore *score)
{
    return fabs(score->score - score->chance) <= 2 * score->error; // false where one is NaN
}

const EvalScore *report_eval_find(const ReportEval *eval, const char *task)
{
    for (int i = 0; i < eval->n_scores; i++)
        if (strcmp(eval->scores[i].task, task) == 0)
            return &eval->scores[i];
    return NULL;
}

// *out keeps its value where the object does not have the member.
static Status optional_int(int64_t *out, const json_t *object, const char *where, const char *key)
{
    if (!json_has(object, key))
        return OK;
    return json_get_int(out, object, where, key, 0, INT64_MAX);
}

static Status optional_real(double *out, const json_t *object, const char *where, const char *key,
                            double min, double max)
{
    if (!json_has(object, key))
        return OK;
    return json_get_real(out, object, where, key, min, max);
}

static Status parse_score(EvalScore *out, const char *task, const json_t *json, const char *where)
{
    EvalScore score = {.task = task, .metric = "", .error = NAN};
    char place[PLACE_BYTES];
    if (!report_eval_is_printable(task))
        return fail(BAD_INPUT, "%s: the name of a task in 'scores' has control characters", where);
    snprintf(place, sizeof place, "%s: scores: %.64s", where, task);
    if (!json_is_object(json))
        return fail(BAD_INPUT, "%s: is no object with a 'score'", place);
    TRY(json_get_real(&score.score, json, place, "score", 0, 1));
    TRY(optional_real(&score.error, json, place, "stderr", 0, 1));
    TRY(optional_int(&score.n, json, place, "n"));
    if (json_has(json, "metric"))
        TRY(json_get_line(&score.metric, json, place, "metric"));
    score.chance = report_eval_chance(task);
    TRY(optional_real(&score.chance, json, place, "chance", 0, 1));
    *out = score;
    return OK;
}

static Status parse_scores(ReportEval *eval, const json_t *object, const char *where)
{
    const json_t *scores = json_object_get(object, "scores");
    const char *task;
    json_t *score; // borrowed
    if (!json_is_object(scores) || json_object_size(scores) == 0)
        return fail(BAD_INPUT, "%s: 'scores' is missing or has no task", where);
    eval->scores = calloc(json_object_size(scores), sizeof *eval->scores);
    if (eval->scores == NULL)
        return fail(FAILED, "%s: no memory", where);
    json_object_foreach((json_t *)(uintptr_t)scores, task, score)
    {
        TRY(parse_score(&eval->scores[eval->n_scores], task, score, where));
        eval->n_scores++;
    }
    return OK;
}

// ---- the average -------------------------------------------------------------------------------

// Sums over the scores that one part of the average consists of.
typedef struct Part {
    double chance, variance;
    int n;
} Part;

// A part is a task, or several whose names begin with it: "arc" is arc_easy and arc_challenge.
static Part sum_part(const ReportEval *eval, const char *name)
{
    const size_t length = strlen(name);
    const bool is_task = report_eval_find(eval, name) != NULL;
    Part part = {0};
    for (int i = 0; i < eval->n_scores; i++) {
        const EvalScore *score = &eval->scores[i];
        const bool is_of_it =
            is_task ? strcmp(score->task, name) == 0
                    : strncmp(score->task, name, length) == 0 && score->task[length] == '_';
        if (!is_of_it)
            continue;
        part.chance += score->chance;
        part.variance += score->error * score->error;
        part.n++;
    }
    return part;
}

// The tasks are independent samples, so the variance of a mean of k scores is the sum of theirs
// over k squared. NaN where an error or a chance is not known.
static void set_spread(ReportEval *eval, const json_t *names)
{
    const size_t n_names = json_array_size(names);
    const size_t n = n_names > 0 ? n_names : (size_t)eval->n_scores;
    double chance = 0, variance = 0;
    for (size_t i = 0; i < n; i++) {
        const char *name =
            n_names > 0 ? json_string_value(json_array_get(names, i)) : eval->scores[i].task;
        const Part part = sum_part(eval, name != NULL ? name : "");
        chance += part.n > 0 ? part.chance / part.n : NAN;
        variance += part.n > 0 ? part.variance / ((double)part.n * part.n) : NAN;
    }
    eval->average.chance = chance / (double)n;
    eval->average.error = sqrt(variance) / (double)n;
}

static Status parse_average(ReportEval *eval, const json_t *object, const char *where)
{
    const json_t *names = json_object_get(object, "average_of");
    eval->average = (EvalScore){.task = "average", .metric = ""};
    eval->is_average_ours = !json_has(object, "average");
    if (!eval->is_average_ours) {
        TRY(json_get_real(&eval->average.score, object, where, "average", 0, 1));
        set_spread(eval, names);
        TRY(optional_real(&eval->average.error, object, where, "average_stderr", 0, 1));
        return OK;
    }
    for (int i = 0; i < eval->n_scores; i++)
        eval->average.score += eval->scores[i].score / eval->n_scores;
    set_spread(eval, NULL);
    return OK;
}

// ---- a file ------------------------------------------------------------------------------------

static Status parse_cache(ReportEval *eval, const json_t *object, const char *where)
{
    const json_t *cache = json_object_get(object, "cache"), *bits = json_object_get(cache, "bits");
    char place[PLACE_BYTES];
    snprintf(place, sizeof place, "%s: cache", where);
    if (!json_is_object(cache))
        return fail(BAD_INPUT, "%s: 'cache' is missing or no object", where);
    TRY(json_get_line(&eval->cache, cache, place, "format"));
    TRY(json_get_line(&eval->scheme, cache, place, "scheme"));
    TRY(json_get_real(&eval->bytes_per_token, cache, place, "bytes_per_token", 1e-3, 1e15));
    TRY(optional_real(&eval->original_bytes, cache, place, "original_bytes_per_token", 1e-3, 1e15));
    if (json_is_array(bits) && json_array_size(bits) == 2) {
        eval->value_bits = json_integer_value(json_array_get(bits, 0)); // 0 of what is no integer
        eval->key_bits = json_integer_value(json_array_get(bits, 1));
    }
    return OK;
}

static Status parse_settings(ReportEval *eval, const json_t *object, const char *where)
{
    TRY(json_get_line(&eval->rules, object, where, "rules"));
    TRY(optional_int(&eval->shots, object, where, "shots"));
    TRY(optional_int(&eval->max_length, object, where, "max_length"));
    TRY(optional_int(&eval->step, object, where, "step"));
    TRY(optional_int(&eval->tokens, object, where, "tokens"));
    TRY(optional_int(&eval->n_cut, object, where, "n_cut"));
    if (json_has(object, "bos")) {
        bool bos;
        TRY(json_get_bool(&bos, object, where, "bos"));
        eval->bos = bos;
    }
    return OK;
}

static Status parse_kind(EvalKind *out, const json_t *object, const char *where)
{
    const char *kind;
    TRY(json_get_line(&kind, object, where, "kind"));
    for (int i = 0; i < N_EVAL_KINDS; i++)
        if (strcmp(kind, report_eval_kinds[i]) == 0) {
            *out = (EvalKind)i;
            return OK;
        }
    return fail(BAD_INPUT, "%s: 'kind' is '%.64s', allowed are tasks and longbench", where, kind);
}

// eval->json is set; `path` is the file.
static Status parse_eval(ReportEval *eval, const char *path)
{
    const json_t *object = json_object_get(eval->json, "mha2mla");
    const char *format;
    char where[WHERE_BYTES];
    int64_t version;
    snprintf(where, sizeof where, "%s: mha2mla", path);
    TRY(json_get_line(&format, object, where, "format"));
    if (strcmp(format, "mha2mla-eval") != 0)
        return fail(BAD_INPUT, "%s: 'format' is '%.64s', not 'mha2mla-eval'", where, format);
    TRY(json_get_int(&version, object, where, "version", 1, INT64_MAX));
    if (version > VERSION)
        return fail(BAD_INPUT,
                    "%s: 'version' is %lld, this program reads %d; compare with the program that "
                    "wrote it",
                    where, (long long)version, VERSION);
    TRY(parse_kind(&eval->kind, object, where));
    TRY(parse_settings(eval, object, where));
    TRY(parse_cache(eval, object, where));
    TRY(parse_scores(eval, object, where));
    return parse_average(eval, object, where);
}

static void release_eval(ReportEval *eval)
{
    json_decref(eval->json);
    free(eval->file);
    free(eval->scores);
}

// A file's name can be any bytes; it is shown as far as it is text.
static char *shown_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *name = strdup(slash != NULL ? slash + 1 : path);
    if (name == NULL)
        return NULL;
    json_t *text = json_string(name); // NULL if it is not UTF-8
    for (char *p = name; *p != '\0'; p++) {
        const unsigned char byte = (unsigned char)*p;
        if (byte < ' ' || byte == 0x7f || (text == NULL && byte >= 0x80))
            *p = '?';
    }
    json_decref(text);
    return name;
}

// Takes over `json`.
static Status add_eval(ReportEvals *evals, json_t *json, const char *path)
{
    ReportEval eval = {.json = json,
                       .file = shown_name(path),
                       .original_bytes = NAN,
                       .bos = -1,
                       .shots = -1,
                       .max_length = -1,
                       .step = -1,
                       .tokens = -1,
                       .n_cut = -1,
                       .difference = NAN};
    ReportEval *list = realloc(evals->list, ((size_t)evals->n + 1) * sizeof *list);
    Status status = OK;
    if (list != NULL)
        evals->list = list;
    if (list == NULL || eval.file == NULL)
        status = fail(FAILED, "%s: no memory", path);
    TRY_GOTO(release_eval, status);
    TRY_GOTO(release_eval, parse_eval(&eval, path));
    evals->list[evals->n++] = eval;
    return OK;
release_eval:
    release_eval(&eval);
    return status;
}

// ---- older files -------------------------------------------------------------------------------

// A task's result is a number, or an object with its "score".
static Status add_old(ReportEvals *evals, const json_t *tasks, const char *path)
{
    const char *task;
    json_t *value; // borrowed
    if (evals->old == NULL)
        evals->old = json_object();
    json_object_foreach((json_t *)(uintptr_t)tasks, task, value)
    {
        const json_t *score = json_is_object(value) ? json_object_get(value, "score") : value;
        if (!json_is_number(score) || !report_eval_is_printable(task))
            return fail(BAD_INPUT, "%s: the result of task '%.64s' is no number and has no 'score'",
                        path, report_eval_is_printable(task) ? task : "?");
        if (json_object_set_new(evals->old, task, json_real(json_number_value(score))) != 0)
            return fail(FAILED, "%s: no memory", path);
    }
    return OK;
}

// ---- all files of a run ------------------------------------------------------------------------

// A file of another program that happens to be called so is left out with a warning; lm-eval's own
// has the same "results", and neither cache nor rules.
static Status read_file(ReportEvals *evals, const char *path)
{
    json_t *json;
    TRY(json_read(&json, path));
    const json_t *tasks = json_object_get(json, "tasks");
    Status status = OK;
    if (json_is_object(json_object_get(json, "mha2mla")))
        return add_eval(evals, json, path);
    if (json_is_object(tasks))
        status = add_old(evals, tasks, path);
    else
        log_warn("%s: no result of mha2mla eval, 'mha2mla' is missing; left out", path);
    json_decref(json);
    return status;
}

// Appends the files DIR/eval*.json to `found`, in the order of their names. The directory's own
// name may hold what glob() takes for a pattern.
static Status find_files(glob_t *found, const char *dir)
{
    char pattern[2 * PATH_BYTES];
    int n = 0;
    for (const char *p = dir; *p != '\0' && n < 2 * PATH_BYTES - 32; p++) {
        if (strchr("*?[\\", *p) != NULL)
            pattern[n++] = '\\';
        pattern[n++] = *p;
    }
    snprintf(pattern + n, 32, "/eval*.json");
    int result = glob(pattern, 0, NULL, found);
    if (result == GLOB_NOSPACE)
        return fail(FAILED, "%s: no memory", dir);
    return OK; // no match, or a directory that cannot be listed, is no evaluation
}

static int by_kind_and_size(const void *a, const void *b)
{
    const ReportEval *p = a, *q = b;
    if (p->kind != q->kind)
        return (int)p->kind - (int)q->kind;
    if (p->bytes_per_token != q->bytes_per_token)
        return p->bytes_per_token > q->bytes_per_token ? -1 : 1;
    return strcmp(p->file, q->file);
}

Status report_evals_read(ReportEvals *evals, const char *dir)
{
    glob_t found = {0};
    Status status;
    TRY_GOTO(free_found, find_files(&found, dir));
    for (size_t i = 0; i < found.gl_pathc; i++)
        TRY_GOTO(free_found, read_file(evals, found.gl_pathv[i]));
    if (evals->n > 0)
        qsort(evals->list, (size_t)evals->n, sizeof *evals->list, by_kind_and_size);
free_found:
    globfree(&found);
    return status;
}

void report_evals_release(ReportEvals *evals)
{
    for (int i = 0; i < evals->n; i++)
        release_eval(&evals->list[i]);
    free(evals->list);
    json_decref(evals->old);
    *evals = (ReportEvals){0};
}
