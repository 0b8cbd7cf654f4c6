// mha2mla train: load, calibrate, convert, train, validate, export, in one go.
#include "train/cli/cmd_train.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "model/hf/hf.h"
#include "train/checkpoint/resume.h"
#include "train/checkpoint/run_lock.h"
#include "train/cli/command.h"
#include "train/cli/options.h"
#include "train/loop.h"
#include "train/parallel/watchdog.h"
#include "train/plan/blas.h"
#include "train/plan/plan.h"
#include "train/plan/rates.h"
#include "train/prepare.h"
#include "train/stop.h"

#include <math.h>
#include <omp.h>

enum { MOST_OVERRIDES = 128 };

// Runs of less work do not pay for measuring the machine: half a minute on a slow core.
static const double LEAST_FLOPS = 1e12;

typedef struct Run {
    Config config;
    Comm comm;
    CommGroup group; // of ranks that share the parameters
    Plan plan;
    char dir[PATH_BYTES]; // runs/NAME
    char tokenizer_sha256[SHA256_HEX_BYTES];
    double original_loss; // validation loss before conversion; NaN: not measured
    double step_flops;    // of the model, forward and backward, on all ranks
    double machine_flops; // what sgemm does per s on all of them; 0: not measured
    int64_t peak_resident_bytes, peak_bytes; // so far: of the kernel; this rank's part of it
    ResumeMode resume;
    RunLock lock;    // rank 0's
    bool is_resumed; // from the checkpoint
    Checkpoint checkpoint;
} Run;

// The directory is this process's alone from here on; what is in it decides how the run starts.
static Status take_run_dir(Run *run)
{
    TRY(file_join(run->dir, run->config.run.dir, run->config.run.name));
    TRY(file_make_dirs(run->dir));
    return run_lock_take(&run->lock, run->dir, run->comm.host);
}

// A run that is there is not written over: neither with --resume never nor where none of its
// checkpoints can be read now, as starting anew would remove them.
static Status check_fresh(const Run *run)
{
    char metrics[PATH_BYTES];
    bool has_checkpoints;
    TRY(file_join(metrics, run->dir, "metrics.jsonl"));
    if (run->resume == RESUME_REQUIRE)
        return fail(BAD_INPUT, "%s: has no checkpoint to resume from; start with --resume auto",
                    run->dir);
    TRY(checkpoint_has_any(&has_checkpoints, run->dir));
    if (run->resume == RESUME_NEVER && (has_checkpoints || file_exists(metrics)))
        return fail(BAD_INPUT, "%s: there is a run already; remove it or set --run.name", run->dir);
    if (has_checkpoints)
        return fail(BAD_INPUT,
                    "%s: none of its checkpoints can be resumed from; mend them, or remove "
                    "%s/checkpoints to start from the beginning",
                    run->dir, run->dir);
    return OK;
}

// Decides from where the run goes on. Collective.
static Status find_start(Run *run)
{
    Status status = run->comm.rank == 0 ? take_run_dir(run) : OK;
    TRY(comm_agree(&run->comm, status));
    TRY(file_join(run->dir, run->config.run.dir, run->config.run.name));
    if (run->resume != RESUME_NEVER)
        TRY(resume_find(&run->checkpoint, &run->is_resumed, run->dir, &run->comm));
    if (!run->is_resumed)
        return comm_agree(&run->comm, run->comm.rank == 0 ? check_fresh(run) : OK);
    log_info("resuming %s from step %d, saved by %d ranks", run->dir, run->checkpoint.progress.step,
             run->checkpoint.n_files);
    return comm_agree(&run->comm, resume_check(&run->checkpoint, &run->config, &run->plan.shape));
}

static Status write_config(const Run *run)
{
    char path[PATH_BYTES];
    TRY(file_join(path, run->dir, "config.yaml"));
    return config_write(&run->config, path);
}

