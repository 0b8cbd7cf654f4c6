// data/prefetch: the sequence of batches, errors at their batch, stopping at any time, waiting.
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "data/prefetch.h"
#include "data/shards/shard.h"
#include "train/parallel/batch_schedule.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { V = 60000, T = 64, B = 2, N_TOKENS = 40 * 1000 };

static const int first_of_step[] = {0, 1};
static char path[PATH_BYTES], damaged[PATH_BYTES];

static void write_shard(const char *to)
{
    ShardInfo info = {.vocab_size = V, .eos_id = 0, .source = "test"};
    memset(info.tokenizer_sha256, 'a', SHA256_HEX_BYTES - 1);
    int32_t *ids = malloc(N_TOKENS * sizeof *ids);
    assert_non_null(ids);
    for (int i = 0; i < N_TOKENS; i++)
        ids[i] = i;
    ShardWriter *writer;
    assert_ok(shard_create(&writer, to, &info));
    assert_ok(shard_append(writer, ids, N_TOKENS));
    assert_ok(shard_finish(writer));
    free(ids);
}

static int make_shard(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s", testing_path(testing_dir(), "a.h5"));
    snprintf(damaged, sizeof damaged, "%s", testing_path(testing_dir(), "damaged.h5"));
    write_shard(path);
    return 0;
}

typedef struct Fixture {
    SourceSpec spec;
    char *shard;
    Mixture *mixture, *other; // the other reads for comparison
    Arena arena;
    PrefetchMemory memory;
} Fixture;

static void start(Fixture *f, char *shard, int vocab_size)
{
    static char name[] = "source";
    *f = (Fixture){.shard = shard, .arena = arena_start("batches")};
    f->spec = (SourceSpec){name, &f->shard, 1, 1};
    assert_ok(mixture_open(&f->mixture, &f->spec, 1, T, 7, NULL, vocab_size));
    assert_ok(mixture_open(&f->other, &f->spec, 1, T, 7, NULL, vocab_size));
    prefetch_place(&f->memory, &f->arena, B, T);
    assert_ok(arena_allocate(&f->arena));
    prefetch_place(&f->memory, &f->arena, B, T);
}

static void end(Fixture *f)
{
    mixture_close(f->mixture);
    mixture_close(f->other);
    arena_release(&f->arena);
}

static void sleep_ms(int ms)
{
    const struct timespec rest = {.tv_nsec = 1000000L * ms};
    nanosleep(&rest, NULL);
}

// The next batch is the samples `first` to first + B - 1 of the mixture.
static void check_batch(Fixture *f, Prefetch *prefetch, int64_t first)
{
    const Batch *batch;
    int64_t first_sample;
    assert_ok(prefetch_next(prefetch, &batch, &first_sample));
    assert_int_equal(first_sample, first);
    for (int b = 0; b < B; b++) {
        int32_t tokens[T + 1];
        assert_ok(mixture_read(f->other, first + b, tokens));
        assert_memory_equal(batch->inputs + b * T, tokens, T * sizeof *tokens);
        assert_memory_equal(batch->targets + b * T, tokens + 1, T * sizeof *tokens);
    }
}

static void test_batches_come_in_the_order_of_steps(void **state)
{
    (void)state;
    Fixture f;
    start(&f, path, V);
    Prefetch *prefetch;
    static const int own[] = {4, 0, 1};
    const PrefetchOrder order = {3, 50, 12, own, 3};
    assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
    for (int step = 3; step <= 50; step++)
        for (int i = 0; i < 3; i++)
            check_batch(&f, prefetch, (step - 1) * 12 + own[i] * B);
    prefetch_stop(prefetch);
    end(&f);
}

// The micro-batches of a rank in the order in which train/step.c takes them.
static int own_micro_batches(int own[], const BatchSchedule *schedule, int rank)
{
    int n = 0;
    for (int round = 0; round < schedule->n_rounds; round++) {
        const MicroBatches group = batch_schedule_group(schedule, round, rank);
        for (int i = 0; i < group.count; i++)
            own[n++] = group.first + i;
    }
    return n;
}

