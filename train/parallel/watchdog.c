// The main thread only counts its heartbeats; the watchdog sees whether the count has changed since
// it last looked, so neither reads the other's clock. Between heartbeats what the process does
// counts, unless it waits: MPI waits by spinning, which looks like computing. Time is the sum of
// the watchdog's own ticks, each counted at most twice its length: a job that was suspended for an
// hour has not waited for an hour, and clocks of different machines are never compared.
#define _GNU_SOURCE // for pthread_condattr_setclock
#include "train/parallel/watchdog.h"

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/temporary.h"
#include "train/parallel/activity.h"
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

// The time limit is so many ticks, a tick from one look to the next. A rank asks after
// PATIENCE_TICKS of waiting, and one that has not answered for as long counts as silent.
enum { TICKS = 16, PATIENCE_TICKS = 4 };

// What the main thread last did. Atomics, so that it never waits for the watchdog.
static _Atomic(const char *) own_phase = "start";
static _Atomic int64_t own_step;
static atomic_bool own_waits;
static _Atomic uint64_t n_heartbeats;

// What is known of another rank from its file.
typedef struct Answer {
    WatchdogRank last; // as the file had it when it was last read
    bool is_known;     // a file was seen: from then on another beat in it is an answer
    double answered_s; // on the watchdog's clock; -INFINITY: never to this question
} Answer;

// The thread's own, but for `is_stopping`.
typedef struct Watchdog {
    char dir[PATH_BYTES];
    int rank, size;
    char (*hosts)[WATCHDOG_HOST_BYTES]; // owned [size]
    Answer *answers;                    // owned [size]
    double minutes, tick_s;
    const char *limit_name;
    bool is_temporary;

    double clock_s;
    uint64_t seen_heartbeats;
    double alive_s; // when there was the last sign of life
    Activity activity;
    WatchdogRank own;
    bool has_written, reports; // a file of this rank exists; it is the reporter
    double reports_since_s;
    char write_error[256]; // "": own answers are written

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stop;
    bool is_stopping;
} Watchdog;

static Watchdog *running = NULL; // this process's

void watchdog_phase(const char *phase, int64_t step)
{
    atomic_store(&own_phase, phase);
    atomic_store(&own_step, step);
    watchdog_heartbeat();
}

