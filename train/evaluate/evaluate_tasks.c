#include "train/evaluate/evaluate_tasks.h"

#include "base/log.h"
#include "base/progress.h"
#include "base/suggest.h"
#include "eval/tasks/task_file.h"
#include "train/agreement.h"
#include "train/generate/generate_memory.h"
#include "train/stop.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
    REFERENCE_LENGTH = 2048,
    // Questions that a rank scores between two agreements of the ranks: enough for full batches,
    // few enough that a request to stop is soon heard.
    TURN_QUESTIONS = 64,
    NAME_BYTES = 64,
    LIST_BYTES = 512,
};

int evaluate_tasks_max_length(TaskRules rules, const ModelShape *shape)
{
    const int longest = shape_longest(shape);
    return rules == TASK_RULES_REFERENCE && REFERENCE_LENGTH < longest ? REFERENCE_LENGTH : longest;
}

void evaluate_tasks_release(TasksEvaluation *evaluation)
{
    for (int i = 0; i < evaluation->n_sets; i++)
        task_set_release(&evaluation->sets[i]);
    *evaluation = (TasksEvaluation){0};
}

// ---- which tasks
// ---------------------------------------------------------------------------------

static Status refuse_missing(const char *dir, const Task *task)
{
    return fail(BAD_INPUT, "%s: has no %s.jsonl or %s.jsonl.gz, the rows of task %s", dir,
                task->files[0], task->files[0], task->name);
}

static void add_name(char list[LIST_BYTES], const char *name)
{
    const size_t size = strlen(list);
    snprintf(list + size, LIST_BYTES - size, "%s%s", size > 0 ? ", " : "", name);
}

// The setting that named it is the caller's: an option or a key of a config.
static Status refuse_name(const char *name, TaskRules rules)
{
    const char *names[EVALUATE_MAX_TASKS];
    char known[LIST_BYTES] = "";
    int n = 0;
    for (const Task *task; n < EVALUATE_MAX_TASKS && (task = task_at(rules, n)) != NULL; n++) {
        names[n] = task->name;
        add_name(known, task->name);
    }
    const char *nearest = suggest_nearest(name, names, n);
    if (nearest != NULL)
        return fail(BAD_INPUT, "the rules %s have no task '%s'; did you mean '%s'?",
                    task_rules_names[rules], name, nearest);
    return fail(BAD_INPUT, "the rules %s have no task '%s'; they have %s", task_rules_names[rules],
                name, known);
}

// Sets the bits, by index of task_at(), of the names in a list with commas.
static Status choose_named(uint64_t *mask, const TasksRequest *request)
{
    const char *name = request->only;
    for (bool is_last = false; !is_last;) {
        char copy[NAME_BYTES];
        const size_t size = strcspn(name, ",");
        is_last = name[size] == '\0';
        snprintf(copy, sizeof copy, "%.*s", size < sizeof copy ? (int)size : NAME_BYTES - 1, name);
        const Task *wanted = task_find(copy, request->rules);
        if (wanted == NULL)
            return refuse_name(copy, request->rules);
        for (int i = 0; task_at(request->rules, i) != NULL; i++)
            if (task_at(request->rules, i) == wanted)
                *mask |= (uint64_t)1 << i;
        name += size + 1;
    }
    return OK;
}

static Status choose_present(uint64_t *mask, const TasksRequest *request)
{
    const Task *task;
    char path[PATH_BYTES], missing[EVALUATE_MAX_TASKS * (NAME_BYTES + 16)] = "";
    for (int i = 0; (task = task_at(request->rules, i)) != NULL; i++) {
        const size_t size = strlen(missing);
        if (task->is_only_named)
            continue;
        if (task_file_find(path, request->dir, task))
            *mask |= (uint64_t)1 << i;
        else
            snprintf(missing + size, sizeof missing - size, "%s%s.jsonl[.gz]", size > 0 ? ", " : "",
                     task->files[0]);
    }
    if (*mask != 0 && missing[0] != '\0')
        log_info("%s: tasks left out, whose files are missing: %s", request->dir, missing);
    if (*mask == 0)
        return fail(BAD_INPUT,
                    "%s: has the rows of no task; they are in files such as piqa.jsonl or "
                    "piqa.jsonl.gz, see docs/evaluation.md",
                    request->dir);
    return OK;
}

// By what rank 0 finds. Collective.
static Status choose_tasks(uint64_t *mask, const Comm *comm, const TasksRequest *request)
{
    Status status = OK;
    *mask = 0;
    if (!file_is_dir(request->dir))
        status = fail(BAD_INPUT, "%s: no directory with rows of tasks", request->dir);
    else if (request->only != NULL)
        status = choose_named(mask, request);
    else if (comm->rank == 0)
        status = choose_present(mask, request);
    TRY(comm_agree(comm, status));
    comm_broadcast(comm, mask, sizeof *mask, 0);
    return OK;
}

