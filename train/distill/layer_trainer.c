// A step is that of training (train/step.c) for the parameters of one layer: in each round every
// rank computes the gradient of one window, the owner of each share adds them up in the order of
// the windows, and updated shares go to all ranks.
#include "train/distill/layer_trainer.h"

#include "base/intmath.h"
#include "base/random.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "train/distill/output_fit.h"
#include "train/stop.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const AdamW RULE = {.beta1 = .9, .beta2 = .98, .eps = 1e-8};
static const double CLIP = 1.0;
static const double LAST_RATE = .02; // of the highest
enum { WARMUP_STEPS = 10 };

// ---- memory ------------------------------------------------------------------------------------

LayerTrainer layer_trainer_make(const Comm *team, const LayerSettings *settings)
{
    return (LayerTrainer){.team = team,
                          .settings = *settings,
                          .share = window_share(settings->n_windows, team->rank, team->size)};
}

// The trained floats are exchanged in buckets of at most COMM_LARGEST_BUCKET.
static int64_t n_buckets(int64_t count)
{
    return (count + COMM_LARGEST_BUCKET - 1) / COMM_LARGEST_BUCKET;
}

static int64_t bucket_count(int64_t count, int64_t bucket)
{
    const int64_t left = count - bucket * COMM_LARGEST_BUCKET;
    return left < COMM_LARGEST_BUCKET ? left : COMM_LARGEST_BUCKET;
}

// Windows of the first round, in which no rank has more.
static int n_senders(const LayerTrainer *trainer, int round)
{
    const int left = trainer->share.batch - round * trainer->team->size;
    return left < trainer->team->size ? left : trainer->team->size;
}

static int n_rounds(const LayerTrainer *trainer)
{
    return (trainer->share.batch + trainer->team->size - 1) / trainer->team->size;
}

void layer_trainer_place(LayerTrainer *trainer, Arena *arena, const ModelShape *mla, int n_threads)
{
    const LayerSettings *settings = &trainer->settings;
    const int Q = shape_dim(mla, DIM_Q), D = mla->d_model;
    const int64_t count = student_n_trained(mla);
    student_place(&trainer->student, arena, mla, settings->T, settings->compute, n_threads);
    trainer->own_count = 0;
    for (int64_t i = 0; i < n_buckets(count); i++) {
        int64_t first, own;
        comm_share(bucket_count(count, i), trainer->team->rank, trainer->team->size, &first, &own);
        trainer->own_count += own;
    }
    trainer->sum = arena_floats(arena, trainer->own_count);
    trainer->m = arena_floats(arena, trainer->own_count);
    trainer->v = arena_floats(arena, trainer->own_count);
    trainer->buffer = arena_place(arena,
                                  comm_reduce_bytes(bucket_count(count, 0), trainer->team->size,
                                                    n_senders(trainer, 0), false),
                                  1);
    trainer->n_blocks = clip_n_blocks(count);
    trainer->sums =
        arena_place(arena, trainer->n_blocks + trainer->share.batch + 1, sizeof(double));
    trainer->windows = arena_place(arena, settings->n_windows, sizeof(double));
    trainer->largest = arena_place(arena, Q + D, sizeof(double));
    trainer->heads = arena_place(arena, (int64_t)settings->T * Q, sizeof(double));
    trainer->wanted = arena_place(arena, (int64_t)settings->T * D, sizeof(double));
    trainer->gram = arena_place(arena, (int64_t)Q * Q, sizeof(double));
    trainer->moment = arena_place(arena, (int64_t)Q * D, sizeof(double));
    trainer->row = arena_floats(arena, Q);
    trainer->tiles = arena_place(arena, n_threads * exact_tile_doubles(), sizeof(double));
}

// ---- a step ------------------------------------------------------------------------------------

// Linear warm-up, then a cosine to LAST_RATE of the highest in the last step.
static double rate(const LayerSettings *settings, int step)
{
    const int quarter = (settings->steps + 3) / 4;
    const int warmup = quarter < WARMUP_STEPS ? quarter : WARMUP_STEPS;
    if (step <= warmup)
        return settings->lr * step / warmup;
    const double done = (double)(step - warmup) / (settings->steps - warmup);
    return settings->lr * (LAST_RATE + (1 - LAST_RATE) * .5 * (1 + cos(acos(-1.0) * done)));
}

// The gradient of one window of this rank, if it has one in this round.
static void compute_window(LayerTrainer *trainer, const LayerData *data, int step, int round)
{
    const LayerSettings *settings = &trainer->settings;
    const WindowShare *share = &trainer->share;
    const int slot = round * trainer->team->size + trainer->team->rank;
    if (slot >= share->batch)
        return;
    const int window = distill_order(trainer->key, step, slot, share->batch, settings->n_windows);
    const int64_t numbers = (int64_t)settings->T * trainer->student.shape.d_model;
    const int64_t place = window_place(share, window), first = place * numbers;
    const double scale = 1.0 / (data->mean_square * (double)numbers * share->batch);
    trainer->sums[trainer->n_blocks + slot] =
        scale * student_backward(&trainer->student, data->inputs + first, data->targets + first,
                                 data->weights + place * settings->T, (float)scale);
}

