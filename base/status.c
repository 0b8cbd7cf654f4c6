// The error text has a fixed size and is owned by the thread: reporting an error allocates nothing,
// so it works when memory is the problem.
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 2048 }; // longer texts are cut

// Each thread has its own text, so that a background thread's error does not replace another's. The
// thread that joins or waits for it copies the text over.
static _Thread_local char error_text[TEXT_BYTES];
static int own_rank = 0;

// Control characters become '?': names and values of damaged files are part of messages, and must
// not break the line or the terminal.
static void keep_one_line(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

void fail_write(const char *format, ...)
{
    // Formatted aside first: an argument may be the current error text itself, fail_text().
    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    keep_one_line(text);
    memcpy(error_text, text, sizeof text);
}

void fail_write_prefix(const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    keep_one_line(text);
    if (used > 0 && used < TEXT_BYTES - 2) { // else the prefix alone fills the text
        memcpy(text + used, ": ", 2);
        size_t left = sizeof text - (size_t)used - 3;
        size_t length = strnlen(error_text, left);
        memcpy(text + used + 2, error_text, length);
        text[(size_t)used + 2 + length] = '\0';
    }
    memcpy(error_text, text, sizeof text);
}

const char *fail_text(void)
{
    return error_text;
}

void status_set_rank(int rank)
{
    own_rank = rank;
}

void check_failed(const char *file, int line, const char *condition, const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    // Straight to stderr: the log may be quiet on this rank. abort() rather than exit(): mpirun
    // ends the other ranks, and a debugger or core file shows where.
    fprintf(stderr, "mha2mla: rank %d: %s:%d: broken invariant (%s): %s; please report this\n",
            own_rank, file, line, condition, text);
    abort();
}
