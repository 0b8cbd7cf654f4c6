#define _GNU_SOURCE
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/random.h"

#include <dirent.h>
#include <libgen.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

void testing_assert_fails(Status kind, const char *part, Status got, const char *call)
{
    if (got != kind)
        fail_msg("%s: status %d, expected %d", call, (int)got, (int)kind);
    if (strstr(fail_text(), part) == NULL)
        fail_msg("%s: error text is '%s', expected '%s' in it", call, fail_text(), part);
    if (strchr(fail_text(), '\n') != NULL)
        fail_msg("%s: error text has more than one line: '%s'", call, fail_text());
}

double testing_error(const float *a, const float *b, int64_t count, double floor)
{
    double worst = 0, scale = floor;
    for (int64_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (isnan(difference)) // no later difference may hide it
            return difference;
        if (difference > worst)
            worst = difference;
        if (fabs((double)b[i]) > scale)
            scale = fabs((double)b[i]);
    }
    return worst / scale;
}

void testing_assert_close(const char *what, const float *a, const float *b, int64_t count,
                          double tolerance)
{
    double error = testing_error(a, b, count, 1e-6);
    if (!(error <= tolerance))
        fail_msg("%s: relative error %.3g, allowed %.3g", what, error, tolerance);
}

static char made_dirs[128][PATH_BYTES];
static int n_made = 0;

static void remove_dirs(void)
{
    for (int i = 0; i < n_made; i++) {
        char command[PATH_BYTES + 16];
        snprintf(command, sizeof command, "rm -rf '%.4000s'", made_dirs[i]);
        if (system(command) != 0)
            fprintf(stderr, "%s: not removed\n", made_dirs[i]);
    }
}

const char *testing_dir(void)
{
    const char *root = getenv("TMPDIR");
    CHECK(n_made < 128, "too many temporary directories");
    char *path = made_dirs[n_made];
    snprintf(path, PATH_BYTES, "%s/mha2mla-test-XXXXXX", root != NULL ? root : "/tmp");
    CHECK(mkdtemp(path) != NULL, "no temporary directory %s", path);
    if (n_made++ == 0)
        atexit(remove_dirs);
    return path;
}

const char *testing_path(const char *dir, const char *name)
{
    static char ring[8][PATH_BYTES];
    static int next = 0;
    char *path = ring[next++ % 8];
    CHECK(file_join(path, dir, name) == OK, "%s", fail_text());
    return path;
}

const char *testing_absent(const char *name)
{
    return testing_path(testing_path(testing_dir(), "absent"), name);
}

static int count_files(const char *dir, const char *part)
{
    int count = 0;
    DIR *entries = opendir(dir);
    CHECK(entries != NULL, "%s cannot be listed", dir);
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strstr(entry->d_name, part) != NULL;
    closedir(entries);
    return count;
}

int testing_count_files(const char *dir)
{
    return count_files(dir, "");
}

void testing_no_temporaries(const char *path)
{
    char copy[PATH_BYTES]; // dirname() writes into its argument
    snprintf(copy, sizeof copy, "%s", path);
    const char *dir = dirname(copy);
    if (file_is_dir(dir))
        assert_int_equal(count_files(dir, ".tmp-"), 0);
}

void testing_limit_files(int64_t bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < 0 ? limit.rlim_max : (rlim_t)bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

const char *testing_asset(const char *name)
{
    const char *path = testing_path(ASSETS_DIR, name);
    if (!file_exists(path)) {
        print_message("skipped: %s is missing\n", path);
        skip();
    }
    return path;
}

void testing_capture(char *out, size_t out_bytes, void (*say)(void))
{
    fflush(stderr);
    FILE *file = tmpfile();
    const int saved = dup(STDERR_FILENO);
    assert_non_null(file);
    assert_true(saved >= 0);
    dup2(fileno(file), STDERR_FILENO);
    say();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    out[fread(out, 1, out_bytes - 1, file)] = '\0';
    fclose(file);
}

void testing_fill(float *out, int64_t count, double scale, uint64_t seed)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(scale * random_normal(seed, (uint64_t)i));
}
