// A layer's tensors are read from their source to their final place. Queries, keys and values are
// read to scratch first, since their rows are reordered and factorized.
#include "model/convert/convert.h"

#include "model/convert/closed_form.h"
#include "model/convert/factorize.h"
#include "model/convert/pair_choice.h"
#include "model/convert/shared_layer.h"
#include "model/convert/slot_mix.h"
#include "model/convert/slots.h"
#include "model/convert/whitening.h"
#include "model/head_rows.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

// Key rows [K E, D] -> kept ones k_r [K 2P, D] and those to factorize k_c [K (E - 2P), D].
static void divide_keys(float *k_r, float *k_c, const Model *mla, const float *k, int layer,
                        int *rows, int D)
{
    const ModelShape *s = &mla->shape;
    int E = s->head_dim, n_rope = 2 * s->rope_pairs, n_nope = E - n_rope;
    for (int h = 0; h < s->n_kv_heads; h++) {
        const float *head = k + (int64_t)h * E * D;
        head_rows_order(rows, model_pairs(mla, layer, h), s->rope_pairs, E);
        head_rows_gather(k_r + (int64_t)h * n_rope * D, head, rows, n_rope, D);
        head_rows_gather(k_c + (int64_t)h * n_nope * D, head, rows + n_rope, n_nope, D);
    }
}

// Rows of keys that are factorized: K (E - 2P), or in the shared form K E, those of the slots zero.
static int key_rows(const ModelShape *s)
{
    return s->n_kv_heads * shape_head_nope(s);
}

// A covariance, if not NULL, is the norm that rows are factorized in.
static Status factorize_rows(float *up, float *down, const float *rows, const double *covariance,
                             int m, int D, int R)
{
    return covariance != NULL ? whitening_factorize(up, down, rows, covariance, m, D, R)
                              : factorize(up, down, rows, m, D, R);
}

// kv: key_rows() of W_kc, then the K E of W_v.
static Status factorize_layer(LayerParams *to, const ModelShape *s, const float *kv,
                              const double *covariance)
{
    int D = s->d_model, R1 = shape_dim(s, DIM_UP_INPUT);
    int rows_k = key_rows(s), rows_v = shape_dim(s, DIM_KV);
    if (s->svd == SVD_JOINT) {
        // up_k and up_v are neighbours in the flat vector (model/params.h): one matrix.
        float *up = rows_k > 0 ? to->up_k : to->up_v;
        return factorize_rows(up, to->down_kv, kv, covariance, rows_k + rows_v, D, R1);
    }
    TRY(factorize_rows(to->up_k, to->down_kv, kv, covariance, rows_k, D, R1));
    return factorize_rows(to->up_v, to->down_kv + (int64_t)R1 * D, kv + (int64_t)rows_k * D,
                          covariance, rows_v, D, R1);
}

static void scale_rows(float *values, int64_t count, double factor)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(values[i] * factor);
}

// The factor of the keys' rows: with a weight of 0 keys and values get the same root mean square,
// as TransMLA balances them.
static Status find_key_root(double *root, const ModelShape *s, const float *kv,
                            const double *covariance, double key_weight)
{
    double keys, values;
    *root = sqrt(key_weight);
    if (key_weight > 0)
        return OK;
    TRY(whitening_rms(&keys, kv, covariance, key_rows(s), s->d_model));
    TRY(whitening_rms(&values, kv + (int64_t)key_rows(s) * s->d_model, covariance,
                      shape_dim(s, DIM_KV), s->d_model));
    // Keys that are all rotated leave rounding, which is not to be balanced.
    *root = keys > 1e-4 * values && values > 0 ? values / keys : 1;
    return OK;
}

// Keys are smaller while they are factorized by the root of their weight.
static Status factorize_whitened(LayerParams *to, const ModelShape *s, float *kv,
                                 const double *covariance, double key_weight)
{
    const int64_t rows_k = key_rows(s);
    double root;
    TRY(find_key_root(&root, s, kv, covariance, key_weight));
    scale_rows(kv, rows_k * s->d_model, root);
    TRY(factorize_layer(to, s, kv, covariance));
    scale_rows(kv, rows_k * s->d_model, 1 / root);
    scale_rows(to->up_k, rows_k * shape_dim(s, DIM_UP_INPUT), 1 / root);
    return OK;
}

