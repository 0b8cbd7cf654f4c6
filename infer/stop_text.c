// The end of the text so far is compared with every stop string after each byte: stop strings are
// few and short, and a text grows by some bytes per token.
#include "infer/stop_text.h"

#include <stdlib.h>
#include <string.h>

Status stop_text_start(StopText *out, const char *const *stops, int n_stops)
{
    for (int s = 0; s < n_stops; s++)
        if (stops[s][0] == '\0')
            return fail(BAD_INPUT, "a stop string is empty");
    *out = (StopText){.stops = stops, .n_stops = n_stops, .found = -1};
    return OK;
}

void stop_text_release(StopText *stop)
{
    free(stop->bytes);
    *stop = (StopText){0};
}

// The longest stop string that ends with bytes[end - 1], or -1.
static int find_complete(const StopText *stop, int64_t end)
{
    int found = -1;
    int64_t longest = 0;
    for (int s = 0; s < stop->n_stops; s++) {
        const int64_t length = (int64_t)strlen(stop->stops[s]);
        if (length <= end && length > longest &&
            memcmp(stop->bytes + end - length, stop->stops[s], (size_t)length) == 0) {
            found = s;
            longest = length;
        }
    }
    return found;
}

// How many of the last bytes may be the beginning of a stop string.
static int64_t count_held(const StopText *stop)
{
    int64_t held = 0;
    for (int s = 0; s < stop->n_stops; s++) {
        const int64_t length = (int64_t)strlen(stop->stops[s]);
        int64_t n = length - 1 < stop->size ? length - 1 : stop->size;
        while (n > held && memcmp(stop->bytes + stop->size - n, stop->stops[s], (size_t)n) != 0)
            n--;
        held = n > held ? n : held;
    }
    return held;
}

static void drop_ready(StopText *stop)
{
    if (stop->n_ready > 0)
        memmove(stop->bytes, stop->bytes + stop->n_ready, (size_t)(stop->size - stop->n_ready));
    stop->size -= stop->n_ready;
    stop->n_ready = 0;
}

static Status reserve(StopText *stop, int64_t more)
{
    if (more <= stop->capacity - stop->size)
        return OK;
    const int64_t capacity = 2 * (stop->size + more);
    char *bytes = realloc(stop->bytes, (size_t)capacity);
    if (bytes == NULL)
        return fail(FAILED, "no memory for %lld bytes of text", (long long)capacity);
    stop->bytes = bytes;
    stop->capacity = capacity;
    return OK;
}

Status stop_text_push(StopText *stop, const char *part, int64_t size, bool is_last)
{
    drop_ready(stop);
    if (stop->found >= 0)
        return OK;
    TRY(reserve(stop, size));
    if (size > 0)
        memcpy(stop->bytes + stop->size, part, (size_t)size);
    const int64_t end = stop->size + size;
    while (stop->size < end) {
        stop->found = find_complete(stop, ++stop->size);
        if (stop->found >= 0) {
            stop->size -= (int64_t)strlen(stop->stops[stop->found]);
            stop->n_ready = stop->size;
            return OK;
        }
    }
    stop->n_ready = is_last ? stop->size : stop->size - count_held(stop);
    return OK;
}
