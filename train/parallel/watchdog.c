// The main thread only counts its signs of life; the watchdog sees whether the count has changed
// since it last looked, so neither reads the other's clock. Time is the sum of the watchdog's own
// ticks, each counted at most twice its length: a job that was suspended for an hour has not waited
// for an hour, and clocks of different machines are never compared.
#define _GNU_SOURCE // pthread_condattr_setclock
#include "train/parallel/watchdog.h"

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "train/parallel/watchdog_report.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Of the whole time: between looks; until a rank asks, and until one that does not answer counts as
// silent.
enum { TICKS = 16, PATIENCE_TICKS = 4 };

// What the main thread says.
static _Atomic(const char *) own_phase = "start";
static _Atomic int64_t own_step;
static atomic_bool own_waits;
static _Atomic uint64_t signs_of_life;

typedef struct Heard {
    WatchdogRank said;
    bool is_known;   // a file was seen; from then on a new beat is an answer
    double answer_s; // on the watchdog's clock; -INFINITY: none to this question
} Heard;

// The watchdog's own, but for `is_stopping`.
typedef struct Watchdog {
    char dir[PATH_BYTES]; // RUN/ranks
    int rank, size;
    char (*hosts)[WATCHDOG_HOST_BYTES]; // owned [size]
    Heard *heard;                       // owned [size]
    double minutes, tick_s;

    double clock_s;
    uint64_t seen_signs;
    double seen_s; // when they last changed
    WatchdogRank own;
    bool has_written, listens;
    double listens_since_s;
    char write_error[256]; // "" : own answers are written

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stop;
    bool is_stopping;
} Watchdog;

static Watchdog *watchdog = NULL; // of this process

void watchdog_phase(const char *phase, int64_t step)
{
    atomic_store(&own_phase, phase);
    atomic_store(&own_step, step);
    watchdog_heartbeat();
}

void watchdog_heartbeat(void)
{
    atomic_fetch_add(&signs_of_life, 1);
}

void watchdog_wait_begin(void)
{
    atomic_store(&own_waits, true);
    watchdog_heartbeat();
}

void watchdog_wait_end(void)
{
    atomic_store(&own_waits, false);
    watchdog_heartbeat();
}

static double patience_s(const Watchdog *w)
{
    return PATIENCE_TICKS * w->tick_s;
}

static void look_at_own(Watchdog *w)
{
    const uint64_t signs = atomic_load(&signs_of_life);
    if (signs != w->seen_signs)
        w->seen_s = w->clock_s;
    w->seen_signs = signs;
    w->own.state = atomic_load(&own_waits) ? WATCHDOG_WAITS : WATCHDOG_BUSY;
    w->own.step = atomic_load(&own_step);
    snprintf(w->own.phase, sizeof w->own.phase, "%s", atomic_load(&own_phase));
    w->own.idle_s = w->clock_s - w->seen_s;
    w->own.since = (int64_t)time(NULL) - (int64_t)w->own.idle_s;
}

static void answer(Watchdog *w, bool asks)
{
    w->own.beat++;
    w->write_error[0] = '\0';
    if (watchdog_write(w->dir, w->rank, w->hosts[w->rank], &w->own, asks) != OK)
        snprintf(w->write_error, sizeof w->write_error, "%s", fail_text());
    w->has_written = true;
}

static void withdraw(Watchdog *w)
{
    if (!w->has_written)
        return;
    watchdog_remove(w->dir, w->rank);
    rmdir(w->dir); // the last one to leave succeeds
    w->has_written = w->listens = false;
}

static bool is_fresh(const Watchdog *w, int rank)
{
    return w->clock_s - w->heard[rank].answer_s <= patience_s(w);
}

static void listen_to(Watchdog *w, int rank)
{
    Heard *heard = &w->heard[rank];
    WatchdogRank said;
    if (watchdog_read(&said, w->dir, rank) != OK)
        return;
    // What lies there at first sight may be older than the question.
    if (heard->is_known && said.beat != heard->said.beat)
        heard->answer_s = w->clock_s;
    heard->is_known = true;
    heard->said = said;
}

// Leaves the report to the lowest rank that asks and answers. Ranks above it read only its file.
static bool is_reporter(Watchdog *w)
{
    for (int r = 0; r < w->rank; r++) {
        listen_to(w, r);
        const WatchdogRank *said = &w->heard[r].said;
        if (is_fresh(w, r) && said->state == WATCHDOG_WAITS && said->idle_s >= patience_s(w))
            return false;
    }
    return true;
}

// Signs of life reach the reporter up to two ticks late.
static bool all_are_idle(const Watchdog *w)
{
    const double enough_s = 60 * w->minutes - 2 * w->tick_s;
    for (int r = 0; r < w->size; r++)
        if (r != w->rank && is_fresh(w, r) && w->heard[r].said.idle_s < enough_s)
            return false;
    return true;
}

