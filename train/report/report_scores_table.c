// The terminal's tables of scores, in percent. A task's name is broken at a '_' into the two lines
// of the head, so that sixteen sets are not too wide.
#include "train/report/report_scores.h"

#include <math.h>
#include <string.h>

enum { SCORE_COLUMNS = 7 }; // "100.00~"

// The '_' nearest to the middle of the name; its length if it has none.
static int break_of(const char *task)
{
    const int length = (int)strlen(task);
    int best = length;
    for (int i = 1; i + 1 < length; i++)
        if (task[i] == '_' && (best == length || 2 * i <= length))
            best = i;
    return best;
}

// Set names come with lm-eval's prefix or without.
static const char *short_name(const char *task)
{
    static const char prefix[] = "longbench_";
    return strncmp(task, prefix, sizeof prefix - 1) == 0 ? task + sizeof prefix - 1 : task;
}

static int width_of(const char *name)
{
    const int length = (int)strlen(name), upper = break_of(name);
    const int lower = upper < length ? length - upper - 1 : length;
    int width = lower > SCORE_COLUMNS ? lower : SCORE_COLUMNS;
    if (upper < length && upper > width)
        width = upper;
    return width;
}

static const char *task_at(const json_t *tasks, size_t i)
{
    return json_string_value(json_array_get(tasks, i));
}

// The line above the columns' names has the first half of those that are broken.
static void print_head(FILE *out, EvalKind kind, const json_t *tasks)
{
    fprintf(out, "\n%-24s %-22s %10s %8s  %8s %6s  %8s  %11s  %-9s %5s  %-3s",
            kind == EVAL_TASKS ? "tasks, %" : "LongBench, %", "", "KV bytes", "KV", "", "",
            "to the", "", "", "", "");
    fputs(kind == EVAL_LONGBENCH ? "      cut" : "", out);
    for (size_t i = 0; i < json_array_size(tasks); i++) {
        const char *name = short_name(task_at(tasks, i));
        const int upper = break_of(name);
        fprintf(out, "  %*.*s", width_of(name), name[upper] != '\0' ? upper : 0, name);
    }
    fprintf(out, "\n%-24s %-22s %10s %8s  %8s %6s  %8s  %11s  %-9s %5s  %-3s", "run", "KV cache",
            "/token", "%", "average", "stderr", "baseline", "items", "rules", "shots", "BOS");
    fputs(kind == EVAL_LONGBENCH ? "  prompts" : "", out);
    for (size_t i = 0; i < json_array_size(tasks); i++) {
        const char *name = short_name(task_at(tasks, i));
        const int upper = break_of(name);
        fprintf(out, "  %*s", width_of(name), name[upper] != '\0' ? name + upper + 1 : name);
    }
    fputc('\n', out);
}

// "28.50", with a mark behind it; NULL: "-". `columns` are without the mark.
static void print_score(FILE *out, const EvalScore *score, int columns, char mark)
{
    if (score == NULL)
        fprintf(out, "%*s ", columns, "-");
    else
        fprintf(out, "%*.2f%c", columns, 100 * score->score, mark);
}

static char mark_of(const EvalScore *score)
{
    return score != NULL && report_eval_is_near_chance(score) ? '~' : ' ';
}

static void print_items(FILE *out, const ReportEval *eval)
{
    int64_t fewest, most;
    char text[48] = "-";
    report_scores_items(&fewest, &most, eval);
    if (fewest > 0 && fewest == most)
        snprintf(text, sizeof text, "%lld", (long long)most);
    else if (fewest > 0)
        snprintf(text, sizeof text, "%lld-%lld", (long long)fewest, (long long)most);
    fprintf(out, "  %11s", text);
}

static void print_row(FILE *out, const Report *report, const ReportRun *run, const ReportEval *eval,
                      const json_t *tasks)
{
    char reason[REASON_BYTES];
    const bool is_whole = eval->bytes_per_token == rint(eval->bytes_per_token);
    fprintf(out, "%-24s %-22s %10.*f %+8.2f  ", run->label, eval->cache, is_whole ? 0 : 1,
            eval->bytes_per_token, 100 * (report_scores_share(run, eval) - 1));
    print_score(out, &eval->average, 7, eval->is_average_ours ? '*' : mark_of(&eval->average));
    if (isnan(eval->average.error))
        fprintf(out, " %6s", "-");
    else
        fprintf(out, " %6.2f", 100 * eval->average.error);
    report_scores_reason(reason, report, eval);
    if (!isnan(eval->difference))
        fprintf(out, "  %+8.2f", 100 * eval->difference);
    else
        fprintf(out, "  %8s", reason[0] == '\0' ? "baseline" : "-");
    print_items(out, eval);
    fprintf(out, "  %-9s", eval->rules);
    if (eval->shots >= 0)
        fprintf(out, " %5lld", (long long)eval->shots);
    else
        fprintf(out, " %5s", "-");
    fprintf(out, "  %-3s", eval->bos < 0 ? "-" : eval->bos ? "yes" : "no");
    if (eval->kind == EVAL_LONGBENCH && eval->n_cut >= 0)
        fprintf(out, "  %7lld", (long long)eval->n_cut);
    else if (eval->kind == EVAL_LONGBENCH)
        fprintf(out, "  %7s", "-");
    for (size_t i = 0; i < json_array_size(tasks); i++) {
        const EvalScore *score = report_eval_find(eval, task_at(tasks, i));
        fputs("  ", out);
        print_score(out, score, width_of(short_name(task_at(tasks, i))) - 1, mark_of(score));
    }
    fputc('\n', out);
}

// What the marks mean, where there are any, and why a row has no difference.
static void print_notes(FILE *out, const Report *report, EvalKind kind)
{
    bool has_chance = false, has_own = false;
    for (int i = 0; i < report->n_runs; i++) {
        const ReportRun *run = &report->runs[i];
        for (int k = 0; k < run->evals.n; k++) {
            const ReportEval *eval = &run->evals.list[k];
            char reason[REASON_BYTES];
            if (eval->kind != kind)
                continue;
            has_own = has_own || eval->is_average_ours;
            has_chance = has_chance || mark_of(&eval->average) == '~';
            for (int s = 0; s < eval->n_scores; s++)
                has_chance = has_chance || mark_of(&eval->scores[s]) == '~';
            report_scores_reason(reason, report, eval);
            if (strncmp(reason, "not comparable", 14) == 0)
                fprintf(out, "%s, %s: %s\n", run->label, eval->file, reason);
        }
    }
    if (has_chance)
        fputs("~ within two standard errors of guessing\n", out);
    if (has_own)
        fputs("* the mean of the tasks given, as the average needs others, too\n", out);
}

Status report_scores_print(FILE *out, const Report *report)
{
    for (int kind = 0; kind < N_EVAL_KINDS; kind++) {
        json_t *tasks;
        if (!report_scores_has(report, (EvalKind)kind))
            continue;
        TRY(report_scores_tasks(&tasks, report, (EvalKind)kind));
        print_head(out, (EvalKind)kind, tasks);
        for (int i = 0; i < report->n_runs; i++)
            for (int k = 0; k < report->runs[i].evals.n; k++)
                if (report->runs[i].evals.list[k].kind == (EvalKind)kind)
                    print_row(out, report, &report->runs[i], &report->runs[i].evals.list[k], tasks);
        print_notes(out, report, (EvalKind)kind);
        json_decref(tasks);
    }
    return OK;
}
