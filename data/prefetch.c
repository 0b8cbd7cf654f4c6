// Batches are numbered over all steps; batch n is in slot n % PREFETCH_BATCHES. Two counts under
// the lock say who owns a slot: those of batches n_released .. n_read - 1 belong to the caller, the
// others to the thread. So the slots themselves need no lock.
//
//     batch   0 1 2 ... | n_released ............ n_read - 1 | n_read ... n_released + 7 |
//             given back  read, waiting or in use              being read, or free
//
// The thread is the only reader of the mixture, and HDF5 the only library it shares with others:
// its global lock makes that safe, at the price that a checkpoint being written delays a read.
#define _GNU_SOURCE // pthread_sigmask
#include "data/prefetch.h"

#include "base/log.h"

#include <hdf5.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 2048 };

struct Prefetch {
    Mixture *mixture;             // borrowed
    const PrefetchMemory *memory; // borrowed
    int first_step;
    int64_t global_batch;
    int *micro_batches; // owned [n_micro_batches]
    int n_micro_batches;
    int64_t n_batches; // in all steps together
    int64_t n_taken;   // by the caller, used by it alone
    double wait_s;     // likewise
    bool has_thread;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; // one of what follows, which the lock guards:
    int64_t n_read, n_released;
    bool stopping;
    Status status;         // what reading batch n_read gave; not OK: the last that is tried
    char text[TEXT_BYTES]; // the text of that error
};

void prefetch_place(PrefetchMemory *memory, Arena *arena, int B, int T)
{
    for (int i = 0; i < PREFETCH_BATCHES; i++)
        batch_place(&memory->batches[i], arena, B, T);
}

// Sample indices follow from the step alone, so that any rank can take over any micro-batch.
static int64_t first_sample_of(const Prefetch *prefetch, int64_t n)
{
    const int64_t step = prefetch->first_step + n / prefetch->n_micro_batches;
    const int64_t m = prefetch->micro_batches[n % prefetch->n_micro_batches];
    return (step - 1) * prefetch->global_batch + m * prefetch->memory->batches[0].B;
}

static bool is_stopping(Prefetch *prefetch)
{
    pthread_mutex_lock(&prefetch->lock);
    const bool stopping = prefetch->stopping;
    pthread_mutex_unlock(&prefetch->lock);
    return stopping;
}

// Reads batch n into its slot. It checks between samples whether it is to stop.
static Status read_batch(Prefetch *prefetch, int64_t n)
{
    Batch batch = prefetch->memory->batches[n % PREFETCH_BATCHES];
    const int64_t first = first_sample_of(prefetch, n);
    for (int b = 0; b < batch.B && !is_stopping(prefetch); b++) {
        TRY(mixture_read(prefetch->mixture, first + b, batch.sample));
        batch_set(&batch, b);
    }
    return OK;
}

// Reads the next batch, in the thread or in the caller.
static Status advance(Prefetch *prefetch)
{
    const Status status = read_batch(prefetch, prefetch->n_read);
    pthread_mutex_lock(&prefetch->lock);
    prefetch->status = status;
    if (status == OK)
        prefetch->n_read++;
    else
        snprintf(prefetch->text, sizeof prefetch->text, "%s", fail_text()); // this thread's
    pthread_cond_signal(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->lock);
    return status;
}

// Waits for a free slot; false at the end of the work.
static bool wait_for_slot(Prefetch *prefetch)
{
    pthread_mutex_lock(&prefetch->lock);
    while (!prefetch->stopping && prefetch->n_read - prefetch->n_released == PREFETCH_BATCHES)
        pthread_cond_wait(&prefetch->changed, &prefetch->lock);
    const bool has_work = !prefetch->stopping && prefetch->n_read < prefetch->n_batches;
    pthread_mutex_unlock(&prefetch->lock);
    return has_work;
}

static void *read_ahead(void *argument)
{
    Prefetch *prefetch = argument;
    while (wait_for_slot(prefetch) && advance(prefetch) == OK)
        continue;
    return NULL;
}

// All signals are blocked in the thread: handlers run on the thread that trains, which checks the
// flags they set.
static int start_thread(Prefetch *prefetch)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int error = pthread_create(&prefetch->thread, NULL, read_ahead, prefetch);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

