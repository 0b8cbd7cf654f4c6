// A save has three parts: begin() makes the directory and starts the writer, each rank's thread
// writes its shard, finish() joins it, shares sizes and checksums and has rank 0 write the
// manifest. Only begin() and finish() communicate, both from the loop's thread
// (MPI_THREAD_FUNNELED), and only the manifest makes a checkpoint of the files: a process that dies
// in between leaves a directory without one, which the next save of that step, or the pruning after
// a later one, removes.
//
// A save that fails is tried once more where that may help: if there are checkpoints that its
// success would make superfluous, they are removed first. The newest complete one is never among
// them.
#include "train/checkpoint/saver.h"

#include "base/log.h"
#include "train/checkpoint/retention.h"

#include <hdf5.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Status saver_open(Saver *out, const Comm *comm, const char *run_dir,
                  const CheckpointContext *context, const Model *model,
                  const CheckpointShard *shard)
{
    Saver saver = {
        .comm = comm,
        .run_dir = run_dir,
        .model = model,
        .context = *context,
        .saved_step = -1,
        .shard = *shard,
        .files = calloc((size_t)comm->size, sizeof *saver.files),
        .exchanged = calloc((size_t)comm->size * 2, sizeof *saver.exchanged),
    };
    Status status = OK;
    saver.shard.rank = comm->rank;
    saver.shard.n_ranks = comm->size;
    if (saver.files == NULL || saver.exchanged == NULL)
        status = fail(FAILED, "no memory for %d ranks", comm->size);
    TRY_GOTO(free_lists, comm_agree(comm, status)); // all ranks have the memory, or all return
    *out = saver;
    return OK;
free_lists:
    free(saver.files);
    free(saver.exchanged);
    return status;
}

// The writer's thread. Parameters and moments are read in place, without a copy; saver_finish()
// comes before the next update (train/step.c). What it leaves in the saver is read after
// is_written, or after the join.
static void *write_shard(void *argument)
{
    Saver *saver = argument;
    saver->status =
        checkpoint_shard_write(&saver->files[saver->comm->rank], saver->dir, &saver->shard);
    // The error text belongs to this thread and is gone with it.
    snprintf(saver->text, sizeof saver->text, "%s", saver->status == OK ? "" : fail_text());
    saver->written_s = log_seconds();
    atomic_store(&saver->is_written, true);
    return NULL;
}

// What is left of the failed attempt goes first, so that it does not count as room.
bool saver_make_room(Saver *saver, int step)
{
    int n_removed = 0;
    if (saver->comm->rank == 0 && saver->saved_step >= 0) {
        const CheckpointConfig *config = &saver->context.config->checkpoint;
        char dir[PATH_BYTES], why[512];
        snprintf(why, sizeof why, "%s", fail_text());
        if (saver->saved_step != step && checkpoint_path(dir, saver->run_dir, step) == OK)
            checkpoint_remove(dir);
        n_removed = retention_prune(saver->run_dir, config, config->keep > 1 ? config->keep - 1 : 1,
                                    saver->saved_step);
        if (n_removed > 0)
            log_warn("checkpoint of step %d cannot be written yet: %s; removing %d older, as "
                     "checkpoint.keep would after it, and trying again",
                     step, why, n_removed);
    }
    return !comm_all(saver->comm, n_removed == 0);
}

// A save that failed: its directory is removed, and the run continues or ends, as
// checkpoint.on_error has it. All ranks have the same status from comm_agree(), so all take the
// same way.
static Status abandon(Saver *saver, Status status)
{
    saver->n_failed++;
    char last[64] = "there is none to resume from yet";
    if (saver->comm->rank == 0)
        checkpoint_remove(saver->dir);
    if (saver->saved_step >= 0)
        snprintf(last, sizeof last, "the newest is that of step %d", saver->saved_step);
    if (saver->is_needed || saver->context.config->checkpoint.on_error == SAVE_FAILURE_STOP)
        return fail_within(status, "checkpoint of step %d is not written, %s", saver->state.step,
                           last);
    log_error("checkpoint of step %d is not written, %s, the run continues: %s", saver->state.step,
              last, fail_text());
    return OK;
}

// One rank makes it, and the agreement is also the barrier behind which the others write into it.
static Status make_directory(const Saver *saver)
{
    return comm_agree(saver->comm, saver->comm->rank == 0 ? checkpoint_begin(saver->dir) : OK);
}

// A HDF5 that is not thread-safe may be in use by the loop's thread, which reads shards of tokens;
// then, as where no thread can be had, the training waits for the writing.
static void start_writer(Saver *saver)
{
    hbool_t is_thread_safe = 0;
    H5is_library_threadsafe(&is_thread_safe);
    atomic_store(&saver->is_written, false);
    saver->is_active = true;
    saver->has_thread =
        is_thread_safe && pthread_create(&saver->thread, NULL, write_shard, saver) == 0;
    if (!saver->has_thread)
        write_shard(saver);
}

