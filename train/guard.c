// A spike is a single batch whose gradient is far above the usual; skipping its update leaves
// weights and moments alone (PaLM, Chowdhery et al., arXiv 2204.02311, section 5.1, skipped batches
// around spikes by hand). Norms that stay high are no spikes but divergence, so a few skips in a
// row end the run. Every rank has the same norm and keeps the same history: no messages.
#include "train/guard.h"

#include <math.h>

// The decision uses the mean before this step. A mean of 0 (gradients of zeros) makes no step a
// spike, since every norm would exceed its multiples.
Status guard_check_spike(bool *skips, SpikeHistory *spikes, int step, double grad_norm,
                         double factor, int window)
{
    CHECK(isfinite(grad_norm), "norm %g of step %d", grad_norm, step);
    if (factor > 0 && spikes->n_accepted >= window && spikes->mean > 0 &&
        grad_norm > factor * spikes->mean) {
        spikes->n_skipped++;
        if (++spikes->n_skipped_in_row >= GUARD_MAX_SKIPS_IN_ROW)
            return fail(FAILED,
                        "step %d: gradient norm %.4g is above train.skip_spikes %g times the mean "
                        "%.4g for %d steps in a row, so this is no spike; lower optim.lr or raise "
                        "train.skip_spikes",
                        step, grad_norm, factor, spikes->mean, GUARD_MAX_SKIPS_IN_ROW);
        *skips = true;
        return OK;
    }
    spikes->n_accepted++;
    spikes->n_skipped_in_row = 0;
    // A plain mean of the first `window` norms, then an exponential one: both are mean += (x -
    // mean) / n, with n capped.
    const int64_t n = spikes->n_accepted < window ? spikes->n_accepted : window;
    spikes->mean += (grad_norm - spikes->mean) / (double)n;
    *skips = false;
    return OK;
}
