#include "train/trainer.h"

#include <math.h>
#include <omp.h>

// What the largest bucket needs.
static int64_t most_buffer_bytes(const Partition *partition, const Turns *turns, bool as_bf16)
{
    int64_t most = 0;
    for (int i = 0; i < partition->n_buckets; i++) {
        int64_t n = comm_reduce_bytes(partition->buckets[i].count, turns->n_ranks,
                                      turns_senders(turns, 0), as_bf16);
        most = n > most ? n : most;
    }
    return (most + 63) / 64 * 64;
}

// What of the gradients' memory activations may lie in (model/overlay.h). Once a group's backward
// is over, its gradients are read
// - by the exchange, which still sends those of a round when the forward of the next one begins:
//   loop.c waits for them before that comes to the first layer which lies there. So that most of
//   the forward goes on meanwhile, that is none of the lower half. The sums over rounds lie apart;
// - in a step of one round, whose sums are in their place, by the norm and by AdamW, which are done
//   before the next forward, whether that trains, validates or looks for what is not finite;
// - by the next micro-batch of the group, which adds to them: then nothing is lent.
// Checkpoints have none of them.
static Overlay lend_gradients(float *flat, const ModelShape *shape, const Turns *turns,
                              const TrainConfig *train)
{
    const bool is_sent_later = turns->n_ranks > 1 && turns->n_rounds > 1 && train->overlap;
    if (turns->n_groups < turns->n_micro_batches)
        return (Overlay){0};
    return overlay_start(flat, shape, is_sent_later ? (shape->n_layers + 1) / 2 : 0);
}

void trainer_place(TrainerMemory *memory, const ModelShape *shape, const Partition *partition,
                   const Turns *turns, const Config *config, int n_threads)
{
    static const Keep keeps[] = {[RECOMPUTE_NONE] = KEEP_ALL,
                                 [RECOMPUTE_ATTENTION] = KEEP_BUT_ATTENTION,
                                 [RECOMPUTE_LAYER] = KEEP_INPUTS};
    const int B = config->train.micro_batch, T = config->data.seq_len;
    memory->flat_grads = arena_floats(&memory->gradients, params_count(shape));
    memory->own_sums = NULL;
    if (turns->n_rounds > 1)
        memory->own_sums = arena_floats(&memory->gradients, partition->own_count);
    memory->m = arena_floats(&memory->moments, partition->own_count);
    memory->v = arena_floats(&memory->moments, partition->own_count);
    const Overlay lent = lend_gradients(memory->flat_grads, shape, turns, &config->train);
    workspace_place_over(&memory->ws, &lent, &memory->activations, &memory->scratch, shape, B, T,
                         n_threads, keeps[config->train.recompute]);
    batch_place(&memory->batch, &memory->scratch, B, T);
    prefetch_place(&memory->ahead, &memory->scratch, B, T);
    memory->buffer_bytes =
        most_buffer_bytes(partition, turns, config->train.reduce_dtype == REDUCE_BFLOAT16);
    memory->buffers = arena_place(&memory->communication,
                                  exchange_n_buffers(turns->n_ranks, config->train.overlap),
                                  (size_t)memory->buffer_bytes);
    memory->sums =
        arena_place(&memory->communication, trainer_n_sums(partition, turns), sizeof(double));
}

static Status allocate_memory(TrainerMemory *memory, const ModelShape *shape,
                              const Partition *partition, const Turns *turns, const Config *config)
{
    int n_threads = omp_get_max_threads();
    *memory = (TrainerMemory){
        .gradients = arena_start("gradients"),
        .moments = arena_start("moments"),
        .activations = arena_start("activations"),
        .scratch = arena_start("scratch"),
        .communication = arena_start("communication"),
    };
    trainer_place(memory, shape, partition, turns, config, n_threads);
    TRY(arena_allocate(&memory->gradients));
    TRY(arena_allocate(&memory->moments));
    TRY(arena_allocate(&memory->activations));
    TRY(arena_allocate(&memory->scratch));
    TRY(arena_allocate(&memory->communication));
    trainer_place(memory, shape, partition, turns, config, n_threads);
    return OK;
}

