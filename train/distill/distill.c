// Memory holds the streams of a rank's windows and one layer's training. Streams are always made by
// the finished layers as they are in the model, so that they have the same bits whether a layer was
// distilled just now or read from its file.
#include "train/distill/distill.h"

#include "base/file.h"
#include "base/log.h"
#include "eval/forward_pass.h"
#include "train/distill/distill_inputs.h"
#include "train/distill/distill_state.h"
#include "train/parallel/watchdog.h"
#include "train/stop.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Distiller {
    const DistillRequest *request; // borrowed, as the next
    const Model *original;
    Replica *mla;
    const Comm *comm;
    Comm alone;        // a team of this rank
    WindowShare share; // of the streams
    Arena arena;       // owns what follows
    float *x;          // [n_own, T, D] the original's stream before the layer at hand
    float *xc;         // the converted model's; apart: NULL
    float *inputs;     // what the layer reads: xc; apart: x of all windows
    float *targets;    // the same size
    float *weights;    // [windows of the layer, T] of the tokens
    float *attention;  // [T, D]
    LayerTrainer trainer;
    ForwardPass passes[2]; // owned: of the original and the converted model
    DistillInputs known;   // owned
    ProgressMeter meter;
    int64_t n_shown; // steps
} Distiller;

static bool is_apart(const Distiller *d)
{
    return d->request->config->layers == DISTILL_APART;
}

static LayerSettings layer_settings(const DistillRequest *request)
{
    const DistillConfig *config = request->config;
    return (LayerSettings){.steps = config->steps,
                           .n_windows = config->windows,
                           .T = request->T,
                           .lr = config->lr,
                           .seed = request->seed,
                           .compute = request->compute};
}

static int64_t window_numbers(const Distiller *d)
{
    return (int64_t)d->request->T * d->original->shape.d_model;
}

// ---- memory ------------------------------------------------------------------------------------

static void place(Distiller *d, Arena *arena, const ModelShape *mla, int n_threads)
{
    const int64_t window = (int64_t)d->request->T * mla->d_model;
    const int n_layer = d->trainer.share.n_own;
    d->x = arena_floats(arena, d->share.n_own * window);
    d->inputs = arena_floats(arena, n_layer * window);
    d->xc = is_apart(d) ? NULL : d->inputs;
    d->targets = arena_floats(arena, n_layer * window);
    d->weights = arena_floats(arena, (int64_t)n_layer * d->request->T);
    d->attention = arena_floats(arena, window);
    layer_trainer_place(&d->trainer, arena, mla, n_threads);
}

static Distiller make(const DistillRequest *request, const Comm *comm)
{
    Distiller d = {.request = request, .comm = comm, .alone = *comm};
    d.alone.rank = 0;
    d.alone.size = 1;
    d.share = window_share(request->config->windows, comm->rank, comm->size);
    d.arena = arena_start("distillation");
    return d;
}

// The distiller must not move after it: the trainer points into it.
static void make_trainer(Distiller *d)
{
    const LayerSettings settings = layer_settings(d->request);
    d->trainer = layer_trainer_make(is_apart(d) ? &d->alone : d->comm, &settings);
}

int64_t distill_bytes(const ModelShape *mla, const DistillConfig *config, int T,
                      ComputeType compute, int n_ranks, int n_threads)
{
    const DistillRequest request = {.config = config, .T = T, .compute = compute};
    const Comm first = {.rank = 0, .size = n_ranks}; // which has the most
    const ModelShape original = shape_original(mla);
    Distiller d = make(&request, &first);
    make_trainer(&d);
    place(&d, &d.arena, mla, n_threads);
    return d.arena.peak_bytes + forward_pass_layer_bytes(&original, T, compute) +
           forward_pass_layer_bytes(mla, T, compute);
}

static Status start(Distiller *d)
{
    const DistillRequest *request = d->request;
    const Model *models[] = {d->original, &d->mla->model};
    const int n_threads = omp_get_max_threads();
    place(d, &d->arena, &d->mla->model.shape, n_threads);
    TRY(arena_allocate(&d->arena));
    place(d, &d->arena, &d->mla->model.shape, n_threads);
    for (int i = 0; i < 2; i++)
        TRY(forward_pass_start(&d->passes[i], models[i], request->T, request->compute));
    for (int own = 0; own < d->share.n_own; own++) {
        const int32_t *tokens = request->tokens + (int64_t)window_of(&d->share, own) * request->T;
        for (int i = 0; i < (is_apart(d) ? 1 : 2); i++)
            transformer_embed(&d->passes[i].ws, models[i], tokens,
                              (i == 0 ? d->x : d->xc) + own * window_numbers(d));
    }
    return OK;
}

