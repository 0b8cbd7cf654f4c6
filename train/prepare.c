// The model as it is before the first step: read or random, measured where the selection of RoPE
// pairs needs it, converted layer by layer. All functions that take a Comm are collective. Where
// the ranks of a host share the parameters only the writer fills them (replica_is_writer), so an
// error on it is agreed on before the others read.
#include "train/prepare.h"

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/mixture.h"
#include "data/tokenizer/tokenizer_file.h"
#include "model/convert/convert.h"
#include "model/convert/pair_select.h"
#include "model/convert/slot_mix.h"
#include "model/convert/slot_select.h"
#include "model/convert/slots.h"
#include "model/hf/hf.h"
#include "train/calibrate.h"
#include "train/calibrate_scores.h"
#include "train/parallel/watchdog.h"
#include "train/refit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// "" where no tokenizer is known: shards are then taken as they are.
Status prepare_tokenizer_sha256(char out[SHA256_HEX_BYTES], const Config *config)
{
    const ModelConfig *model = &config->model;
    const char *dir = model->base != NULL ? model->base : model->init.tokenizer;
    out[0] = '\0';
    return dir == NULL ? OK : tokenizer_file_sha256(out, dir);
}

// From config.json alone, before memory for the weights is asked for.
static Status original_shape(ModelShape *out, const ModelConfig *model)
{
    if (!model->init.given)
        return hf_load_shape(out, model->base);
    *out = model->init.shape;
    return OK;
}

// Fills the parameters where this rank writes them, and the RoPE pairs on every rank.
static Status fill_original(Replica *replica, const Config *config)
{
    const InitConfig *init = &config->model.init;
    Model *model = &replica->model;
    if (!replica_is_writer(replica))
        return init->given
                   ? OK
                   : hf_load_rope_pairs(model->rope_pairs, &model->shape, config->model.base);
    if (!init->given)
        return hf_load_into(model, config->model.base);
    model_init_random(model, init->initializer_range, (uint64_t)config->run.seed);
    return OK;
}

Status prepare_original(Replica *out, const Config *config, const Comm *comm, CommGroup *group)
{
    ModelShape shape;
    Replica replica;
    watchdog_phase("load", 0);
    TRY(comm_agree(comm, original_shape(&shape, &config->model)));
    TRY(replica_create(&replica, comm, group, &shape));
    Status status = fill_original(&replica, config);
    // An error that all writers find is one of all ranks: those who wrote nothing do not count.
    TRY_GOTO(release, comm_agree_of(comm, replica_is_writer(&replica) || status != OK, status));
    replica_sync(&replica);
    *out = replica;
    return OK;
release:
    replica_release(&replica);
    return status;
}

Status prepare_loaded(Replica *out, const char *dir, const Comm *comm, CommGroup *group)
{
    ModelShape shape;
    Replica replica;
    Status status;
    watchdog_phase("load", 0);
    TRY(comm_agree(comm, hf_load_shape(&shape, dir)));
    TRY(replica_create(&replica, comm, group, &shape));
    status = replica_is_writer(&replica)
                 ? hf_load_into(&replica.model, dir)
                 : hf_load_rope_pairs(replica.model.rope_pairs, &shape, dir);
    TRY_GOTO(release, comm_agree_of(comm, replica_is_writer(&replica) || status != OK, status));
    replica_sync(&replica);
    *out = replica;
    return OK;
release:
    replica_release(&replica);
    return status;
}

// ---- calibration and pairs ----------------------------------------------------------------------

static Status copy_path(char out[PATH_BYTES], const char *path)
{
    const int length = snprintf(out, PATH_BYTES, "%s", path);
    return length < PATH_BYTES ? OK : fail(BAD_INPUT, "%s: the path is too long", path);
}

// The file of scores that the run reads: the config's, or the one of statistics that it writes
// itself into its directory.
static Status scores_path(char out[PATH_BYTES], const Config *config)
{
    if (config->model.convert.scores != NULL)
        return copy_path(out, config->model.convert.scores);
    char dir[PATH_BYTES];
    TRY(file_join(dir, config->run.dir, config->run.name));
    return file_join(out, dir, "scores.h5");
}

static CalibrationSettings calibration_settings(const Config *config)
{
    const ConvertConfig *convert = &config->model.convert;
    return (CalibrationSettings){.samples = convert->samples,
                                 .seq_len = config->data.seq_len,
                                 .windows = convert->windows,
                                 .attention_windows = convert->attention_windows,
                                 .window_len = convert->window_len,
                                 .pool = convert->pool,
                                 .compute = config->train.compute};
}

