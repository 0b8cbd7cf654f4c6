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

// Monotonic seconds.
double log_seconds(void);

#endif
