// Colour and dash of each run, by what the runs vary (report_varied.h):
//
// - Runs whose KV caches differ are coloured by their share of the original cache, from the colour
//   that stands out most for 100 % to that which stands out least; dashes tell apart what else is
//   varied.
// - Runs with caches of one size are coloured by the first key that is varied: along the same scale
//   if its values are numbers, else by colours that have no order. Dashes tell apart the others.
//
// The original among converted runs has the scale's colour for 100 %. Runs that are alike in all of
// this have dashes of their own.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_LOOK_H
#define MHA2MLA_TRAIN_REPORT_REPORT_LOOK_H

#include "train/report/report.h"

// Sets color, color_on_dark and dash of all runs; after report_varied_find().
void report_look_choose(Report *report);

// "Colours stand for rope, dashes for svd and lr."; "" where colours stand for the share of the KV
// cache and nothing else is varied.
enum { LOOK_TEXT_BYTES = 512 };
void report_look_describe(char out[LOOK_TEXT_BYTES], const Report *report);

#endif
