// Finds out which samples made a step non-finite. The step's own sums only say that something
// overflowed, so each micro-batch is run again alone, with the weights unchanged, and its loss and
// norm are recorded. That costs about one step, once, in a run that ends anyway.
#include "train/guard_trace.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool is_finite(const GuardMicroBatch *micro_batch)
{
    return isfinite(micro_batch->loss) && isfinite(micro_batch->grad_norm);
}

// JSON has no NaN and no infinity; they are written as texts.
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

// All micro-batches, so that a reader sees whether one sample or all of them went wrong.
static Status write_trace(const GuardTrace *trace)
{
    json_t *list = json_array();
    json_t *root = json_pack("{s:s, s:i, s:o, s:o, s:O}", "format", "mha2mla-nonfinite", "step",
                             trace->step, "loss", number(trace->loss), "grad_norm",
                             number(trace->grad_norm), "micro_batches", list);
    Status status = root != NULL ? OK : fail(FAILED, "%s: no memory", trace->file);
    TRY_GOTO(release, status);
    for (int i = 0; i < trace->count; i++)
        if (json_array_append_new(list, describe_micro_batch(&trace->micro_batches[i], i)) != 0) {
            status = fail(FAILED, "%s: no memory, or a name that is not UTF-8", trace->file);
            goto release;
        }
    status = json_write(root, trace->file);
release:
    json_decref(list);
    json_decref(root);
    return status;
}

// Names the first micro-batch of the step that is not finite. Where both are not, the loss is named
// and not the gradient, as it comes first in the computation. The sign of an infinity says nothing,
// hence fabs().
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

// Always FAILED: a file that cannot be written is one clause more of the same error.
Status guard_trace_report(const GuardTrace *trace, bool writes)
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

// Every rank fills the places of its own micro-batches in traced [3, n]: loss, norm, rank. The
// other places stay 0, so that a sum over ranks puts them together; NaN and infinity survive it.
static Status run_own(const GuardTraceRun *run, double *traced)
{
    const BatchSchedule *schedule = run->schedule;
    const int n = schedule->n_micro_batches;
    for (int round = 0; round < schedule->n_rounds; round++) {
        const MicroBatches group = batch_schedule_group(schedule, round, run->comm->rank);
        for (int m = group.first; m < group.first + group.count; m++) {
            TRY(run->micro_batch(run->context, run->step, m, &traced[m], &traced[n + m]));
            traced[2 * n + m] = run->comm->rank;
        }
    }
    return OK;
}

// All ranks have the whole trace, so all return the same text. Rank 0 writes the file.
static Status report_run(const GuardTraceRun *run, const double *traced,
                         GuardMicroBatch *micro_batches)
{
    const int n = run->schedule->n_micro_batches;
    for (int m = 0; m < n; m++) {
        GuardMicroBatch *to = &micro_batches[m];
        *to = (GuardMicroBatch){.rank = (int)traced[2 * n + m],
                                .first_sample = run->first_sample + (int64_t)m * run->n_samples,
                                .n_samples = run->n_samples,
                                .loss = traced[m],
                                .grad_norm = traced[n + m]};
        mixture_describe(run->mixture, to->first_sample, to->source, sizeof to->source);
    }
    char name[64], path[PATH_BYTES];
    snprintf(name, sizeof name, "nonfinite-step-%d.json", run->step);
    TRY(file_join(path, run->run_dir, name));
    const GuardTrace trace = {.step = run->step,
                              .loss = run->loss,
                              .grad_norm = run->grad_norm,
                              .micro_batches = micro_batches,
                              .count = n,
                              .file = path};
    return guard_trace_report(&trace, run->comm->rank == 0);
}

// Collective. Ranks beyond the number of groups have nothing to run but take part in both
// agreements.
Status guard_trace_run(const GuardTraceRun *run)
{
    const int n = run->schedule->n_micro_batches;
    double *traced = calloc((size_t)n * 3, sizeof *traced);
    GuardMicroBatch *micro_batches = calloc((size_t)n, sizeof *micro_batches);
    Status status = traced != NULL && micro_batches != NULL
                        ? run_own(run, traced)
                        : fail(FAILED,
                               "step %d: loss or gradient is not finite, and there is no memory "
                               "to trace why",
                               run->step);
    TRY_GOTO(release, comm_agree(run->comm, status));
    comm_sum_doubles(run->comm, traced, (int64_t)n * 3);
    status = comm_agree(run->comm, report_run(run, traced, micro_batches));
release:
    free(micro_batches);
    free(traced);
    return status;
}
