// What a run that is resumed finds in metrics.jsonl: lines up to its checkpoint stay, later ones
// will be written again.
//
//     EarlierMetrics earlier;
//     TRY(metrics_resume(&earlier, path, &start));   // the file may be replaced
//     ... truncate it to earlier.size_bytes and append ...
#ifndef MHA2MLA_TRAIN_METRICS_METRICS_RESUME_H
#define MHA2MLA_TRAIN_METRICS_METRICS_RESUME_H

#include "train/metrics/metrics.h"

typedef struct EarlierMetrics {
    int64_t size_bytes; // of the lines that stay, from the beginning of the file
    double elapsed_s;   // of the last training step among them, as last_step
    int64_t last_step;
    int64_t tasks_step;                      // of the last evaluation on tasks; -1: there is none
    char first_valid_set[METRICS_SET_BYTES]; // "": nothing was validated
} EarlierMetrics;

// Finds the lines that stay. A last line without its newline is kept if it is whole. Where steps
// are doubled (the newest line of each stays), out of order, or behind later ones, the file is
// replaced by one that is in order, with a warning. A missing file is an empty one.
Status metrics_resume(EarlierMetrics *out, const char *path, const MetricsStart *start);

#endif
