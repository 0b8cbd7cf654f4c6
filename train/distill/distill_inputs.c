// Each layer's checksum covers that of the layer below, and with it everything that its inputs were
// made from.
#include "train/distill/distill_inputs.h"

#include "base/log.h"
#include "base/progress.h"
#include "model/shape_fields.h"
#include "train/distill/distill_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 4096 };

// sha256 = of itself, and of these numbers.
static Status extend(char sha256[SHA256_HEX_BYTES], const void *numbers, int64_t size_bytes)
{
    char both[2 * SHA256_HEX_BYTES];
    memcpy(both, sha256, SHA256_HEX_BYTES);
    progress_beat();
    TRY(checksum_sha256_bytes(both + SHA256_HEX_BYTES, numbers, size_bytes));
    return checksum_sha256_bytes(sha256, both, sizeof both);
}

// Everything that is no tensor. Which KV head keeps which pairs is in the last of them.
static Status start(char sha256[SHA256_HEX_BYTES], const DistillRequest *request, const Model *mla)
{
    const DistillConfig *config = request->config;
    char text[TEXT_BYTES], value[SHAPE_TEXT_BYTES];
    int length =
        snprintf(text, sizeof text,
                 "distill 4: steps %d, windows %d of %d, rho %.17g, lr %.17g, layers %d, "
                 "seed %llu, compute %d",
                 config->steps, config->windows, request->T, config->rho, config->lr,
                 (int)config->layers, (unsigned long long)request->seed, (int)request->compute);
    for (int i = 0; i < N_SHAPE_FIELDS && length < TEXT_BYTES; i++)
        length += snprintf(text + length, (size_t)(TEXT_BYTES - length), ", %s",
                           shape_field_format(value, &shape_fields[i], &mla->shape));
    TRY(checksum_sha256_bytes(sha256, text, (int64_t)strlen(text)));
    return extend(sha256, request->tokens,
                  (int64_t)config->windows * request->T * (int64_t)sizeof *request->tokens);
}

static Status add_embedding(char sha256[SHA256_HEX_BYTES], const Model *model)
{
    const ModelShape *s = &model->shape;
    return extend(sha256, model->params.embed,
                  (int64_t)s->vocab_size * s->d_model * (int64_t)sizeof(float));
}

static Status add_layer(char sha256[SHA256_HEX_BYTES], const Model *model, int layer)
{
    const ModelShape *s = &model->shape;
    int64_t first, count;
    params_layer_range(s, layer, &first, &count);
    TRY(extend(sha256, model_pairs(model, layer, 0),
               (int64_t)shape_rope_heads(s) * s->rope_pairs * (int64_t)sizeof(int32_t)));
    return extend(sha256, model->params.flat + first, count * (int64_t)sizeof(float));
}

static Status find_fingerprints(DistillInputs *out, const DistillRequest *request,
                                const Model *const models[2])
{
    const int n_layers = models[0]->shape.n_layers;
    char sha256[SHA256_HEX_BYTES];
    out->fingerprints = malloc((size_t)n_layers * sizeof *out->fingerprints);
    if (out->fingerprints == NULL)
        return fail(FAILED, "no memory for %d layers", n_layers);
    TRY(start(sha256, request, models[1]));
    for (int i = 0; i < 2; i++)
        TRY(add_embedding(sha256, models[i]));
    for (int layer = 0; layer < n_layers; layer++) {
        for (int i = 0; i < 2; i++)
            TRY(add_layer(sha256, models[i], layer));
        memcpy(out->fingerprints[layer], sha256, sizeof sha256);
    }
    return OK;
}

static void find_done(DistillInputs *out, const DistillRequest *request, const Model *mla)
{
    const bool is_apart = request->config->layers == DISTILL_APART;
    const int n_layers = mla->shape.n_layers;
    const LayerParams *layers = mla->params.layers;
    LayerLosses losses;
    for (int layer = 0; layer < n_layers; layer++) {
        const int64_t count = layers[layer].ffn_norm - layers[layer].attn_norm;
        out->is_done[layer] = distill_state_read(NULL, &losses, request->state_dir, layer,
                                                 out->fingerprints[layer], count);
        if (!out->is_done[layer] && !is_apart)
            return;
    }
}

Status distill_inputs_find(DistillInputs *out, const DistillRequest *request, const Model *original,
                           const Replica *mla)
{
    const Comm *comm = mla->comm;
    const Model *const models[] = {original, &mla->model};
    const int n_layers = original->shape.n_layers;
    if (request->state_dir == NULL)
        return OK;
    out->is_done = calloc((size_t)n_layers, sizeof *out->is_done);
    Status status = out->is_done != NULL ? OK : fail(FAILED, "no memory for %d layers", n_layers);
    if (status == OK && comm->rank == 0)
        status = find_fingerprints(out, request, models);
    TRY(comm_agree(comm, status));
    if (comm->rank == 0)
        find_done(out, request, &mla->model);
    comm_broadcast(comm, out->is_done, n_layers * (int64_t)sizeof *out->is_done, 0);
    for (int layer = 0; layer < n_layers; layer++)
        out->n_done += out->is_done[layer];
    if (out->n_done > 0)
        log_info("distillation: %d of %d layers are there already, in %s", out->n_done, n_layers,
                 request->state_dir);
    return OK;
}

void distill_inputs_release(DistillInputs *inputs)
{
    free(inputs->fingerprints);
    free(inputs->is_done);
    *inputs = (DistillInputs){0};
}
