// Gradients are summed over the micro-batches of a rank in their own vector, then over ranks by
// bucket (reduce-scatter); each rank updates its share and the shares are gathered. The loss is the
// sum over all targets of the step divided by their number, so accumulation and ranks change it by
// rounding alone.
#include "train/loop.h"

#include "base/log.h"
#include "optim/adamw.h"
#include "optim/clip.h"

#include <math.h>
#include <omp.h>
#include <string.h>

void loop_place(TrainerMemory *memory, const ModelShape *shape, int64_t own_count, int B, int T,
                int n_threads)
{
    memory->flat_grads = arena_floats(&memory->gradients, params_count(shape));
    memory->m = arena_floats(&memory->moments, own_count);
    memory->v = arena_floats(&memory->moments, own_count);
    transformer_place(&memory->ws, &memory->activations, &memory->scratch, shape, B, T, n_threads,
                      true);
    batch_place(&memory->batch, &memory->scratch, B, T);
}

static Status allocate_memory(TrainerMemory *memory, const ModelShape *shape, int64_t own_count,
                              int B, int T)
{
    int n_threads = omp_get_max_threads();
    *memory = (TrainerMemory){
        .gradients = arena_start("gradients"),
        .moments = arena_start("moments"),
        .activations = arena_start("activations"),
        .scratch = arena_start("scratch"),
    };
    loop_place(memory, shape, own_count, B, T, n_threads);
    TRY(arena_allocate(&memory->gradients));
    TRY(arena_allocate(&memory->moments));
    TRY(arena_allocate(&memory->activations));
    TRY(arena_allocate(&memory->scratch));
    loop_place(memory, shape, own_count, B, T, n_threads);
    return OK;
}

static Status open_data(Trainer *t, const char *tokenizer_sha256)
{
    const DataConfig *data = &t->config->data;
    const int V = t->model->shape.vocab_size;
    TRY(mixture_open(&t->mixture, data->sources, data->n_sources, data->seq_len,
                     (uint64_t)t->config->run.seed, tokenizer_sha256, V));
    return validation_open(&t->validation, t->config, V, tokenizer_sha256);
}

static Status start_own(Trainer *t, const char *tokenizer_sha256)
{
    const ModelShape *shape = &t->model->shape;
    TRY(partition_create(&t->partition, shape, t->comm->size, t->comm->rank));
    TRY(allocate_memory(&t->memory, shape, t->partition.own_count, t->config->train.micro_batch,
                        t->config->data.seq_len));
    TRY(params_place(&t->grads, shape, t->memory.flat_grads));
    return open_data(t, tokenizer_sha256);
}

Status loop_start(Trainer *out, const Config *config, const Comm *comm, Model *model,
                  Metrics *metrics, const char *tokenizer_sha256)
{
    *out = (Trainer){
        .config = config,
        .comm = comm,
        .model = model,
        .metrics = metrics,
        .valid_loss = NAN,
    };
    Status status = comm_agree(comm, start_own(out, tokenizer_sha256));
    if (status == OK)
        transformer_start(&out->memory.ws, model);
    else
        loop_release(out);
    return status;
}

void loop_release(Trainer *t)
{
    validation_close(&t->validation);
    mixture_close(t->mixture);
    params_release(&t->grads);
    partition_release(&t->partition);
    arena_release(&t->memory.gradients);
    arena_release(&t->memory.moments);
    arena_release(&t->memory.activations);
    arena_release(&t->memory.scratch);
    *t = (Trainer){0};
}

static int64_t step_tokens(const Trainer *t)
{
    return (int64_t)t->config->train.global_batch * t->config->data.seq_len;
}

static Status validate(Trainer *t, int step)
{
    if (t->validation.source == NULL)
        return OK;
    TRY(validation_loss(&t->valid_loss, &t->validation, t->comm, &t->memory.ws, &t->memory.batch,
                        t->model));
    return comm_agree(t->comm,
                      metrics_validation(t->metrics, step, step * step_tokens(t), t->valid_loss));
}

// First sample of micro-batch m of a step, and its rows, in the batch.
static Status next_batch(Trainer *t, int step, int64_t m)
{
    const TrainConfig *train = &t->config->train;
    int64_t first = (int64_t)(step - 1) * train->global_batch + m * train->micro_batch;
    for (int b = 0; b < train->micro_batch; b++) {
        TRY(mixture_read(t->mixture, first + b, t->memory.batch.sample));
        batch_set(&t->memory.batch, b);
    }
    return OK;
}

