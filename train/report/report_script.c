// curves.gp: a script a reader can edit. What differs from report to report stands at its top; the
// panels below are the same text each time, except that panels without anything to draw are left
// out (gnuplot stops at an empty plot). Both pictures come from one loop over the terminals.
#include "train/report/report_script.h"
#include "train/report/report.h"
#include "train/report/report_fit.h"
#include "train/report/report_look.h"
#include "train/report/report_varied.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum {
    VARIED_COLUMNS = 40, // for what it varies
    STATE_COLUMNS = 40,  // for its state there
    TITLE_COLUMNS = 60,
    MAX_KEY_ROWS = 12,
    MANY_VALIDATIONS = 60, // of one run: more of them are drawn small
};

const int report_script_marks[MARK_TYPES] = {7, 5, 9, 13, 11, 15};

// What there is to draw in all runs together.
typedef struct Content {
    bool has_loss, has_valid, has_earlier_set, has_gap, has_valid_gap, has_lr, has_positive_loss;
    int n_valid;                    // of the run that has most
    int64_t min_tokens, max_tokens; // min: above 0
} Content;

static Content find_content(const Report *report)
{
    Content c = {0};
    for (int i = 0; i < report->n_runs; i++) {
        const ReportRun *run = &report->runs[i];
        int n_valid = 0;
        for (const RunPoint *p = run->points; p < run->points + run->n_points; p++) {
            n_valid += p->is_drawn && !isnan(p->valid_loss);
            c.has_loss = c.has_loss || !isnan(p->smoothed);
            c.has_valid = c.has_valid || !isnan(p->valid_loss);
            c.has_earlier_set = c.has_earlier_set || report_run_is_earlier_set(run, p);
            c.has_gap = c.has_gap || !isnan(p->gap);
            c.has_valid_gap = c.has_valid_gap || !isnan(p->valid_gap);
            c.has_lr = c.has_lr || !isnan(p->lr);
            c.has_positive_loss =
                c.has_positive_loss || (p->tokens > 0 && (p->loss > 0 || p->valid_loss > 0));
            if (p->tokens > 0 && (c.min_tokens == 0 || p->tokens < c.min_tokens))
                c.min_tokens = p->tokens;
            if (p->tokens > c.max_tokens)
                c.max_tokens = p->tokens;
        }
        if (n_valid > c.n_valid)
            c.n_valid = n_valid;
    }
    return c;
}

// Up to max_columns of the text in double quotes. A character that could mean something there
// is written as octal digits; a long text is cut between two characters of UTF-8. (The two single
// quotes that stand for one are not read as such at the start of a string.)
void report_script_string(FILE *out, const char *text, int max_columns)
{
    int n = 0;
    fputc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        n += byte < 0x80 || (byte >= 0xc0 && byte < 0xe0) ? 1 : byte >= 0xe0 ? 2 : 0;
        if (n > max_columns)
            break;
        if (byte >= 0x80 || isalnum(byte) || strchr(" _-.,:;/()+%=", byte) != NULL)
            fputc(byte, out);
        else
            fprintf(out, "\\%03o", byte);
    }
    fputs(*text != '\0' ? "...\"" : "\"", out);
}

// gnuplot's arrays begin at 1. Labels and states are cut to columns: gnuplot drops a key that does
// not fit.
static void write_runs(FILE *out, const Report *report)
{
    int n = report->n_runs;
    char look[LOOK_TEXT_BYTES];
    report_look_describe(look, report);
    fprintf(out, "\n# The runs. %s\nN = %d\n",
            look[0] != '\0' ? look : "Colours stand for the share of the KV cache.", n);
    fprintf(out,
            "array name[%d]\narray color[%d]\narray dash[%d]\narray mark[%d]\narray newest[%d]\n",
            n, n, n, n, n);
    for (int i = 0; i < n; i++) {
        const ReportRun *run = &report->runs[i];
        char state[STATE_BYTES], varied[VARIED_BYTES];
        report_describe_state(state, report, i);
        report_varied_describe(varied, report, i);
        fprintf(out, "color[%d] = 0x%s; dash[%d] = %d; mark[%d] = %d; name[%d] = ", i + 1,
                run->color + 1, i + 1, run->dash, i + 1, report_script_marks[i % MARK_TYPES],
                i + 1);
        report_script_string(out, run->label, LABEL_COLUMNS);
        fprintf(out, ".'  %.4g %% KV%s'.", 100 * report_run_share(run),
                varied[0] != '\0' ? ", " : "");
        report_script_string(out, varied, VARIED_COLUMNS);
        fprintf(out, ".'%s'.", state[0] != '\0' ? ", " : "");
        report_script_string(out, state, STATE_COLUMNS);
        fprintf(out, "\nnewest[%d] = '%s'\n", i + 1,
                run->newest_set >= 0 ? run->valid_sets[run->newest_set] : "");
    }
}

