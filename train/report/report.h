// The report of several runs side by side, in a directory:
//
//     report.html                one page that needs nothing else: curves to hover and zoom, table
//     curves.svg, curves.png     the same curves on paper, drawn by gnuplot
//     curves.gp                  the script that drew them
//     curves.csv                 the points of the curves; beyond some thousand steps those of the
//                                smallest and largest losses (metrics.jsonl has every step)
//     tasks.csv                  the scores of evaluations, if there are any (report_scores.h)
//     scores.{svg,png,gp}        the score against the bytes of the cache, as the curves are
//
//     Report report = {.within = 0.05};
//     TRY(report_read(&report, dirs, n_dirs));
//     status = report_prepare(&report, NULL);
//     if (status == OK)
//         status = report_write(&report, "runs/report");
//     report_release(&report);
//
// Files are replaced whole or not at all.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_H
#define MHA2MLA_TRAIN_REPORT_REPORT_H

#include "train/report/report_run.h"

#include <stdio.h>

enum { MAX_VARIED = 8 };

typedef struct Report {
    double within;     // nats: a gap so small counts as closed
    int window;        // steps in the mean of a smoothed loss; 0: chosen by report_prepare()
    bool log_x, log_y; // whether the page starts with logarithmic axes
    ReportRun *runs;   // owned [n_runs], in the order given
    int n_runs;
    int baseline;                   // its place in runs; -1: there is none
    const char *varied[MAX_VARIED]; // keys in which the runs differ, borrowed from their configs
    int n_varied;                   // (report_varied.h)
    bool skip_start;                // the axes fit what comes after the steep start (report_fit.h)
    bool is_thinned;                // not every step is drawn
} Report;

// Reads the runs, at least one, whose directories the caller keeps, and gives each a label of its
// own, colour and dash. Sets runs and n_runs, varied and n_varied, and as baseline the first run
// with its original attention.
Status report_read(Report *report, char **dirs, int n_dirs);

// Computes what is drawn. `baseline` is the name or directory of a run, or NULL: as chosen by
// report_read(). BAD_INPUT if no run is called so.
Status report_prepare(Report *report, const char *baseline);

// Writes the files into `dir`, which is made if it is missing. FAILED if gnuplot fails or is
// missing: the other files are then there.
Status report_write(const Report *report, const char *dir);

void report_release(Report *report);

enum { STATE_BYTES = 256 };

// "running at step 40 of 60, settings changed at 20, resumed at 20, 30", "120 steps where the
// baseline has 60", "2 steps skipped"; "" for a run that is done, was never resumed, skipped no
// step and is as long as the baseline (without one: as the first run).
void report_describe_state(char out[STATE_BYTES], const Report *report, int place);

// The writers behind report_write(): of the open file, without closing it.
void report_write_csv(FILE *out, const Report *report);
void report_write_script(FILE *out, const Report *report);
Status report_write_page(FILE *out, const Report *report);

// Draws DIR/NAME.svg and DIR/NAME.png with DIR/NAME.gp.
Status report_draw(const char *dir, const char *name);

#endif
