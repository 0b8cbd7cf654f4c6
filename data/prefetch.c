// Batches are numbered over all steps; batch n is in slot n % PREFETCH_BATCHES. Two counts under
// the lock say whose a slot is: those of batches n_released .. n_read - 1 are the caller's, the
// others the thread's. So the slots themselves need no lock.
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
    int64_t n_batches; // of all steps
    int64_t n_taken;   // by the caller, and only its
    double wait_s;     // likewise
    bool has_thread;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; // one of what follows, which the lock guards:
    int64_t n_read, n_released;
    bool stopping;
    Status status;         // of reading batch n_read; not OK: the last that is tried
    char text[TEXT_BYTES]; // of that error
};

void prefetch_place(PrefetchMemory *memory, Arena *arena, int B, int T)
{
    for (int i = 0; i < PREFETCH_BATCHES; i++)
        batch_place(&memory->batches[i], arena, B, T);
}

static int64_t first_sample_of(const Prefetch *p, int64_t n)
{
    const int64_t step = p->first_step + n / p->n_micro_batches;
    const int64_t m = p->micro_batches[n % p->n_micro_batches];
    return (step - 1) * p->global_batch + m * p->memory->batches[0].B;
}

static bool is_stopping(Prefetch *p)
{
    pthread_mutex_lock(&p->lock);
    const bool stopping = p->stopping;
    pthread_mutex_unlock(&p->lock);
    return stopping;
}

// Reads batch n into its slot. Between samples it looks whether it is to stop.
static Status read_batch(Prefetch *p, int64_t n)
{
    Batch batch = p->memory->batches[n % PREFETCH_BATCHES];
    const int64_t first = first_sample_of(p, n);
    for (int b = 0; b < batch.B && !is_stopping(p); b++) {
        TRY(mixture_read(p->mixture, first + b, batch.sample));
        batch_set(&batch, b);
    }
    return OK;
}

// Reads the next batch, in the thread or in the caller.
static Status advance(Prefetch *p)
{
    const Status status = read_batch(p, p->n_read);
    pthread_mutex_lock(&p->lock);
    p->status = status;
    if (status == OK)
        p->n_read++;
    else
        snprintf(p->text, sizeof p->text, "%s", fail_text()); // its place is this thread
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
    return status;
}

// Waits for a free slot; false at the end of the work.
static bool wait_for_slot(Prefetch *p)
{
    pthread_mutex_lock(&p->lock);
    while (!p->stopping && p->n_read - p->n_released == PREFETCH_BATCHES)
        pthread_cond_wait(&p->changed, &p->lock);
    const bool goes_on = !p->stopping && p->n_read < p->n_batches;
    pthread_mutex_unlock(&p->lock);
    return goes_on;
}

static void *read_ahead(void *argument)
{
    Prefetch *p = argument;
    while (wait_for_slot(p) && advance(p) == OK)
        continue;
    return NULL;
}

// Signals are for the thread that trains: it is the one that looks at what they set.
static int start_thread(Prefetch *p)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int error = pthread_create(&p->thread, NULL, read_ahead, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static Status copy_order(Prefetch *p, const PrefetchOrder *order)
{
    CHECK(order->first_step >= 1 && order->n_micro_batches >= 0, "step %d, %d micro-batches",
          order->first_step, order->n_micro_batches);
    const int n = order->n_micro_batches;
    p->micro_batches = malloc((size_t)(n + 1) * sizeof *p->micro_batches);
    if (p->micro_batches == NULL)
        return fail(FAILED, "out of memory for reading %d micro-batches ahead", n);
    if (n > 0)
        memcpy(p->micro_batches, order->micro_batches, (size_t)n * sizeof *p->micro_batches);
    const int64_t n_steps = (int64_t)order->last_step - order->first_step + 1;
    p->first_step = order->first_step;
    p->global_batch = order->global_batch;
    p->n_micro_batches = n;
    p->n_batches = n_steps > 0 ? n_steps * n : 0;
    return OK;
}

Status prefetch_start(Prefetch **out, Mixture *mixture, const PrefetchMemory *memory,
                      const PrefetchOrder *order)
{
    Prefetch *p = calloc(1, sizeof *p);
    if (p == NULL)
        return fail(FAILED, "out of memory for reading data ahead");
    p->mixture = mixture;
    p->memory = memory;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    const Status status = copy_order(p, order);
    if (status != OK) {
        prefetch_stop(p);
        return status;
    }
    hbool_t is_safe = 0;
    if (H5is_library_threadsafe(&is_safe) >= 0 && is_safe && p->n_batches > 0) {
        const int error = start_thread(p);
        p->has_thread = error == 0;
        if (error != 0)
            log_warn("no thread to read data ahead: %s; steps wait for it", strerror(error));
    }
    *out = p;
    return OK;
}

// Locked: until batch n is read or cannot be.
static Status wait_for_batch(Prefetch *p, int64_t n)
{
    p->n_released = n; // the slot of the batch before is free from now on
    pthread_cond_signal(&p->changed);
    while (p->n_read == n && p->status == OK) {
        if (p->has_thread) {
            pthread_cond_wait(&p->changed, &p->lock);
        } else {
            pthread_mutex_unlock(&p->lock);
            (void)advance(p); // p->status has it
            pthread_mutex_lock(&p->lock);
        }
    }
    return p->n_read > n ? OK : p->status;
}

Status prefetch_next(Prefetch *p, const Batch **batch, int64_t *first_sample)
{
    const int64_t n = p->n_taken;
    CHECK(n < p->n_batches, "batch %lld of %lld", (long long)n, (long long)p->n_batches);
    const double start_s = log_seconds();
    pthread_mutex_lock(&p->lock);
    const Status status = wait_for_batch(p, n);
    pthread_mutex_unlock(&p->lock);
    p->wait_s += log_seconds() - start_s;
    if (status != OK)
        return fail(status, "%s", p->text); // the thread has ended: nobody writes it any more
    *batch = &p->memory->batches[n % PREFETCH_BATCHES];
    *first_sample = first_sample_of(p, n);
    p->n_taken = n + 1;
    return OK;
}

double prefetch_wait_s(const Prefetch *p)
{
    return p->wait_s;
}

void prefetch_stop(Prefetch *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
    if (p->has_thread)
        pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p->micro_batches);
    free(p);
}
