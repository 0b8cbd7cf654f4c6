// Sums over windows are exact (model/convert/exact_sum.h): outputs are scaled by the powers of two
// above their largest values, which the ranks agree on first.
#include "train/refit.h"

#include "base/progress.h"
#include "eval/forward_pass.h"
#include "model/convert/exact_sum.h"
#include "model/convert/refit/query_fit.h"
#include "model/convert/refit/ridge.h"
#include "model/convert/statistics_file.h"
#include "model/kernels/rmsnorm.h"
#include "train/parallel/watchdog.h"
#include "train/stop.h"

#include <omp.h>
#include <string.h>

// A rank's part: window i belongs to rank i mod N. [0] is the converted model, [1] the original.
typedef struct Refit {
    const Comm *comm;       // borrowed
    const Model *models[2]; // borrowed
    int n_windows, n_own, T;
    RefitParts parts;
    ForwardPass passes[2]; // owned
    QueryFit queries;      // owned, with REFIT_ALL; of all windows
    Arena arena;           // owns what follows
    float *inv_rms;        // [T]
    int32_t *tokens;       // [n_windows, T]
    float *x;              // [n_own, T, D] input of the layer at hand
    float *heads[2];       // [n_own, T, Q] outputs of the heads
    double *largest;       // [2, Q] absolute values
    double *rows[2];       // [T, Q] of one window, scaled
    double *sums;          // [2, Q, Q] gram and cross
    double *tiles;
} Refit;

static void place(Refit *refit, Arena *arena, const ModelShape *s)
{
    const int64_t n_tokens = (int64_t)refit->n_own * refit->T, Q = shape_dim(s, DIM_Q);
    refit->tokens = arena_place(arena, (int64_t)refit->n_windows * refit->T, sizeof *refit->tokens);
    refit->inv_rms = arena_floats(arena, refit->T);
    refit->x = arena_floats(arena, n_tokens * s->d_model);
    refit->largest = arena_place(arena, 2 * Q, sizeof(double));
    for (int i = 0; i < 2; i++) {
        refit->heads[i] = arena_floats(arena, n_tokens * Q);
        refit->rows[i] = arena_place(arena, refit->T * Q, sizeof(double));
    }
    refit->sums = arena_place(arena, 2 * Q * Q, sizeof(double));
    refit->tiles = arena_place(arena, omp_get_max_threads() * exact_tile_doubles(), sizeof(double));
}

int64_t refit_bytes(const ModelShape *mla, int n_windows, int T, int n_ranks, RefitParts parts)
{
    Refit refit = {.n_windows = n_windows,
                   .n_own = (n_windows + n_ranks - 1) / n_ranks,
                   .T = T,
                   .arena = arena_start("refit")};
    const ModelShape original = shape_original(mla);
    place(&refit, &refit.arena, mla);
    const int64_t queries = parts == REFIT_ALL ? query_fit_bytes(mla, n_windows, T) : 0;
    return refit.arena.peak_bytes + queries + forward_pass_layer_bytes(mla, T, COMPUTE_FLOAT32) +
           forward_pass_layer_bytes(&original, T, COMPUTE_FLOAT32) +
           ridge_bytes(mla->d_model, shape_dim(mla, DIM_Q));
}

static Status start(Refit *refit, const StatisticsFile *file)
{
    const ModelShape *s = &refit->models[0]->shape;
    const Comm *comm = refit->comm;
    refit->n_windows = file->info.n_windows;
    refit->n_own = (refit->n_windows - comm->rank + comm->size - 1) / comm->size;
    refit->T = file->info.seq_len;
    refit->arena = arena_start("refit");
    place(refit, &refit->arena, s);
    TRY(arena_allocate(&refit->arena));
    place(refit, &refit->arena, s);
    TRY(statistics_file_tokens(file, refit->tokens));
    if (refit->parts == REFIT_ALL)
        TRY(query_fit_start(&refit->queries, refit->models[0], refit->models[1], refit->n_windows,
                            refit->T));
    for (int i = 0; i < 2; i++)
        TRY(forward_pass_start(&refit->passes[i], refit->models[i], refit->T, COMPUTE_FLOAT32));
    for (int64_t i = 0; i < refit->n_own; i++)
        transformer_embed(&refit->passes[1].ws, refit->models[1],
                          refit->tokens + (comm->rank + i * comm->size) * refit->T,
                          refit->x + i * refit->T * s->d_model);
    return OK;
}