// Reads the training data from its beginning: the calibration samples are those trained on first.
// The norms stay in memory unless statistics are needed, which go to the file `path`.
static Status measure_scores(RopeScores *out, const char *path, const Model *original,
                             const Config *config, const Comm *comm, const char *tokenizer_sha256)
{
    const DataConfig *data = &config->data;
    const CalibrationSettings settings = calibration_settings(config);
    Mixture *mixture = NULL;
    Status status = mixture_open(
        &mixture, data->sources, data->n_sources, data->seq_len, (uint64_t)config->run.seed,
        tokenizer_sha256[0] != '\0' ? tokenizer_sha256 : NULL, original->shape.vocab_size);
    TRY_GOTO(close_mixture, comm_agree(comm, status));
    const double start_s = log_seconds();
    if (path != NULL)
        status = calibrate_scores(path, &settings, comm, original, mixture);
    else
        status = calibrate_run(out, comm, original, mixture, settings.samples, data->seq_len,
                               settings.compute);
    TRY_GOTO(close_mixture, status);
    log_info("calibration on %d samples of %d tokens: %.1f s", settings.samples, data->seq_len,
             log_seconds() - start_s);
close_mixture:
    mixture_close(mixture);
    return status;
}

static Status select_kl(int32_t *choice, const ModelShape *mla, const ConvertRecipe *recipe,
                        const char *path)
{
    const ModelShape original = shape_original(mla);
    const bool absorb = recipe->method == METHOD_CLOSED;
    StatisticsFile file;
    TRY(statistics_file_open(&file, &original, path));
    const Status status = shape_is_shared(mla)
                              ? slot_select(choice, &original, mla->rope_pairs, absorb, &file)
                              : pair_select(choice, &original, mla->rope_pairs, absorb, &file);
    statistics_file_close(&file);
    return status;
}

// Slots of all layers are the same, with every stride-th frequency.
static Status spread_uniform(int32_t *slots, const ModelShape *mla, int stride)
{
    const int P = mla->rope_pairs;
    if (slot_mix_max_stride(mla, P) < 1)
        return fail(BAD_INPUT, "slots are %d, but shared-uniform has one for each of %d pairs", P,
                    mla->head_dim / 2);
    for (int l = 0; l < mla->n_layers; l++)
        slot_mix_uniform(slots + (int64_t)l * P, P, stride);
    return OK;
}

// By frequency or by norms, which are NULL where frequency decides.
static Status select_plain(int32_t *choice, const ModelShape *mla, RopeStrategy strategy,
                           const RopeScores *norms)
{
    const ModelShape original = shape_original(mla);
    if (!shape_is_shared(mla))
        return rope_select(choice, &original, mla->rope_pairs, strategy, norms);
    if (strategy == ROPE_2NORM)
        return slot_select_norms(choice, &original, mla->rope_pairs, norms);
    if (strategy == ROPE_SHARED_UNIFORM)
        return spread_uniform(choice, mla, 1);
    return fail(BAD_INPUT,
                "the RoPE strategy is %s, which chooses the same pairs for every KV head; the "
                "shared form takes 2-norm, kl or shared-uniform",
                rope_strategy_name(strategy));
}

Status prepare_chosen_pairs(int32_t *choice, const ModelShape *mla, RopeStrategy strategy,
                            const ConvertRecipe *recipe, const char *scores)
{
    const ModelShape original = shape_original(mla);
    RopeScores norms = {0};
    if (strategy == ROPE_KL)
        return select_kl(choice, mla, recipe, scores);
    if (strategy == ROPE_2NORM)
        TRY(rope_scores_read(&norms, &original, scores));
    const Status status = select_plain(choice, mla, strategy, &norms);
    rope_scores_release(&norms);
    return status;
}

// Checks the conversion's shape, too: before hours of calibration.
static Status allocate_pairs(int32_t **out, ModelShape *mla, const ModelShape *original,
                             const ConvertConfig *convert)
{
    TRY(recipe_check(&convert->recipe, original, "model.convert.method"));
    TRY(convert_target_shape(mla, original, &convert->target));
    *out = malloc((size_t)model_n_pairs(mla) * sizeof **out);
    return *out != NULL
               ? OK
               : fail(FAILED, "no memory for %lld RoPE pairs", (long long)model_n_pairs(mla));
}

