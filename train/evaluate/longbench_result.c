#include "train/evaluate/longbench_result.h"

#include "base/json.h"
#include "train/evaluate/tasks_result.h"

#include <math.h>
#include <string.h>

static const double lm_eval_version = 4;

static const LongbenchSet *set_at(const LongbenchResult *result, int f)
{
    return &result->evaluation->files.items[f].set;
}

// ---- the table ---------------------------------------------------------------------------------

static void print_levenshtein(FILE *out, const LongbenchResult *result)
{
    int n = 0;
    for (int f = 0; f < result->evaluation->files.n; f++) {
        const double score = result->evaluation->scores[f].levenshtein;
        if (!isnan(score))
            fprintf(out, "%s %s %.2f", n++ == 0 ? "with python-Levenshtein's ratio:" : ",",
                    set_at(result, f)->name, 100 * score);
    }
    if (n > 0)
        fprintf(out, "\n");
}

static void print_average(FILE *out, const LongbenchResult *result)
{
    const LongbenchEvaluation *evaluation = result->evaluation;
    double average;
    int n_missing = 0;
    if (evaluate_longbench_average(&average, evaluation)) {
        fprintf(out, "average of %d: %.2f\n", N_LONGBENCH_SETS, 100 * average);
        return;
    }
    fprintf(out, "no average of %d, these are missing:", N_LONGBENCH_SETS);
    for (int s = 0; s < N_LONGBENCH_SETS; s++) {
        bool is_there = false;
        for (int f = 0; f < evaluation->files.n; f++)
            is_there |= strcmp(longbench_sets[s].name, set_at(result, f)->name) == 0;
        if (!is_there)
            fprintf(out, "%s %s", n_missing++ > 0 ? "," : "", longbench_sets[s].name);
    }
    fprintf(out, "\n");
}

void longbench_result_print(FILE *out, const LongbenchResult *result)
{
    const LongbenchEvaluation *evaluation = result->evaluation;
    const LongbenchModel *model = result->model;
    char format[KV_FORMAT_TEXT_BYTES];
    int width = 3;
    for (int f = 0; f < evaluation->files.n; f++) {
        const int size = (int)strlen(set_at(result, f)->name);
        width = size > width ? size : width;
    }
    fprintf(out,
            "greedy, at most %lld tokens of prompt and answer, %lld of %lld prompts cut in the "
            "middle by the reference's rule, %s, KV cache %s: %.1f bytes/token%s\n",
            (long long)evaluation->max_length, (long long)evaluation->n_cut,
            (long long)evaluation->n_items,
            evaluation->puts_begin ? "BOS put before every prompt" : "no BOS put",
            kv_format_describe(format, model->format),
            kv_format_bytes_per_token(model->format, model->shape),
            model->compute == COMPUTE_BFLOAT16 ? ", products in bfloat16" : "");
    fprintf(out, "%-*s  %-14s  %7s  %5s  %5s  %6s  %6s\n", width, "set", "metric", "answer", "n",
            "cut", "score", "stderr");
    for (int f = 0; f < evaluation->files.n; f++) {
        const LongbenchSet *set = set_at(result, f);
        const LongbenchScore *score = &evaluation->scores[f];
        fprintf(out, "%-*s  %-14s  %7d  %5lld  %5lld  %6.2f  ", width, set->name,
                longbench_metric_name(set->metric), set->max_gen, (long long)score->n,
                (long long)score->n_cut, 100 * score->score);
        if (isnan(score->standard_error))
            fprintf(out, "%6s\n", "N/A");
        else
            fprintf(out, "%6.2f\n", 100 * score->standard_error);
    }
    print_levenshtein(out, result);
    print_average(out, result);
}

// ---- lm-eval's objects -------------------------------------------------------------------------
// jansson's setters take NULL, which a failed allocation gives.

typedef struct Document {
    json_t *results, *configs, *versions, *shots, *higher, *counts; // owned
} Document;

static void add_set(Document *document, const LongbenchResult *result, int f)
{
    const LongbenchFile *file = &result->evaluation->files.items[f];
    const LongbenchSet *set = &file->set;
    const LongbenchScore *score = &result->evaluation->scores[f];
    const char *metric = longbench_metric_lm_eval_name(set->metric);
    char name[LONGBENCH_NAME_BYTES + 16], value_key[64], error_key[64];
    snprintf(name, sizeof name, "%s%s", set->is_needle ? "" : "longbench_", set->name);
    snprintf(value_key, sizeof value_key, "%s,none", metric);
    snprintf(error_key, sizeof error_key, "%s_stderr,none", metric);
    json_t *error =
        isnan(score->standard_error) ? json_string("N/A") : json_real(score->standard_error);
    json_object_set_new(
        document->results, name,
        json_pack("{s:s, s:f, s:o}", "alias", name, value_key, score->score, error_key, error));
    json_object_set_new(document->configs, name,
                        json_pack("{s:s, s:s, s:s, s:s, s:i, s:{s:i, s:b}, s:{s:f}}", "task", name,
                                  "dataset_path", file->path, "output_type", "generate_until",
                                  "doc_to_text", set->template, "num_fewshot", 0,
                                  "generation_kwargs", "max_gen_toks", set->max_gen, "do_sample", 0,
                                  "metadata", "version", lm_eval_version));
    json_object_set_new(document->versions, name, json_real(lm_eval_version));
    json_object_set_new(document->shots, name, json_integer(0));
    json_object_set_new(document->higher, name, json_pack("{s:b}", metric, 1));
    json_object_set_new(document->counts, name,
                        json_pack("{s:I, s:I}", "original",
                                  (json_int_t)result->evaluation->sets[f].n_rows, "effective",
                                  (json_int_t)score->n));
}

