// The colours of a report: one scale, from the colour that stands out most to the one that stands
// out least, and colours for groups that have no order. Both for light paper and for a dark screen.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_COLOR_H
#define MHA2MLA_TRAIN_REPORT_REPORT_COLOR_H

#include <stdbool.h>

enum { COLOR_BYTES = 8 }; // "#rrggbb" and the closing zero

// The scale at a place from 0 to 1. For light paper: dark to light; for a dark screen: light to
// dark.
void report_color_at(char out[COLOR_BYTES], double place, bool is_dark_screen);

// The scale by a run's share of the original KV cache, from 100 % to 12.5 % and below, on a
// logarithm.
void report_color(char out[COLOR_BYTES], double share, bool is_dark_screen);

// The colour of the n-th group, from 0 on; after eight they come again.
void report_color_of_group(char out[COLOR_BYTES], int n, bool is_dark_screen);

#endif
