// Whether two runs had the same losses to the last bit, as runs on other numbers of ranks and
// resumed runs must have (train.sum_groups). metrics.jsonl has 17 significant digits, which read
// back as the same doubles.
#include "train/report/report_equal.h"

#include <math.h>
#include <string.h>

// By their bits: == would take -0 for 0.
static bool is_same(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

// A step that one of the runs does not have: an error unless --common was given.
static Status missing(const char *what, int step, const ReportRun *has, const ReportRun *lacks)
{
    return fail(FAILED,
                "step %d: %s has a %s loss, %s has none (last step %d); --common compares what "
                "both have",
                step, has->dir, what, lacks->dir, report_run_last_step(lacks));
}

// Counts a pair of losses in *n_pairs. NaN: there is none.
static Status compare_losses(int *n_pairs, const char *what, int step, double a, double b,
                             const ReportRun *run_a, const ReportRun *run_b, bool common)
{
    if (isnan(a) && isnan(b))
        return OK;
    if (isnan(a) || isnan(b)) {
        if (common)
            return OK;
        return isnan(b) ? missing(what, step, run_a, run_b) : missing(what, step, run_b, run_a);
    }
    if (!is_same(a, b))
        return fail(FAILED, "step %d: %s loss %.17g in %s, %.17g in %s", step, what, a, run_a->dir,
                    b, run_b->dir);
    ++*n_pairs;
    return OK;
}

// Walks along both runs at once, by ascending steps.
Status report_assert_equal(int *n_steps, const ReportRun *a, const ReportRun *b, bool common)
{
    const RunPoint none = {.loss = NAN, .valid_loss = NAN};
    int n = 0;
    for (int i = 0, j = 0; i < a->n_points || j < b->n_points;) {
        bool is_a = j == b->n_points || (i < a->n_points && a->points[i].step <= b->points[j].step);
        bool is_b = i == a->n_points || (j < b->n_points && b->points[j].step <= a->points[i].step);
        const RunPoint *p = is_a ? &a->points[i] : &none, *q = is_b ? &b->points[j] : &none;
        // Both point at this step, or one of them at none.
        int step = is_a ? p->step : q->step, n_pairs = 0;
        TRY(compare_losses(&n_pairs, "training", step, p->loss, q->loss, a, b, common));
        TRY(compare_losses(&n_pairs, "validation", step, p->valid_loss, q->valid_loss, a, b,
                           common));
        n += n_pairs > 0;
        i += is_a;
        j += is_b;
    }
    if (n == 0)
        return fail(FAILED, "%s and %s have no step in common", a->dir, b->dir);
    *n_steps = n;
    return OK;
}
