// The statistics behind the 2-norm selection are sums over samples, so the ranks take samples in
// turn (sample i by rank i mod N) and add their sums up at the end. What needs care is that the
// sums be the same for any number of ranks: see add_exactly().
#include "train/calibrate.h"

#include "base/progress.h"
#include "eval/forward_pass.h"
#include "train/parallel/watchdog.h"
#include "train/stop.h"

#include <math.h>
#include <string.h>

// What a rank needs to read samples, and its sums so far.
typedef struct Calibration {
    const Model *original; // borrowed
    Mixture *mixture;      // borrowed
    ForwardPass pass;
    RopeScores sample; // sums of one sample
    RopeScores sums;   // of this rank's samples
} Calibration;

// Adds a sample's sums, rounded to multiples of 2^-24. Doubles add such numbers exactly below 2^29,
// in any order, so the same pairs are chosen on any number of ranks. A sample's sum is of the order
// of its tokens, so the rounding is far below that of the float sums before it.
static void add_exactly(RopeScores *sums, const RopeScores *sample)
{
    const int64_t count = rope_scores_count(&sums->shape);
    for (int64_t i = 0; i < count; i++)
        sums->block[i] += nearbyint(sample->block[i] * 0x1p24) * 0x1p-24;
}

// Sums of one sample alone, so that they can be rounded before they meet others.
static Status read_sample(Calibration *c, int64_t index)
{
    TRY(stop_check());
    TRY(mixture_read(c->mixture, index, c->pass.batch.sample));
    batch_set(&c->pass.batch, 0);
    memset(c->sample.block, 0, (size_t)rope_scores_count(&c->sample.shape) * sizeof(double));
    transformer_forward(&c->pass.ws, c->original, c->pass.batch.inputs, &c->sample);
    add_exactly(&c->sums, &c->sample);
    return OK;
}

// The ranks agree after every sample, so that all leave together when one fails or is asked to
// stop.
static Status read_samples(Calibration *c, const Comm *comm, int n_samples)
{
    Status status = OK;
    ProgressMeter meter = progress_start("calibration", "samples", n_samples);
    for (int64_t i = 0; i < n_samples && status == OK; i += comm->size) {
        if (i + comm->rank < n_samples)
            status = read_sample(c, i + comm->rank);
        status = comm_agree(comm, status);
        progress_show(&meter, i + comm->size);
    }
    progress_end(&meter);
    return status;
}

static Status start(Calibration *c, int seq_len, ComputeType compute)
{
    TRY(rope_scores_create(&c->sums, &c->original->shape));
    TRY(rope_scores_create(&c->sample, &c->original->shape));
    return forward_pass_start(&c->pass, c->original, seq_len, compute);
}

Status calibrate_run(RopeScores *out, const Comm *comm, const Model *original, Mixture *mixture,
                     int n_samples, int seq_len, ComputeType compute)
{
    Calibration c = {.original = original, .mixture = mixture};
    Status status;
    watchdog_phase("calibration", 0);
    TRY_GOTO(release, comm_agree(comm, start(&c, seq_len, compute)));
    TRY_GOTO(release, read_samples(&c, comm, n_samples));
    comm_sum_doubles(comm, c.sums.block, rope_scores_count(&original->shape));
    // Ownership moves to the caller.
    *out = c.sums;
    c.sums = (RopeScores){0};
release:
    rope_scores_release(&c.sums);
    rope_scores_release(&c.sample);
    forward_pass_release(&c.pass);
    return status;
}
