// mha2mla convert: conversion without training, from files to files. The original is never in
// memory as a whole; ranks share the layers.
#include "base/file.h"
#include "base/file_lock.h"
#include "base/log.h"
#include "model/convert/convert_target.h"
#include "model/convert/rope_select.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/calibrate_scores.h"
#include "train/calibration_data.h"
#include "train/cli/compute_options.h"
#include "train/cli/dtype_option.h"
#include "train/config/config_table.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"
#include "train/prepare.h"
#include "train/refit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ConvertOptions {
    const char *out, *scores, *data;
    ConvertMethod method;
    double key_weight;
    RefitParts refit;
    int64_t samples, seq_len, seed, windows, attention_windows, window_len;
    StatisticsPool pool;
    ComputeOptions compute;
    ConvertForm form;
    int64_t rope_pairs, d_kv, slots, latent; // 0: not given
    bool latent_norm;
    const char *cache; // NULL: not given
    RopeStrategy rope;
    SvdKind svd;
    int dtype; // a DType, or DTYPE_OF_MODEL
} ConvertOptions;

// What the options ask for, with what they leave open decided.
typedef struct Choices {
    ConvertTarget target;
    ConvertRecipe recipe;
    RopeStrategy rope;
} Choices;

// "12.5" or "12.5%"; without the sign at least 1, so that a share such as 0.125 is not taken for
// an eighth of a percent.
static Status parse_cache(double *share, const char *text)
{
    char *end;
    *share = 0;
    if (text == NULL)
        return OK;
    const bool is_decimal = text[strspn(text, ".0123456789%")] == '\0';
    const double percent = strtod(text, &end);
    const bool has_sign = strcmp(end, "%") == 0;
    if (!is_decimal || end == text || !(has_sign || *end == '\0') || !(percent <= 100) ||
        !(percent >= (has_sign ? 1e-4 : 1)))
        return fail(BAD_INPUT,
                    "--cache is '%.100s', which is no share of the original's cache; write it in "
                    "percent, such as 12.5%%",
                    text);
    *share = percent / 100;
    return OK;
}

static Status choose(Choices *out, const ConvertOptions *options)
{
    out->target = (ConvertTarget){.form = options->form,
                                  .rope_pairs = (int)options->rope_pairs,
                                  .d_kv = (int)options->d_kv,
                                  .svd = options->svd,
                                  .slots = (int)options->slots,
                                  .latent = (int)options->latent,
                                  .latent_norm = options->latent_norm};
    out->recipe = (ConvertRecipe){
        .method = options->method, .key_weight = options->key_weight, .refit = options->refit};
    out->rope = options->rope;
    TRY(parse_cache(&out->target.cache, options->cache));
    recipe_complete(&out->recipe, &out->target, &out->rope);
    return OK;
}

static bool needs_scores(const Choices *chosen)
{
    return chosen->rope == ROPE_2NORM || chosen->rope == ROPE_KL ||
           recipe_needs_statistics(&chosen->recipe);
}

// Everything that a conversion holds.
typedef struct Conversion {
    const Comm *comm; // borrowed, as the next three
    const ConvertOptions *options;
    const Choices *chosen;
    const char *dir;  // of the original
    ModelShape shape; // of the result
    HfSource *files;  // owned, as all that follow
    CommGroup group;
    Replica original, mla; // the original where it has to run
    FileLock target;
    DType dtype;
    int32_t *choice;         // of pairs or slots
    char scores[PATH_BYTES]; // the file, if needs_scores()
} Conversion;

// The shape is known, and said, before anything is read or computed that takes time.
static Status find_shape(Conversion *c)
{
    char text[TARGET_TEXT_BYTES];
    const Choices *chosen = c->chosen;
    const ModelShape *original = hf_source_weights(c->files).shape;
    Status status = convert_target_shape(&c->shape, original, &chosen->target);
    if (status == OK)
        status = recipe_check(&chosen->recipe, original, "--method");
    if (status != OK)
        return fail_within(status, "%s", c->dir);
    convert_target_describe(text, &c->shape);
    if (c->comm->rank == 0 && chosen->target.cache > 0)
        log_info("--cache %s: method %s, RoPE %s, %s", c->options->cache,
                 convert_method_names[chosen->recipe.method], rope_strategy_name(chosen->rope),
                 text);
    return OK;
}

// The converted model without weights: memory, and the RoPE pairs, which the conversion of every
// layer needs. Each rank chooses them from the same file, so no message is needed.
static Status create_converted(Conversion *c)
{
    const Choices *chosen = c->chosen;
    const ModelShape *shape = &c->shape;
    TRY(replica_create(&c->mla, c->comm, &c->group, shape));
    c->choice = malloc((size_t)model_n_pairs(shape) * sizeof *c->choice);
    Status status = c->choice != NULL ? prepare_chosen_pairs(c->choice, shape, chosen->rope,
                                                             &chosen->recipe, c->scores)
                                      : fail(FAILED, "no memory for RoPE pairs");
    return comm_agree(c->comm, status);
}

