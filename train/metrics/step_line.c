// The log line of a step. On a narrow terminal a line that wraps cannot be written over, so parts
// are left out, the least important first, until it fits; a log has no width and gets all of them.
#include "train/metrics/step_line.h"

#include "base/progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PARTS = 13, PART_BYTES = 48 };

// Parts of the line in the order of the line. A part with a higher priority number is left out
// before one with a lower number; no two parts have the same.
typedef struct Parts {
    int count;
    int priorities[MAX_PARTS];
    char texts[MAX_PARTS][PART_BYTES];
} Parts;

static void add(Parts *parts, int priority, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add(Parts *parts, int priority, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    parts->priorities[parts->count] = priority;
    vsnprintf(parts->texts[parts->count++], PART_BYTES, format, args);
    va_end(args);
}

// "1.0e-4": printf writes at least two digits of the exponent, which costs a column.
static void add_lr(Parts *parts, int priority, double lr)
{
    char text[32];
    snprintf(text, sizeof text, lr > 0 ? "%.1e" : "0", lr);
    char *zero = strstr(text, "e-0");
    if (zero != NULL)
        memmove(zero + 2, zero + 3, strlen(zero + 3) + 1);
    add(parts, priority, "lr %s", text);
}

static void add_rate(Parts *parts, int priority, double rate)
{
    if (rate < 1e5)
        add(parts, priority, "%.0f tok/s", rate);
    else if (rate < 1e7)
        add(parts, priority, "%.0fk tok/s", rate / 1e3);
    else
        add(parts, priority, "%.1fM tok/s", rate / 1e6);
}

// The parts in the order of the line, with their priorities. Step, loss and time left stay longest:
// they are what one looks for.
static void collect(Parts *parts, const StepLine *line)
{
    const StepReport *report = line->report;
    char left[PROGRESS_CLOCK_BYTES];
    progress_clock(left, line->left_s);
    add(parts, 0, "step %d/%d", report->step, line->n_steps);
    add(parts, 1, "loss %.4f", report->loss);
    if (report->has_teacher) {
        add(parts, 10, "ce %.4f", report->ce);
        add(parts, 11, "kl %.4f", report->kl);
        add(parts, 12, "mse %.4f", report->attention_mse);
    }
    if (!isnan(report->valid_loss))
        add(parts, 5, "valid %.4f@%d", report->valid_loss, report->valid_step);
    // Two decimals suffice for usual norms; those of a converged model need significant digits.
    if (report->grad_norm >= 0.1)
        add(parts, 6, "norm %.2f", report->grad_norm);
    else
        add(parts, 6, "norm %.2g", report->grad_norm);
    add_lr(parts, 8, report->lr);
    add_rate(parts, 3, line->tokens_per_s);
    if (!isnan(line->products_share))
        add(parts, 7, "%.0f%% %s", 100 * line->products_share, line->products);
    add(parts, 9, "data %.1f%%", 100 * report->data_wait_s / report->step_s);
    if (report->n_skipped > 0)
        add(parts, 4, "%lld skipped", (long long)report->n_skipped);
    add(parts, 2, "eta %s", left);
}

// Length of the line without the parts above a priority number; two blanks between parts.
static int length_up_to(const Parts *parts, int priority)
{
    int length = -2;
    for (int i = 0; i < parts->count; i++)
        if (parts->priorities[i] <= priority)
            length += 2 + (int)strlen(parts->texts[i]);
    return length;
}

void step_line_write(char *out, size_t out_bytes, const StepLine *line, int columns)
{
    Parts parts = {0};
    collect(&parts, line);
    // The highest priority number that is shown. Part 0, the step, always is.
    int last = MAX_PARTS - 1;
    while (last > 0 && length_up_to(&parts, last) > columns)
        last--;
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < parts.count; i++) {
        if (parts.priorities[i] > last || used >= out_bytes)
            continue;
        const int n =
            snprintf(out + used, out_bytes - used, "%s%s", used > 0 ? "  " : "", parts.texts[i]);
        used += (size_t)n;
    }
}
