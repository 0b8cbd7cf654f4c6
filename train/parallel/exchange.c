// One lock guards the queue of jobs; transfers and their buffers are the thread's alone. Jobs are
// begun in their order, as MPI wants it, and end in any order.
#define _GNU_SOURCE // nanosleep
#include "train/parallel/exchange.h"

#include "base/log.h"
#include "train/parallel/watchdog.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    // Two keep the network busy while a third is added up; with more, what is needed first arrives
    // later.
    N_TRANSFERS = 3,
    N_JOBS = 1024,       // that wait to be begun, or for older ones to end; then the caller waits
    REST_NS = 200 * 1000 // between questions to MPI while the caller computes
};

typedef struct Job {
    CommReduce reduce; // sum == NULL: an all-gather of
    float *gathered;
    int64_t count;
    const CommGroup *group; // NULL: gathered by every rank for itself
    CommCounter *arrivals;  // of the group
    bool is_done;
} Job;

typedef struct Transfer {
    CommTransfer comm; // owned
    Job job;
    int64_t ticket; // -1: free
} Transfer;

struct Exchange {
    const Comm *comm; // borrowed
    bool overlaps;
    Transfer transfers[N_TRANSFERS];
    void *buffers[N_TRANSFERS]; // borrowed
    int n_busy;                 // transfers; the thread's own

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t given, done;
    Job *jobs;                        // owned [N_JOBS], job t at t % N_JOBS
    int64_t n_given, n_begun, n_done; // all before n_done are done
    bool is_awaited, is_stopping;
};

int exchange_n_buffers(int n_ranks, bool overlaps)
{
    return n_ranks > 1 && overlaps ? N_TRANSFERS : 1;
}

// ---- the thread --------------------------------------------------------------------------------

// Waits until there is something to do; false: there is not, and the thread is to end.
static bool has_work(Exchange *x)
{
    pthread_mutex_lock(&x->lock);
    while (x->n_busy == 0 && x->n_begun == x->n_given && !x->is_stopping)
        pthread_cond_wait(&x->given, &x->lock);
    const bool has = x->n_busy > 0 || x->n_begun < x->n_given;
    pthread_mutex_unlock(&x->lock);
    return has;
}

static bool take_job(Exchange *x, Transfer *transfer)
{
    pthread_mutex_lock(&x->lock);
    const bool is_there = x->n_begun < x->n_given;
    if (is_there) {
        transfer->ticket = x->n_begun++;
        transfer->job = x->jobs[transfer->ticket % N_JOBS];
    }
    pthread_mutex_unlock(&x->lock);
    return is_there;
}

static void begin_job(Exchange *x, Transfer *transfer, void *buffer)
{
    Job *job = &transfer->job;
    job->reduce.buffer = buffer;
    x->n_busy++;
    if (job->reduce.sum != NULL)
        comm_reduce_begin(&transfer->comm, x->comm, &job->reduce);
    else if (job->group != NULL)
        comm_group_gather_begin(&transfer->comm, job->group, x->comm, job->gathered, job->count);
    else
        comm_gather_begin(&transfer->comm, x->comm, job->gathered, job->count);
}

static void end_job(Exchange *x, Transfer *transfer)
{
    if (transfer->job.reduce.sum != NULL)
        comm_reduce_end(x->comm, &transfer->job.reduce);
    if (transfer->job.arrivals != NULL)
        comm_counter_add(transfer->job.arrivals);
    watchdog_heartbeat();
    x->n_busy--;
    pthread_mutex_lock(&x->lock);
    x->jobs[transfer->ticket % N_JOBS].is_done = true;
    while (x->n_done < x->n_begun && x->jobs[x->n_done % N_JOBS].is_done)
        x->n_done++;
    pthread_cond_signal(&x->done);
    pthread_mutex_unlock(&x->lock);
    transfer->ticket = -1;
}

// Gives the core to whoever computes, unless nobody does.
static void rest(Exchange *x)
{
    pthread_mutex_lock(&x->lock);
    const bool is_awaited = x->is_awaited;
    pthread_mutex_unlock(&x->lock);
    const struct timespec time = {.tv_nsec = REST_NS};
    if (is_awaited)
        sched_yield(); // there may be more ranks than cores
    else
        nanosleep(&time, NULL);
}

static void *run(void *argument)
{
    Exchange *x = argument;
    omp_set_num_threads(1); // of this thread's loops: the others compute
    while (has_work(x)) {
        bool has_moved = false;
        for (int i = 0; i < N_TRANSFERS; i++) {
            Transfer *transfer = &x->transfers[i];
            if (transfer->ticket < 0 && take_job(x, transfer)) {
                begin_job(x, transfer, x->buffers[i]);
                has_moved = true;
            }
        }
        for (int i = 0; i < N_TRANSFERS; i++) {
            Transfer *transfer = &x->transfers[i];
            if (transfer->ticket >= 0 && comm_transfer_is_done(&transfer->comm)) {
                end_job(x, transfer);
                has_moved = true;
            }
        }
        if (!has_moved)
            rest(x);
    }
    return NULL;
}

// Signals are for the main thread.
static int start_thread(Exchange *x)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&x->thread, NULL, run, x);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