// What 1, 2, 3 and 4 ranks read of a step together is the same, each micro-batch once.
static void test_any_number_of_ranks_reads_the_same(void **state)
{
    (void)state;
    enum { G = 14, N = G / B };
    for (int n_ranks = 1; n_ranks <= 4; n_ranks++) {
        const BatchSchedule schedule = batch_schedule_make(N, 5, n_ranks);
        int times[N] = {0};
        for (int rank = 0; rank < n_ranks; rank++) {
            Fixture f;
            start(&f, path, V);
            int own[N];
            const int n_own = own_micro_batches(own, &schedule, rank);
            const PrefetchOrder order = {4, 4, G, own, n_own};
            Prefetch *prefetch;
            assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
            for (int i = 0; i < n_own; i++) {
                check_batch(&f, prefetch, 3 * G + own[i] * B);
                times[own[i]]++;
            }
            prefetch_stop(prefetch);
            end(&f);
        }
        for (int m = 0; m < N; m++)
            assert_int_equal(times[m], 1);
    }
}

// A batch stays as it is while the thread reads on.
static void test_a_batch_is_the_callers_until_the_next(void **state)
{
    (void)state;
    Fixture f;
    start(&f, path, V);
    Prefetch *prefetch;
    const PrefetchOrder order = {1, 1000, B, first_of_step, 1};
    assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
    for (int n = 0; n < 3 * PREFETCH_BATCHES; n++) {
        const Batch *batch;
        int64_t first_sample;
        int32_t before[B * T];
        assert_ok(prefetch_next(prefetch, &batch, &first_sample));
        memcpy(before, batch->inputs, sizeof before);
        sleep_ms(2);
        assert_memory_equal(batch->inputs, before, sizeof before);
    }
    prefetch_stop(prefetch);
    end(&f);
}

// The vocabulary is too small for the higher tokens: some sample is the first that cannot be read.
static void test_an_error_comes_with_its_batch(void **state)
{
    (void)state;
    Fixture f;
    start(&f, path, N_TOKENS - 600);
    int first_bad = 0;
    int32_t tokens[T + 1];
    while (mixture_read(f.other, first_bad * B, tokens) == OK &&
           mixture_read(f.other, first_bad * B + 1, tokens) == OK)
        first_bad++;
    assert_in_range(first_bad, 2 * PREFETCH_BATCHES, 100); // seen 60
    char expected[256];
    snprintf(expected, sizeof expected, "%.200s", fail_text());
    Prefetch *prefetch;
    const PrefetchOrder order = {1, 1000, B, first_of_step, 1};
    assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
    for (int n = 0; n < first_bad; n++) {
        (void)fail(FAILED, "of the caller's own");
        check_batch(&f, prefetch, n * B);
        assert_string_equal(fail_text(), "of the caller's own");
    }
    const Batch *batch;
    int64_t first_sample;
    assert_fails(BAD_INPUT, expected, prefetch_next(prefetch, &batch, &first_sample));
    (void)fail(FAILED, "something else");
    assert_fails(BAD_INPUT, expected, prefetch_next(prefetch, &batch, &first_sample));
    prefetch_stop(prefetch);
    end(&f);
}

static void test_a_damaged_chunk_is_told(void **state)
{
    (void)state;
    write_shard(damaged);
    Fixture f;
    start(&f, damaged, V);
    FILE *file = fopen(damaged, "r+b"); // its chunks are not read yet, but for a few
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long size = ftell(file);
    for (long at = 3000; at < size; at += 50) {
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fputc(0x55, file), 0x55);
    }
    assert_int_equal(fclose(file), 0);
    Prefetch *prefetch;
    const PrefetchOrder order = {1, 1000, B, first_of_step, 1};
    assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
    Status status = OK;
    for (int n = 0; n < 1000 && status == OK; n++) {
        const Batch *batch;
        int64_t first_sample;
        status = prefetch_next(prefetch, &batch, &first_sample);
    }
    assert_fails(BAD_INPUT, "damaged.h5: /tokens ", status);
    prefetch_stop(prefetch);
    end(&f);
}

