// Only what is certain is acted on: a manifest counts as missing, and a file as damaged, after a
// second look.
#include "train/checkpoint/retention.h"

#include "base/log.h"
#include "train/checkpoint/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char suffix[] = ".skipped"; // behind the name of what is set aside

// The step of "step-00000500.skipped"; -1: another name.
static int skipped_step_of(const char *name)
{
    char step[32];
    const size_t length = strlen(name), cut = length - (sizeof suffix - 1);
    if (length < sizeof suffix || cut >= sizeof step || strcmp(name + cut, suffix) != 0)
        return -1;
    memcpy(step, name, cut);
    step[cut] = '\0';
    return checkpoint_step_of(step);
}

// The run has the same progress, or more, in checkpoints of its own.
static void remove_skipped(const char *run_dir, int last_step)
{
    char parent[PATH_BYTES], path[PATH_BYTES];
    if (file_join(parent, run_dir, "checkpoints") != OK)
        return;
    DIR *entries = opendir(parent);
    if (entries == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        const int step = skipped_step_of(entry->d_name);
        if (step >= 0 && step <= last_step && file_join(path, parent, entry->d_name) == OK)
            checkpoint_remove(path);
    }
    closedir(entries);
}

// Step 0 is a multiple of everything and the start of nothing worth keeping.
int retention_prune(const char *run_dir, const CheckpointConfig *config, int n_newest,
                    int last_step)
{
    int *steps, n_steps, n_kept = 0, n_removed = 0;
    if (checkpoint_list(&steps, &n_steps, run_dir) != OK)
        return 0;
    for (int i = 0; i < n_steps; i++) {
        char dir[PATH_BYTES];
        if (checkpoint_path(dir, run_dir, steps[i]) != OK)
            continue;
        const bool is_finished = !checkpoint_is_unfinished(dir);
        const bool is_for_good =
            config->keep_every > 0 && steps[i] > 0 && steps[i] % config->keep_every == 0;
        if (is_finished && (steps[i] > last_step || is_for_good || n_kept < n_newest)) {
            n_kept += steps[i] <= last_step;
            continue;
        }
        checkpoint_remove(dir);
        n_removed++;
    }
    free(steps);
    remove_skipped(run_dir, last_step);
    return n_removed;
}

// Whether all of it is there, can be read, and is not what it must be.
static bool is_damaged(const char *dir)
{
    Checkpoint checkpoint;
    Status status = checkpoint_open(&checkpoint, dir);
    if (status == OK) {
        status = checkpoint_verify(&checkpoint, 0, 1);
        checkpoint_close(&checkpoint);
    }
    return status == BAD_INPUT && checkpoint_can_be_read(dir);
}

static void set_aside(const char *dir, int step)
{
    char aside[PATH_BYTES];
    if (snprintf(aside, sizeof aside, "%s%s", dir, suffix) >= PATH_BYTES)
        return;
    checkpoint_remove(aside); // of an earlier life, so its history is the older one
    if (rename(dir, aside) != 0)
        log_warn("%s: was skipped at the resume and cannot be renamed: %s", dir, strerror(errno));
    else
        log_warn("the checkpoint of step %d, which was skipped, is kept as %s until the run has "
                 "saved this step itself",
                 step, aside);
}

void retention_set_aside(const char *run_dir, int first, int last)
{
    int *steps, n_steps;
    if (checkpoint_list(&steps, &n_steps, run_dir) != OK)
        return;
    for (int i = 0; i < n_steps; i++) {
        char dir[PATH_BYTES];
        if (steps[i] < first || steps[i] > last || checkpoint_path(dir, run_dir, steps[i]) != OK ||
            checkpoint_is_unfinished(dir))
            continue;
        if (is_damaged(dir))
            checkpoint_remove(dir);
        else
            set_aside(dir, steps[i]);
    }
    free(steps);
}
