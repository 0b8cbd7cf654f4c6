// Lines for the user on stderr, so that stdout stays clean for results. Only rank 0 speaks, except
// for errors.
#ifndef MHA2MLA_BASE_LOG_H
#define MHA2MLA_BASE_LOG_H

#include <stdbool.h>

void log_set_quiet(bool quiet); // ranks above 0, and tests

// One line: "mha2mla: text".
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

// One line: "mha2mla: warning: text".
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

// One line: "mha2mla: error: text". For errors beside the one fail() carries; quiet ranks and tests
// stay quiet here too.
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The error of fail() as log_error() writes it, once: a second call says nothing.
void log_failure(void);

// Whether stderr is a terminal on which a line can be written over.
bool log_is_terminal(void);

// Columns of that terminal: its own word, else $COLUMNS, else 80.
int log_columns(void);

// Writes a line over the last one of these, at most log_columns() - 1 long. Other lines take its
// place. For terminals.
void log_live(const char *line);

// The live line is no more: it stays as it is above what follows, or goes.
void log_live_end(bool keep);

// Monotonic seconds.
double log_seconds(void);

#endif
