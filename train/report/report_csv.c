// curves.csv: a row for each drawn point, for gnuplot and for spreadsheets. tasks.csv: a row for
// each score of an evaluation. gnuplot finds columns by their names in the first line, so that
// later columns can be added.
#include "train/report/report.h"
#include "train/report/report_scores.h"

#include <math.h>
#include <string.h>

// Nothing between the commas where nothing was measured.
static void write_number(FILE *out, double value)
{
    if (isnan(value))
        fputs(",", out);
    else
        fprintf(out, "%.10g,", value);
}

// As RFC 4180 has it: a quote in the text is written twice. A spreadsheet computes what starts like
// a formula, with an apostrophe before it it shows the text.
static void write_quoted(FILE *out, const char *text)
{
    fputc('"', out);
    if (text[0] != '\0' && strchr("=+-@\t\r", text[0]) != NULL)
        fputc('\'', out);
    for (; *text != '\0'; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

// %.10g keeps more digits than a plot shows. The name comes last: what is in it cannot shift a
// column.
void report_write_csv(FILE *out, const Report *report)
{
    fputs("run,step,tokens,loss,loss_smoothed,loss_minus_baseline,valid_loss,"
          "valid_loss_minus_baseline,lr,tokens_per_s,validation_set,name\n",
          out);
    for (int i = 0; i < report->n_runs; i++) {
        const ReportRun *run = &report->runs[i];
        for (const RunPoint *p = run->points; p < run->points + run->n_points; p++) {
            if (!p->is_drawn)
                continue;
            fprintf(out, "%d,%d,%lld,", i + 1, p->step, (long long)p->tokens);
            write_number(out, p->loss);
            write_number(out, p->smoothed);
            write_number(out, p->gap);
            write_number(out, p->valid_loss);
            write_number(out, p->valid_gap);
            write_number(out, p->lr);
            write_number(out, p->tokens_per_s);
            fprintf(out, "%s,", p->valid_set >= 0 ? run->valid_sets[p->valid_set] : "");
            write_quoted(out, run->label);
            fputc('\n', out);
        }
    }
}

// A whole number, nothing where it is not known.
static void write_count(FILE *out, int64_t value, int64_t least)
{
    if (value >= least)
        fprintf(out, "%lld", (long long)value);
    fputc(',', out);
}

// The columns of one evaluation, which all of its rows repeat.
static void write_eval(FILE *out, const Report *report, int place, const ReportEval *eval)
{
    const ReportRun *run = &report->runs[place];
    fprintf(out, "%d,%s,%d,", place + 1, report_eval_kinds[eval->kind], eval->suite + 1);
    write_number(out, eval->bytes_per_token);
    write_number(out, 100 * report_scores_share(run, eval));
    write_count(out, eval->value_bits, 1);
    write_count(out, eval->key_bits, 1);
    write_count(out, eval->shots, 0);
    fprintf(out, "%s,", eval->bos < 0 ? "" : eval->bos ? "yes" : "no");
    write_count(out, eval->max_length, 0);
    write_count(out, eval->n_cut, 0);
    write_count(out, eval->step, 0);
    write_count(out, eval->tokens, 0);
}

static void write_texts(FILE *out, const char *const *texts, int n)
{
    for (int i = 0; i < n; i++) {
        write_quoted(out, texts[i]);
        fputc(i + 1 < n ? ',' : '\n', out);
    }
}

static void write_score(FILE *out, const Report *report, int place, const ReportEval *eval,
                        const EvalScore *score)
{
    const bool is_average = score == &eval->average;
    char reason[REASON_BYTES] = "";
    write_eval(out, report, place, eval);
    write_number(out, score->score);
    write_number(out, score->error);
    write_count(out, score->n, 1);
    write_number(out, score->chance);
    fprintf(out, "%s,", report_eval_is_near_chance(score) ? "yes" : "");
    write_number(out, is_average ? eval->difference : NAN);
    if (is_average)
        report_scores_reason(reason, report, eval);
    write_texts(out,
                (const char *const[]){is_average && eval->is_average_ours ? "mean" : score->task,
                                      score->metric, eval->scheme, eval->cache, eval->rules, reason,
                                      eval->file, report->runs[place].label},
                8);
}

// Scores while the run was trained: metrics.jsonl has no more of them than their numbers.
static void write_curve(FILE *out, const Report *report, int place)
{
    const ReportRun *run = &report->runs[place];
    for (int i = 0; i < run->n_task_points; i++) {
        const TaskPoint *point = &run->task_points[i];
        const char *task;
        json_t *score; // borrowed
        json_object_foreach(point->scores, task, score)
        {
            fprintf(out, "%d,training,,,,,,,,,,%d,%lld,", place + 1, point->step,
                    (long long)point->tokens);
            write_number(out, json_number_value(score));
            fputs(",,,,,", out);
            write_texts(
                out, (const char *const[]){task, "", "", "", "", "", "metrics.jsonl", run->label},
                8);
        }
    }
}

// Scores are 0 to 1. The texts come last: what is in them cannot shift a column.
void report_scores_write_csv(FILE *out, const Report *report)
{
    fputs("run,kind,suite,cache_bytes_per_token,cache_percent,value_bits,key_bits,shots,bos,"
          "max_length,prompts_cut,step,tokens,score,stderr,n,chance,near_chance,"
          "average_minus_baseline,task,metric,scheme,cache,rules,not_compared,file,name\n",
          out);
    for (int i = 0; i < report->n_runs; i++) {
        const ReportEvals *evals = &report->runs[i].evals;
        for (int k = 0; k < evals->n; k++) {
            const ReportEval *eval = &evals->list[k];
            for (int s = 0; s < eval->n_scores; s++)
                write_score(out, report, i, eval, &eval->scores[s]);
            write_score(out, report, i, eval, &eval->average);
        }
        write_curve(out, report, i);
    }
}
