// The model as it is before the first step: read or random, measured where the selection of RoPE
// pairs needs it, converted layer by layer. All functions that take a Comm are collective. Where
// the ranks of a host share the parameters only the writer fills them (replica_is_writer), so an
// error on it is agreed on before the others read.
#include "train/prepare.h"

#include "base/log.h"
#include "base/progress.h"
#include "data/mixture.h"
#include "data/tokenizer/tokenizer_file.h"
#include "model/convert/convert.h"
#include "model/hf/hf.h"
#include "train/calibrate.h"
#include "train/parallel/watchdog.h"

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

// Reads the training data from its beginning: the calibration samples are those trained on first.
static Status measure_scores(RopeScores *out, const Model *original, const Config *config,
                             const Comm *comm, const char *tokenizer_sha256)
{
    const DataConfig *data = &config->data;
    Mixture *mixture = NULL;
    Status status = mixture_open(
        &mixture, data->sources, data->n_sources, data->seq_len, (uint64_t)config->run.seed,
        tokenizer_sha256[0] != '\0' ? tokenizer_sha256 : NULL, original->shape.vocab_size);
    TRY_GOTO(close_mixture, comm_agree(comm, status));
    const double start_s = log_seconds();
    const int samples = config->model.convert.samples;
    TRY_GOTO(close_mixture, calibrate_run(out, comm, original, mixture, samples, data->seq_len,
                                          config->train.compute));
    log_info("calibration on %d samples of %d tokens: %.1f s", samples, data->seq_len,
             log_seconds() - start_s);
close_mixture:
    mixture_close(mixture);
    return status;
}

// The scores that the 2-norm selection needs: from the file that the config names, or from a
// calibration pass. The other strategies need none and get {0}.
static Status find_scores(RopeScores *out, const Model *original, const ModelShape *shape,
                          const Config *config, const Comm *comm, const char *tokenizer_sha256)
{
    const ConvertConfig *convert = &config->model.convert;
    *out = (RopeScores){0};
    if (convert->rope != ROPE_2NORM)
        return OK;
    if (convert->scores == NULL)
        return measure_scores(out, original, config, comm, tokenizer_sha256);
    return comm_agree(comm, rope_scores_read(out, shape, convert->scores));
}

// Checks the conversion's shape, too: before hours of calibration.
static Status allocate_pairs(int32_t **out, const ModelShape *original,
                             const ConvertConfig *convert)
{
    const int64_t n_heads = (int64_t)original->n_layers * original->n_kv_heads;
    ModelShape shape;
    TRY(shape_convert(&shape, original, convert->rope_pairs, convert->d_kv, convert->svd));
    *out = malloc((size_t)(n_heads * shape.rope_pairs) * sizeof **out);
    return *out != NULL
               ? OK
               : fail(FAILED, "no memory for the RoPE pairs of %lld heads", (long long)n_heads);
}

Status prepare_pairs(int32_t **out, const Model *original, const ModelShape *original_shape,
                     const Config *config, const Comm *comm, const char *tokenizer_sha256)
{
    const ConvertConfig *convert = &config->model.convert;
    RopeScores scores = {0};
    int32_t *pairs = NULL;
    Status status;
    TRY_GOTO(release, comm_agree(comm, allocate_pairs(&pairs, original_shape, convert)));
    TRY_GOTO(release,
             find_scores(&scores, original, original_shape, config, comm, tokenizer_sha256));
    TRY_GOTO(release, comm_agree(comm, rope_select(pairs, original_shape, convert->rope_pairs,
                                                   convert->rope, &scores)));
    *out = pairs;
    pairs = NULL;
release:
    rope_scores_release(&scores);
    free(pairs);
    return status;
}

// Layers l with l mod N = rank. The writer also copies what is in no layer: embedding, final norm,
// head. Not collective.
static Status convert_own_layers(Replica *mla, const WeightSource *original)
{
    const Comm *comm = mla->comm;
    const int n_layers = mla->model.shape.n_layers;
    Status status = OK;
    ProgressMeter meter = progress_start("conversion", "layers", n_layers);
    if (replica_is_writer(mla))
        TRY_GOTO(end, convert_shared(&mla->model, original));
    for (int l = comm->rank; l < n_layers; l += comm->size) {
        TRY_GOTO(end, convert_layer(&mla->model, original, l));
        progress_show(&meter, l - comm->rank + comm->size); // the others are about as far
    }
end:
    progress_end(&meter);
    return status;
}

// Rank l mod N converts layer l and broadcasts it: the work is shared, and all ranks have the same
// bits even where their CPUs run different kernels.
Status prepare_layers(Replica *mla, const WeightSource *original)
{
    const Comm *comm = mla->comm;
    const ModelShape *shape = &mla->model.shape;
    watchdog_phase("convert", 0);
    TRY(comm_agree(comm, convert_own_layers(mla, original)));
    for (int l = 0; l < shape->n_layers; l++) {
        int64_t first, count;
        params_layer_range(shape, l, &first, &count);
        replica_broadcast(mla, first, count, l % comm->size);
    }
    replica_sync(mla);
    return OK;
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
    const double start_s = log_seconds();
    Status status = init->given ? OK : hf_source_open(&files, config->model.base);
    TRY_GOTO(release, comm_agree(comm, status));
    const WeightSource original = init->given ? random_weights(&random) : hf_source_weights(files);
    status =
        shape_convert(&shape, original.shape, convert->rope_pairs, convert->d_kv, convert->svd);
    TRY_GOTO(release, comm_agree(comm, status));
    TRY_GOTO(release, replica_create(&mla, comm, group, &shape));
    memcpy(mla.model.rope_pairs, pairs,
           (size_t)shape.n_layers * (size_t)(shape.n_kv_heads * shape.rope_pairs) * sizeof *pairs);
    TRY_GOTO(release, prepare_layers(&mla, &original));
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
