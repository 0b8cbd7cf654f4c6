#include "train/evaluate/evaluate_longbench.h"

#include "base/json.h"
#include "base/progress.h"
#include "infer/infer.h"
#include "model/hf/hf_fingerprint.h"
#include "model/shape_fields.h"
#include "train/agreement.h"
#include "train/generate/generate_memory.h"
#include "train/stop.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { PREFILL_TOKENS = 512, WHERE_BYTES = PATH_BYTES + 32 };

// A row among all.
typedef struct LongbenchPlace {
    int set; // index in files and sets
    int64_t row;
} LongbenchPlace;

int64_t evaluate_longbench_max_length(const ModelShape *shape)
{
    const int healed = shape->healed_seq_len, longest = shape_longest(shape);
    return healed > 0 && healed < longest ? healed : longest;
}

void evaluate_longbench_release(LongbenchEvaluation *evaluation)
{
    predictions_close(&evaluation->predictions);
    for (int f = 0; f < evaluation->files.n && evaluation->sets != NULL; f++)
        longbench_items_release(&evaluation->sets[f]);
    longbench_files_release(&evaluation->files);
    free(evaluation->sets);
    free(evaluation->scores);
    free(evaluation->missing);
    *evaluation = (LongbenchEvaluation){0};
}

// ---- prompts -----------------------------------------------------------------------------------

static Status read_sets(LongbenchEvaluation *evaluation, const LongbenchRequest *request,
                        const LongbenchModel *model)
{
    evaluation->puts_begin = tokenizer_puts_begin(model->tokenizer);
    TRY(longbench_find_files(&evaluation->files, request->dir, request->only));
    const int n = evaluation->files.n;
    TRY(longbench_check_length(&evaluation->files, evaluation->max_length));
    evaluation->sets = calloc((size_t)n, sizeof *evaluation->sets);
    evaluation->scores = calloc((size_t)n, sizeof *evaluation->scores);
    if (evaluation->sets == NULL || evaluation->scores == NULL)
        return fail(FAILED, "no memory for %d sets", n);
    const LongbenchPrompting how = {.tokenizer = model->tokenizer,
                                    .model = model->dir,
                                    .vocab_size = model->shape->vocab_size,
                                    .max_length = evaluation->max_length,
                                    .limit = request->limit};
    for (int f = 0; f < n; f++) {
        TRY(longbench_read_items(&evaluation->sets[f], &evaluation->files.items[f], &how));
        progress_beat();
        for (int64_t i = 0; i < evaluation->sets[f].n; i++)
            evaluation->scores[f].n_cut += evaluation->sets[f].items[i].is_cut;
        evaluation->scores[f].n = evaluation->sets[f].n;
        evaluation->n_items += evaluation->sets[f].n;
        evaluation->n_cut += evaluation->scores[f].n_cut;
    }
    return OK;
}

// Collective.
static Status agree_prompts(const LongbenchEvaluation *evaluation, const Comm *comm, Status own)
{
    json_t *fingerprint = own == OK ? json_object() : NULL;
    for (int f = 0; f < evaluation->files.n && own == OK; f++) {
        json_t *sums = json_array();
        for (int64_t i = 0; i < evaluation->sets[f].n; i++)
            json_array_append_new(sums, json_string(evaluation->sets[f].items[i].sha256));
        json_object_set_new(fingerprint, evaluation->files.items[f].set.name, sums);
    }
    return agreement_fingerprint(comm, fingerprint, own);
}

// ---- predictions -------------------------------------------------------------------------------

// What the weights are: all tensors, and the numbers of the shape that they do not show.
static Status describe_weights(char out[SHA256_HEX_BYTES], const LongbenchModel *model)
{
    json_t *fingerprint;
    TRY(hf_fingerprint(&fingerprint, model->dir));
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        char value[SHAPE_TEXT_BYTES];
        json_object_set_new(fingerprint, shape_fields[i].name,
                            json_string(shape_field_format(value, &shape_fields[i], model->shape)));
    }
    char *text = json_dumps(fingerprint, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(fingerprint);
    if (text == NULL)
        return fail(FAILED, "%s: no memory for its fingerprint", model->dir);
    const Status status = checksum_sha256_bytes(out, text, (int64_t)strlen(text));
    free(text);
    return status;
}

