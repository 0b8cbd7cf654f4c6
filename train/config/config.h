// A training run's config: YAML, read through one table of keys (train/config/config_table.c) that
// knows every key's kind, default, bounds, unit and meaning.
//
//     char *overrides[] = {"--optim.lr=2.0e-4"};
//     Config config;
//     TRY(config_load(&config, "configs/demo.yaml", overrides, 1));
//     ...
//     config_release(&config);
//
// Errors: everything wrong with a file and its overrides is found in one go. One error is the text
// of fail() itself, "x.yaml:12: optim.lr is '4x', which is not a number"; several are printed by
// log_error(), one line each, and fail() says how many. Paths stay as written, relative to the
// working directory.
#ifndef MHA2MLA_TRAIN_CONFIG_CONFIG_H
#define MHA2MLA_TRAIN_CONFIG_CONFIG_H

#include "data/mixture.h"
#include "model/convert/convert_target.h"
#include "model/convert/recipe.h"
#include "model/convert/rope_select.h"
#include "model/convert/statistics.h"
#include "model/hf/safetensors.h"
#include "model/kernels/compute.h"
#include "model/trainable.h"
#include "model/transformer/activation_policy.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "train/config/distill_config.h"

#include <stdio.h>

typedef struct RunConfig {
    char *name; // the run directory is dir/name
    char *dir;
    int64_t seed;
    DType export_dtype;
    double max_minutes;   // counted from the program's start; 0: no limit
    double stall_minutes; // train/parallel/watchdog.h; 0: off
} RunConfig;

typedef struct InitConfig { // a model with random weights
    bool given;
    ModelShape shape; // with its original attention, checked
    double initializer_range;
    char *tokenizer; // directory, or NULL
} InitConfig;

typedef struct ConvertConfig {
    bool given; // false: the baseline
    RopeStrategy rope;
    ConvertTarget target;
    ConvertRecipe recipe;
    int samples;           // calibration sequences of seq_len tokens
    int windows;           // sequences for the statistics of activations, where they are needed
    int attention_windows; // of these, for the statistics of attention
    int window_len;        // tokens of such a sequence at most
    StatisticsPool pool;   // heads that share their statistics
    char *scores;          // file of `mha2mla score`, or NULL: measured at the start
} ConvertConfig;

typedef struct ModelConfig {
    char *base; // HF directory, or NULL: init is given
    InitConfig init;
    ConvertConfig convert;
} ModelConfig;

typedef struct ValidationConfig {
    bool given;
    char **shards;
    int n_shards;
    int every; // steps; 0: only at start and end
    int sequences;
} ValidationConfig;

typedef struct DataConfig {
    int seq_len;
    double pretraining_tokens; // that the base model has seen; 0: not known
    SourceSpec *sources;
    int n_sources;
    ValidationConfig validation;
} DataConfig;

typedef struct OptimConfig {
    AdamW adamw;
    Schedule schedule; // decay_start is resolved
    double clip;       // global norm; 0: off
} OptimConfig;

// The number format in which gradients are sent to the rank that sums them.
typedef enum ReduceDtype { REDUCE_FLOAT32, REDUCE_BFLOAT16 } ReduceDtype;

// Weights of the losses whose sum is trained, and the temperature of kl.
typedef struct LossConfig {
    double ce, kl, attention_mse, temperature;
} LossConfig;

// The number format of a teacher's weights in memory.
typedef enum TeacherDtype { TEACHER_FLOAT32, TEACHER_BFLOAT16 } TeacherDtype;

typedef struct TrainConfig {
    int steps;
    double fraction;  // train.fraction as given; 0 after config_load(), which sets `steps`
    char **trainable; // patterns of the tensors that are trained; none: all
    int n_trainable;
    LossConfig loss;
    char *teacher; // directory; NULL: model.base
    TeacherDtype teacher_dtype;
    int global_batch;    // sequences per step over all ranks
    ComputeType compute; // of matrix products, in training and in all passes around it
    int micro_batch;     // sequences a rank processes at once; divides global_batch
    int sum_groups;      // groups of micro-batches (train/parallel/batch_schedule.h)
    double skip_spikes;  // train/guard.h; 0: off
    int spike_window;    // steps
    ActivationPolicy recompute;
    bool overlap;       // communication overlaps computation (train/parallel/exchange.h)
    int ranks_per_copy; // ranks that share the parameters (train/replica.h); 0: all of a host
    ReduceDtype reduce_dtype;
} TrainConfig;

typedef enum SaveFailure { SAVE_FAILURE_CONTINUE, SAVE_FAILURE_STOP } SaveFailure;

typedef struct CheckpointConfig {
    int every;            // steps; 0: only when the run is stopped, and at its end
    int keep;             // number of the most recent checkpoints that are kept
    int keep_every;       // checkpoints of multiples of this step are kept for good; 0: none
    SaveFailure on_error; // what a failed save does to the run
} CheckpointConfig;

typedef struct LogConfig {
    int every;        // steps between plain lines
    int phases;       // steps between tables of phases; 0: one at the end
    bool tensorboard; // write event files next to metrics.jsonl
} LogConfig;

// Multiple-choice tasks on which the run evaluates the model that it trains (train/evaluate).
typedef enum EvalRules { EVAL_RULES_REFERENCE, EVAL_RULES_LM_EVAL } EvalRules;

typedef struct EvalConfig {
    char *tasks; // directory with rows of tasks; NULL: nothing is evaluated
    char **only; // names of tasks; none: all whose rows are there
    int n_only;
    EvalRules rules;
    int every;     // steps; 0: only after the last
    int64_t limit; // samples of a task at most; 0: all
} EvalConfig;

typedef struct Config { // owns every string and list in it
    RunConfig run;
    ModelConfig model;
    DistillConfig distill;
    DataConfig data;
    OptimConfig optim;
    TrainConfig train;
    CheckpointConfig checkpoint;
    LogConfig log;
    EvalConfig eval;
} Config;

// Reads `path`, then applies the overrides in order, fills defaults, checks. An override is
// "--section.key=value" or the same without dashes; the value is YAML text, so "[a, b]" is a list;
// "none" removes an optional key or block: --model.convert=none is the baseline of a conversion.
// BAD_INPUT: see above. FAILED: memory is short.
Status config_load(Config *out, const char *path, char *const *overrides, int n_overrides);

void config_release(Config *config);

// What the run trains, by its train.trainable; borrowed.
static inline Trainable config_trained(const Config *config)
{
    return (Trainable){config->train.trainable, config->train.n_trainable};
}

// Whether the run starts with a calibration pass; whether statistics of activations are needed,
// from that pass or from the file of scores.
bool config_calibrates(const Config *config);
bool config_needs_statistics(const Config *config);

// Whether it distills what it has converted; tokens of a window of that.
bool config_distills(const Config *config);
int config_distill_len(const Config *config);

// Whether a run that converts first runs the original model over data, to calibrate or validate.
bool config_reads_original(const Config *config);

// Writes all keys with their values; config_load() of the result gives the same config. After
// config_print() the caller checks the stream for errors.
void config_print(FILE *out, const Config *config);
Status config_write(const Config *config, const char *path);

const char *config_reduce_dtype_name(ReduceDtype dtype); // "float32", "bfloat16"; static text

// Prints a config with every key: meaning, unit, default and bounds as comments.
void config_print_reference(FILE *out);

#endif
