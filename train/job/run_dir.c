// Rank 0 takes the lock before anything else is looked at, so what is read afterwards does not
// change any more: another job in the same directory is refused before it has written anything.
#include "train/job/run_dir.h"

#include "base/file.h"
#include "base/log.h"
#include "base/temporary.h"
#include "train/checkpoint/retention.h"
#include "train/job/run_json.h"
#include "train/parallel/shared_dir.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

// Rank 0 alone: flock() would refuse the other ranks of the same run.
static Status lock_dir(RunDir *dir, const Comm *comm)
{
    TRY(file_make_dirs(dir->path));
    TRY(run_lock_take(&dir->lock, dir->path, comm->host));
    temporary_remove_all(dir->path); // of a run here that was killed while it wrote
    return OK;
}

// A run that is there is never written over: neither with --resume never nor where none of its
// checkpoints is readable, as the first checkpoint of a new run would remove them.
static Status check_empty(const RunDir *dir, ResumeMode mode)
{
    char metrics[PATH_BYTES];
    bool has_checkpoints;
    TRY(file_join(metrics, dir->path, "metrics.jsonl"));
    if (mode == RESUME_REQUIRE)
        return fail(BAD_INPUT, "%s: has no checkpoint to resume from; start with --resume auto",
                    dir->path);
    TRY(checkpoint_has_any(&has_checkpoints, dir->path));
    if (mode == RESUME_NEVER && (has_checkpoints || file_exists(metrics)))
        return fail(BAD_INPUT, "%s: there is a run already; remove it or set --run.name",
                    dir->path);
    if (has_checkpoints)
        return fail(BAD_INPUT,
                    "%s: none of its checkpoints can be resumed from; restore them, or remove "
                    "%s/checkpoints to start from the beginning",
                    dir->path, dir->path);
    return OK;
}

// That of a run whose other files were removed: compare would show it as this one's.
static Status remove_evaluation(const RunDir *dir)
{
    char path[PATH_BYTES];
    TRY(file_join(path, dir->path, "eval.json"));
    if (unlink(path) == 0)
        log_info("%s: of an earlier run, removed", path);
    else if (errno != ENOENT)
        return fail(FAILED, "%s: of an earlier run, cannot be removed: %s", path, strerror(errno));
    return OK;
}

static Status start_empty(const RunDir *dir, ResumeMode mode)
{
    TRY(check_empty(dir, mode));
    return remove_evaluation(dir);
}

// A checkpoint that somebody copied from another run would replace this one's model by that of the
// other, of the same shape. A run that was renamed is another matter: run.json knows its names.
static Status check_name(const RunDir *dir, const char *now)
{
    const char *saved = dir->checkpoint.manifest.name;
    if (strcmp(saved, now) == 0 || run_json_has_name(dir, saved))
        return OK;
    return fail(BAD_INPUT,
                "%s: is of the run '%s', not of '%s'; remove it, or copy the whole directory of "
                "'%s', with its run.json, to go on from there under another name",
                dir->checkpoint.dir, saved, now, saved);
}

// Collective. What was opened before an error is released by run_dir_close().
Status run_dir_open(RunDir *out, const Config *config, ResumeMode mode, const ModelShape *shape,
                    const Comm *comm)
{
    *out = (RunDir){0};
    Status status = file_join(out->path, config->run.dir, config->run.name);
    if (status == OK && comm->rank == 0)
        status = lock_dir(out, comm);
    TRY(comm_agree(comm, status));
    if (comm->rank == 0)
        shared_dir_clear(out->path);
    TRY(shared_dir_check(comm, out->path)); // each rank writes its part of a checkpoint there
    if (mode != RESUME_NEVER)
        TRY(resume_find(&out->checkpoint, &out->is_resumed, out->path, comm));
    if (!out->is_resumed)
        return comm_agree(comm, comm->rank == 0 ? start_empty(out, mode) : OK);
    log_info("resuming %s from step %d, saved by %d ranks", out->path,
             out->checkpoint.manifest.state.step, out->checkpoint.manifest.n_files);
    TRY(comm_agree(comm, comm->rank == 0 ? check_name(out, config->run.name) : OK));
    TRY(comm_agree(comm, resume_check(&out->checkpoint, config, shape)));
    // A run that was killed between its last save and the removal of older ones has one too many.
    if (comm->rank == 0)
        retention_prune(out->path, &config->checkpoint, config->checkpoint.keep,
                        out->checkpoint.manifest.state.step);
    return OK;
}

void run_dir_close(RunDir *dir)
{
    checkpoint_close(&dir->checkpoint);
    file_lock_release(&dir->lock);
    *dir = (RunDir){0};
}
