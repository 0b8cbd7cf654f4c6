// Builds and releases what a step works on, in the order in which one part needs another: partition
// and schedule, memory, gradients, exchange, data, and, on a resume, the saved state. What a rank
// does alone is in start_own() and ends in one agreement, so an error of any part on any rank ends
// the start on all.
#include "train/trainer.h"

#include "base/log.h"

#include <math.h>
#include <string.h>

// The samples are those of the seed, on every rank; the tokenizer is checked where it is known.
static Status open_data(Trainer *t)
{
    const DataConfig *data = &t->config->data;
    const int V = t->model->shape.vocab_size;
    const char *sha256 =
        t->context.tokenizer_sha256[0] != '\0' ? t->context.tokenizer_sha256 : NULL;
    TRY(mixture_open(&t->mixture, data->sources, data->n_sources, data->seq_len,
                     (uint64_t)t->config->run.seed, sha256, V));
    t->feed = (Feed){.mixture = t->mixture,
                     .memory = &t->memory.ahead,
                     .config = t->config,
                     .schedule = &t->schedule,
                     .rank = t->comm->rank};
    t->data_fingerprint = mixture_fingerprint(t->mixture);
    if (t->data_fingerprint == NULL)
        return fail(FAILED, "no memory for the data's fingerprint");
    return validation_open(&t->validation, t->config, V, sha256);
}

// A validation loss that was measured on other windows says nothing about this run's from here on:
// it is measured again before the first step.
static void check_validation_set(Trainer *t)
{
    RunState *progress = &t->progress;
    const char *now = t->validation.set;
    if (now[0] == '\0' || progress->valid_set[0] == '\0' || strcmp(now, progress->valid_set) == 0)
        return;
    log_info("validation reads other text than before: from step %d on its losses are a curve of "
             "their own",
             progress->step);
    progress->valid_loss = NAN;
    progress->valid_step = -1;
}

// What this rank does for itself; what it opens is released by trainer_release(), also after an
// error.
static Status start_own(Trainer *t, const Checkpoint *resumed)
{
    const ModelShape *shape = &t->model->shape;
    const TrainConfig *train = &t->config->train;
    const Trainable trained = config_trained(t->config);
    TRY(partition_create_trained(&t->partition, shape, &trained, t->comm->size, t->comm->rank));
    TRY(partition_create_frozen(&t->frozen, shape, &trained, t->comm->size, t->comm->rank));
    t->schedule = batch_schedule_make(train->global_batch / train->micro_batch, train->sum_groups,
                                      t->comm->size);
    // From here on nothing allocates within a step.
    const HeldModel *teacher = t->context.teacher;
    TRY(memory_allocate(&t->memory, shape, teacher != NULL ? &teacher->model.shape : NULL,
                        &t->partition, &t->schedule, t->config));
    if (teacher != NULL)
        teacher_start(&t->memory.teaching, teacher);
    TRY(trainable_place(&t->grads, shape, &trained, t->memory.flat_grads));
    const ReducerContext exchanged = {.comm = t->comm,
                                      .config = train,
                                      .schedule = &t->schedule,
                                      .partition = &t->partition,
                                      .memory = &t->memory,
                                      .replica = t->replica,
                                      .sends_bf16 = train->compute == COMPUTE_BFLOAT16,
                                      .phases = &t->phases};
    TRY(reducer_start(&t->reducer, &exchanged));
    TRY(open_data(t));
    if (resumed == NULL)
        return OK;
    if (t->comm->rank == 0) // the others have the same data, maybe in files of other names
        TRY(mixture_check_fingerprint(t->mixture, resumed->manifest.data, resumed->dir));
    t->progress = resumed->manifest.state;
    check_validation_set(t);
    TRY(checkpoint_read(resumed, &t->frozen, t->model->params.flat, NULL, NULL));
    return checkpoint_read(resumed, &t->partition, t->model->params.flat, t->memory.m, t->memory.v);
}

Status trainer_start(Trainer *out, const TrainerContext *context, Replica *replica,
                     const Checkpoint *resumed)
{
    *out = (Trainer){
        .context = *context,
        .config = context->config,
        .comm = context->comm,
        .replica = replica,
        .model = &replica->model,
        .progress = {.loss = NAN, .grad_norm = NAN, .valid_loss = NAN, .valid_step = -1},
    };
    Status status;
    TRY_GOTO(release, comm_agree(out->comm, start_own(out, resumed)));
    const CheckpointContext saved = {.config = context->config,
                                     .tokenizer_sha256 = context->tokenizer_sha256,
                                     .data_fingerprint = out->data_fingerprint};
    const CheckpointShard shard = {.partition = &out->partition,
                                   .frozen = &out->frozen,
                                   .params = out->model->params.flat,
                                   .m = out->memory.m,
                                   .v = out->memory.v};
    TRY_GOTO(release,
             saver_open(&out->saver, out->comm, context->run_dir, &saved, out->model, &shard));
    if (resumed != NULL) {
        out->saver.saved_step = resumed->manifest.state.step;
        replica_gather(replica, &out->partition); // each rank has read its shares
        replica_gather(replica, &out->frozen);
    }
    transformer_start(&out->memory.ws, out->model);
    return OK;
release:
    trainer_release(out);
    return status;
}

// The exchange stops first: it reads and writes what follows.
void trainer_release(Trainer *t)
{
    reducer_stop(&t->reducer);
    saver_close(&t->saver);
    validation_close(&t->validation);
    feed_stop(&t->feed);
    mixture_close(t->mixture);
    json_decref(t->data_fingerprint);
    params_release(&t->grads);
    partition_release(&t->frozen);
    partition_release(&t->partition);
    memory_release(&t->memory);
    *t = (Trainer){0};
}

int64_t trainer_step_tokens(const Trainer *t)
{
    return (int64_t)t->config->train.global_batch * t->config->data.seq_len;
}
