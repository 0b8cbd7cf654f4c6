// curves.gp: a script a reader can edit. What differs from report to report stands at its top; the
// panels below are the same text each time, but for those that would have nothing to draw.
#include "train/report.h"
#include "train/report_color.h"

#include <math.h>
#include <string.h>

enum { MARK_TYPES = 6 };

// What there is to draw in all runs together.
typedef struct Content {
    bool has_loss, has_valid, has_gap, has_valid_gap, has_lr, has_positive_loss;
    int64_t least_tokens, most_tokens; // least: above 0
} Content;

static Content find_content(const Report *report)
{
    Content c = {0};
    for (int i = 0; i < report->n_runs; i++) {
        const ReportRun *run = &report->runs[i];
        for (const RunPoint *p = run->points; p < run->points + run->n_points; p++) {
            c.has_loss = c.has_loss || !isnan(p->smoothed);
            c.has_valid = c.has_valid || !isnan(p->valid_loss);
            c.has_gap = c.has_gap || !isnan(p->gap);
            c.has_valid_gap = c.has_valid_gap || !isnan(p->valid_gap);
            c.has_lr = c.has_lr || !isnan(p->lr);
            c.has_positive_loss =
                c.has_positive_loss || (p->tokens > 0 && (p->loss > 0 || p->valid_loss > 0));
            if (p->tokens > 0 && (c.least_tokens == 0 || p->tokens < c.least_tokens))
                c.least_tokens = p->tokens;
            if (p->tokens > c.most_tokens)
                c.most_tokens = p->tokens;
        }
    }
    return c;
}

static void write_string(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputc('\'', out);
        fputc(*text, out);
    }
    fputc('\'', out);
}

static void write_runs(FILE *out, const Report *report)
{
    static const int marks[MARK_TYPES] = {7, 5, 9, 13, 11, 15}; // filled in every terminal
    int n = report->n_runs;
    fprintf(out, "\n# The runs: colour by their share of the KV cache.\nN = %d\n", n);
    fprintf(out, "array name[%d]\narray color[%d]\narray dash[%d]\narray mark[%d]\n", n, n, n, n);
    for (int i = 0; i < n; i++) {
        const ReportRun *run = &report->runs[i];
        char color[COLOR_BYTES], state[STATE_BYTES];
        report_color(color, report_run_share(run), false);
        report_describe_state(state, report, i);
        fprintf(out, "color[%d] = 0x%s; dash[%d] = %d; mark[%d] = %d; name[%d] = ", i + 1,
                color + 1, i + 1, report_dash(report, i), i + 1, marks[i % MARK_TYPES], i + 1);
        write_string(out, run->label);
        fprintf(out, ".'  %.4g %% KV%s%s'\n", 100 * report_run_share(run),
                state[0] != '\0' ? ", " : "", state);
    }
}

// Titles with names in them, as variables: the braces of a name inside a block would end it.
static void write_titles(FILE *out, const Report *report)
{
    fputs("\nLOSS_TITLE = 'Loss: each step faint, smoothed as a line, validation as points'\n",
          out);
    if (report->baseline < 0)
        return;
    fputs("GAP_TITLE = 'Difference to '.", out);
    write_string(out, report->runs[report->baseline].label);
    fputs(".' at the same tokens'\n", out);
}

static void write_axes(FILE *out, const Report *report, const Content *content)
{
    int64_t most = content->most_tokens > 0 ? content->most_tokens : 1;
    double unit = most >= 2000000000 ? 1e9 : most >= 2000000 ? 1e6 : most >= 2000 ? 1e3 : 1;
    const char *label = unit == 1e9   ? "tokens, billions"
                        : unit == 1e6 ? "tokens, millions"
                        : unit == 1e3 ? "tokens, thousands"
                                      : "tokens";
    bool log_x = report->log_x && content->least_tokens < content->most_tokens;
    fprintf(out,
            "\n# The axes. UNIT: tokens per unit of x.\nUNIT = %.0f.0\nXLABEL = '%s'\n"
            "set xrange [%.10g:%.10g]\n",
            unit, label, log_x ? (double)content->least_tokens / unit : 0, (double)most / unit);
    if (log_x)
        fputs("set logscale x\n", out);
    fprintf(out, "LOG_Y = %d\nWITHIN = %.10g\n", report->log_y && content->has_positive_loss,
            report->within);
}

static void write_start(FILE *out)
{
    fputs("# The curves of mha2mla compare. Edit, then run in this directory: gnuplot curves.gp\n"
          "# To other files: gnuplot -e \"SVG = 'a.svg'; PNG = 'a.png'\" curves.gp\n"
          "if (!exists('SVG')) SVG = 'curves.svg'\n"
          "if (!exists('PNG')) PNG = 'curves.png'\n"
          "set encoding utf8\n"
          "set datafile separator comma\n"
          "set datafile columnheaders\n",
          out);
}

