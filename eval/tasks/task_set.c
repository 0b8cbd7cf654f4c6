// The file is read twice: rows are checked and counted before anything else, so that memory is
// taken for the samples alone, and the prompts, many times as large as their ids, never stand in
// memory together.
#include "eval/tasks/task_set.h"

#include "base/progress.h"
#include "data/text/json_lines.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WHERE_BYTES = PATH_BYTES + 16 };

void task_set_release(TaskSet *set)
{
    for (int i = 0; i < set->n_groups; i++)
        free(set->groups[i]);
    free(set->groups);
    free(set->group_rows);
    free(set->samples);
    free(set->own);
    token_buffer_release(&set->ids);
    *set = (TaskSet){0};
}

// ---- rows
// ----------------------------------------------------------------------------------------

static Status read_row(TaskRow *out, const TaskSet *set, const json_t *json, const JsonLines *lines,
                       char where[WHERE_BYTES])
{
    snprintf(where, WHERE_BYTES, "%s:%d", lines->path, lines->number);
    return set->task->read(out, json, where);
}

// Rows come sorted by their topic, so that it mostly is the last one.
static Status find_group(int *out, TaskSet *set, const char *topic)
{
    for (int i = set->n_groups - 1; i >= 0; i--)
        if (strcmp(set->groups[i], topic) == 0) {
            *out = i;
            return OK;
        }
    const size_t n = (size_t)set->n_groups + 1;
    char **groups = realloc(set->groups, n * sizeof *groups);
    if (groups != NULL)
        set->groups = groups;
    int64_t *rows = realloc(set->group_rows, n * sizeof *rows);
    if (rows != NULL)
        set->group_rows = rows;
    char *name = groups != NULL && rows != NULL ? strdup(topic) : NULL;
    if (name == NULL)
        return fail(FAILED, "%s: out of memory", set->path);
    set->groups[set->n_groups] = name;
    set->group_rows[set->n_groups] = 0;
    *out = set->n_groups++;
    return OK;
}

// Counts a row of the file.
static Status count_row(TaskSet *set, const TaskRow *row)
{
    int group;
    set->n_rows++;
    if (!set->task->has_groups)
        return OK;
    TRY(find_group(&group, set, row->topic));
    set->group_rows[group]++;
    return OK;
}

static Status choose_samples(TaskSet *set, int64_t limit)
{
    const int64_t n = limit > 0 && limit < set->n_rows ? limit : set->n_rows;
    const int64_t stride = set->task->has_groups ? set->n_rows / n : 1;
    set->samples = calloc((size_t)n, sizeof *set->samples);
    if (set->samples == NULL)
        return fail(FAILED, "%s: no memory for %lld rows", set->path, (long long)n);
    for (int64_t i = 0; i < n; i++)
        set->samples[i].row = i * stride;
    set->n_samples = n;
    return OK;
}

Status task_set_read(TaskSet *out, const Task *task, const char *path, int64_t limit)
{
    Status status;
    TaskSet set = {.task = task};
    JsonLines lines;
    json_t *json;
    TaskRow row;
    char where[WHERE_BYTES];
    snprintf(set.path, sizeof set.path, "%s", path);
    TRY(json_lines_open(&lines, path));
    while ((status = json_lines_next(&json, &lines)) == OK && json != NULL) {
        status = read_row(&row, &set, json, &lines, where);
        if (status == OK)
            status = count_row(&set, &row);
        json_decref(json);
        TRY_GOTO(release, status);
    }
    if (status == OK && set.n_rows == 0)
        status = fail(BAD_INPUT, "%s: has no rows; write one JSON object a line", path);
    TRY_GOTO(release, status);
    TRY_GOTO(release, choose_samples(&set, limit));
    *out = set;
release:
    json_lines_close(&lines);
    if (status != OK)
        task_set_release(&set);
    return status;
}

// ---- ids
// -----------------------------------------------------------------------------------------

// What a row's texts are made in, before they are stored.
typedef struct Encoder {
    TaskSet *set;
    const TaskEncoding *encoding;
    TaskItem item;
    TaskRequest request;
    TokenBuffer texts[TASK_MAX_CHOICES]; // [n_choices]
} Encoder;

static void release_encoder(Encoder *encoder)
{
    task_item_release(&encoder->item);
    task_request_release(&encoder->request);
    for (int i = 0; i < TASK_MAX_CHOICES; i++)
        token_buffer_release(&encoder->texts[i]);
}

static Status append_ids(TokenBuffer *out, const TokenBuffer *from, int64_t first)
{
    for (int64_t i = first; i < from->count; i++)
        TRY(token_buffer_append(out, from->ids[i]));
    return OK;
}

static TextSpan bytes_span(const Bytes *bytes)
{
    return (TextSpan){bytes->data != NULL ? bytes->data : "", bytes->size};
}

