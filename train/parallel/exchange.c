// One lock guards the queue of jobs; transfers and their buffers belong to the thread alone. Jobs
// are begun in their order, since MPI matches collectives by it, and end in any order.
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
    // Two keep the network busy while the numbers of a third are added up; with more, what is
    // needed first arrives
    // later.
    N_TRANSFERS = 3,
    N_JOBS = 1024,           // capacity of the queue; the caller waits while it is full
    BACK_OFF_NS = 200 * 1000 // between questions to MPI while the caller computes
};

typedef struct Job {
    CommReduce reduce; // sum == NULL: an all-gather
    CommGather gather;
    const CommGroup *group; // NULL: gathered by every rank for itself
    CommCounter *arrivals;  // of the group
    bool is_done;
} Job;

typedef struct Transfer {
    CommTransfer comm; // owned
    Job job;
    int64_t ticket; // of the job; -1: this transfer is free
} Transfer;

struct Exchange {
    const Comm *comm; // borrowed
    bool overlaps;
    Transfer transfers[N_TRANSFERS];
    void *buffers[N_TRANSFERS]; // borrowed
    int n_busy;                 // transfers in use; only the thread reads and writes it

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t submitted, done;
    Job *jobs;                            // owned [N_JOBS], job t at t % N_JOBS
    int64_t n_submitted, n_begun, n_done; // every job below n_done is done
    bool is_awaited, is_stopping;
};

int exchange_n_buffers(int n_ranks, bool overlaps)
{
    return n_ranks > 1 && overlaps ? N_TRANSFERS : 1;
}

// ---- the thread --------------------------------------------------------------------------------

// Waits until there is something to do; false: there is not, and the thread is to end.
static bool has_work(Exchange *exchange)
{
    pthread_mutex_lock(&exchange->lock);
    while (exchange->n_busy == 0 && exchange->n_begun == exchange->n_submitted &&
           !exchange->is_stopping)
        pthread_cond_wait(&exchange->submitted, &exchange->lock);
    const bool has = exchange->n_busy > 0 || exchange->n_begun < exchange->n_submitted;
    pthread_mutex_unlock(&exchange->lock);
    return has;
}

// The thread's own copy of the job: its place in the queue is free for another once it is done.
static bool next_job(Exchange *exchange, Transfer *transfer)
{
    pthread_mutex_lock(&exchange->lock);
    const bool has_job = exchange->n_begun < exchange->n_submitted;
    if (has_job) {
        transfer->ticket = exchange->n_begun++;
        transfer->job = exchange->jobs[transfer->ticket % N_JOBS];
    }
    pthread_mutex_unlock(&exchange->lock);
    return has_job;
}

static void begin_job(Exchange *exchange, Transfer *transfer, void *buffer)
{
    Job *job = &transfer->job;
    job->reduce.buffer = job->gather.buffer = buffer;
    exchange->n_busy++;
    if (job->reduce.sum != NULL)
        comm_reduce_begin(&transfer->comm, exchange->comm, &job->reduce);
    else if (job->group != NULL)
        comm_group_gather_begin(&transfer->comm, job->group, exchange->comm, &job->gather);
    else
        comm_gather_begin(&transfer->comm, exchange->comm, &job->gather);
}

// Adds up or widens what has arrived and marks the job done. n_done counts jobs before which all
// are done, since a ticket stands for its job and all before it.
static void end_job(Exchange *exchange, Transfer *transfer)
{
    const Job *job = &transfer->job;
    if (job->reduce.sum != NULL)
        comm_reduce_end(exchange->comm, &job->reduce);
    else if (job->group != NULL)
        comm_group_gather_end(job->group, exchange->comm, &job->gather);
    else
        comm_gather_end(exchange->comm, &job->gather);
    if (job->arrivals != NULL)
        comm_counter_add(job->arrivals);
    watchdog_heartbeat();
    exchange->n_busy--;
    pthread_mutex_lock(&exchange->lock);
    exchange->jobs[transfer->ticket % N_JOBS].is_done = true;
    while (exchange->n_done < exchange->n_begun &&
           exchange->jobs[exchange->n_done % N_JOBS].is_done)
        exchange->n_done++;
    pthread_cond_signal(&exchange->done);
    pthread_mutex_unlock(&exchange->lock);
    transfer->ticket = -1;
}