// What an earlier life of the run knew and this one cannot measure, and where this one starts.
static void recall_run_json(json_t *root, const Run *run)
{
    char path[PATH_BYTES];
    json_t *before = NULL, *resumed = NULL;
    if (run->is_resumed && file_join(path, run->dir, "run.json") == OK && file_exists(path) &&
        json_read(&before, path) == OK) {
        json_t *loss = json_object_get(before, "original_valid_loss");
        if (json_is_number(loss))
            json_object_set(root, "original_valid_loss", loss);
        resumed = json_incref(json_object_get(before, "resumed_steps"));
        json_t *exported = json_object_get(before, "exported_step");
        if (exported != NULL)
            json_object_set(root, "exported_step", exported);
    }
    if (!json_is_array(resumed)) {
        json_decref(resumed);
        resumed = json_array();
    }
    if (run->is_resumed)
        json_array_append_new(resumed, json_integer(run->checkpoint.progress.step));
    json_object_set_new(root, "resumed_steps", resumed);
    json_decref(before);
}

// run.json: what `compare` needs to know beside metrics.jsonl.
static Status write_run_json(const Run *run)
{
    const Config *config = &run->config;
    const ModelShape *shape = &run->plan.shape;
    bool is_mla = config->model.convert.given;
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:i, s:i}",
        "format", "mha2mla-run", "name", config->run.name, "attention", is_mla ? "mla" : "original",
        "d_kv", shape->d_kv, "rope_pairs", shape->rope_pairs, "head_dim", shape->head_dim, "rope",
        is_mla ? rope_strategy_name(config->model.convert.rope) : "all", "svd",
        is_mla ? shape_svd_name(shape->svd) : "none", "seq_len", config->data.seq_len, "parameters",
        (json_int_t)params_count(shape), "cache_numbers_per_token",
        (json_int_t)shape_cache_numbers(shape), "original_cache_numbers_per_token",
        (json_int_t)shape_cache_numbers(&run->plan.original), "tokens_per_step",
        (json_int_t)config->train.global_batch * config->data.seq_len, "steps",
        (json_int_t)config->train.steps, "ranks", run->plan.n_ranks, "threads",
        run->plan.n_threads);
    if (root == NULL)
        return fail(FAILED, "run.json: no memory, or the run's name is not UTF-8");
    if (!isnan(run->original_loss))
        json_object_set_new(root, "original_valid_loss", json_real(run->original_loss));
    if (config->data.pretraining_tokens > 0)
        json_object_set_new(root, "pretraining_tokens",
                            json_integer((json_int_t)config->data.pretraining_tokens));
    recall_run_json(root, run);
    char path[PATH_BYTES];
    Status status = file_join(path, run->dir, "run.json");
    if (status == OK)
        status = json_write(root, path);
    json_decref(root);
    return status;
}

// RUN/model may be of an earlier end of the run: which step it is of, for is_finished().
static Status note_export(const Run *run)
{
    char path[PATH_BYTES];
    json_t *root;
    TRY(file_join(path, run->dir, "run.json"));
    TRY(json_read(&root, path));
    json_object_set_new(root, "exported_step", json_integer(run->config.train.steps));
    Status status = json_write(root, path);
    json_decref(root);
    return status;
}

static Status export_model(const Run *run, const Model *model)
{
    watchdog_phase("export", 0);
    char dir[PATH_BYTES];
    TRY(file_join(dir, run->dir, "model"));
    const ModelConfig *from = &run->config.model;
    if (from->base == NULL && from->init.tokenizer != NULL)
        TRY(hf_copy_tokenizer(from->init.tokenizer, dir));
    TRY(hf_save(model, from->base, run->config.run.export_dtype, dir)); // config.json comes last
    log_info("model written to %s", dir);
    return note_export(run);
}

// From here on the directory counts as a run: only once everything the run reads has been opened,
// so that a mistake can be corrected and the command given again.
static Status open_metrics(const Run *run, Metrics *metrics)
{
    const RunState *progress = &run->checkpoint.progress;
    const MetricsStart resumed = {progress->step, progress->valid_step};
    const MetricsOptions options = {
        .run_dir = run->dir,
        .host = run->comm.host,
        .resumed = run->is_resumed ? &resumed : NULL,
        .n_steps = run->config.train.steps,
        .every = run->config.log.every,
        .tensorboard = run->config.log.tensorboard,
        .step_flops = run->step_flops,
        .machine_flops = run->machine_flops,
    };
    TRY(write_config(run));
    TRY(write_run_json(run));
    return metrics_open(metrics, &options);
}

