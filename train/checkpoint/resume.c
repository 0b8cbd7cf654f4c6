// Every rank looks at every checkpoint and they agree on each outcome, so that all resume from the
// same step or none does; where reading is costly, the checksums of the shards, they share it.
#include "train/checkpoint/resume.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

// Collective. The shards' checksums are divided among the ranks; the manifest, a small file, is
// read by all.
Status resume_open(Checkpoint *out, const char *dir, const Comm *comm)
{
    Checkpoint checkpoint = {0};
    Status status;
    TRY_GOTO(close, comm_agree(comm, checkpoint_open(&checkpoint, dir)));
    TRY_GOTO(close, comm_agree(comm, checkpoint_verify(&checkpoint, comm->rank, comm->size)));
    if (!checkpoint.manifest.has_checksum)
        log_warn("%s/manifest.json has no checksum (written by an older version): damage to it may "
                 "not be noticed",
                 dir);
    *out = checkpoint;
    return OK;
close: // a rank that could open it when others could not, too
    checkpoint_close(&checkpoint);
    return status;
}

// A run that has begun has checkpoints, or was ended before its first: that there are none is worth
// a second look, as it would begin anew.
static Status list_checkpoints(int **steps, int *n_steps, const char *run_dir)
{
    char metrics[PATH_BYTES];
    TRY(checkpoint_list(steps, n_steps, run_dir));
    if (*n_steps > 0 || file_join(metrics, run_dir, "metrics.jsonl") != OK || !file_exists(metrics))
        return OK;
    free(*steps);
    checkpoint_wait_for_second_look();
    return checkpoint_list(steps, n_steps, run_dir);
}

// Rank 0's list: another machine may see the directory a little later.
static Status share_list(int **steps, int *n_steps, const char *run_dir, const Comm *comm)
{
    int *list = NULL, n = 0;
    TRY(comm_agree(comm, comm->rank == 0 ? list_checkpoints(&list, &n, run_dir) : OK));
    comm_broadcast(comm, &n, sizeof n, 0);
    if (comm->rank != 0)
        list = calloc((size_t)n + 1, sizeof *list);
    Status status = comm_agree(
        comm, n > 0 && list == NULL ? fail(FAILED, "no memory for %d checkpoints", n) : OK);
    if (status != OK) {
        free(list);
        return status;
    }
    comm_broadcast(comm, list, n * (int64_t)sizeof *list, 0);
    *steps = list;
    *n_steps = n;
    return OK;
}

// What fails is looked at twice: a file that another host has just renamed, or a server that did
// not answer, would otherwise cost the steps since an older checkpoint. Collective.
static Status open_after_second_look(Checkpoint *out, const char *dir, const Comm *comm)
{
    if (resume_open(out, dir, comm) == OK)
        return OK;
    checkpoint_wait_for_second_look();
    return resume_open(out, dir, comm);
}

// The newest of these steps that is whole. One that is damaged or incomplete (BAD_INPUT) is skipped
// with a warning; a machine that fails (FAILED) is an error, as an older checkpoint would not mend
// it.
static Status find_whole(Checkpoint *out, bool *is_found, const int *steps, int n_steps,
                         const char *run_dir, const Comm *comm)
{
    for (int i = 0; i < n_steps; i++) {
        char dir[PATH_BYTES];
        TRY(comm_agree(comm, checkpoint_path(dir, run_dir, steps[i])));
        const Status status = open_after_second_look(out, dir, comm);
        if (status == OK)
            *is_found = true;
        if (status != BAD_INPUT)
            return status;
        log_warn("the checkpoint of step %d is skipped: %s", steps[i], fail_text());
    }
    return OK;
}

// Collective; *is_found is the same on all ranks.
Status resume_find(Checkpoint *out, bool *is_found, const char *run_dir, const Comm *comm)
{
    int *steps, n_steps;
    *is_found = false;
    TRY(share_list(&steps, &n_steps, run_dir, comm));
    const Status status = find_whole(out, is_found, steps, n_steps, run_dir, comm);
    free(steps);
    return status;
}