// One more element than needed, so that a rank without micro-batches gets no NULL from malloc(0).
static Status copy_order(Prefetch *prefetch, const PrefetchOrder *order)
{
    CHECK(order->first_step >= 1 && order->n_micro_batches >= 0, "step %d, %d micro-batches",
          order->first_step, order->n_micro_batches);
    const int n = order->n_micro_batches;
    prefetch->micro_batches = malloc((size_t)(n + 1) * sizeof *prefetch->micro_batches);
    if (prefetch->micro_batches == NULL)
        return fail(FAILED, "out of memory for reading %d micro-batches ahead", n);
    if (n > 0)
        memcpy(prefetch->micro_batches, order->micro_batches,
               (size_t)n * sizeof *prefetch->micro_batches);
    const int64_t n_steps = (int64_t)order->last_step - order->first_step + 1;
    prefetch->first_step = order->first_step;
    prefetch->global_batch = order->global_batch;
    prefetch->n_micro_batches = n;
    prefetch->n_batches = n_steps > 0 ? n_steps * n : 0;
    return OK;
}

Status prefetch_start(Prefetch **out, Mixture *mixture, const PrefetchMemory *memory,
                      const PrefetchOrder *order)
{
    Prefetch *prefetch = calloc(1, sizeof *prefetch);
    if (prefetch == NULL)
        return fail(FAILED, "out of memory for reading data ahead");
    prefetch->mixture = mixture;
    prefetch->memory = memory;
    pthread_mutex_init(&prefetch->lock, NULL);
    pthread_cond_init(&prefetch->changed, NULL);
    const Status status = copy_order(prefetch, order);
    if (status != OK) {
        prefetch_stop(prefetch);
        return status;
    }
    // Debian builds HDF5 thread-safe, many sites do not: then each call of prefetch_next() reads in
    // the caller.
    hbool_t is_safe = 0;
    if (H5is_library_threadsafe(&is_safe) >= 0 && is_safe && prefetch->n_batches > 0) {
        const int error = start_thread(prefetch);
        prefetch->has_thread = error == 0;
        if (error != 0)
            log_warn("no thread to read data ahead: %s; steps wait for it", strerror(error));
    }
    *out = prefetch;
    return OK;
}

// Locked: until batch n is read or cannot be.
static Status wait_for_batch(Prefetch *prefetch, int64_t n)
{
    prefetch->n_released = n; // the caller is done with the slot of batch n - 1
    pthread_cond_signal(&prefetch->changed);
    while (prefetch->n_read == n && prefetch->status == OK) {
        if (prefetch->has_thread) {
            pthread_cond_wait(&prefetch->changed, &prefetch->lock);
        } else {
            pthread_mutex_unlock(&prefetch->lock);
            (void)advance(prefetch); // prefetch->status has it
            pthread_mutex_lock(&prefetch->lock);
        }
    }
    return prefetch->n_read > n ? OK : prefetch->status;
}

Status prefetch_next(Prefetch *prefetch, const Batch **batch, int64_t *first_sample)
{
    const int64_t n = prefetch->n_taken;
    CHECK(n < prefetch->n_batches, "batch %lld of %lld", (long long)n,
          (long long)prefetch->n_batches);
    const double start_s = log_seconds();
    pthread_mutex_lock(&prefetch->lock);
    const Status status = wait_for_batch(prefetch, n);
    pthread_mutex_unlock(&prefetch->lock);
    prefetch->wait_s += log_seconds() - start_s;
    if (status != OK) // the thread has ended, so the text is read without the lock
        return fail(status, "%s", prefetch->text);
    *batch = &prefetch->memory->batches[n % PREFETCH_BATCHES];
    *first_sample = first_sample_of(prefetch, n);
    prefetch->n_taken = n + 1;
    return OK;
}

double prefetch_wait_s(const Prefetch *prefetch)
{
    return prefetch->wait_s;
}

void prefetch_stop(Prefetch *prefetch)
{
    if (prefetch == NULL)
        return;
    pthread_mutex_lock(&prefetch->lock);
    prefetch->stopping = true;
    pthread_cond_signal(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->lock);
    if (prefetch->has_thread)
        pthread_join(prefetch->thread, NULL);
    pthread_cond_destroy(&prefetch->changed);
    pthread_mutex_destroy(&prefetch->lock);
    free(prefetch->micro_batches);
    free(prefetch);
}