// Finds what is wrong with the files before anything is computed.
static Status open_files(HfSource **out, DType *dtype, const Comm *comm,
                         const ConvertOptions *options, const char *dir, FileLock *target)
{
    if (comm->rank == 0) {
        TRY(hf_check_target(dir, options->out));
        TRY(file_lock_directory(target, options->out));
    }
    TRY(dtype_option(dtype, options->dtype, dir));
    return hf_source_open(out, dir);
}

// Numbers per token of the KV cache, over all layers, and their change in percent.
static void print_result(const ModelShape *shape, const ModelShape *original, const char *out,
                         double seconds)
{
    const int64_t after = shape_cache_numbers(shape), before = shape_cache_numbers(original);
    printf("%s: %.2f M parameters, KV cache %lld numbers per token (%+.2f %%), %d layers in "
           "%.1f s\n",
           out, (double)params_count(shape) / 1e6, (long long)after,
           100.0 * ((double)after / (double)before - 1), shape->n_layers, seconds);
}

// Reads the data and writes the scores beside the result, for this conversion and later ones.
static Status collect_scores(Conversion *c)
{
    const ConvertOptions *options = c->options;
    const Model *original = &c->original.model;
    CalibrationSettings settings = {.samples = (int)options->samples,
                                    .windows = (int)options->windows,
                                    .attention_windows = (int)options->attention_windows,
                                    .window_len = (int)options->window_len,
                                    .pool = options->pool,
                                    .compute = options->compute.type};
    Mixture *mixture = NULL;
    settings.seq_len =
        options->seq_len > 0 ? (int)options->seq_len : shape_longest(&original->shape);
    CalibrationData data = {
        .shards = options->data, .seq_len = settings.seq_len, .seed = options->seed};
    Status status = calibration_data_open(&mixture, &data, &original->shape, c->dir);
    json_t *fingerprint = status == OK ? mixture_fingerprint(mixture) : NULL;
    TRY_GOTO(close_mixture, agreement_fingerprint(c->comm, fingerprint, status));
    status = calibrate_scores(c->scores, &settings, c->comm, original, mixture);
close_mixture:
    mixture_close(mixture);
    return status;
}

// OUT.scores.h5
static Status name_scores(char out[PATH_BYTES], const char *dir)
{
    int length = (int)strlen(dir);
    while (length > 1 && dir[length - 1] == '/')
        length--;
    if (snprintf(out, PATH_BYTES, "%.*s.scores.h5", length, dir) >= PATH_BYTES)
        return fail(BAD_INPUT, "%s: the path is too long", dir);
    return OK;
}

// The file that pairs and statistics come from: the one given, or one made from the data.
static Status find_scores(Conversion *c)
{
    const ConvertOptions *options = c->options;
    if (!needs_scores(c->chosen))
        return OK;
    if (options->scores != NULL) {
        snprintf(c->scores, sizeof c->scores, "%s", options->scores);
        return agreement_file(c->comm, "--scores", options->scores);
    }
    TRY(comm_agree(c->comm, name_scores(c->scores, options->out)));
    TRY(prepare_loaded(&c->original, c->dir, c->comm, &c->group));
    TRY(collect_scores(c));
    if (c->comm->rank == 0)
        log_info("scores written to %s", c->scores);
    if (c->chosen->recipe.method != METHOD_CLOSED)
        replica_release(&c->original);
    return OK;
}

// Queries and output projections of the method closed, for which the original has to be in memory.
static Status refit(Conversion *c)
{
    if (c->chosen->recipe.method != METHOD_CLOSED)
        return OK;
    if (c->options->scores != NULL)
        TRY(prepare_loaded(&c->original, c->dir, c->comm, &c->group));
    return refit_attention(&c->mla, &c->original.model, c->scores, c->options->refit);
}

// First everything is compared and opened, then memory is asked for, then layers are converted;
// each step ends in an agreement. Rank 0 writes the result.
static Status convert_files(Conversion *c)
{
    const Comm *comm = c->comm;
    TRY(agreement_model(comm, c->dir));
    TRY(comm_agree(comm, open_files(&c->files, &c->dtype, comm, c->options, c->dir, &c->target)));
    TRY(comm_agree(comm, find_shape(c)));
    TRY(comm_group_start(&c->group, comm, 0));
    TRY(find_scores(c));
    TRY(create_converted(c));
    const WeightSource original = hf_source_weights(c->files);
    const double start_s = log_seconds();
    TRY(prepare_layers(&c->mla, &original, &c->chosen->recipe, c->choice, c->scores));
    TRY(refit(c));
    hf_source_warn(c->files, c->dir);
    const double seconds = log_seconds() - start_s;
    Status status = OK;
    if (comm->rank == 0)
        status = hf_save(&c->mla.model, c->dir, c->dtype, c->options->out);
    TRY(comm_agree(comm, status));
    if (comm->rank == 0)
        print_result(&c->mla.model.shape, original.shape, c->options->out, seconds);
    return OK;
}

