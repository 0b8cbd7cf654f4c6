// Texts are those of config_values_list(), which are equal where the values are. The conversion's
// keys are known of every run, since run.json has them apart from the config.
#include "train/report/report_varied.h"

#include "train/config/config_values.h"

#include <stdarg.h>
#include <string.h>

static const char ROPE[] = "model.convert.rope", ROPE_PAIRS[] = "model.convert.rope_pairs";
static const char SVD[] = "model.convert.svd", D_KV[] = "model.convert.d_kv";

// In the order of the config.
static const char *const shape_keys[] = {ROPE, ROPE_PAIRS, SVD, D_KV};
enum { N_SHAPE_KEYS = sizeof shape_keys / sizeof *shape_keys };

bool report_varied_is_shape(const char *key)
{
    for (int k = 0; k < N_SHAPE_KEYS; k++)
        if (strcmp(key, shape_keys[k]) == 0)
            return true;
    return false;
}

const char *report_varied_text(char buffer[VARIED_TEXT_BYTES], const ReportRun *run,
                               const char *key)
{
    const bool is_d_kv = strcmp(key, D_KV) == 0;
    if (report_varied_is_shape(key) && !run->is_mla)
        return "none";
    if (is_d_kv || strcmp(key, ROPE_PAIRS) == 0) {
        snprintf(buffer, VARIED_TEXT_BYTES, "%lld",
                 (long long)(is_d_kv ? run->d_kv : run->rope_pairs));
        return buffer;
    }
    if (strcmp(key, ROPE) == 0)
        return run->rope;
    if (strcmp(key, SVD) == 0)
        return run->svd;
    if (run->config == NULL)
        return NULL;
    const char *text = json_string_value(json_object_get(run->config, key));
    return text != NULL ? text : "none";
}

// A longer run is the same experiment, and validation text is compared by its content. The start of
// the decay follows from the steps. Sources have paths and are lists, which a sweep does not vary.
static bool can_be_varied(const char *key)
{
    static const char *const others[] = {"train.steps", "optim.decay_start", "data.sources",
                                         "data.validation", "model.init.tokenizer"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strncmp(key, others[i], strlen(others[i])) == 0)
            return false;
    return config_key_effect(key) == EFFECT_RESULT;
}

// Whether two runs of the same kind have other values.
static bool is_varied(const Report *report, const char *key)
{
    const char *first[2] = {NULL, NULL}; // of the originals, of the converted
    char buffers[2][VARIED_TEXT_BYTES], buffer[VARIED_TEXT_BYTES];
    for (int i = 0; i < report->n_runs; i++) {
        const ReportRun *run = &report->runs[i];
        const int kind = run->is_mla;
        const char *text =
            report_varied_text(first[kind] == NULL ? buffers[kind] : buffer, run, key);
        if (text != NULL && first[kind] == NULL)
            first[kind] = text;
        else if (text != NULL && strcmp(text, first[kind]) != 0)
            return true;
    }
    return false;
}

bool report_varied_has(const Report *report, const char *key)
{
    for (int v = 0; v < report->n_varied; v++)
        if (strcmp(report->varied[v], key) == 0)
            return true;
    return false;
}

static void add(Report *report, const char *key)
{
    if (report->n_varied < MAX_VARIED && !report_varied_has(report, key) && is_varied(report, key))
        report->varied[report->n_varied++] = key;
}

// The seed comes last: it repeats an experiment, so everything else is told apart before it.
void report_varied_find(Report *report)
{
    const char *key;
    json_t *text; // borrowed
    report->n_varied = 0;
    for (int k = 0; k < N_SHAPE_KEYS; k++)
        add(report, shape_keys[k]);
    for (int i = 0; i < report->n_runs; i++)
        json_object_foreach((json_t *)(uintptr_t)report->runs[i].config, key, text)
        {
            if (can_be_varied(key) && strcmp(key, "run.seed") != 0)
                add(report, key);
        }
    add(report, "run.seed");
}

static const char *last_word(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot != NULL ? dot + 1 : key;
}

const char *report_varied_head(const Report *report, int which)
{
    const char *key = report->varied[which], *word = last_word(key);
    for (int v = 0; v < report->n_varied; v++)
        if (v != which && strcmp(last_word(report->varied[v]), word) == 0)
            return key;
    return word;
}

void report_varied_trim(char *text)
{
    const size_t n = strlen(text);
    size_t lead = n; // of the last character
    while (lead > 0 && ((unsigned char)text[lead - 1] & 0xc0) == 0x80)
        lead--;
    if (lead == 0)
        return;
    const unsigned char first = (unsigned char)text[--lead];
    const size_t n_bytes = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (n - lead < n_bytes)
        text[lead] = '\0';
}

// The cache's size says what d_kv and the number of pairs are.
void report_varied_describe(char out[VARIED_BYTES], const Report *report, int place)
{
    size_t n = 0;
    char buffer[VARIED_TEXT_BYTES];
    out[0] = '\0';
    for (int v = 0; v < report->n_varied; v++) {
        const char *key = report->varied[v];
        const char *text = report_varied_text(buffer, &report->runs[place], key);
        if (text == NULL || strcmp(key, D_KV) == 0 || strcmp(key, ROPE_PAIRS) == 0 ||
            (report_varied_is_shape(key) && !report->runs[place].is_mla))
            continue;
        if (n < VARIED_BYTES)
            n += (size_t)snprintf(out + n, VARIED_BYTES - n, "%s%s %s", n > 0 ? ", " : "",
                                  report_varied_head(report, v), text);
    }
    report_varied_trim(out);
}
