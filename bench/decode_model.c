// Models for bench_decode. Shapes are written out here, as a benchmark must not depend on a model's
// files; positions are as many as any test asks for.
#include "bench/decode_run.h"

#include "model/convert/convert_target.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POSITIONS = 1 << 20 };

// Latents keep an eighth of a head's dims under RoPE, as in the paper's tables.
static const struct {
    const char *name;
    ModelShape shape;
    int rope_pairs, d_kv[4];
} shapes[] = {
    {"smollm-135m",
     {30, 576, 9, 3, 64, 1536, 49152, POSITIONS, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     4,
     {0, 32, 16, 8}},
    {"smollm-1.7b",
     {24, 2048, 32, 32, 64, 8192, 49152, POSITIONS, 32, 0, SVD_JOINT, true, 1e4, 1e-5},
     4,
     {0, 32, 16, 8}},
    {"llama-2-7b",
     {32, 4096, 32, 32, 128, 11008, 32000, POSITIONS, 64, 0, SVD_JOINT, false, 1e4, 1e-5},
     8,
     {0, 64, 32, 16}},
};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static Status find_shape(int *out, const char *name)
{
    for (int i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0) {
            *out = i;
            return OK;
        }
    return fail(BAD_INPUT, "bench_decode: unknown shape '%s'; there are %s, %s, %s", name,
                shapes[0].name, shapes[1].name, shapes[2].name);
}

Status decode_model_widths(int d_kv[4], const char *shape)
{
    int index;
    TRY(find_shape(&index, shape));
    memcpy(d_kv, shapes[index].d_kv, sizeof shapes[index].d_kv);
    return OK;
}

// More slots than pairs of a head: several of each.
static int max_pairs(const ModelShape *shape)
{
    const int half = shape->head_dim / 2;
    return shape->rope_pairs > half ? shape->rope_pairs : half;
}

// Every KV head keeps its first pairs: which ones makes no difference to the time.
static int32_t *first_pairs(const ModelShape *shape)
{
    const int P = shape->rope_pairs;
    const int64_t count = model_n_pairs(shape);
    int32_t *pairs = malloc((size_t)count * sizeof *pairs);
    for (int64_t i = 0; pairs != NULL && i < count; i++)
        pairs[i] = (int32_t)(i % P * (shape->head_dim / 2) / max_pairs(shape));
    return pairs;
}

static void describe(DecodeModel *model, const char *name)
{
    const ModelShape *s = &model->weights.shape;
    char layers[32] = "", latent[48] = "";
    for (int i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0 && shapes[i].shape.n_layers != s->n_layers)
            snprintf(layers, sizeof layers, ", %d layer%s", s->n_layers,
                     s->n_layers == 1 ? "" : "s");
    if (shape_is_shared(s))
        snprintf(latent, sizeof latent, ", P %d, R %d", s->rope_pairs, s->latent);
    else if (shape_is_mla(s))
        snprintf(latent, sizeof latent, ", d_kv %d", s->d_kv);
    snprintf(model->name, sizeof model->name, "%s%s%s", name, layers, latent);
    model->n_params = params_count(s);
}

static Status convert(ModelShape *shape, int rope_pairs, int d_kv, bool is_shared)
{
    const ConvertTarget per_head = {.rope_pairs = rope_pairs, .d_kv = d_kv},
                        shared = {.form = FORM_SHARED,
                                  .latent_norm = true,
                                  .cache = (2.0 * rope_pairs + d_kv) / (2.0 * shape->head_dim)};
    return convert_target_shape(shape, shape, is_shared ? &shared : &per_head);
}

Status decode_model_make(DecodeModel *out, const char *name, int n_layers, int d_kv, bool is_shared,
                         DType dtype)
{
    int index;
    RandomWeights random = {.std = 0.02, .seed = 1};
    DecodeModel model = {0};
    TRY(find_shape(&index, name));
    random.shape = shapes[index].shape;
    if (n_layers > 0)
        random.shape.n_layers = n_layers;
    if (d_kv > 0)
        TRY(convert(&random.shape, shapes[index].rope_pairs, d_kv, is_shared));
    int32_t *pairs = first_pairs(&random.shape);
    if (pairs == NULL)
        return fail(FAILED, "bench_decode: no memory for RoPE pairs");
    const WeightSource source = random_weights(&random);
    const Status status =
        infer_weights_read(&model.weights, &source, pairs, dtype, COMPUTE_FLOAT32);
    free(pairs);
    TRY(status);
    describe(&model, name);
    *out = model;
    return OK;
}

Status decode_model_load(DecodeModel *out, const char *dir)
{
    DecodeModel model = {0};
    TRY(infer_weights_load(&model.weights, dir, COMPUTE_FLOAT32));
    // The last name of the path is what tells models apart.
    const char *slash = strrchr(dir, '/');
    describe(&model, slash != NULL && slash[1] != '\0' ? slash + 1 : dir);
    *out = model;
    return OK;
}

void decode_model_release(DecodeModel *model)
{
    infer_weights_release(&model->weights);
    *model = (DecodeModel){0};
}