static void release(Distiller *d)
{
    forward_pass_release(&d->passes[0]);
    forward_pass_release(&d->passes[1]);
    arena_release(&d->arena);
    distill_inputs_release(&d->known);
}

// ---- streams and targets -----------------------------------------------------------------------

static double mean_square(const float *x, const float *attention, int n)
{
    double squares = 0;
    for (int i = 0; i < n; i++) {
        const double value = (double)x[i] + (attention != NULL ? (double)attention[i] : 0.0);
        squares += value * value;
    }
    return squares / n;
}

// A token's weight: the reciprocal of the mean square of the stream, as the norm that reads it
// divides by its root. Of the original's behind attention and the converted one's the larger, as
// either may have massive activations where the other has none. xc: NULL if there is none.
static float token_weight(const ModelShape *shape, const float *x, const float *attention,
                          const float *xc)
{
    const double original = mean_square(x, attention, shape->d_model);
    const double converted = xc != NULL ? mean_square(xc, NULL, shape->d_model) : 0;
    return (float)(1 / ((original > converted ? original : converted) + shape->rms_eps));
}

// target = the original's attention for x, and with xc rho (x - xc); the weighted sum of its
// squares. The student learns it without the bias behind its output projection, which stays as
// converted.
static double make_target(Distiller *d, int layer, float *target, float *weights, const float *x,
                          const float *xc)
{
    const int D = d->original->shape.d_model;
    const float rho = (float)d->request->config->rho;
    const float *bias = d->mla->model.params.layers[layer].o_bias;
    double sum = 0;
    transformer_attention(&d->passes[0].ws, d->original, layer, x, target);
    for (int64_t t = 0; t < d->request->T; t++) {
        float *row = target + t * D;
        double squares = 0;
        weights[t] =
            token_weight(&d->original->shape, x + t * D, row, xc != NULL ? xc + t * D : NULL);
        for (int i = 0; i < D; i++) {
            if (bias != NULL)
                row[i] -= bias[i];
            if (xc != NULL)
                row[i] += rho * (x[t * D + i] - xc[t * D + i]);
            squares += (double)row[i] * (double)row[i];
        }
        sum += (double)weights[t] * squares;
    }
    return sum;
}

static void add(float *x, const float *attention, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        x[i] += attention[i];
}

// Both streams of a window through the layer.
static void advance(Distiller *d, int layer, float *x, float *xc)
{
    const Model *models[] = {d->original, &d->mla->model};
    float *streams[] = {x, xc};
    for (int i = 0; i < 2 && streams[i] != NULL; i++) {
        transformer_attention(&d->passes[i].ws, models[i], layer, streams[i], d->attention);
        add(streams[i], d->attention, window_numbers(d));
        transformer_ffn(&d->passes[i].ws, models[i], layer, streams[i]);
    }
}

static Status advance_all(Distiller *d, int layer)
{
    for (int own = 0; own < d->share.n_own; own++) {
        const int64_t first = own * window_numbers(d);
        TRY(stop_check());
        progress_beat();
        advance(d, layer, d->x + first, d->xc != NULL ? d->xc + first : NULL);
    }
    return OK;
}

// Targets of the trainer's windows, whose inputs are in place; `x` is the original's stream of
// them.
static Status make_targets(Distiller *d, int layer, const float *x, LayerData *out)
{
    LayerTrainer *trainer = &d->trainer;
    memset(trainer->windows, 0, (size_t)d->request->config->windows * sizeof(double));
    for (int own = 0; own < trainer->share.n_own; own++) {
        const int64_t first = own * window_numbers(d);
        TRY(stop_check());
        progress_beat();
        trainer->windows[window_of(&trainer->share, own)] =
            make_target(d, layer, d->targets + first, d->weights + (int64_t)own * d->request->T,
                        x + first, d->xc != NULL ? d->xc + first : NULL);
    }
    *out = (LayerData){.inputs = d->inputs, .targets = d->targets, .weights = d->weights};
    return OK;
}

// ---- a layer -----------------------------------------------------------------------------------

static int64_t layer_count(const Distiller *d)
{
    return d->trainer.student.count;
}

static float *layer_values(const Distiller *d, int layer)
{
    return d->mla->model.params.layers[layer].attn_norm;
}

