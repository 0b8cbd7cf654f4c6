// Reads a rank's micro-batches ahead in a thread, so that a step does not wait for its data.
//
//     PrefetchMemory memory;
//     prefetch_place(&memory, &arena, B, T);            // twice: measure, place
//     const PrefetchOrder order = {.first_step = 1, .last_step = 18000, .global_batch = 64,
//                                  .micro_batches = own, .n_micro_batches = 16};
//     Prefetch *prefetch;
//     TRY(prefetch_start(&prefetch, mixture, &memory, &order));
//     const Batch *batch;
//     int64_t first_sample;
//     TRY(prefetch_next(prefetch, &batch, &first_sample));    // until the next call
//     prefetch_stop(prefetch);
//
// The batches come in the order of the steps, and in each step in that of the rank's micro-batches:
// batch m of step s is samples (s - 1) G + m B and the B - 1 after it. A failed read
// is reported by prefetch_next() for the batch it belongs to, in the calling thread. Between
// prefetch_start() and prefetch_stop() nothing else may read from the mixture.
//
// Where HDF5 was built without thread safety the same calls read in the caller.
#ifndef MHA2MLA_DATA_PREFETCH_H
#define MHA2MLA_DATA_PREFETCH_H

#include "data/batch.h"
#include "data/mixture.h"

// One is worked on, the others are ahead.
enum { PREFETCH_BATCHES = 8 };

typedef struct PrefetchMemory {
    Batch batches[PREFETCH_BATCHES];
} PrefetchMemory;

typedef struct PrefetchOrder {
    int first_step, last_step; // from 1; none if last_step is less
    int64_t global_batch;      // G, in samples
    const int *micro_batches;  // borrowed [n_micro_batches], for prefetch_start() alone: which of
    int n_micro_batches;       // every step are this rank's, in the order it wants them
} PrefetchOrder;

typedef struct Prefetch Prefetch;

void prefetch_place(PrefetchMemory *memory, Arena *arena, int B, int T);

// Starts to read. Mixture and memory are borrowed until prefetch_stop(). FAILED without memory.
Status prefetch_start(Prefetch **out, Mixture *mixture, const PrefetchMemory *memory,
                      const PrefetchOrder *order);

// The next batch and the index of its first sample, valid until the next call. Errors are those of
// mixture_read(); after one every call fails with it again. Asking on behind the last batch is a
// broken invariant.
Status prefetch_next(Prefetch *prefetch, const Batch **batch, int64_t *first_sample);

// Seconds that prefetch_next() has waited for data so far.
double prefetch_wait_s(const Prefetch *prefetch);

// Ends the thread, at any time, and frees; takes as long as the sample being read. NULL is allowed.
void prefetch_stop(Prefetch *prefetch);

#endif
