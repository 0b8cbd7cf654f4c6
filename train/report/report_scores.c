// What makes two evaluations differ is searched for in one place, compare_settings(): suites are
// its equivalence classes, and the reason why two averages cannot be compared is its text.
#include "train/report/report_scores.h"

#include <math.h>
#include <string.h>

// ---- what two evaluations differ in ------------------------------------------------------------

static const char *bos_text(int bos)
{
    return bos < 0 ? "not known" : bos == 1 ? "put" : "not put";
}

// Members that a file does not have are -1, an item count 0.
static const char *number_text(char out[24], int64_t number)
{
    if (number < 0)
        return "not known";
    snprintf(out, 24, "%lld", (long long)number);
    return out;
}

static bool differs_in_number(char out[REASON_BYTES], const char *name, int64_t a, int64_t b)
{
    char own[24], other[24];
    if (a != b)
        snprintf(out, REASON_BYTES, "%s %s, there %s", name, number_text(own, a),
                 number_text(other, b));
    return a != b;
}

// Whether a task of `a` was not evaluated so in `b`.
static bool differs_in_task(char out[REASON_BYTES], const ReportEval *a, const ReportEval *b)
{
    for (int i = 0; i < a->n_scores; i++) {
        const EvalScore *own = &a->scores[i], *other = report_eval_find(b, own->task);
        if (other == NULL)
            snprintf(out, REASON_BYTES, "has %s, which is not there", own->task);
        else if (strcmp(own->metric, other->metric) != 0)
            snprintf(out, REASON_BYTES, "%s by %s, there by %s", own->task, own->metric,
                     other->metric);
        else if (own->n != other->n)
            snprintf(out, REASON_BYTES, "%lld items of %s, there %lld", (long long)own->n,
                     own->task, (long long)other->n);
        else
            continue;
        return true;
    }
    return false;
}

// Whether a task of `b` is missing in `a`.
static bool lacks_task(char out[REASON_BYTES], const ReportEval *a, const ReportEval *b)
{
    for (int i = 0; i < b->n_scores; i++)
        if (report_eval_find(a, b->scores[i].task) == NULL) {
            snprintf(out, REASON_BYTES, "lacks %s, which is there", b->scores[i].task);
            return true;
        }
    return false;
}

// Whether they cannot be compared; then `out` has the first thing in which `a` differs from `b`.
static bool compare_settings(char out[REASON_BYTES], const ReportEval *a, const ReportEval *b)
{
    if (a->kind != b->kind)
        snprintf(out, REASON_BYTES, "%s", report_eval_kinds[a->kind]);
    else if (strcmp(a->rules, b->rules) != 0)
        snprintf(out, REASON_BYTES, "rules %s, there %s", a->rules, b->rules);
    else if (a->bos != b->bos)
        snprintf(out, REASON_BYTES, "BOS %s, there %s", bos_text(a->bos), bos_text(b->bos));
    else
        return differs_in_number(out, "shots", a->shots, b->shots) ||
               differs_in_number(out, "max_length", a->max_length, b->max_length) ||
               differs_in_task(out, a, b) || lacks_task(out, a, b);
    return true;
}

// A text that was cut may end in the middle of a character of UTF-8.
static void drop_partial_character(char *text)
{
    size_t n = strlen(text), start = n;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0)
        return;
    const unsigned char lead = (unsigned char)text[start - 1];
    const size_t n_bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    if (n - (start - 1) < n_bytes)
        text[start - 1] = '\0';
}

// ---- suites and differences --------------------------------------------------------------------

// The first evaluation that is of one suite with this one, which may be itself.
static const ReportEval *find_like(const Report *report, const ReportEval *eval)
{
    char reason[REASON_BYTES];
    for (int i = 0; i < report->n_runs; i++) {
        const ReportEvals *evals = &report->runs[i].evals;
        for (int k = 0; k < evals->n; k++)
            if (!compare_settings(reason, eval, &evals->list[k]))
                return &evals->list[k];
    }
    return eval;
}

// Lists have the largest cache first. Of several as large, the one after most training counts.
const ReportEval *report_scores_baseline(const Report *report, int suite)
{
    const ReportEval *best = NULL;
    if (report->baseline < 0)
        return NULL;
    const ReportEvals *evals = &report->runs[report->baseline].evals;
    for (int i = 0; i < evals->n; i++) {
        const ReportEval *eval = &evals->list[i];
        if (eval->suite == suite &&
            (best == NULL ||
             (eval->bytes_per_token == best->bytes_per_token && eval->tokens > best->tokens)))
            best = eval;
    }
    return best;
}

void report_scores_compare(Report *report)
{
    int n_suites = 0;
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++) {
            ReportEval *eval = &report->runs[i].evals.list[k];
            const ReportEval *like = find_like(report, eval);
            eval->suite = like == eval ? n_suites++ : like->suite;
        }
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++) {
            ReportEval *eval = &report->runs[i].evals.list[k];
            const ReportEval *base = report_scores_baseline(report, eval->suite);
            eval->difference =
                base == NULL || base == eval ? NAN : eval->average.score - base->average.score;
        }
}