// By the config's strategy: from a calibration pass in memory, or from a file, which the pass may
// have to write first.
static Status choose_pairs(int32_t *choice, const Model *original, const ModelShape *mla,
                           const Config *config, const Comm *comm, const char *tokenizer_sha256)
{
    const ConvertConfig *convert = &config->model.convert;
    const bool has_file = config_needs_statistics(config) || convert->scores != NULL;
    char path[PATH_BYTES] = "";
    RopeScores norms = {0};
    Status status = OK;
    if (has_file)
        TRY(comm_agree(comm, scores_path(path, config)));
    if (config_calibrates(config))
        TRY_GOTO(release, measure_scores(&norms, has_file ? path : NULL, original, config, comm,
                                         tokenizer_sha256));
    if (config_calibrates(config) && !has_file)
        status = select_plain(choice, mla, convert->rope, &norms);
    else
        status = prepare_chosen_pairs(choice, mla, convert->rope, &convert->recipe, path);
    status = comm_agree(comm, status);
release:
    rope_scores_release(&norms);
    return status;
}

Status prepare_pairs(int32_t **out, const Model *original, const ModelShape *original_shape,
                     const Config *config, const Comm *comm, const char *tokenizer_sha256)
{
    int32_t *choice = NULL;
    ModelShape mla;
    Status status;
    TRY_GOTO(release, comm_agree(comm, allocate_pairs(&choice, &mla, original_shape,
                                                      &config->model.convert)));
    TRY_GOTO(release, choose_pairs(choice, original, &mla, config, comm, tokenizer_sha256));
    *out = choice;
    choice = NULL;
release:
    free(choice);
    return status;
}

// ---- layers -------------------------------------------------------------------------------------

// What a rank reads statistics through; nothing where the recipe needs none.
typedef struct LayerSource {
    StatisticsFile file;
    LayerStatistics statistics;
} LayerSource;

static void release_source(LayerSource *source)
{
    layer_statistics_release(&source->statistics);
    statistics_file_close(&source->file);
}

static Status open_source(LayerSource *out, const ModelShape *original, const ConvertRecipe *recipe,
                          const char *scores)
{
    *out = (LayerSource){0};
    if (!recipe_needs_statistics(recipe))
        return OK;
    TRY(statistics_file_open(&out->file, original, scores));
    return layer_statistics_create(&out->statistics, original, out->file.info.n_pools);
}

static Status convert_one(Replica *mla, const WeightSource *original, int layer,
                          const ConvertRecipe *recipe, const int32_t *choice, LayerSource *source)
{
    const ModelShape *s = &mla->model.shape;
    const int32_t *slots = shape_is_shared(s) ? choice + (int64_t)layer * s->rope_pairs : NULL;
    const bool has_statistics = recipe_needs_statistics(recipe);
    if (has_statistics)
        TRY(statistics_file_read(&source->file, layer, &source->statistics));
    return convert_layer(&mla->model, original, layer, recipe, slots,
                         has_statistics ? &source->statistics : NULL);
}

// Layers l with l mod N = rank. The writer also copies what is in no layer: embedding, final norm,
// head. Not collective.
static Status convert_own_layers(Replica *mla, const WeightSource *original,
                                 const ConvertRecipe *recipe, const int32_t *choice,
                                 const char *scores)
{
    const Comm *comm = mla->comm;
    const int n_layers = mla->model.shape.n_layers;
    LayerSource source;
    Status status = OK;
    ProgressMeter meter = progress_start("conversion", "layers", n_layers);
    TRY_GOTO(end, open_source(&source, original->shape, recipe, scores));
    if (replica_is_writer(mla))
        TRY_GOTO(end, convert_outside_layers(&mla->model, original));
    for (int l = comm->rank; l < n_layers; l += comm->size) {
        TRY_GOTO(end, convert_one(mla, original, l, recipe, choice, &source));
        progress_show(&meter, l - comm->rank + comm->size); // the others are about as far
    }
end:
    release_source(&source);
    progress_end(&meter);
    return status;
}

