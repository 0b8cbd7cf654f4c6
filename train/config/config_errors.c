// Errors have a size of their own, so that collecting them cannot fail for lack of memory.
#include "train/config/config_errors.h"

#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// The first MAX_ERRORS are kept, all are counted. A text that is too long is cut.
void errors_add(ConfigErrors *errors, int line, const char *path, const char *format, ...)
{
    if (errors->n++ >= MAX_ERRORS)
        return;
    ConfigError *error = &errors->kept[errors->n - 1];
    error->line = line;
    snprintf(error->path, sizeof error->path, "%s", path);
    int used = 0;
    if (line == LINE_OVERRIDE)
        used = snprintf(error->text, sizeof error->text, "command line: ");
    else if (line == LINE_NONE)
        used = snprintf(error->text, sizeof error->text, "%.400s: ", errors->file);
    else
        used = snprintf(error->text, sizeof error->text, "%.400s:%d: ", errors->file, line);
    va_list args;
    va_start(args, format);
    vsnprintf(error->text + used, sizeof error->text - (size_t)used, format, args);
    va_end(args);
}

// "optim.lr" lies in "optim" and in itself, not in "opt". No path lies in "".
static bool lies_in(const char *path, const char *block)
{
    size_t length = strlen(block);
    return strncmp(block, path, length) == 0 && (path[length] == '\0' || path[length] == '.');
}

bool errors_has(const ConfigErrors *errors, const char *path)
{
    for (int i = 0; i < errors->n && i < MAX_ERRORS; i++) {
        if (lies_in(path, errors->kept[i].path))
            return true;
    }
    return errors->n > MAX_ERRORS; // one that was not kept may be at this key
}

// An error at the block itself or at any key in it.
bool errors_within(const ConfigErrors *errors, const char *block)
{
    for (int i = 0; i < errors->n && i < MAX_ERRORS; i++) {
        if (lies_in(errors->kept[i].path, block))
            return true;
    }
    return errors_has(errors, block);
}

// In the order of the file's lines; errors without a line come last.
static bool comes_before(const ConfigError *a, const ConfigError *b)
{
    if (a->line <= 0 || b->line <= 0)
        return a->line > 0 && b->line <= 0;
    return a->line < b->line;
}

// A single error is the Status's own text, so that it is printed in one line like every other
// error; several are logged one by one and the Status counts them.
Status errors_report(ConfigErrors *errors)
{
    int n_kept = errors->n < MAX_ERRORS ? errors->n : MAX_ERRORS;
    if (errors->n == 0)
        return OK;
    if (errors->n == 1)
        return fail(BAD_INPUT, "%s", errors->kept[0].text);
    const ConfigError *sorted[MAX_ERRORS];
    for (int i = 0; i < n_kept; i++) { // insertion keeps equal lines in the order found
        int j = i;
        for (; j > 0 && comes_before(&errors->kept[i], sorted[j - 1]); j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = &errors->kept[i];
    }
    for (int i = 0; i < n_kept; i++)
        log_error("%s", sorted[i]->text);
    if (errors->n > n_kept)
        log_error("%s: %d more errors not shown", errors->file, errors->n - n_kept);
    return fail(BAD_INPUT, "%s: %d errors", errors->file, errors->n);
}
