// The order of the work follows from what must not be lost or overwritten: nothing is written into
// the run directory before all that the job reads has been opened, so that a mistake can be
// corrected and the command given again; and run.json says which step RUN/model is of, so that a
// job that is given more steps exports again.
#include "train/job/job.h"

#include "base/file_lock.h"
#include "base/log.h"
#include "base/temporary.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/distill/distill_prepared.h"
#include "train/distill/distill_state.h"
#include "train/job/config_history.h"
#include "train/job/disk_room.h"
#include "train/job/run_dir.h"
#include "train/job/run_evaluation.h"
#include "train/job/run_json.h"
#include "train/loop.h"
#include "train/parallel/watch.h"
#include "train/parallel/watchdog.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"
#include "train/plan/plan.h"
#include "train/plan/rates.h"
#include "train/prepare.h"
#include "train/stop.h"
#include "train/teacher/teacher.h"

#include <math.h>
#include <omp.h>

// A job of less work does not pay for measuring the machine: half a minute on a slow core.
static const double MIN_FLOPS = 1e12;

typedef struct Job {
    Config config;
    Comm comm;
    CommGroup group; // of ranks that share the parameters
    Plan plan;
    RunDir dir;
    RunEvaluation evaluation;
    HeldModel teacher;                       // {0}: the losses need none
    char tokenizer_sha256[SHA256_HEX_BYTES]; // "": not known
    double original_loss;                    // validation loss before conversion; NaN: not measured
    double step_flops;                       // of the model, forward and backward, on all ranks
    double machine_flops; // of square products per s on all of them; 0: not measured
    bool is_unsaved;      // the last step is trained and in no checkpoint
    int saved_step;       // of the newest checkpoint; -1: none
    int valid_step;       // of the newest validation; -1: none
    int64_t peak_resident_bytes, peak_bytes; // so far: of the kernel; this rank's part of it
} Job;

// ---- memory ------------------------------------------------------------------------------------

// The resident memory that this rank answers for: the kernel counts the parameters that ranks share
// in each of them. To be called before they are released. peers_bytes: of what else they share.
static void measure_peak_beside(Job *job, const Replica *replica, int64_t peers_bytes)
{
    const int64_t resident = plan_peak_resident_bytes();
    if (resident <= job->peak_resident_bytes)
        return;
    job->peak_resident_bytes = resident;
    const int64_t own = resident - replica_peers_bytes(replica) - peers_bytes;
    job->peak_bytes = own > job->peak_bytes ? own : job->peak_bytes;
}

static void measure_peak(Job *job, const Replica *replica)
{
    measure_peak_beside(job, replica, held_model_peers_bytes(&job->teacher));
}

// After a conversion whose refit or distillation had the original, too, in memory that ranks share.
static void measure_converting(Job *job, const Replica *replica)
{
    const Plan *plan = &job->plan;
    const bool has_both = plan->refit > 0 || plan->distill > 0;
    measure_peak_beside(
        job, replica, has_both ? plan->original_model - plan->original_model / plan->n_sharers : 0);
}

// A run of a sweep may take less than one before it in the same process.
static void report_peak(const Job *job)
{
    const double planned = (double)plan_peak_bytes(&job->plan) / (1 << 20);
    if (job->peak_bytes > 0)
        log_info("peak memory %.1f MiB, planned %.1f MiB", (double)job->peak_bytes / (1 << 20),
                 planned);
    else
        log_info("peak memory below that of a run before, planned %.1f MiB", planned);
}

// ---- the model before training -----------------------------------------------------------------

// What needs the original model: its validation loss and, with calibration, which RoPE pairs to
// keep. It is in memory for no longer, and not at all where neither is asked for. Collective.
static Status measure_original(Job *job, int32_t **pairs)
{
    const Config *config = &job->config;
    const char *sha256 = job->tokenizer_sha256[0] != '\0' ? job->tokenizer_sha256 : NULL;
    Replica original = {0};
    Status status = OK;
    if (config_reads_original(config))
        TRY_GOTO(release_original, prepare_original(&original, config, &job->comm, &job->group));
    if (config->data.validation.given)
        TRY_GOTO(release_original, validation_measure(&job->original_loss, config, &job->comm,
                                                      &original.model, sha256));
    status = prepare_pairs(pairs, &original.model, &job->plan.original, config, &job->comm,
                           job->tokenizer_sha256);
release_original:
    measure_peak(job, &original);
    replica_release(&original);
    return status;
}

