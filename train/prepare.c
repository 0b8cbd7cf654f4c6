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

Status prepare_tokenizer_sha256(char out[SHA256_HEX_BYTES], const Config *config)
{
    const ModelConfig *model = &config->model;
    const char *dir = model->base != NULL ? model->base : model->init.tokenizer;
    out[0] = '\0';
    return dir == NULL ? OK : tokenizer_file_sha256(out, dir);
}

static Status original_shape(ModelShape *out, const ModelConfig *model)
{
    if (!model->init.given)
        return hf_load_shape(out, model->base);
    *out = model->init.shape;
    return OK;
}

// Values where this rank has to write them, RoPE pairs everywhere.
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
    // Those who only read along have nothing to say of what the writers all find.
    status = comm_agree_of(comm, replica_is_writer(&replica) || status != OK, status);
    if (status != OK) {
        replica_release(&replica);
        return status;
    }
    replica_sync(&replica);
    *out = replica;
    return OK;
}

static Status measure_scores(RopeScores *out, const Model *original, const Config *config,
                             const Comm *comm, const char *tokenizer_sha256)
{
    const DataConfig *data = &config->data;
    Mixture *mixture = NULL;
    Status status = mixture_open(
        &mixture, data->sources, data->n_sources, data->seq_len, (uint64_t)config->run.seed,
        tokenizer_sha256[0] != '\0' ? tokenizer_sha256 : NULL, original->shape.vocab_size);
    TRY_GOTO(close_mixture, comm_agree(comm, status));
    double start_s = log_seconds();
    int samples = config->model.convert.samples;
    TRY_GOTO(close_mixture, calibrate_run(out, comm, original, mixture, samples, data->seq_len));
    log_info("calibration on %d samples of %d tokens: %.1f s", samples, data->seq_len,
             log_seconds() - start_s);
close_mixture:
    mixture_close(mixture);
    return status;
}

static Status select_pairs(int32_t *pairs, const Model *original, const ModelShape *shape,
                           const Config *config, const Comm *comm, const char *tokenizer_sha256)
{
    const ConvertConfig *convert = &config->model.convert;
    RopeScores scores = {0};
    Status status = OK;
    if (convert->rope == ROPE_2NORM && convert->scores == NULL)
        TRY(measure_scores(&scores, original, config, comm, tokenizer_sha256));
    else if (convert->rope == ROPE_2NORM)
        status = rope_scores_read(&scores, shape, convert->scores);
    if (status == OK)
        status = rope_select(pairs, shape, convert->rope_pairs, convert->rope, &scores);
    rope_scores_release(&scores);
    return comm_agree(comm, status);
}

Status prepare_pairs(int32_t **out, const Model *original, const ModelShape *original_shape,
                     const Config *config, const Comm *comm, const char *tokenizer_sha256)
{
    const ConvertConfig *convert = &config->model.convert;
    const int64_t n_heads = (int64_t)original_shape->n_layers * original_shape->n_kv_heads;
    ModelShape shape;
    int32_t *pairs = NULL;
    Status status =
        shape_convert(&shape, original_shape, convert->rope_pairs, convert->d_kv, convert->svd);
    if (status == OK) {
        pairs = malloc((size_t)(n_heads * shape.rope_pairs) * sizeof *pairs);
        if (pairs == NULL)
            status = fail(FAILED, "no memory for the RoPE pairs of %lld heads", (long long)n_heads);
    }
    TRY_GOTO(free_pairs, comm_agree(comm, status));
    TRY_GOTO(free_pairs,
             select_pairs(pairs, original, original_shape, config, comm, tokenizer_sha256));
    *out = pairs;
    return OK;
free_pairs:
    free(pairs);
    return status;
}

// Rank l mod N converts layer l and hands it to the others, so that all have the same bits.
Status prepare_layers(Replica *mla, const WeightSource *original)
{
    const Comm *comm = mla->comm;
    const ModelShape *shape = &mla->model.shape;
    ProgressMeter meter = progress_start("conversion", "layers", shape->n_layers);
    Status status = replica_is_writer(mla) ? convert_shared(&mla->model, original) : OK;
    for (int l = comm->rank; l < shape->n_layers && status == OK; l += comm->size) {
        watchdog_phase("convert", 0);
        status = convert_layer(&mla->model, original, l);
        progress_show(&meter, l - comm->rank + comm->size); // the others are about as far
    }
    progress_end(&meter);
    TRY(comm_agree(comm, status));
    for (int l = 0; l < shape->n_layers; l++) {
        int64_t first, count;
        params_layer_range(shape, l, &first, &count);
        replica_broadcast(mla, first, count, l % comm->size);
    }
    replica_sync(mla);
    return OK;
}

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
        hf_source_warn_unused(files, config->model.base);
    log_info("converted %d layers: %.1f s", shape.n_layers, log_seconds() - start_s);
    hf_source_close(files);
    *out = mla;
    return OK;
release:
    hf_source_close(files);
    replica_release(&mla);
    return status;
}
