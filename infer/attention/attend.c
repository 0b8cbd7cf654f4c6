// Divides jobs between the two paths (attend_paths.h) and cuts the short ones into batches.
#include "infer/attention/attend.h"

#include "base/intmath.h"
#include "infer/attention/attend_paths.h"

#include <limits.h>
#include <math.h>

// From this many positions on a job of the original attention is a chunk: widening a block once for
// all its query tiles then costs less than reading it in place for each.
enum { ORIGINAL_CHUNK = 32 };

// Multiplications per cached position and head with up-projections of its own, in units of those of
// model/kernels/tile.h; G query heads have them in common. Absorbed: G n_q (key width + (latent +
// value width) / rate). Expanded: the up-projections, and G n_q (key width + nope + E).
int attend_expand_from(const AttendKernel *kernel, const AttendDims *d)
{
    if (!d->is_mla)
        return ORIGINAL_CHUNK;
    const double up = (double)d->nope * d->latent + (double)d->E * d->value_width;
    const double absorbed = d->key_width + (d->latent + d->value_width) / kernel->latent_rate;
    const double saved = d->up_group * (absorbed - (d->key_width + d->nope + d->E));
    return saved > 0 ? (int)fmin(ceil(up / saved), INT_MAX) : INT_MAX;
}

int attend_break_even(const ModelShape *shape)
{
    const AttendDims d = attend_dims(shape);
    return attend_expand_from(attend_kernel_best(&d), &d);
}

int64_t attend_scratch_floats(const ModelShape *shape, int max_jobs, int max_total_tokens,
                              int n_threads)
{
    (void)max_jobs; // a batch holds positions, whosever they are
    return max_int64(attend_batch_scratch_floats(shape, max_total_tokens, n_threads),
                     attend_chunk_scratch_floats(shape, max_total_tokens, n_threads));
}

// Spans of the next positions that make a batch, from position *offset of *job on; both move on.
// Where a job is cut depends on the job alone. Returns the number of spans.
static int next_batch(AttendSpan *spans, int span_tokens, const AttendJob *jobs, int n_jobs,
                      int expand_from, int *job, int *offset)
{
    int n_spans = 0, n_tokens = 0;
    while (*job < n_jobs && n_tokens < ATTEND_BATCH_TOKENS) {
        const AttendJob *from = &jobs[*job];
        if (from->count >= expand_from || *offset == from->count) {
            ++*job;
            *offset = 0;
            continue;
        }
        const int n = min_int(min_int(span_tokens, ATTEND_BATCH_TOKENS), from->count - *offset);
        if (n > ATTEND_BATCH_TOKENS - n_tokens)
            break;
        spans[n_spans++] = (AttendSpan){from, *offset, n};
        n_tokens += n;
        *offset += n;
    }
    return n_spans;
}

void attend_by(const AttendKernel *kernel, int expand_from, const AttendJob *jobs, int n_jobs,
               int layer, const ModelShape *shape, const WeightMatrix *up_k,
               const WeightMatrix *up_v, int ld_q, float *scratch)
{
    const AttendCall call = {kernel, shape, up_k, up_v, layer, ld_q, scratch};
    const AttendDims dims = attend_dims(shape);
    AttendSpan spans[ATTEND_BATCH_TOKENS];
    int job = 0, offset = 0, n_spans;
    while ((n_spans = next_batch(spans, attend_span_tokens(&dims), jobs, n_jobs, expand_from, &job,
                                 &offset)) > 0)
        attend_batch(&call, spans, n_spans);
    for (int i = 0; i < n_jobs; i++)
        if (jobs[i].count >= expand_from)
            attend_chunk(&call, &jobs[i]);
}

void attend(const AttendJob *jobs, int n_jobs, int layer, const ModelShape *shape,
            const WeightMatrix *up_k, const WeightMatrix *up_v, int ld_q, float *scratch)
{
    const AttendDims dims = attend_dims(shape);
    attend_by(attend_kernel_best(&dims), attend_break_even(shape), jobs, n_jobs, layer, shape, up_k,
              up_v, ld_q, scratch);
}
