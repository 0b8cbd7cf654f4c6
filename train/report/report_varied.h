// What the runs of a report vary: the keys of their configs in which they differ among each other,
// be they of one sweep or of several. The table has a column and the legend a text for each;
// colours and dashes tell their values apart (report_look.h).
//
// Converted runs are compared among each other, and runs with their original attention likewise: a
// setting in which all converted runs differ from the baseline is a note below the table
// (report_settings.h), not what was varied. Keys without an effect on the result, and names of
// files except the model's, do not count.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_VARIED_H
#define MHA2MLA_TRAIN_REPORT_REPORT_VARIED_H

#include "train/report/report.h"

enum { VARIED_TEXT_BYTES = 96, VARIED_BYTES = 512 };

// Sets report->varied, which borrows from the runs' configs. Further keys than MAX_VARIED remain
// notes below the table.
void report_varied_find(Report *report);

// The run's value as in a config, "none" for a key that it leaves out; NULL where it is not known.
// `buffer` is for a number that only run.json has.
const char *report_varied_text(char buffer[VARIED_TEXT_BYTES], const ReportRun *run,
                               const char *key);

// "lr" for optim.lr, or all of the key where another varied one ends alike.
const char *report_varied_head(const Report *report, int which);

bool report_varied_has(const Report *report, const char *key);

// Whether the table of `compare` has a column of its own for the key, varied or not.
bool report_varied_is_shape(const char *key);

// Makes UTF-8 of a text that snprintf() has cut in the middle of a character.
void report_varied_trim(char *text);

// "rope high, lr 1.0e-3" of the run's values, without the cache's size; "" if there are none.
void report_varied_describe(char out[VARIED_BYTES], const Report *report, int place);

#endif
