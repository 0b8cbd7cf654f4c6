// Progress lines, on a terminal and in a log file. The terminal is a pseudo-terminal in
// stderr's place. The clock stands still; time is made by setting a meter's start back.
#define _GNU_SOURCE // posix_openpt
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

// In the C library's place.
int clock_gettime(clockid_t clock, struct timespec *now)
{
    (void)clock;
    *now = (struct timespec){.tv_sec = 1000000};
    return 0;
}

// Reads to the end of a file, or of a terminal's output: its last line is "end". A terminal hands
// out what is there, which may be less than what was written.
static void read_all(char *text, size_t room, int reader, bool is_terminal)
{
    static const char end[] = "end\r\n";
    size_t n = 0;
    while (n + 1 < room) {
        const ssize_t more = read(reader, text + n, room - 1 - n);
        assert_true(more >= 0);
        n += (size_t)more;
        text[n] = '\0';
        char *last = n >= sizeof end - 1 ? text + n - (sizeof end - 1) : NULL;
        if (is_terminal && last != NULL && strcmp(last, end) == 0) {
            *last = '\0';
            return;
        }
        if (more == 0)
            break;
    }
    assert_false(is_terminal);
    text[n] = '\0';
}

// Calls the function with stderr in a file, or in a terminal of so many columns, and returns what
// was said.
static const char *capture(int columns, void (*say)(void))
{
    static char text[2048];
    char path[PATH_BYTES];
    int reader, writer;
    const int saved = dup(STDERR_FILENO);
    if (columns > 0) {
        const struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = 24};
        reader = posix_openpt(O_RDWR | O_NOCTTY);
        if (reader < 0 || grantpt(reader) != 0 || unlockpt(reader) != 0)
            skip();
        writer = open(ptsname(reader), O_RDWR | O_NOCTTY);
        assert_true(writer >= 0 && ioctl(writer, TIOCSWINSZ, &size) == 0);
    } else {
        assert_ok(file_join(path, testing_dir(), "said.XXXXXX"));
        reader = mkstemp(path);
        assert_true(reader >= 0 && unlink(path) == 0);
        writer = dup(reader);
    }
    fflush(stderr);
    assert_true(saved >= 0 && dup2(writer, STDERR_FILENO) >= 0);
    say();
    fflush(stderr);
    if (columns > 0)
        fputs("end\n", stderr);
    else
        lseek(reader, 0, SEEK_SET);
    read_all(text, sizeof text, reader, columns > 0);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(writer);
    close(reader);
    return text;
}

static ProgressMeter started(double ago_s, int64_t total)
{
    ProgressMeter meter = progress_start("reading", "samples", total);
    meter.start_s -= ago_s;
    meter.shown_s -= ago_s;
    return meter;
}

static void show_short_work(void)
{
    ProgressMeter meter = started(0, 4);
    for (int i = 1; i <= 4; i++)
        progress_show(&meter, i);
    progress_end(&meter);
}

static void test_short_work_says_nothing(void **state)
{
    (void)state;
    assert_string_equal(capture(0, show_short_work), "");
    assert_string_equal(capture(80, show_short_work), "");
}

static void show_after_5_and_after_30_s(void)
{
    ProgressMeter meter = started(5, 400);
    progress_show(&meter, 50); // too early
    meter = started(30, 400);
    progress_show(&meter, 100);
    progress_show(&meter, 101); // too soon again
    progress_end(&meter);
}

static void test_plain_line_every_ten_seconds(void **state)
{
    (void)state;
    assert_string_equal(capture(0, show_after_5_and_after_30_s),
                        "mha2mla: reading: 100 of 400 samples, 0:30, 1:30 left\n");
}

static void show_live(void)
{
    ProgressMeter meter = started(5, 400);
    progress_show(&meter, 50);
    log_info("by the way");
    meter.shown_s -= 1;
    progress_show(&meter, 100);
    progress_end(&meter);
}

static void test_live_line_gives_way_and_goes(void **state)
{
    (void)state;
    assert_string_equal(capture(80, show_live),
                        "\r\033[Kreading: 50 of 400 samples, 0:05, 0:35 left"
                        "\r\033[Kmha2mla: by the way\r\n"
                        "\r\033[Kreading: 100 of 400 samples, 0:05, 0:15 left"
                        "\r\033[K");
}

static void test_live_line_fits_the_terminal(void **state)
{
    (void)state;
    assert_string_equal(capture(12, show_live), "\r\033[Kreading: 50\r\033[Kmha2mla: by the way\r\n"
                                                "\r\033[Kreading: 10\r\033[K");
}

static void show_numbers(void)
{
    ProgressMeter meter = progress_start("writing", "numbers", 2500000000);
    meter.start_s = meter.shown_s = log_seconds() - 7260;
    progress_show(&meter, 1000000000);
    meter.shown_s -= 60;
    progress_show(&meter, 3000000000);
    progress_end(&meter);
}

static void test_large_numbers_and_hours(void **state)
{
    (void)state;
    assert_string_equal(capture(0, show_numbers),
                        "mha2mla: writing: 1000 of 2500 M numbers, 2:01:00, 3:01:30 left\n"
                        "mha2mla: writing: 2500 of 2500 M numbers, 2:01:00, 0:00 left\n");
}

static void test_clock_of_any_time(void **state)
{
    (void)state;
    char text[PROGRESS_CLOCK_BYTES];
    const struct {
        double seconds;
        const char *text;
    } cases[] = {{-1, "0:00"},      {59.9, "0:59"},        {3599, "59:59"},
                 {3600, "1:00:00"}, {360061, "100:01:01"}, {1e300, "2500000000000:00:00"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        progress_clock(text, cases[i].seconds);
        assert_string_equal(text, cases[i].text);
    }
}

static int n_beats;

static void count_beat(void)
{
    n_beats++;
}

static void test_work_that_shows_nothing_beats(void **state)
{
    (void)state;
    ProgressMeter meter = started(0, 4);
    progress_beat(); // nobody listens
    progress_set_heartbeat(count_beat);
    progress_show(&meter, 1);
    progress_beat();
    progress_set_heartbeat(NULL);
    progress_show(&meter, 2);
    assert_int_equal(n_beats, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_work_says_nothing),
        cmocka_unit_test(test_plain_line_every_ten_seconds),
        cmocka_unit_test(test_live_line_gives_way_and_goes),
        cmocka_unit_test(test_live_line_fits_the_terminal),
        cmocka_unit_test(test_large_numbers_and_hours),
        cmocka_unit_test(test_clock_of_any_time),
        cmocka_unit_test(test_work_that_shows_nothing_beats),
    };
    setenv("TERM", "xterm", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