// Titles with names in them, as variables: the braces of a name inside a block would end it.
static void write_titles(FILE *out, const Report *report, const Content *content)
{
    fprintf(out,
            "\nLOSS_TITLE = 'Loss: each step faint, smoothed as a line, validation as points%s'\n",
            content->has_earlier_set ? " (open: on earlier text)" : "");
    if (report->baseline < 0)
        return;
    fputs("GAP_TITLE = 'Difference to '.", out);
    report_script_string(out, report->runs[report->baseline].label, TITLE_COLUMNS);
    fputs(".' at the same tokens'\n", out);
}

// The bounds are strings, as '*' stands for a bound that gnuplot chooses.
static void write_fit(FILE *out, const Report *report)
{
    ReportFit losses = report_fit_losses(report), gaps = report_fit_gaps(report);
    if (losses.is_given)
        fputs("# Fitted to what comes after the first tenth; '*' for a bound shows all.\n", out);
    if (losses.is_given && !(report->log_y && losses.low <= 0))
        fprintf(out, "LOSS_LOW = '%.4g'; LOSS_HIGH = '%.4g'\n", losses.low, losses.high);
    else
        fputs("LOSS_LOW = '*'; LOSS_HIGH = '*'\n", out);
    if (gaps.is_given)
        fprintf(out, "GAP_LOW = '%.4g'; GAP_HIGH = '%.4g'\n", gaps.low, gaps.high);
    else
        fputs("GAP_LOW = '*'; GAP_HIGH = '*'\n", out);
}

// Tokens are drawn in a unit that keeps the numbers at the axis below 2000.
static void write_axes(FILE *out, const Report *report, const Content *content)
{
    int64_t last = content->max_tokens > 0 ? content->max_tokens : 1;
    double unit = last >= 2000000000 ? 1e9 : last >= 2000000 ? 1e6 : last >= 2000 ? 1e3 : 1;
    const char *label = unit == 1e9   ? "tokens, billions"
                        : unit == 1e6 ? "tokens, millions"
                        : unit == 1e3 ? "tokens, thousands"
                                      : "tokens";
    bool log_x = report->log_x && content->min_tokens < content->max_tokens;
    fprintf(out,
            "\n# The axes. UNIT: tokens per unit of x.\nUNIT = %.0f.0\nXLABEL = '%s'\n"
            "set xrange [%.10g:%.10g]\n",
            unit, label, log_x ? (double)content->min_tokens / unit : 0, (double)last / unit);
    if (log_x)
        fputs("set logscale x\n", out);
    fprintf(out, "LOG_Y = %d\nWITHIN = %.10g\n", report->log_y && content->has_positive_loss,
            report->within);
    fprintf(out, "THINNED = %d # the extremes of many steps are drawn\n", report->is_thinned);
    fprintf(out, "VALID_SIZE = %.1f # of the marks\n",
            content->n_valid > MANY_VALIDATIONS ? 0.3 : 0.8);
    write_fit(out, report);
}

