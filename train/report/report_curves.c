// What is computed from the points of a run: smoothed losses, differences to the baseline at the
// same number of tokens, the figures of the summary, and the choice of points to draw. NaN stands
// for "no value" throughout, as validation and training losses are at different steps.
#include "train/report/report_curves.h"

#include <math.h>
#include <stdlib.h>

// Members of RunPoint, so that loss and validation loss go the same ways.
typedef double (*Value)(const RunPoint *);

static double loss_of(const RunPoint *point)
{
    return point->loss;
}

static double smoothed_of(const RunPoint *point)
{
    return point->smoothed;
}

static double valid_loss_of(const RunPoint *point)
{
    return point->valid_loss;
}

static double gap_of(const RunPoint *point)
{
    return point->gap;
}

static double valid_gap_of(const RunPoint *point)
{
    return point->valid_gap;
}

// Sums of all losses up to each one make every mean one subtraction, however large the window is.
// Doubles have the digits for it: the sum of 10^6 losses of about 3 is rounded by 5e-10 at most.
Status report_curves_smooth(ReportRun *run, int window)
{
    double *sums = malloc(((size_t)run->n_points + 1) * sizeof *sums); // of the first i losses
    int *steps = malloc(((size_t)run->n_points + 1) * sizeof *steps);  // points that have a loss
    int n = 0;
    if (sums != NULL && steps != NULL) {
        sums[0] = 0;
        for (int i = 0; i < run->n_points; i++) {
            if (isnan(run->points[i].loss))
                continue;
            sums[n + 1] = sums[n] + run->points[i].loss;
            steps[n++] = i;
        }
        for (int k = 0; k < n; k++) { // the mean of losses k - half .. end - 1
            int half = window / 2 < k ? window / 2 : k;
            int end = half < n - 1 - k ? k + half + 1 : n;
            run->points[steps[k]].smoothed = (sums[end] - sums[k - half]) / (end - (k - half));
        }
    }
    bool is_done = sums != NULL && steps != NULL;
    free(steps);
    free(sums);
    return is_done ? OK : fail(FAILED, "%s: no memory for %d points", run->dir, run->n_points);
}

// A walk along the baseline: its last point with a value up to some tokens, its first after them.
typedef struct Walk {
    const ReportRun *run;
    Value value;
    const char *set;   // of validation losses: only points of this set have a value; NULL: all
    int before, after; // before: -1 if there is none; after: n_points if there is none
} Walk;

static bool has_value(const Walk *walk, int i)
{
    const RunPoint *point = &walk->run->points[i];
    return !isnan(walk->value(point)) &&
           (walk->set == NULL ||
            report_run_is_same_set(walk->run->valid_sets[point->valid_set], walk->set));
}

// The value at `tokens`, which must not descend from call to call.
static double walk_to(Walk *walk, int64_t tokens)
{
    const RunPoint *points = walk->run->points;
    int n = walk->run->n_points;
    while (walk->after < n &&
           (!has_value(walk, walk->after) || points[walk->after].tokens <= tokens)) {
        if (has_value(walk, walk->after))
            walk->before = walk->after;
        walk->after++;
    }
    if (walk->before < 0) // the baseline begins later
        return NAN;
    const RunPoint *a = &points[walk->before];
    if (a->tokens == tokens)
        return walk->value(a);
    if (walk->after == n) // the baseline ends before
        return NAN;
    const RunPoint *b = &points[walk->after];
    double part = (double)(tokens - a->tokens) / (double)(b->tokens - a->tokens);
    return walk->value(a) + part * (walk->value(b) - walk->value(a));
}

// Differences are taken at equal tokens and not at equal steps: runs may differ in their batch.
// Between two points of the baseline its loss is interpolated linearly; outside of them there is no
// difference.
void report_curves_gaps(ReportRun *run, const ReportRun *baseline)
{
    Walk losses = {.run = baseline, .value = smoothed_of, .before = -1};
    Walk validation = {0};
    int set = -1;
    for (int i = 0; i < run->n_points; i++) {
        RunPoint *point = &run->points[i];
        if (!isnan(point->smoothed))
            point->gap = point->smoothed - walk_to(&losses, point->tokens);
        if (point->valid_set < 0)
            continue;
        if (point->valid_set != set) { // another set: the walk begins again
            set = point->valid_set;
            validation = (Walk){
                .run = baseline, .value = valid_loss_of, .set = run->valid_sets[set], .before = -1};
        }
        point->valid_gap = point->valid_loss - walk_to(&validation, point->tokens);
    }
}