static void test_it_stops_at_any_time(void **state)
{
    (void)state;
    Fixture f;
    start(&f, path, V);
    for (int n = 0; n < 60; n++) {
        Prefetch *prefetch;
        const PrefetchOrder order = {1, n % 10, 2 * B, first_of_step,
                                     2}; // with few or no batches too
        assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
        for (int i = 0; i < n / 10 && i < 2 * (n % 10); i++)
            check_batch(&f, prefetch, i * B);
        if (n % 3 == 0)
            sleep_ms(1);
        prefetch_stop(prefetch);
    }
    prefetch_stop(NULL);
    end(&f);
}

static void test_a_rank_without_micro_batches_has_none(void **state)
{
    (void)state;
    Fixture f;
    start(&f, path, V);
    Prefetch *prefetch;
    const PrefetchOrder order = {1, 10, B, NULL, 0};
    assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
    assert_true(prefetch_wait_s(prefetch) == 0);
    prefetch_stop(prefetch);
    end(&f);
}

// A loaded machine may keep the thread from some of the batches, but not from all of them: the
// shortest wait for one is shorter than any read.
static void test_steps_do_not_wait_for_their_data(void **state)
{
    (void)state;
    Fixture f;
    start(&f, path, V);
    Prefetch *prefetch;
    const PrefetchOrder order = {1, 100, B, first_of_step, 1};
    double shortest_wait_s = INFINITY, shortest_read_s = INFINITY;
    assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
    for (int n = 0; n < 100; n++) {
        const Batch *batch;
        int64_t first_sample;
        int32_t tokens[T + 1];
        const double start_s = log_seconds(), waited_s = prefetch_wait_s(prefetch);
        for (int b = 0; b < B; b++)
            assert_ok(mixture_read(f.other, n * B + b, tokens));
        shortest_read_s = fmin(shortest_read_s, log_seconds() - start_s);
        sleep_ms(5); // the step
        assert_ok(prefetch_next(prefetch, &batch, &first_sample));
        shortest_wait_s = fmin(shortest_wait_s, prefetch_wait_s(prefetch) - waited_s);
    }
    prefetch_stop(prefetch);
    end(&f);
    assert_true(shortest_wait_s < shortest_read_s); // seen 0.4 and 2.3 us
}

static void *describe_on(void *argument)
{
    Fixture *f = argument;
    for (int i = 0; i < 2000; i++) {
        char text[64];
        mixture_describe(f->mixture, (i * 7919) % 3000, text, sizeof text);
        if (strncmp(text, "source epoch ", 13) != 0)
            return argument;
    }
    return NULL;
}

// Who describes samples walks the same interleave to and fro.
static void test_samples_are_described_meanwhile(void **state)
{
    (void)state;
    Fixture f;
    start(&f, path, V);
    Prefetch *prefetch;
    const PrefetchOrder order = {1, 300, B, first_of_step, 1};
    assert_ok(prefetch_start(&prefetch, f.mixture, &f.memory, &order));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, describe_on, &f), 0);
    for (int n = 0; n < 300; n++)
        check_batch(&f, prefetch, n * B);
    void *wrong;
    assert_int_equal(pthread_join(thread, &wrong), 0);
    assert_null(wrong);
    prefetch_stop(prefetch);
    end(&f);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches_come_in_the_order_of_steps),
        cmocka_unit_test(test_any_number_of_ranks_reads_the_same),
        cmocka_unit_test(test_a_batch_is_the_callers_until_the_next),
        cmocka_unit_test(test_an_error_comes_with_its_batch),
        cmocka_unit_test(test_a_damaged_chunk_is_told),
        cmocka_unit_test(test_it_stops_at_any_time),
        cmocka_unit_test(test_a_rank_without_micro_batches_has_none),
        cmocka_unit_test(test_steps_do_not_wait_for_their_data),
        cmocka_unit_test(test_samples_are_described_meanwhile),
    };
    return cmocka_run_group_tests(tests, make_shard, NULL);
}