// Leaves the core to the threads that compute; while the caller waits there are none.
static void back_off(Exchange *exchange)
{
    pthread_mutex_lock(&exchange->lock);
    const bool is_awaited = exchange->is_awaited;
    pthread_mutex_unlock(&exchange->lock);
    const struct timespec time = {.tv_nsec = BACK_OFF_NS};
    if (is_awaited)
        sched_yield(); // there may be more ranks than cores
    else
        nanosleep(&time, NULL);
}

// First all free transfers are given jobs, then all that are pending are asked: so a job that ends
// is followed by the next one in the same turn of the loop, and the network is never idle while
// jobs wait.
static void *run(void *argument)
{
    Exchange *exchange = argument;
    omp_set_num_threads(1); // for this thread's loops: the other cores compute
    while (has_work(exchange)) {
        bool has_moved = false;
        for (int i = 0; i < N_TRANSFERS; i++) {
            Transfer *transfer = &exchange->transfers[i];
            if (transfer->ticket < 0 && next_job(exchange, transfer)) {
                begin_job(exchange, transfer, exchange->buffers[i]);
                has_moved = true;
            }
        }
        for (int i = 0; i < N_TRANSFERS; i++) {
            Transfer *transfer = &exchange->transfers[i];
            if (transfer->ticket >= 0 && comm_transfer_is_done(&transfer->comm)) {
                end_job(exchange, transfer);
                has_moved = true;
            }
        }
        if (!has_moved)
            back_off(exchange);
    }
    return NULL;
}

// With all signals blocked: they are for the main thread.
static int start_thread(Exchange *exchange)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&exchange->thread, NULL, run, exchange);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

// ---- the caller --------------------------------------------------------------------------------

// Transfers that were never created are zeros, which comm_transfer_release() allows.
static void release(Exchange *exchange)
{
    for (int i = 0; i < N_TRANSFERS; i++)
        comm_transfer_release(&exchange->transfers[i].comm);
    free(exchange->jobs);
    free(exchange);
}

// What was made before an error is released by the caller, exchange_start(), but for lock and
// conditions.
static Status start_overlap(Exchange *exchange)
{
    exchange->jobs = calloc(N_JOBS, sizeof *exchange->jobs);
    if (exchange->jobs == NULL)
        return fail(FAILED, "no memory for %d exchanges", N_JOBS);
    for (int i = 0; i < N_TRANSFERS; i++) {
        exchange->transfers[i].ticket = -1;
        TRY(comm_transfer_create(&exchange->transfers[i].comm, exchange->comm));
    }
    pthread_mutex_init(&exchange->lock, NULL);
    pthread_cond_init(&exchange->submitted, NULL);
    pthread_cond_init(&exchange->done, NULL);
    const int error = start_thread(exchange);
    if (error == 0)
        return OK;
    pthread_cond_destroy(&exchange->done);
    pthread_cond_destroy(&exchange->submitted);
    pthread_mutex_destroy(&exchange->lock);
    return fail(FAILED,
                "the thread that exchanges gradients does not start: %s; set train.overlap "
                "to false",
                strerror(error));
}

Status exchange_start(Exchange **out, const Comm *comm, void *buffers, int64_t buffer_bytes,
                      bool overlaps)
{
    Exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange == NULL)
        return fail(FAILED, "no memory for exchanges");
    exchange->comm = comm;
    exchange->overlaps = overlaps && comm->size > 1 && comm->may_overlap;
    if (overlaps && comm->size > 1 && !comm->may_overlap)
        log_warn("this MPI stays with its first thread: nothing is exchanged while ranks compute");
    for (int i = 0; i < exchange_n_buffers(comm->size, overlaps); i++)
        exchange->buffers[i] = (char *)buffers + i * buffer_bytes;
    Status status;
    if (exchange->overlaps)
        TRY_GOTO(release, start_overlap(exchange));
    *out = exchange;
    return OK;
