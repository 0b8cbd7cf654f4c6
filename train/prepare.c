#include "train/prepare.h"

#include "base/log.h"
#include "base/progress.h"
#include "data/mixture.h"
#include "data/tokenizer_file.h"
#include "model/convert.h"
#include "model/hf.h"
#include "train/calibrate.h"
#include "train/stall.h"

Status prepare_tokenizer_sha256(char out[SHA256_HEX_BYTES], const Config *config)
{
    const ModelConfig *model = &config->model;
    const char *dir = model->base != NULL ? model->base : model->init.tokenizer;
    out[0] = '\0';
    return dir == NULL ? OK : tokenizer_file_sha256(out, dir);
}

Status prepare_original(Model *out, const Config *config, const Comm *comm)
{
    const InitConfig *init = &config->model.init;
    Model model = {0};
    Status status;
    stall_phase("load", 0);
    if (init->given) {
        status = model_create(&model, &init->shape);
        if (status == OK)
            model_init_random(&model, init->initializer_range, (uint64_t)config->run.seed);
    } else {
        status = hf_load(&model, config->model.base);
    }
    status = comm_agree(comm, status);
    if (status == OK)
        *out = model;
    else
        model_release(&model);
    return status;
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

static Status choose_pairs(Model *mla, const Model *original, const Config *config,
                           const Comm *comm, const char *tokenizer_sha256)
{
    const ConvertConfig *convert = &config->model.convert;
    RopeScores scores = {0};
    Status status = OK;
    if (convert->rope == ROPE_2NORM && convert->scores == NULL)
        TRY(measure_scores(&scores, original, config, comm, tokenizer_sha256));
    else if (convert->rope == ROPE_2NORM)
        status = rope_scores_read(&scores, &original->shape, convert->scores);
    if (status == OK)
        status = rope_select(mla->rope_pairs, &mla->shape, mla->shape.rope_pairs, convert->rope,
                             &scores);
    rope_scores_release(&scores);
    return comm_agree(comm, status);
}

// Rank l mod N converts layer l and hands it to the others, so that all have the same bits.
static Status convert_layers(Model *mla, const Model *original, const Comm *comm)
{
    double start_s = log_seconds();
    ProgressMeter meter = progress_start("conversion", "layers", mla->shape.n_layers);
    Status status = convert_shared(mla, original);
    for (int l = comm->rank; l < mla->shape.n_layers && status == OK; l += comm->size) {
        stall_phase("convert", 0);
        status = convert_layer(mla, original, l);
        progress_show(&meter, l - comm->rank + comm->size); // the others are about as far
    }
    progress_end(&meter);
    TRY(comm_agree(comm, status));
    for (int l = 0; l < mla->shape.n_layers; l++) {
        int64_t first, count;
        params_layer_range(&mla->shape, l, &first, &count);
        comm_broadcast(comm, mla->params.flat + first, count * (int64_t)sizeof(float),
                       l % comm->size);
    }
    log_info("converted %d layers: %.1f s", mla->shape.n_layers, log_seconds() - start_s);
    return OK;
}

Status prepare_converted(Model *model, const Config *config, const Comm *comm,
                         const char *tokenizer_sha256)
{
    const ConvertConfig *convert = &config->model.convert;
    ModelShape shape;
    Model mla = {0};
    Status status =
        shape_convert(&shape, &model->shape, convert->rope_pairs, convert->d_kv, convert->svd);
    if (status == OK)
        status = model_create(&mla, &shape);
    TRY_GOTO(release_mla, comm_agree(comm, status));
    TRY_GOTO(release_mla, choose_pairs(&mla, model, config, comm, tokenizer_sha256));
    TRY_GOTO(release_mla, convert_layers(&mla, model, comm));
    model_release(model);
    *model = mla;
    return OK;
release_mla:
    model_release(&mla);
    return status;
}