// Shape and RoPE pairs of the checkpoint; the trainer reads the weights. Collective.
static Status create_resumed(Job *job, Replica *replica)
{
    const Checkpoint *checkpoint = &job->dir.checkpoint;
    TRY(replica_create(replica, &job->comm, &job->group, &checkpoint->manifest.shape));
    checkpoint_copy_pairs(&replica->model, checkpoint);
    return OK;
}

static Status convert_original(Job *job, Replica *replica)
{
    int32_t *pairs = NULL;
    Status status;
    bool is_distilling = false;
    TRY_GOTO(free_pairs, measure_original(job, &pairs));
    TRY_GOTO(free_pairs, prepare_converted(replica, pairs, &job->config, &job->comm, &job->group));
    is_distilling = config_distills(&job->config);
    if (is_distilling)
        status = distill_prepared(replica, &job->config, &job->comm, &job->group,
                                  job->tokenizer_sha256, job->dir.path);
    measure_converting(job, replica);
free_pairs:
    if (status == STOPPED && is_distilling)
        log_info("stopped by %s before training; the same command converts again and distills the "
                 "layers that are not finished",
                 fail_text());
    else if (status == STOPPED)
        log_info("stopped by %s before training; nothing is saved, the same command starts from "
                 "the beginning",
                 fail_text());
    free(pairs);
    return status;
}

// The caller releases the replica, also after an error. Collective.
static Status create_model(Job *job, Replica *replica)
{
    if (job->dir.is_resumed)
        return create_resumed(job, replica);
    if (job->config.model.convert.given)
        return convert_original(job, replica);
    return prepare_original(replica, &job->config, &job->comm, &job->group);
}

// What the machine's rate is called, in the log and in the line of a step.
static const char *products_name(ComputeType compute)
{
    return compute == COMPUTE_BFLOAT16 ? "bf16 gemm" : "sgemm";
}

// ---- training and export -----------------------------------------------------------------------

// run.json comes first: config.yaml is for people, and made of the same history. A crash between
// the two leaves a config.yaml of the time before, which the next start writes again. Rank 0 alone.
static Status describe_run(const Job *job, const char *validation_set)
{
    ConfigHistory history = {0};
    const RunDescription description = {.config = &job->config,
                                        .plan = &job->plan,
                                        .history = &history,
                                        .original_loss = job->original_loss,
                                        .validation_set = validation_set};
    Status status;
    TRY_GOTO(release_history, config_history_read(&history, &job->dir, &job->config));
    TRY_GOTO(release_history, config_history_log(&history));
    TRY_GOTO(release_history, run_json_write(&job->dir, &description));
    status = config_history_write_yaml(&history, &job->dir, &job->config);
release_history:
    config_history_release(&history);
    return status;
}

// From here on the directory counts as a run. Rank 0 alone.
static Status open_metrics(Metrics *metrics, const Job *job, const char *validation_set)
{
    const RunState *progress = &job->dir.checkpoint.manifest.state;
    const MetricsStart resumed = {progress->step, progress->valid_step, progress->valid_set};
    const MetricsOptions options = {
        .run_dir = job->dir.path,
        .host = job->comm.host,
        .resumed = job->dir.is_resumed ? &resumed : NULL,
        .n_steps = job->config.train.steps,
        .every = job->config.log.every,
        .tensorboard = job->config.log.tensorboard,
        .valid_set = validation_set,
        .step_flops = job->step_flops,
        .machine_flops = job->machine_flops,
        .products = products_name(job->config.train.compute),
    };
    TRY(describe_run(job, validation_set));
    return metrics_open(metrics, &options);
}

// The step of the newest evaluation that metrics.jsonl has; that of the last step counts only with
// its file. Collective.
static int find_evaluated_step(const Job *job, const Metrics *metrics)
{
    int step = -1;
    const int last = job->config.train.steps;
    if (job->comm.rank == 0)
        step = (int)metrics->tasks_step;
    if (step == last && !run_evaluation_is_written(&job->config, job->dir.path))
        step = -1;
    comm_broadcast(&job->comm, &step, sizeof step, 0);
    return step;
}

