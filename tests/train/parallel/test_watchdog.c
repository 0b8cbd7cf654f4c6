// Jobs of four processes, each with the watchdog of a rank, that end up waiting in different ways;
// all jobs run at the same time, before the tests look at how they ended. What mpirun does is done
// here: when one rank has left with an error, the others are killed.
//
// A watchdog tells a slow rank from a stuck one by a limit of time. So that the tests depend on no
// machine's speed, the processes note how late they come to run; where that is no small part of the
// limit, all jobs run again with twice the limit.
#define _GNU_SOURCE // kill, nanosleep, dup2, MAP_ANONYMOUS
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "train/parallel/watchdog.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N_RANKS = 4, MAX_ROUNDS = 5, RUNS = -1, KILLED = -2 };

// An idle job is to be ended after so many seconds; a look is taken every sixteenth of them.
static double limit_s = 3.2;

// Moments of a round, in limits.
static const double STOPS = 0.3, GOES_ON = 1.15, GOOD_END = 1.4, TOO_LATE = 20;

// A watchdog grants four looks to an answer, which takes two; beyond this part of the limit a
// process is too late.
static const double MAX_LATE = 0.125;

static atomic_int *longest_ms; // shared by all processes: the longest rest of one that had work

typedef enum Role {
    WAITS,    // in a collective
    BUSY,     // no sign of life
    LIVES,    // busy, with heartbeats
    COMPUTES, // busy without heartbeats, on a core
    WRITES,   // busy without heartbeats, in files
    SPINS,    // in a collective, on a core, as MPI does
    WALKS,    // a rank of a healthy job: now waits, now works
} Role;

typedef struct Job {
    const char *name;
    Role roles[N_RANKS];
    bool stops[N_RANKS]; // gets SIGSTOP at STOPS
    bool goes_on;        // and SIGCONT at GOES_ON
    bool ends_well;      // at GOOD_END
    const char *dir;     // a testing_dir()
    pid_t ids[N_RANKS];
    int statuses[N_RANKS]; // exit status, RUNS or KILLED
    bool has_written;      // RUN/ranks was seen
    char text[N_RANKS][1024];
} Job;

static Job jobs[] = {
    {"one silent", .stops = {[3] = true}},
    {"two silent", .stops = {[0] = true, [2] = true}},
    {"one busy", .roles = {[1] = BUSY}},
    {"all wait"},
    {"one lives", .roles = {LIVES}, .ends_well = true},
    {"one computes", .roles = {COMPUTES}, .ends_well = true},
    {"one writes", .roles = {WRITES}, .ends_well = true},
    {"one spins", .roles = {SPINS}},
    {"healthy", .roles = {WALKS, WALKS, WALKS, WALKS}, .ends_well = true},
    {"suspended", .roles = {BUSY}, .stops = {true, true, true, true}, .goes_on = true,
     .ends_well = true},
};

enum { N_JOBS = sizeof jobs / sizeof jobs[0] };

static void wait_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static Status start_watchdog(const char *dir, int rank)
{
    static const char hosts[N_RANKS][WATCHDOG_HOST_BYTES] = {"node0", "node1", "node2", "node3"};
    const WatchdogSettings settings = {.dir = testing_path(dir, "ranks"),
                                       .rank = rank,
                                       .size = N_RANKS,
                                       .hosts = hosts,
                                       .minutes = limit_s / 60,
                                       .limit_name = "run.stall_minutes"};
    return watchdog_start(&settings);
}

static const char *stderr_of(const Job *job, int rank)
{
    char name[32];
    snprintf(name, sizeof name, "stderr.%d", rank);
    return testing_path(job->dir, name);
}

// Notes how long this process has not run, since *last_s.
static void note_rest(double *last_s)
{
    const double now_s = log_seconds();
    const int rest_ms = (int)((now_s - *last_s) * 1000);
    int longest = atomic_load(longest_ms);
    while (rest_ms > longest && !atomic_compare_exchange_weak(longest_ms, &longest, rest_ms))
        ;
    *last_s = now_s;
}

// What a rank that gives no heartbeat does for 20 ms.
static void pass_time(Role role, int null_file)
{
    static const char bytes[4096];
    volatile double sum = 0;
    const double start_s = log_seconds();
    if (role == WRITES && write(null_file, bytes, sizeof bytes) < 0)
        _exit(8);
    if (role != COMPUTES && role != SPINS)
        wait_ms(20);
    else
        while (log_seconds() - start_s < 0.02)
            for (int i = 0; i < 1000; i++)
                sum = sum + i;
}