// Not collective and without the costly checks: a plan needs no more than the shape.
bool resume_original_shape(ModelShape *out, const Config *config)
{
    char run_dir[PATH_BYTES], dir[PATH_BYTES];
    int *steps, n_steps;
    bool is_found = false;
    if (file_join(run_dir, config->run.dir, config->run.name) != OK ||
        checkpoint_list(&steps, &n_steps, run_dir) != OK)
        return false;
    for (int i = 0; i < n_steps && !is_found; i++) {
        Checkpoint checkpoint;
        is_found = checkpoint_path(dir, run_dir, steps[i]) == OK &&
                   checkpoint_open(&checkpoint, dir) == OK;
        if (!is_found)
            continue;
        *out = checkpoint.manifest.shape; // its files may be damaged: the shape is not in them
        checkpoint_close(&checkpoint);
    }
    free(steps);
    if (is_found && config->model.convert.given)
        *out = shape_original(out);
    return is_found;
}

// The pairs are the checkpoint's, so another way of choosing them would only be claimed.
static Status check_rope(const Checkpoint *checkpoint, const Config *config)
{
    const char *saved = checkpoint->manifest.rope;
    const char *now = rope_strategy_name(config->model.convert.rope);
    if (!config->model.convert.given || saved == NULL || strcmp(saved, now) == 0)
        return OK;
    return fail(BAD_INPUT,
                "%s: made with model.convert.rope %s, the config has %s; set it back, or give "
                "the run another run.name",
                checkpoint->dir, saved, now);
}

// The moments of what the run has not trained so far are not there. Other patterns for the same
// tensors are no change.
static Status check_trained(const Checkpoint *checkpoint, const Config *config)
{
    const Trainable saved = checkpoint_trained(checkpoint), now = config_trained(config);
    ParamInfo info;
    if (!trainable_differs(&info, &saved, &now, &checkpoint->manifest.shape))
        return OK;
    const bool was_trained = trainable_has(&saved, info.name);
    return fail(BAD_INPUT,
                "%s: made with a train.trainable that %s %s, the config's %s it; set it back, or "
                "give the run another run.name",
                checkpoint->dir, was_trained ? "trains" : "freezes", info.name,
                was_trained ? "freezes" : "trains");
}

// A directory may have moved, so another path is no error.
static void warn_of_other_base(const Checkpoint *checkpoint, const char *now)
{
    const char *saved = checkpoint->manifest.base;
    if (saved != NULL && now != NULL && strcmp(saved, now) != 0)
        log_warn("model.base is another one than before: the weights stay those of the checkpoint, "
                 "only tokenizer and config.json are taken from %s",
                 now);
}

// What a resumed run must not change: the shape and way of conversion, what is trained, and the
// global batch, which decide what a step is; the data are compared when they are opened
// (train/trainer.c). Everything else may change and is recorded (train/job/config_history.h).
Status resume_check(const Checkpoint *checkpoint, const Config *config, const ModelShape *shape)
{
    const TrainConfig *train = &config->train;
    const Manifest *saved = &checkpoint->manifest;
    TRY(checkpoint_check_shape(checkpoint, shape));
    TRY(check_rope(checkpoint, config));
    TRY(check_trained(checkpoint, config));
    if (saved->global_batch != train->global_batch)
        return fail(BAD_INPUT,
                    "%s: made with train.global_batch %d, the config has %d; set it back, or give "
                    "the run another run.name",
                    checkpoint->dir, saved->global_batch, train->global_batch);
    if (saved->state.step > train->steps)
        return fail(BAD_INPUT,
                    "%s: is of step %d, train.steps is %d; raise it, or give the run another "
                    "run.name",
                    checkpoint->dir, saved->state.step, train->steps);
    warn_of_other_base(checkpoint, config->model.base);
    return OK;
}
