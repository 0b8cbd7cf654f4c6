// At most one live line is on the terminal, always the last one. Whoever writes a line that stays
// erases it first, so the live line never mixes with others and leaves nothing behind.
#include "base/log.h"

#include "base/status.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

// ECMA-48: to the first column, erase to the end of the line. Every terminal but "dumb" knows it.
#define ERASE_LINE "\r\033[K"

// Set once at the start, before threads exist.
static bool is_quiet = false;
static atomic_bool is_live = false; // a live line is on the terminal; lines come from any thread

void log_set_quiet(bool quiet)
{
    is_quiet = quiet;
}

static void write_line(const char *prefix, const char *format, va_list args)
{
    if (is_quiet)
        return;
    char line[2048];
    vsnprintf(line, sizeof line, format, args);
    const char *erase = atomic_exchange(&is_live, false) ? ERASE_LINE : "";
    // One write per line: ranks share stderr, and pieces of several calls could mix.
    fprintf(stderr, "%smha2mla: %s%s\n", erase, prefix, line);
}

void log_info(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line("", format, args);
    va_end(args);
}

void log_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line("warning: ", format, args);
    va_end(args);
}

void log_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line("error: ", format, args);
    va_end(args);
}

void log_failure(void)
{
    static bool is_said = false; // the rank's own report may be followed by main()'s
    if (!is_said)
        log_error("%s", fail_text());
    is_said = true;
}

// "dumb" is what Emacs and some CI systems set: no cursor movement.
bool log_is_terminal(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) == 1 && (term == NULL || strcmp(term, "dumb") != 0);
}

int log_columns(void)
{
    struct winsize size;
    // The size is asked for each time: windows are resized during a run.
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    const char *columns = getenv("COLUMNS");
    const long n = columns != NULL ? strtol(columns, NULL, 10) : 0;
    return n > 0 && n <= 10000 ? (int)n : 80;
}

void log_live(const char *line)
{
    if (is_quiet)
        return;
    // In the last column many terminals wrap, and the next ERASE_LINE would miss the first part.
    fprintf(stderr, ERASE_LINE "%.*s", log_columns() - 1, line);
    atomic_store(&is_live, true);
}

void log_live_end(bool keep)
{
    if (atomic_exchange(&is_live, false))
        fputs(keep ? "\n" : ERASE_LINE, stderr);
}

// Not the wall clock, which jumps when the machine's time is set.
double log_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