// Runs the rank's micro-batches; adds to its gradients. Names the samples of a loss that is no
// number.
static Status accumulate(Trainer *t, int step, double *loss_sum)
{
    const TrainConfig *train = &t->config->train;
    TrainerMemory *mem = &t->memory;
    int64_t first, count;
    comm_range(train->global_batch / train->micro_batch, t->comm->rank, t->comm->size, &first,
               &count);
    float scale = 1.0f / (float)step_tokens(t);
    memset(mem->flat_grads, 0, (size_t)t->grads.count * sizeof(float));
    for (int64_t m = first; m < first + count; m++) {
        TRY(next_batch(t, step, m));
        transformer_forward(&mem->ws, t->model, mem->batch.inputs, NULL);
        double loss = transformer_loss(&mem->ws, t->model, mem->batch.targets, scale, &t->grads);
        if (!isfinite(loss)) {
            char sample[256];
            int64_t index = (int64_t)(step - 1) * train->global_batch + m * train->micro_batch;
            mixture_describe(t->mixture, index, sample, sizeof sample);
            return fail(FAILED,
                        "step %d: loss is %g in samples %lld to %lld (first: %s); weights "
                        "are unchanged; lower optim.lr or look at these samples",
                        step, fabs(loss), (long long)index,
                        (long long)index + train->micro_batch - 1, sample);
        }
        *loss_sum += loss;
        transformer_backward(&mem->ws, t->model, mem->batch.inputs, &t->grads);
    }
    return OK;
}

// Sums the gradients over ranks: each rank then has its share of every bucket. Returns the global
// norm; turns loss_sum into the step's mean.
static double reduce(Trainer *t, double *loss)
{
    double sums[2] = {*loss, 0};
    for (int i = 0; i < t->partition.n_buckets; i++) {
        const Bucket *bucket = &t->partition.buckets[i];
        comm_reduce_scatter(t->comm, t->memory.flat_grads + bucket->first, bucket->count);
        sums[1] += clip_sum_squares(t->memory.flat_grads + bucket->own_first, bucket->own_count);
    }
    comm_sum_doubles(t->comm, sums, 2);
    *loss = sums[0] / (double)step_tokens(t);
    return sqrt(sums[1]);
}

// Every rank sees the same norm, so every rank decides the same.
static Status guard(const Trainer *t, const StepReport *report)
{
    if (isfinite(report->grad_norm))
        return OK;
    int64_t first = (int64_t)(report->step - 1) * t->config->train.global_batch;
    return fail(FAILED,
                "step %d: gradient norm is %g (loss %g) in samples %lld to %lld; weights are "
                "unchanged; lower optim.lr or look at these samples",
                report->step, fabs(report->grad_norm), report->loss, (long long)first,
                (long long)first + t->config->train.global_batch - 1);
}

static void update(Trainer *t, const StepReport *report)
{
    const OptimConfig *optim = &t->config->optim;
    double scale = clip_scale(report->grad_norm, optim->clip);
    float *params = t->model->params.flat;
    for (int i = 0; i < t->partition.n_buckets; i++) {
        const Bucket *bucket = &t->partition.buckets[i];
        adamw_update(params + bucket->own_first, t->memory.m + bucket->moments_first,
                     t->memory.v + bucket->moments_first, t->memory.flat_grads + bucket->own_first,
                     bucket->own_count, &optim->adamw, report->lr, scale, report->step);
        comm_all_gather(t->comm, params + bucket->first, bucket->count);
    }
}

static Status train_step(Trainer *t, int step)
{
    double start_s = log_seconds();
    StepReport report = {
        .step = step,
        .tokens = step * step_tokens(t),
        .lr = schedule_lr(&t->config->optim.schedule, step),
    };
    TRY(comm_agree(t->comm, accumulate(t, step, &report.loss)));
    report.grad_norm = reduce(t, &report.loss);
    TRY(guard(t, &report));
    update(t, &report);
    report.step_s = log_seconds() - start_s;
    return comm_agree(t->comm, metrics_step(t->metrics, &report, t->valid_loss));
}

Status loop_run(Trainer *t)
{
    int steps = t->config->train.steps, every = t->config->data.validation.every;
    TRY(validate(t, 0));
    for (int step = 1; step <= steps; step++) {
        TRY(train_step(t, step));
        if (step == steps || (every > 0 && step % every == 0))
            TRY(validate(t, step));
    }
    return OK;
}