void watchdog_heartbeat(void)
{
    atomic_fetch_add(&n_heartbeats, 1);
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

static double patience_s(const Watchdog *watchdog)
{
    return PATIENCE_TICKS * watchdog->tick_s;
}

// Looks what the main thread has done in the last elapsed_s seconds.
static void observe_own(Watchdog *watchdog, double elapsed_s)
{
    const uint64_t heartbeats = atomic_load(&n_heartbeats);
    const bool is_active = activity_has_advanced(&watchdog->activity, elapsed_s);
    watchdog->own.state = atomic_load(&own_waits) ? WATCHDOG_WAITS : WATCHDOG_BUSY;
    if (heartbeats != watchdog->seen_heartbeats ||
        (is_active && watchdog->own.state == WATCHDOG_BUSY))
        watchdog->alive_s = watchdog->clock_s;
    watchdog->seen_heartbeats = heartbeats;
    watchdog->own.step = atomic_load(&own_step);
    snprintf(watchdog->own.phase, sizeof watchdog->own.phase, "%s", atomic_load(&own_phase));
    watchdog->own.idle_s = watchdog->clock_s - watchdog->alive_s;
    watchdog->own.since = (int64_t)time(NULL) - (int64_t)watchdog->own.idle_s;
}

// Writes this rank's file. A disk that fails is no reason to end a job that works: it is remembered
// for the report, which then cannot tell who is silent.
static void write_answer(Watchdog *watchdog, bool asks)
{
    watchdog->own.beat++;
    watchdog->write_error[0] = '\0';
    if (watchdog_write(watchdog->dir, watchdog->rank, watchdog->hosts[watchdog->rank],
                       &watchdog->own, asks) != OK)
        snprintf(watchdog->write_error, sizeof watchdog->write_error, "%s", fail_text());
    watchdog->has_written = true;
}

// Removes this rank's file when nobody asks any more.
static void withdraw(Watchdog *watchdog)
{
    if (!watchdog->has_written)
        return;
    watchdog_remove(watchdog->dir, watchdog->rank);
    rmdir(watchdog->dir); // the last one to leave succeeds
    watchdog->has_written = watchdog->reports = false;
}

// Whether a rank has answered within the last PATIENCE_TICKS.
static bool is_fresh(const Watchdog *watchdog, int rank)
{
    return watchdog->clock_s - watchdog->answers[rank].answered_s <= patience_s(watchdog);
}

static void read_answer(Watchdog *watchdog, int rank)
{
    Answer *answer = &watchdog->answers[rank];
    WatchdogRank now;
    if (watchdog_read(&now, watchdog->dir, rank) != OK)
        return;
    // What lies there at first sight may be older than the question.
    if (answer->is_known && now.beat != answer->last.beat)
        answer->answered_s = watchdog->clock_s;
    answer->is_known = true;
    answer->last = now;
}

// Chooses the reporter without messages: the lowest rank that asks and answers reports, so that a
// job prints one line. Ranks above it read only the files of the ranks below them.
static bool is_reporter(Watchdog *watchdog)
{
    for (int r = 0; r < watchdog->rank; r++) {
        read_answer(watchdog, r);
        const WatchdogRank *other = &watchdog->answers[r].last;
        if (is_fresh(watchdog, r) && other->state == WATCHDOG_WAITS &&
            other->idle_s >= patience_s(watchdog))
            return false;
    }
    return true;
}

// Whether no rank that answers has shown a sign of life within the limit. Signs of life reach the
// reporter up to two ticks late (one until the other rank writes its file, one until this one reads
// it), so that much is granted.
static bool all_are_idle(const Watchdog *watchdog)
{
    const double enough_s = 60 * watchdog->minutes - 2 * watchdog->tick_s;
    for (int r = 0; r < watchdog->size; r++)
        if (r != watchdog->rank && is_fresh(watchdog, r) &&
            watchdog->answers[r].last.idle_s < enough_s)
            return false;
    return true;
}

// All ranks' files, and the directory if nothing else is in it.
static void remove_files(const Watchdog *watchdog)
{
    for (int r = 0; r < watchdog->size; r++)
        watchdog_remove(watchdog->dir, r);
    temporary_remove_all(watchdog->dir); // of ranks that were killed while they wrote
    rmdir(watchdog->dir);
}

// Ends the process, which makes mpirun or srun end the job. _exit() and not exit(): the main thread
// may hold any lock, and handlers of exit() would wait for it.
static _Noreturn void report_and_leave(const Watchdog *watchdog)
{
    char text[2048];
    WatchdogRank *ranks = calloc((size_t)watchdog->size, sizeof *ranks);
    if (ranks == NULL || watchdog->write_error[0] != '\0') {
        snprintf(text, sizeof text,
                 "stalled for %.3g min in %s of step %lld; which rank it is "
                 "cannot be told: %s",
                 watchdog->minutes, watchdog->own.phase, (long long)watchdog->own.step,
                 ranks == NULL ? "no memory" : watchdog->write_error);
    } else {
        const int64_t now = (int64_t)time(NULL);
        for (int r = 0; r < watchdog->size; r++) {
            ranks[r] = r == watchdog->rank ? watchdog->own : watchdog->answers[r].last;
            if (r == watchdog->rank || is_fresh(watchdog, r))
                continue;
            ranks[r].state = WATCHDOG_SILENT;
            ranks[r].since =
                now - (int64_t)(watchdog->clock_s -
                                fmax(watchdog->answers[r].answered_s, watchdog->reports_since_s));
        }
        watchdog_describe(text, sizeof text, ranks,
                          (const char(*)[WATCHDOG_HOST_BYTES])watchdog->hosts, watchdog->size,
                          watchdog->rank, watchdog->minutes, watchdog->limit_name);
    }
    free(ranks);
    if (watchdog->is_temporary)
        remove_files(watchdog);
    // Not through log_error(): this is another thread, and ranks above 0 are quiet there.
    fprintf(stderr, "mha2mla: error: %s\n", text);
    _exit(FAILED);
}

// Reads the files of all ranks as the reporter; ends the job when none of them shows a sign of
// life. Others get the time to notice the question first.
static void watch_all(Watchdog *watchdog)
{
    if (!is_reporter(watchdog)) {
        watchdog->reports = false;
        return;
    }
    if (!watchdog->reports) {
        watchdog->reports = true;
        watchdog->reports_since_s = watchdog->clock_s;
    }
    for (int r = watchdog->rank + 1; r < watchdog->size; r++)
        read_answer(watchdog, r);
    const bool has_waited = watchdog->clock_s - watchdog->reports_since_s > patience_s(watchdog);
    if (has_waited && watchdog->own.idle_s >= 60 * watchdog->minutes && all_are_idle(watchdog))
        report_and_leave(watchdog);
}

static void tick(Watchdog *watchdog, double elapsed_s)
{
    observe_own(watchdog, elapsed_s);
    const bool asks =
        watchdog->own.state == WATCHDOG_WAITS && watchdog->own.idle_s >= patience_s(watchdog);
    if (!asks && !watchdog_is_asked(watchdog->dir, watchdog->rank)) {
        withdraw(watchdog);
        return;
    }
    write_answer(watchdog, asks);
    if (asks)
        watch_all(watchdog);
    else
        watchdog->reports = false;
}

// Waits one tick; false: the watchdog is to end.
static bool wait_tick(Watchdog *watchdog)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const double end_s = (double)until.tv_nsec * 1e-9 + watchdog->tick_s;
    until.tv_sec += (time_t)end_s;
    until.tv_nsec = (long)((end_s - floor(end_s)) * 1e9);
    pthread_mutex_lock(&watchdog->lock);
    // pthread_cond_timedwait() may wake up without a reason (POSIX), so the condition is tested
    // again.
    while (!watchdog->is_stopping &&
           pthread_cond_timedwait(&watchdog->stop, &watchdog->lock, &until) == 0)
        ;
    const bool continues = !watchdog->is_stopping;
    pthread_mutex_unlock(&watchdog->lock);
    return continues;
}

