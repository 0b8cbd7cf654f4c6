// A check is skipped where one of its keys has an error already: a value that was not accepted says
// nothing, and a second error about it would hide the first.
#include "train/config/config_check.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct Checker {
    const Tree *tree;
    ConfigErrors *errors;
} Checker;

static void complain(const Checker *checker, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Adds an error at the key's line where the file has the key, else at none.
static void complain(const Checker *checker, const char *path, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    errors_add(checker->errors, tree_line(checker->tree, path), path, "%s", text);
}

// Whether the key was accepted; a block counts with all keys around it, not with those in it.
static bool is_good(const Checker *checker, const char *path)
{
    return !errors_has(checker->errors, path);
}

// The name becomes a directory of its own in run.dir.
static void check_run(const Checker *checker, const RunConfig *run)
{
    if (!is_good(checker, "run.name"))
        return;
    if (strchr(run->name, '/') != NULL || strcmp(run->name, ".") == 0 ||
        strcmp(run->name, "..") == 0)
        complain(checker, "run.name",
                 "run.name is '%.200s', which names no directory in run.dir; leave out slashes",
                 run->name);
}

// Fills head_dim and KV heads from the other dims as transformers does, and sets the rest as in a
// model before conversion. False after an error.
static bool complete_shape(const Checker *checker, ModelShape *shape)
{
    if (shape->n_kv_heads == 0)
        shape->n_kv_heads = shape->n_heads;
    if (shape->head_dim == 0) {
        if (shape->d_model % shape->n_heads != 0) {
            complain(checker, "model.init.num_attention_heads",
                     "model.init.hidden_size %d does not divide by num_attention_heads %d; set "
                     "head_dim",
                     shape->d_model, shape->n_heads);
            return false;
        }
        shape->head_dim = shape->d_model / shape->n_heads;
    }
    shape->rope_pairs = shape->head_dim / 2;
    shape->d_kv = 0;
    shape->svd = SVD_JOINT;
    if (shape_check(shape, "model.init") == OK)
        return true;
    complain(checker, "model.init", "%s", fail_text());
    return false;
}

// What a base model's config.json decides is known here already, so it is checked before any data
// are read: whether the conversion fits the shape, and the sequences the positions.
static void check_init(const Checker *checker, Config *config)
{
    const ConvertConfig *convert = &config->model.convert;
    if (errors_within(checker->errors, "model.init") ||
        !complete_shape(checker, &config->model.init.shape))
        return;
    const ModelShape *shape = &config->model.init.shape;
    ModelShape converted;
    if (convert->given && !errors_within(checker->errors, "model.convert") &&
        convert_target_shape(&converted, shape, &convert->target) != OK)
        complain(checker, "model.convert", "model.convert does not fit model.init: %s",
                 fail_text());
    if (is_good(checker, "data.seq_len") && config->data.seq_len > shape->max_positions)
        complain(checker, "data.seq_len",
                 "data.seq_len is %d, more than model.init.max_position_embeddings %d",
                 config->data.seq_len, shape->max_positions);
}

// The widths of one form; without the cache's share both are needed.
static void check_widths(const Checker *checker, const ConvertTarget *target)
{
    const bool is_shared = target->form == FORM_SHARED;
    const struct {
        const char *name;
        int value;
        bool is_shared;
    } widths[] = {{"rope_pairs", target->rope_pairs, false},
                  {"d_kv", target->d_kv, false},
                  {"slots", target->slots, true},
                  {"latent", target->latent, true},
                  {"latent_norm", target->latent_norm, true}};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        char path[64];
        snprintf(path, sizeof path, "model.convert.%s", widths[i].name);
        if (!is_good(checker, path))
            continue;
        if (widths[i].is_shared != is_shared && widths[i].value != 0)
            complain(checker, path, "%s is of the form %s, but model.convert.form is %s", path,
                     convert_form_names[widths[i].is_shared], convert_form_names[is_shared]);
        else if (widths[i].is_shared == is_shared && widths[i].value == 0 && target->cache == 0 &&
                 strcmp(widths[i].name, "latent_norm") != 0)
            complain(checker, path,
                     "%s is missing; give it, or the share of the cache to keep in "
                     "model.convert.cache",
                     path);
    }
}

