// Values and combinations are numbered in the order in which runs have them first, so that the same
// value has the same colour, and the same combination the same dash, whichever runs are between
// them. All loops are over pairs of runs, of which there are few.
#include "train/report/report_look.h"

#include "train/report/report_color.h"
#include "train/report/report_varied.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BY_SHARE = -1 };

// The lightest runs of the scale are next to the paper: the values of a key take its rest.
static const double FIRST_PLACE = 0.35;

// The original among converted runs: it has none of what is varied.
static bool is_apart(const Report *report, int place)
{
    for (int i = 0; i < report->n_runs; i++)
        if (report->runs[i].is_mla)
            return !report->runs[place].is_mla;
    return false;
}

static bool is_same_value(const Report *report, int key, int a, int b)
{
    char buffer_a[VARIED_TEXT_BYTES], buffer_b[VARIED_TEXT_BYTES];
    const char *text_a = report_varied_text(buffer_a, &report->runs[a], report->varied[key]);
    const char *text_b = report_varied_text(buffer_b, &report->runs[b], report->varied[key]);
    return text_a == NULL || text_b == NULL ? text_a == text_b : strcmp(text_a, text_b) == 0;
}

// Whether the colour, being of `color_key`, leaves the varied key to the dash.
static bool is_of_dash(const Report *report, int key, int color_key)
{
    const char *path = report->varied[key];
    return color_key == BY_SHARE ? strcmp(path, "model.convert.d_kv") != 0 &&
                                       strcmp(path, "model.convert.rope_pairs") != 0
                                 : key != color_key;
}

static bool is_same_combination(const Report *report, int color_key, int a, int b)
{
    for (int v = 0; v < report->n_varied; v++)
        if (is_of_dash(report, v, color_key) && !is_same_value(report, v, a, b))
            return false;
    return true;
}

static int choose_color_key(const Report *report)
{
    int first = -1; // converted, or of all where none is
    for (int i = 0; i < report->n_runs; i++) {
        if (is_apart(report, i))
            continue;
        if (first < 0)
            first = i;
        if (fabs(report_run_share(&report->runs[i]) - report_run_share(&report->runs[first])) >
            1e-9)
            return BY_SHARE;
    }
    return report->n_varied > 0 ? 0 : BY_SHARE;
}

static bool is_number(const char *text, double *out)
{
    char *end;
    *out = text != NULL ? strtod(text, &end) : NAN;
    return text != NULL && end != text && *end == '\0' && isfinite(*out);
}

// Where a run's value of a key stands among the distinct values of all runs.
typedef struct Rank {
    int place, n;
    bool is_ordered; // all are numbers, and place counts the smaller ones
} Rank;

static Rank rank_value(const Report *report, int key, int run)
{
    char buffer[VARIED_TEXT_BYTES];
    int n_smaller = 0, n_before = 0;
    double own, other;
    Rank rank = {.is_ordered = true};
    is_number(report_varied_text(buffer, &report->runs[run], report->varied[key]), &own);
    bool is_own_seen = false;
    for (int i = 0; i < report->n_runs; i++) {
        bool is_first = !is_apart(report, i);
        for (int j = 0; j < i && is_first; j++)
            is_first = is_apart(report, j) || !is_same_value(report, key, i, j);
        if (!is_first)
            continue;
        rank.n++;
        is_own_seen = is_own_seen || is_same_value(report, key, i, run);
        n_before += !is_own_seen;
        const char *text = report_varied_text(buffer, &report->runs[i], report->varied[key]);
        rank.is_ordered = is_number(text, &other) && rank.is_ordered;
        n_smaller += other < own;
    }
    rank.place = rank.is_ordered ? n_smaller : n_before;
    return rank;
}

static void set_color(char out[COLOR_BYTES], const Report *report, int place, int color_key,
                      bool is_dark_screen)
{
    if (color_key == BY_SHARE || is_apart(report, place)) {
        report_color(out, report_run_share(&report->runs[place]), is_dark_screen);
        return;
    }
    const Rank rank = rank_value(report, color_key, place);
    const double part = rank.n > 1 ? (double)rank.place / (rank.n - 1) : 0;
    if (rank.is_ordered)
        report_color_at(out, FIRST_PLACE + (1 - FIRST_PLACE) * part, is_dark_screen);
    else
        report_color_of_group(out, rank.place, is_dark_screen);
}

// 1 for the first combination of what the colour does not show, 2 for the second, and so on.
// `n_combinations` is set to their number.
static int find_dash(const Report *report, int color_key, int place, int *n_combinations)
{
    int dash = 0;
    *n_combinations = 0;
    for (int i = 0; i < report->n_runs; i++) {
        bool is_first = is_apart(report, i) == is_apart(report, place);
        for (int j = 0; j < i && is_first; j++)
            is_first = is_apart(report, j) != is_apart(report, i) ||
                       !is_same_combination(report, color_key, i, j);
        *n_combinations += is_first;
        if (is_first && is_same_combination(report, color_key, i, place))
            dash = *n_combinations;
    }
    return dash;
}

static bool is_look_taken(const Report *report, int place)
{
    const ReportRun *run = &report->runs[place];
    for (int i = 0; i < place; i++)
        if (report->runs[i].dash == run->dash && strcmp(report->runs[i].color, run->color) == 0)
            return true;
    return false;
}

void report_look_choose(Report *report)
{
    const int color_key = choose_color_key(report);
    for (int i = 0; i < report->n_runs; i++) {
        ReportRun *run = &report->runs[i];
        int n_combinations;
        set_color(run->color, report, i, color_key, false);
        set_color(run->color_on_dark, report, i, color_key, true);
        run->dash = find_dash(report, color_key, i, &n_combinations);
        while (is_look_taken(report, i))
            run->dash += n_combinations;
    }
}

// Appends as far as there is room.
static void append(char out[LOOK_TEXT_BYTES], const char *before, const char *text)
{
    const size_t n = strlen(out);
    snprintf(out + n, LOOK_TEXT_BYTES - n, "%s%s", before, text);
}

void report_look_describe(char out[LOOK_TEXT_BYTES], const Report *report)
{
    const int color_key = choose_color_key(report);
    const char *before = ", dashes for ";
    bool has_dashes = false;
    out[0] = '\0';
    for (int v = 0; v < report->n_varied; v++)
        has_dashes = has_dashes || is_of_dash(report, v, color_key);
    if (color_key == BY_SHARE && !has_dashes)
        return;
    append(out, "Colours stand for ",
           color_key == BY_SHARE ? "the share of the KV cache"
                                 : report_varied_head(report, color_key));
    for (int v = 0; v < report->n_varied; v++) {
        if (!is_of_dash(report, v, color_key))
            continue;
        append(out, before, report_varied_head(report, v));
        before = ", ";
    }
    append(out, ".", "");
    report_varied_trim(out);
}