static Status make_identity(json_t **out, const LongbenchEvaluation *evaluation,
                            const LongbenchModel *model)
{
    char weights[SHA256_HEX_BYTES], cache[KV_FORMAT_TEXT_BYTES];
    TRY(describe_weights(weights, model));
    *out = json_pack(
        "{s:s, s:i, s:s, s:s, s:s, s:s, s:b, s:I, s:s, s:s}", "format", "mha2mla-predictions",
        "version", 1, "weights", weights, "tokenizer", tokenizer_sha256(model->tokenizer), "cache",
        kv_format_describe(cache, model->format), "cache_type", kv_type_names[model->format->type],
        "rotated", model->is_rotated, "max_length", (json_int_t)evaluation->max_length, "rules",
        "reference", "compute", compute_name(model->compute));
    return *out != NULL ? OK : fail(FAILED, "no memory for the predictions");
}

// Sets the line's "score" and, of code, "score_levenshtein".
static Status score_line(json_t *line, const LongbenchSet *set, const LongbenchItem *item,
                         AnswerText prediction)
{
    LongbenchItemScore score;
    TRY(longbench_score_item(&score, set, item, prediction));
    int failed = json_object_set_new(line, "score", json_real(score.score));
    if (!isnan(score.levenshtein))
        failed |= json_object_set_new(line, "score_levenshtein", json_real(score.levenshtein));
    return failed ? fail(FAILED, "no memory for a score") : OK;
}

// A prediction that was read is for this row's prompt, and has the score that it deserves.
static Status take_prediction(const Prediction *prediction, const LongbenchSet *set,
                              const LongbenchItem *item, const char *path)
{
    char where[WHERE_BYTES];
    const json_t *pred = json_object_get(prediction->line, "pred");
    const json_t *id = json_object_get(prediction->line, "_id");
    const json_t *sum = json_object_get(prediction->line, "prompt_sha256");
    snprintf(where, sizeof where, "%s:%d", path, prediction->number);
    if ((json_is_string(id) && strcmp(json_string_value(id), item->id) != 0) ||
        (json_is_string(sum) && strcmp(json_string_value(sum), item->sha256) != 0))
        return fail(BAD_INPUT,
                    "%s: answers another prompt than row %lld of %s has now; name another file",
                    where, (long long)item->row, set->name);
    const AnswerText text = {json_string_value(pred), (int64_t)json_string_length(pred)};
    const Status status = score_line(prediction->line, set, item, text);
    return status == OK ? OK : fail_within(status, "%s", where);
}

// On rank 0: is_done [n_items], in the order of sets and rows.
static Status open_predictions(LongbenchEvaluation *evaluation, bool *is_done, const Comm *comm,
                               const LongbenchRequest *request, const LongbenchModel *model)
{
    json_t *identity;
    TRY(make_identity(&identity, evaluation, model));
    TRY(predictions_open(&evaluation->predictions, request->predictions, identity, comm->host));
    for (int f = 0; f < evaluation->files.n; f++) {
        const LongbenchItems *items = &evaluation->sets[f];
        const LongbenchSet *set = &evaluation->files.items[f].set;
        for (int64_t i = 0; i < items->n; i++) {
            const Prediction *prediction = predictions_find(&evaluation->predictions, set->name, i);
            *is_done = prediction != NULL;
            if (*is_done++)
                TRY(take_prediction(prediction, set, &items->items[i], request->predictions));
            progress_beat();
        }
    }
    return OK;
}

// Collective.
static Status find_missing(LongbenchEvaluation *evaluation, const Comm *comm,
                           const LongbenchRequest *request, const LongbenchModel *model)
{
    Status status;
    const int64_t n = evaluation->n_items;
    bool *is_done = calloc((size_t)n, sizeof *is_done);
    evaluation->missing = calloc((size_t)n, sizeof *evaluation->missing);
    TRY_GOTO(release,
             comm_agree(comm, is_done != NULL && evaluation->missing != NULL
                                  ? OK
                                  : fail(FAILED, "no memory for %lld rows", (long long)n)));
    const Status opened =
        comm->rank == 0 ? open_predictions(evaluation, is_done, comm, request, model) : OK;
    TRY_GOTO(release, comm_agree_of(comm, comm->rank == 0, opened));
    comm_broadcast(comm, is_done, n * (int64_t)sizeof *is_done, 0);
    int64_t at = 0;
    for (int f = 0; f < evaluation->files.n; f++)
        for (int64_t i = 0; i < evaluation->sets[f].n; i++)
            if (!is_done[at++])
                evaluation->missing[evaluation->n_missing++] = (LongbenchPlace){f, i};
release:
    free(is_done);
    return status;
}

