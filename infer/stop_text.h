// Stop strings in a text that comes in parts: where the first of them is complete, the text ends
// before it. Where the parts are divided does not matter: bytes that may begin a stop string are
// held until it is known.
//
//     const char *const stops[] = {"\n\n", "User:"};
//     StopText stop;
//     TRY(stop_text_start(&stop, stops, 2));
//     TRY_GOTO(release, stop_text_push(&stop, part, size, false)); // stop.bytes [stop.n_ready]
//     ...
//     TRY_GOTO(release, stop_text_push(&stop, part, size, true)); // no more comes
//     stop_text_release(&stop);
//
// Parts and stop strings are whole characters of UTF-8, and so is what is ready.
#ifndef MHA2MLA_INFER_STOP_TEXT_H
#define MHA2MLA_INFER_STOP_TEXT_H

#include "base/status.h"

#include <stdint.h>

typedef struct StopText {
    const char *const *stops; // borrowed [n_stops], none empty
    int n_stops;
    int found;   // the stop string that ended the text; -1: none yet
    char *bytes; // owned: the ready part, then what is held
    int64_t size, capacity;
    int64_t n_ready; // of bytes: text since the last call
} StopText;

Status stop_text_start(StopText *out, const char *const *stops, int n_stops);

// Takes the next part [size]; afterwards bytes [n_ready] are text that is certain now: of the last
// part all of it, unless a stop string has ended the text. Of stop strings that end at the same
// byte the longest counts. FAILED without memory.
Status stop_text_push(StopText *stop, const char *part, int64_t size, bool is_last);

void stop_text_release(StopText *stop); // a zeroed one is allowed

#endif