static Status open_data(Trainer *t)
{
    const DataConfig *data = &t->config->data;
    const int V = t->model->shape.vocab_size;
    const char *sha256 =
        t->context.tokenizer_sha256[0] != '\0' ? t->context.tokenizer_sha256 : NULL;
    TRY(mixture_open(&t->mixture, data->sources, data->n_sources, data->seq_len,
                     (uint64_t)t->config->run.seed, sha256, V));
    t->data_fingerprint = mixture_fingerprint(t->mixture);
    if (t->data_fingerprint == NULL)
        return fail(FAILED, "no memory for the data's fingerprint");
    return validation_open(&t->validation, t->config, V, sha256);
}

static Status start_own(Trainer *t, const Checkpoint *resumed)
{
    const ModelShape *shape = &t->model->shape;
    const TrainConfig *train = &t->config->train;
    TRY(partition_create(&t->partition, shape, t->comm->size, t->comm->rank));
    t->turns =
        turns_make(train->global_batch / train->micro_batch, train->sum_groups, t->comm->size);
    TRY(allocate_memory(&t->memory, shape, &t->partition, &t->turns, t->config));
    TRY(params_place(&t->grads, shape, t->memory.flat_grads));
    TRY(exchange_start(&t->exchange, t->comm, t->memory.buffers, t->memory.buffer_bytes,
                       train->overlap));
    TRY(open_data(t));
    if (resumed == NULL)
        return OK;
    TRY(mixture_check_fingerprint(t->mixture, json_object_get(resumed->manifest, "data"),
                                  resumed->dir));
    t->progress = resumed->progress;
    return checkpoint_read(resumed, &t->partition, t->model->params.flat, t->memory.m, t->memory.v);
}

Status trainer_start(Trainer *out, const TrainerContext *context, Weights *weights,
                     const Checkpoint *resumed)
{
    *out = (Trainer){
        .context = *context,
        .config = context->config,
        .comm = context->comm,
        .weights = weights,
        .model = &weights->model,
        .progress = {.loss = NAN, .grad_norm = NAN, .valid_loss = NAN, .valid_step = -1},
        .lent_ticket = -1,
    };
    Status status = comm_agree(out->comm, start_own(out, resumed));
    const CheckpointContext saved = {.config = context->config,
                                     .tokenizer_sha256 = context->tokenizer_sha256,
                                     .data_fingerprint = out->data_fingerprint};
    if (status == OK)
        status = saver_open(&out->saver, out->comm, context->run_dir, &saved, &out->partition,
                            out->model, out->memory.m, out->memory.v);
    if (status != OK) {
        trainer_release(out);
        return status;
    }
    if (resumed != NULL) {
        out->saver.saved_step = resumed->progress.step;
        weights_gather(weights, &out->partition);
    }
    transformer_start(&out->memory.ws, out->model);
    return OK;
}

void trainer_release(Trainer *t)
{
    exchange_stop(t->exchange);
    saver_close(&t->saver);
    validation_close(&t->validation);
    prefetch_stop(t->prefetch);
    mixture_close(t->mixture);
    json_decref(t->data_fingerprint);
    params_release(&t->grads);
    partition_release(&t->partition);
    arena_release(&t->memory.gradients);
    arena_release(&t->memory.moments);
    arena_release(&t->memory.activations);
    arena_release(&t->memory.scratch);
    arena_release(&t->memory.communication);
    *t = (Trainer){0};
}

int64_t trainer_n_sums(const Partition *partition, const Turns *turns)
{
    return partition_n_blocks(partition) + turns->n_micro_batches + turns->n_ranks + N_PHASES + 1;
}

int64_t trainer_step_tokens(const Trainer *t)
{
    return (int64_t)t->config->train.global_batch * t->config->data.seq_len;
}
