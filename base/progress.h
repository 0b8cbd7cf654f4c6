// How far long work has come, on stderr: a live line on a terminal, else a line every ten seconds.
// Work that is done within a second says nothing.
//
//     ProgressMeter meter = progress_start("calibration", "samples", n_samples);
//     for (int64_t i = 0; i < n_samples; i++) {
//         ...
//         progress_show(&meter, i + 1);    // calibration: 12 of 1024 samples, 0:10, 14:03 left
//     }
//     progress_end(&meter);
//
// A call costs a clock read. Nothing is owned; quiet ranks (base/log.h) say nothing. Not
// collective.
//
// Every call is also a heartbeat: it tells a watchdog that long work is progressing.
// Long loops that show nothing call progress_beat().
#ifndef MHA2MLA_BASE_PROGRESS_H
#define MHA2MLA_BASE_PROGRESS_H

#include <stdint.h>

enum { PROGRESS_CLOCK_BYTES = 32 };

typedef struct ProgressMeter {
    const char *work, *units; // static text; units "numbers" are shown in millions
    int64_t total;
    double start_s, shown_s;
} ProgressMeter;

ProgressMeter progress_start(const char *work, const char *units, int64_t total);

// `done` of the total so far; more than the total counts as all.
void progress_show(ProgressMeter *meter, int64_t done);

// The work is over, done or failed: the live line goes.
void progress_end(const ProgressMeter *meter);

// A heartbeat without a line, from any thread.
void progress_beat(void);

// What a heartbeat calls, from any thread; NULL, as at the start: nothing.
void progress_set_heartbeat(void (*beat)(void));

// Seconds as "0:07", "12:34" or "1:02:03", however many hours.
void progress_clock(char out[PROGRESS_CLOCK_BYTES], double seconds);

#endif
