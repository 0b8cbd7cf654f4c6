// infer/stop_text: where a text ends does not depend on how it is divided.
#include "tests/support/testing.h"

#include "base/random.h"
#include "infer/stop_text.h"

#include <string.h>

enum { MAX_TEXT = 64 };

// The text up to the first stop string, of those that end there the longest: by definition.
static int64_t expected_end(int *found, const char *text, const char *const *stops, int n_stops)
{
    const int64_t size = (int64_t)strlen(text);
    for (int64_t end = 1; end <= size; end++) {
        *found = -1;
        for (int s = 0; s < n_stops; s++) {
            const int64_t length = (int64_t)strlen(stops[s]);
            if (length <= end && strncmp(text + end - length, stops[s], (size_t)length) == 0 &&
                (*found < 0 || length > (int64_t)strlen(stops[*found])))
                *found = s;
        }
        if (*found >= 0)
            return end - (int64_t)strlen(stops[*found]);
    }
    *found = -1;
    return size;
}

static void check(const char *text, const char *const *stops, int n_stops, uint64_t seed)
{
    const int64_t size = (int64_t)strlen(text);
    char got[MAX_TEXT];
    int64_t n_got = 0;
    int found;
    StopText stop;
    assert_ok(stop_text_start(&stop, stops, n_stops));
    for (int64_t at = 0; at < size;) {
        int64_t n = (int64_t)(random_bits(seed, (uint64_t)at) % 4) + 1;
        n = n < size - at ? n : size - at;
        at += n;
        // The last part may come with the end of the text or before it.
        assert_ok(stop_text_push(&stop, text + at - n, n, at == size && seed % 2 == 0));
        memcpy(got + n_got, stop.bytes, (size_t)stop.n_ready);
        n_got += stop.n_ready;
    }
    assert_ok(stop_text_push(&stop, "", 0, true));
    if (stop.n_ready > 0)
        memcpy(got + n_got, stop.bytes, (size_t)stop.n_ready);
    n_got += stop.n_ready;
    const int64_t expected = expected_end(&found, text, stops, n_stops);
    if (n_got != expected || memcmp(got, text, (size_t)n_got) != 0)
        fail_msg("'%s' gives '%.*s', expected '%.*s'", text, (int)n_got, got, (int)expected, text);
    assert_int_equal(stop.found, found);
    stop_text_release(&stop);
}

static void test_any_division_gives_the_same_text(void **state)
{
    (void)state;
    static const char *const stops[] = {"aab", "b", "abcab", "ca", "bcb"};
    for (uint64_t seed = 0; seed < 20000; seed++) {
        char text[MAX_TEXT];
        const uint64_t size = random_bits(seed, 1000) % (MAX_TEXT - 1);
        for (uint64_t i = 0; i < size; i++)
            text[i] = (char)('a' + random_bits(seed, 2000 + i) % 3);
        text[size] = '\0';
        const uint64_t first = random_bits(seed, 1001) % 5;
        const uint64_t n_stops = random_bits(seed, 1002) % (6 - first);
        check(text, stops + first, (int)n_stops, seed);
    }
}

static void test_only_what_may_begin_a_stop_string_is_held(void **state)
{
    (void)state;
    static const char *const stops[] = {"\n\nUser:"};
    StopText stop;
    assert_ok(stop_text_start(&stop, stops, 1));
    assert_ok(stop_text_push(&stop, "Yes.\n", 5, false));
    assert_int_equal(stop.n_ready, 4);
    assert_ok(stop_text_push(&stop, "\nUs", 3, false));
    assert_int_equal(stop.n_ready, 0);
    assert_ok(stop_text_push(&stop, "ed", 2, false));
    assert_int_equal(stop.n_ready, 6);
    assert_memory_equal(stop.bytes, "\n\nUsed", 6);
    assert_ok(stop_text_push(&stop, " it.\n\nUser: no", 14, false));
    assert_int_equal(stop.n_ready, 4);
    assert_int_equal(stop.found, 0);
    assert_ok(stop_text_push(&stop, "more", 4, false)); // after the end there is no text
    assert_int_equal(stop.n_ready, 0);
    assert_ok(stop_text_push(&stop, "", 0, true));
    assert_int_equal(stop.n_ready, 0);
    stop_text_release(&stop);
}

static void test_an_empty_stop_string_is_refused(void **state)
{
    (void)state;
    static const char *const stops[] = {"a", ""};
    StopText stop;
    assert_fails(BAD_INPUT, "a stop string is empty", stop_text_start(&stop, stops, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_division_gives_the_same_text),
        cmocka_unit_test(test_only_what_may_begin_a_stop_string_is_held),
        cmocka_unit_test(test_an_empty_stop_string_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
