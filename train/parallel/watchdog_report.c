// The files by which the watchdogs of a job tell each other what their ranks do, and the one line
// that is made of them when a job stalls. A file is a small JSON object, rank-0003-waits.json or
// rank-0003-busy.json, so that a person can read it while the job hangs.
#define _GNU_SOURCE // for gmtime_r
#include "train/parallel/watchdog_report.h"

#include "base/file.h"
#include "base/json.h"

#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_NAMED = 8, TIME_BYTES = 32 };

// The file's name says whether the rank asks, so that a rank that has nothing to ask lists the
// directory and reads no files: with thousands of ranks that would be millions of reads.
static Status file_of(char out[PATH_BYTES], const char *dir, int rank, bool asks)
{
    char name[64];
    snprintf(name, sizeof name, "rank-%04d-%s.json", rank, asks ? "waits" : "busy");
    return file_join(out, dir, name);
}

// UTC, as hosts of one job may differ in their time zones.
static void format_time(char out[TIME_BYTES], int64_t seconds)
{
    const time_t time = (time_t)seconds;
    struct tm utc = {0};
    gmtime_r(&time, &utc);
    strftime(out, TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

// Renamed into place, as readers may come at any time. The file under the other name goes last: a
// rank with two files is heard, one with none is silent.
Status watchdog_write(const char *dir, int rank, const char *host, const WatchdogRank *own,
                      bool asks)
{
    char path[PATH_BYTES], other[PATH_BYTES], since[TIME_BYTES];
    TRY(file_of(path, dir, rank, asks));
    TRY(file_of(other, dir, rank, !asks));
    TRY(file_make_dirs(dir));
    format_time(since, own->since);
    json_t *root =
        json_pack("{s:i, s:s, s:s, s:s, s:I, s:f, s:s, s:I, s:I}", "rank", rank, "host", host,
                  "state", own->state == WATCHDOG_WAITS ? "waits" : "busy", "phase", own->phase,
                  "step", (json_int_t)own->step, "idle_s", own->idle_s, "since", since,
                  "since_unix", (json_int_t)own->since, "beat", (json_int_t)own->beat);
    if (root == NULL)
        return fail(FAILED, "%s: no memory, or the host's name is not UTF-8", path);
    const Status status = json_write(root, path);
    json_decref(root);
    if (status == OK)
        unlink(other);
    return status;
}

static Status parse_rank(WatchdogRank *out, const json_t *root, const char *path)
{
    WatchdogRank rank = {0};
    const char *state, *phase;
    TRY(json_get_string(&state, root, path, "state"));
    TRY(json_get_string(&phase, root, path, "phase"));
    TRY(json_get_int(&rank.step, root, path, "step", 0, INT64_MAX));
    TRY(json_get_real(&rank.idle_s, root, path, "idle_s", 0, INFINITY));
    TRY(json_get_int(&rank.since, root, path, "since_unix", 0, INT64_MAX));
    TRY(json_get_int(&rank.beat, root, path, "beat", 0, INT64_MAX));
    rank.state = strcmp(state, "waits") == 0 ? WATCHDOG_WAITS : WATCHDOG_BUSY;
    snprintf(rank.phase, sizeof rank.phase, "%s", phase);
    *out = rank;
    return OK;
}

// A file may vanish between the look and the read, as a rank renames or withdraws it: that is an
// error here and the next tick reads again.
Status watchdog_read(WatchdogRank *out, const char *dir, int rank)
{
    char path[PATH_BYTES];
    json_t *root = NULL;
    TRY(file_of(path, dir, rank, true));
    if (!file_exists(path))
        TRY(file_of(path, dir, rank, false));
    TRY(json_read(&root, path));
    const Status status = parse_rank(out, root, path);
    json_decref(root);
    return status;
}

void watchdog_remove(const char *dir, int rank)
{
    char path[PATH_BYTES];
    for (int asks = 0; asks <= 1; asks++) {
        if (file_of(path, dir, rank, asks != 0) != OK)
            continue;
        unlink(path);
    }
}

bool watchdog_is_asked(const char *dir, int rank)
{
    DIR *entries = opendir(dir);
    if (entries == NULL)
        return false;
    bool is_asked = false;
    for (const struct dirent *entry; !is_asked && (entry = readdir(entries)) != NULL;) {
        int other, end = 0;
        // %n after the whole pattern: a name with more behind it, such as the temporary file of a
        // write, does not count.
        is_asked = sscanf(entry->d_name, "rank-%d-waits.json%n", &other, &end) == 1 &&
                   end == (int)strlen(entry->d_name) && end > 0 && other != rank;
    }
    closedir(entries);
    return is_asked;
}

// ---- the line ----------------------------------------------------------------------------------

typedef struct Text {
    char *out;
    size_t size_bytes, used;
    bool is_begun; // a part is there, so that the next one needs a separator
} Text;

__attribute__((format(printf, 2, 3))) static void append(Text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text->out + text->used, text->size_bytes - text->used, format, args);
    va_end(args);
    text->used += n > 0 ? (size_t)n : 0;
    if (text->used >= text->size_bytes)
        text->used = text->size_bytes - 1;
}

static void begin_part(Text *text)
{
    append(text, "%s", text->is_begun ? "; " : ": ");
    text->is_begun = true;
}

static void append_phase(Text *text, const WatchdogRank *rank)
{
    append(text, " in %s", rank->phase);
    if (rank->step > 0)
        append(text, " of step %lld", (long long)rank->step);
}

// Whether a rank waits at the same place as the reporter: these are summed up in one part of the
// line, the others are named one by one.
static bool waits_with(const WatchdogRank *rank, const WatchdogRank *reporter)
{
    return rank->state == WATCHDOG_WAITS && rank->step == reporter->step &&
           strcmp(rank->phase, reporter->phase) == 0;
}

// The ranks that are not where the reporter is, one by one.
static void append_others(Text *text, const WatchdogRank *ranks,
                          const char (*hosts)[WATCHDOG_HOST_BYTES], int n_ranks, int reporter)
{
    int n_others = 0;
    for (int r = 0; r < n_ranks; r++) {
        if (waits_with(&ranks[r], &ranks[reporter]) || ++n_others > MAX_NAMED)
            continue;
        char since[TIME_BYTES];
        format_time(since, ranks[r].since);
        begin_part(text);
        append(text, "rank %d on %s ", r, hosts[r]);
        if (ranks[r].state == WATCHDOG_SILENT) {
            append(text, "is silent");
        } else {
            append(text, ranks[r].state == WATCHDOG_WAITS ? "waits" : "is busy");
            append_phase(text, &ranks[r]);
        }
        append(text, " since %s", since);
    }
    if (n_others > MAX_NAMED)
        append(text, "; %d more ranks likewise", n_others - MAX_NAMED);
}

// Ranks that wait where the reporter waits, as ranges: "ranks 0-2, 4-7 wait".
static void append_waiting(Text *text, const WatchdogRank *ranks, int n_ranks, int reporter)
{
    int count = 0;
    for (int r = 0; r < n_ranks; r++)
        count += waits_with(&ranks[r], &ranks[reporter]);
    begin_part(text);
    if (count == n_ranks) {
        append(text, "all %d ranks wait for each other; look at the network between them", n_ranks);
        return;
    }
    append(text, count == 1 ? "rank " : "ranks ");
    const char *separator = "";
    for (int first = 0; first < n_ranks; first++) {
        if (!waits_with(&ranks[first], &ranks[reporter]))
            continue;
        int last = first;
        while (last + 1 < n_ranks && waits_with(&ranks[last + 1], &ranks[reporter]))
            last++;
        append(text, last > first ? "%s%d-%d" : "%s%d", separator, first, last);
        separator = ", ";
        first = last;
    }
    append(text, count == 1 ? " waits" : " wait");
}

// What is unusual comes first: the ranks that are busy, silent or elsewhere are the likely cause,
// those that wait with the reporter its victims.
void watchdog_describe(char *out, size_t size_bytes, const WatchdogRank *ranks,
                       const char (*hosts)[WATCHDOG_HOST_BYTES], int n_ranks, int reporter,
                       double minutes, const char *limit_name)
{
    Text text = {.out = out, .size_bytes = size_bytes};
    append(&text, "stalled for %.3g min", minutes);
    append_phase(&text, &ranks[reporter]);
    append_others(&text, ranks, hosts, n_ranks, reporter);
    append_waiting(&text, ranks, n_ranks, reporter);
    append(&text, "; raise %s if they are only slow", limit_name);
}