// The method closed and the shared form have one latent that keys and values share.
static void check_convert(const Checker *checker, ConvertConfig *convert)
{
    const bool is_split = convert->target.svd == SVD_SPLIT;
    recipe_complete(&convert->recipe, &convert->target, &convert->rope);
    if (!convert->given || !is_good(checker, "model.convert"))
        return;
    check_widths(checker, &convert->target);
    if (errors_within(checker->errors, "model.convert"))
        return;
    if (is_split && convert->recipe.method == METHOD_CLOSED)
        complain(checker, "model.convert.svd",
                 "model.convert.svd is split, but the method closed needs joint");
    if (convert->recipe.key_weight == 0 && convert->recipe.method == METHOD_CLOSED)
        complain(checker, "model.convert.key_weight",
                 "model.convert.key_weight is 0, but the method closed needs a weight");
    if (convert->target.form != FORM_SHARED) {
        if (convert->rope == ROPE_SHARED_UNIFORM)
            complain(checker, "model.convert.rope",
                     "model.convert.rope is shared-uniform, but model.convert.form is per-head");
        return;
    }
    if (is_split)
        complain(checker, "model.convert.svd",
                 "model.convert.svd is split, but the form shared needs joint");
    if (convert->rope < ROPE_2NORM)
        complain(checker, "model.convert.rope",
                 "model.convert.rope is %s, but the form shared takes 2-norm, kl or shared-uniform",
                 rope_strategy_name(convert->rope));
}

// Exactly one of base and init; what else of a base model is wrong only its config.json can tell.
static void check_model(const Checker *checker, Config *config)
{
    const ModelConfig *model = &config->model;
    check_convert(checker, &config->model.convert);
    if (!is_good(checker, "model.base") || !is_good(checker, "model.init"))
        return;
    if (model->base != NULL && model->init.given)
        complain(checker, "model.init", "model.base and model.init are both given; keep one");
    else if (model->base == NULL && !model->init.given)
        complain(checker, "model",
                 "model.base is missing; give an HF directory there, or a shape in model.init");
    else if (model->init.given)
        check_init(checker, config);
}

// Names tell the sources apart in messages and metrics. Quadratic, as there are few.
static void check_sources(const Checker *checker, const DataConfig *data)
{
    if (errors_within(checker->errors, "data.sources") ||
        errors_within(checker->errors, "data.sources[]"))
        return;
    for (int i = 0; i < data->n_sources; i++) {
        for (int j = 0; j < i; j++) {
            if (strcmp(data->sources[i].name, data->sources[j].name) == 0) {
                complain(checker, "data.sources",
                         "data.sources has the name '%.100s' twice; give each its own",
                         data->sources[i].name);
                return;
            }
        }
    }
}

// Sets the number of steps that read at least this share of the pretraining tokens.
static void set_steps_from_fraction(const Checker *checker, Config *config)
{
    TrainConfig *train = &config->train;
    double step_tokens = (double)train->global_batch * config->data.seq_len;
    double steps = train->fraction * config->data.pretraining_tokens / step_tokens;
    steps = ceil(steps * (1 - 1e-12)); // a whole number stays one whatever its rounding
    if (steps > INT_MAX) {
        complain(checker, "train.fraction",
                 "train.fraction %g of %g tokens is %.4g steps, more than %d; make it smaller",
                 train->fraction, config->data.pretraining_tokens, steps, INT_MAX);
        return;
    }
    train->steps = (int)steps;
    train->fraction = 0;
}

// Decides between train.steps and train.fraction. After an error `steps` is STEPS_NOT_GIVEN.
static void check_budget(const Checker *checker, Config *config)
{
    TrainConfig *train = &config->train;
    if (!is_good(checker, "train.steps") || !is_good(checker, "train.fraction"))
        return;
    if (train->fraction > 0 && train->steps != STEPS_NOT_GIVEN) {
        complain(checker, "train.fraction",
                 "train.steps and train.fraction are both given; keep one, set the other to none");
        train->steps = STEPS_NOT_GIVEN;
    } else if (train->fraction == 0 && train->steps == STEPS_NOT_GIVEN) {
        complain(checker, "train.steps",
                 "train.steps is missing; give it, or train.fraction and data.pretraining_tokens");
    } else if (train->fraction > 0 && is_good(checker, "data.pretraining_tokens")) {
        if (config->data.pretraining_tokens == 0)
            complain(checker, "data.pretraining_tokens",
                     "data.pretraining_tokens is missing; train.fraction is a share of them");
        else if (is_good(checker, "train.global_batch") && is_good(checker, "data.seq_len"))
            set_steps_from_fraction(checker, config);
    }
}