// The watchdog's thread: a tick is short against the limit, so it costs next to nothing.
static void *watch_rank(void *argument)
{
    Watchdog *watchdog = argument;
    double before_s = log_seconds();
    // Its own ticks are measured, not assumed: on a loaded machine a tick may take longer.
    while (wait_tick(watchdog)) {
        const double now_s = log_seconds();
        watchdog->clock_s += fmin(now_s - before_s, 2 * watchdog->tick_s);
        tick(watchdog, now_s - before_s);
        before_s = now_s;
    }
    withdraw(watchdog);
    return NULL;
}

static void release(Watchdog *watchdog)
{
    free(watchdog->hosts);
    free(watchdog->answers);
    free(watchdog);
}

// With all signals blocked: they are for the main thread.
static int start_thread(Watchdog *watchdog)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog->stop, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&watchdog->lock, NULL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&watchdog->thread, NULL, watch_rank, watchdog);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

// The thread that does the work is the one that starts the watchdog.
static Status create(Watchdog **out, const WatchdogSettings *settings)
{
    Watchdog *watchdog = calloc(1, sizeof *watchdog);
    if (watchdog == NULL)
        return fail(FAILED, "no memory for a watchdog");
    *watchdog = (Watchdog){.rank = settings->rank,
                           .size = settings->size,
                           .minutes = settings->minutes,
                           .tick_s = 60 * settings->minutes / TICKS,
                           .limit_name = settings->limit_name,
                           .is_temporary = settings->is_temporary,
                           .hosts = calloc((size_t)settings->size, WATCHDOG_HOST_BYTES),
                           .answers = calloc((size_t)settings->size, sizeof(Answer)),
                           .seen_heartbeats = atomic_load(&n_heartbeats),
                           .activity = activity_start()};
    if (watchdog->hosts == NULL || watchdog->answers == NULL ||
        snprintf(watchdog->dir, PATH_BYTES, "%s", settings->dir) >= PATH_BYTES) {
        release(watchdog);
        return fail(FAILED, "%s: no memory to watch %d ranks", settings->dir, settings->size);
    }
    memcpy(watchdog->hosts, settings->hosts, (size_t)settings->size * WATCHDOG_HOST_BYTES);
    for (int r = 0; r < watchdog->size; r++) {
        watchdog->hosts[r][WATCHDOG_HOST_BYTES - 1] = '\0';
        watchdog->answers[r].answered_s = -INFINITY;
    }
    *out = watchdog;
    return OK;
}

Status watchdog_start(const WatchdogSettings *settings)
{
    Watchdog *watchdog;
    CHECK(running == NULL, "rank %d has a watchdog", settings->rank);
    if (settings->minutes <= 0 || settings->size == 1)
        return OK;
    TRY(create(&watchdog, settings));
    if (watchdog->rank == 0)
        remove_files(watchdog);
    progress_set_heartbeat(watchdog_heartbeat);
    const int error = start_thread(watchdog);
    if (error != 0) {
        release(watchdog);
        return fail(FAILED, "the watchdog thread does not start: %s", strerror(error));
    }
    running = watchdog;
    return OK;
}

void watchdog_stop(void)
{
    if (running == NULL)
        return;
    pthread_mutex_lock(&running->lock);
    running->is_stopping = true;
    pthread_cond_signal(&running->stop);
    pthread_mutex_unlock(&running->lock);
    pthread_join(running->thread, NULL);
    pthread_cond_destroy(&running->stop);
    pthread_mutex_destroy(&running->lock);
    release(running);
    running = NULL;
}
