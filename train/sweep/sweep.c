// Combinations are counted like a number whose digits are the axes: the task's number minus one
// says which value of each axis a run has, so that nothing but the number identifies a run.
#include "train/sweep/sweep.h"

#include "train/config/config_values.h"
#include "train/plan/plan.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { BASELINE = 0 };

static const char D_KV[] = "model.convert.d_kv";

// ---- which runs --------------------------------------------------------------------------------

static Status add_axis(Sweep *sweep, const char *d_kvs, const char *vary)
{
    SweepAxis *axis = &sweep->axes[sweep->n_axes];
    TRY(d_kvs != NULL ? sweep_axis_parse_d_kvs(axis, d_kvs) : sweep_axis_parse(axis, vary));
    sweep->n_axes++; // it is released from now on
    for (int i = 0; i < sweep->n_axes - 1; i++)
        if (strcmp(sweep->axes[i].key, axis->key) == 0)
            return fail(BAD_INPUT, "sweep: %s is varied twice; give all of its values at once",
                        axis->key);
    return OK;
}

static Status make_runs(Sweep *sweep)
{
    const int first = sweep->request.baseline ? BASELINE : BASELINE + 1;
    int64_t n_combinations = 1;
    for (int i = 0; i < sweep->n_axes && n_combinations <= MAX_SWEEP_RUNS; i++)
        n_combinations *= sweep->axes[i].n;
    if (n_combinations > MAX_SWEEP_RUNS - 1)
        return fail(BAD_INPUT, "sweep: more than %d combinations of values; vary fewer at once",
                    MAX_SWEEP_RUNS - 1);
    sweep->n_runs = (int)n_combinations + 1 - first;
    sweep->runs = calloc((size_t)sweep->n_runs, sizeof *sweep->runs);
    if (sweep->runs == NULL)
        return fail(FAILED, "sweep: no memory for %d runs", sweep->n_runs);
    for (int i = 0; i < sweep->n_runs; i++)
        sweep->runs[i].task = first + i;
    return OK;
}

Status sweep_open(Sweep *out, const SweepRequest *request)
{
    Status status;
    *out = (Sweep){.request = *request};
    if (request->d_kvs == NULL && request->n_vary == 0)
        return fail(BAD_INPUT, "sweep: nothing is varied; give --d-kv 16,8,4, or --vary "
                               "KEY=VALUE,VALUE,...");
    if (request->d_kvs != NULL)
        TRY_GOTO(close_sweep, add_axis(out, request->d_kvs, NULL));
    for (int i = 0; i < request->n_vary; i++)
        TRY_GOTO(close_sweep, add_axis(out, NULL, request->vary[i]));
    TRY_GOTO(close_sweep, make_runs(out));
    return OK;
close_sweep:
    sweep_close(out);
    return status;
}

// What an axis has in the combination of that task.
static const SweepValue *value_of(const Sweep *sweep, int task, int axis)
{
    int place = task - 1;
    for (int i = sweep->n_axes - 1; i > axis; i--)
        place /= sweep->axes[i].n;
    return &sweep->axes[axis].items[place % sweep->axes[axis].n];
}

// ---- names -------------------------------------------------------------------------------------

// A name that does not fit is an error and never cut: it becomes part of a path.
static Status add_text(char *name, const char *before, const char *text)
{
    const size_t used = strlen(name);
    const int n = snprintf(name + used, SWEEP_NAME_BYTES - used, "%s%s", before, text);
    if (n < 0 || used + (size_t)n >= SWEEP_NAME_BYTES)
        return fail(BAD_INPUT, "sweep: the run's name '%.100s...' is longer than %d bytes", name,
                    SWEEP_NAME_BYTES - 1);
    return OK;
}

// The config of a single run, "demo-dkv8", may start a sweep: its runs are named after "demo" where
// d_kv is varied; elsewhere the d_kv stays in the name, as all of these runs have it.
static void cut_variant(char *name, bool cuts_d_kv)
{
    char *dash = strrchr(name, '-');
    if (dash == NULL || dash == name)
        return;
    const char *digits = dash + 4;
    const bool is_d_kv = strncmp(dash, "-dkv", 4) == 0 && *digits != '\0' &&
                         digits[strspn(digits, "0123456789")] == '\0';
    if (strcmp(dash, "-baseline") == 0 || (is_d_kv && cuts_d_kv))
        *dash = '\0';
}

// NAME-baseline; NAME-dkv8-rope-high for a combination.
static Status name_run(const Sweep *sweep, SweepRun *run, const char *base)
{
    TRY(add_text(run->name, "", base));
    if (run->task == BASELINE)
        return add_text(run->name, "-", "baseline");
    for (int i = 0; i < sweep->n_axes; i++)
        TRY(add_text(run->name, "-", value_of(sweep, run->task, i)->name));
    return OK;
}

static Status place_run(const Sweep *sweep, SweepRun *run, const char *run_dir)
{
    char file[SWEEP_NAME_BYTES + 8];
    snprintf(file, sizeof file, "%s.yaml", run->name);
    TRY(file_join(run->dir, run_dir, run->name));
    return file_join(run->config, sweep->out, file);
}

static bool varies(const Sweep *sweep, const char *block)
{
    for (int i = 0; i < sweep->n_axes; i++)
        if (sweep_axis_is_in(&sweep->axes[i], block))
            return true;
    return false;
}

// sweep-NAME, with what is varied beside the d_kv, so that sweeps over other keys have reports of
// their own.
static Status place_sweep(Sweep *sweep, const char *base, const char *run_dir)
{
    char name[SWEEP_NAME_BYTES] = "";
    TRY(add_text(name, "sweep-", base));
    for (int i = 0; i < sweep->n_axes && !(sweep->n_axes == 1 && varies(sweep, D_KV)); i++)
        TRY(add_text(name, "-", sweep->axes[i].word));
    return file_join(sweep->out, run_dir, name);
}

