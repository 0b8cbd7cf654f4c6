// scores.gp: the average score against the bytes of the cache, a panel for tasks and one for
// LongBench, a line for each scheme of quantization. The numbers stand in the script, as gnuplot
// cannot tell texts of tasks.csv with every character from several columns. Of several suites,
// which cannot be compared, the one with most evaluations is drawn.
#include "train/report/report_scores.h"
#include "train/report/report_script.h"

#include <math.h>
#include <string.h>

enum { MAX_SCHEMES = 12, PANEL_HEIGHT = 420, N_COLORS = 5 };

// As on the page (page.css).
static const char *const colors[N_COLORS] = {"4a5160", "1f5fbf", "b8500a", "0b7a5a", "8a3b9c"};

typedef struct Scheme {
    const char *name, *title;
} Scheme;

typedef struct SchemeList {
    Scheme list[MAX_SCHEMES];
    int n;
} SchemeList;

// In this order they have the same colours in every report.
static const SchemeList known = {
    {{"plain", "not quantized"}, {"channel", "per channel"}, {"hqq", "HQQ"}, {"quanto", "Quanto"}},
    4};

// Of the panel's data and title in the script.
static const char *name_of(EvalKind kind)
{
    return kind == EVAL_TASKS ? "TASKS" : "LONGBENCH";
}

// The suite of this kind that has most evaluations; -1: there is none.
static int largest_suite(const Report *report, EvalKind kind)
{
    int best = -1, best_n = 0;
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++) {
            const ReportEval *eval = &report->runs[i].evals.list[k];
            int n = 0;
            if (eval->kind != kind)
                continue;
            for (int j = 0; j < report->n_runs; j++)
                for (int m = 0; m < report->runs[j].evals.n; m++)
                    n += report->runs[j].evals.list[m].suite == eval->suite;
            if (n > best_n) {
                best = eval->suite;
                best_n = n;
            }
        }
    return best;
}

static const ReportEval *first_of_suite(const Report *report, int suite)
{
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++)
            if (report->runs[i].evals.list[k].suite == suite)
                return &report->runs[i].evals.list[k];
    return NULL;
}

static bool has_scheme(const Report *report, int suite, const char *scheme)
{
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++) {
            const ReportEval *eval = &report->runs[i].evals.list[k];
            if (eval->suite == suite && strcmp(eval->scheme, scheme) == 0)
                return true;
        }
    return false;
}

static void write_runs(FILE *out, const Report *report)
{
    fprintf(out, "\n# The runs.\nN = %d\narray name[N]\narray mark[N]\n", report->n_runs);
    for (int i = 0; i < report->n_runs; i++) {
        fprintf(out, "mark[%d] = %d; name[%d] = ", i + 1, report_script_marks[i % MARK_TYPES],
                i + 1);
        report_script_string(out, report->runs[i].label, LABEL_COLUMNS);
        fputc('\n', out);
    }
}

// The known ones, and the first few of others, which a later version may write.
static SchemeList find_schemes(const Report *report)
{
    SchemeList found = known;
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++) {
            const char *name = report->runs[i].evals.list[k].scheme;
            bool is_seen = found.n == MAX_SCHEMES;
            for (int m = 0; m < found.n; m++)
                is_seen = is_seen || strcmp(found.list[m].name, name) == 0;
            if (!is_seen)
                found.list[found.n++] = (Scheme){name, name};
        }
    return found;
}

static void write_schemes(FILE *out, const SchemeList *schemes)
{
    fprintf(out, "\n# The schemes of quantization.\nM = %d\narray shown[M]\narray tint[M]\n",
            schemes->n);
    for (int k = 0; k < schemes->n; k++) {
        fprintf(out, "tint[%d] = 0x%s; shown[%d] = ", k + 1, colors[k % N_COLORS], k + 1);
        report_script_string(out, schemes->list[k].title, LABEL_COLUMNS);
        fputc('\n', out);
    }
}

// The place of a scheme in the list; -1: it is not among the first of them.
static int place_of(const SchemeList *schemes, const char *name)
{
    for (int k = 0; k < schemes->n; k++)
        if (strcmp(schemes->list[k].name, name) == 0)
            return k;
    return -1;
}

static void write_percent(FILE *out, double score)
{
    if (isnan(score))
        fputs(",NaN", out);
    else
        fprintf(out, ",%.6g", 100 * score);
}

static void write_data(FILE *out, const Report *report, const SchemeList *schemes, int suite,
                       const char *name)
{
    fprintf(
        out,
        "\n# Bytes of the cache per token; score and standard error of the average in percent.\n"
        "$%s << EOD\nrun,scheme,bytes,score,stderr,near_guessing\n",
        name);
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++) {
            const ReportEval *eval = &report->runs[i].evals.list[k];
            const int place = place_of(schemes, eval->scheme);
            if (eval->suite != suite || place < 0)
                continue;
            fprintf(out, "%d,%d,%.10g", i + 1, place + 1, eval->bytes_per_token);
            write_percent(out, eval->average.score);
            write_percent(out, eval->average.error);
            fprintf(out, ",%d\n", report_eval_is_near_chance(&eval->average));
        }
    fputs("EOD\n", out);
}