// `ready` is what the caller agreed on before: an error there counts as one of this save.
Status saver_begin(Saver *saver, const RunState *state, Status ready)
{
    Status status;
    if (saver->is_active)
        TRY(saver_finish(saver));
    saver->state = *state;
    saver->shard.step = state->step;
    saver->started_s = log_seconds();
    // Whatever fails from here on is this save: what it leaves is removed from its own directory.
    TRY(comm_agree(saver->comm, checkpoint_path(saver->dir, saver->run_dir, state->step)));
    TRY_GOTO(failed, ready);
    if (saver->comm->rank == 0 && saver->saved_step != state->step)
        retention_set_aside(saver->run_dir, state->step, state->step);
    status = make_directory(saver);
    if (status != OK && saver_make_room(saver, state->step))
        status = make_directory(saver);
    TRY_GOTO(failed, status);
    start_writer(saver);
    saver->waited_s = log_seconds() - saver->started_s;
    return OK;
failed:
    return abandon(saver, status);
}

static void join(Saver *saver)
{
    if (saver->has_thread)
        pthread_join(saver->thread, NULL);
    saver->has_thread = false;
    saver->is_active = false;
}

// Sizes and checksums of all files, on all ranks: each adds its own to zeros. Both are whole
// numbers below 2^53, which doubles hold.
static void exchange_files(Saver *saver)
{
    const int n = saver->comm->size, rank = saver->comm->rank;
    memset(saver->exchanged, 0, (size_t)n * 2 * sizeof *saver->exchanged);
    saver->exchanged[2 * rank] = (double)saver->files[rank].size_bytes;
    saver->exchanged[2 * rank + 1] = (double)saver->files[rank].crc32;
    comm_sum_doubles(saver->comm, saver->exchanged, 2 * n);
    for (int i = 0; i < n; i++)
        saver->files[i] = (CheckpointFile){(int64_t)saver->exchanged[2 * i],
                                           (uint32_t)saver->exchanged[2 * i + 1]};
}

// Older checkpoints are removed only after the manifest of the new one is on the disk, so there is
// one to resume from at every moment.
static Status publish(Saver *saver)
{
    const CheckpointConfig *config = &saver->context.config->checkpoint;
    if (saver->comm->rank != 0)
        return OK;
    TRY(checkpoint_commit(saver->dir, &saver->state, saver->model, &saver->context, saver->files,
                          saver->comm->size));
    retention_set_aside(saver->run_dir, saver->state.step + 1, INT_MAX);
    retention_prune(saver->run_dir, config, config->keep, saver->state.step);
    return OK;
}

static void log_saved(const Saver *saver)
{
    double bytes = 0;
    for (int i = 0; i < saver->comm->size; i++)
        bytes += (double)saver->files[i].size_bytes;
    log_info("checkpoint of step %d: %.1f MB in %.2f s, the training waited %.2f s",
             saver->state.step, bytes / 1e6, saver->written_s - saver->started_s, saver->waited_s);
}

// The order matters: all files written and synced on all ranks (the agreement), then the sizes and
// checksums, then the manifest.
static Status complete(Saver *saver)
{
    const Status own = saver->status == OK ? OK : fail(saver->status, "%s", saver->text);
    TRY(comm_agree(saver->comm, own));
    exchange_files(saver);
    return comm_agree(saver->comm, publish(saver));
}

// The state is still that of the step, as nothing may change it before saver_finish().
static Status write_again(Saver *saver)
{
    TRY(make_directory(saver));
    start_writer(saver);
    join(saver);
    return complete(saver);
}

Status saver_finish(Saver *saver)
{
    if (!saver->is_active)
        return OK;
    const double start_s = log_seconds();
    join(saver);
    Status status = complete(saver);
    if (status != OK && saver_make_room(saver, saver->state.step))
        status = write_again(saver);
    saver->waited_s += log_seconds() - start_s;
    if (status != OK)
        return abandon(saver, status);
    saver->saved_step = saver->state.step;
    log_saved(saver);
    return OK;
}

// Finishes a save as soon as all ranks have written, so that its manifest does not wait for the
// next save. Collective: comm_all() makes all ranks decide alike.
Status saver_poll(Saver *saver)
{
    if (!saver->is_active || !comm_all(saver->comm, atomic_load(&saver->is_written)))
        return OK;
    return saver_finish(saver);
}

// After an error of the run only the thread is waited for; the files stay without a manifest.
void saver_close(Saver *saver)
{
    if (saver->is_active)
        join(saver);
    free(saver->files);
    free(saver->exchanged);
    *saver = (Saver){0};
}
