// The two ways through the cache that attend() takes: jobs of few positions together in batches,
// and long jobs one by one as chunks. Private to infer/attention.
#ifndef MHA2MLA_INFER_ATTENTION_ATTEND_PATHS_H
#define MHA2MLA_INFER_ATTENTION_ATTEND_PATHS_H

#include "infer/attention/attend_kernel.h"

// What all jobs of a call share. Borrowed.
typedef struct AttendCall {
    const AttendKernel *kernel; // of batches
    const ModelShape *shape;
    const WeightMatrix *up_k, *up_v;
    int layer, ld_q;
    float *scratch;
} AttendCall;

// Positions that a batch can hold.
enum { ATTEND_BATCH_TOKENS = 64 };

// A range of a job's positions.
typedef struct AttendSpan {
    const AttendJob *job;
    int offset, n; // positions [offset, offset + n) of the job
} AttendSpan;

// Positions of a span at most: its rows fill a tile.
int attend_span_tokens(const AttendDims *dims);

// Spans of at most ATTEND_BATCH_TOKENS positions in all, each of at most attend_span_tokens(). MLA
// is absorbed.
void attend_batch(const AttendCall *call, const AttendSpan *spans, int n_spans);
int64_t attend_batch_scratch_floats(const ModelShape *shape, int max_tokens, int n_threads);

// One job, expanded to keys and values of all heads in its compute type, some blocks at a time.
void attend_chunk(const AttendCall *call, const AttendJob *job);
int64_t attend_chunk_scratch_floats(const ModelShape *shape, int max_tokens, int n_threads);

#endif