Status sweep_name(Sweep *sweep, const Config *config, const char *out)
{
    char base[SWEEP_NAME_BYTES] = "", shared[SWEEP_NAME_BYTES];
    if (!config->model.convert.given && sweep->request.baseline)
        return fail(BAD_INPUT,
                    "%s: has no model.convert, so --baseline would add a run of the same settings; "
                    "leave it out",
                    sweep->request.config);
    TRY(add_text(base, "", config->run.name));
    memcpy(shared, base, sizeof shared); // of the baseline, which has no d_kv
    cut_variant(shared, true);
    cut_variant(base, varies(sweep, D_KV));
    if (out == NULL)
        TRY(place_sweep(sweep, base, config->run.dir));
    else if (snprintf(sweep->out, PATH_BYTES, "%s", out) >= PATH_BYTES)
        return fail(BAD_INPUT, "sweep: --out '%.100s...' is longer than %d bytes", out,
                    PATH_BYTES - 1);
    for (int i = 0; i < sweep->n_runs; i++) {
        SweepRun *run = &sweep->runs[i];
        TRY(name_run(sweep, run, run->task == BASELINE ? shared : base));
        TRY(place_run(sweep, run, config->run.dir));
        for (int j = 0; j < i; j++)
            if (strcmp(sweep->runs[j].name, run->name) == 0)
                return fail(BAD_INPUT, "sweep: two runs would be called %s; vary other values",
                            run->name);
    }
    return OK;
}

// ---- their configs -----------------------------------------------------------------------------

// The sweep's overrides, then those of the run, which win. Without a name: the config's own.
static Status load(Config *out, const Sweep *sweep, int task, const char *name)
{
    const SweepRequest *request = &sweep->request;
    char named[SWEEP_NAME_BYTES + 16], no_conversion[] = "--model.convert=none";
    char **overrides = calloc((size_t)request->n_overrides + MAX_SWEEP_AXES + 1, sizeof *overrides);
    if (overrides == NULL)
        return fail(FAILED, "sweep: no memory for the overrides of a run");
    int n = 0;
    for (; n < request->n_overrides; n++)
        overrides[n] = request->overrides[n];
    if (task == BASELINE)
        overrides[n++] = no_conversion;
    for (int i = 0; i < sweep->n_axes && task != BASELINE; i++)
        overrides[n++] = value_of(sweep, task, i)->override;
    snprintf(named, sizeof named, "--run.name=%s", name != NULL ? name : "");
    if (name != NULL)
        overrides[n++] = named;
    const Status status = config_load(out, request->config, overrides, n);
    free(overrides);
    return status;
}

// The config alone may lack a key that is varied.
Status sweep_load_first(Config *out, const Sweep *sweep)
{
    return load(out, sweep, BASELINE + 1, NULL);
}

Status sweep_load(Config *out, const Sweep *sweep, const SweepRun *run, int n_ranks)
{
    Plan plan; // refuses what does not fit the base model
    TRY(load(out, sweep, run->task, run->name));
    const Status status = plan_make(&plan, out, n_ranks, omp_get_max_threads());
    if (status != OK)
        config_release(out);
    return status;
}

// All settings but the name, one to a line: equal for two runs that would do the same.
static Status list_settings(char **out, const Config *config)
{
    ConfigValues values;
    size_t n_bytes = 0;
    TRY(config_values_list(&values, config));
    FILE *stream = open_memstream(out, &n_bytes);
    for (int i = 0; i < values.n && stream != NULL; i++)
        if (strcmp(values.items[i].key, "run.name") != 0)
            fprintf(stream, "%s: %s\n", values.items[i].key, values.items[i].text);
    config_values_release(&values);
    if (stream == NULL || fclose(stream) != 0)
        return fail(FAILED, "sweep: no memory for the settings of its runs");
    return OK;
}

// settings[0..place] are known.
static Status check_distinct(const Sweep *sweep, char *const *settings, int place)
{
    for (int i = 0; i < place; i++)
        if (strcmp(settings[i], settings[place]) == 0)
            return fail(BAD_INPUT,
                        "sweep: runs %s and %s have the same settings; a value is given twice",
                        sweep->runs[i].name, sweep->runs[place].name);
    return OK;
}

Status sweep_check(const Sweep *sweep, int n_ranks)
{
    Status status = OK;
    char **settings = calloc((size_t)sweep->n_runs, sizeof *settings); // [n_runs]
    if (settings == NULL)
        return fail(FAILED, "sweep: no memory for the settings of its runs");
    for (int i = 0; i < sweep->n_runs; i++) {
        Config config;
        TRY_GOTO(free_settings, sweep_load(&config, sweep, &sweep->runs[i], n_ranks));
        status = list_settings(&settings[i], &config);
        config_release(&config);
        TRY_GOTO(free_settings, status);
        TRY_GOTO(free_settings, check_distinct(sweep, settings, i));
    }
free_settings:
    for (int i = 0; i < sweep->n_runs; i++)
        free(settings[i]);
    free(settings);
    return status;
}

const SweepRun *sweep_find(const Sweep *sweep, int task)
{
    const int place = task - sweep->runs[0].task;
    return place >= 0 && place < sweep->n_runs ? &sweep->runs[place] : NULL;
}

void sweep_close(Sweep *sweep)
{
    for (int i = 0; i < sweep->n_axes; i++)
        sweep_axis_release(&sweep->axes[i]);
    free(sweep->runs);
    *sweep = (Sweep){0};
}
