// The steep start of a converted model is taken to be the first tenth of the longest run's tokens.
#include "train/report/report_fit.h"

#include <math.h>

typedef double (*Value)(const RunPoint *);

static double smoothed_of(const RunPoint *point)
{
    return point->smoothed;
}

static double gap_of(const RunPoint *point)
{
    return point->gap;
}

// Tokens: of the longest run, so that all runs are cut at the same place.
static int64_t first_tenth(const Report *report)
{
    int64_t max_tokens = 0;
    for (int i = 0; i < report->n_runs; i++)
        if (report_run_tokens(&report->runs[i]) > max_tokens)
            max_tokens = report_run_tokens(&report->runs[i]);
    return max_tokens / 10;
}

// The range of a value from some tokens on; not given if no point has it.
static ReportFit range_from(const Report *report, Value value, int64_t tokens)
{
    ReportFit range = {.low = INFINITY, .high = -INFINITY};
    for (int i = 0; i < report->n_runs; i++) {
        const ReportRun *run = &report->runs[i];
        for (int k = 0; k < run->n_points; k++) {
            double v = value(&run->points[k]);
            if (run->points[k].tokens < tokens || isnan(v))
                continue;
            range.low = fmin(range.low, v);
            range.high = fmax(range.high, v);
        }
    }
    range.is_given = range.low <= range.high;
    return range;
}

// The axes leave out the first tenth where it would take more than three quarters of the height:
// where the whole range is over four times that of the rest.
void report_fit_choose(Report *report)
{
    ReportFit whole = range_from(report, smoothed_of, 0);
    ReportFit later = range_from(report, smoothed_of, first_tenth(report));
    double span = later.high - later.low;
    report->skip_start = later.is_given && span > 0 && whole.high - whole.low > 4 * span;
}

// With a margin of 15 %, as losses of single steps scatter around the mean. Not given where the
// whole range is shown anyway.
static ReportFit fit(const Report *report, Value value)
{
    ReportFit range = range_from(report, value, first_tenth(report));
    double margin =
        0.15 * (range.high - range.low); // losses of single steps scatter around the mean
    range.low -= margin;
    range.high += margin;
    range.is_given = range.is_given && report->skip_start && range.low < range.high;
    return range;
}

ReportFit report_fit_losses(const Report *report)
{
    return fit(report, smoothed_of);
}

ReportFit report_fit_gaps(const Report *report)
{
    ReportFit range = fit(report, gap_of);
    range.low = fmin(range.low, 0); // the line of the baseline is always seen
    return range;
}