// What rank `from` has put into the model is everywhere; rank 0 keeps it.
static Status publish(Distiller *d, int layer, int from)
{
    const float *values = layer_values(d, layer);
    LayerLosses losses = d->trainer.losses; // a copy: the ranks' own are yet to be published
    Status status = OK;
    replica_broadcast(d->mla, values - d->mla->model.params.flat, layer_count(d), from);
    replica_sync(d->mla);
    comm_broadcast(d->comm, &losses, sizeof losses, from);
    log_info("layer %d: %.4f of the target's mean square in the first step, %.4f after the last, "
             "%.4f with the output refitted",
             layer, losses.first, losses.trained, losses.fitted);
    if (d->comm->rank == 0 && d->request->state_dir != NULL)
        status = distill_state_write(d->request->state_dir, layer,
                                     distill_inputs_fingerprint(&d->known, layer), values,
                                     layer_count(d), &losses);
    return comm_agree(d->comm, status);
}

// A finished layer from its file, which rank 0 has checked. Nothing is known to be wrong with it,
// so a failure here is one of the disk.
static Status restore(Distiller *d, int layer)
{
    float *values = layer_values(d, layer);
    LayerLosses losses;
    Status status = OK;
    if (d->comm->rank == 0 &&
        !distill_state_read(values, &losses, d->request->state_dir, layer,
                            distill_inputs_fingerprint(&d->known, layer), layer_count(d)))
        status = fail(FAILED, "%s: layer %d has changed while it was read", d->request->state_dir,
                      layer);
    TRY(comm_agree(d->comm, status));
    replica_broadcast(d->mla, values - d->mla->model.params.flat, layer_count(d), 0);
    replica_sync(d->mla);
    return OK;
}

// The trainer's team: targets, training, and the result in this rank's copy of the model if it is
// the one that writes it.
static Status distill_layer(Distiller *d, int layer, const float *x, bool is_writer)
{
    const Comm *team = d->trainer.team;
    LayerData data;
    TRY(comm_agree(team, make_targets(d, layer, x, &data)));
    const double squares = layer_trainer_sum(&d->trainer);
    data.mean_square = squares > 0
                           ? squares / ((double)window_numbers(d) * d->request->config->windows)
                           : 1; // a layer that gives nothing
    TRY(layer_trainer_run(&d->trainer, &d->mla->model, layer, &data, &d->meter, &d->n_shown));
    const Status status =
        is_writer ? student_store(&d->trainer.student, layer_values(d, layer)) : OK;
    return comm_agree(team, status);
}

static Status run_sequential(Distiller *d)
{
    for (int layer = 0; layer < d->original->shape.n_layers; layer++) {
        watchdog_phase("distillation", layer);
        if (distill_inputs_is_done(&d->known, layer)) {
            TRY(restore(d, layer));
        } else {
            TRY(distill_layer(d, layer, d->x, d->comm->rank == 0));
            TRY(publish(d, layer, 0));
        }
        TRY(comm_agree(d->comm, advance_all(d, layer)));
    }
    return OK;
}

// ---- layers apart ------------------------------------------------------------------------------

// The inputs of a layer go to the rank that distills it, window by window in their order.
static void send_inputs(Distiller *d, int to)
{
    const int64_t bytes = window_numbers(d) * (int64_t)sizeof(float);
    for (int window = 0; window < d->request->config->windows; window++) {
        const int from = window_owner(&d->share, window);
        const float *own = d->x + (from == d->comm->rank ? window_place(&d->share, window) : 0) *
                                      window_numbers(d);
        float *all = d->inputs + window * window_numbers(d);
        if (from == d->comm->rank && to == d->comm->rank)
            memcpy(all, own, (size_t)bytes);
        else if (from == d->comm->rank)
            comm_send(d->comm, own, bytes, to);
        else if (to == d->comm->rank)
            comm_receive(d->comm, all, bytes, from);
    }
}

// Rank i distills layers[i]; windows of a lone rank are all of them, in their order.
static Status run_round(Distiller *d, const int *layers, int n)
{
    Status status = OK;
    if (d->comm->rank < n)
        status = distill_layer(d, layers[d->comm->rank], d->inputs, true);
    TRY(comm_agree_of(d->comm, d->comm->rank < n, status));
    for (int i = 0; i < n; i++)
        TRY(publish(d, layers[i], i));
    return OK;
}