// ---- opening
// -------------------------------------------------------------------------------------

static Status read_set(TaskSet *out, const char *path, const Task *task,
                       const TasksRequest *request, const TaskEncoding *encoding, const Comm *comm)
{
    Status status;
    TaskSet set = {0};
    TRY(task_set_read(&set, task, path, request->limit));
    TRY_GOTO(release, task_set_encode(&set, encoding, comm->rank, comm->size));
    *out = set;
    return OK;
release:
    task_set_release(&set);
    return status;
}

static Status open_set(TasksEvaluation *evaluation, const Comm *comm, const Task *task,
                       const TasksRequest *request, const TaskEncoding *encoding)
{
    char path[PATH_BYTES];
    const bool is_found = task_file_find(path, request->dir, task);
    TRY(comm_agree(comm, is_found ? OK : refuse_missing(request->dir, task)));
    TRY(agreement_file(comm, task->name, path));
    // A rank that could read its part releases it where another one could not.
    TaskSet *set = &evaluation->sets[evaluation->n_sets++];
    return comm_agree(comm, read_set(set, path, task, request, encoding, comm));
}

static void count_texts(TasksEvaluation *evaluation, const Comm *comm)
{
    double longest = 0, n_cut = 0;
    for (int i = 0; i < evaluation->n_sets; i++) {
        const TaskSet *set = &evaluation->sets[i];
        n_cut += (double)set->n_cut;
        if (set->n_own > 0 && set->own[0].longest - 1 > longest)
            longest = set->own[0].longest - 1;
    }
    comm_max_doubles(comm, &longest, 1);
    comm_sum_doubles(comm, &n_cut, 1);
    evaluation->longest = (int)longest;
    evaluation->n_cut = (int64_t)n_cut;
}

Status evaluate_tasks_open(TasksEvaluation *out, const Comm *comm, const TasksRequest *request,
                           const TasksModel *model)
{
    Status status;
    uint64_t mask;
    TasksEvaluation evaluation = {.rules = request->rules, .limit = request->limit};
    evaluation.puts_begin = tokenizer_puts_begin(model->tokenizer);
    evaluation.max_length = request->max_length > 0
                                ? (int)request->max_length
                                : evaluate_tasks_max_length(request->rules, model->shape);
    const TaskEncoding encoding = {.tokenizer = model->tokenizer,
                                   .model = model->name,
                                   .vocab_size = model->shape->vocab_size,
                                   .max_length = evaluation.max_length,
                                   .begin_id = model->begin_id};
    TRY(choose_tasks(&mask, comm, request));
    for (int i = 0; task_at(request->rules, i) != NULL; i++)
        if (mask & (uint64_t)1 << i)
            TRY_GOTO(release,
                     open_set(&evaluation, comm, task_at(request->rules, i), request, &encoding));
    count_texts(&evaluation, comm);
    *out = evaluation;
    return OK;
release:
    evaluate_tasks_release(&evaluation);
    return status;
}

// ---- running
// -------------------------------------------------------------------------------------

static Status score_turn(TaskSet *set, ChoiceScorer *scorer, int64_t first)
{
    const int64_t left = set->n_own - first;
    TRY(stop_check());
    if (left <= 0)
        return OK;
    return task_set_score(set, scorer, first, left < TURN_QUESTIONS ? left : TURN_QUESTIONS);
}

// Each log-likelihood is one rank's and 0 on all others: adding them does not round.
static Status share_scores(TaskSet *set, const Comm *comm)
{
    double(*all)[TASK_MAX_CHOICES] = malloc((size_t)set->n_samples * sizeof *all);
    Status status = all != NULL ? OK : fail(FAILED, "no memory for log-likelihoods");
    TRY_GOTO(release, comm_agree(comm, status));
    for (int64_t s = 0; s < set->n_samples; s++)
        memcpy(all[s], set->samples[s].log_likelihoods, sizeof *all);
    comm_sum_doubles(comm, all[0], set->n_samples * TASK_MAX_CHOICES);
    for (int64_t s = 0; s < set->n_samples; s++)
        memcpy(set->samples[s].log_likelihoods, all[s], sizeof *all);
release:
    free(all);
    return status;
}