// The original's tensors that MLA replaces, in one arena.
typedef struct Scratch {
    float *q;      // [H E, D] queries, then keys [K E, D]: these are not more
    float *kv;     // [key_rows() + K E, D] what is factorized
    double *maps;  // [H, 2, E/2] what queries take in (closed)
    int *rows;     // [E] of head_rows_order()
    int32_t *kept; // [E/2] pairs of a KV head
    float *bias;   // [K E + H E] of queries or keys, and of keys' other rows
    float *v_bias; // [K E]
    SlotMix mix;   // of recipes that mix
} Scratch;

static void place_scratch(Scratch *scratch, Arena *arena, const ModelShape *s,
                          const ConvertRecipe *recipe)
{
    scratch->q = arena_floats(arena, (int64_t)shape_dim(s, DIM_Q) * s->d_model);
    scratch->kv = arena_floats(arena, (int64_t)(key_rows(s) + shape_dim(s, DIM_KV)) * s->d_model);
    scratch->maps = arena_place(arena, shape_dim(s, DIM_Q), sizeof *scratch->maps);
    scratch->rows = arena_place(arena, s->head_dim, sizeof *scratch->rows);
    scratch->kept = arena_place(arena, s->head_dim / 2, sizeof *scratch->kept);
    scratch->bias = arena_floats(arena, shape_dim(s, DIM_KV_BIAS) + shape_dim(s, DIM_Q_BIAS));
    scratch->v_bias = arena_floats(arena, shape_dim(s, DIM_KV_BIAS));
    if (recipe->mixes)
        slot_mix_place(&scratch->mix, arena, s);
}

static void factorize_rows_measure(Arena *arena, bool is_whitened, int m, int D, int R)
{
    if (is_whitened)
        whitening_measure(arena, m, D, R);
    else
        factorize_measure(arena, m, D, R);
}

void convert_measure(Arena *arena, const ModelShape *s, const ConvertRecipe *recipe, int n_pools)
{
    Scratch scratch;
    int D = s->d_model, R1 = shape_dim(s, DIM_UP_INPUT);
    int rows_k = key_rows(s), rows_v = shape_dim(s, DIM_KV);
    const bool is_whitened = recipe_needs_statistics(recipe);
    int64_t mark = arena->used_bytes;
    place_scratch(&scratch, arena, s, recipe);
    if (s->svd == SVD_JOINT) {
        factorize_rows_measure(arena, is_whitened, rows_k + rows_v, D, R1);
    } else {
        factorize_rows_measure(arena, is_whitened, rows_k, D, R1);
        factorize_rows_measure(arena, is_whitened, rows_v, D, R1);
    }
    if (is_whitened)
        whitening_rms_measure(arena, D);
    if (shape_is_shared(s))
        shared_layer_measure(arena, s);
    if (recipe->method == METHOD_CLOSED) {
        pair_choice_measure(arena, s->head_dim / 2);
        closed_form_measure(arena, s, n_pools);
    }
    arena_rewind(arena, mark);
}

// The place in the converted model of a tensor that both models have: all but those that
// attention's input is multiplied by.
static float *place_of(const Model *mla, const char *name)
{
    ParamInfo info;
    CHECK(params_find(&info, &mla->shape, name), "%s: not in the converted model", name);
    return mla->params.flat + info.offset;
}

// q [H E, D] <- the maps of its heads times q: pair p's rows become b1 q_1 + b2 q_2 and
// b1 q_2 - b2 q_1.
static void absorb_maps(float *q, const double *maps, const ModelShape *s)
{
    const int E = s->head_dim, half = E / 2, D = s->d_model;
    for (int64_t h = 0; h < s->n_heads; h++)
        for (int64_t p = 0; p < half; p++) {
            float *first = q + (h * E + p) * D, *second = first + (int64_t)half * D;
            const double b1 = maps[h * E + p], b2 = maps[h * E + half + p];
            for (int d = 0; d < D; d++) {
                const double a = first[d], b = second[d];
                first[d] = (float)(b1 * a + b2 * b);
                second[d] = (float)(b1 * b - b2 * a);
            }
        }
}

