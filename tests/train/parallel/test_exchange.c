// Exchanges beside computing against the blocking ones, at every number of ranks CTest starts this
// with: the same bits, however many buckets are under way. Ranks give and wait at different times.
#define _GNU_SOURCE // nanosleep
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "train/parallel/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_BUCKETS = 24, MOST_COUNT = 9000 };

static Comm comm;

// Of bucket b: nothing, less than a block, uneven shares, more than a megabyte.
static int64_t count_of(int b)
{
    static const int64_t counts[] = {0, 1, 1023, 1025, 5000, MOST_COUNT, 4096};
    return counts[b % 7];
}

// Gradients of very different sizes, so that the order of additions shows.
static void fill(float *bucket, int b, int round)
{
    testing_fill(bucket, count_of(b), 1.0, (uint64_t)(1000 * round + 10 * b + comm.rank));
    for (int64_t i = 0; i < count_of(b); i += 3)
        bucket[i] *= 1e6f;
}

// Ranks come to the next line at different times.
static void stagger(int turn)
{
    const struct timespec time = {.tv_nsec = (turn + comm.rank) % 3 * 400000L};
    nanosleep(&time, NULL);
}

typedef struct Case {
    Exchange *exchange;
    unsigned char *buffers;
    float *buckets; // [N_BUCKETS][MOST_COUNT]
    float *sums;    // the same
} Case;

static Case start(bool overlaps, bool as_bf16)
{
    Case c = {0};
    const int64_t bytes =
        (comm_reduce_bytes(MOST_COUNT, comm.size, comm.size, as_bf16) + 63) / 64 * 64;
    c.buffers = malloc((size_t)(bytes * exchange_n_buffers(comm.size, overlaps) + 1));
    c.buckets = malloc(sizeof(float[N_BUCKETS][MOST_COUNT]));
    c.sums = calloc(1, sizeof(float[N_BUCKETS][MOST_COUNT]));
    assert_true(c.buffers != NULL && c.buckets != NULL && c.sums != NULL);
    assert_ok(exchange_start(&c.exchange, &comm, c.buffers, bytes, overlaps));
    assert_int_equal(exchange_overlaps(c.exchange), overlaps && comm.size > 1);
    return c;
}

static void end(Case *c)
{
    exchange_stop(c->exchange);
    free(c->buffers);
    free(c->buckets);
    free(c->sums);
}

// Sums of two rounds, the second of `senders` ranks; then every share is updated and gathered.
static void run(Case *c, int senders, bool as_bf16)
{
    for (int round = 0; round < 2; round++) {
        for (int b = N_BUCKETS - 1; b >= 0; b--) {
            float *bucket = c->buckets + b * MOST_COUNT;
            fill(bucket, b, round);
            const CommReduce reduce = {.sum = c->sums + b * MOST_COUNT,
                                       .bucket = bucket,
                                       .count = count_of(b),
                                       .n_senders = round == 0 ? comm.size : senders,
                                       .fresh = round == 0,
                                       .as_bf16 = as_bf16};
            exchange_reduce(c->exchange, &reduce);
            if (b % 8 == 0)
                stagger(b);
        }
        exchange_wait_all(c->exchange);
    }
    int64_t tickets[N_BUCKETS];
    CommRange exact[N_BUCKETS]; // read until all are done
    for (int b = 0; b < N_BUCKETS; b++) {
        int64_t first, own;
        comm_share(count_of(b), comm.rank, comm.size, &first, &own);
        float *bucket = c->buckets + b * MOST_COUNT;
        memset(bucket, 0, (size_t)count_of(b) * sizeof(float));
        memcpy(bucket + first, c->sums + b * MOST_COUNT, (size_t)own * sizeof(float));
        exact[b] = (CommRange){count_of(b) / 3, count_of(b) / 2};
        const CommGather gather = {.bucket = bucket,
                                   .count = count_of(b),
                                   .as_bf16 = as_bf16,
                                   .exact = &exact[b],
                                   .n_exact = 1};
        tickets[b] = exchange_gather(c->exchange, &gather);
    }
    for (int b = 0; b < N_BUCKETS; b++) {
        exchange_wait(c->exchange, tickets[b]);
        assert_true(exchange_is_done(c->exchange, tickets[b]));
    }
}

static void check_same_bits(int senders, bool as_bf16)
{
    Case blocking = start(false, as_bf16), overlapping = start(true, as_bf16);
    run(&blocking, senders, as_bf16);
    run(&overlapping, senders, as_bf16);
    for (int b = 0; b < N_BUCKETS; b++)
        assert_memory_equal(blocking.buckets + b * MOST_COUNT, overlapping.buckets + b * MOST_COUNT,
                            (size_t)count_of(b) * sizeof(float));
    end(&overlapping);
    end(&blocking);
}

static void test_same_bits_as_the_blocking_ones(void **state)
{
    (void)state;
    for (int senders = 0; senders <= comm.size; senders++) {
        check_same_bits(senders, false);
        check_same_bits(senders, true);
    }
}

// In bfloat16 the sums are other numbers, near by.
static void test_bf16_rounds_what_is_sent(void **state)
{
    (void)state;
    Case wide = start(true, false), narrow = start(true, true);
    run(&wide, comm.size, false);
    run(&narrow, comm.size, true);
    const float *a = wide.buckets + 5 * MOST_COUNT, *b = narrow.buckets + 5 * MOST_COUNT;
    const double error = testing_error(b, a, MOST_COUNT, 1e-6);
    assert_true(error > 1e-4 && error < 4e-3); // seen 1.2e-3 to 2.2e-3; 2^-9 of each number
    end(&narrow);
    end(&wide);
}

// More jobs than the queue holds, of which nobody waits for any.
static void test_more_jobs_than_the_queue_holds(void **state)
{
    (void)state;
    Case c = start(true, false);
    c.buckets[0] = 0;
    int64_t last = -1;
    for (int i = 0; i < 2500; i++) {
        const CommReduce reduce = {.sum = c.sums + i % N_BUCKETS * MOST_COUNT,
                                   .bucket = c.buckets,
                                   .count = 1,
                                   .n_senders = 1,
                                   .fresh = true};
        last = exchange_reduce(c.exchange, &reduce);
    }
    assert_int_equal(last, 2499);
    end(&c); // waits for them
}

// What MPI is asked for between exchanges, by this thread.
static void test_ranks_talk_between_exchanges(void **state)
{
    (void)state;
    Case c = start(true, false);
    for (int i = 0; i < 20; i++) {
        double sum = comm.rank;
        c.buckets[0] = 1;
        const CommReduce reduce = {
            .sum = c.sums, .bucket = c.buckets, .count = 1, .n_senders = comm.size, .fresh = true};
        exchange_reduce(c.exchange, &reduce);
        stagger(i);
        exchange_wait_all(c.exchange);
        comm_sum_doubles(&comm, &sum, 1);
        assert_true(sum == comm.size * (comm.size - 1) / 2.0);
        assert_true(comm.rank > 0 || c.sums[0] == (float)comm.size);
    }
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_as_the_blocking_ones),
        cmocka_unit_test(test_bf16_rounds_what_is_sent),
        cmocka_unit_test(test_more_jobs_than_the_queue_holds),
        cmocka_unit_test(test_ranks_talk_between_exchanges),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
