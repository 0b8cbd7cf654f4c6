// What has to be known of a run's settings before its losses are compared: which were changed while
// it was trained, and in what it differs from the run it is measured against, beside the
// conversion.
//
//     char *text;
//     TRY(report_settings_describe(&text, &report, place));
//     if (text[0] != '\0')
//         printf("%s: %s\n", report.runs[place].label, text);
//     free(text);
//
// Settings that cannot change the result (KeyEffect in train/config/config_values.h) are left out,
// and train.steps, which the report shows as the runs' lengths.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_SETTINGS_H
#define MHA2MLA_TRAIN_REPORT_REPORT_SETTINGS_H

#include "train/report/report.h"

// One line, "" if there is nothing to know:
//     settings changed after step 500: optim.lr 0.0001 -> 0.0002; validated on other text until
//     step 500; differs from base in data.seq_len 512 (there 2048); validated on other text than
//     base
// The caller frees it. FAILED: memory is short.
Status report_settings_describe(char **out, const Report *report, int place);

// The first step above `after` at which settings were changed; -1 if there is none.
int report_settings_next_change(const ReportRun *run, int after);

#endif