// Saves that failed do not end a run with checkpoint.on_error: continue; its end tells of them.
static void report_failed_saves(Job *job, const Trainer *trainer)
{
    const Saver *saver = &trainer->saver;
    job->saved_step = saver->saved_step;
    job->is_unsaved = saver->n_failed > 0 && saver->saved_step != trainer->progress.step;
    if (saver->n_failed > 0 && !job->is_unsaved)
        log_warn("%d checkpoint%s could not be written while training; that of step %d is",
                 saver->n_failed, saver->n_failed == 1 ? "" : "s", saver->saved_step);
}

// A run whose end is not saved is no success, though the model is there: what comes after it (more
// steps, a sweep's next job) counts on the checkpoint.
static Status fail_unsaved(const Job *job)
{
    char newest[64] = "there is none";
    if (job->saved_step >= 0)
        snprintf(newest, sizeof newest, "the newest is that of step %d", job->saved_step);
    return fail(FAILED,
                "%s: trained to step %d and exported to %s/model, but the checkpoint of this step "
                "could not be written, %s; make room and start again to train and save the rest",
                job->dir.path, job->config.train.steps, job->dir.path, newest);
}

// Trains the weights of the replica in place. Collective.
static Status train(Job *job, Replica *replica)
{
    Metrics metrics = {0};
    Trainer trainer;
    const TrainerContext context = {.config = &job->config,
                                    .comm = &job->comm,
                                    .run_dir = job->dir.path,
                                    .tokenizer_sha256 = job->tokenizer_sha256,
                                    .metrics = &metrics,
                                    .evaluation = run_evaluation_hook(&job->evaluation),
                                    .teacher = job->plan.has_teacher ? &job->teacher : NULL};
    TRY(trainer_start(&trainer, &context, replica,
                      job->dir.is_resumed ? &job->dir.checkpoint : NULL));
    Status status = job->comm.rank == 0 ? open_metrics(&metrics, job, trainer.validation.set) : OK;
    TRY_GOTO(release_trainer, comm_agree(&job->comm, status));
    run_evaluation_set_step(&job->evaluation, find_evaluated_step(job, &metrics));
    status = loop_run(&trainer);
    job->valid_step = trainer.progress.valid_step;
    if (trainer.progress.step > 0)
        shape_set_healed(&replica->model.shape, job->config.data.seq_len);
    if (status == OK)
        report_failed_saves(job, &trainer);
    if (trainer.progress.spikes.n_skipped > 0)
        log_info("%lld of %d steps skipped: their gradient was a spike (train.skip_spikes)",
                 (long long)trainer.progress.spikes.n_skipped, trainer.progress.step);
    if (status == STOPPED)
        log_info("stopped by %s after step %d, which is saved; the same command resumes there",
                 fail_text(), trainer.progress.step);
release_trainer:
    metrics_close(&metrics);
    trainer_release(&trainer);
    return status;
}

// What distillation has kept of its layers: the run's own weights are written.
static void remove_distilled_layers(const Job *job)
{
    char dir[PATH_BYTES];
    if (distill_dir(dir, job->dir.path) == OK)
        distill_state_remove(dir, job->plan.shape.n_layers);
}

// Rank 0 alone. config.json is written last, so where it exists RUN/model is whole.
static Status export_model(const Job *job, const Model *model)
{
    watchdog_phase("export", 0);
    char dir[PATH_BYTES];
    TRY(file_join(dir, job->dir.path, "model"));
    const ModelConfig *from = &job->config.model;
    FileLock target = {0}; // against an export by hand; the run's own lock keeps other runs away
    Status status = OK;
    TRY(file_lock_directory(&target, dir));
    temporary_remove_all(dir);
    if (from->base == NULL && from->init.tokenizer != NULL)
        TRY_GOTO(unlock, hf_copy_tokenizer(from->init.tokenizer, dir));
    status = hf_save(model, from->base, job->config.run.export_dtype, dir);
unlock:
    file_lock_remove(&target);
    TRY(status);
    log_info("model written to %s", dir);
    remove_distilled_layers(job);
    return run_json_set_exported(&job->dir, job->config.train.steps, job->valid_step);
}