static _Noreturn void be_rank(const Job *job, int rank, double start_s)
{
    const int file = open(stderr_of(job, rank), O_WRONLY | O_CREAT, 0666);
    if (file < 0 || dup2(file, STDERR_FILENO) < 0 || start_watchdog(job->dir, rank) != OK)
        _exit(9);
    const int null_file = open("/dev/null", O_WRONLY);
    const Role role = job->roles[rank];
    const bool waits = role == WAITS || role == SPINS;
    watchdog_phase(waits || role == WALKS ? "reduce" : "save", 412);
    if (waits)
        watchdog_wait_begin();
    const double end_s = limit_s * (job->ends_well ? GOOD_END : TOO_LATE);
    double last_s = start_s;
    for (int i = 0; log_seconds() - start_s < end_s; i++) {
        if (!job->stops[rank])
            note_rest(&last_s);
        pass_time(role, null_file);
        if (role == LIVES || (role == WALKS && i % 3 == 0))
            watchdog_phase("backward", i + 1);
        if (role == WALKS && i % 3 > 0)
            (i % 3 == 1 ? watchdog_wait_begin : watchdog_wait_end)();
    }
    watchdog_stop();
    _exit(0);
}

static void send_to_stopping(const Job *job, int signal)
{
    for (int r = 0; r < N_RANKS; r++)
        if (job->stops[r])
            kill(job->ids[r], signal);
}

// Looks at a job's ranks; true while one runs.
static bool follow(Job *job)
{
    job->has_written |= file_is_dir(testing_path(job->dir, "ranks"));
    bool runs = false, has_failed = false;
    for (int r = 0; r < N_RANKS; r++) {
        int status;
        if (job->statuses[r] == RUNS && waitpid(job->ids[r], &status, WNOHANG) == job->ids[r])
            job->statuses[r] = WIFEXITED(status) ? WEXITSTATUS(status) : KILLED;
        has_failed |= job->statuses[r] > 0;
        runs |= job->statuses[r] == RUNS;
    }
    for (int r = 0; r < N_RANKS && has_failed; r++)
        if (job->statuses[r] == RUNS)
            kill(job->ids[r], SIGKILL);
    return runs;
}

static void read_texts(Job *job)
{
    for (int r = 0; r < N_RANKS; r++) {
        FileMap map;
        if (file_map(&map, stderr_of(job, r)) != OK)
            continue;
        snprintf(job->text[r], sizeof job->text[r], "%.*s", (int)map.size_bytes, map.bytes);
        file_unmap(&map);
    }
}

static int start_jobs(double start_s)
{
    for (Job *job = jobs; job < jobs + N_JOBS; job++) {
        job->dir = testing_dir();
        job->has_written = false;
        for (int r = 0; r < N_RANKS; r++) {
            job->statuses[r] = RUNS;
            job->ids[r] = fork();
            if (job->ids[r] < 0)
                return 1;
            if (job->ids[r] == 0)
                be_rank(job, r, start_s);
        }
    }
    return 0;
}

static int follow_jobs(double start_s)
{
    int n_signals = 0;
    double last_s = start_s;
    for (int n_running = N_JOBS; n_running > 0; wait_ms(20)) {
        const double now = (log_seconds() - start_s) / limit_s;
        if (n_signals < 2 && now > (n_signals == 0 ? STOPS : GOES_ON)) {
            for (Job *job = jobs; job < jobs + N_JOBS; job++)
                if (n_signals == 0 || job->goes_on)
                    send_to_stopping(job, n_signals == 0 ? SIGSTOP : SIGCONT);
            n_signals++;
        }
        n_running = 0;
        for (Job *job = jobs; job < jobs + N_JOBS; job++) {
            for (int r = 0; r < N_RANKS && now > TOO_LATE + 1; r++)
                if (job->statuses[r] == RUNS)
                    kill(job->ids[r], SIGKILL);
            n_running += follow(job);
        }
        // As the watchdogs do: a slow disk is late, too.
        if (file_write(testing_path(jobs[0].dir, "probe"), "{}", 2) != OK)
            return 1;
        note_rest(&last_s);
    }
    for (Job *job = jobs; job < jobs + N_JOBS; job++)
        read_texts(job);
    return 0;
}

