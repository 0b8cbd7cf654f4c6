#include "train/guard.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>

Status guard_check_spike(bool *skips, SpikeHistory *spikes, int step, double grad_norm,
                         double factor, int window)
{
    CHECK(isfinite(grad_norm), "norm %g of step %d", grad_norm, step);
    if (factor > 0 && spikes->n_accepted >= window && spikes->mean > 0 &&
        grad_norm > factor * spikes->mean) {
        spikes->n_skipped++;
        if (++spikes->n_skipped_in_row >= GUARD_MOST_SKIPS_IN_ROW)
            return fail(FAILED,
                        "step %d: gradient norm %.4g is above train.skip_spikes %g times the mean "
                        "%.4g for %d steps in a row, so this is no spike; lower optim.lr or raise "
                        "train.skip_spikes",
                        step, grad_norm, factor, spikes->mean, GUARD_MOST_SKIPS_IN_ROW);
        *skips = true;
        return OK;
    }
    spikes->n_accepted++;
    spikes->n_skipped_in_row = 0;
    const double of = spikes->n_accepted < window ? (double)spikes->n_accepted : (double)window;
    spikes->mean += (grad_norm - spikes->mean) / of;
    *skips = false;
    return OK;
}

static bool is_finite(const GuardMicroBatch *micro_batch)
{
    return isfinite(micro_batch->loss) && isfinite(micro_batch->grad_norm);
}

// JSON has no NaN.
static json_t *number(double value)
{
    if (isfinite(value))
        return json_real(value);
    return json_string(isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
}

static json_t *describe_micro_batch(const GuardMicroBatch *from, int index)
{
    return json_pack("{s:i, s:b, s:i, s:[I, I], s:s, s:o, s:o}", "micro_batch", index, "finite",
                     is_finite(from), "rank", from->rank, "samples", (json_int_t)from->first_sample,
                     (json_int_t)(from->first_sample + from->n_samples - 1), "first", from->source,
                     "loss", number(from->loss), "grad_norm", number(from->grad_norm));
}

static Status write_trace(const GuardTrace *trace)
{
    json_t *list = json_array();
    json_t *root = json_pack("{s:s, s:i, s:o, s:o, s:O}", "format", "mha2mla-nonfinite", "step",
                             trace->step, "loss", number(trace->loss), "grad_norm",
                             number(trace->grad_norm), "micro_batches", list);
    Status status = root != NULL ? OK : fail(FAILED, "%s: no memory", trace->file);
    for (int i = 0; i < trace->count && status == OK; i++)
        if (json_array_append_new(list, describe_micro_batch(&trace->micro_batches[i], i)) != 0)
            status = fail(FAILED, "%s: no memory, or a name that is not UTF-8", trace->file);
    if (status == OK)
        status = json_write(root, trace->file);
    json_decref(list);
    json_decref(root);
    return status;
}

// What is not finite, and where first.
static void name_cause(char *out, size_t size_bytes, const GuardTrace *trace)
{
    const GuardMicroBatch *first = NULL;
    int n_bad = 0;
    for (int i = 0; i < trace->count; i++)
        if (!is_finite(&trace->micro_batches[i]) && n_bad++ == 0)
            first = &trace->micro_batches[i];
    if (first == NULL) {
        snprintf(out, size_bytes,
                 "gradient norm is %g (loss %g) although each micro-batch's is finite: their sum "
                 "overflows",
                 fabs(trace->grad_norm), trace->loss);
        return;
    }
    char more[64] = "";
    if (n_bad > 1)
        snprintf(more, sizeof more, ", and in %d more of the step's micro-batches", n_bad - 1);
    const bool is_loss = !isfinite(first->loss);
    snprintf(out, size_bytes, "%s is %g in samples %lld to %lld on rank %d (first: %s)%s",
             is_loss ? "loss" : "gradient norm", fabs(is_loss ? first->loss : first->grad_norm),
             (long long)first->first_sample, (long long)first->first_sample + first->n_samples - 1,
             first->rank, first->source, more);
}

Status guard_report_nonfinite(const GuardTrace *trace, bool writes)
{
    char cause[512];
    name_cause(cause, sizeof cause, trace);
    if (writes && write_trace(trace) != OK)
        return fail(FAILED,
                    "step %d: %s; weights are unchanged; lower optim.lr or look at these samples; "
                    "their losses are not written: %s",
                    trace->step, cause, fail_text());
    return fail(FAILED,
                "step %d: %s; weights are unchanged; lower optim.lr or look at these samples; %s "
                "has the losses of all",
                trace->step, cause, trace->file);
}