static int count_shared(const TokenBuffer *texts, int n_texts)
{
    for (int i = 0;; i++)
        for (int t = 0; t < n_texts; t++)
            if (i >= texts[t].count || texts[t].ids[i] != texts[0].ids[i])
                return i;
}

static Status store_question(Encoder *encoder, TaskQuestion *question)
{
    TokenBuffer *ids = &encoder->set->ids;
    const TokenBuffer *texts = encoder->texts;
    question->n_shared = count_shared(texts, question->n_texts);
    question->offset = ids->count;
    TRY(append_ids(ids, &(TokenBuffer){.ids = texts[0].ids, .count = question->n_shared}, 0));
    for (int t = 0; t < question->n_texts; t++)
        TRY(append_ids(ids, &texts[t], question->n_shared));
    encoder->set->own[encoder->set->n_own++] = *question;
    return OK;
}

static Status encode_item(Encoder *encoder, int64_t sample, const char *where)
{
    const TaskItem *item = &encoder->item;
    TaskRequest *request = &encoder->request;
    TaskQuestion question = {.sample = sample, .n_texts = item->n_choices};
    bool is_cut = false;
    for (int i = 0; i < item->n_choices; i++) {
        if (i < item->n_contexts)
            TRY(task_request_context(request, encoder->encoding, bytes_span(&item->contexts[i]),
                                     where));
        TRY(task_request_continue(request, encoder->encoding, bytes_span(&item->continuations[i]),
                                  where));
        encoder->texts[i].count = 0;
        TRY(append_ids(&encoder->texts[i], &request->ids, 0));
        question.n_ids[i] = (int)request->ids.count;
        question.n_scored[i] = request->n_scored;
        question.longest =
            question.n_ids[i] > question.longest ? question.n_ids[i] : question.longest;
        is_cut |= request->is_cut;
    }
    encoder->set->n_cut += is_cut;
    return store_question(encoder, &question);
}

// The row of sample `s`, which the rank that owns it tokenizes.
static Status encode_row(Encoder *encoder, int64_t s, bool is_own, const json_t *json,
                         const JsonLines *lines)
{
    TaskSet *set = encoder->set;
    TaskSample *sample = &set->samples[s];
    TaskRow row;
    char where[WHERE_BYTES];
    TRY(read_row(&row, set, json, lines, where));
    TRY(set->task->prompt(&encoder->item, &row));
    sample->gold = row.gold;
    sample->n_choices = row.n_choices;
    if (set->task->has_groups)
        TRY(find_group(&sample->group, set, row.topic));
    memcpy(sample->divisors, encoder->item.divisors, sizeof sample->divisors);
    progress_beat();
    return is_own ? encode_item(encoder, s, where) : OK;
}

// Longest first, so that what takes the most memory comes first and the texts of a batch are about
// as long as each other.
static int compare_questions(const void *a, const void *b)
{
    const TaskQuestion *left = a, *right = b;
    if (left->longest != right->longest)
        return left->longest > right->longest ? -1 : 1;
    return left->sample < right->sample ? -1 : left->sample > right->sample;
}

Status task_set_encode(TaskSet *set, const TaskEncoding *encoding, int rank, int n_ranks)
{
    Status status = OK;
    Encoder encoder = {.set = set, .encoding = encoding};
    JsonLines lines = {0};
    json_t *json;
    int64_t s = 0;
    set->own = malloc((size_t)(set->n_samples / n_ranks + 1) * sizeof *set->own);
    if (set->own == NULL)
        return fail(FAILED, "%s: no memory for %lld questions", set->path,
                    (long long)set->n_samples);
    TRY_GOTO(release, json_lines_open(&lines, set->path));
    for (int64_t row = 0; s < set->n_samples; row++) {
        TRY_GOTO(release, json_lines_next(&json, &lines));
        if (json == NULL)
            break;
        if (row == set->samples[s].row) {
            status = encode_row(&encoder, s, s % n_ranks == rank, json, &lines);
            s++;
        }
        json_decref(json);
        TRY_GOTO(release, status);
    }
    if (s < set->n_samples)
        TRY_GOTO(release, fail(FAILED, "%s: changed while it was read", set->path));
    qsort(set->own, (size_t)set->n_own, sizeof *set->own, compare_questions);
release:
    json_lines_close(&lines);
    release_encoder(&encoder);
    return status;
}

// ---- scoring
// -------------------------------------------------------------------------------------

// What choice_scorer_run() takes, for n questions: their texts with the shared beginning before
// each.
typedef struct ScoreBatch {
    ScoredQuestion *questions; // owned [n]
    ScoredText *texts;         // owned [n, TASK_MAX_CHOICES]
    int32_t *ids;              // owned
} ScoreBatch;

