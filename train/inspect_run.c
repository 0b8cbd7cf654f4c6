// A run that is still going may be in the middle of its last line of metrics: what has no newline
// is not read.
#include "base/file.h"
#include "base/json.h"
#include "train/checkpoint.h"
#include "train/inspect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = INT32_MAX };

// The newest of each kind of line in metrics.jsonl.
typedef struct Newest {
    int64_t step, tokens, valid_step, best_step;
    double loss, tokens_per_s, elapsed_s; // of the last step
    double start_loss, best_loss, valid_loss;
} Newest;

bool inspect_is_run(const char *dir)
{
    char path[PATH_BYTES];
    return file_join(path, dir, "run.json") == OK && file_exists(path);
}

static Status take_validation(Newest *p, const json_t *line, const char *where, int64_t step)
{
    double loss;
    TRY(json_get_real(&loss, line, where, "valid_loss", -INFINITY, INFINITY));
    if (step == 0)
        p->start_loss = loss;
    if (!(p->best_loss <= loss)) {
        p->best_loss = loss;
        p->best_step = step;
    }
    p->valid_loss = loss;
    p->valid_step = step;
    return OK;
}

static Status take_line(Newest *p, const json_t *line, const char *where)
{
    int64_t step;
    TRY(json_get_int(&step, line, where, "step", 0, MOST_STEPS));
    if (json_has(line, "valid_loss"))
        return take_validation(p, line, where, step);
    p->step = step;
    TRY(json_get_int(&p->tokens, line, where, "tokens", 0, INT64_MAX));
    TRY(json_get_real(&p->loss, line, where, "loss", -INFINITY, INFINITY));
    TRY(json_get_real(&p->tokens_per_s, line, where, "tokens_per_s", 0, INFINITY));
    return json_get_real(&p->elapsed_s, line, where, "elapsed_s", 0, INFINITY);
}

static Status read_metrics(Newest *out, const char *path)
{
    Newest progress = {.loss = NAN, .start_loss = NAN, .best_loss = NAN, .valid_loss = NAN};
    FileMap map;
    TRY(file_map(&map, path));
    Status status = OK;
    const char *at = (const char *)map.bytes, *end = at + map.size_bytes, *newline;
    for (int number = 1; status == OK && at < end; number++, at = newline + 1) {
        newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL)
            break;
        char where[PATH_BYTES + 32];
        snprintf(where, sizeof where, "%s:%d", path, number);
        json_t *line = NULL;
        status = json_parse_line(&line, at, newline - at, path, number);
        if (status == OK)
            status = take_line(&progress, line, where);
        json_decref(line);
    }
    file_unmap(&map);
    if (status == OK)
        *out = progress;
    return status;
}