// Trains `weights`, which are as they start, and exports them.
static Status train_model(Run *run, Replica *replica)
{
    Metrics metrics = {0};
    Trainer trainer;
    const TrainerContext context = {.config = &run->config,
                                    .comm = &run->comm,
                                    .run_dir = run->dir,
                                    .tokenizer_sha256 = run->tokenizer_sha256,
                                    .metrics = &metrics};
    TRY(trainer_start(&trainer, &context, replica, run->is_resumed ? &run->checkpoint : NULL));
    Status status = run->comm.rank == 0 ? open_metrics(run, &metrics) : OK;
    TRY_GOTO(release_trainer, comm_agree(&run->comm, status));
    status = loop_run(&trainer);
    if (trainer.progress.spikes.n_skipped > 0)
        log_info("%lld of %d steps skipped: their gradient was a spike (train.skip_spikes)",
                 (long long)trainer.progress.spikes.n_skipped, trainer.progress.step);
    if (status == STOPPED)
        log_info("stopped by %s after step %d, which is saved; the same command goes on from there",
                 fail_text(), trainer.progress.step);
release_trainer:
    metrics_close(&metrics);
    trainer_release(&trainer);
    if (status == OK)
        status =
            comm_agree(&run->comm, run->comm.rank == 0 ? export_model(run, &replica->model) : OK);
    return status;
}

// Resident memory so far, the parameters that ranks share by this one's part: the kernel has them
// in each rank's. To be called before they are released.
static void note_peak(Run *run, const Replica *replica)
{
    const int64_t resident = plan_peak_resident_bytes();
    if (resident <= run->peak_resident_bytes)
        return;
    run->peak_resident_bytes = resident;
    const int64_t own = resident - replica_elsewhere_bytes(replica);
    run->peak_bytes = own > run->peak_bytes ? own : run->peak_bytes;
}

// What only the original can tell: its validation loss, and with calibration which RoPE pairs
// matter. It is in memory for no longer, and not at all if nobody asks. Collective.
static Status ask_original(Run *run, int32_t **pairs)
{
    const Config *config = &run->config;
    const char *sha256 = run->tokenizer_sha256[0] != '\0' ? run->tokenizer_sha256 : NULL;
    Replica original = {0};
    Status status = OK;
    if (config_reads_original(config))
        status = prepare_original(&original, config, &run->comm, &run->group);
    if (status == OK && config->data.validation.given)
        status =
            validation_measure(&run->original_loss, config, &run->comm, &original.model, sha256);
    if (status == OK)
        status = prepare_pairs(pairs, &original.model, &run->plan.original, config, &run->comm,
                               run->tokenizer_sha256);
    note_peak(run, &original);
    replica_release(&original);
    return status;
}

// A checkpoint's model without its numbers, which the trainer reads. Collective.
static Status recall_model(Run *run, Replica *replica)
{
    TRY(replica_create(replica, &run->comm, &run->group, &run->checkpoint.shape));
    return comm_agree(&run->comm, checkpoint_read_pairs(&replica->model, &run->checkpoint));
}

// The model before training: from the checkpoint, or prepared; released by the caller, also after
// an error. Collective.
static Status start_model(Run *run, Replica *replica)
{
    int32_t *pairs = NULL;
    if (run->is_resumed)
        return recall_model(run, replica);
    if (!run->config.model.convert.given)
        return prepare_original(replica, &run->config, &run->comm, &run->group);
    Status status = ask_original(run, &pairs);
    if (status == OK)
        status = prepare_converted(replica, pairs, &run->config, &run->comm, &run->group);
    if (status == STOPPED)
        log_info("stopped by %s before training; nothing is saved, the same command starts anew",
                 fail_text());
    free(pairs);
    return status;
}