// ---- this program's object ---------------------------------------------------------------------

static json_t *scores_object(const LongbenchResult *result)
{
    json_t *scores = json_object();
    for (int f = 0; f < result->evaluation->files.n; f++) {
        const LongbenchSet *set = set_at(result, f);
        const LongbenchScore *score = &result->evaluation->scores[f];
        json_t *error =
            isnan(score->standard_error) ? json_null() : json_real(score->standard_error);
        json_t *object = json_pack("{s:s, s:f, s:o, s:I, s:I, s:i}", "metric",
                                   longbench_metric_name(set->metric), "score", score->score,
                                   "stderr", error, "n", (json_int_t)score->n, "n_cut",
                                   (json_int_t)score->n_cut, "max_gen", set->max_gen);
        if (!isnan(score->levenshtein))
            json_object_set_new(object, "score_levenshtein", json_real(score->levenshtein));
        json_object_set_new(scores, set->name, object);
    }
    return scores;
}

static void add_average(json_t *own, const LongbenchEvaluation *evaluation)
{
    double average;
    if (!evaluate_longbench_average(&average, evaluation))
        return;
    json_t *members = json_array();
    for (int s = 0; s < N_LONGBENCH_SETS; s++)
        json_array_append_new(members, json_string(longbench_sets[s].name));
    json_object_set_new(own, "average", json_real(average));
    json_object_set_new(own, "average_of", members);
}

static void add_rates(json_t *own, const GenerateTotals *totals)
{
    if (totals->n_answers == 0 || totals->prompt_s <= 0 || totals->decode_s <= 0)
        return;
    json_object_set_new(own, "tokens_per_s",
                        json_pack("{s:f, s:f}", "prompt",
                                  (double)totals->prompt_tokens / totals->prompt_s, "decode",
                                  (double)totals->n_decoded / totals->decode_s));
}

static json_t *limit_value(const LongbenchEvaluation *evaluation)
{
    return evaluation->limit > 0 ? json_integer(evaluation->limit) : json_null();
}

static json_t *own_object(const LongbenchResult *result)
{
    const LongbenchEvaluation *evaluation = result->evaluation;
    const LongbenchModel *model = result->model;
    json_t *own = json_pack(
        "{s:s, s:i, s:s, s:s, s:s, s:b, s:I, s:s, s:i, s:i, s:o, s:I, s:I, s:o}", "format",
        "mha2mla-eval", "version", 1, "kind", "longbench", "model", model->dir, "rules",
        "reference", "bos", evaluation->puts_begin, "max_length",
        (json_int_t)evaluation->max_length, "cut", "reference", "shots", 0, "batch",
        evaluation->batch, "limit", limit_value(evaluation), "n", (json_int_t)evaluation->n_items,
        "n_cut", (json_int_t)evaluation->n_cut, "scores", scores_object(result));
    add_average(own, evaluation);
    add_rates(own, &evaluation->totals);
    json_object_set_new(own, "cache", tasks_result_cache(model->format, model->shape));
    json_object_set_new(own, "compute", json_string(compute_name(model->compute)));
    return own;
}

Status longbench_result_write(const LongbenchResult *result, const char *path)
{
    char arguments[PATH_BYTES + 32];
    const LongbenchEvaluation *evaluation = result->evaluation;
    Document document = {json_object(), json_object(), json_object(),
                         json_object(), json_object(), json_object()};
    for (int f = 0; f < evaluation->files.n; f++)
        add_set(&document, result, f);
    snprintf(arguments, sizeof arguments, "pretrained=%s,max_length=%lld", result->model->dir,
             (long long)evaluation->max_length);
    json_t *root = json_pack(
        "{s:o, s:{}, s:{}, s:o, s:o, s:o, s:o, s:o, s:{s:s, s:s, s:i, s:o}, s:s, s:o}", "results",
        document.results, "groups", "group_subtasks", "configs", document.configs, "versions",
        document.versions, "n-shot", document.shots, "higher_is_better", document.higher,
        "n-samples", document.counts, "config", "model", "mha2mla", "model_args", arguments,
        "batch_size", evaluation->batch, "limit", limit_value(evaluation), "model_name",
        result->model->dir, "mha2mla", own_object(result));
    if (root == NULL)
        return fail(FAILED, "%s: no memory for the result", path);
    const Status status = json_write(root, path);
    json_decref(root);
    return status;
}