static Status score_set(TaskSet *set, const Comm *comm, ChoiceScorer *scorer)
{
    Status status = OK;
    const int64_t n_most = (set->n_samples + comm->size - 1) / comm->size; // of a rank
    ProgressMeter meter = progress_start(set->task->name, "questions", set->n_samples);
    for (int64_t s = 0; s < set->n_samples; s++)
        memset(set->samples[s].log_likelihoods, 0, sizeof set->samples[s].log_likelihoods);
    for (int64_t first = 0; first < n_most; first += TURN_QUESTIONS) {
        TRY_GOTO(end, comm_agree(comm, score_turn(set, scorer, first)));
        progress_show(&meter, (first + TURN_QUESTIONS) * comm->size);
    }
    status = share_scores(set, comm);
end:
    progress_end(&meter);
    return status;
}

// What the ranks ran, in all. Collective.
static void add_counts(TasksEvaluation *evaluation, const Comm *comm, const ChoiceScorer *scorer)
{
    const ChoiceScorerCounts counts = choice_scorer_counts(scorer);
    double sums[] = {(double)counts.n_tokens, (double)counts.n_logits, (double)counts.n_forwards};
    double peak_bytes = (double)counts.peak_bytes;
    comm_sum_doubles(comm, sums, 3);
    comm_max_doubles(comm, &peak_bytes, 1);
    evaluation->counts = (ChoiceScorerCounts){.n_tokens = (int64_t)sums[0],
                                              .n_logits = (int64_t)sums[1],
                                              .n_forwards = (int64_t)sums[2],
                                              .peak_bytes = (int64_t)peak_bytes};
}

Status evaluate_tasks_check_memory(const TasksEvaluation *evaluation, const TasksModel *model,
                                   DType dtype, ComputeType compute, const KvFormat *format)
{
    const GenerateMemory need = {
        .model = model->name,
        .shape = model->shape,
        .dtype = dtype,
        .compute = compute,
        .format = format,
        .n_at_a_time = CHOICE_SCORER_TOKENS,
        .work_bytes = (double)choice_scorer_work_bytes(model->shape, omp_get_max_threads()),
        .cache_bytes = (double)choice_scorer_cache_bytes(model->shape, format, evaluation->longest),
        .options = "--max-length"};
    return generate_check_memory(&need);
}

Status evaluate_tasks_run(TasksEvaluation *evaluation, const Comm *comm,
                          const InferWeights *weights, const KvFormat *format)
{
    Status status;
    ChoiceScorer *scorer = NULL;
    TRY_GOTO(release, comm_agree(comm, choice_scorer_create(&scorer, weights, format,
                                                            &(ChoiceScorerOptions){0})));
    for (int i = 0; i < evaluation->n_sets; i++)
        TRY_GOTO(release, score_set(&evaluation->sets[i], comm, scorer));
    add_counts(evaluation, comm, scorer);
release:
    choice_scorer_release(scorer);
    return status;
}

// ---- scores
// --------------------------------------------------------------------------------------

TaskShown evaluate_tasks_shown(const TaskSet *set)
{
    const TaskScore score = task_set_measure(set, -1);
    TaskShown shown = {.metric = "acc",
                       .score = score.acc,
                       .standard_error = score.acc_stderr,
                       .n = score.n,
                       .chance = score.chance};
    if (set->task->has_acc_norm) {
        shown.metric = "acc_norm";
        shown.score = score.acc_norm;
        shown.standard_error = score.acc_norm_stderr;
    }
    // Of few samples all may be right or wrong, whose error seems to be 0: chance has one, too.
    const double chance_error = sqrt(shown.chance * (1 - shown.chance) / (double)shown.n);
    shown.is_near_chance =
        fabs(shown.score - shown.chance) <= 2 * fmax(shown.standard_error, chance_error);
    return shown;
}

bool evaluate_tasks_average(TasksAverage *out, const TasksEvaluation *evaluation)
{
    TasksAverage average = {0};
    double variance = 0;
    int n_members = 0, n_wanted = 0, n_found = 0;
    const Task *task;
    for (int i = 0; (task = task_at(evaluation->rules, i)) != NULL; i++)
        n_wanted += task->member != NULL;
    for (int i = 0; i < evaluation->n_sets; i++) {
        const char *member = evaluation->sets[i].task->member;
        if (member == NULL)
            continue;
        const TaskShown shown = evaluate_tasks_shown(&evaluation->sets[i]);
        const double weight = (strcmp(member, "arc") == 0 ? 0.5 : 1) / EVALUATE_AVERAGED;
        average.score += weight * shown.score;
        variance += pow(weight * shown.standard_error, 2);
        n_found++;
        if (n_members == 0 || strcmp(average.members[n_members - 1], member) != 0)
            average.members[n_members++] = member;
    }
    if (n_found < n_wanted)
        return false;
    average.standard_error = sqrt(variance);
    *out = average;
    return true;
}