// ---- the caller --------------------------------------------------------------------------------

static void release(Exchange *x)
{
    for (int i = 0; i < N_TRANSFERS; i++)
        comm_transfer_release(&x->transfers[i].comm);
    free(x->jobs);
    free(x);
}

static Status start_overlap(Exchange *x)
{
    x->jobs = calloc(N_JOBS, sizeof *x->jobs);
    if (x->jobs == NULL)
        return fail(FAILED, "no memory for %d exchanges", N_JOBS);
    for (int i = 0; i < N_TRANSFERS; i++) {
        x->transfers[i].ticket = -1;
        TRY(comm_transfer_create(&x->transfers[i].comm, x->comm));
    }
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->given, NULL);
    pthread_cond_init(&x->done, NULL);
    const int error = start_thread(x);
    if (error == 0)
        return OK;
    pthread_cond_destroy(&x->done);
    pthread_cond_destroy(&x->given);
    pthread_mutex_destroy(&x->lock);
    return fail(FAILED,
                "the thread that exchanges gradients does not start: %s; set train.overlap "
                "to false",
                strerror(error));
}

Status exchange_start(Exchange **out, const Comm *comm, void *buffers, int64_t buffer_bytes,
                      bool overlaps)
{
    Exchange *x = calloc(1, sizeof *x);
    if (x == NULL)
        return fail(FAILED, "no memory for exchanges");
    x->comm = comm;
    x->overlaps = overlaps && comm->size > 1 && comm->may_overlap;
    if (overlaps && comm->size > 1 && !comm->may_overlap)
        log_warn("this MPI stays with its first thread: nothing is exchanged while ranks compute");
    for (int i = 0; i < exchange_n_buffers(comm->size, overlaps); i++)
        x->buffers[i] = (char *)buffers + i * buffer_bytes;
    const Status status = x->overlaps ? start_overlap(x) : OK;
    if (status != OK) {
        release(x);
        return status;
    }
    *out = x;
    return OK;
}

void exchange_stop(Exchange *x)
{
    if (x == NULL)
        return;
    if (x->overlaps) {
        exchange_wait_all(x);
        pthread_mutex_lock(&x->lock);
        x->is_stopping = true;
        pthread_cond_signal(&x->given);
        pthread_mutex_unlock(&x->lock);
        pthread_join(x->thread, NULL);
        pthread_cond_destroy(&x->done);
        pthread_cond_destroy(&x->given);
        pthread_mutex_destroy(&x->lock);
    }
    release(x);
}

bool exchange_overlaps(const Exchange *x)
{
    return x->overlaps;
}

// Waits until at least n jobs are done. Holds the lock before and after.
static void wait_until_done(Exchange *x, int64_t n)
{
    if (x->n_done >= n)
        return;
    x->is_awaited = true;
    watchdog_wait_begin();
    while (x->n_done < n)
        pthread_cond_wait(&x->done, &x->lock);
    watchdog_wait_end();
    x->is_awaited = false;
}

static int64_t give(Exchange *x, const Job *job)
{
    pthread_mutex_lock(&x->lock);
    wait_until_done(x, x->n_given - N_JOBS + 1);
    const int64_t ticket = x->n_given++;
    x->jobs[ticket % N_JOBS] = *job;
    pthread_cond_signal(&x->given);
    pthread_mutex_unlock(&x->lock);
    return ticket;
}

int64_t exchange_reduce(Exchange *x, const CommReduce *reduce)
{
    const Job job = {.reduce = *reduce};
    if (x->overlaps)
        return give(x, &job);
    CommReduce now = *reduce;
    now.buffer = x->buffers[0];
    comm_reduce_scatter(x->comm, &now);
    return x->n_given++;
}

int64_t exchange_gather(Exchange *x, float *bucket, int64_t count)
{
    const Job job = {.gathered = bucket, .count = count};
    if (x->overlaps)
        return give(x, &job);
    comm_all_gather(x->comm, bucket, count);
    return x->n_given++;
}

int64_t exchange_gather_shared(Exchange *x, const CommGroup *group, float *bucket, int64_t count,
                               CommCounter *arrivals)
{
    const Job job = {.gathered = bucket, .count = count, .group = group, .arrivals = arrivals};
    if (x->overlaps)
        return give(x, &job);
    comm_group_gather(group, x->comm, bucket, count);
    comm_counter_add(arrivals);
    return x->n_given++;
}

bool exchange_is_done(Exchange *x, int64_t ticket)
{
    if (!x->overlaps)
        return true;
    pthread_mutex_lock(&x->lock);
    const bool is_done = ticket < x->n_done;
    pthread_mutex_unlock(&x->lock);
    return is_done;
}

void exchange_wait(Exchange *x, int64_t ticket)
{
    if (!x->overlaps)
        return;
    pthread_mutex_lock(&x->lock);
    CHECK(ticket < x->n_given, "waits for job %lld of %lld", (long long)ticket,
          (long long)x->n_given);
    wait_until_done(x, ticket + 1);
    pthread_mutex_unlock(&x->lock);
}

void exchange_wait_all(Exchange *x)
{
    exchange_wait(x, x->n_given - 1); // which only this thread changes
}