// The same on any number of ranks, as the chunks of a prompt are, too.
static int choose_max_tokens(int64_t T, int batch)
{
    const int chunk = T < PREFILL_TOKENS ? (int)T : PREFILL_TOKENS;
    return chunk > batch ? chunk : batch;
}

Status evaluate_longbench_open(LongbenchEvaluation *out, const Comm *comm,
                               const LongbenchRequest *request, const LongbenchModel *model)
{
    Status status;
    const int64_t T =
        request->max_length > 0 ? request->max_length : evaluate_longbench_max_length(model->shape);
    LongbenchEvaluation evaluation = {.max_length = T,
                                      .limit = request->limit,
                                      .batch = request->batch,
                                      .max_tokens = choose_max_tokens(T, request->batch)};
    status = shape_check_length(model->shape, T, "--max-length", model->dir);
    if (status == OK)
        status = read_sets(&evaluation, request, model);
    TRY_GOTO(release, agree_prompts(&evaluation, comm, status));
    TRY_GOTO(release, find_missing(&evaluation, comm, request, model));
    *out = evaluation;
    return OK;
release:
    evaluate_longbench_release(&evaluation);
    return status;
}

// ---- answers -----------------------------------------------------------------------------------

typedef struct Answering {
    LongbenchEvaluation *evaluation;
    const LongbenchModel *model;
    ProgressMeter meter;
} Answering;

static json_t *make_line(const LongbenchSet *set, const LongbenchItem *item, const char *text,
                         int64_t size)
{
    json_t *classes = item->classes != NULL ? json_incref(item->classes) : json_null();
    return json_pack("{s:s, s:I, s:s, s:I, s:I, s:s, s:o, s:O, s:o}", "set", set->name, "row",
                     (json_int_t)item->row, "_id", item->id, "prompt_tokens",
                     (json_int_t)item->n_ids, "cut", (json_int_t)(item->n_whole - item->n_ids),
                     "prompt_sha256", item->sha256, "pred", json_stringn(text, (size_t)size),
                     "answers", item->answers, "all_classes", classes);
}

// The text is that of the answer's tokens alone, as LongBench decodes it.
static Status on_answer(void *context, int64_t prompt, int sample, const AnswerEnding *answer)
{
    (void)sample; // there is one
    Answering *answering = context;
    LongbenchEvaluation *evaluation = answering->evaluation;
    const LongbenchPlace *place = &evaluation->missing[prompt];
    const LongbenchSet *set = &evaluation->files.items[place->set].set;
    const LongbenchItem *item = &evaluation->sets[place->set].items[place->row];
    char *text;
    int64_t size;
    if (answer->end == ANSWER_INTERRUPTED)
        return OK;
    TRY(tokenizer_decode(answering->model->tokenizer, answer->ids,
                         answer->n_ids - (answer->end == ANSWER_END_TOKEN), &text, &size, true));
    json_t *line = make_line(set, item, text, size);
    Status status = line != NULL ? score_line(line, set, item, (AnswerText){text, size})
                                 : fail(FAILED, "no memory for a prediction");
    free(text);
    if (status != OK) {
        json_decref(line);
        return status;
    }
    TRY(predictions_add(&evaluation->predictions, line));
    progress_show(&answering->meter, ++evaluation->n_done);
    return OK;
}

// The prompts' ids are copies that the list owns.
static Status list_prompts(PromptList *out, const LongbenchEvaluation *evaluation)
{
    const int64_t n = evaluation->n_missing;
    out->items = calloc((size_t)n, sizeof *out->items);
    for (int64_t p = 0; p < n && out->items != NULL; p++) {
        const LongbenchPlace *place = &evaluation->missing[p];
        const LongbenchItem *item = &evaluation->sets[place->set].items[place->row];
        const size_t size = (size_t)item->n_ids * sizeof *item->ids;
        int32_t *ids = malloc(size);
        if (ids == NULL)
            return fail(FAILED, "no memory for prompt %lld", (long long)p + 1);
        memcpy(ids, item->ids, size);
        out->items[out->n++] = (Prompt){.ids = ids,
                                        .n_ids = item->n_ids,
                                        .max_new = evaluation->files.items[place->set].set.max_gen};
    }
    return out->items != NULL ? OK : fail(FAILED, "no memory for %lld prompts", (long long)n);
}

