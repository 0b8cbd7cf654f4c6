// Status codes and the one error text of a run.
//
// A function that can fail through the user's or the machine's fault returns Status. The first to
// notice writes the text with fail(): what, where, the offending value, and what to do. Callers
// pass it on with TRY; outputs are set only on OK. A broken invariant of ours is CHECK: it aborts.
//
//     Status shard_open(Shard *out, const char *path)
//     {
//         if (access(path, R_OK) != 0)
//             return fail(BAD_INPUT, "%s: cannot be read: %s", path, strerror(errno));
//         TRY(read_header(out, path));
//         return OK;
//     }
//
// The text belongs to the calling thread and lives until the next fail() there.
#ifndef MHA2MLA_BASE_STATUS_H
#define MHA2MLA_BASE_STATUS_H

#include <stdbool.h>

// The values are the program's exit statuses.
typedef enum Status {
    OK = 0,
    FAILED = 1,    // failed while running: disk full, peer lost, NaN
    BAD_INPUT = 2, // bad usage, config or input file
    STOPPED = 75,  // stopped on request after saving: start again
} Status;

// Status fail(Status kind, const char *format, ...): writes the error text of this thread and
// returns `kind`. A macro, so that the compiler sees which paths fail.
#define fail(kind, ...) (fail_write(__VA_ARGS__), (kind))
void fail_write(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

// Status fail_within(Status kind, const char *format, ...): puts "prefix: " before the current
// error text and returns `kind`, e.g. to add a file and line.
#define fail_within(kind, ...) (fail_write_prefix(__VA_ARGS__), (kind))
void fail_write_prefix(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

// The text of the last fail() in this thread; "" if none.
const char *fail_text(void);

// Ranks name themselves once so that CHECK can say who aborts.
void status_set_rank(int rank);

_Noreturn void check_failed(const char *file, int line, const char *condition, const char *format,
                            ...) __attribute__((format(printf, 4, 5), cold));

#define TRY(call)                                                                                  \
    do {                                                                                           \
        Status try_status_ = (call);                                                               \
        if (try_status_ != OK)                                                                     \
            return try_status_;                                                                    \
    } while (0)

// For functions with a cleanup ladder and a local `Status status`.
#define TRY_GOTO(label, call)                                                                      \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != OK)                                                                          \
            goto label;                                                                            \
    } while (0)

// CHECK(n > 0, "n = %d", n): our own invariant, always on.
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond))                                                                               \
            check_failed(__FILE__, __LINE__, #cond, __VA_ARGS__);                                  \
    } while (0)

#endif
