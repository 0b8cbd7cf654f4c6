// mha2mla train: load, calibrate, convert, train, validate, export, in one go.
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "model/hf.h"
#include "train/blas.h"
#include "train/command.h"
#include "train/loop.h"
#include "train/options.h"
#include "train/plan.h"
#include "train/prepare.h"

#include <math.h>
#include <omp.h>

enum { MOST_OVERRIDES = 128 };

typedef struct Run {
    Config config;
    Comm comm;
    Plan plan;
    char dir[PATH_BYTES]; // runs/NAME
    char tokenizer_sha256[SHA256_HEX_BYTES];
    double original_loss; // validation loss before conversion; NaN: not measured
} Run;

// A run directory holds one run: an older one is not written over.
static Status make_run_dir(Run *run)
{
    TRY(file_join(run->dir, run->config.run.dir, run->config.run.name));
    char metrics[PATH_BYTES], config[PATH_BYTES];
    TRY(file_join(metrics, run->dir, "metrics.jsonl"));
    if (file_exists(metrics))
        return fail(BAD_INPUT, "%s: there is a run already; remove it or set --run.name", run->dir);
    TRY(file_make_dirs(run->dir));
    TRY(file_join(config, run->dir, "config.yaml"));
    return config_write(&run->config, config);
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
    char path[PATH_BYTES];
    Status status = file_join(path, run->dir, "run.json");
    if (status == OK)
        status = json_write(root, path);
    json_decref(root);
    return status;
}

static Status export_model(const Run *run, const Model *model)
{
    char dir[PATH_BYTES];
    TRY(file_join(dir, run->dir, "model"));
    const ModelConfig *from = &run->config.model;
    if (from->base == NULL && from->init.tokenizer != NULL)
        TRY(hf_copy_tokenizer(from->init.tokenizer, dir));
    TRY(hf_save(model, from->base, run->config.run.export_dtype, dir)); // config.json comes last
    log_info("model written to %s", dir);
    return OK;
}

// From here on the directory counts as a run: only once everything the run reads has been opened,
// so that a mistake can be corrected and the command given again.
static Status open_metrics(const Run *run, Metrics *metrics)
{
    TRY(write_run_json(run));
    return metrics_open(metrics, run->dir, run->config.train.steps, run->config.log.every);
}

// Trains `model`, which is as it starts, and exports it.
static Status train_model(Run *run, Model *model)
{
    Metrics metrics = {0};
    Trainer trainer;
    const char *sha256 = run->tokenizer_sha256[0] != '\0' ? run->tokenizer_sha256 : NULL;
    TRY(loop_start(&trainer, &run->config, &run->comm, model, &metrics, sha256));
    Status status = run->comm.rank == 0 ? open_metrics(run, &metrics) : OK;
    TRY_GOTO(release_trainer, comm_agree(&run->comm, status));
    status = loop_run(&trainer);
release_trainer:
    loop_release(&trainer);
    if (status == OK)
        status = comm_agree(&run->comm, run->comm.rank == 0 ? export_model(run, model) : OK);
    metrics_close(&metrics);
    return status;
}

static Status run_all(Run *run)
{
    Model model = {0};
    Status status = run->comm.rank == 0 ? make_run_dir(run) : OK;
    TRY(comm_agree(&run->comm, status));
    if (run->comm.rank == 0)
        plan_print(stderr, &run->plan, &run->config);
    TRY(comm_agree(&run->comm, prepare_tokenizer_sha256(run->tokenizer_sha256, &run->config)));
    TRY(prepare_original(&model, &run->config, &run->comm));
    if (run->config.model.convert.given) {
        const char *sha256 = run->tokenizer_sha256[0] != '\0' ? run->tokenizer_sha256 : NULL;
        TRY_GOTO(release_model,
                 validation_measure(&run->original_loss, &run->config, &run->comm, &model, sha256));
        TRY_GOTO(release_model,
                 prepare_converted(&model, &run->config, &run->comm, run->tokenizer_sha256));
    }
    status = train_model(run, &model);
    if (status == OK)
        log_info("peak memory %.1f MiB, planned %.1f MiB",
                 (double)plan_peak_resident_bytes() / (1 << 20),
                 (double)plan_peak_bytes(&run->plan) / (1 << 20));
release_model:
    model_release(&model);
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

static Status load_and_run(Run *run, const char *path, char *const *overrides, int n_overrides,
                           bool dry_run)
{
    Status status = config_load(&run->config, path, overrides, n_overrides);
    TRY_GOTO(release_config, comm_agree(&run->comm, status));
    blas_check();
    status = plan_make(&run->plan, &run->config, run->comm.size, omp_get_max_threads());
    if (status == OK)
        status = check_length(run);
    TRY_GOTO(release_config, comm_agree(&run->comm, status));
    if (!dry_run)
        status = run_all(run);
    else if (run->comm.rank == 0)
        plan_print(stdout, &run->plan, &run->config);
release_config: // a rank that has read it when others could not, too
    config_release(&run->config);
    return status;
}

static Status parse_and_run(const Comm *comm, int argc, char **argv)
{
    Run run = {.comm = *comm, .original_loss = NAN};
    char *overrides[MOST_OVERRIDES];
    int n_overrides = config_take_overrides(overrides, MOST_OVERRIDES, &argc, argv);
    bool dry_run = false, help_config = false;
    const Option options[] = {
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
    return load_and_run(&run, rest.words[0], overrides, n_overrides, dry_run);
}

static Status run_train(int argc, char **argv)
{
    return comm_run(parse_and_run, argc, argv);
}

const Command cmd_train = {
    .name = "train",
    .summary = "convert a model and heal it, or train it as it is",
    .usage = "CONFIG [--section.key=value ...] [--dry-run] [--help-config]",
    .example = "mpirun -n 2 mha2mla train configs/demo.yaml --model.convert.d_kv=12 "
               "--run.name=demo-dkv12",
    .run = run_train,
};