static bool is_exported(const Run *run)
{
    char path[PATH_BYTES];
    json_t *root = NULL;
    if (file_join(path, run->dir, "model/config.json") != OK || !file_exists(path) ||
        file_join(path, run->dir, "run.json") != OK || json_read(&root, path) != OK)
        return false;
    const json_t *step = json_object_get(root, "exported_step");
    const bool is_last =
        json_is_integer(step) && json_integer_value(step) == run->config.train.steps;
    json_decref(root);
    return is_last;
}

// Whether there is nothing left to do.
static bool is_finished(const Run *run)
{
    return run->is_resumed && run->checkpoint.progress.step == run->config.train.steps &&
           run->checkpoint.progress.valid_step ==
               (run->config.data.validation.given ? run->config.train.steps : -1) &&
           is_exported(run);
}

// Of a model that has gone since: the checkpoint's, which had the same data.
static Status find_tokenizer(Run *run)
{
    const char *base = run->config.model.base;
    if (!run->is_resumed || base == NULL || file_is_dir(base))
        return prepare_tokenizer_sha256(run->tokenizer_sha256, &run->config);
    snprintf(run->tokenizer_sha256, sizeof run->tokenizer_sha256, "%s",
             run->checkpoint.tokenizer_sha256);
    return OK;
}

// What the ranks' products could reach together, before the model takes the memory. Collective.
static Status measure_machine(Run *run)
{
    const TrainConfig *train = &run->config.train;
    const int n_steps = train->steps - (run->is_resumed ? run->checkpoint.progress.step : 0);
    double flops;
    run->step_flops =
        shape_train_flops(&run->plan.shape, run->config.data.seq_len) * train->global_batch;
    if (run->step_flops * n_steps < LEAST_FLOPS)
        return OK;
    watchdog_phase("measuring sgemm", 0);
    TRY(rates_measure_sgemm(&flops, &run->comm));
    run->machine_flops = flops * run->comm.size;
    log_info("sgemm: %.1f Gflop/s on %d rank%s", run->machine_flops / 1e9, run->comm.size,
             run->comm.size == 1 ? "" : "s");
    return OK;
}

// All of the run's work, from wherever it starts. Collective.
static Status work(Run *run)
{
    Replica replica = {0};
    if (run->comm.rank == 0)
        plan_print(stderr, &run->plan, &run->config);
    TRY(measure_machine(run));
    TRY(comm_agree(&run->comm, find_tokenizer(run)));
    Status status = start_model(run, &replica);
    if (status == OK)
        status = train_model(run, &replica);
    note_peak(run, &replica);
    if (status == OK)
        log_info("peak memory %.1f MiB, planned %.1f MiB", (double)run->peak_bytes / (1 << 20),
                 (double)plan_peak_bytes(&run->plan) / (1 << 20));
    replica_release(&replica);
    return status;
}

// Watches over the ranks from here on. Collective.
static Status watch_ranks(const Run *run)
{
    const Comm *comm = &run->comm;
    char(*hosts)[COMM_HOST_BYTES] = calloc((size_t)comm->size, COMM_HOST_BYTES);
    Status status = hosts != NULL ? OK : fail(FAILED, "no memory for %d hosts", comm->size);
    TRY_GOTO(release_hosts, comm_agree(comm, status));
    comm_gather_hosts(comm, hosts);
    const WatchdogSettings watch = {.run_dir = run->dir,
                                    .rank = comm->rank,
                                    .size = comm->size,
                                    .hosts = (const char(*)[COMM_HOST_BYTES])hosts,
                                    .minutes = run->config.run.stall_minutes};
    status = comm_agree(comm, watchdog_start(&watch));
release_hosts:
    free(hosts);
    return status;
}

static Status run_all(Run *run)
{
    TRY(find_start(run));
    if (!comm_all(&run->comm, !is_finished(run))) {
        log_info("%s is finished: %d steps; raise train.steps to go on", run->dir,
                 run->config.train.steps);
        return OK;
    }
    Status status = watch_ranks(run);
    if (status == OK)
        status = work(run);
    watchdog_stop();
    return status;
}

// As config_check() does for a shape in the config itself.
static Status check_length(const Run *run)
{
    const char *base = run->config.model.base;
    int longest = run->plan.original.max_positions;
    if (base == NULL || run->config.data.seq_len <= longest)
        return OK;
    return fail(BAD_INPUT, "data.seq_len is %d, more than max_position_embeddings %d of %s",
                run->config.data.seq_len, longest, base);
}

