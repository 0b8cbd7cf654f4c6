// Whether two runs had the same losses, bit for bit: what a resume, another number of ranks or
// another machine must not change.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_EQUAL_H
#define MHA2MLA_TRAIN_REPORT_REPORT_EQUAL_H

#include "train/report/report_run.h"

// OK and the number of steps compared, with training or validation loss. FAILED with step and both
// values at the first difference, or where one run has a loss that the other lacks; with `common`,
// only losses that both have are compared, of which there must be one.
Status report_assert_equal(int *n_steps, const ReportRun *a, const ReportRun *b, bool common);

#endif