static void release(Refit *refit)
{
    forward_pass_release(&refit->passes[0]);
    forward_pass_release(&refit->passes[1]);
    query_fit_release(&refit->queries);
    arena_release(&refit->arena);
}

static void to_doubles(double *to, const float *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i];
}

// The original's without the bias of the values: the converted model has that behind the output
// projection, which it is not part of.
static void take_value_bias(float *heads, const Model *original, int layer, int T)
{
    const ModelShape *s = &original->shape;
    const float *bias = original->params.layers[layer].v_bias;
    const int Q = shape_dim(s, DIM_Q), E = s->head_dim, G = s->n_heads / s->n_kv_heads;
    for (int64_t t = 0; t < T && bias != NULL; t++)
        for (int i = 0; i < Q; i++)
            heads[t * Q + i] -= bias[i / E / G * E + i % E];
}

// The normed inputs of a layer, of all windows on every rank.
static void share_inputs(Refit *refit, int layer)
{
    const Comm *comm = refit->comm;
    const ModelShape *s = &refit->models[1]->shape;
    const int D = s->d_model, T = refit->T;
    const float *norm = refit->models[1]->params.layers[layer].attn_norm;
    for (int64_t i = 0; i < refit->n_windows; i++) {
        float *to = refit->queries.x + i * T * D;
        const int owner = (int)(i % comm->size);
        if (owner == comm->rank)
            rmsnorm_forward(rows_f32(to, D), refit->inv_rms, NULL,
                            refit->x + i / comm->size * T * D, norm, T, D, (float)s->rms_eps);
        comm_broadcast(comm, to, (int64_t)T * D * (int64_t)sizeof *to, owner);
    }
}

// Head h is rank h mod N's.
static Status fit_own_queries(Refit *refit, int layer)
{
    const Status status = query_fit_layer(&refit->queries, layer);
    if (status != OK)
        return fail_within(status, "layer %d", layer);
    for (int h = refit->comm->rank; h < refit->models[0]->shape.n_heads; h += refit->comm->size) {
        TRY(stop_check());
        progress_beat();
        query_fit_head(&refit->queries, h);
    }
    return OK;
}

static Status fit_queries(Refit *refit, Replica *mla, int layer)
{
    const Comm *comm = refit->comm;
    const ModelShape *s = &mla->model.shape;
    const int64_t D = s->d_model, rope = 2 * s->rope_pairs, nope = shape_head_nope(s);
    share_inputs(refit, layer);
    TRY(comm_agree(comm, fit_own_queries(refit, layer)));
    const int64_t q = mla->model.params.layers[layer].q - mla->model.params.flat;
    for (int64_t h = 0; h < s->n_heads; h++) {
        const int owner = (int)(h % comm->size);
        replica_broadcast(mla, q + h * rope * D, rope * D, owner);
        replica_broadcast(mla, q + (s->n_heads * rope + h * nope) * D, nope * D, owner);
    }
    replica_sync(mla);
    return OK;
}

