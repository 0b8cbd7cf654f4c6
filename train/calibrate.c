#include "train/calibrate.h"

#include "base/progress.h"
#include "eval/forward_pass.h"
#include "train/parallel/watchdog.h"
#include "train/stop.h"

#include <math.h>
#include <string.h>

// Adds a sample's sums, rounded to 2^-24: sums of such numbers are exact below 2^29, so the same
// pairs are chosen on any number of ranks. A sample's sum is of the order of its tokens, so that
// the rounding is far below what float sums before it.
static void add_exactly(RopeScores *sum, const RopeScores *sample)
{
    const int64_t count = rope_scores_count(&sum->shape);
    for (int64_t i = 0; i < count; i++)
        sum->block[i] += nearbyint(sample->block[i] * 0x1p24) * 0x1p-24;
}

static Status read_sample(RopeScores *sum, RopeScores *sample, ForwardPass *pass,
                          const Model *original, Mixture *mixture, int64_t index)
{
    TRY(stop_check());
    TRY(mixture_read(mixture, index, pass->batch.sample));
    batch_set(&pass->batch, 0);
    memset(sample->block, 0, (size_t)rope_scores_count(&sum->shape) * sizeof(double));
    transformer_forward(&pass->ws, original, pass->batch.inputs, sample);
    add_exactly(sum, sample);
    return OK;
}

// The ranks go together, sample by sample, so that all leave when one is asked to stop.
static Status read_samples(RopeScores *sum, const Comm *comm, const Model *original,
                           Mixture *mixture, int n_samples, int seq_len)
{
    ForwardPass pass = {0};
    RopeScores sample = {0};
    ProgressMeter meter = progress_start("calibration", "samples", n_samples);
    Status status = rope_scores_create(&sample, &original->shape);
    if (status == OK)
        status = forward_pass_start(&pass, original, seq_len);
    TRY_GOTO(release, comm_agree(comm, status));
    for (int64_t i = 0; i < n_samples; i += comm->size) {
        watchdog_phase("calibration", 0);
        if (i + comm->rank < n_samples)
            status = read_sample(sum, &sample, &pass, original, mixture, i + comm->rank);
        TRY_GOTO(release, comm_agree(comm, status));
        progress_show(&meter, i + comm->size);
    }
release:
    progress_end(&meter);
    rope_scores_release(&sample);
    forward_pass_release(&pass);
    return status;
}

Status calibrate_run(RopeScores *out, const Comm *comm, const Model *original, Mixture *mixture,
                     int n_samples, int seq_len)
{
    RopeScores scores = {0};
    Status status = comm_agree(comm, rope_scores_create(&scores, &original->shape));
    if (status == OK)
        status = read_samples(&scores, comm, original, mixture, n_samples, seq_len);
    TRY_GOTO(release_scores, status);
    comm_sum_doubles(comm, scores.block, rope_scores_count(&original->shape));
    *out = scores;
    return OK;
release_scores:
    rope_scores_release(&scores);
    return status;
}