static Status run_apart(Distiller *d, int *layers)
{
    const int n_layers = d->original->shape.n_layers;
    int n = 0;
    for (int layer = 0; layer < n_layers; layer++) {
        watchdog_phase("distillation", layer);
        if (distill_inputs_is_done(&d->known, layer)) {
            TRY(restore(d, layer));
        } else {
            send_inputs(d, n);
            layers[n++] = layer;
        }
        TRY(comm_agree(d->comm, advance_all(d, layer)));
        if (n == d->comm->size || (layer == n_layers - 1 && n > 0)) {
            TRY(run_round(d, layers, n));
            n = 0;
        }
    }
    return OK;
}

static Status run_layers(Distiller *d)
{
    if (!is_apart(d))
        return run_sequential(d);
    int *layers = malloc((size_t)d->comm->size * sizeof *layers);
    TRY(comm_agree(d->comm,
                   layers != NULL ? OK : fail(FAILED, "no memory for %d layers", d->comm->size)));
    const Status status = run_apart(d, layers);
    free(layers);
    return status;
}

// ---- the whole ---------------------------------------------------------------------------------

static Status check_tokens(const DistillRequest *request, int vocab_size)
{
    for (int64_t i = 0; i < (int64_t)request->config->windows * request->T; i++)
        if (request->tokens[i] < 0 || request->tokens[i] >= vocab_size)
            return fail(BAD_INPUT, "token %d of the windows is not in the model's vocabulary",
                        (int)request->tokens[i]);
    return OK;
}

// Steps that this rank will see: of all layers, or of its own.
static int64_t n_steps(const Distiller *d, int n_done)
{
    const int64_t left = d->original->shape.n_layers - n_done;
    const int64_t size = is_apart(d) ? d->comm->size : 1;
    return (left + size - 1) / size * d->request->config->steps;
}

Status distill_run(Replica *mla, const Model *original, const DistillRequest *request)
{
    const Comm *comm = mla->comm;
    Distiller d = make(request, comm);
    Status status;
    d.original = original;
    d.mla = mla;
    make_trainer(&d);
    watchdog_phase("distillation", 0);
    TRY_GOTO(release, comm_agree(comm, check_tokens(request, original->shape.vocab_size)));
    TRY_GOTO(release, comm_agree(comm, start(&d)));
    TRY_GOTO(release, distill_inputs_find(&d.known, request, original, mla));
    d.meter = progress_start("distillation", "steps", n_steps(&d, d.known.n_done));
    status = run_layers(&d);
    progress_end(&d.meter);
release:
    release(&d);
    return status;
}

int64_t distill_tokens(const DistillConfig *config, int T)
{
    return (int64_t)config->windows * T;
}

int64_t distill_trained_tokens(const DistillConfig *config, int T)
{
    return (int64_t)config->steps * window_share(config->windows, 0, 1).batch * T;
}

// Of a token's forward through attention: products with weights, and the causal half of scores and
// outputs.
static double attention_flops(const ModelShape *s, int T)
{
    const ModelShape original = shape_original(s);
    const double weights =
        shape_is_mla(s)
            ? (double)student_n_trained(s)
            : 2.0 * s->d_model * (shape_dim(&original, DIM_Q) + shape_dim(&original, DIM_KV));
    return 2 * weights + (double)T * (shape_dim(s, DIM_QUERY) + shape_dim(s, DIM_Q));
}

double distill_flops(const ModelShape *mla, const DistillConfig *config, int T, int n_ranks)
{
    enum { FORWARD_AND_BACKWARD = 3, FIT_PASSES = 2 };
    const bool is_apart = config->layers == DISTILL_APART;
    const ModelShape original = shape_original(mla);
    const WindowShare share = window_share(config->windows, 0, n_ranks);
    const double converted = attention_flops(mla, T), target = attention_flops(&original, T);
    const double ffn = 6.0 * mla->d_model * mla->d_ffn;
    // Tokens of a layer's steps and of its windows on one rank, and the layers that it works on.
    const double n_layers = is_apart ? (mla->n_layers + n_ranks - 1) / n_ranks : mla->n_layers;
    const double step_tokens = (double)config->steps * T * (is_apart ? share.batch : share.n_slots);
    const double window_tokens = (double)T * (is_apart ? config->windows : share.n_own);
    const double streams =
        (double)T * share.n_own * mla->n_layers * (target + ffn + (is_apart ? 0 : converted + ffn));
    return n_layers * (step_tokens * FORWARD_AND_BACKWARD * converted +
                       window_tokens * (target + FIT_PASSES * converted)) +
           streams;
}