// What a layer is made of and into.
typedef struct LayerJob {
    Model *mla;
    const WeightSource *original;
    const ConvertRecipe *recipe;
    const int32_t *slots; // [P] of the shared form, or NULL
    LayerStatistics *statistics;
    int layer;
} LayerJob;

// The maps of all query heads for the pairs that the model keeps.
static Status find_maps(Scratch *scratch, const LayerJob *job)
{
    const ModelShape *s = &job->mla->shape;
    const int64_t E = s->head_dim, S = statistics_features(s);
    PairChoice choice;
    TRY(pair_choice_start(&choice, s->head_dim / 2));
    for (int h = 0; h < s->n_heads; h++) {
        const int kv_head = h / (s->n_heads / s->n_kv_heads);
        const int32_t *kept = scratch->kept;
        int n = s->rope_pairs;
        if (job->recipe->mixes)
            slots_pairs(scratch->kept, job->slots, n, s); // all heads keep all of them
        else if (shape_is_shared(s))
            n = slots_of_kv_head(scratch->kept, job->slots, n, kv_head, s);
        else
            kept = model_pairs(job->mla, job->layer, kv_head);
        pair_choice_map(scratch->maps + h * E, &choice, job->statistics->gram + h * S * S, kept, n,
                        true);
    }
    pair_choice_end(&choice);
    return OK;
}

// The shape of matrices with D columns: a bias is one more column of its matrix, and goes where the
// rows go.
static ModelShape shape_of_columns(const LayerJob *job, int D)
{
    ModelShape s = job->mla->shape;
    s.d_model = D;
    return s;
}

// The converted rows of queries, [.., D]; those that slots mix follow from the keys.
static void sort_queries(float *to, const float *from, const LayerJob *job, Scratch *scratch, int D)
{
    const ModelShape s = shape_of_columns(job, D);
    const int64_t rotated = (int64_t)s.n_heads * 2 * s.rope_pairs * D;
    const int64_t all = (int64_t)shape_dim(&s, DIM_QUERY) * D;
    if (job->recipe->mixes) {
        slot_mix_queries(to, from, &scratch->mix, job->slots, &s);
        memcpy(to + rotated, from, (size_t)(all - rotated) * sizeof *to);
    } else if (shape_is_shared(&s)) {
        shared_layer_queries(to, from, job->slots, &s);
    } else {
        head_rows_queries(to, job->mla, from, job->layer, D, scratch->rows);
    }
}

// Kept rows of keys [.., D]; what is left of `keys` is there afterwards, per head in k_c.
static void sort_keys(float *k_r, float *k_c, float *keys, const LayerJob *job, Scratch *scratch,
                      int D)
{
    const ModelShape s = shape_of_columns(job, D);
    if (job->recipe->mixes)
        slot_mix_keys(k_r, keys, &scratch->mix, job->slots, &s);
    else if (shape_is_shared(&s))
        shared_layer_keys(k_r, keys, job->slots, &s);
    else
        divide_keys(k_r, k_c, job->mla, keys, job->layer, scratch->rows, D);
}

static void put_queries(const LayerJob *job, Scratch *scratch)
{
    const ModelShape *s = &job->mla->shape;
    if (job->recipe->method == METHOD_CLOSED)
        absorb_maps(scratch->q, scratch->maps, s);
    if (!job->recipe->mixes)
        sort_queries(job->mla->params.layers[job->layer].q, scratch->q, job, scratch, s->d_model);
}

// Where slots mix heads also queries, which scratch->q still has.
static void put_keys(const LayerJob *job, Scratch *scratch)
{
    const ModelShape *s = &job->mla->shape;
    const LayerParams *to = &job->mla->params.layers[job->layer];
    if (job->recipe->mixes)
        slot_mix_find(&scratch->mix, scratch->kv, job->statistics->covariance,
                      job->statistics->query, job->slots, s);
    sort_keys(to->k_r, scratch->kv, shape_is_shared(s) ? scratch->kv : scratch->q, job, scratch,
              s->d_model);
    if (job->recipe->mixes)
        sort_queries(to->q, scratch->q, job, scratch, s->d_model);
}

static void put_query_bias(const LayerJob *job, Scratch *scratch)
{
    const ModelShape s = shape_of_columns(job, 1);
    if (job->recipe->method == METHOD_CLOSED)
        absorb_maps(scratch->bias, scratch->maps, &s);
    sort_queries(job->mla->params.layers[job->layer].q_bias, scratch->bias, job, scratch, 1);
}