static void release_batch(ScoreBatch *batch)
{
    free(batch->questions);
    free(batch->texts);
    free(batch->ids);
}

static Status allocate_batch(ScoreBatch *batch, const TaskQuestion *questions, int64_t n)
{
    size_t n_ids = 0;
    for (int64_t q = 0; q < n; q++)
        for (int t = 0; t < questions[q].n_texts; t++)
            n_ids += (size_t)questions[q].n_ids[t];
    batch->questions = malloc((size_t)n * sizeof *batch->questions);
    batch->texts = malloc((size_t)n * TASK_MAX_CHOICES * sizeof *batch->texts);
    batch->ids = malloc(n_ids * sizeof *batch->ids);
    return batch->questions != NULL && batch->texts != NULL && batch->ids != NULL
               ? OK
               : fail(FAILED, "no memory for %lld questions", (long long)n);
}

static void fill_batch(ScoreBatch *batch, TaskSet *set, const TaskQuestion *questions, int64_t n)
{
    int32_t *ids = batch->ids;
    for (int64_t q = 0; q < n; q++) {
        const TaskQuestion *question = &questions[q];
        ScoredText *texts = batch->texts + q * TASK_MAX_CHOICES;
        const int32_t *shared = set->ids.ids + question->offset,
                      *rest = shared + question->n_shared;
        for (int t = 0; t < question->n_texts; t++) {
            const int n_rest = question->n_ids[t] - question->n_shared;
            texts[t] = (ScoredText){ids, question->n_ids[t], question->n_scored[t]};
            memcpy(ids, shared, (size_t)question->n_shared * sizeof *ids);
            memcpy(ids + question->n_shared, rest, (size_t)n_rest * sizeof *ids);
            ids += question->n_ids[t];
            rest += n_rest;
        }
        batch->questions[q] = (ScoredQuestion){texts, question->n_texts,
                                               set->samples[question->sample].log_likelihoods};
    }
}

Status task_set_score(TaskSet *set, ChoiceScorer *scorer, int64_t first, int64_t n)
{
    Status status;
    ScoreBatch batch = {0};
    TRY_GOTO(release, allocate_batch(&batch, set->own + first, n));
    fill_batch(&batch, set, set->own + first, n);
    status = choice_scorer_run(scorer, batch.questions, (int)n);
release:
    release_batch(&batch);
    return status;
}

// ---- scores
// --------------------------------------------------------------------------------------

int task_sample_choose(const TaskSample *sample, bool is_divided)
{
    int chosen = 0;
    double best = -INFINITY;
    for (int i = 0; i < sample->n_choices; i++) {
        const double value =
            sample->log_likelihoods[i] / (is_divided ? (double)sample->divisors[i] : 1);
        if (value > best) {
            best = value;
            chosen = i;
        }
    }
    return chosen;
}

// The standard error of a share of n samples that are 0 or 1: the sample's standard deviation by
// the square root of n, as lm-eval has it.
static double share_stderr(double share, int64_t n)
{
    return n > 1 ? sqrt(share * (1 - share) / (double)(n - 1)) : NAN;
}

static TaskScore measure(const TaskSet *set, int group)
{
    TaskScore score = {0};
    for (int64_t s = 0; s < set->n_samples; s++) {
        const TaskSample *sample = &set->samples[s];
        if (group >= 0 && sample->group != group)
            continue;
        score.n++;
        score.acc += task_sample_choose(sample, false) == sample->gold;
        score.acc_norm += task_sample_choose(sample, true) == sample->gold;
        score.chance += 1.0 / sample->n_choices;
    }
    if (score.n > 0) {
        score.acc /= (double)score.n;
        score.acc_norm /= (double)score.n;
        score.chance /= (double)score.n;
    }
    score.acc_stderr = share_stderr(score.acc, score.n);
    score.acc_norm_stderr = share_stderr(score.acc_norm, score.n);
    return score;
}

// The variance within the groups alone counts, as lm-eval's pooled_sample_stderr() has it.
static void pool_groups(TaskScore *score, const TaskSet *set)
{
    double acc = 0, acc_norm = 0;
    for (int g = 0; g < set->n_groups; g++) {
        const TaskScore part = measure(set, g);
        acc += (double)part.n * part.acc * (1 - part.acc);
        acc_norm += (double)part.n * part.acc_norm * (1 - part.acc_norm);
    }
    const double n = (double)score->n;
    score->acc_stderr = sqrt(acc / (n - set->n_groups) / n);
    score->acc_norm_stderr = sqrt(acc_norm / (n - set->n_groups) / n);
}

TaskScore task_set_measure(const TaskSet *set, int group)
{
    TaskScore score = measure(set, group);
    if (group < 0 && set->n_groups > 1 && set->n_groups < score.n)
        pool_groups(&score, set);
    return score;
}