release:
    release(exchange);
    return status;
}

void exchange_stop(Exchange *exchange)
{
    if (exchange == NULL)
        return;
    if (exchange->overlaps) {
        exchange_wait_all(exchange);
        pthread_mutex_lock(&exchange->lock);
        exchange->is_stopping = true;
        pthread_cond_signal(&exchange->submitted);
        pthread_mutex_unlock(&exchange->lock);
        pthread_join(exchange->thread, NULL);
        pthread_cond_destroy(&exchange->done);
        pthread_cond_destroy(&exchange->submitted);
        pthread_mutex_destroy(&exchange->lock);
    }
    release(exchange);
}

bool exchange_overlaps(const Exchange *exchange)
{
    return exchange->overlaps;
}

// Waits until at least n jobs are done. Holds the lock before and after.
static void wait_until_done(Exchange *exchange, int64_t n)
{
    if (exchange->n_done >= n)
        return;
    exchange->is_awaited = true;
    watchdog_wait_begin();
    while (exchange->n_done < n)
        pthread_cond_wait(&exchange->done, &exchange->lock);
    watchdog_wait_end();
    exchange->is_awaited = false;
}

static int64_t submit(Exchange *exchange, const Job *job)
{
    pthread_mutex_lock(&exchange->lock);
    wait_until_done(exchange, exchange->n_submitted - N_JOBS + 1);
    const int64_t ticket = exchange->n_submitted++;
    exchange->jobs[ticket % N_JOBS] = *job;
    pthread_cond_signal(&exchange->submitted);
    pthread_mutex_unlock(&exchange->lock);
    return ticket;
}

// Without a thread a job is done before its ticket is given out, so every ticket counts as done.
// The one buffer serves every job in turn.
int64_t exchange_reduce(Exchange *exchange, const CommReduce *reduce)
{
    const Job job = {.reduce = *reduce};
    if (exchange->overlaps)
        return submit(exchange, &job);
    CommReduce now = *reduce;
    now.buffer = exchange->buffers[0];
    comm_reduce_scatter(exchange->comm, &now);
    return exchange->n_submitted++;
}

int64_t exchange_gather(Exchange *exchange, const CommGather *gather)
{
    const Job job = {.gather = *gather};
    if (exchange->overlaps)
        return submit(exchange, &job);
    CommGather now = *gather;
    now.buffer = exchange->buffers[0];
    comm_all_gather(exchange->comm, &now);
    return exchange->n_submitted++;
}

int64_t exchange_gather_shared(Exchange *exchange, const CommGroup *group, const CommGather *gather,
                               CommCounter *arrivals)
{
    const Job job = {.gather = *gather, .group = group, .arrivals = arrivals};
    if (exchange->overlaps)
        return submit(exchange, &job);
    CommGather now = *gather;
    now.buffer = exchange->buffers[0];
    comm_group_gather(group, exchange->comm, &now);
    comm_counter_add(arrivals);
    return exchange->n_submitted++;
}

bool exchange_is_done(Exchange *exchange, int64_t ticket)
{
    if (!exchange->overlaps)
        return true;
    pthread_mutex_lock(&exchange->lock);
    const bool is_done = ticket < exchange->n_done;
    pthread_mutex_unlock(&exchange->lock);
    return is_done;
}

void exchange_wait(Exchange *exchange, int64_t ticket)
{
    if (!exchange->overlaps)
        return;
    pthread_mutex_lock(&exchange->lock);
    CHECK(ticket < exchange->n_submitted, "waits for job %lld of %lld", (long long)ticket,
          (long long)exchange->n_submitted);
    wait_until_done(exchange, ticket + 1);
    pthread_mutex_unlock(&exchange->lock);
}

void exchange_wait_all(Exchange *exchange)
{
    exchange_wait(exchange, exchange->n_submitted - 1); // which only this thread changes
}
