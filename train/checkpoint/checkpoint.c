// The directory of a checkpoint: what is in it is written by checkpoint_shard.c and
// manifest_write.c, and put together here for any number of ranks.
#include "train/checkpoint/checkpoint.h"

#include "train/checkpoint/checkpoint_shard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// ---- the manifest ------------------------------------------------------------------------------

static Status manifest_path(char out[PATH_BYTES], const char *dir)
{
    return file_join(out, dir, "manifest.json");
}

Status checkpoint_commit(const char *dir, const RunState *state, const Model *model,
                         const CheckpointContext *context, const CheckpointFile *files, int n_files)
{
    char path[PATH_BYTES];
    TRY(manifest_path(path, dir));
    return manifest_write(path, state, model, context, files, n_files);
}

#define INCOMPLETE "the checkpoint is incomplete"

// A file that is there and cannot be read now (no permission, a server that is away) says nothing
// of the checkpoint: it is a failure of the machine, not damage that resuming may go back behind.
// One that is missing, with this consequence, may be back later, too.
static Status check_readable(const char *path, const char *consequence)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 && errno == ENOENT)
        return fail(BAD_INPUT, "%s: is missing: %s", path, consequence);
    if (file < 0)
        return fail(
            FAILED,
            "%s: cannot be read now: %s; its checkpoint is not skipped for that: start again "
            "when it can be read, or remove the checkpoint",
            path, strerror(errno));
    close(file);
    return OK;
}

// The file is there and of its size; its CRC-32 is another matter (checkpoint_verify).
static Status check_file(const Checkpoint *checkpoint, int index)
{
    const int64_t expected = checkpoint->manifest.files[index].size_bytes;
    char path[PATH_BYTES];
    struct stat st;
    TRY(checkpoint_shard_path(path, checkpoint->dir, index));
    TRY(check_readable(path, INCOMPLETE));
    if (stat(path, &st) != 0)
        return fail(BAD_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    if (st.st_size != expected)
        return fail(BAD_INPUT, "%s: has %lld bytes, the manifest says %lld", path,
                    (long long)st.st_size, (long long)expected);
    return OK;
}

// Cheap: the manifest and the sizes of the files, so that a list of checkpoints can be opened one
// by one. What is in the files is read by checkpoint_verify().
Status checkpoint_open(Checkpoint *out, const char *dir)
{
    Checkpoint checkpoint = {0};
    char path[PATH_BYTES];
    Status status;
    TRY(manifest_path(path, dir));
    snprintf(checkpoint.dir, sizeof checkpoint.dir, "%s", dir); // shorter than the path
    TRY(check_readable(path, "the checkpoint was not finished"));
    TRY(manifest_read(&checkpoint.manifest, path));
    for (int i = 0; i < checkpoint.manifest.n_files; i++)
        TRY_GOTO(close, check_file(&checkpoint, i));
    *out = checkpoint;
    return OK;
close:
    checkpoint_close(&checkpoint);
    return status;
}

void checkpoint_close(Checkpoint *checkpoint)
{
    manifest_release(&checkpoint->manifest);
    *checkpoint = (Checkpoint){0};
}

// ---- the numbers -------------------------------------------------------------------------------

// Files first, first + stride, ...: the ranks of a resume share the reading.
Status checkpoint_verify(const Checkpoint *checkpoint, int first, int stride)
{
    const Manifest *manifest = &checkpoint->manifest;
    for (int i = first; i < manifest->n_files; i += stride) {
        char path[PATH_BYTES];
        uint32_t crc32;
        int64_t size_bytes;
        TRY(checkpoint_shard_path(path, checkpoint->dir, i));
        TRY(check_readable(path, INCOMPLETE));
        TRY(checksum_crc32_file(&crc32, &size_bytes, path));
        if (crc32 != manifest->files[i].crc32)
            return fail(BAD_INPUT, "%s: is damaged: CRC-32 %08x, the manifest says %08x", path,
                        crc32, manifest->files[i].crc32);
    }
    return OK;
}

// The first field that differs is named, in the order of the table; a run cannot go from one shape
// to another.
Status checkpoint_check_shape(const Checkpoint *checkpoint, const ModelShape *shape)
{
    const ModelShape *saved = &checkpoint->manifest.shape;
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        char before[SHAPE_TEXT_BYTES], now[SHAPE_TEXT_BYTES];
        if (shape_field_is_same(field, saved, shape))
            continue;
        return fail(BAD_INPUT,
                    "%s: its model has %s %s, the config's %s; set it back, or give the run "
                    "another run.name",
                    checkpoint->dir, field->name, shape_field_format(before, field, saved),
                    shape_field_format(now, field, shape));
    }
    return OK;
}