// That of rows which are not rotated adds the same to all scores of a query, which the softmax
// takes away again.
static void put_key_bias(const LayerJob *job, Scratch *scratch)
{
    float *others = scratch->bias + shape_dim(&job->mla->shape, DIM_KV_BIAS);
    sort_keys(job->mla->params.layers[job->layer].k_r_bias, others, scratch->bias, job, scratch, 1);
}

// The weights of a softmax add up to 1, so the values' bias comes out of it as it is: o_bias += W_o
// b_v.
static void add_value_bias(const LayerJob *job, const Scratch *scratch)
{
    const ModelShape *s = &job->mla->shape;
    const LayerParams *to = &job->mla->params.layers[job->layer];
    const int E = s->head_dim, Q = shape_dim(s, DIM_Q), G = s->n_heads / s->n_kv_heads;
    for (int64_t d = 0; d < s->d_model; d++) {
        double sum = to->o_bias[d];
        for (int i = 0; i < Q; i++)
            sum += (double)to->o[d * Q + i] * (double)scratch->v_bias[i / E / G * E + i % E];
        to->o_bias[d] = (float)sum;
    }
}

#define FIELD(member) offsetof(LayerParams, member)

// Where a tensor of the original is read to: its place in the converted model, or scratch.
static float *target_of(const ParamInfo *info, const LayerJob *job, const Scratch *scratch)
{
    const ModelShape *s = &job->mla->shape;
    const struct {
        size_t field;
        float *to;
    } targets[] = {
        {FIELD(q), scratch->q},
        {FIELD(k), shape_is_shared(s) ? scratch->kv : scratch->q},
        {FIELD(v), scratch->kv + (int64_t)key_rows(s) * s->d_model},
        {FIELD(q_bias), scratch->bias},
        {FIELD(k_bias), scratch->bias},
        {FIELD(v_bias), scratch->v_bias},
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (info->field == targets[i].field)
            return targets[i].to;
    return place_of(job->mla, info->name);
}

// Tensors come one by one in the order of the original's table, q before k before v, biases behind
// all matrices: scratch->q is free for the keys once the queries are reordered. In the shared form
// keys stay where they are.
static Status read_layer(const LayerJob *job, Scratch *scratch)
{
    const ModelShape *s = &job->mla->shape, *original = job->original->shape;
    const LayerParams *to = &job->mla->params.layers[job->layer];
    if (to->o_bias != NULL) // which the original may not have
        memset(to->o_bias, 0, (size_t)s->d_model * sizeof(float));
    for (int i = 0; i < params_n_tensors(original); i++) {
        const ParamInfo info = params_info(original, i);
        if (info.layer != job->layer)
            continue;
        TRY(weight_source_read(job->original, &info, target_of(&info, job, scratch)));
        if (info.field == FIELD(q))
            put_queries(job, scratch);
        else if (info.field == FIELD(k))
            put_keys(job, scratch);
        else if (info.field == FIELD(q_bias))
            put_query_bias(job, scratch);
        else if (info.field == FIELD(k_bias))
            put_key_bias(job, scratch);
    }
    if (to->o_bias != NULL)
        add_value_bias(job, scratch);
    return OK;
}

// Only attention may differ.
static void check_pair(const Model *mla, const WeightSource *original)
{
    const ModelShape *a = &mla->shape, *b = original->shape;
    CHECK(shape_is_mla(a) && !shape_is_mla(b), "d_kv %d from %d", a->d_kv, b->d_kv);
    // shape_convert() made the one from the other, so a difference is our fault.
    CHECK(a->n_layers == b->n_layers && a->d_model == b->d_model && a->n_heads == b->n_heads &&
              a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim &&
              a->d_ffn == b->d_ffn && a->vocab_size == b->vocab_size &&
              a->tied_head == b->tied_head,
          "the models differ in more than their attention");
}

// The tensors outside the layers: embedding, last norm and head.
Status convert_outside_layers(Model *mla, const WeightSource *original)
{
    check_pair(mla, original);
    for (int i = 0; i < params_n_tensors(original->shape); i++) {
        ParamInfo info = params_info(original->shape, i);
        if (info.layer < 0)
            TRY(weight_source_read(original, &info, place_of(mla, info.name)));
    }
    return OK;
}

// The low-rank part by the methods that factorize once.
static Status factorize_once(const LayerJob *job, Scratch *scratch)
{
    const ModelShape *s = &job->mla->shape;
    LayerParams *to = &job->mla->params.layers[job->layer];
    const double *covariance = NULL;
    if (job->recipe->method == METHOD_PAPER) {
        TRY(factorize_layer(to, s, scratch->kv, NULL));
    } else {
        covariance = job->statistics->covariance;
        TRY(factorize_whitened(to, s, scratch->kv, covariance, job->recipe->key_weight));
    }
    if (!shape_is_shared(s))
        return OK;
    if (!job->recipe->mixes)
        TRY(shared_layer_fit(to->up_k, to->k_r, to->down_kv, covariance, job->slots, s));
    shared_layer_expand(to, s);
    return OK;
}

// The norm divides every latent by its root mean square; its weights multiply with what that is
// over all tokens, so that a token of usual size keeps its latent.
static Status start_latent_norm(const LayerJob *job)
{
    const ModelShape *s = &job->mla->shape;
    LayerParams *to = &job->mla->params.layers[job->layer];
    double size = 1; // the closed form's latent is normalized
    if (!s->latent_norm)
        return OK;
    if (job->recipe->method == METHOD_WHITENED)
        TRY(whitening_rms(&size, to->down_kv, job->statistics->covariance, s->latent, s->d_model));
    if (job->recipe->method == METHOD_PAPER)
        size = cblas_snrm2(s->latent * s->d_model, to->down_kv, 1) / sqrt(s->latent);
    for (int i = 0; i < s->latent; i++)
        to->latent_norm[i] = size > 0 ? (float)size : 1;
    return OK;
}

// From the tensors in scratch to the low-rank part.
static Status factorize_by(const LayerJob *job, Scratch *scratch)
{
    const ModelShape *s = &job->mla->shape;
    LayerParams *to = &job->mla->params.layers[job->layer];
    TRY(factorize_once(job, scratch));
    if (job->recipe->method != METHOD_CLOSED)
        return OK;
    const bool has_rows = shape_is_shared(s) && !job->recipe->mixes; // of slots among the keys
    if (has_rows)
        shared_layer_restore_keys(scratch->kv, to->k_r, job->slots, s);
    const ClosedForm form = {.shape = s,
                             .pairs = model_pairs(job->mla, job->layer, 0),
                             .slots = has_rows ? job->slots : NULL,
                             .maps = scratch->maps,
                             .kv = scratch->kv,
                             .o = to->o,
                             .statistics = job->statistics,
                             .key_weight = job->recipe->key_weight};
    return closed_form_layer(to, &form);
}

static Status convert_in(Scratch *scratch, const LayerJob *job)
{
    if (job->recipe->method == METHOD_CLOSED)
        TRY(find_maps(scratch, job));
    TRY(read_layer(job, scratch));
    Status status = factorize_by(job, scratch);
    if (status == OK)
        status = start_latent_norm(job);
    // What factorizes knows no layers; errors of the source name their tensor.
    return status == OK ? OK : fail_within(status, "layer %d", job->layer);
}

Status convert_layer(Model *mla, const WeightSource *original, int layer,
                     const ConvertRecipe *recipe, const int32_t *slots, LayerStatistics *statistics)
{
    const ModelShape *s = &mla->shape;
    const LayerJob job = {mla, original, recipe, slots, statistics, layer};
    Scratch scratch;
    check_pair(mla, original);
    CHECK(!recipe_needs_statistics(recipe) || statistics != NULL, "no statistics of layer %d",
          layer);
    CHECK(shape_is_shared(s) == (slots != NULL), "slots of layer %d", layer);
    Arena arena = arena_start("conversion");
    place_scratch(&scratch, &arena, s, recipe);
    if (arena_allocate(&arena) != OK)
        return fail(FAILED, "layer %d: no memory for its attention's weights", layer);
    place_scratch(&scratch, &arena, s, recipe);
    const Status status = convert_in(&scratch, &job);
    arena_release(&arena);
    return status;
}