// Collective.
static Status convert(const Comm *comm, const ConvertOptions *options, const Choices *chosen,
                      const char *dir)
{
    Conversion c = {.comm = comm, .options = options, .chosen = chosen, .dir = dir};
    const Status status = convert_files(&c);
    replica_release(&c.mla);
    replica_release(&c.original);
    free(c.choice);
    comm_group_end(&c.group);
    hf_source_close(c.files);
    file_lock_remove(&c.target);
    return status;
}

static const ConvertOptions defaults = {.method = METHOD_AUTO,
                                        .rope = ROPE_AUTO,
                                        .form = FORM_AUTO,
                                        .svd = SVD_JOINT,
                                        .dtype = DTYPE_OF_MODEL,
                                        .key_weight = .1,
                                        .samples = 1024,
                                        .seed = 42,
                                        .windows = 40,
                                        .attention_windows = 12,
                                        .window_len = 512};

static const Option options[] = {
    {"out", OPTION_TEXT, offsetof(ConvertOptions, out), "DIR", "directory to write",
     .files = ANY_DIRECTORY, .required = true},
    {"method", OPTION_CHOICE, offsetof(ConvertOptions, method), "METHOD",
     "SVD of the weights (paper), in the norm of the activations (whitened), or in that of scores "
     "and outputs (closed); auto: closed with --form shared, else paper",
     .choices = convert_method_names},
    {"rope", OPTION_CHOICE, offsetof(ConvertOptions, rope), "STRATEGY",
     "which RoPE pairs a KV head keeps; auto: kl with --method closed, else 2-norm",
     .choices = config_rope_names},
    {"form", OPTION_CHOICE, offsetof(ConvertOptions, form), "FORM",
     "pairs of every KV head's own (per-head), or rotated slots that all heads see (shared); auto: "
     "per-head where a width, strategy or method is MHA2MLA's, else shared",
     .choices = convert_form_names},
    {"cache", OPTION_TEXT, offsetof(ConvertOptions, cache), "PERCENT",
     "share of the original's KV cache to keep, such as 12.5%, from which the widths follow that "
     "are not given"},
    {"rope-pairs", OPTION_INT, offsetof(ConvertOptions, rope_pairs), "R",
     "per-head: RoPE pairs kept per KV head", 1, INT32_MAX},
    {"svd", OPTION_CHOICE, offsetof(ConvertOptions, svd), "KIND",
     "one factorization of keys and values together (joint) or one of each (split)",
     .choices = shape_svd_names},
    {"d-kv", OPTION_INT, offsetof(ConvertOptions, d_kv), "N", "per-head: latent width per KV head",
     1, INT32_MAX},
    {"slots", OPTION_INT, offsetof(ConvertOptions, slots), "P", "shared: rotated slots of a layer",
     1, INT32_MAX},
    {"latent", OPTION_INT, offsetof(ConvertOptions, latent), "R",
     "shared: width of a layer's latent", 1, INT32_MAX},
    {"latent-norm", OPTION_FLAG, offsetof(ConvertOptions, latent_norm), NULL,
     "shared: RMSNorm of the latent"},
    {"scores", OPTION_TEXT, offsetof(ConvertOptions, scores), "SCORES.h5",
     "file of mha2mla score, needed by the strategies 2-norm and kl and by the methods whitened "
     "and "
     "closed",
     .files = "*.h5"},
    {"data", OPTION_TEXT, offsetof(ConvertOptions, data), "SHARD.h5",
     "token shard, or a glob pattern of several, to make OUT.scores.h5 from where no --scores are "
     "given",
     .files = "*.h5"},
    {"samples", OPTION_INT, offsetof(ConvertOptions, samples), "N",
     "with --data: sequences to read", 1, INT32_MAX},
    {"seq-len", OPTION_INT, offsetof(ConvertOptions, seq_len), "T",
     "with --data: tokens of a sequence", 1, 1 << 24, .derived = "the model's longest"},
    {"seed", OPTION_INT, offsetof(ConvertOptions, seed), "SEED",
     "with --data: decides which sequences are read", 0, INT64_MAX},
    {"windows", OPTION_INT, offsetof(ConvertOptions, windows), "N",
     "with --data: sequences for the statistics of activations", 1, 1 << 24},
    {"attention-windows", OPTION_INT, offsetof(ConvertOptions, attention_windows), "N",
     "of these, sequences for the statistics of attention weights", 1, 1 << 24},
    {"window-len", OPTION_INT, offsetof(ConvertOptions, window_len), "T",
     "tokens of such a sequence at most", 1, 1 << 24},
    {"pool", OPTION_CHOICE, offsetof(ConvertOptions, pool), "OVER",
     "with --data: heads that share their statistics", .choices = statistics_pool_names},
    {"key-weight", OPTION_REAL, offsetof(ConvertOptions, key_weight), "W",
     "weight of the keys' squared errors against the values', not with --method paper; 0: the "
     "values' mean square over the keys', with whitened alone",
     0, 1000000},
    {"refit", OPTION_CHOICE, offsetof(ConvertOptions, refit), "PARTS",
     "what --method closed refits at its end: queries and output projections (all), or outputs "
     "alone",
     .choices = refit_parts_names},
    {"dtype", OPTION_CHOICE, offsetof(ConvertOptions, dtype), "TYPE",
     "number format of the weights", .choices = config_dtype_names, .derived = "the model's own"},
    COMPUTE_OPTIONS(ConvertOptions, compute),
};