static _Noreturn void report_and_leave(const Watchdog *w)
{
    char text[2048];
    WatchdogRank *ranks = calloc((size_t)w->size, sizeof *ranks);
    if (ranks == NULL || w->write_error[0] != '\0') {
        snprintf(text, sizeof text,
                 "stalled for %.3g min in %s of step %lld; which rank it is "
                 "cannot be told: %s",
                 w->minutes, w->own.phase, (long long)w->own.step,
                 ranks == NULL ? "no memory" : w->write_error);
    } else {
        const int64_t now = (int64_t)time(NULL);
        for (int r = 0; r < w->size; r++) {
            ranks[r] = r == w->rank ? w->own : w->heard[r].said;
            if (r == w->rank || is_fresh(w, r))
                continue;
            ranks[r].state = WATCHDOG_SILENT;
            ranks[r].since =
                now - (int64_t)(w->clock_s - fmax(w->heard[r].answer_s, w->listens_since_s));
        }
        watchdog_describe(text, sizeof text, ranks, (const char(*)[WATCHDOG_HOST_BYTES])w->hosts,
                          w->size, w->rank, w->minutes);
    }
    // Not through log_error(): this is another thread, and ranks above 0 are quiet there.
    fprintf(stderr, "mha2mla: error: %s\n", text);
    _exit(FAILED);
}

static void listen_to_all(Watchdog *w)
{
    if (!is_reporter(w)) {
        w->listens = false;
        return;
    }
    if (!w->listens) {
        w->listens = true;
        w->listens_since_s = w->clock_s;
    }
    for (int r = w->rank + 1; r < w->size; r++)
        listen_to(w, r);
    const bool has_listened = w->clock_s - w->listens_since_s > patience_s(w);
    if (has_listened && w->own.idle_s >= 60 * w->minutes && all_are_idle(w))
        report_and_leave(w);
}

static void tick(Watchdog *w)
{
    look_at_own(w);
    const bool asks = w->own.state == WATCHDOG_WAITS && w->own.idle_s >= patience_s(w);
    if (!asks && !watchdog_is_asked(w->dir, w->rank)) {
        withdraw(w);
        return;
    }
    answer(w, asks);
    if (asks)
        listen_to_all(w);
    else
        w->listens = false;
}

// Waits one tick; false: the watchdog is to end.
static bool wait_tick(Watchdog *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const double end_s = (double)until.tv_nsec * 1e-9 + w->tick_s;
    until.tv_sec += (time_t)end_s;
    until.tv_nsec = (long)((end_s - floor(end_s)) * 1e9);
    pthread_mutex_lock(&w->lock);
    while (!w->is_stopping && pthread_cond_timedwait(&w->stop, &w->lock, &until) == 0)
        ;
    const bool goes_on = !w->is_stopping;
    pthread_mutex_unlock(&w->lock);
    return goes_on;
}

static void *watch_rank(void *argument)
{
    Watchdog *w = argument;
    double before_s = log_seconds();
    while (wait_tick(w)) {
        const double now_s = log_seconds();
        w->clock_s += fmin(now_s - before_s, 2 * w->tick_s);
        before_s = now_s;
        tick(w);
    }
    withdraw(w);
    return NULL;
}

static void remove_old_files(const Watchdog *w)
{
    for (int r = 0; r < w->size; r++)
        watchdog_remove(w->dir, r);
    rmdir(w->dir);
}

static void release(Watchdog *w)
{
    free(w->hosts);
    free(w->heard);
    free(w);
}

// Signals are for the main thread.
static int start_thread(Watchdog *w)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->stop, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&w->lock, NULL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&w->thread, NULL, watch_rank, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

Status watchdog_start(const WatchdogSettings *watch)
{
    CHECK(watchdog == NULL, "rank %d has a watchdog", watch->rank);
    if (watch->minutes <= 0 || watch->size == 1)
        return OK;
    Watchdog *w = calloc(1, sizeof *w);
    if (w == NULL)
        return fail(FAILED, "no memory for a watchdog");
    Status status = OK;
    *w = (Watchdog){.rank = watch->rank,
                    .size = watch->size,
                    .minutes = watch->minutes,
                    .tick_s = 60 * watch->minutes / TICKS,
                    .hosts = calloc((size_t)watch->size, WATCHDOG_HOST_BYTES),
                    .heard = calloc((size_t)watch->size, sizeof(Heard))};
    if (w->hosts == NULL || w->heard == NULL) {
        status = fail(FAILED, "no memory to watch %d ranks", watch->size);
        goto release_watchdog;
    }
    memcpy(w->hosts, watch->hosts, (size_t)watch->size * WATCHDOG_HOST_BYTES);
    for (int r = 0; r < w->size; r++) {
        w->hosts[r][WATCHDOG_HOST_BYTES - 1] = '\0';
        w->heard[r].answer_s = -INFINITY;
    }
    TRY_GOTO(release_watchdog, file_join(w->dir, watch->run_dir, "ranks"));
    if (w->rank == 0)
        remove_old_files(w);
    progress_set_heartbeat(watchdog_heartbeat);
    const int error = start_thread(w);
    if (error != 0) {
        status = fail(FAILED, "the watchdog thread does not start: %s", strerror(error));
        goto release_watchdog;
    }
    watchdog = w;
    return OK;
release_watchdog:
    release(w);
    return status;
}

void watchdog_stop(void)
{
    Watchdog *w = watchdog;
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->is_stopping = true;
    pthread_cond_signal(&w->stop);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->stop);
    pthread_mutex_destroy(&w->lock);
    release(w);
    watchdog = NULL;
}