// The baseline run's own evaluation of another suite is named as what there is to compare with.
const char *report_scores_reason(char out[REASON_BYTES], const Report *report,
                                 const ReportEval *eval)
{
    out[0] = '\0';
    if (!isnan(eval->difference) || report_scores_baseline(report, eval->suite) == eval)
        return out;
    if (report->baseline < 0) {
        snprintf(out, REASON_BYTES, "there is no baseline");
        return out;
    }
    const ReportEvals *evals = &report->runs[report->baseline].evals;
    for (int i = 0; i < evals->n; i++)
        if (evals->list[i].kind == eval->kind) {
            char what[REASON_BYTES - 20];
            compare_settings(out, eval, &evals->list[i]);
            snprintf(what, sizeof what, "%s", out);
            snprintf(out, REASON_BYTES, "not comparable: %s", what);
            drop_partial_character(out);
            return out;
        }
    snprintf(out, REASON_BYTES, "the baseline was not evaluated");
    return out;
}

// ---- what evaluations have in common -----------------------------------------------------------

void report_scores_items(int64_t *fewest, int64_t *most, const ReportEval *eval)
{
    *fewest = INT64_MAX;
    *most = 0;
    for (int i = 0; i < eval->n_scores; i++) {
        if (eval->scores[i].n < *fewest)
            *fewest = eval->scores[i].n;
        if (eval->scores[i].n > *most)
            *most = eval->scores[i].n;
    }
}

const char *report_scores_settings(char out[REASON_BYTES], const ReportEval *eval)
{
    int64_t fewest, most;
    char rules[64];
    snprintf(rules, sizeof rules, "%s", eval->rules);
    drop_partial_character(rules);
    int n = snprintf(out, REASON_BYTES, "rules %s", rules);
    report_scores_items(&fewest, &most, eval);
    if (eval->shots >= 0)
        n += snprintf(out + n, (size_t)(REASON_BYTES - n), ", %lld shot%s", (long long)eval->shots,
                      eval->shots == 1 ? "" : "s");
    if (eval->bos >= 0)
        n += snprintf(out + n, (size_t)(REASON_BYTES - n), ", %s", eval->bos ? "BOS" : "no BOS");
    if (eval->max_length >= 0)
        n += snprintf(out + n, (size_t)(REASON_BYTES - n), ", up to %lld tokens",
                      (long long)eval->max_length);
    if (fewest > 0 && fewest == most)
        snprintf(out + n, (size_t)(REASON_BYTES - n), ", %lld items of each", (long long)most);
    else if (fewest > 0)
        snprintf(out + n, (size_t)(REASON_BYTES - n), ", %lld to %lld items of each",
                 (long long)fewest, (long long)most);
    return out;
}

// Appends what `seen`, a set, does not have yet.
static bool add_task(json_t *list, json_t *seen, const char *task)
{
    return json_object_get(seen, task) != NULL ||
           (json_array_append_new(list, json_string(task)) == 0 &&
            json_object_set_new(seen, task, json_true()) == 0);
}

Status report_scores_tasks(json_t **out, const Report *report, EvalKind kind)
{
    json_t *list = json_array(), *seen = json_object();
    bool is_done = list != NULL && seen != NULL;
    for (int i = 0; i < report->n_runs; i++) {
        const ReportEvals *evals = &report->runs[i].evals;
        for (int k = 0; k < evals->n; k++)
            for (int s = 0; s < evals->list[k].n_scores && evals->list[k].kind == kind; s++)
                is_done = is_done && add_task(list, seen, evals->list[k].scores[s].task);
    }
    json_decref(seen);
    if (is_done) {
        *out = list;
        return OK;
    }
    json_decref(list);
    return fail(FAILED, "no memory for the tasks of %d runs", report->n_runs);
}

Status report_scores_curve_tasks(json_t **out, const Report *report)
{
    json_t *list = json_array(), *seen = json_object(), *score; // score: borrowed
    const char *task;
    bool is_done = list != NULL && seen != NULL;
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].n_task_points; k++)
            json_object_foreach(report->runs[i].task_points[k].scores, task, score)
            {
                is_done = is_done && add_task(list, seen, task);
            }
    json_decref(seen);
    if (is_done) {
        *out = list;
        return OK;
    }
    json_decref(list);
    return fail(FAILED, "no memory for the tasks of %d runs", report->n_runs);
}

bool report_scores_has(const Report *report, EvalKind kind)
{
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++)
            if (report->runs[i].evals.list[k].kind == kind)
                return true;
    return false;
}

bool report_scores_has_any(const Report *report)
{
    for (int i = 0; i < report->n_runs; i++)
        if (report->runs[i].evals.n > 0 || report->runs[i].n_task_points > 0)
            return true;
    return false;
}

double report_scores_share(const ReportRun *run, const ReportEval *eval)
{
    const double original =
        isnan(eval->original_bytes) ? 2.0 * (double)run->original_cache : eval->original_bytes;
    return eval->bytes_per_token / original;
}