// Without a share of the cache both widths of the form are needed.
static Status check_widths(const ConvertTarget *given)
{
    const bool is_shared = given->form == FORM_SHARED;
    const char *missing = NULL;
    if (given->cache == 0 && given->slots + given->latent + given->rope_pairs + given->d_kv == 0)
        return fail(BAD_INPUT, "convert: the share of the cache to keep is missing; give it by "
                               "--cache, such as 12.5%%, or widths");
    if (is_shared ? given->slots == 0 : given->rope_pairs == 0)
        missing = is_shared ? "--slots P" : "--rope-pairs R";
    else if (is_shared ? given->latent == 0 : given->d_kv == 0)
        missing = is_shared ? "--latent R" : "--d-kv N";
    return missing == NULL || given->cache > 0
               ? OK
               : fail(BAD_INPUT, "convert: %s is missing; give it, or --cache", missing);
}

// All that can be checked without files comes first.
static Status run(const CommandLine *line)
{
    const ConvertOptions *given = line->options;
    TRY(blas_check(line->comm));
    TRY(compute_check(line->comm, given->compute.type, given->compute.emulate, "--compute"));
    Choices chosen;
    TRY(choose(&chosen, given));
    TRY(check_widths(&chosen.target));
    const bool is_shared = chosen.target.form == FORM_SHARED;
    const bool is_closed = chosen.recipe.method == METHOD_CLOSED;
    if (needs_scores(&chosen) && given->scores == NULL && given->data == NULL)
        return fail(BAD_INPUT,
                    "--rope %s with --method %s needs --scores, which mha2mla score makes, or "
                    "--data to make them from",
                    config_rope_names[chosen.rope], convert_method_names[chosen.recipe.method]);
    if (is_shared && chosen.rope < ROPE_2NORM)
        return fail(BAD_INPUT, "--rope is %s, but --form shared takes 2-norm, kl or shared-uniform",
                    config_rope_names[chosen.rope]);
    if (!is_shared && chosen.rope == ROPE_SHARED_UNIFORM)
        return fail(BAD_INPUT, "--rope is shared-uniform, which needs --form shared");
    if (is_closed && given->key_weight == 0)
        return fail(BAD_INPUT, "--key-weight is 0, but --method closed needs a weight");
    if (is_closed && given->svd == SVD_SPLIT)
        return fail(BAD_INPUT, "--method closed has one latent for keys and values; leave --svd "
                               "split out");
    return convert(line->comm, given, &chosen, line->words[0]);
}

const Command cmd_convert = {
    .name = "convert",
    .summary = "turn a model's attention into latent attention, without training",
    .description = "Keeps RoPE on some pairs of every KV head, or on slots that all heads see, and "
                   "factorizes the other key rows and the values through a latent. Methods other "
                   "than the paper's use "
                   "statistics of activations, docs/conversion.md. The ranks share the layers.",
    COMMAND_OPTIONS(ConvertOptions, options, defaults),
    .words = {"MODEL", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .examples = (const char *const[]){"mha2mla convert configs/demo/model --out runs/demo/mla "
                                      "--rope uniform --rope-pairs 2 --d-kv 8",
                                      "mha2mla convert configs/demo/model --out runs/demo/closed "
                                      "--method closed --rope kl --rope-pairs 2 --d-kv 8 "
                                      "--data runs/demo/shards/train.h5 --samples 64",
                                      "mha2mla convert configs/demo/model --out runs/demo/shared "
                                      "--cache 12.5% --data runs/demo/shards/train.h5 --samples "
                                      "64",
                                      NULL},
    .run = run,
};
