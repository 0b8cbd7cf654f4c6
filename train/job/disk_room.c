#include "train/job/disk_room.h"

#include "base/log.h"
#include "model/hf/safetensors.h"
#include "model/params.h"
#include "train/checkpoint/checkpoint.h"

#include <stdlib.h>
#include <sys/statvfs.h>

int64_t disk_room_checkpoint_bytes(const ModelShape *shape, const Trainable *trained)
{
    const int64_t moments = 2 * trainable_count(trained, shape);
    return (params_count(shape) + moments) * (int64_t)sizeof(float);
}

int64_t disk_room_export_bytes(const ModelShape *shape, DType dtype)
{
    return params_count(shape) * dtype_size_bytes(dtype);
}

int64_t disk_room_n_checkpoints(const Config *config)
{
    const CheckpointConfig *checkpoint = &config->checkpoint;
    const int64_t n_steps = config->train.steps;
    if (checkpoint->every == 0 || n_steps == 0)
        return n_steps > 0 ? 1 : 0; // that of the end
    const int64_t at_start = config->model.convert.given ? 1 : 0;
    const int64_t n_saves = at_start + (n_steps + checkpoint->every - 1) / checkpoint->every;
    const int64_t for_good = checkpoint->keep_every > 0 ? n_steps / checkpoint->keep_every : 0;
    const int64_t n = (int64_t)checkpoint->keep + 1 + for_good;
    return n < n_saves ? n : n_saves;
}

// Those that are there already take no more room.
static int count_complete(const char *run_dir)
{
    int *steps, n_steps, n_complete = 0;
    if (checkpoint_list(&steps, &n_steps, run_dir) != OK)
        return 0;
    for (int i = 0; i < n_steps; i++) {
        char dir[PATH_BYTES];
        if (checkpoint_path(dir, run_dir, steps[i]) == OK && checkpoint_has_manifest(dir))
            n_complete++;
    }
    free(steps);
    return n_complete;
}

void disk_room_check(const char *run_dir, const Config *config, const ModelShape *shape)
{
    struct statvfs disk;
    if (statvfs(run_dir, &disk) != 0)
        return;
    const int64_t n_more = disk_room_n_checkpoints(config) - count_complete(run_dir);
    const int64_t n = n_more > 0 ? n_more : 0;
    const Trainable trained = config_trained(config);
    const double checkpoint_bytes = (double)disk_room_checkpoint_bytes(shape, &trained);
    const double export_bytes = (double)disk_room_export_bytes(shape, config->run.export_dtype);
    const double needed = (double)n * checkpoint_bytes + export_bytes;
    const double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    if (free_bytes >= needed)
        return;
    log_warn(
        "%s: %.1f MB are free on its disk, the run needs %.1f MB at most: %lld more checkpoints "
        "of %.1f MB (checkpoint.keep %d and the one being written) and the model of %.1f MB; "
        "make room, or saves may fail",
        run_dir, free_bytes / 1e6, needed / 1e6, (long long)n, checkpoint_bytes / 1e6,
        config->checkpoint.keep, export_bytes / 1e6);
}
