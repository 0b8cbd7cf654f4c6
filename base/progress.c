// A call that shows nothing reads the clock and compares, so that inner loops can afford one call
// per iteration. The time left assumes that the rest goes as fast as what is done.
#include "base/progress.h"

#include "base/log.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

// Before the first line, between two on a terminal, between two in a log file.
static const double FIRST_S = 1, LIVE_S = 0.1, PLAIN_S = 10;

static _Atomic(void (*)(void)) heartbeat; // set and called from any thread; NULL: no watchdog

void progress_set_heartbeat(void (*beat)(void))
{
    atomic_store(&heartbeat, beat);
}

void progress_beat(void)
{
    void (*const beat)(void) = atomic_load(&heartbeat);
    if (beat != NULL)
        beat();
}

ProgressMeter progress_start(const char *work, const char *units, int64_t total)
{
    const double now_s = log_seconds();
    return (ProgressMeter){
        .work = work, .units = units, .total = total, .start_s = now_s, .shown_s = now_s};
}

void progress_clock(char out[PROGRESS_CLOCK_BYTES], double seconds)
{
    const int64_t s = (int64_t)fmin(fmax(seconds, 0), 9e15); // a double beyond int64_t is undefined
    if (s < 3600)
        snprintf(out, PROGRESS_CLOCK_BYTES, "%d:%02d", (int)(s / 60), (int)(s % 60));
    else
        snprintf(out, PROGRESS_CLOCK_BYTES, "%lld:%02d:%02d", (long long)s / 3600,
                 (int)(s / 60 % 60), (int)(s % 60));
}

// "calibration: 12 of 1024 samples, 0:10, 14:03 left". Counts of weights are shown in millions.
static void describe(char *out, size_t out_bytes, const ProgressMeter *meter, int64_t done,
                     double elapsed_s)
{
    char elapsed[PROGRESS_CLOCK_BYTES], left[PROGRESS_CLOCK_BYTES + 8] = "";
    progress_clock(elapsed, elapsed_s);
    if (done > 0) {
        char clock[PROGRESS_CLOCK_BYTES];
        progress_clock(clock, elapsed_s * (double)(meter->total - done) / (double)done);
        snprintf(left, sizeof left, ", %s left", clock);
    }
    if (strcmp(meter->units, "numbers") == 0)
        snprintf(out, out_bytes, "%s: %.0f of %.0f M numbers, %s%s", meter->work,
                 (double)done / 1e6, (double)meter->total / 1e6, elapsed, left);
    else
        snprintf(out, out_bytes, "%s: %lld of %lld %s, %s%s", meter->work, (long long)done,
                 (long long)meter->total, meter->units, elapsed, left);
}

void progress_show(ProgressMeter *meter, int64_t done)
{
    const double now_s = log_seconds(), elapsed_s = now_s - meter->start_s;
    progress_beat();
    // A terminal shows at most ten lines a second; a log file gets one every ten seconds, so that
    // hours of work do not fill it.
    if (elapsed_s < FIRST_S || now_s - meter->shown_s < LIVE_S)
        return;
    const bool is_terminal = log_is_terminal();
    if (!is_terminal && now_s - meter->shown_s < PLAIN_S)
        return;
    char line[256];
    describe(line, sizeof line, meter, done < meter->total ? done : meter->total, elapsed_s);
    meter->shown_s = now_s;
    if (is_terminal)
        log_live(line);
    else
        log_info("%s", line);
}

// A meter that never showed anything has no line to erase.
void progress_end(const ProgressMeter *meter)
{
    if (meter->shown_s > meter->start_s) // something was shown
        log_live_end(false);
}
