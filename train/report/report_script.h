// What the two scripts of a report share: curves.gp (report_script.c) and scores.gp
// (report_scores_script.c).
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_SCRIPT_H
#define MHA2MLA_TRAIN_REPORT_REPORT_SCRIPT_H

#include <stdio.h>

enum {
    LABEL_COLUMNS = 32, // for a run's name in the key: gnuplot leaves out a key that is too wide
    MARK_TYPES = 6,
};

// gnuplot's types of marks, one per run in turn: filled in every terminal, the open one before
// each.
extern const int report_script_marks[MARK_TYPES];

// The first lines of NAME.gp: the pictures NAME.svg and NAME.png, where -e has not set others, and
// how the .csv is read.
void report_script_start(FILE *out, const char *name);

// Up to max_columns of the text in double quotes; no character means anything to gnuplot there.
void report_script_string(FILE *out, const char *text, int max_columns);

// The loop over both terminals, up to the plots, and its end. Height: in units of the SVG, whose
// width is 900.
void report_script_open(FILE *out, int height);
void report_script_close(FILE *out);

#endif