// Heads of both models on the same inputs, and their largest values; then the inputs of the next
// layer, which are the original's.
static Status run_layer(Refit *refit, int layer)
{
    const ModelShape *s = &refit->models[0]->shape;
    const int64_t Q = shape_dim(s, DIM_Q), count = refit->T * Q;
    memset(refit->largest, 0, (size_t)(2 * Q) * sizeof(double));
    for (int64_t own = 0; own < refit->n_own; own++) {
        float *x = refit->x + own * refit->T * s->d_model;
        TRY(stop_check());
        progress_beat();
        for (int m = 0; m < 2; m++) {
            float *heads = refit->heads[m] + own * count;
            const Rows out = transformer_heads(&refit->passes[m].ws, refit->models[m], layer, x);
            memcpy(heads, rows_floats(out, (int)Q), (size_t)count * sizeof *heads);
            if (m == 1)
                take_value_bias(heads, refit->models[1], layer, refit->T);
            to_doubles(refit->rows[m], heads, count);
            exact_largest(refit->largest + m * Q, refit->rows[m], refit->T, (int)Q);
        }
        transformer_layer(&refit->passes[1].ws, refit->models[1], layer, x);
    }
    return OK;
}

static void sum_products(Refit *refit)
{
    const int Q = shape_dim(&refit->models[0]->shape, DIM_Q), T = refit->T;
    const double quantum = exact_quantum((double)refit->n_windows * T);
    const ExactTarget gram = {refit->sums, 1.0}, cross = {refit->sums + (int64_t)Q * Q, 1.0};
    memset(refit->sums, 0, (size_t)(2 * (int64_t)Q * Q) * sizeof(double));
    for (int64_t own = 0; own < refit->n_own; own++) {
        for (int m = 0; m < 2; m++) {
            to_doubles(refit->rows[m], refit->heads[m] + own * T * Q, (int64_t)T * Q);
            exact_scale(refit->rows[m], refit->largest + (int64_t)m * Q, T, Q);
        }
        exact_add_product(&gram, 1, refit->rows[0], refit->rows[0], Q, Q, T, quantum, false,
                          refit->tiles);
        exact_add_product(&cross, 1, refit->rows[0], refit->rows[1], Q, Q, T, quantum, false,
                          refit->tiles);
    }
}

// One rank solves and sends the result, so that all have the same bits.
static Status refit_layer(Refit *refit, Replica *mla, int layer)
{
    const Comm *comm = refit->comm;
    const ModelShape *s = &mla->model.shape;
    const int64_t Q = shape_dim(s, DIM_Q);
    const int owner = layer % comm->size;
    float *o = mla->model.params.layers[layer].o;
    Status status = OK;
    if (refit->parts == REFIT_ALL)
        TRY(fit_queries(refit, mla, layer));
    TRY(comm_agree(comm, run_layer(refit, layer)));
    comm_max_doubles(comm, refit->largest, 2 * Q);
    sum_products(refit);
    comm_sum_doubles(comm, refit->sums, 2 * Q * Q);
    if (comm->rank == owner) {
        for (int m = 0; m < 2; m++)
            exact_unscale(refit->sums + m * Q * Q, refit->largest, refit->largest + m * Q, (int)Q,
                          (int)Q);
        status = ridge_refit(o, refit->sums, refit->sums + Q * Q, s->d_model, (int)Q);
    }
    TRY(comm_agree(comm, status == OK ? OK : fail_within(status, "layer %d", layer)));
    replica_broadcast(mla, o - mla->model.params.flat, Q * s->d_model, owner);
    return OK;
}

Status refit_attention(Replica *mla, const Model *original, const char *scores, RefitParts parts)
{
    const Comm *comm = mla->comm;
    const int n_layers = mla->model.shape.n_layers;
    const ModelShape shape = original->shape;
    Refit refit = {.comm = comm, .models = {&mla->model, original}, .parts = parts};
    StatisticsFile file = {0};
    Status status;
    watchdog_phase("refit", 0);
    ProgressMeter meter = progress_start("refit of attention", "layers", n_layers);
    TRY_GOTO(release, comm_agree(comm, statistics_file_open(&file, &shape, scores)));
    TRY_GOTO(release, comm_agree(comm, start(&refit, &file)));
    for (int l = 0; l < n_layers; l++) {
        TRY_GOTO(release, refit_layer(&refit, mla, l));
        progress_show(&meter, l + 1);
    }
    replica_sync(mla);
release:
    progress_end(&meter);
    statistics_file_close(&file);
    release(&refit);
    return status;
}
