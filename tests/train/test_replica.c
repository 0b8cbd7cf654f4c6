// Parameters that ranks share, at every number of ranks CTest starts this with: groups, windows,
// counters, and updates that must be on all ranks when replica_wait() says so, with one copy for
// all ranks, one for two (as on several hosts), and one for each, sent in float32 and as bfloat16.
// Ranks are early and late in turn.
#define _GNU_SOURCE // nanosleep
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "base/log.h"
#include "model/kernels/half.h"
#include "model/params.h"
#include "train/replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static Comm comm;

// Layers of 22 blocks of shares, so that each of four ranks has some.
static const ModelShape small = {.n_layers = 3,
                                 .d_model = 48,
                                 .n_heads = 6,
                                 .n_kv_heads = 2,
                                 .head_dim = 8,
                                 .d_ffn = 96,
                                 .vocab_size = 301,
                                 .rope_pairs = 4};

static void stagger(int turn)
{
    const struct timespec time = {.tv_nsec = (turn + comm.rank) % 3 * 400000L};
    nanosleep(&time, NULL);
}

// Waits for all ranks.
static void meet(void)
{
    double nothing = 0;
    comm_sum_doubles(&comm, &nothing, 1);
}

static CommGroup groups_of(int most)
{
    CommGroup group;
    log_set_quiet(true); // says why nobody shares
    assert_ok(comm_group_start(&group, &comm, most));
    log_set_quiet(comm.rank != 0);
    return group;
}

// ---- groups and windows ----

static void test_ranks_of_a_host_are_one_group(void **state)
{
    (void)state;
    CommGroup group = groups_of(0);
    assert_int_equal(group.shares, comm.size > 1);
    if (group.shares) {
        assert_int_equal(group.rank, comm.rank);
        assert_int_equal(group.size, comm.size);
        assert_int_equal(group.n_groups, 1);
        assert_int_equal(group.n_on_host, 1);
    }
    comm_group_end(&group);
}

static void test_groups_of_two(void **state)
{
    (void)state;
    CommGroup group = groups_of(2);
    assert_int_equal(group.shares, comm.size % 2 == 0);
    if (group.shares) {
        assert_int_equal(group.rank, comm.rank % 2);
        assert_int_equal(group.size, 2);
        assert_int_equal(group.n_groups, comm.size / 2);
        assert_int_equal(group.n_on_host, comm.size / 2);
        for (int i = 0; i < group.n_groups; i++)
            assert_int_equal(group.peers[i], 2 * i + comm.rank % 2);
    }
    comm_group_end(&group);
}

static void test_nobody_shares_if_groups_differ_or_are_of_one(void **state)
{
    (void)state;
    CommGroup group = groups_of(1);
    assert_false(group.shares);
    assert_int_equal(group.size, 1);
    comm_group_end(&group);
    group = groups_of(3);
    assert_int_equal(group.shares, comm.size == 2 || comm.size == 3);
    comm_group_end(&group);
}

static void test_a_window_is_one_memory(void **state)
{
    (void)state;
    CommGroup group = groups_of(0);
    if (!group.shares)
        skip();
    enum { COUNT = 100001 };
    CommWindow window;
    assert_true(comm_window_open(&window, &comm, &group, COUNT * (int64_t)sizeof(int)));
    int *shared = window.bytes;
    assert_int_equal((uintptr_t)shared % 64, 0);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(shared[i], 0);
    comm_window_sync(&window, &group);
    stagger(0);
    for (int i = comm.rank; i < COUNT; i += comm.size)
        shared[i] = i + 1;
    comm_window_sync(&window, &group);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(shared[i], i + 1);
    comm_window_close(&window);
    assert_null(window.bytes);
    comm_group_end(&group);
}

static void test_without_room_nobody_shares(void **state)
{
    (void)state;
    CommGroup group = groups_of(0);
    if (!group.shares)
        skip();
    CommWindow window;
    log_set_quiet(true);
    assert_false(comm_window_open(&window, &comm, &group, INT64_C(1) << 50));
    char need[64]; // 2^50 bytes and 8 MiB of each rank
    snprintf(need, sizeof need, "and messages need %d.0 MiB", (1 << 30) + 8 * comm.size);
    assert_non_null(strstr(fail_text(), need));
    assert_null(window.bytes);
    assert_false(group.shares);
    Replica replica; // as if it had never been tried
    assert_ok(replica_create(&replica, &comm, &group, &small));
    log_set_quiet(comm.rank != 0);
    assert_false(replica_is_shared(&replica));
    assert_true(replica_is_writer(&replica));
    assert_int_equal(replica_peers_bytes(&replica), 0);
    replica_release(&replica);
    comm_group_end(&group);
}

