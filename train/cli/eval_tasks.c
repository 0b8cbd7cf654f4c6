// mha2mla eval --tasks: accuracies of a model over multiple-choice tasks.
#include "base/log.h"
#include "model/hf/generation_config.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/cli/eval_kinds.h"
#include "train/evaluate/tasks_result.h"

#include <stdio.h>

typedef struct Session {
    ModelShape shape;
    KvFormat format;
    Tokenizer *tokenizer;
    int32_t begin_id;
    TasksEvaluation evaluation;
    InferWeights weights;
} Session;

// What config.json, the tokenizer and the options say, before any weights. Files are written at the
// end of long work: what would fail then is to fail now.
static Status open_small_files(Session *session, const EvalOptions *options, const char *dir)
{
    GenerationConfig config;
    TRY(kv_options_format(&session->format, &options->kv,
                          options->kv.bits != NULL ? KV_BFLOAT16 : KV_FLOAT32));
    TRY(hf_load_shape(&session->shape, dir));
    TRY(kv_format_check(&session->format, &session->shape));
    if (options->max_length > 0)
        TRY(shape_check_length(&session->shape, options->max_length, "--max-length", dir));
    TRY(tokenizer_load(&session->tokenizer, dir));
    const int32_t eos_id = tokenizer_eos_id(session->tokenizer);
    TRY(generation_config_load(&config, dir, session->shape.vocab_size, eos_id));
    session->begin_id = config.begin_id >= 0 ? config.begin_id : eos_id;
    if (options->out != NULL)
        TRY(file_check_target(options->out));
    return options->samples != NULL ? file_check_target(options->samples) : OK;
}

static Status write_files(const TasksResult *result, const EvalOptions *options)
{
    if (options->samples != NULL)
        TRY(tasks_result_write_samples(result, options->samples));
    return options->out != NULL ? tasks_result_write(result, options->out) : OK;
}

static Status load_weights(Session *session, const EvalOptions *options, const TasksModel *model)
{
    DType dtype;
    const char *dir = model->name;
    TRY(hf_weights_dtype(&dtype, dir));
    TRY(evaluate_tasks_check_memory(&session->evaluation, model, dtype, options->compute.type,
                                    &session->format));
    return options->is_rotated
               ? infer_weights_load_rotated(&session->weights, dir, options->compute.type)
               : infer_weights_load(&session->weights, dir, options->compute.type);
}

static void print_counts(const ChoiceScorerCounts *counts)
{
    log_info("ran %lld tokens, %lld of them with logits, in %lld forwards; a rank's cache took "
             "%.1f MiB at most",
             (long long)counts->n_tokens, (long long)counts->n_logits,
             (long long)counts->n_forwards, (double)counts->peak_bytes / (1 << 20));
}

Status eval_tasks(const Comm *comm, const EvalOptions *options, const char *dir)
{
    Session session = {0};
    Status status;
    const TasksRequest request = {.dir = options->tasks,
                                  .only = options->only,
                                  .rules = (TaskRules)options->rules,
                                  .limit = options->limit,
                                  .max_length = options->max_length};
    TRY(agreement_model(comm, dir));
    TRY_GOTO(release, comm_agree(comm, open_small_files(&session, options, dir)));
    const TasksModel model = {&session.shape, session.tokenizer, session.begin_id, dir};
    const TasksResult result = {.evaluation = &session.evaluation,
                                .model = dir,
                                .shape = &session.shape,
                                .format = &session.format,
                                .compute = options->compute.type};
    TRY_GOTO(release, evaluate_tasks_open(&session.evaluation, comm, &request, &model));
    shape_warn_healed(&session.shape, session.evaluation.longest, "the longest question", dir);
    TRY_GOTO(release, comm_agree(comm, load_weights(&session, options, &model)));
    TRY_GOTO(release,
             evaluate_tasks_run(&session.evaluation, comm, &session.weights, &session.format));
    print_counts(&session.evaluation.counts);
    status = comm->rank == 0 ? write_files(&result, options) : OK;
    TRY_GOTO(release, comm_agree_of(comm, comm->rank == 0, status));
    if (comm->rank == 0)
        tasks_result_print(stdout, &result);
release:
    evaluate_tasks_release(&session.evaluation);
    infer_weights_release(&session.weights);
    tokenizer_release(session.tokenizer);
    return status;
}