static void write_style(FILE *out)
{
    fputs("\n# A column of curves.csv for run i; nothing for the other runs.\n"
          "x(i) = column('run') == i ? column('tokens') / UNIT : NaN\n"
          "faint(i) = color[i] + 0xb0000000\n"
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

static void start_panel(FILE *out, const Panel *panel)
{
    fprintf(out, "    set bmargin at screen %.3f; set tmargin at screen %.3f\n", panel->bottom,
            panel->top);
    fprintf(out, "    set title %s offset graph -0.5,0 left\n", panel->title);
}

static void write_loss_panel(FILE *out, const Panel *panel, const Content *content)
{
    start_panel(out, panel);
    fputs("    set ylabel 'nats per token'\n    if (LOG_Y) { set logscale y }\n", out);
    fputs("    set key top right reverse Left samplen 3 width 1\n    plot \\\n", out);
    if (content->has_loss)
        fputs("        for [i=1:N] 'curves.csv' using (x(i)):'loss' with lines lw 1 \\\n"
              "            lc rgb faint(i) notitle, \\\n"
              "        for [i=1:N] 'curves.csv' using (x(i)):'loss_smoothed' with lines lw 2 \\\n"
              "            dt dash[i] lc rgb color[i] notitle, \\\n",
              out);
    if (content->has_valid)
        fputs("        for [i=1:N] 'curves.csv' using (x(i)):'valid_loss' with points \\\n"
              "            pt mark[i] ps 0.8 lc rgb color[i] notitle, \\\n",
              out);
    if (!content->has_loss && !content->has_valid)
        fputs("        [][0:1] NaN notitle, \\\n", out);
    fputs("        for [i=1:N] keyentry with linespoints lw 2 dt dash[i] pt mark[i] ps 0.8 \\\n"
          "            lc rgb color[i] title name[i]\n"
          "    unset logscale y\n    unset key\n",
          out);
}

static void write_gap_panel(FILE *out, const Panel *panel, const Content *content)
{
    start_panel(out, panel);
    fputs("    set ylabel 'nats per token'\n    plot \\\n", out);
    if (content->has_gap)
        fputs("        for [i=1:N] 'curves.csv' using (x(i)):'loss_minus_baseline' with lines \\\n"
              "            lw 2 dt dash[i] lc rgb color[i], \\\n",
              out);
    if (content->has_valid_gap)
        fputs("        for [i=1:N] 'curves.csv' using (x(i)):'valid_loss_minus_baseline' \\\n"
              "            with points pt mark[i] ps 0.8 lc rgb color[i], \\\n",
              out);
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

// The lowest panel has the label of the x axis.
static void write_panels(FILE *out, const Content *content)
{
    static const char label[] = "    set xlabel XLABEL\n";
    bool has_gap = content->has_gap || content->has_valid_gap;
    double lowest = 0.065, lr_top = content->has_lr ? lowest + 0.12 : 0;
    double gap_bottom = content->has_lr ? lr_top + 0.085 : lowest;
    double gap_top = has_gap ? gap_bottom + 0.22 : 0;
    double loss_bottom = has_gap ? gap_top + 0.085 : gap_bottom;
    fprintf(out, "    unset xlabel\n%s", !has_gap && !content->has_lr ? label : "");
    write_loss_panel(out, &(Panel){loss_bottom, 0.96, "LOSS_TITLE"}, content);
    if (has_gap) {
        fputs(content->has_lr ? "" : label, out);
        write_gap_panel(out, &(Panel){gap_bottom, gap_top, "GAP_TITLE"}, content);
    }
    if (content->has_lr) {
        fputs(label, out);
        write_lr_panel(out, &(Panel){lowest, lr_top, "'Learning rate'"});
    }
}

void report_write_script(FILE *out, const Report *report)
{
    Content content = find_content(report);
    write_start(out);
    write_runs(out, report);
    write_titles(out, report);
    write_axes(out, report, &content);
    write_style(out);
    fputs("\ndo for [kind in 'svg png'] {\n"
          "    if (kind eq 'svg') {\n"
          "        set terminal svg size 900,1000 font 'sans,12' noenhanced background '#ffffff'\n"
          "        set output SVG\n"
          "    } else {\n"
          "        set terminal pngcairo size 1350,1500 fontscale 1.35 linewidth 1.5 \\\n"
          "            pointscale 1.3 font 'sans,12' noenhanced\n"
          "        set output PNG\n"
          "    }\n"
          "    set multiplot\n",
          out);
    write_panels(out, &content);
    fputs("    unset multiplot\n    unset output\n}\n", out);
}