// NaN for what was measured on an earlier validation set, too.
static double comparable(const ReportRun *run, Value value, int i)
{
    const RunPoint *point = &run->points[i];
    const bool is_validation = value == valid_loss_of || value == valid_gap_of;
    return is_validation && report_run_is_earlier_set(run, point) ? NAN : value(point);
}

// The last point after step 0 that has the value; -1 if none has.
static int last_with(const ReportRun *run, Value value)
{
    for (int i = run->n_points - 1; i >= 0 && run->points[i].step > 0; i--)
        if (!isnan(comparable(run, value, i)))
            return i;
    return -1;
}

// The lowest after step 0: the model as converted has not been trained.
static double best_of(const ReportRun *run, Value value)
{
    double best = NAN;
    for (int i = 0; i < run->n_points; i++) {
        double loss = comparable(run, value, i);
        if (run->points[i].step > 0 && !isnan(loss) && !(loss >= best)) // also where best is NaN
            best = loss;
    }
    return best;
}

// The tokens from which on the gap stays at or below `within`; -1 if it does not at the end.
static int64_t tokens_within(const ReportRun *run, Value gap, double within)
{
    int64_t tokens = -1;
    for (int i = run->n_points - 1; i >= 0; i--) {
        double value = comparable(run, gap, i);
        if (value > within)
            break;
        if (!isnan(value))
            tokens = run->points[i].tokens;
    }
    return tokens;
}

// By validation losses where there are any, else by smoothed training losses; the page says which.
void report_curves_summarize(ReportRun *run, double within)
{
    RunSummary *sum = &run->summary;
    *sum = (RunSummary){.converted = NAN, .gap = NAN, .within_tokens = -1};
    sum->is_validation = last_with(run, valid_loss_of) >= 0;
    Value loss = sum->is_validation ? valid_loss_of : smoothed_of;
    int last = last_with(run, loss);
    sum->best = best_of(run, loss);
    sum->final = last >= 0 ? loss(&run->points[last]) : NAN;
    if (run->is_mla)
        sum->converted = report_run_start_valid(run);
    sum->is_gap_of_validation = last_with(run, valid_gap_of) >= 0;
    Value gap = sum->is_gap_of_validation ? valid_gap_of : gap_of;
    last = last_with(run, gap);
    if (last < 0)
        return;
    sum->gap = gap(&run->points[last]);
    sum->gap_tokens = run->points[last].tokens;
    sum->within_tokens = tokens_within(run, gap, within);
}

// Marks the smallest and the largest value in each of n_parts intervals: the outline of a noisy
// curve is that of its extremes, which taking every n-th point would miss.
static void draw_extremes(ReportRun *run, Value value, int n_parts)
{
    for (int part = 0; part < n_parts; part++) {
        int first = (int)((int64_t)run->n_points * part / n_parts);
        int end = (int)((int64_t)run->n_points * (part + 1) / n_parts);
        int lowest = -1, highest = -1;
        for (int i = first; i < end; i++) {
            double v = value(&run->points[i]);
            if (isnan(v))
                continue;
            if (lowest < 0 || v < value(&run->points[lowest]))
                lowest = i;
            if (highest < 0 || v > value(&run->points[highest]))
                highest = i;
        }
        if (lowest < 0)
            continue;
        run->points[lowest].is_drawn = true;
        run->points[highest].is_drawn = true;
    }
}

void report_curves_thin(ReportRun *run, int max_points)
{
    if (run->n_points <= max_points)
        return;
    for (int i = 0; i < run->n_points; i++)
        run->points[i].is_drawn = false;
    run->points[0].is_drawn = true;
    run->points[run->n_points - 1].is_drawn = true;
    for (int i = 0, k = 0; i < run->n_points && k < run->n_task_points; i++)
        if (run->points[i].step == run->task_points[k].step) {
            run->points[i].is_drawn = true;
            k++;
        }
    // Two points to an interval: 3/4 of them for the losses of steps, 1/4 for validation.
    draw_extremes(run, loss_of, max_points * 3 / 8);
    draw_extremes(run, valid_loss_of, max_points / 8);
}
