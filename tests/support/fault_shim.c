// Faults at a chosen call, for tests of faults (tests/torture.sh): a library for LD_PRELOAD that
// counts a process's calls on files under one directory and lets one of them, or all from there on,
// fail, write less than asked for, or end the process as kill -9 would. It can also set the wall
// clock to another time. Compiled by the script in its own folder; no part of the product.
//
//     TORTURE_UNDER=TEXT    what the paths of the counted files contain; unset: nothing is counted
//     TORTURE_RANK=N        the MPI rank that is struck (unset: every rank)
//     TORTURE_LOG=FILE      appends "RANK NUMBER CALL PATH" for each counted call
//     TORTURE_AT=NUMBER     the call that is struck, from 1
//     TORTURE_COUNT=N       how many calls from there on (default 1)
//     TORTURE_FAULT=NAME    EIO, ENOSPC, EDQUOT, EINTR, EACCES, EMFILE or ENOENT; SHORT: half of a
//                           write is done; KILL: the process ends before the call, KILL_AFTER:
//                           after it, KILL_HALF: after half of a write; HANG: the call never
//                           returns, as on a file system that does not answer; WAIT: it waits until
//                           FILE of TORTURE_GATE is there, which it removes, or until a signal is
//                           handled
//     TORTURE_GATE=FILE     what WAIT waits for
//     TORTURE_TEXT=REGEX    counts no calls but write() of bytes that match, as grep -E has it
//     TORTURE_FIRED=FILE    is made when a call is struck
//     TORTURE_CLOCK_S=S     moves the wall clock by S seconds ...
//     TORTURE_CLOCK_AFTER_MS=MS    ... this long after the start of the process
//
// stdio calls the kernel past this library, so fopen, fwrite of more than a buffer, and fflush are
// struck in place of the open and write below them.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 4096 }; // of a stream

typedef enum Fault { NONE, FAILS, SHORT, KILL, KILL_AFTER, KILL_HALF, HANG, WAIT } Fault;

static struct {
    const char *under, *log, *fired, *gate;
    bool has_text;
    regex_t text; // what a counted write has
    long at, count;
    Fault fault;
    int error;
    long rank; // of this process; -1: not started by mpirun
    double clock_s, clock_after_s, start_s;
} shim;

static atomic_long n_calls;
static atomic_int n_handled; // signals, where the fault is WAIT
static void (*handlers[NSIG])(int);
static _Atomic(FILE *) broken; // the stream whose fwrite failed: its error flag stays set

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtol(text, NULL, 10) : otherwise;
}

static double monotonic_s(void)
{
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void read_fault(const char *name)
{
    static const struct {
        const char *name;
        Fault fault;
        int error;
    } faults[] = {
        {"EIO", FAILS, EIO},         {"ENOSPC", FAILS, ENOSPC}, {"EDQUOT", FAILS, EDQUOT},
        {"EINTR", FAILS, EINTR},     {"EACCES", FAILS, EACCES}, {"EMFILE", FAILS, EMFILE},
        {"SHORT", SHORT, 0},         {"KILL", KILL, 0},         {"KILL_AFTER", KILL_AFTER, 0},
        {"KILL_HALF", KILL_HALF, 0}, {"HANG", HANG, 0},         {"WAIT", WAIT, 0},
        {"ENOENT", FAILS, ENOENT}};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        if (name != NULL && strcmp(name, faults[i].name) == 0) {
            shim.fault = faults[i].fault;
            shim.error = faults[i].error;
            return;
        }
    if (name != NULL) {
        fprintf(stderr, "fault_shim: TORTURE_FAULT %s is not known\n", name);
        abort();
    }
}

__attribute__((constructor)) static void read_environment(void)
{
    shim.rank = number("OMPI_COMM_WORLD_RANK", -1);
    shim.start_s = monotonic_s();
    const long struck = number("TORTURE_RANK", shim.rank);
    if (struck != shim.rank && getenv("TORTURE_LOG") == NULL)
        return;
    shim.log = getenv("TORTURE_LOG");
    shim.fired = getenv("TORTURE_FIRED");
    shim.has_text = getenv("TORTURE_TEXT") != NULL;
    if (shim.has_text && regcomp(&shim.text, getenv("TORTURE_TEXT"), REG_EXTENDED | REG_NOSUB) != 0)
        abort();
    shim.gate = getenv("TORTURE_GATE");
    shim.at = number("TORTURE_AT", 0);
    shim.count = number("TORTURE_COUNT", 1);
    shim.clock_s = (double)number("TORTURE_CLOCK_S", 0);
    shim.clock_after_s = (double)number("TORTURE_CLOCK_AFTER_MS", 0) * 1e-3;
    read_fault(getenv("TORTURE_FAULT"));
    shim.under = getenv("TORTURE_UNDER");
}

#define NEXT(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

// ---- which call is struck ----------------------------------------------------------------------

// By system calls of its own: the log must not be counted.
static void append(const char *path, const char *text)
{
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0)
        return;
    syscall(SYS_write, fd, text, strlen(text));
    syscall(SYS_close, fd);
}

