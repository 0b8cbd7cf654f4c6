// All but the last lines come from the manifest, which is small; --verify reads every file, once
// for its CRC-32 and once for the digest of the state.
#include "train/checkpoint/checkpoint_shard.h"
#include "train/inspect/inspect.h"

#include <math.h>
#include <stdio.h>

// A first shard without a manifest is a save that was interrupted; it is taken for a checkpoint
// too, so that the error says what is missing.
bool inspect_is_checkpoint(const char *dir)
{
    char path[PATH_BYTES];
    return checkpoint_has_manifest(dir) ||
           (checkpoint_shard_path(path, dir, 0) == OK && file_exists(path));
}

// NaN stands for a value that was not measured yet.
static void print_state(const Manifest *manifest)
{
    const RunState *state = &manifest->state;
    inspect_label("step");
    printf("%d, %.4g M tokens in global batches of %d sequences\n", state->step,
           (double)manifest->tokens / 1e6, manifest->global_batch);
    inspect_label("products");
    printf("in %s\n", compute_name(manifest->compute));
    if (!isnan(state->loss)) {
        inspect_label("loss");
        printf("%.4f nats per token, gradient norm %.4g\n", state->loss, state->grad_norm);
    }
    if (!isnan(state->valid_loss)) {
        inspect_label("validation");
        printf("%.4f nats per token at step %d\n", state->valid_loss, state->valid_step);
    }
    if (state->spikes.n_skipped > 0) {
        inspect_label("skipped");
        printf("%lld steps, spikes of the gradient norm\n", (long long)state->spikes.n_skipped);
    }
}

// The manifest's own checksum was compared when it was opened; version 1 had none.
static void print_files(const Manifest *manifest)
{
    char size[INSPECT_SIZE_BYTES];
    int64_t bytes = 0;
    for (int i = 0; i < manifest->n_files; i++)
        bytes += manifest->files[i].size_bytes;
    inspect_label("manifest");
    printf("%s\n", manifest->has_checksum ? "its checksum holds"
                                          : "has no checksum (written by an older version)");
    inspect_label("files");
    printf("%d, one of each rank that saved it; %s; any number of ranks reads them\n",
           manifest->n_files, inspect_size(size, bytes));
}

static Status print_checkpoint(const Checkpoint *checkpoint, bool verify)
{
    const Manifest *manifest = &checkpoint->manifest;
    char digest[SHA256_HEX_BYTES];
    printf("%s: checkpoint of run %s\n", checkpoint->dir, manifest->name);
    print_state(manifest);
    inspect_label("from");
    printf("%s\n", manifest->base != NULL ? manifest->base : "random weights");
    inspect_shape(&manifest->shape);
    inspect_label("parameters");
    printf("%lld", (long long)params_count(&manifest->shape));
    const Trainable trained = checkpoint_trained(checkpoint);
    if (!trainable_has_all(&trained, &manifest->shape))
        printf(", trained %lld", (long long)trainable_count(&trained, &manifest->shape));
    putchar('\n');
    print_files(manifest);
    if (!verify)
        return OK;
    // One process reads all files. CRC-32 finds damage; the digest is over the numbers alone, so it
    // is equal for checkpoints of one state that different numbers of ranks have written.
    TRY(checkpoint_verify(checkpoint, 0, 1));
    TRY(checkpoint_digest(digest, checkpoint));
    inspect_label("checksums");
    printf("hold\n");
    inspect_label("state");
    printf("%s (SHA-256 of parameters and moments)\n", digest);
    return OK;
}

// Opening has already held every file to the size in the manifest.
Status inspect_checkpoint(const char *dir, bool verify)
{
    Checkpoint checkpoint;
    TRY(checkpoint_open(&checkpoint, dir));
    Status status = print_checkpoint(&checkpoint, verify);
    checkpoint_close(&checkpoint);
    return status;
}
