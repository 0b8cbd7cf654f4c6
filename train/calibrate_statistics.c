// A layer takes three rounds over a rank's windows: the small sums of its heads, which are added in
// the order of the windows; then the large ones, which need tau of all windows and may be added in
// any order (model/convert/statistics_window.h); then the layer itself, to the next one's input.
#include "train/calibrate_statistics.h"

#include "base/progress.h"
#include "eval/forward_pass.h"
#include "model/convert/statistics_window.h"
#include "train/parallel/watchdog.h"
#include "train/stop.h"

#include <omp.h>
#include <string.h>

// A rank's part: window i belongs to rank i mod N.
typedef struct Collection {
    const StatisticsRequest *request; // borrowed
    const Comm *comm;                 // borrowed
    const Model *original;            // borrowed
    Arena arena;                      // owns what follows
    StatisticsScratch scratch;
    StatisticsSums sums;
    double *head_block, *own_block, *received_block; // of all windows, of one of each
    float *x;              // [own windows, T, D] input of the layer at hand
    ForwardPass pass;      // owned
    LayerStatistics layer; // owned
} Collection;

static int own_windows(const Comm *comm, int n)
{
    return (n - comm->rank + comm->size - 1) / comm->size;
}

static void place(Collection *c, Arena *arena, const ModelShape *s, int n_own, int T, int n_pools,
                  int n_threads)
{
    statistics_scratch_place(&c->scratch, arena, s, T, n_threads);
    statistics_sums_place(&c->sums, arena, s, n_pools);
    c->head_block = arena_place(arena, statistics_head_count(s), sizeof(double));
    c->own_block = arena_place(arena, statistics_head_count(s), sizeof(double));
    c->received_block = arena_place(arena, statistics_head_count(s), sizeof(double));
    c->x = arena_floats(arena, (int64_t)n_own * T * s->d_model);
}

int64_t calibrate_statistics_bytes(const ModelShape *shape, int n_windows, int T, int n_pools,
                                   int n_ranks, int n_threads)
{
    Collection c = {.arena = arena_start("statistics")};
    place(&c, &c.arena, shape, (n_windows + n_ranks - 1) / n_ranks, T, n_pools, n_threads);
    layer_statistics_measure(&c.arena, shape, n_pools);
    return c.arena.peak_bytes + forward_pass_layer_bytes(shape, T, COMPUTE_FLOAT32);
}

static Status start(Collection *c)
{
    const StatisticsRequest *request = c->request;
    const ModelShape *s = &c->original->shape;
    const int n_own = own_windows(c->comm, request->n_windows), T = request->T;
    const int n_pools = statistics_n_pools(s, request->pool), n_threads = omp_get_max_threads();
    c->arena = arena_start("statistics");
    place(c, &c->arena, s, n_own, T, n_pools, n_threads);
    TRY(arena_allocate(&c->arena));
    place(c, &c->arena, s, n_own, T, n_pools, n_threads);
    TRY(forward_pass_start(&c->pass, c->original, T, COMPUTE_FLOAT32));
    TRY(layer_statistics_create(&c->layer, s, n_pools));
    statistics_scratch_start(&c->scratch, s);
    for (int i = 0; i < n_own; i++)
        transformer_embed(&c->pass.ws, c->original,
                          request->tokens + (int64_t)(c->comm->rank + i * c->comm->size) * T,
                          c->x + (int64_t)i * T * s->d_model);
    return OK;
}

static void release(Collection *c)
{
    layer_statistics_release(&c->layer);
    forward_pass_release(&c->pass);
    arena_release(&c->arena);
}

static float *window_input(const Collection *c, int64_t own)
{
    return c->x + own * c->request->T * c->original->shape.d_model;
}

static void read_window(Collection *c, int own, int layer)
{
    statistics_window_read(&c->scratch, window_input(c, own), &c->original->params.layers[layer],
                           layer, &c->sums, &c->original->shape);
}

// Adds up the heads' sums of all windows, one after another on every rank.
static Status sum_heads(Collection *c, HeadSums *heads, int layer)
{
    const ModelShape *s = &c->original->shape;
    const int n = c->request->n_attention, size = c->comm->size;
    const int64_t count = statistics_head_count(s);
    HeadSums own = statistics_head_sums(c->own_block, s);
    memset(heads->block, 0, (size_t)count * sizeof(double));
    for (int first = 0; first < n; first += size) {
        TRY(comm_agree(c->comm, stop_check()));
        progress_beat();
        // Parts of the round are computed at the same time, and then sent one after another.
        if (first + c->comm->rank < n) {
            read_window(c, first / size, layer);
            statistics_window_heads(&own, &c->scratch, &c->original->params.layers[layer], s);
        }
        for (int i = first; i < first + size && i < n; i++) {
            double *part = i - first == c->comm->rank ? own.block : c->received_block;
            comm_broadcast(c->comm, part, count * (int64_t)sizeof(double), i - first);
            for (int64_t j = 0; j < count; j++)
                heads->block[j] += part[j];
        }
    }
    return OK;
}

static Status sum_moments(Collection *c, const HeadSums *heads, int layer)
{
    const int n = own_windows(c->comm, c->request->n_windows);
    const int n_attention = own_windows(c->comm, c->request->n_attention);
    for (int own = 0; own < n; own++) {
        TRY(stop_check());
        progress_beat();
        read_window(c, own, layer);
        statistics_window_moments(&c->sums, &c->scratch, own < n_attention ? heads->tau : NULL,
                                  &c->original->shape);
        transformer_layer(&c->pass.ws, c->original, layer, window_input(c, own));
    }
    return OK;
}

static Status collect_layer(Collection *c, int layer, StatisticsSink sink, void *context)
{
    const StatisticsRequest *request = c->request;
    const ModelShape *s = &c->original->shape;
    const int64_t n_tokens = (int64_t)request->n_windows * request->T;
    HeadSums heads = statistics_head_sums(c->head_block, s);
    statistics_sums_start(&c->sums, c->original->params.layers[layer].attn_norm, s, n_tokens);
    TRY(sum_heads(c, &heads, layer));
    TRY(comm_agree(c->comm, sum_moments(c, &heads, layer)));
    comm_sum_doubles(c->comm, c->sums.block, c->sums.count);
    statistics_finish(&c->layer, &c->sums, &heads, s, n_tokens,
                      (int64_t)request->n_attention * request->T);
    TRY(layer_statistics_check(&c->layer, s, layer)); // the same on all ranks
    return comm_agree(c->comm, sink(context, layer, &c->layer));
}

Status calibrate_statistics(const StatisticsRequest *request, const Comm *comm,
                            const Model *original, StatisticsSink sink, void *context)
{
    Collection c = {.request = request, .comm = comm, .original = original};
    const int n_layers = original->shape.n_layers;
    Status status;
    CHECK(request->n_attention >= 1 && request->n_attention <= request->n_windows,
          "%d windows of attention, %d in all", request->n_attention, request->n_windows);
    watchdog_phase("statistics", 0);
    ProgressMeter meter = progress_start("statistics", "layers", n_layers);
    TRY_GOTO(release, comm_agree(comm, start(&c)));
    for (int l = 0; l < n_layers; l++) {
        TRY_GOTO(release, collect_layer(&c, l, sink, context));
        progress_show(&meter, l + 1);
    }
release:
    progress_end(&meter);
    release(&c);
    return status;
}
