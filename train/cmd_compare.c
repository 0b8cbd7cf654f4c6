// mha2mla compare: runs side by side, from the run.json and metrics.jsonl in their directories.
#include "base/file.h"
#include "base/json.h"
#include "train/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct RunRow {
    json_t *run;                   // owned
    const char *name, *rope, *svd; // borrowed from it
    bool is_mla;
    int64_t d_kv, rope_pairs, cache, original_cache; // numbers per token
    double original_loss;                            // validation loss before conversion
    double start_loss;                               // right after conversion
    double last_loss;
    int64_t tokens; // trained on at the last line
    int last_step, n_steps;
} RunRow;

static Status take_line(RunRow *row, const json_t *line, const char *where)
{
    int64_t step, tokens;
    TRY(json_get_int(&step, line, where, "step", 0, INT32_MAX));
    TRY(json_get_int(&tokens, line, where, "tokens", 0, INT64_MAX));
    row->last_step = (int)step;
    row->tokens = tokens;
    if (!json_has(line, "valid_loss"))
        return OK;
    double loss;
    TRY(json_get_real(&loss, line, where, "valid_loss", -INFINITY, INFINITY));
    if (step == 0)
        row->start_loss = loss;
    row->last_loss = loss;
    return OK;
}

// A run that is still going may be in the middle of its last line: that line is not read.
static Status read_metrics(RunRow *row, const char *path)
{
    FileMap map;
    TRY(file_map(&map, path));
    Status status = OK;
    const char *at = (const char *)map.bytes, *end = at + map.size_bytes;
    for (int number = 1; at < end && status == OK; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL)
            break;
        char where[PATH_BYTES + 32];
        snprintf(where, sizeof where, "%s:%d", path, number);
        json_t *line = NULL;
        status = json_parse_line(&line, at, newline - at, path, number);
        if (status == OK)
            status = take_line(row, line, where);
        json_decref(line);
        at = newline + 1;
    }
    file_unmap(&map);
    return status;
}

// What a damaged file says is shown on a terminal.
static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return false;
    return true;
}

static Status take_run(RunRow *row, const char *path)
{
    const json_t *run = row->run;
    const char *format, *attention;
    int64_t steps;
    TRY(json_get_string(&format, run, path, "format"));
    if (strcmp(format, "mha2mla-run") != 0)
        return fail(BAD_INPUT, "%s: its format is '%.64s', not 'mha2mla-run'", path, format);
    TRY(json_get_string(&row->name, run, path, "name"));
    TRY(json_get_string(&attention, run, path, "attention"));
    TRY(json_get_string(&row->rope, run, path, "rope"));
    TRY(json_get_string(&row->svd, run, path, "svd"));
    TRY(json_get_int(&row->d_kv, run, path, "d_kv", 0, INT32_MAX));
    TRY(json_get_int(&row->rope_pairs, run, path, "rope_pairs", 0, INT32_MAX));
    TRY(json_get_int(&row->cache, run, path, "cache_numbers_per_token", 1, INT64_MAX / 2));
    TRY(json_get_int(&row->original_cache, run, path, "original_cache_numbers_per_token", 1,
                     INT64_MAX / 2));
    TRY(json_get_int(&steps, run, path, "steps", 0, INT32_MAX));
    row->n_steps = (int)steps;
    row->is_mla = strcmp(attention, "mla") == 0;
    if (!row->is_mla && strcmp(attention, "original") != 0)
        return fail(BAD_INPUT, "%s: 'attention' is '%.64s', allowed are mla and original", path,
                    attention);
    if (!is_printable(row->name) || !is_printable(row->rope) || !is_printable(row->svd))
        return fail(BAD_INPUT, "%s: control characters in 'name', 'rope' or 'svd'; is it damaged?",
                    path);
    if (!json_has(run, "original_valid_loss"))
        return OK;
    return json_get_real(&row->original_loss, run, path, "original_valid_loss", -INFINITY,
                         INFINITY);
}

static Status read_run(RunRow *out, const char *dir)
{
    char path[PATH_BYTES], metrics[PATH_BYTES];
    TRY(file_join(path, dir, "run.json"));
    TRY(file_join(metrics, dir, "metrics.jsonl"));
    if (!file_exists(path))
        return fail(BAD_INPUT, "%s: not a run directory, run.json is missing", dir);
    RunRow row = {.original_loss = NAN, .start_loss = NAN, .last_loss = NAN};
    TRY(json_read(&row.run, path));
    Status status;
    TRY_GOTO(release_run, take_run(&row, path));
    TRY_GOTO(release_run, read_metrics(&row, metrics));
    *out = row;
    return OK;
release_run:
    json_decref(row.run);
    return status;
}

static void print_loss(double loss)
{
    if (isnan(loss))
        printf("  %9s", "-");
    else
        printf("  %9.4f", loss);
}

static void print_row(const RunRow *row)
{
    printf("%-24s ", row->name);
    if (row->is_mla)
        printf("%5lld %4lld  %-7s  %-5s", (long long)row->d_kv, (long long)row->rope_pairs,
               row->rope, row->svd);
    else
        printf("%5s %4s  %-7s  %-5s", "-", "all", "-", "-");
    printf("  %8lld  %+8.2f", (long long)row->cache * 2,
           100.0 * ((double)row->cache / (double)row->original_cache - 1.0));
    print_loss(row->is_mla ? row->original_loss : row->start_loss);
    print_loss(row->is_mla ? row->start_loss : NAN);
    print_loss(row->last_step > 0 ? row->last_loss : NAN);
    printf("  %9.3f", (double)row->tokens / 1e6);
    if (row->last_step < row->n_steps)
        printf("  (step %d of %d)", row->last_step, row->n_steps);
    putchar('\n');
}

static void print_table(const RunRow *rows, int n_rows)
{
    printf("%-24s %5s %4s  %-7s  %-5s  %8s  %8s  %9s  %9s  %9s  %9s\n"
           "%-24s %5s %4s  %-7s  %-5s  %8s  %8s  %9s  %9s  %9s  %9s\n",
           "", "", "RoPE", "", "", "KV bytes", "KV", "loss", "loss", "loss", "tokens", "run",
           "d_kv", "pr", "RoPE", "SVD", "/token", "%", "original", "converted", "trained", "M");
    for (int i = 0; i < n_rows; i++)
        print_row(&rows[i]);
}

static Status compare(char **dirs, int n_dirs)
{
    RunRow *rows = calloc((size_t)n_dirs, sizeof *rows);
    if (rows == NULL)
        return fail(FAILED, "no memory for %d runs", n_dirs);
    Status status = OK;
    for (int i = 0; i < n_dirs && status == OK; i++)
        status = read_run(&rows[i], dirs[i]);
    if (status == OK)
        print_table(rows, n_dirs);
    for (int i = 0; i < n_dirs; i++)
        json_decref(rows[i].run);
    free(rows);
    return status;
}

static Status run_compare(int argc, char **argv)
{
    Arguments rest;
    TRY(options_parse(&rest, &cmd_compare, NULL, 0, argc, argv));
    if (rest.help_shown)
        return OK;
    if (rest.n_words == 0)
        return fail(BAD_INPUT, "compare needs at least one RUN directory; see mha2mla compare "
                               "--help");
    return compare(rest.words, rest.n_words);
}

const Command cmd_compare = {
    .name = "compare",
    .summary = "show runs side by side: KV cache, loss before and after",
    .usage = "RUN...",
    .example = "mha2mla compare runs/demo-baseline runs/demo-dkv16 runs/demo-dkv8",
    .run = run_compare,
};