static void test_what_was_written_before_counting_is_there_after_it(void **state)
{
    (void)state;
    CommGroup group = groups_of(0);
    if (!group.shares)
        skip();
    enum { TURNS = 100 };
    CommWindow window;
    assert_true(comm_window_open(&window, &comm, &group, 4096));
    CommCounter *counter = window.bytes;
    int *values = (int *)(counter + 1); // [size]
    for (int turn = 1; turn <= TURNS; turn++) {
        stagger(turn);
        values[comm.rank] = turn;
        comm_counter_add(counter);
        comm_counter_await(counter, (int64_t)turn * comm.size);
        assert_true(comm_counter_has(counter, (int64_t)turn * comm.size));
        for (int rank = 0; rank < comm.size; rank++)
            assert_int_equal(values[rank], turn);
        meet(); // before the next is written
    }
    comm_window_close(&window);
    comm_group_end(&group);
}

// ---- weights ----

typedef struct Case {
    CommGroup group;
    Replica replica;
    Partition partition;
    Exchange *exchange;
} Case;

static void start(Case *c, int most, bool overlaps)
{
    enum { BUFFER_BYTES = 1 << 18 }; // the largest bucket, a layer, has 20,064 numbers
    static _Alignas(64) unsigned char buffers[3][BUFFER_BYTES];
    assert_true(exchange_n_buffers(comm.size, true) <= 3);
    c->group = groups_of(most);
    assert_ok(replica_create(&c->replica, &comm, &c->group, &small));
    assert_int_equal(replica_is_shared(&c->replica), c->group.shares);
    assert_ok(partition_create(&c->partition, &small, comm.size, comm.rank));
    assert_true(c->partition.n_buckets <= partition_max_buckets(&small));
    assert_ok(exchange_start(&c->exchange, &comm, buffers, BUFFER_BYTES, overlaps));
}

static void end(Case *c)
{
    exchange_stop(c->exchange);
    partition_release(&c->partition);
    replica_release(&c->replica);
    comm_group_end(&c->group);
}

// Of 23 bits: in bfloat16 it is another number.
static float value_of(int64_t i, int step)
{
    return (float)(i % 1000 + 1000 * step) * 0x1.fffp-3f;
}

// This rank's shares of a bucket as an update leaves them.
static void update(Case *c, int i, int step)
{
    const Bucket *bucket = &c->partition.buckets[i];
    for (int64_t j = bucket->own_first; j < bucket->own_first + bucket->own_count; j++)
        c->replica.model.params.flat[j] = value_of(j, step);
}

// Whether number j of a bucket is updated by a rank of this rank's copy, or is one of a vector.
static bool is_exact_here(const Case *c, const Bucket *bucket, int64_t j)
{
    const bool shared = replica_is_shared(&c->replica);
    for (int k = 0; k < c->group.size; k++) {
        const int rank = shared ? comm.rank - c->group.rank + k : comm.rank;
        int64_t first, own;
        comm_share(bucket->count, rank, comm.size, &first, &own);
        if (j >= first && j < first + own)
            return true;
    }
    for (int r = 0; r < bucket->n_vectors; r++)
        if (j >= bucket->vectors[r].first &&
            j < bucket->vectors[r].first + bucket->vectors[r].count)
            return true;
    return false;
}

static void check_numbers(const Case *c, int i, int step, bool as_bf16)
{
    const Bucket *bucket = &c->partition.buckets[i];
    const float *values = c->replica.model.params.flat + bucket->first;
    for (int64_t j = 0; j < bucket->count; j++) {
        float expected = value_of(bucket->first + j, step);
        if (as_bf16 && !is_exact_here(c, bucket, j))
            expected = half_bf16_to_f32(half_f32_to_bf16(expected));
        if (values[j] != expected)
            fail_msg("rank %d, step %d, bucket %d: %g at %lld, expected %g", comm.rank, step, i,
                     (double)values[j], (long long)j, (double)expected);
    }
}

static void check_bucket(const Case *c, int i, int step)
{
    check_numbers(c, i, step, false);
}

static void test_shares_are_gathered(void **state)
{
    (void)state;
    for (int most = 0; most <= 3; most++) {
        Case c;
        start(&c, most, false);
        for (int step = 1; step <= 3; step++) {
            stagger(step);
            for (int i = 0; i < c.partition.n_buckets; i++)
                update(&c, i, step);
            replica_gather(&c.replica, &c.partition);
            for (int i = 0; i < c.partition.n_buckets; i++)
                check_bucket(&c, i, step);
            meet();
        }
        end(&c);
    }
}