// Adds the round's gradients to the sums of this rank's shares.
static void reduce_round(LayerTrainer *trainer, int round)
{
    const Student *student = &trainer->student;
    const float *gradient = student->gradient + (student->count - student->n_trained);
    int64_t own_first = 0;
    for (int64_t i = 0; i < n_buckets(student->n_trained); i++) {
        const int64_t count = bucket_count(student->n_trained, i);
        int64_t first, own;
        const CommReduce reduce = {.sum = trainer->sum + own_first,
                                   .bucket = gradient + i * COMM_LARGEST_BUCKET,
                                   .count = count,
                                   .n_senders = n_senders(trainer, round),
                                   .fresh = round == 0,
                                   .buffer = trainer->buffer};
        comm_reduce_scatter(trainer->team, &reduce);
        comm_share(count, trainer->team->rank, trainer->team->size, &first, &own);
        own_first += own;
    }
}

// Loss and norm of the step's gradient, and whether a rank wants to stop, on all ranks.
static Status sum_step(LayerTrainer *trainer, int layer, int step, double *loss, double *norm)
{
    const int64_t n_blocks = trainer->n_blocks, count = trainer->student.n_trained;
    const int batch = trainer->share.batch;
    double squares = 0;
    int64_t own_first = 0;
    for (int64_t i = 0; i < n_buckets(count); i++) {
        int64_t first, own;
        comm_share(bucket_count(count, i), trainer->team->rank, trainer->team->size, &first, &own);
        clip_sum_squares(trainer->sums + (i * COMM_LARGEST_BUCKET + first) / CLIP_BLOCK,
                         trainer->sum + own_first, own);
        own_first += own;
    }
    trainer->sums[n_blocks + batch] = stop_requested();
    comm_sum_doubles(trainer->team, trainer->sums, n_blocks + batch + 1);
    if (trainer->sums[n_blocks + batch] > 0)
        TRY(comm_agree(trainer->team, stop_check()));
    for (int64_t i = 0; i < n_blocks; i++)
        squares += trainer->sums[i];
    *norm = sqrt(squares);
    *loss = 0;
    for (int i = 0; i < batch; i++)
        *loss += trainer->sums[n_blocks + i];
    if (!isfinite(*norm) || !isfinite(*loss))
        return fail(FAILED,
                    "distillation of layer %d: the gradient of step %d is not finite (loss %g); "
                    "use a lower lr than %g",
                    layer, step, *loss, trainer->settings.lr);
    return OK;
}

// A range of what is trained, each part of it at its own rate; moments and sums are of the range.
static void update_range(LayerTrainer *trainer, int64_t first, int64_t count, int64_t own_first,
                         double scale, int step)
{
    const double lr = rate(&trainer->settings, step);
    for (int i = 0; i < trainer->n_parts; i++) {
        const StudentPart *part = &trainer->parts[i];
        const int64_t from = max_int64(part->first, first);
        const int64_t n = min_int64(part->first + part->count, first + count) - from;
        const int64_t own = own_first + from - first;
        if (n > 0)
            adamw_update(trainer->student.trained + from, trainer->m + own, trainer->v + own,
                         trainer->sum + own, n, &RULE, lr * part->size, scale, step);
    }
}

static void update(LayerTrainer *trainer, int step, double norm)
{
    const int64_t count = trainer->student.n_trained;
    const double scale = clip_scale(norm, CLIP);
    int64_t own_first = 0;
    for (int64_t i = 0; i < n_buckets(count); i++) {
        float *bucket = trainer->student.trained + i * COMM_LARGEST_BUCKET;
        int64_t first, own;
        comm_share(bucket_count(count, i), trainer->team->rank, trainer->team->size, &first, &own);
        update_range(trainer, i * COMM_LARGEST_BUCKET + first, own, own_first, scale, step);
        const CommGather gather = {.bucket = bucket, .count = bucket_count(count, i)};
        comm_all_gather(trainer->team, &gather);
        own_first += own;
    }
}

static Status run_step(LayerTrainer *trainer, int layer, const LayerData *data, int step,
                       double *loss)
{
    double norm;
    memset(trainer->sums, 0,
           (size_t)(trainer->n_blocks + trainer->share.batch + 1) * sizeof *trainer->sums);
    for (int round = 0; round < n_rounds(trainer); round++) {
        compute_window(trainer, data, step, round);
        reduce_round(trainer, round);
    }
    TRY(sum_step(trainer, layer, step, loss, &norm));
    update(trainer, step, norm);
    return OK;
}

// ---- the layer ---------------------------------------------------------------------------------

double layer_trainer_sum(LayerTrainer *trainer)
{
    double sum = 0;
    comm_sum_doubles(trainer->team, trainer->windows, trainer->settings.n_windows);
    for (int i = 0; i < trainer->settings.n_windows; i++)
        sum += trainer->windows[i];
    return sum;
}

Status layer_trainer_run(LayerTrainer *trainer, const Model *mla, int layer, const LayerData *data,
                         ProgressMeter *meter, int64_t *n_shown)
{
    char purpose[64];
    snprintf(purpose, sizeof purpose, "distill/layer %d", layer);
    trainer->key = random_key(trainer->settings.seed, purpose);
    memset(trainer->m, 0, (size_t)trainer->own_count * sizeof *trainer->m);
    memset(trainer->v, 0, (size_t)trainer->own_count * sizeof *trainer->v);
    TRY(comm_agree(trainer->team, student_load(&trainer->student, mla, layer)));
    trainer->n_parts = student_parts(&trainer->student, trainer->parts);
    for (int step = 1; step <= trainer->settings.steps; step++) {
        double loss;
        TRY(run_step(trainer, layer, data, step, &loss));
        if (step == 1)
            trainer->losses.first = loss;
        progress_show(meter, ++*n_shown);
    }
    return output_fit(trainer, layer, data);
}
