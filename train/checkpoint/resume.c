#include "train/checkpoint/resume.h"

#include "base/log.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static Status open_and_verify(Checkpoint *out, const char *dir, const Comm *comm)
{
    Status status = comm_agree(comm, checkpoint_open(out, dir));
    if (status == OK)
        status = comm_agree(comm, checkpoint_verify(out, comm->rank, comm->size));
    if (status != OK)
        checkpoint_close(out);
    return status;
}

// Rank 0's list: another machine may see the directory a little later.
static Status share_list(int **steps, int *n_steps, const char *run_dir, const Comm *comm)
{
    int *list = NULL, n = 0;
    TRY(comm_agree(comm, comm->rank == 0 ? checkpoint_list(&list, &n, run_dir) : OK));
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

Status resume_find(Checkpoint *out, bool *is_found, const char *run_dir, const Comm *comm)
{
    int *steps, n_steps;
    *is_found = false;
    TRY(share_list(&steps, &n_steps, run_dir, comm));
    Status status = OK;
    for (int i = 0; i < n_steps && !*is_found; i++) {
        char dir[PATH_BYTES];
        Checkpoint checkpoint = {0};
        status = checkpoint_path(dir, run_dir, steps[i]);
        if (status == OK)
            status = open_and_verify(&checkpoint, dir, comm);
        if (status == OK) {
            *out = checkpoint;
            *is_found = true;
        } else if (status == BAD_INPUT) {
            log_warn("the checkpoint of step %d is skipped: %s", steps[i], fail_text());
            status = OK;
        } else {
            break;
        }
    }
    free(steps);
    return status;
}

bool resume_recall_original(ModelShape *out, const Config *config)
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
        *out = checkpoint.shape;
        checkpoint_close(&checkpoint);
    }
    free(steps);
    if (is_found && config->model.convert.given) {
        out->rope_pairs = out->head_dim / 2;
        out->d_kv = 0;
        out->svd = SVD_JOINT;
    }
    return is_found;
}

static Status check_number(const Checkpoint *checkpoint, const char *key, const char *config_key,
                           int64_t now)
{
    int64_t saved;
    TRY(json_get_int(&saved, checkpoint->manifest, checkpoint->dir, key, 0, INT_MAX));
    if (saved == now)
        return OK;
    return fail(BAD_INPUT,
                "%s: made with %s %lld, the config has %lld; set it back, or give the run another "
                "run.name",
                checkpoint->dir, config_key, (long long)saved, (long long)now);
}

// The pairs are the checkpoint's, so another way of choosing them would only be claimed.
static Status check_rope(const Checkpoint *checkpoint, const Config *config)
{
    const json_t *saved = json_object_get(checkpoint->manifest, "rope");
    const char *now = rope_strategy_name(config->model.convert.rope);
    if (!config->model.convert.given || !json_is_string(saved) ||
        strcmp(json_string_value(saved), now) == 0)
        return OK;
    return fail(BAD_INPUT,
                "%s: made with model.convert.rope %.40s, the config has %s; set it back, or give "
                "the run another run.name",
                checkpoint->dir, json_string_value(saved), now);
}

// A directory may have moved, so this is no error.
static void warn_of_other_base(const Checkpoint *checkpoint, const char *now)
{
    const char *saved = json_string_value(json_object_get(checkpoint->manifest, "base"));
    if (saved != NULL && now != NULL && strcmp(saved, now) != 0)
        log_warn("model.base was %.500s, now %.500s: the weights are those of the checkpoint, only "
                 "tokenizer and config.json are the new one's",
                 saved, now);
}

Status resume_check(const Checkpoint *checkpoint, const Config *config, const ModelShape *shape)
{
    const TrainConfig *train = &config->train;
    TRY(checkpoint_check_shape(checkpoint, shape));
    TRY(check_rope(checkpoint, config));
    TRY(check_number(checkpoint, "global_batch", "train.global_batch", train->global_batch));
    if (checkpoint->progress.step > train->steps)
        return fail(BAD_INPUT,
                    "%s: is of step %d, train.steps is %d; raise it, or give the run another "
                    "run.name",
                    checkpoint->dir, checkpoint->progress.step, train->steps);
    warn_of_other_base(checkpoint, config->model.base);
    return OK;
}
