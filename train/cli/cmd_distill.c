// mha2mla distill: local distillation by itself, from two models' files to a third's.
#include "base/file.h"
#include "base/file_lock.h"
#include "base/log.h"
#include "model/hf/hf.h"
#include "model/shape_fields.h"
#include "train/agreement.h"
#include "train/calibration_data.h"
#include "train/cli/compute_options.h"
#include "train/cli/dtype_option.h"
#include "train/config/config_table.h"
#include "train/distill/distill.h"
#include "train/distill/distill_prepared.h"
#include "train/distill/distill_state.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"
#include "train/prepare.h"
#include "train/sample_windows.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct DistillOptions {
    const char *data, *out;
    int64_t steps, windows, window_len, seq_len, seed;
    double rho, lr;
    DistillLayers layers;
    int dtype; // a DType, or DTYPE_OF_MODEL
    ComputeOptions compute;
} DistillOptions;

// Everything that a distillation holds.
typedef struct Distillation {
    const Comm *comm; // borrowed, as the next two
    const DistillOptions *options;
    const char *dirs[2]; // of the original and the converted model
    CommGroup group;     // owned, as all that follow
    Replica models[2];
    FileLock target;
    DType dtype;
    char state_dir[PATH_BYTES];
    int32_t *tokens; // [windows, T]
    DistillConfig config;
    int T;
} Distillation;

// One must be what the other was converted from: all that no conversion chooses is the same.
static Status check_shapes(const char *const dirs[2])
{
    ModelShape original, converted;
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    TRY(hf_load_shape(&original, dirs[0]));
    TRY(hf_load_shape(&converted, dirs[1]));
    if (shape_is_mla(&original))
        return fail(BAD_INPUT, "%s: has latent attention already; name its original first",
                    dirs[0]);
    if (!shape_is_mla(&converted))
        return fail(BAD_INPUT, "%s: has the original attention; convert it first", dirs[1]);
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        if (field->owner != SHAPE_OF_CONVERSION &&
            !shape_field_is_same(field, &original, &converted))
            return fail(BAD_INPUT, "%s: was not converted from %s: %s is %s there, %s here",
                        dirs[1], dirs[0], field->key, shape_field_format(a, field, &original),
                        shape_field_format(b, field, &converted));
    }
    return OK;
}

// Before any weights are read.
static Status check_files(Distillation *d)
{
    const DistillOptions *options = d->options;
    TRY(check_shapes(d->dirs));
    TRY(dtype_option(&d->dtype, options->dtype, d->dirs[1]));
    TRY(file_join(d->state_dir, options->out, "distill"));
    if (d->comm->rank != 0)
        return OK;
    TRY(hf_check_target(d->dirs[0], options->out));
    TRY(hf_check_target(d->dirs[1], options->out));
    TRY(file_lock_directory(&d->target, options->out));
    return file_make_dirs(d->state_dir);
}

// Collective.
static Status read_windows(Distillation *d)
{
    const DistillOptions *options = d->options;
    const ModelShape *shape = &d->models[0].model.shape;
    const int seq_len = options->seq_len > 0 ? (int)options->seq_len : shape_longest(shape);
    Mixture *mixture = NULL;
    CalibrationData data = {.shards = options->data, .seq_len = seq_len, .seed = options->seed};
    Status status = calibration_data_open(&mixture, &data, shape, d->dirs[0]);
    json_t *fingerprint = status == OK ? mixture_fingerprint(mixture) : NULL;
    TRY_GOTO(close, agreement_fingerprint(d->comm, fingerprint, status));
    d->T = d->config.window_len < seq_len ? d->config.window_len : seq_len;
    status = sample_windows_read(&d->tokens, mixture, d->config.windows, d->T, seq_len);
    status = comm_agree(d->comm, status);
close:
    mixture_close(mixture);
    return status;
}

// Rank 0 alone. The layers' files go once the model is whole.
static Status save(const Distillation *d, double seconds)
{
    const Model *model = &d->models[1].model;
    TRY(hf_save(model, d->dirs[1], d->dtype, d->options->out));
    distill_state_remove(d->state_dir, model->shape.n_layers);
    printf("%s: %d layers distilled on %.3f M tokens, %.3f M in all steps of a layer, %.1f s\n",
           d->options->out, model->shape.n_layers, (double)distill_tokens(&d->config, d->T) / 1e6,
           (double)distill_trained_tokens(&d->config, d->T) / 1e6, seconds);
    return OK;
}

