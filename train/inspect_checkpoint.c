#include "train/inspect.h"

#include "base/file.h"
#include "train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool has_file(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    return file_join(path, dir, name) == OK && file_exists(path);
}

// By its name, too: one without a manifest is not whole, and is to say so.
bool inspect_is_checkpoint(const char *dir)
{
    size_t length = strlen(dir);
    while (length > 0 && dir[length - 1] == '/')
        length--;
    const char *name = dir + length;
    while (name > dir && name[-1] != '/')
        name--;
    return has_file(dir, "manifest.json") ||
           (strncmp(name, "step-", 5) == 0 && !has_file(dir, "config.json"));
}

int64_t inspect_checkpoint_bytes(const Checkpoint *checkpoint)
{
    int64_t size_bytes = 0;
    for (int i = 0; i < checkpoint->n_files; i++)
        size_bytes += checkpoint->files[i].size_bytes;
    return size_bytes;
}

static void print_progress(const Progress *progress)
{
    inspect_label("step");
    printf("%d\n", progress->step);
    if (!isnan(progress->loss)) {
        inspect_label("loss");
        printf("%.4f nats per token, gradient norm %.3g\n", progress->loss, progress->grad_norm);
    }
    if (progress->valid_step >= 0) {
        inspect_label("validation");
        printf("%.4f nats per token at step %d\n", progress->valid_loss, progress->valid_step);
    }
}

static void print_checkpoint(const Checkpoint *checkpoint)
{
    char size[INSPECT_SIZE_BYTES];
    printf("%s: checkpoint\n", checkpoint->dir);
    print_progress(&checkpoint->progress);
    inspect_shape(&checkpoint->shape);
    inspect_label("tokenizer");
    printf("%s%s\n", checkpoint->tokenizer_sha256[0] != '\0' ? "sha256 " : "not known",
           checkpoint->tokenizer_sha256);
    inspect_label("files");
    printf("%d, of as many ranks, %s\n", checkpoint->n_files,
           inspect_size(size, inspect_checkpoint_bytes(checkpoint)));
}

Status inspect_checkpoint(const char *dir, bool verify)
{
    Checkpoint checkpoint;
    TRY(checkpoint_open(&checkpoint, dir));
    print_checkpoint(&checkpoint);
    const Status status = verify ? checkpoint_verify(&checkpoint, 0, 1) : OK;
    checkpoint_close(&checkpoint);
    TRY(status);
    inspect_label("checksums");
    printf("%s\n",
           verify ? "right in all files" : "the files have their sizes; --verify compares CRC-32");
    return OK;
}
