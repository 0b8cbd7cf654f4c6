// All ranks have all parameters after each update (train/replica.h), so each makes its own copy for
// inference and nothing is sent but log-likelihoods.
#include "train/job/run_evaluation.h"

#include "model/hf/generation_config.h"
#include "train/evaluate/tasks_result.h"
#include "train/plan/evaluation_memory.h"
#include "train/prepare.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

enum { ONLY_BYTES = 512 };

// ---- opening -----------------------------------------------------------------------------------

// "arc_easy,piqa"
static Status join_names(char out[ONLY_BYTES], const EvalConfig *config)
{
    size_t size = 0;
    out[0] = '\0';
    for (int i = 0; i < config->n_only; i++) {
        const size_t left = ONLY_BYTES - size;
        const int n = snprintf(out + size, left, "%s%s", i > 0 ? "," : "", config->only[i]);
        if (n < 0 || (size_t)n >= left)
            return fail(BAD_INPUT, "eval.only: its %d names are longer than %d bytes",
                        config->n_only, ONLY_BYTES);
        size += (size_t)n;
    }
    return OK;
}

// The model's own tokenizer, which RUN/model gets, too.
static Status load_tokenizer(RunEvaluation *evaluation, int32_t *begin_id, int vocab_size)
{
    const ModelConfig *model = &evaluation->config->model;
    const char *dir = model->base != NULL ? model->base : model->init.tokenizer;
    if (dir == NULL)
        return fail(BAD_INPUT, "eval.tasks is given, but model.init.tokenizer is not; texts of "
                               "tasks need a tokenizer");
    TRY(tokenizer_load(&evaluation->tokenizer, dir));
    const int32_t eos_id = tokenizer_eos_id(evaluation->tokenizer);
    *begin_id = eos_id;
    if (model->base == NULL) // RUN/model names neither
        return OK;
    GenerationConfig generation;
    TRY(generation_config_load(&generation, dir, vocab_size, eos_id));
    if (generation.begin_id >= 0)
        *begin_id = generation.begin_id;
    return OK;
}

static Status open_tasks(RunEvaluation *evaluation, const ModelShape *shape)
{
    const EvalConfig *config = &evaluation->config->eval;
    char only[ONLY_BYTES];
    int32_t begin_id = -1;
    Status status = join_names(only, config);
    if (status == OK)
        status = load_tokenizer(evaluation, &begin_id, shape->vocab_size);
    TRY(comm_agree(evaluation->comm, status));
    const TasksRequest request = {.dir = config->tasks,
                                  .only = config->n_only > 0 ? only : NULL,
                                  .rules = evaluation_rules(config),
                                  .limit = config->limit};
    const TasksModel model = {shape, evaluation->tokenizer, begin_id, evaluation->run_dir};
    status = evaluate_tasks_open(&evaluation->tasks, evaluation->comm, &request, &model);
    // What parsing has left in the heap, some MiB, before the model takes its memory.
    malloc_trim(0);
    return status == OK ? OK : fail_within(status, "eval");
}

// ---- between steps -----------------------------------------------------------------------------

static Status read_tensor(const void *context, const ParamInfo *info, float *values)
{
    const Model *model = context;
    const int64_t count = (int64_t)info->rows * info->cols;
    memcpy(values, model->params.flat + info->offset, (size_t)count * sizeof *values);
    return OK;
}

static Status write_scores(RunEvaluation *evaluation, Metrics *metrics, const TasksResult *result)
{
    const TasksEvaluation *tasks = &evaluation->tasks;
    TaskValue values[EVALUATE_MAX_TASKS + 1];
    TasksAverage average;
    int n = 0;
    for (int i = 0; i < tasks->n_sets; i++)
        values[n++] =
            (TaskValue){tasks->sets[i].task->name, evaluate_tasks_shown(&tasks->sets[i]).score};
    if (evaluate_tasks_average(&average, tasks))
        values[n++] = (TaskValue){"average", average.score};
    // The file first: where metrics.jsonl has the last step's line, it is there.
    if (result->step == evaluation->config->train.steps) {
        char path[PATH_BYTES];
        TRY(file_join(path, evaluation->run_dir, "eval.json"));
        TRY(tasks_result_write(result, path));
    }
    return metrics_tasks(metrics, (int)result->step, result->tokens, values, n);
}

static Status run_tasks(void *context, const Model *model, Metrics *metrics, int step,
                        int64_t tokens)
{
    RunEvaluation *evaluation = context;
    const Comm *comm = evaluation->comm;
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const WeightSource source = {&model->shape, model, read_tensor};
    InferWeights weights = {0};
    const ComputeType compute = evaluation->config->train.compute;
    Status status = infer_weights_read(&weights, &source, model->rope_pairs, DTYPE_F32, compute);
    TRY_GOTO(release, comm_agree(comm, status));
    TRY_GOTO(release, evaluate_tasks_run(&evaluation->tasks, comm, &weights, &format));
    char dir[PATH_BYTES];
    const TasksResult result = {.evaluation = &evaluation->tasks,
                                .model = dir,
                                .shape = &model->shape,
                                .format = &format,
                                .compute = compute,
                                .is_in_run = true,
                                .step = step,
                                .tokens = tokens};
    status = file_join(dir, evaluation->run_dir, "model");
    if (status == OK && comm->rank == 0)
        status = write_scores(evaluation, metrics, &result);
    status = comm_agree(comm, status);
release:
    infer_weights_release(&weights);
    return status;
}

Status run_evaluation_open(RunEvaluation *out, const Comm *comm, const Config *config,
                           const ModelShape *shape, const char *run_dir)
{
    RunEvaluation evaluation = {.config = config, .comm = comm, .run_dir = run_dir};
    if (config->eval.tasks != NULL) {
        const Status status = open_tasks(&evaluation, shape);
        if (status != OK) {
            run_evaluation_release(&evaluation);
            return status;
        }
    }
    *out = evaluation;
    return OK;
}

TrainerEvaluation *run_evaluation_hook(RunEvaluation *evaluation)
{
    return evaluation->config->eval.tasks != NULL ? &evaluation->hook : NULL;
}

void run_evaluation_set_step(RunEvaluation *evaluation, int step)
{
    evaluation->hook = (TrainerEvaluation){.run = run_tasks,
                                           .context = evaluation,
                                           .every = evaluation->config->eval.every,
                                           .last_step = step};
}

bool run_evaluation_is_written(const Config *config, const char *run_dir)
{
    char path[PATH_BYTES];
    return config->eval.tasks == NULL ||
           (file_join(path, run_dir, "eval.json") == OK && file_exists(path));
}

void run_evaluation_release(RunEvaluation *evaluation)
{
    evaluate_tasks_release(&evaluation->tasks);
    tokenizer_release(evaluation->tokenizer);
    *evaluation = (RunEvaluation){0};
}