// A base that has gone since is needed again for the export alone: its shape is in the checkpoints.
static Status make_plan(Run *run)
{
    const char *base = run->config.model.base;
    ModelShape original;
    const bool is_recalled = base != NULL && !file_is_dir(base) && run->resume != RESUME_NEVER &&
                             resume_recall_original(&original, &run->config);
    if (is_recalled)
        log_warn("%s: is not there; its shape is taken from the run's checkpoint, the export at "
                 "the end needs it",
                 base);
    TRY(plan_make_of(&run->plan, is_recalled ? &original : NULL, &run->config, run->comm.size,
                     omp_get_max_threads()));
    run->plan.n_sharers = run->group.shares ? run->group.size : 1;
    return check_length(run);
}

static Status load_and_run(Run *run, const char *path, char *const *overrides, int n_overrides,
                           bool dry_run)
{
    Status status = config_load(&run->config, path, overrides, n_overrides);
    TRY_GOTO(release_config, comm_agree(&run->comm, status));
    blas_check();
    TRY_GOTO(release_config,
             comm_group_start(&run->group, &run->comm, run->config.train.ranks_per_copy));
    TRY_GOTO(release_config, comm_agree(&run->comm, make_plan(run)));
    if (!dry_run) {
        stop_after_minutes(run->config.run.max_minutes);
        status = run_all(run);
        checkpoint_close(&run->checkpoint);
        run_lock_release(&run->lock);
    } else if (run->comm.rank == 0) {
        plan_print(stdout, &run->plan, &run->config);
    }
release_config: // a rank that has read it when others could not, too
    comm_group_end(&run->group);
    config_release(&run->config);
    return status;
}

static Status parse_and_run(const Comm *comm, int argc, char **argv)
{
    Run run = {.comm = *comm, .original_loss = NAN};
    char *overrides[MOST_OVERRIDES];
    int n_overrides = config_take_overrides(overrides, MOST_OVERRIDES, &argc, argv);
    bool dry_run = false, help_config = false;
    const char *resume = "auto";
    const Option options[] = {
        {"resume", OPTION_STRING, &resume, "MODE",
         "auto (default): from the newest checkpoint of the run, if there is one; require: from it "
         "or not at all; never: from the beginning",
         0, 0, false},
        {"dry-run", OPTION_FLAG, &dry_run, NULL, "print model, work and memory; run nothing", 0, 0,
         false},
        {"help-config", OPTION_FLAG, &help_config, NULL,
         "show every key of CONFIG: meaning, bounds, unit, default", 0, 0, false},
    };
    Arguments rest;
    TRY(options_parse(&rest, &cmd_train, options, sizeof options / sizeof options[0], argc, argv));
    if (rest.help_shown)
        return OK;
    if (help_config) {
        if (comm->rank == 0)
            config_print_reference(stdout);
        return OK;
    }
    if (rest.n_words != 1)
        return fail(BAD_INPUT, "train needs one CONFIG, got %d; see mha2mla train --help",
                    rest.n_words);
    TRY(resume_parse(&run.resume, resume));
    return load_and_run(&run, rest.words[0], overrides, n_overrides, dry_run);
}

Status cmd_train_run(const Comm *comm, const char *path)
{
    Run run = {.comm = *comm, .original_loss = NAN, .resume = RESUME_AUTO};
    return load_and_run(&run, path, NULL, 0, false);
}

// The handlers are there from before MPI starts until the process is gone: a signal in between is
// never the end of one rank alone.
static Status run_train(int argc, char **argv)
{
    stop_install();
    return comm_run(parse_and_run, argc, argv);
}

const Command cmd_train = {
    .name = "train",
    .summary = "convert a model and heal it, or train it as it is",
    .usage = "CONFIG [--section.key=value ...] [--resume auto|require|never] [--dry-run] "
             "[--help-config]",
    .example = "mpirun -n 2 mha2mla train configs/demo.yaml --model.convert.d_kv=12 "
               "--run.name=demo-dkv12",
    .run = run_train,
};
