// curves.csv: a row for each drawn point, for gnuplot and for spreadsheets. gnuplot finds columns
// by their names in the first line, so that later columns can be added.
#include "train/report/report.h"

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