static int run_jobs(void **state)
{
    (void)state;
    longest_ms =
        mmap(NULL, sizeof *longest_ms, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (longest_ms == MAP_FAILED)
        return 1;
    for (int round = 1;; round++, limit_s *= 2) {
        atomic_store(longest_ms, 0);
        const double start_s = log_seconds();
        if (start_jobs(start_s) != 0 || follow_jobs(start_s) != 0)
            return 1;
        if (round == MAX_ROUNDS || atomic_load(longest_ms) < MAX_LATE * limit_s * 1000)
            return 0;
    }
}

static const Job *job_named(const char *name)
{
    for (int i = 0; i < N_JOBS; i++)
        if (strcmp(jobs[i].name, name) == 0)
            return &jobs[i];
    fail_msg("no job %s", name);
    return NULL;
}

// `reporter` alone has written a line, which has all the parts, and has left.
static void check_report(const char *name, int reporter, const char *const *parts)
{
    const Job *job = job_named(name);
    for (int r = 0; r < N_RANKS; r++) {
        if (r != reporter && job->statuses[r] == KILLED && job->text[r][0] == '\0')
            continue;
        if (r != reporter)
            fail_msg("%s: rank %d left with %d: %s", name, r, job->statuses[r], job->text[r]);
        assert_int_equal(job->statuses[r], FAILED);
        assert_ptr_equal(strchr(job->text[r], '\n'), job->text[r] + strlen(job->text[r]) - 1);
        for (; *parts != NULL; parts++)
            if (strstr(job->text[r], *parts) == NULL)
                fail_msg("%s: no '%s' in: %s", name, *parts, job->text[r]);
    }
}

static void check_good_end(const char *name, bool may_write)
{
    const Job *job = job_named(name);
    for (int r = 0; r < N_RANKS; r++)
        if (job->statuses[r] != 0 || job->text[r][0] != '\0')
            fail_msg("%s: rank %d left with %d: %s", name, r, job->statuses[r], job->text[r]);
    assert_int_equal(job->has_written, may_write);
    assert_false(file_exists(testing_path(job->dir, "ranks")));
}

static void test_silent_rank_is_named(void **state)
{
    (void)state;
    char begin[96];
    snprintf(begin, sizeof begin,
             "mha2mla: error: stalled for %.3g min in reduce of step 412: ", limit_s / 60);
    check_report("one silent", 0,
                 (const char *[]){begin, ": rank 3 on node3 is silent since 20",
                                  "Z; ranks 0-2 wait; ", NULL});
}

static void test_rank_0_may_be_a_silent_one(void **state)
{
    (void)state;
    check_report("two silent", 1,
                 (const char *[]){"rank 0 on node0 is silent since 20",
                                  "; rank 2 on node2 is silent since 20", "Z; ranks 1, 3 wait; ",
                                  NULL});
}

static void test_rank_that_is_busy_too_long_is_named(void **state)
{
    (void)state;
    check_report("one busy", 0,
                 (const char *[]){"rank 1 on node1 is busy in save of step 412 since 20",
                                  "Z; ranks 0, 2-3 wait; ", NULL});
}

static void test_all_that_wait_for_each_other_are_told(void **state)
{
    (void)state;
    check_report("all wait", 0,
                 (const char *[]){"all 4 ranks wait for each other; look at the network", NULL});
}

// MPI spins while it waits, which is no work.
static void test_rank_that_spins_while_it_waits_shows_no_life(void **state)
{
    (void)state;
    check_report("one spins", 0,
                 (const char *[]){"all 4 ranks wait for each other; look at the network", NULL});
}

static void test_rank_with_heartbeats_is_waited_for(void **state)
{
    (void)state;
    check_good_end("one lives", true);
}

static void test_rank_that_computes_or_writes_without_heartbeats_is_waited_for(void **state)
{
    (void)state;
    check_good_end("one computes", true);
    check_good_end("one writes", true);
}

static void test_nothing_is_written_in_a_healthy_run(void **state)
{
    (void)state;
    check_good_end("healthy", false);
}

static void test_suspended_time_does_not_count(void **state)
{
    (void)state;
    check_good_end("suspended", true);
}

static void test_old_files_are_removed(void **state)
{
    (void)state;
    const char *dir = testing_dir(), *ranks = testing_path(dir, "ranks");
    assert_ok(file_make_dirs(ranks));
    assert_ok(file_write(testing_path(ranks, "rank-0003-waits.json"), "{}", 2));
    assert_ok(start_watchdog(dir, 0));
    assert_false(file_exists(ranks));
    watchdog_stop();
}

static void test_zero_minutes_watch_nothing(void **state)
{
    (void)state;
    const WatchdogSettings settings = {.dir = testing_dir(), .size = N_RANKS};
    assert_ok(watchdog_start(&settings));
    watchdog_phase("forward", 1);
    watchdog_stop();
    watchdog_stop(); // nothing to stop
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silent_rank_is_named),
        cmocka_unit_test(test_rank_0_may_be_a_silent_one),
        cmocka_unit_test(test_rank_that_is_busy_too_long_is_named),
        cmocka_unit_test(test_all_that_wait_for_each_other_are_told),
        cmocka_unit_test(test_rank_that_spins_while_it_waits_shows_no_life),
        cmocka_unit_test(test_rank_with_heartbeats_is_waited_for),
        cmocka_unit_test(test_rank_that_computes_or_writes_without_heartbeats_is_waited_for),
        cmocka_unit_test(test_nothing_is_written_in_a_healthy_run),
        cmocka_unit_test(test_suspended_time_does_not_count),
        cmocka_unit_test(test_old_files_are_removed),
        cmocka_unit_test(test_zero_minutes_watch_nothing),
    };
    return cmocka_run_group_tests(tests, run_jobs, NULL);
}