void checkpoint_copy_pairs(Model *model, const Checkpoint *checkpoint)
{
    const ModelShape *s = &checkpoint->manifest.shape;
    const int64_t count = model_n_pairs(s);
    memcpy(model->rope_pairs, checkpoint->manifest.rope_pairs,
           (size_t)count * sizeof *model->rope_pairs);
}

// Every file is opened, as only its /ranges say which part of the flat vector it has; from each the
// part that belongs to `partition` is read. So the ranks that wrote and the ranks that read need
// not be equal in number.
Status checkpoint_read(const Checkpoint *checkpoint, const Partition *partition, float *params,
                       float *m, float *v)
{
    int64_t n_read = 0;
    for (int i = 0; i < checkpoint->manifest.n_files; i++) {
        char path[PATH_BYTES];
        const CheckpointShard expected = {.step = checkpoint->manifest.state.step,
                                          .rank = i,
                                          .n_ranks = checkpoint->manifest.n_files,
                                          .partition = partition};
        TRY(checkpoint_shard_path(path, checkpoint->dir, i));
        TRY(checkpoint_shard_read(&n_read, path, &expected, params, m, v));
    }
    // Ranges of the ranks that wrote do not overlap, so as many numbers as wanted are all of them.
    if (n_read != partition->own_count)
        return fail(BAD_INPUT, "%s: its files hold %lld of %lld parameters", checkpoint->dir,
                    (long long)n_read, (long long)partition->own_count);
    return OK;
}

Trainable checkpoint_trained(const Checkpoint *checkpoint)
{
    const Manifest *manifest = &checkpoint->manifest;
    return (Trainable){manifest->trainable, manifest->n_trainable};
}

// ---- directories -------------------------------------------------------------------------------

Status checkpoint_path(char out[PATH_BYTES], const char *run_dir, int step)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoints/step-%08d", step);
    return file_join(out, run_dir, name);
}

// The manifest is the last thing a save writes, by rename: where it is, the files are whole unless
// they were damaged later.
bool checkpoint_has_manifest(const char *dir)
{
    char path[PATH_BYTES];
    return manifest_path(path, dir) == OK && file_exists(path);
}

void checkpoint_wait_for_second_look(void)
{
    const struct timespec moment = {.tv_nsec = 300 * 1000 * 1000};
    nanosleep(&moment, NULL);
}

// ENOTDIR: somebody's file has the directory's name.
bool checkpoint_is_unfinished(const char *dir)
{
    char path[PATH_BYTES];
    if (manifest_path(path, dir) != OK)
        return false;
    for (int look = 0; look < 2; look++) {
        if (look > 0)
            checkpoint_wait_for_second_look();
        if (access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR))
            return false;
    }
    return true;
}

bool checkpoint_can_be_read(const char *dir)
{
    char path[PATH_BYTES];
    Manifest manifest;
    if (manifest_path(path, dir) != OK || check_readable(path, INCOMPLETE) != OK)
        return false;
    if (manifest_read(&manifest, path) != OK) // it says nothing of files
        return true;
    bool can_be_read = true;
    for (int i = 0; i < manifest.n_files && can_be_read; i++)
        can_be_read =
            checkpoint_shard_path(path, dir, i) == OK && check_readable(path, INCOMPLETE) == OK;
    manifest_release(&manifest);
    return can_be_read;
}

// The manifest goes first: a removal that is interrupted leaves a directory that counts as
// unfinished, never one that looks whole and lacks files. Only files are removed: a checkpoint has
// no directories, and what else somebody put there is not this program's to remove with all that is
// in it.
void checkpoint_remove(const char *dir)
{
    char path[PATH_BYTES];
    if (manifest_path(path, dir) == OK)
        unlink(path);
    DIR *entries = opendir(dir);
    if (entries == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            file_join(path, dir, entry->d_name) == OK)
            unlink(path);
    closedir(entries);
    rmdir(dir);
}

// An earlier attempt at the same step is removed: without a manifest nothing in it can be used.
Status checkpoint_begin(const char *dir)
{
    char parent[PATH_BYTES];
    if (file_exists(dir))
        checkpoint_remove(dir);
    TRY(file_make_dirs(dir));
    // The directory's own entry: older checkpoints go once the files in it are on the disk.
    snprintf(parent, sizeof parent, "%s", dir);
    TRY(file_sync_dir(dirname(parent)));
    // dirname() has cut `parent` in place, so this is the run directory, whose entry "checkpoints"
    // may be new as well.
    return file_sync_dir(dirname(parent));
}

// For qsort(): newest first, as a resume wants the newest checkpoint that is whole.
static int descending(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;
    return (x < y) - (x > y);
}

