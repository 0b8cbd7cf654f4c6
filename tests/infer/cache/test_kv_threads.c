// infer/cache/kv_cache from several threads: each grows, forks and releases sequences of its own,
// which begin with pages that all of them share.
#include "tests/support/testing.h"

#include "base/random.h"
#include "tests/support/testing_kv.h"

#include <pthread.h>

enum { N_THREADS = 4, ROUNDS = 6 };

typedef struct Worker {
    pthread_t thread;
    Draw draw;
    TestSequence own, fork;
} Worker;

// Decodes on, with a fork that is quantized beside it.
static void *work(void *argument)
{
    Worker *worker = argument;
    TestSequence *own = &worker->own, *fork = &worker->fork;
    for (int round = 0; round < ROUNDS; round++) {
        for (int t = 0; t < 20; t++)
            testing_kv_append(own, &worker->draw, 1);
        testing_kv_fork(fork, own);
        testing_kv_append(fork, &worker->draw, 1 + draw_below(&worker->draw, 150));
        testing_kv_append(own, &worker->draw, draw_below(&worker->draw, 40));
        testing_kv_check(own, own->length);
        testing_kv_check(fork, fork->length);
        kv_sequence_release(fork->sequence);
    }
    kv_sequence_release(own->sequence);
    return NULL;
}

static void run_threads(const KvFormat *format)
{
    static TestSequence prompt;
    static Worker workers[N_THREADS];
    const ModelShape *shape = &testing_kv_shapes[1];
    KvCache *cache;
    assert_ok(kv_cache_create(&cache, shape, format, 0));
    prompt = (TestSequence){.shape = shape, .format = format};
    assert_ok(kv_sequence_create(&prompt.sequence, cache));
    Draw draw = {.key = 1};
    testing_kv_append(&prompt, &draw, 100);
    testing_kv_end_prompt(&prompt);
    for (int i = 0; i < N_THREADS; i++) {
        workers[i].draw = (Draw){.key = random_key((uint64_t)i, "threads")};
        testing_kv_fork(&workers[i].own, &prompt);
    }
    kv_sequence_release(prompt.sequence);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    assert_int_equal(kv_cache_bytes(cache), 0);
    kv_cache_release(cache);
}

static void test_rows(void **state)
{
    (void)state;
    const KvFormat format = {KV_BFLOAT16};
    run_threads(&format);
}

static void test_codes(void **state)
{
    (void)state;
    const KvFormat format = {KV_BFLOAT16, KV_CHANNEL, .value_bits = 2, .key_bits = 4};
    run_threads(&format);
}

static void test_segments(void **state)
{
    (void)state;
    const KvFormat format = {KV_BFLOAT16, KV_QUANTO, true, .value_bits = 2, .key_bits = 4};
    run_threads(&format);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
