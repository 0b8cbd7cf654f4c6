#include "train/checkpoint/checkpoint_shard.h"
#include "train/inspect/inspect.h"

#include <math.h>
#include <stdio.h>

bool inspect_is_checkpoint(const char *dir)
{
    char path[PATH_BYTES];
    return checkpoint_has_manifest(dir) ||
           (checkpoint_shard_path(path, dir, 0) == OK && file_exists(path));
}

static int64_t whole_number(const Checkpoint *checkpoint, const char *key)
{
    return json_integer_value(json_object_get(checkpoint->manifest, key));
}

static void print_progress(const Checkpoint *checkpoint)
{
    const RunState *p = &checkpoint->progress;
    inspect_label("step");
    printf("%d, %.4g M tokens in global batches of %lld sequences\n", p->step,
           (double)whole_number(checkpoint, "tokens") / 1e6,
           (long long)whole_number(checkpoint, "global_batch"));
    if (!isnan(p->loss)) {
        inspect_label("loss");
        printf("%.4f nats per token, gradient norm %.4g\n", p->loss, p->grad_norm);
    }
    if (!isnan(p->valid_loss)) {
        inspect_label("validation");
        printf("%.4f nats per token at step %d\n", p->valid_loss, p->valid_step);
    }
    if (p->spikes.n_skipped > 0) {
        inspect_label("skipped");
        printf("%lld steps, spikes of the gradient norm\n", (long long)p->spikes.n_skipped);
    }
}

static void print_files(const Checkpoint *checkpoint)
{
    char size[INSPECT_SIZE_BYTES];
    int64_t bytes = 0;
    for (int i = 0; i < checkpoint->n_files; i++)
        bytes += checkpoint->files[i].size_bytes;
    inspect_label("files");
    printf("%d, one of each rank that saved it; %s; any number of ranks reads them\n",
           checkpoint->n_files, inspect_size(size, bytes));
}

static Status print_checkpoint(const Checkpoint *checkpoint, bool verify)
{
    const char *name = json_string_value(json_object_get(checkpoint->manifest, "name"));
    const char *base = json_string_value(json_object_get(checkpoint->manifest, "base"));
    char digest[SHA256_HEX_BYTES];
    printf("%s: checkpoint of run %s\n", checkpoint->dir, name != NULL ? name : "?");
    print_progress(checkpoint);
    inspect_label("from");
    printf("%s\n", base != NULL ? base : "random weights");
    inspect_shape(&checkpoint->shape);
    inspect_label("parameters");
    printf("%lld\n", (long long)params_count(&checkpoint->shape));
    print_files(checkpoint);
    if (!verify)
        return OK;
    TRY(checkpoint_verify(checkpoint, 0, 1));
    TRY(checkpoint_digest(digest, checkpoint));
    inspect_label("checksums");
    printf("hold\n");
    inspect_label("state");
    printf("%s (SHA-256 of parameters and moments)\n", digest);
    return OK;
}

Status inspect_checkpoint(const char *dir, bool verify)
{
    Checkpoint checkpoint;
    TRY(checkpoint_open(&checkpoint, dir));
    Status status = print_checkpoint(&checkpoint, verify);
    checkpoint_close(&checkpoint);
    return status;
}