int checkpoint_step_of(const char *name)
{
    static const char prefix[] = "step-";
    const char *digits = name + sizeof prefix - 1;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || strlen(digits) < 8 ||
        strlen(digits) > 10 || strspn(digits, "0123456789") != strlen(digits) ||
        (strlen(digits) > 8 && digits[0] == '0')) // a second name of a step
        return -1;
    const long step = strtol(digits, NULL, 10);
    return step <= INT_MAX ? (int)step : -1;
}

// Appends the steps that the names in a directory say. A list that ends early for an error would
// hide the newest checkpoint.
static Status list_steps(int **steps, int *n_steps, DIR *entries, const char *path)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(entries);
        if (entry == NULL && errno != 0)
            return fail(FAILED, "%s: cannot be read now: %s; start again when it can", path,
                        strerror(errno));
        if (entry == NULL)
            return OK;
        const int step = checkpoint_step_of(entry->d_name);
        if (step < 0)
            continue;
        int *more = realloc(*steps, (size_t)(*n_steps + 1) * sizeof **steps);
        if (more == NULL)
            return fail(FAILED, "%s: no memory for its names", path);
        *steps = more;
        (*steps)[(*n_steps)++] = step;
    }
}

// No directory is no checkpoint; any other error of opendir() is one, as a resume must not take a
// run that it cannot read for a new one.
Status checkpoint_list(int **steps, int *n_steps, const char *run_dir)
{
    char path[PATH_BYTES];
    int *list = NULL, n = 0;
    *steps = NULL;
    *n_steps = 0;
    TRY(file_join(path, run_dir, "checkpoints"));
    DIR *entries = opendir(path);
    if (entries == NULL)
        return errno == ENOENT ? OK
                               : fail(BAD_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    Status status = list_steps(&list, &n, entries, path);
    closedir(entries);
    if (status != OK) {
        free(list);
        return status;
    }
    if (n > 1)
        qsort(list, (size_t)n, sizeof *list, descending);
    *steps = list;
    *n_steps = n;
    return OK;
}

Status checkpoint_has_any(bool *out, const char *run_dir)
{
    int *steps, n_steps;
    bool has_any = false;
    TRY(checkpoint_list(&steps, &n_steps, run_dir));
    for (int i = 0; i < n_steps && !has_any; i++) {
        char dir[PATH_BYTES];
        has_any = checkpoint_path(dir, run_dir, steps[i]) == OK && checkpoint_has_manifest(dir);
    }
    free(steps);
    *out = has_any;
    return OK;
}

// ---- all of it ---------------------------------------------------------------------------------

// Export reads with one process, whatever the number of ranks that wrote: a partition of one.
Status checkpoint_load_model(Model *out, const Checkpoint *checkpoint)
{
    const ModelShape *shape = &checkpoint->manifest.shape;
    Partition whole;
    Model model;
    Status status;
    TRY(partition_create(&whole, shape, 1, 0));
    TRY_GOTO(release_partition, model_create(&model, shape));
    checkpoint_copy_pairs(&model, checkpoint);
    TRY_GOTO(release_model, checkpoint_read(checkpoint, &whole, model.params.flat, NULL, NULL));
    *out = model;
    goto release_partition;
release_model:
    model_release(&model);
release_partition:
    partition_release(&whole);
    return status;
}

// Over parameters, first and second moments in the order of the flat vector: equal for equal
// states, whatever the number of ranks and files.
Status checkpoint_digest(char out[SHA256_HEX_BYTES], const Checkpoint *checkpoint)
{
    const ModelShape *shape = &checkpoint->manifest.shape;
    const Trainable trained = checkpoint_trained(checkpoint);
    const int64_t count = params_count(shape);
    Partition moved = {0}, frozen = {0};
    float *state = NULL;
    Status status;
    TRY_GOTO(release, partition_create_trained(&moved, shape, &trained, 1, 0));
    TRY_GOTO(release, partition_create_frozen(&frozen, shape, &trained, 1, 0));
    // SHA-256 goes over one piece of memory, so all three vectors are in memory together.
    const int64_t n = count + 2 * moved.own_count;
    state = calloc((size_t)n, sizeof *state);
    if (state == NULL) {
        status = fail(FAILED, "%s: no memory for %lld floats", checkpoint->dir, (long long)n);
        goto release;
    }
    TRY_GOTO(release, checkpoint_read(checkpoint, &moved, state, state + count,
                                      state + count + moved.own_count));
    TRY_GOTO(release, checkpoint_read(checkpoint, &frozen, state, NULL, NULL));
    status = checksum_sha256_bytes(out, state, n * (int64_t)sizeof *state);
release:
    free(state);
    partition_release(&frozen);
    partition_release(&moved);
    return status;
}
