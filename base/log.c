#include "base/log.h"

#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static bool is_quiet = false;

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
    fprintf(stderr, "mha2mla: %s%s\n", prefix, line); // one write per line: ranks share stderr
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
    static bool is_said = false;
    if (!is_said)
        log_error("%s", fail_text());
    is_said = true;
}

double log_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
