// mha2mla eval --longbench: scores of a model's answers to LongBench and to needle sets.
#include "base/log.h"
#include "model/hf/generation_config.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/cli/eval_kinds.h"
#include "train/evaluate/longbench_result.h"
#include "train/stop.h"

#include <stdio.h>

typedef struct Session {
    ModelShape shape;
    KvFormat format;
    Tokenizer *tokenizer;
    GenerationConfig config;
    LongbenchEvaluation evaluation;
    InferWeights weights;
} Session;

// What config.json, the tokenizer and the options say, before any weights.
static Status open_small_files(Session *session, const EvalOptions *options, const char *dir)
{
    TRY(kv_options_format(&session->format, &options->kv,
                          options->kv.bits != NULL ? KV_BFLOAT16 : KV_FLOAT32));
    TRY(hf_load_shape(&session->shape, dir));
    TRY(kv_format_check(&session->format, &session->shape));
    TRY(tokenizer_load(&session->tokenizer, dir));
    TRY(generation_config_load(&session->config, dir, session->shape.vocab_size,
                               tokenizer_eos_id(session->tokenizer)));
    return options->out != NULL ? file_check_target(options->out) : OK;
}

static Status load_weights(Session *session, const EvalOptions *options,
                           const LongbenchModel *model)
{
    DType dtype;
    TRY(hf_weights_dtype(&dtype, model->dir));
    TRY(evaluate_longbench_check_memory(&session->evaluation, model, dtype));
    return options->is_rotated
               ? infer_weights_load_rotated(&session->weights, model->dir, model->compute)
               : infer_weights_load(&session->weights, model->dir, model->compute);
}

static double rate(double n, double seconds)
{
    return seconds > 0 ? n / seconds : 0;
}

static void print_rates(const LongbenchEvaluation *evaluation)
{
    const GenerateTotals *totals = &evaluation->totals;
    log_info("prompts: %lld tokens in %.2f s, %.1f tokens/s; answers: %lld tokens in %.2f s, %.1f "
             "tokens/s",
             (long long)totals->prompt_tokens, totals->prompt_s,
             rate((double)totals->prompt_tokens, totals->prompt_s), (long long)totals->n_decoded,
             totals->decode_s, rate((double)totals->n_decoded, totals->decode_s));
}

// What a request to stop leaves behind. Without a file, answers are lost: that is an error.
static Status tell_stopped(const LongbenchEvaluation *evaluation, const Comm *comm,
                           const EvalOptions *options)
{
    int64_t done[2] = {evaluation->n_items - evaluation->n_missing + evaluation->n_done,
                       evaluation->n_items};
    comm_broadcast(comm, done, sizeof done, 0);
    if (options->predictions == NULL)
        return fail(
            FAILED,
            "interrupted; %lld of %lld answers were complete; with --predictions FILE.jsonl "
            "they are kept and the same command goes on from there",
            (long long)done[0], (long long)done[1]);
    log_info("stopped by %s; %lld of %lld answers are in %s, the same command goes on from there",
             stop_cause_name(stop_cause()), (long long)done[0], (long long)done[1],
             options->predictions);
    return STOPPED;
}

static Status answer(Session *session, const Comm *comm, const EvalOptions *options,
                     const LongbenchModel *model)
{
    LongbenchEvaluation *evaluation = &session->evaluation;
    const int64_t n_kept = evaluation->n_items - evaluation->n_missing;
    if (n_kept > 0)
        log_info("%lld of %lld answers are in %s", (long long)n_kept,
                 (long long)evaluation->n_items, options->predictions);
    if (evaluation->n_missing == 0)
        return OK;
    TRY(comm_agree(comm, load_weights(session, options, model)));
    const Status status = evaluate_longbench_run(evaluation, comm, &session->weights, model);
    if (status == STOPPED)
        return tell_stopped(evaluation, comm, options);
    TRY(status);
    print_rates(evaluation);
    return OK;
}

static void warn_cut_needles(const LongbenchEvaluation *evaluation)
{
    for (int f = 0; f < evaluation->files.n; f++)
        if (evaluation->files.items[f].set.is_needle && evaluation->scores[f].n_cut > 0)
            log_warn("%s: %lld of %lld prompts are longer than the model's %lld tokens and were "
                     "cut in the middle, where the answer may have been",
                     evaluation->files.items[f].set.name, (long long)evaluation->scores[f].n_cut,
                     (long long)evaluation->scores[f].n, (long long)evaluation->max_length);
}

Status eval_longbench(const Comm *comm, const EvalOptions *options, const char *dir)
{
    Session session = {0};
    Status status;
    const LongbenchRequest request = {.dir = options->longbench,
                                      .only = options->only,
                                      .limit = options->limit,
                                      .max_length = options->max_length,
                                      .batch = (int)options->batch,
                                      .predictions = options->predictions};
    TRY(agreement_model(comm, dir));
    TRY_GOTO(release, comm_agree(comm, open_small_files(&session, options, dir)));
    const LongbenchModel model = {.dir = dir,
                                  .shape = &session.shape,
                                  .tokenizer = session.tokenizer,
                                  .format = &session.format,
                                  .compute = options->compute.type,
                                  .is_rotated = options->is_rotated,
                                  .end_ids = session.config.end_ids,
                                  .n_end_ids = session.config.n_end_ids};
    const LongbenchResult result = {&session.evaluation, &model};
    TRY_GOTO(release, evaluate_longbench_open(&session.evaluation, comm, &request, &model));
    shape_warn_healed(&session.shape, session.evaluation.max_length, "--max-length", dir);
    warn_cut_needles(&session.evaluation);
    TRY_GOTO(release, answer(&session, comm, options, &model));
    TRY_GOTO(release, evaluate_longbench_score(&session.evaluation, comm));
    status = comm->rank == 0 && options->out != NULL ? longbench_result_write(&result, options->out)
                                                     : OK;
    TRY_GOTO(release, comm_agree_of(comm, comm->rank == 0, status));
    if (comm->rank == 0)
        longbench_result_print(stdout, &result);
release:
    evaluate_longbench_release(&session.evaluation);
    infer_weights_release(&session.weights);
    tokenizer_release(session.tokenizer);
    return status;
}
