// The one colour scale of a report: by a run's share of the original KV cache, from the colour that
// stands out most (100 %) to the one that stands out least (12.5 % and below), on a logarithm.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_COLOR_H
#define MHA2MLA_TRAIN_REPORT_REPORT_COLOR_H

#include <stdbool.h>

enum { COLOR_BYTES = 8 }; // "#rrggbb" and the closing zero

// For light paper: dark to light; for a dark screen: light to dark.
void report_color(char out[COLOR_BYTES], double share, bool is_dark_screen);

#endif