void report_script_start(FILE *out, const char *name)
{
    fprintf(out,
            "# The %s of mha2mla compare. Edit, then run in this directory: gnuplot %s.gp\n"
            "# To other files: gnuplot -e \"SVG = 'a.svg'; PNG = 'a.png'\" %s.gp\n"
            "if (!exists('SVG')) SVG = '%s.svg'\n"
            "if (!exists('PNG')) PNG = '%s.png'\n",
            name, name, name, name, name);
    fputs("set encoding utf8\n"
          "set datafile separator comma\n"
          "set datafile columnheaders\n",
          out);
}

// The PNG has three pixels for two units of the SVG.
void report_script_open(FILE *out, int height)
{
    fprintf(out,
            "\ndo for [kind in 'svg png'] {\n"
            "    if (kind eq 'svg') {\n"
            "        set terminal svg size 900,%d font 'sans,12' noenhanced background '#ffffff'\n"
            "        set output SVG\n"
            "    } else {\n"
            "        set terminal pngcairo size 1350,%d fontscale 1.35 linewidth 1.5 \\\n"
            "            pointscale 1.3 font 'sans,12' noenhanced\n"
            "        set output PNG\n"
            "    }\n"
            "    set multiplot\n",
            height, height * 3 / 2);
}

void report_script_close(FILE *out)
{
    fputs("    unset multiplot\n    unset output\n}\n", out);
}

// Functions of gnuplot's by which all panels choose rows and colours.
static void write_style(FILE *out)
{
    fputs("\n# A column of curves.csv for run i; nothing for the other runs.\n"
          "x(i) = column('run') == i ? column('tokens') / UNIT : NaN\n"
          "# The validation set of run i that is its newest; the marks of earlier ones are open.\n"
          "at_newest(i) = strcol('validation_set') eq newest[i] ? x(i) : NaN\n"
          "at_earlier(i) = strcol('validation_set') eq newest[i] ? NaN : x(i)\n"
          "faint(i) = color[i] + (THINNED ? 0xd8000000 : 0xb0000000)\n"
          "set border 3 lc rgb '#666666'\n"
          "set tics nomirror textcolor rgb '#333333'\n"
          "set grid lc rgb '#e4e4e4' lt 1 lw 1\n"
          "set lmargin at screen 0.09; set rmargin at screen 0.97\n",
          out);
}

// A panel's place, from bottom to top, as parts of the picture.
typedef struct Panel {
    double bottom, top;
    const char *title; // an expression of gnuplot's
} Panel;

// In fractions of the picture's height (screen coordinates), so that panels line up.
static void start_panel(FILE *out, const Panel *panel)
{
    fprintf(out, "    set bmargin at screen %.3f; set tmargin at screen %.3f\n", panel->bottom,
            panel->top);
    fprintf(out, "    set title %s offset graph -0.5,0 left\n", panel->title);
}

// The marks of validations. The types of marks come in pairs, the open one before the filled one.
static void write_valid(FILE *out, const char *column, const char *end, const Content *content)
{
    fprintf(out,
            "        for [i=1:N] 'curves.csv' using (at_newest(i)):'%s' with points \\\n"
            "            pt mark[i] ps VALID_SIZE lc rgb color[i]%s, \\\n",
            column, end);
    if (content->has_earlier_set)
        fprintf(out,
                "        for [i=1:N] 'curves.csv' using (at_earlier(i)):'%s' with points \\\n"
                "            pt mark[i]-1 ps VALID_SIZE lc rgb color[i]%s, \\\n",
                column, end);
}

