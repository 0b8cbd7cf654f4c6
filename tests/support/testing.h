// What the cmocka tests share: includes in the order cmocka wants, temporary directories, and
// comparisons of float vectors that say where they differ.
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_H

// Under the address sanitizer code is about eight times as slow: what repeats the same code on
// larger inputs for the sake of its numbers may be left out there.
#ifdef __SANITIZE_ADDRESS__
enum { TESTING_IS_SANITIZED = 1 };
#else
enum { TESTING_IS_SANITIZED = 0 };
#endif

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
// cmocka's fail() macro would hide base/status.h's function.
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                              \
    (print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#include "base/status.h"

// Fails the test with the error text unless the call returns OK.
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        Status assert_status_ = (call);                                                            \
        if (assert_status_ != OK)                                                                  \
            fail_msg("%s: status %d: %s", #call, (int)assert_status_, fail_text());                \
    } while (0)

// Fails the test unless the call returns `kind` with a text that contains `part`.
#define assert_fails(kind, part, call) testing_assert_fails((kind), (part), (call), #call)
void testing_assert_fails(Status kind, const char *part, Status got, const char *call);

// max |a - b| / max(floor, max |b|): the error relative to the largest expected value.
double testing_error(const float *a, const float *b, int64_t count, double floor);

// Fails unless testing_error(a, b, count, 1e-6) <= tolerance; names `what` and the error.
void testing_assert_close(const char *what, const float *a, const float *b, int64_t count,
                          double tolerance);

// A new directory under TMPDIR, removed with its content at exit. Static storage per call site's
// lifetime: the caller copies if it needs more than one.
const char *testing_dir(void);

// "DIR/absent/name" in a new directory, where "absent" is not: for what must not be found.
const char *testing_absent(const char *name);

// "DIR/name" in static storage (a ring of eight).
const char *testing_path(const char *dir, const char *name);

// How many files and directories are in a directory, hidden ones included.
int testing_count_files(const char *dir);

// Fails if a temporary file (base/temporary.h) is in the directory of `path`.
void testing_no_temporaries(const char *path);

// From now on no file can become longer, so that writes fail as on a full disk, with "File too
// large"; -1: without a limit again.
void testing_limit_files(int64_t bytes);

// ASSETS_DIR/name, or skips the test (cmocka) where the assets are missing.
const char *testing_asset(const char *name);

// What a function writes on stderr; cut at out_bytes - 1.
void testing_capture(char *out, size_t out_bytes, void (*say)(void));

// Deterministic standard-normal floats times `scale`.
void testing_fill(float *out, int64_t count, double scale, uint64_t seed);

#endif