// The schedule: warm-up, constant, decay, in this order without overlap.
static void check_optim(const Checker *checker, Config *config)
{
    Schedule *schedule = &config->optim.schedule;
    if (is_good(checker, "optim.lr") && is_good(checker, "optim.min_lr") &&
        schedule->min_lr > schedule->lr)
        complain(checker, "optim.min_lr", "optim.min_lr is %g, more than optim.lr %g",
                 schedule->min_lr, schedule->lr);
    if (!is_good(checker, "optim.decay_start") || !is_good(checker, "optim.decay_steps") ||
        config->train.steps == STEPS_NOT_GIVEN)
        return;
    if (schedule->decay_start == DECAY_START_NOT_GIVEN) {
        if (schedule->decay_steps > config->train.steps) {
            complain(checker, "optim.decay_steps",
                     "optim.decay_steps is %d, more than train.steps %d; make it smaller or set "
                     "optim.decay_start",
                     schedule->decay_steps, config->train.steps);
            return;
        }
        schedule->decay_start = config->train.steps - schedule->decay_steps;
    }
    if (is_good(checker, "optim.warmup_steps") && schedule->decay_steps > 0 &&
        schedule->warmup_steps > schedule->decay_start)
        complain(checker, "optim.warmup_steps",
                 "optim.warmup_steps is %d, but the decay starts after step %d; make it at most "
                 "that",
                 schedule->warmup_steps, schedule->decay_start);
}

static void check_train(const Checker *checker, TrainConfig *train)
{
    if (!is_good(checker, "train.global_batch") || !is_good(checker, "train.micro_batch"))
        return;
    if (train->global_batch % train->micro_batch != 0) {
        complain(checker, "train.micro_batch",
                 "train.micro_batch is %d, which does not divide train.global_batch %d",
                 train->micro_batch, train->global_batch);
        return;
    }
    // By default every micro-batch is a group, which allows the most ranks with the same bits.
    const int n_micro_batches = train->global_batch / train->micro_batch;
    if (train->sum_groups == 0)
        train->sum_groups = n_micro_batches;
    if (train->sum_groups > n_micro_batches)
        complain(checker, "train.sum_groups",
                 "train.sum_groups is %d, more than the %d micro-batches of train.global_batch %d",
                 train->sum_groups, n_micro_batches, train->global_batch);
}

// Some loss must be trained, and kl and attention_mse need a model to follow.
static void check_losses(const Checker *checker, const Config *config)
{
    const LossConfig *loss = &config->train.loss;
    const char *name = loss->kl > 0 ? "kl" : "attention_mse";
    char path[64];
    if (errors_within(checker->errors, "train.loss") || !is_good(checker, "train.teacher"))
        return;
    if (loss->ce == 0 && loss->kl == 0 && loss->attention_mse == 0)
        complain(checker, "train.loss",
                 "train.loss has no weight above 0; give ce, kl or attention_mse one");
    if ((loss->kl > 0 || loss->attention_mse > 0) && config->train.teacher == NULL &&
        config->model.init.given && is_good(checker, "model.init")) {
        snprintf(path, sizeof path, "train.loss.%s", name);
        complain(checker, path,
                 "train.loss.%s needs a teacher, which model.init is not; name its directory in "
                 "train.teacher",
                 name);
    }
}

// The order matters twice: the number of steps is known before the schedule is checked, and the
// shape of model.init before the conversion.
void config_check(Config *config, const Tree *tree, ConfigErrors *errors)
{
    const Checker checker = {tree, errors};
    check_run(&checker, &config->run);
    check_model(&checker, config);
    check_sources(&checker, &config->data);
    check_budget(&checker, config);
    check_optim(&checker, config);
    check_train(&checker, &config->train);
    check_losses(&checker, config);
}