// The key lists all runs by entries of its own, as a run may have no point in some plot.
static void write_loss_panel(FILE *out, const Panel *panel, const Content *content)
{
    start_panel(out, panel);
    fputs("    eval 'set yrange ['.LOSS_LOW.':'.LOSS_HIGH.']'\n", out);
    fputs("    set ylabel 'nats per token'\n"
          "    if (LOG_Y) {\n"
          "        set logscale y\n"
          "        set autoscale yfix\n"
          "        set for [e=-3:3] for [m in '1 1.5 2 2.5 3 4 5 7'] ytics add (m * 10.0**e)\n"
          "    }\n",
          out);
    fputs("    set key at screen 0.075, screen 0.992 left top reverse Left samplen 3 font ',10'\n  "
          "  plot \\\n",
          out);
    if (content->has_loss)
        fputs("        for [i=1:N] 'curves.csv' using (x(i)):'loss' with lines lw 1 \\\n"
              "            lc rgb faint(i) notitle, \\\n"
              "        for [i=1:N] 'curves.csv' using (x(i)):'loss_smoothed' with lines lw 2 \\\n"
              "            dt dash[i] lc rgb color[i] notitle, \\\n",
              out);
    if (content->has_valid)
        write_valid(out, "valid_loss", " notitle", content);
    if (!content->has_loss && !content->has_valid)
        fputs("        [][0:1] NaN notitle, \\\n", out);
    fputs("        for [i=1:N] keyentry with linespoints lw 2 dt dash[i] pt mark[i] ps 0.8 \\\n"
          "            lc rgb color[i] title name[i]\n"
          "    unset logscale y\n    set ytics autofreq\n    set autoscale y\n    unset key\n",
          out);
}

// The baseline itself is the line at 0, WITHIN the gap that counts as closed.
static void write_gap_panel(FILE *out, const Panel *panel, const Content *content)
{
    start_panel(out, panel);
    fputs("    eval 'set yrange ['.GAP_LOW.':'.GAP_HIGH.']'\n", out);
    fputs("    set ylabel 'nats per token'\n    plot \\\n", out);
    if (content->has_gap)
        fputs("        for [i=1:N] 'curves.csv' using (x(i)):'loss_minus_baseline' with lines \\\n"
              "            lw 2 dt dash[i] lc rgb color[i], \\\n",
              out);
    if (content->has_valid_gap)
        write_valid(out, "valid_loss_minus_baseline", "", content);
    fputs("        0 with lines lc rgb '#666666' lw 1, \\\n"
          "        WITHIN with lines lc rgb '#666666' lw 1 dt 3\n",
          out);
}

static void write_lr_panel(FILE *out, const Panel *panel)
{
    start_panel(out, panel);
    fputs("    unset ylabel\n    set yrange [0:*]\n    plot \\\n"
          "        for [i=1:N] 'curves.csv' using (x(i)):'lr' with lines lw 2 \\\n"
          "            dt dash[i] lc rgb color[i]\n"
          "    set yrange [*:*]\n",
          out);
}

// The key stands above the panels; the lowest one has the label of the x axis.
static void write_panels(FILE *out, const Content *content, int n_runs)
{
    static const char label[] = "    set xlabel XLABEL\n";
    bool has_gap = content->has_gap || content->has_valid_gap;
    double lowest = 0.065, lr_top = content->has_lr ? lowest + 0.12 : 0;
    double gap_bottom = content->has_lr ? lr_top + 0.085 : lowest;
    double gap_top = has_gap ? gap_bottom + 0.22 : 0;
    double loss_top = 0.95 - 0.018 * (n_runs < MAX_KEY_ROWS ? n_runs : MAX_KEY_ROWS);
    double loss_bottom = has_gap ? gap_top + 0.085 : gap_bottom;
    fprintf(out, "    unset xlabel\n%s", !has_gap && !content->has_lr ? label : "");
    write_loss_panel(out, &(Panel){loss_bottom, loss_top, "LOSS_TITLE"}, content);
    if (has_gap) {
        fputs(content->has_lr ? "" : label, out);
        write_gap_panel(out, &(Panel){gap_bottom, gap_top, "GAP_TITLE"}, content);
    }
    if (content->has_lr) {
        fputs(label, out);
        write_lr_panel(out, &(Panel){lowest, lr_top, "'Learning rate'"});
    }
}

// Text that names runs comes only from report_script_string(), so no name can act as a command of
// gnuplot.
void report_write_script(FILE *out, const Report *report)
{
    Content content = find_content(report);
    report_script_start(out, "curves");
    write_runs(out, report);
    write_titles(out, report, &content);
    write_axes(out, report, &content);
    write_style(out);
    report_script_open(out, 1000);
    write_panels(out, &content, report->n_runs);
    report_script_close(out);
}