static Status distill_files(Distillation *d)
{
    const Comm *comm = d->comm;
    const DistillOptions *options = d->options;
    TRY(comm_agree(comm, check_files(d)));
    TRY(comm_group_start(&d->group, comm, 0));
    for (int i = 0; i < 2; i++) {
        TRY(agreement_model(comm, d->dirs[i]));
        TRY(prepare_loaded(&d->models[i], d->dirs[i], comm, &d->group));
    }
    TRY(read_windows(d));
    const DistillRequest request = {.config = &d->config,
                                    .tokens = d->tokens,
                                    .T = d->T,
                                    .seed = (uint64_t)options->seed,
                                    .compute = options->compute.type,
                                    .state_dir = d->state_dir};
    const double start_s = log_seconds();
    const Status status = distill_run(&d->models[1], &d->models[0].model, &request);
    if (status == STOPPED)
        log_info("stopped by %s; finished layers are kept in %s, the same command goes on there",
                 fail_text(), d->state_dir);
    TRY(status);
    return comm_agree(comm, comm->rank == 0 ? save(d, log_seconds() - start_s) : OK);
}

// Collective.
static Status distill(const Comm *comm, const DistillOptions *options, char *const *dirs)
{
    Distillation d = {.comm = comm,
                      .options = options,
                      .dirs = {dirs[0], dirs[1]},
                      .config = {.given = true,
                                 .steps = (int)options->steps,
                                 .windows = (int)options->windows,
                                 .window_len = (int)options->window_len,
                                 .rho = options->rho,
                                 .lr = options->lr,
                                 .layers = options->layers}};
    const Status status = distill_files(&d);
    for (int i = 0; i < 2; i++)
        replica_release(&d.models[i]);
    free(d.tokens);
    comm_group_end(&d.group);
    file_lock_remove(&d.target);
    return status;
}

static const DistillOptions defaults = {.steps = 200,
                                        .windows = 256,
                                        .window_len = 512,
                                        .seed = 42,
                                        .rho = 1,
                                        .lr = .2,
                                        .dtype = DTYPE_OF_MODEL};

static const Option options[] = {
    {"data", OPTION_TEXT, offsetof(DistillOptions, data), "SHARD.h5",
     "token shard, or a glob pattern of several", .files = "*.h5", .required = true},
    {"out", OPTION_TEXT, offsetof(DistillOptions, out), "DIR",
     "directory to write; finished layers are kept in DIR/distill until all are",
     .files = ANY_DIRECTORY, .required = true},
    {"steps", OPTION_INT, offsetof(DistillOptions, steps), "N",
     "steps of 8 windows for every layer", 1, 10000000},
    {"windows", OPTION_INT, offsetof(DistillOptions, windows), "N",
     "sequences that they read; each may be seen about 15 times", 1, 1 << 24},
    {"window-len", OPTION_INT, offsetof(DistillOptions, window_len), "T",
     "tokens of such a sequence at most; longer ones are cut", 1, 1 << 24},
    {"rho", OPTION_REAL, offsetof(DistillOptions, rho), "R",
     "share of the error of the layers below that a layer's target takes back", 0, 10},
    {"lr", OPTION_POSITIVE, offsetof(DistillOptions, lr), "LR",
     "highest learning rate, in parts of the root mean square of each tensor's weights; a cosine "
     "takes it to 2 %",
     .max = 10},
    {"layers", OPTION_CHOICE, offsetof(DistillOptions, layers), "ORDER",
     "layer after layer, on up to 8 ranks (sequential), or layers of its own for each rank, whose "
     "inputs are the original's and rho 0 (apart)",
     .choices = config_distill_names},
    {"seq-len", OPTION_INT, offsetof(DistillOptions, seq_len), "T",
     "tokens of a sequence of the data", 1, 1 << 24, .derived = "the model's longest"},
    {"seed", OPTION_INT, offsetof(DistillOptions, seed), "SEED",
     "decides which sequences are read, and in which order", 0, INT64_MAX},
    {"dtype", OPTION_CHOICE, offsetof(DistillOptions, dtype), "TYPE",
     "number format of the weights", .choices = config_dtype_names, .derived = "the model's own"},
    COMPUTE_OPTIONS(DistillOptions, compute),
};

static Status run(const CommandLine *line)
{
    const DistillOptions *given = line->options;
    TRY(blas_check(line->comm));
    TRY(compute_check(line->comm, given->compute.type, given->compute.emulate, "--compute"));
    return distill(line->comm, given, line->words);
}

const Command cmd_distill = {
    .name = "distill",
    .summary = "train each converted layer's attention to give what its original gives",
    .description =
        "The first MODEL is the original, the second its conversion. Layer after layer learns, on "
        "the outputs of the converted layers below, to give the original attention's output, with "
        "a part of what those below have lost; then the output projections are refitted. A stopped "
        "distillation goes on after its last finished layer when it is given again. The result "
        "has the same bits on any number of ranks.",
    COMMAND_OPTIONS(DistillOptions, options, defaults),
    .words = {"MODEL", 2, 2, ANY_DIRECTORY},
    .is_on_ranks = true,
    .handles_stop = true,
    .examples = (const char *const[]){"mpirun -n 2 mha2mla distill configs/demo/model "
                                      "runs/demo/mla --out runs/demo/distilled --data "
                                      "runs/demo/shards/train.h5 --steps 20 --windows 32",
                                      NULL},
    .run = run,
};