// ---- the job -----------------------------------------------------------------------------------

// Nothing left to do: all steps done, validated and exported. A job that is started again then ends
// at once with status 0, as requeued Slurm jobs need it.
static bool is_finished(const Job *job)
{
    const RunState *progress = &job->dir.checkpoint.manifest.state;
    const int last = job->config.train.steps;
    const bool is_validated = !job->config.data.validation.given || progress->valid_step == last ||
                              run_json_is_validated(&job->dir, last);
    return job->dir.is_resumed && progress->step == last && is_validated &&
           run_evaluation_is_written(&job->config, job->dir.path) &&
           run_json_is_exported(&job->dir, last, job->config.run.export_dtype);
}

// "" where none is known. Where model.base has been removed since, the checkpoint knows the
// tokenizer of its data.
static Status find_tokenizer(Job *job)
{
    const char *base = job->config.model.base;
    if (!job->dir.is_resumed || base == NULL || file_is_dir(base))
        return prepare_tokenizer_sha256(job->tokenizer_sha256, &job->config);
    snprintf(job->tokenizer_sha256, sizeof job->tokenizer_sha256, "%s",
             job->dir.checkpoint.manifest.tokenizer_sha256);
    return OK;
}

// What the ranks' products could reach together, before the model takes the memory. Collective.
static Status measure_machine(Job *job)
{
    const TrainConfig *train = &job->config.train;
    const int n_steps =
        train->steps - (job->dir.is_resumed ? job->dir.checkpoint.manifest.state.step : 0);
    double flops;
    job->step_flops = plan_sequence_flops(&job->plan, &job->config) * train->global_batch;
    if (job->step_flops * n_steps < MIN_FLOPS)
        return OK;
    watchdog_phase("measuring products", 0);
    TRY(rates_measure_products(&flops, &job->comm, train->compute));
    job->machine_flops = flops * job->comm.size;
    log_info("%s: %.1f Gflop/s on %d rank%s", products_name(train->compute),
             job->machine_flops / 1e9, job->comm.size, job->comm.size == 1 ? "" : "s");
    return OK;
}

// The ranks read the same files, or copies of them: seen before anything takes long. Weights of a
// resumed run come from the checkpoint. Collective.
static Status agree_on_files(Job *job)
{
    const Comm *comm = &job->comm;
    const ModelConfig *model = &job->config.model;
    const bool reads_scores =
        model->convert.scores != NULL && !job->dir.is_resumed && model->convert.given &&
        (model->convert.rope == ROPE_2NORM || config_needs_statistics(&job->config));
    const char *sha256 = job->tokenizer_sha256;
    TRY(agreement_tokenizer(comm, sha256, find_tokenizer(job)));
    if (model->base != NULL && !job->dir.is_resumed)
        TRY(agreement_model(comm, model->base));
    if (job->plan.has_teacher) {
        TRY(comm_agree(comm, teacher_check_tokenizer(&job->config, sha256)));
        TRY(agreement_model(comm, teacher_dir(&job->config)));
    }
    if (reads_scores)
        TRY(agreement_file(comm, "model.convert.scores", model->convert.scores));
    return agreement_data(comm, &job->config, job->plan.shape.vocab_size,
                          sha256[0] != '\0' ? sha256 : NULL);
}

// All of the work, from the run's start or from a checkpoint. Collective.
static Status work(Job *job)
{
    Replica replica = {0};
    job->peak_resident_bytes = plan_restart_peak();
    TRY(agree_on_files(job));
    if (job->comm.rank == 0) {
        plan_print(stderr, &job->plan, &job->config);
        disk_room_check(job->dir.path, &job->config, &job->plan.shape);
    }
    Status status;
    TRY_GOTO(release_replica, run_evaluation_open(&job->evaluation, &job->comm, &job->config,
                                                  &job->plan.shape, job->dir.path));
    TRY_GOTO(release_replica, measure_machine(job));
    TRY_GOTO(release_replica, create_model(job, &replica));
    if (job->plan.has_teacher)
        TRY_GOTO(release_replica,
                 teacher_load(&job->teacher, &job->config, &job->comm, &job->group));
    TRY_GOTO(release_replica, train(job, &replica));
    status = job->comm.rank == 0 ? export_model(job, replica_exact_model(&replica)) : OK;
    TRY_GOTO(release_replica, comm_agree(&job->comm, status));
    if (job->is_unsaved)
        status = fail_unsaved(job);
release_replica:
    measure_peak(job, &replica);
    if (status == OK)
        report_peak(job);
    run_evaluation_release(&job->evaluation);
    held_model_release(&job->teacher);
    replica_release(&replica);
    return status;
}