Status evaluate_longbench_check_memory(const LongbenchEvaluation *evaluation,
                                       const LongbenchModel *model, DType dtype)
{
    const double sequence =
        generate_sequence_bytes(model->format, model->shape, evaluation->max_length);
    const double work = (double)infer_bytes(model->shape, evaluation->max_tokens, evaluation->batch,
                                            omp_get_max_threads());
    const GenerateMemory need = {.model = model->dir,
                                 .shape = model->shape,
                                 .dtype = dtype,
                                 .compute = model->compute,
                                 .format = model->format,
                                 .n_at_a_time = evaluation->batch,
                                 .work_bytes = work,
                                 .cache_bytes = evaluation->batch * sequence,
                                 .options = "--batch or --max-length"};
    return generate_check_memory(&need);
}

static Status create_engine(GeneratorModel *out, const LongbenchEvaluation *evaluation,
                            const InferWeights *weights, const LongbenchModel *model)
{
    *out = (GeneratorModel){.tokenizer = model->tokenizer,
                            .vocab_size = weights->shape.vocab_size,
                            .max_tokens = evaluation->max_tokens};
    TRY(infer_create(&out->infer, weights, out->max_tokens, evaluation->batch));
    return kv_cache_create(&out->cache, &weights->shape, model->format, 0);
}

static void release_engine(GeneratorModel *engine)
{
    if (engine->cache != NULL)
        kv_cache_release(engine->cache);
    infer_release(engine->infer);
}

Status evaluate_longbench_run(LongbenchEvaluation *evaluation, const Comm *comm,
                              const InferWeights *weights, const LongbenchModel *model)
{
    Status status;
    PromptList prompts = {0};
    GeneratorModel engine = {0};
    Answering answering = {.evaluation = evaluation, .model = model};
    status = list_prompts(&prompts, evaluation);
    if (status == OK)
        status = create_engine(&engine, evaluation, weights, model);
    TRY_GOTO(release, comm_agree(comm, status));
    const GenerateJob job = {
        .model = engine,
        .options = {.sampling = {.top_p = 1, .repetition_penalty = 1}, // the largest logit
                    .max_new = 1,
                    .context = evaluation->max_length,
                    .batch = evaluation->batch,
                    .end_ids = model->end_ids,
                    .n_end_ids = model->n_end_ids,
                    .is_stopped = stop_requested},
        .prompts = &prompts,
        .n_samples = 1,
        .on_answer = on_answer,
        .context = &answering,
    };
    answering.meter = progress_start("longbench", "answers", evaluation->n_missing);
    status = generate_over_ranks(&evaluation->totals, comm, &job);
    progress_end(&answering.meter);
release:
    release_engine(&engine);
    prompts_release(&prompts);
    return status;
}

// ---- scores ------------------------------------------------------------------------------------

// NaN where the lines of the set have no such key.
static double score_of(const Predictions *predictions, const char *set, int64_t row,
                       const char *key)
{
    const json_t *value = json_object_get(predictions_find(predictions, set, row)->line, key);
    return value != NULL ? json_real_value(value) : NAN;
}

static void score_set(LongbenchScore *out, const Predictions *predictions, const char *set)
{
    double sum = 0, squares = 0, levenshtein = 0;
    const double n = (double)out->n;
    for (int64_t i = 0; i < out->n; i++) {
        sum += score_of(predictions, set, i, "score");
        levenshtein += score_of(predictions, set, i, "score_levenshtein");
    }
    for (int64_t i = 0; i < out->n; i++) {
        const double distance = score_of(predictions, set, i, "score") - sum / n;
        squares += distance * distance;
    }
    out->levenshtein = levenshtein / n;
    out->score = sum / n;
    out->standard_error = out->n > 1 ? sqrt(squares / (n - 1) / n) : NAN;
}

Status evaluate_longbench_score(LongbenchEvaluation *evaluation, const Comm *comm)
{
    Status status = OK;
    if (comm->rank == 0) {
        status = predictions_sort(&evaluation->predictions);
        for (int f = 0; f < evaluation->files.n; f++)
            score_set(&evaluation->scores[f], &evaluation->predictions,
                      evaluation->files.items[f].set.name);
    }
    return comm_agree_of(comm, comm->rank == 0, status);
}

bool evaluate_longbench_average(double *out, const LongbenchEvaluation *evaluation)
{
    double sum = 0;
    int n = 0;
    for (int f = 0; f < evaluation->files.n; f++) {
        if (evaluation->files.items[f].set.is_needle)
            continue;
        sum += evaluation->scores[f].score;
        n++;
    }
    *out = sum / N_LONGBENCH_SETS;
    return n == N_LONGBENCH_SETS;
}
