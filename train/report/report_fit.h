// Where the axes of a report begin and end. A converted model's loss falls so far in its first
// steps that an axis with all of it shows nothing of what comes after: then the axes fit what comes
// after the first tenth of the tokens, and the start lies above them.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_FIT_H
#define MHA2MLA_TRAIN_REPORT_REPORT_FIT_H

#include "train/report/report.h"

typedef struct ReportFit {
    bool is_given; // else there is nothing to fit, or all of it fits
    double low, high;
} ReportFit;

// Sets skip_start: whether the smoothed losses span more than four times what they span later.
void report_fit_choose(Report *report);

// Axes for the smoothed losses and for their differences, with a margin for the losses of single
// steps.
ReportFit report_fit_losses(const Report *report);
ReportFit report_fit_gaps(const Report *report);

#endif