// Rank l mod N converts layer l and broadcasts it: the work is shared, and all ranks have the same
// bits even where their CPUs run different kernels.
static Status convert_layers(Replica *mla, const WeightSource *original,
                             const ConvertRecipe *recipe, const int32_t *choice, const char *scores)
{
    const Comm *comm = mla->comm;
    const ModelShape *shape = &mla->model.shape;
    watchdog_phase("convert", 0);
    if (shape_is_shared(shape))
        slots_pairs(mla->model.rope_pairs, choice, model_n_pairs(shape), shape);
    else
        memmove(mla->model.rope_pairs, choice, (size_t)model_n_pairs(shape) * sizeof *choice);
    TRY(comm_agree(comm, convert_own_layers(mla, original, recipe, choice, scores)));
    for (int l = 0; l < shape->n_layers; l++) {
        int64_t first, count;
        params_layer_range(shape, l, &first, &count);
        replica_broadcast(mla, first, count, l % comm->size);
    }
    replica_sync(mla);
    return OK;
}

// The stride between the frequencies of mixed slots whose conversion has the least loss on the
// windows of the scores; the model is then of that stride.
static Status convert_by_stride(Replica *mla, const WeightSource *original,
                                const ConvertRecipe *recipe, int32_t *slots, const char *scores)
{
    const ModelShape *shape = &mla->model.shape;
    const int n = slot_mix_max_stride(shape, shape->rope_pairs);
    double best_loss = INFINITY;
    int best = 1;
    for (int stride = 1; stride <= n; stride++) {
        double loss;
        TRY(spread_uniform(slots, shape, stride));
        TRY(convert_layers(mla, original, recipe, slots, scores));
        if (n == 1)
            return OK;
        TRY(calibration_loss(&loss, mla, scores));
        if (mla->comm->rank == 0)
            log_info("stride %d: loss %.4f", stride, loss);
        if (loss < best_loss) {
            best_loss = loss;
            best = stride;
        }
    }
    if (best == n)
        return OK;
    TRY(spread_uniform(slots, shape, best));
    return convert_layers(mla, original, recipe, slots, scores);
}

Status prepare_layers(Replica *mla, const WeightSource *original, const ConvertRecipe *recipe,
                      const int32_t *choice, const char *scores)
{
    if (!recipe->mixes)
        return convert_layers(mla, original, recipe, choice, scores);
    const int64_t n = model_n_pairs(&mla->model.shape);
    int32_t *slots = malloc((size_t)n * sizeof *slots);
    TRY(comm_agree(mla->comm, slots != NULL ? OK : fail(FAILED, "no memory for slots")));
    memcpy(slots, choice, (size_t)n * sizeof *slots);
    const Status status = convert_by_stride(mla, original, recipe, slots, scores);
    free(slots);
    return status;
}

// The original is in memory again for it, beside the converted model.
static Status refit_prepared(Replica *mla, const Config *config, const Comm *comm, CommGroup *group,
                             const char *scores)
{
    Replica original;
    TRY(prepare_original(&original, config, comm, group));
    const Status status =
        refit_attention(mla, &original.model, scores, config->model.convert.recipe.refit);
    replica_release(&original);
    return status;
}

// The pairs come from the caller because choosing them may need the whole original in memory, which
// is released before this allocates the converted model: two models are never held at once.
Status prepare_converted(Replica *out, const int32_t *pairs, const Config *config, const Comm *comm,
                         CommGroup *group)
{
    const ConvertConfig *convert = &config->model.convert;
    const InitConfig *init = &config->model.init;
    const RandomWeights random = {init->shape, init->initializer_range, (uint64_t)config->run.seed};
    HfSource *files = NULL;
    ModelShape shape;
    Replica mla = {0};
    char scores[PATH_BYTES];
    const double start_s = log_seconds();
    Status status = init->given ? OK : hf_source_open(&files, config->model.base);
    TRY_GOTO(release, comm_agree(comm, status));
    const WeightSource original = init->given ? random_weights(&random) : hf_source_weights(files);
    status = convert_target_shape(&shape, original.shape, &convert->target);
    TRY_GOTO(release, comm_agree(comm, status));
    TRY_GOTO(release, replica_create(&mla, comm, group, &shape));
    TRY_GOTO(release, comm_agree(comm, scores_path(scores, config)));
    TRY_GOTO(release, prepare_layers(&mla, &original, &convert->recipe, pairs, scores));
    if (convert->recipe.method == METHOD_CLOSED)
        TRY_GOTO(release, refit_prepared(&mla, config, comm, group, scores));
    if (files != NULL && !config_reads_original(config)) // which has warned
        hf_source_warn(files, config->model.base);
    log_info("converted %d layers: %.1f s", shape.n_layers, log_seconds() - start_s);
    hf_source_close(files);
    *out = mla;
    return OK;
release:
    hf_source_close(files);
    replica_release(&mla);
    return status;
}