// As a training step does: update and send, then, in the next forward, wait for bucket after
// bucket; now and then all parameters are wanted exactly.
static void check_updates(int most, bool overlaps, bool as_bf16)
{
    Case c;
    start(&c, most, overlaps);
    const int n = c.partition.n_buckets;
    assert_true(replica_has_arrived(&c.replica, c.exchange, n)); // none was sent
    for (int step = 1; step <= 20; step++) {
        for (int i = 0; i < n; i++) {
            if (i == 2)
                stagger(step);
            update(&c, i, step);
            replica_send(&c.replica, c.exchange, &c.partition, i, as_bf16);
        }
        for (int i = 0; i < n; i++) {
            if (!replica_has_arrived(&c.replica, c.exchange, i + 1))
                replica_wait(&c.replica, c.exchange, i + 1);
            assert_true(replica_has_arrived(&c.replica, c.exchange, i + 1));
            check_numbers(&c, i, step, as_bf16);
        }
        exchange_wait_all(c.exchange);
        meet();
        const bool is_one_copy = comm.size == 1 || (c.group.shares && c.group.n_groups == 1);
        assert_int_equal(c.replica.is_rounded, as_bf16 && !is_one_copy);
        if (step % 3 != 0)
            continue;
        replica_make_exact(&c.replica, &c.partition);
        assert_ptr_equal(replica_exact_model(&c.replica), &c.replica.model);
        for (int i = 0; i < n; i++)
            check_bucket(&c, i, step);
        meet();
    }
    end(&c);
}

static void test_a_bucket_is_here_when_it_is_awaited(void **state)
{
    (void)state;
    for (int most = 0; most <= 3; most++) {
        check_updates(most, true, false);
        check_updates(most, false, false);
    }
}

static void test_a_bucket_of_bf16_is_here_when_it_is_awaited(void **state)
{
    (void)state;
    for (int most = 0; most <= 3; most++) {
        check_updates(most, true, true);
        check_updates(most, false, true);
    }
}

static void test_a_bucket_is_not_here_before_all_have_sent_it(void **state)
{
    (void)state;
    Case c;
    start(&c, 0, true);
    if (replica_is_shared(&c.replica)) {
        const bool is_late = comm.rank == comm.size - 1;
        for (int i = 0; i < c.partition.n_buckets && !is_late; i++)
            replica_send(&c.replica, c.exchange, &c.partition, i, false);
        meet();
        assert_true(is_late || !replica_has_arrived(&c.replica, c.exchange, 1));
        meet();
        for (int i = 0; i < c.partition.n_buckets && is_late; i++)
            replica_send(&c.replica, c.exchange, &c.partition, i, false);
        replica_wait(&c.replica, c.exchange, c.partition.n_buckets);
        exchange_wait_all(c.exchange);
    }
    end(&c);
}

// Each layer by another rank, what is between them by the writers.
static void test_layers_of_any_rank_get_everywhere(void **state)
{
    (void)state;
    for (int most = 0; most <= 3; most++) {
        Case c;
        start(&c, most, false);
        float *flat = c.replica.model.params.flat;
        for (int64_t j = 0; j < params_count(&small) && replica_is_writer(&c.replica); j++)
            flat[j] = value_of(j, 0);
        replica_sync(&c.replica);
        for (int l = 0; l < small.n_layers; l++) {
            int64_t first, count;
            params_layer_range(&small, l, &first, &count);
            for (int64_t j = first; j < first + count && comm.rank == l % comm.size; j++)
                flat[j] = value_of(j, 1);
            replica_broadcast(&c.replica, first, count, l % comm.size);
        }
        replica_sync(&c.replica);
        for (int i = 0; i < c.partition.n_buckets; i++) {
            const int layer = c.partition.buckets[i].layer;
            check_bucket(&c, i, layer >= 0 && layer < small.n_layers);
        }
        meet();
        end(&c);
    }
}

static void test_only_pairs_are_the_ranks_own(void **state)
{
    (void)state;
    Case c;
    start(&c, 0, false);
    const Model *model = &c.replica.model;
    for (int p = 0; p < small.rope_pairs; p++)
        assert_int_equal(model_pairs(model, small.n_layers - 1, 1)[p], p);
    assert_int_equal(model->params.count, params_count(&small));
    if (replica_is_shared(&c.replica)) {
        const int64_t bytes = params_count(&small) * (int64_t)sizeof(float);
        assert_ptr_equal(model->params.flat, c.replica.window.bytes);
        assert_true(model->arena.size_bytes < 1024);
        assert_true(c.replica.window.size_bytes - bytes < 4096);
        assert_int_equal(replica_peers_bytes(&c.replica),
                         c.replica.window.size_bytes - c.replica.window.size_bytes / comm.size);
    }
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_of_a_host_are_one_group),
        cmocka_unit_test(test_groups_of_two),
        cmocka_unit_test(test_nobody_shares_if_groups_differ_or_are_of_one),
        cmocka_unit_test(test_a_window_is_one_memory),
        cmocka_unit_test(test_without_room_nobody_shares),
        cmocka_unit_test(test_what_was_written_before_counting_is_there_after_it),
        cmocka_unit_test(test_shares_are_gathered),
        cmocka_unit_test(test_a_bucket_is_here_when_it_is_awaited),
        cmocka_unit_test(test_a_bucket_of_bf16_is_here_when_it_is_awaited),
        cmocka_unit_test(test_a_bucket_is_not_here_before_all_have_sent_it),
        cmocka_unit_test(test_layers_of_any_rank_get_everywhere),
        cmocka_unit_test(test_only_pairs_are_the_ranks_own),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