static void write_style(FILE *out)
{
    fputs("\n# A column of the rows of scheme k.\n"
          "of(k, name) = column('scheme') == k ? column(name) : NaN\n"
          "# Open marks: within two standard errors of guessing.\n"
          "type(run) = mark[int(run)] - column('near_guessing')\n"
          "set border 3 lc rgb '#666666'\n"
          "set tics nomirror textcolor rgb '#333333'\n"
          "set grid lc rgb '#e4e4e4' lt 1 lw 1\n"
          "set datafile missing NaN\n"
          "set logscale x\n"
          "set for [e=-3:9] for [m in '1 2 5'] xtics add (sprintf('%g', m * 10.0**e) m * 10.0**e)\n"
          "set offsets 0, 0, graph 0.05, graph 0.05\n"
          "set lmargin at screen 0.09; set rmargin at screen 0.76\n"
          "set key at screen 0.78, graph 1 left top reverse Left samplen 3 font ',10'\n"
          "set ylabel 'score, %'\n"
          "set xlabel 'bytes per token in the KV cache, logarithmic'\n",
          out);
}

// Bytes: the range of x, around the smallest and the largest cache of the suite. It is given, as
// gnuplot finds none around a single size.
static void find_range(double *least, double *most, const Report *report, int suite)
{
    *least = INFINITY;
    *most = 0;
    for (int i = 0; i < report->n_runs; i++)
        for (int k = 0; k < report->runs[i].evals.n; k++) {
            const ReportEval *eval = &report->runs[i].evals.list[k];
            if (eval->suite != suite)
                continue;
            *least = fmin(*least, eval->bytes_per_token);
            *most = fmax(*most, eval->bytes_per_token);
        }
    const double margin = *least < *most ? 1.2 : 2;
    *least /= margin;
    *most *= margin;
}

// One scheme: the line from the smallest cache to the largest, standard errors, marks by run.
static void write_scheme(FILE *out, const char *data, int k)
{
    fprintf(out,
            "        $%s using (of(%d, 'bytes')):(of(%d, 'score')) smooth unique with lines lw 2 "
            "dt %d \\\n"
            "            lc rgb tint[%d] notitle, \\\n",
            data, k, k, k, k);
    fprintf(out,
            "        $%s using (of(%d, 'bytes')):(of(%d, 'score')):(of(%d, 'stderr')) with "
            "yerrorbars ps 0 \\\n"
            "            lc rgb tint[%d] notitle, \\\n",
            data, k, k, k, k);
    fprintf(out,
            "        $%s using (of(%d, 'bytes')):(of(%d, 'score')):(type(column('run'))) with "
            "points pt "
            "variable ps 1 \\\n"
            "            lc rgb tint[%d] notitle, \\\n"
            "        keyentry with lines lw 2 dt %d lc rgb tint[%d] title shown[%d], \\\n",
            data, k, k, k, k, k, k);
}

// `bottom` and `top` are fractions of the picture's height.
static void write_panel(FILE *out, const Report *report, const SchemeList *schemes, int suite,
                        double bottom, double top)
{
    const char *name = name_of(first_of_suite(report, suite)->kind);
    double least, most;
    find_range(&least, &most, report, suite);
    fprintf(out, "    set bmargin at screen %.3f; set tmargin at screen %.3f\n", bottom, top);
    fprintf(out, "    set title %s_TITLE offset graph -0.5,0 left\n", name);
    fprintf(out, "    set xrange [%.6g:%.6g]\n    plot \\\n", least, most);
    for (int k = 0; k < schemes->n; k++)
        if (has_scheme(report, suite, schemes->list[k].name))
            write_scheme(out, name, k + 1);
    fputs("        for [i=1:N] keyentry with points pt mark[i] lc rgb '#1d2129' title name[i]\n",
          out);
}

static void write_title(FILE *out, const Report *report, EvalKind kind, int suite)
{
    char settings[REASON_BYTES];
    fprintf(out, "%s_TITLE = '%s: '.", name_of(kind), kind == EVAL_TASKS ? "Tasks" : "LongBench");
    report_script_string(out, report_scores_settings(settings, first_of_suite(report, suite)), 90);
    fputc('\n', out);
}

void report_scores_write_script(FILE *out, const Report *report)
{
    const SchemeList schemes = find_schemes(report);
    int suites[N_EVAL_KINDS], n_panels = 0;
    report_script_start(out, "scores");
    write_runs(out, report);
    write_schemes(out, &schemes);
    for (int kind = 0; kind < N_EVAL_KINDS; kind++) {
        suites[kind] = largest_suite(report, (EvalKind)kind);
        if (suites[kind] < 0)
            continue;
        write_data(out, report, &schemes, suites[kind], name_of((EvalKind)kind));
        write_title(out, report, (EvalKind)kind, suites[kind]);
        n_panels++;
    }
    write_style(out);
    report_script_open(out, PANEL_HEIGHT * n_panels);
    double top = 1;
    for (int kind = 0; kind < N_EVAL_KINDS; kind++)
        if (suites[kind] >= 0) {
            const double height = 1.0 / n_panels;
            write_panel(out, report, &schemes, suites[kind], top - 0.86 * height,
                        top - 0.09 * height);
            top -= height;
        }
    report_script_close(out);
}