// By files in the run directory from here on. Collective.
static Status start_watchdog(const Job *job)
{
    char dir[PATH_BYTES];
    TRY(comm_agree(&job->comm, file_join(dir, job->dir.path, "ranks")));
    return watch_ranks(&job->comm, dir, job->config.run.stall_minutes, "run.stall_minutes");
}

// Rank 0 alone. The lock file of an export that could not be removed after it.
static void remove_export_lock(const Job *job)
{
    char dir[PATH_BYTES], path[PATH_BYTES];
    FileLock target = {0};
    if (file_join(dir, job->dir.path, "model") != OK || file_join(path, dir, ".lock") != OK)
        return;
    if (file_exists(path) && file_lock_directory(&target, dir) == OK)
        file_lock_remove(&target);
}

// Collective. The lock and the checkpoint are held until the end, whatever it is.
static Status run(Job *job, ResumeMode mode)
{
    Status status;
    stop_after_minutes(job->config.run.max_minutes);
    TRY_GOTO(close_dir, run_dir_open(&job->dir, &job->config, mode, &job->plan.shape, &job->comm));
    if (!comm_all(&job->comm, !is_finished(job))) {
        log_info("%s is finished: %d steps; raise train.steps to train on", job->dir.path,
                 job->config.train.steps);
        if (job->comm.rank == 0)
            remove_export_lock(job);
        goto close_dir;
    }
    TRY_GOTO(close_dir, start_watchdog(job));
    status = work(job);
close_dir:
    run_dir_close(&job->dir);
    return status;
}

// Only now is the base model's config.json read; config_check() does the same for a shape in the
// config.
static Status check_length(const Job *job)
{
    const char *base = job->config.model.base;
    if (base == NULL)
        return OK;
    return shape_check_length(&job->plan.original, job->config.data.seq_len, "data.seq_len", base);
}

// A model.base that has been removed since is needed again for the export alone: its shape is in
// the checkpoints.
static Status make_plan(Job *job, ResumeMode mode)
{
    const char *base = job->config.model.base;
    ModelShape original;
    const bool is_from_checkpoint = base != NULL && !file_is_dir(base) && mode != RESUME_NEVER &&
                                    resume_original_shape(&original, &job->config);
    if (is_from_checkpoint)
        log_warn("%s: is not there; its shape is taken from the run's checkpoint, the export at "
                 "the end needs it",
                 base);
    TRY(plan_make_of(&job->plan, is_from_checkpoint ? &original : NULL, &job->config,
                     job->comm.size, omp_get_max_threads()));
    job->plan.n_sharers = job->group.shares ? job->group.size : 1;
    return check_length(job);
}

// Collective. The order of the checks is from cheap to costly, and each ends in an agreement.
Status job_run(const Comm *comm, const JobOptions *options)
{
    Job job = {.comm = *comm, .original_loss = NAN};
    Status status =
        config_load(&job.config, options->config, options->overrides, options->n_overrides);
    TRY_GOTO(release_config, agreement_config(comm, &job.config, status));
    TRY_GOTO(release_config, blas_check(comm));
    TRY_GOTO(release_config,
             compute_check(comm, job.config.train.compute, options->emulate, "train.compute"));
    TRY_GOTO(release_config,
             comm_group_start(&job.group, &job.comm, job.config.train.ranks_per_copy));
    status = make_plan(&job, options->resume);
    TRY_GOTO(release_config, agreement_shapes(comm, &job.plan.original, &job.plan.shape, status));
    if (!options->dry_run)
        status = run(&job, options->resume);
    else if (comm->rank == 0)
        plan_print(stdout, &job.plan, &job.config);
release_config: // also on a rank that has read it where another could not
    comm_group_end(&job.group);
    config_release(&job.config);
    return status;
}
