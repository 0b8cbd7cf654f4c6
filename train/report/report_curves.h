// What a report draws and sums up, computed from the points of its runs: smoothed losses, the
// differences to the baseline, the choice of points where there are more than a page can show.
//
//     report_curves_smooth(&run, 100);                  // every run and the baseline first
//     report_curves_gaps(&run, &baseline);
//     report_curves_summarize(&run, 0.05);
//     report_curves_thin(&run, 3000);
//
// Nothing is owned here; all results go into the run.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_CURVES_H
#define MHA2MLA_TRAIN_REPORT_REPORT_CURVES_H

#include "train/report/report_run.h"

// The mean of the loss over `window` steps around each one. Narrower where fewer steps lie before
// it, so that the steep start is not smeared out; one-sided at the end. FAILED without memory.
Status report_curves_smooth(ReportRun *run, int window);

// gap and valid_gap at every point between the baseline's first and last tokens, the baseline
// interpolated linearly between its points; NaN elsewhere, and where the baseline was not validated
// on the same set.
void report_curves_gaps(ReportRun *run, const ReportRun *baseline);

// Fills run->summary. Validation losses where the run has any after step 0, else smoothed ones.
void report_curves_summarize(ReportRun *run, double within);

// Sets is_drawn of at most `most` + 2 points: the smallest and the largest loss of equal stretches,
// the same for the validation loss, and the two ends.
void report_curves_thin(ReportRun *run, int max_points);

#endif
