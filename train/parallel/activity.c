// How to tell a process that works from one that is stuck, without any help from the code that
// works: by what the kernel counts for it. CPU time comes from the POSIX clock of one thread, bytes
// from /proc/PID/io (Linux, proc(5)). Both only ever grow, so two readings and a difference are
// enough, and no lock is shared with the thread that is watched.
#define _GNU_SOURCE // pthread_getcpuclockid
#include "train/parallel/activity.h"

#include <pthread.h>
#include <stdio.h>

// A thread that uses a smaller share of its time only wakes up now and then to look at something.
static const double MIN_CPU_SHARE = 0.01;

// Bytes that passed through system calls, and those that storage moved: pages of mapped files are
// among these alone. 0 where the kernel does not tell.
static int64_t moved_bytes(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[128];
    int64_t sum = 0;
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL) {
        long long bytes;
        if (sscanf(line, "rchar: %lld", &bytes) == 1 || sscanf(line, "wchar: %lld", &bytes) == 1 ||
            sscanf(line, "read_bytes: %lld", &bytes) == 1 ||
            sscanf(line, "write_bytes: %lld", &bytes) == 1)
            sum += bytes;
    }
    fclose(file);
    return sum;
}

// The bytes of all threads but this one, whose looking reads files itself. What it reads between
// the two calls is in the second number alone, so the difference is never too large.
static int64_t moved_by_others(void)
{
    const int64_t all = moved_bytes("/proc/self/io");
    return all - moved_bytes("/proc/thread-self/io");
}

// 0 where the clock is gone: then no CPU time advances, and the bytes alone decide.
static double cpu_seconds(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) != 0)
        return 0;
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

Activity activity_start(void)
{
    // The clock of the calling thread, not of the process: the watchdog's own thread burns a little
    // CPU time as well, and so do those of MPI.
    Activity activity = {.moved_bytes = -1}; // not looked at yet
    if (pthread_getcpuclockid(pthread_self(), &activity.clock) != 0)
        activity.clock = CLOCK_PROCESS_CPUTIME_ID;
    activity.cpu_s = cpu_seconds(activity.clock);
    return activity;
}

bool activity_has_advanced(Activity *activity, double elapsed_s)
{
    const double cpu_s = cpu_seconds(activity->clock);
    const int64_t bytes = moved_by_others();
    const bool has_computed = cpu_s - activity->cpu_s >= MIN_CPU_SHARE * elapsed_s;
    // The first look has no earlier count to compare with.
    const bool has_moved = activity->moved_bytes >= 0 && bytes > activity->moved_bytes;
    activity->cpu_s = cpu_s;
    activity->moved_bytes = bytes;
    return has_computed || has_moved;
}