static _Noreturn void die_here(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

// `n_before`: the signals that were handled before the wait was told of. The process reads
// meanwhile, which a watchdog takes for a sign of life: a wait is no stall, however long it takes
// the test to do what it is there for.
static void wait_for_gate(int n_before)
{
    const struct timespec rest = {.tv_nsec = 5000000};
    const int zeros = (int)syscall(SYS_openat, AT_FDCWD, "/dev/zero", O_RDONLY | O_CLOEXEC);
    char byte;
    while (atomic_load(&n_handled) == n_before &&
           (shim.gate == NULL || syscall(SYS_unlinkat, AT_FDCWD, shim.gate, 0) != 0)) {
        nanosleep(&rest, NULL);
        if (zeros >= 0)
            syscall(SYS_read, zeros, &byte, 1);
    }
    if (zeros >= 0)
        syscall(SYS_close, zeros);
}

// Counts a call on `path` and returns what becomes of it; does not return for KILL and HANG.
static Fault strike_counted(const char *call, const char *path)
{
    char line[4200];
    if (shim.under == NULL || path == NULL || strstr(path, shim.under) == NULL)
        return NONE;
    const long n = atomic_fetch_add(&n_calls, 1) + 1;
    if (shim.log != NULL) {
        snprintf(line, sizeof line, "%ld %ld %s %s\n", shim.rank, n, call, path);
        append(shim.log, line);
    }
    if (shim.fault == NONE || n < shim.at || n >= shim.at + shim.count)
        return NONE;
    const int n_before = atomic_load(&n_handled);
    if (shim.fired != NULL) {
        snprintf(line, sizeof line, "rank %ld, call %ld: %s %s\n", shim.rank, n, call, path);
        append(shim.fired, line);
    }
    if (shim.fault == KILL)
        die_here();
    while (shim.fault == HANG)
        pause();
    if (shim.fault == WAIT) {
        wait_for_gate(n_before);
        return NONE;
    }
    errno = shim.error;
    return shim.fault;
}

static Fault strike(const char *call, const char *path)
{
    return shim.has_text ? NONE : strike_counted(call, path);
}

static Fault strike_open_file(const char *call, int fd)
{
    char name[64], path[4096];
    if (shim.under == NULL)
        return NONE;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(name, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return strike_counted(call, path);
}

static Fault strike_fd(const char *call, int fd)
{
    return shim.has_text ? NONE : strike_open_file(call, fd);
}

static void end_call(Fault fault)
{
    if (fault == KILL_AFTER || fault == KILL_HALF)
        die_here();
}

// How many of `size` bytes a write gets; halves of an empty one are empty.
static size_t share(Fault fault, size_t size)
{
    return fault == SHORT || fault == KILL_HALF ? (size + 1) / 2 : size;
}

// ---- the calls ---------------------------------------------------------------------------------

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    const Fault fault = strike("open", path);
    if (fault == FAILS)
        return -1;
    const int fd = NEXT(open)(path, flags, mode);
    end_call(fault);
    return fd;
}

FILE *fopen(const char *path, const char *mode)
{
    const Fault fault = strike("open", path);
    if (fault == FAILS)
        return NULL;
    FILE *stream = NEXT(fopen)(path, mode);
    end_call(fault);
    return stream;
}

static bool has_text(const void *bytes, size_t size)
{
    regmatch_t within = {.rm_eo = (regoff_t)size};
    return regexec(&shim.text, bytes, 1, &within, REG_STARTEND) == 0;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    const bool counts = !shim.has_text || has_text(bytes, size);
    const Fault fault = counts ? strike_open_file("write", fd) : NONE;
    if (fault == FAILS)
        return -1;
    const ssize_t n = NEXT(write)(fd, bytes, share(fault, size));
    end_call(fault);
    return n;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    const Fault fault = strike_fd("write", fd);
    if (fault == FAILS)
        return -1;
    const ssize_t n = NEXT(pwrite)(fd, bytes, share(fault, size), offset);
    end_call(fault);
    return n;
}

ssize_t read(int fd, void *bytes, size_t size)
{
    const Fault fault = strike_fd("read", fd);
    return fault == FAILS ? -1 : NEXT(read)(fd, bytes, share(fault, size));
}

ssize_t pread(int fd, void *bytes, size_t size, off_t offset)
{
    const Fault fault = strike_fd("read", fd);
    return fault == FAILS ? -1 : NEXT(pread)(fd, bytes, share(fault, size), offset);
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *stream)
{
    const Fault fault = size * count > BUFFER_BYTES ? strike_fd("write", fileno(stream)) : NONE;
    if (fault == FAILS) {
        broken = stream;
        return 0;
    }
    if (fault == KILL_HALF) {
        NEXT(fwrite)(bytes, 1, size * count / 2, stream);
        die_here();
    }
    const size_t n = NEXT(fwrite)(bytes, size, count, stream);
    end_call(fault);
    return n;
}

int fflush(FILE *stream)
{
    const Fault fault = stream != NULL ? strike_fd("write", fileno(stream)) : NONE;
    if (stream != NULL && stream == broken) {
        broken = NULL;
        errno = shim.error;
        return EOF;
    }
    if (fault == FAILS)
        return EOF;
    const int status = NEXT(fflush)(stream);
    end_call(fault);
    return status;
}

int fsync(int fd)
{
    const Fault fault = strike_fd("fsync", fd);
    if (fault == FAILS)
        return -1;
    const int status = NEXT(fsync)(fd);
    end_call(fault);
    return status;
}

int ftruncate(int fd, off_t size)
{
    const Fault fault = strike_fd("truncate", fd);
    if (fault == FAILS)
        return -1;
    const int status = NEXT(ftruncate)(fd, size);
    end_call(fault);
    return status;
}

int rename(const char *from, const char *to)
{
    const Fault fault = strike("rename", to);
    if (fault == FAILS)
        return -1;
    const int status = NEXT(rename)(from, to);
    end_call(fault);
    return status;
}

int unlink(const char *path)
{
    const Fault fault = strike("unlink", path);
    if (fault == FAILS)
        return -1;
    const int status = NEXT(unlink)(path);
    end_call(fault);
    return status;
}

int mkdir(const char *path, mode_t mode)
{
    const Fault fault = strike("mkdir", path);
    if (fault == FAILS)
        return -1;
    const int status = NEXT(mkdir)(path, mode);
    end_call(fault);
    return status;
}

// ---- signals, which end a wait -----------------------------------------------------------------

static void count_signal(int number)
{
    atomic_fetch_add(&n_handled, 1);
    handlers[number](number);
}

int sigaction(int number, const struct sigaction *restrict action, struct sigaction *restrict old)
{
    struct sigaction counted;
    if (shim.fault == WAIT && action != NULL && (action->sa_flags & SA_SIGINFO) == 0 &&
        action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN &&
        action->sa_handler != count_signal && number > 0 && number < NSIG) {
        counted = *action;
        handlers[number] = action->sa_handler;
        counted.sa_handler = count_signal;
        action = &counted;
    }
    return NEXT(sigaction)(number, action, old);
}

// ---- the clock ---------------------------------------------------------------------------------

// Only the wall clock: no setting of the time moves CLOCK_MONOTONIC.
static time_t shift(void)
{
    const bool is_due = monotonic_s() - shim.start_s >= shim.clock_after_s;
    return is_due ? (time_t)shim.clock_s : 0;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    const int status = (int)syscall(SYS_clock_gettime, clock, out);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        out->tv_sec += shift();
    return status;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}