// What a damaged file says is shown on a terminal.
static void print_word(const char *text)
{
    for (; *text != '\0'; text++)
        putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

static Status print_model(const json_t *run, const char *path)
{
    const char *attention, *rope, *svd;
    int64_t d_kv, pairs, parameters, cache, original;
    TRY(json_get_string(&attention, run, path, "attention"));
    TRY(json_get_string(&rope, run, path, "rope"));
    TRY(json_get_string(&svd, run, path, "svd"));
    TRY(json_get_int(&d_kv, run, path, "d_kv", 0, INT32_MAX));
    TRY(json_get_int(&pairs, run, path, "rope_pairs", 0, INT32_MAX));
    TRY(json_get_int(&parameters, run, path, "parameters", 1, INT64_MAX));
    TRY(json_get_int(&cache, run, path, "cache_numbers_per_token", 1, INT64_MAX / 2));
    TRY(json_get_int(&original, run, path, "original_cache_numbers_per_token", 1, INT64_MAX / 2));
    inspect_label("attention");
    if (strcmp(attention, "mla") == 0) {
        printf("MLA: d_kv %lld per KV head, %lld RoPE pairs by ", (long long)d_kv,
               (long long)pairs);
        print_word(rope);
        printf(", ");
        print_word(svd);
        printf(" SVD\n");
    } else {
        printf("the original one: a baseline\n");
    }
    inspect_label("parameters");
    printf("%lld (%.2f M)\n", (long long)parameters, (double)parameters / 1e6);
    inspect_label("KV cache");
    printf("%lld bytes per token at 16 bits, original %lld: %+.2f %%\n", (long long)cache * 2,
           (long long)original * 2, 100.0 * ((double)cache / (double)original - 1));
    return OK;
}

static Status print_budget(const json_t *run, const char *path, int64_t steps)
{
    int64_t step_tokens, seq_len, ranks, threads;
    TRY(json_get_int(&step_tokens, run, path, "tokens_per_step", 1, INT64_MAX));
    TRY(json_get_int(&seq_len, run, path, "seq_len", 1, INT32_MAX));
    TRY(json_get_int(&ranks, run, path, "ranks", 1, INT32_MAX));
    TRY(json_get_int(&threads, run, path, "threads", 1, INT32_MAX));
    const double tokens = (double)step_tokens * (double)steps;
    inspect_label("budget");
    printf("%lld steps of %lld tokens = %.4g M", (long long)steps, (long long)step_tokens,
           tokens / 1e6);
    if (json_has(run, "pretraining_tokens")) {
        double pretraining;
        TRY(json_get_real(&pretraining, run, path, "pretraining_tokens", 1, INFINITY));
        printf(", %.3g %% of pretraining", 100 * tokens / pretraining);
    }
    printf("; sequences of %lld\n", (long long)seq_len);
    inspect_label("ranks");
    printf("%lld, %lld threads each\n", (long long)ranks, (long long)threads);
    return OK;
}

static void print_loss(const char *what, double loss, int64_t step)
{
    if (isnan(loss))
        return;
    inspect_label(what);
    printf("%.4f nats per token", loss);
    if (step >= 0)
        printf(" at step %lld", (long long)step);
    putchar('\n');
}

static void print_progress(const Newest *p, const json_t *run, int64_t steps)
{
    const int64_t elapsed_s = (int64_t)fmin(p->elapsed_s, 1e15);
    inspect_label("progress");
    printf("step %lld of %lld", (long long)p->step, (long long)steps);
    if (p->step > 0)
        printf(", %.4g M tokens in %lld:%02d:%02d, %.0f tokens/s", (double)p->tokens / 1e6,
               (long long)elapsed_s / 3600, (int)(elapsed_s / 60 % 60), (int)(elapsed_s % 60),
               p->tokens_per_s);
    putchar('\n');
    print_loss("loss", p->loss, p->step);
    printf("validation loss\n");
    const double original = json_number_value(json_object_get(run, "original_valid_loss"));
    print_loss("original", original > 0 ? original : NAN, -1);
    print_loss("at the start", p->start_loss, -1);
    print_loss("lowest", p->best_loss, p->best_step);
    print_loss("newest", p->valid_loss, p->valid_step);
    if (isnan(p->valid_loss))
        printf("  not measured yet\n");
}

// The finished ones, oldest first.
static Status print_checkpoints(const char *dir)
{
    int *steps, n_steps, n_shown = 0;
    TRY(checkpoint_list(&steps, &n_steps, dir));
    for (int i = n_steps - 1; i >= 0; i--) {
        char path[PATH_BYTES], manifest[PATH_BYTES];
        if (checkpoint_path(path, dir, steps[i]) != OK ||
            file_join(manifest, path, "manifest.json") != OK || !file_exists(manifest))
            continue;
        if (n_shown++ == 0)
            inspect_label("checkpoints");
        printf("%s%d", n_shown > 1 ? ", " : "of step ", steps[i]);
    }
    if (n_shown > 0)
        putchar('\n');
    free(steps);
    return OK;
}

// Only a model directory that has its config.json is complete.
static Status print_result(const char *dir)
{
    char model[PATH_BYTES], config[PATH_BYTES];
    TRY(file_join(model, dir, "model"));
    TRY(file_join(config, model, "config.json"));
    if (file_exists(config))
        printf("result          %s\n", model);
    return OK;
}

static Status print_run(const json_t *run, const char *path, const char *dir)
{
    const char *format, *name;
    char metrics[PATH_BYTES];
    int64_t steps;
    Newest progress;
    TRY(json_get_string(&format, run, path, "format"));
    if (strcmp(format, "mha2mla-run") != 0)
        return fail(BAD_INPUT, "%s: its format is '%.64s', not 'mha2mla-run'", path, format);
    TRY(json_get_string(&name, run, path, "name"));
    TRY(json_get_int(&steps, run, path, "steps", 0, MOST_STEPS));
    TRY(file_join(metrics, dir, "metrics.jsonl"));
    TRY(read_metrics(&progress, metrics));
    printf("%s: run ", dir);
    print_word(name);
    putchar('\n');
    TRY(print_model(run, path));
    TRY(print_budget(run, path, steps));
    print_progress(&progress, run, steps);
    TRY(print_checkpoints(dir));
    return print_result(dir);
}

Status inspect_run(const char *dir)
{
    char path[PATH_BYTES];
    json_t *run;
    TRY(file_join(path, dir, "run.json"));
    TRY(json_read(&run, path));
    const Status status = print_run(run, path, dir);
    json_decref(run);
    return status;
}
