// Which rank updates what: buckets cover the flat vector, shares cover the buckets, and a rank's
// moments lie side by side.
#include "tests/support/testing.h"

#include "model/params.h"
#include "train/parallel/comm.h"
#include "train/parallel/partition.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 9 };

// An untied head: the last bucket is more than a norm. 8 KV dims of 3 heads.
static const ModelShape small = {.n_layers = 3,
                                 .d_model = 12,
                                 .n_heads = 3,
                                 .n_kv_heads = 1,
                                 .head_dim = 8,
                                 .d_ffn = 20,
                                 .vocab_size = 31,
                                 .rope_pairs = 4};

static ModelShape with_large_embedding(void)
{
    ModelShape shape = small;
    shape.vocab_size = 800000; // 9.6 M floats, more than two of the largest buckets
    return shape;
}

static void check_cover(const ModelShape *shape)
{
    Partition partition;
    assert_ok(partition_create(&partition, shape, 1, 0));
    int64_t end = 0;
    for (int i = 0; i < partition.n_buckets; i++) {
        const Bucket *bucket = &partition.buckets[i];
        assert_int_equal(bucket->first, end);
        const int layer = i == 0 ? -1 : partition.buckets[i - 1].layer;
        assert_true(bucket->layer == layer || bucket->layer == layer + 1);
        assert_true(bucket->count > 0 && bucket->count <= COMM_LARGEST_BUCKET);
        end += bucket->count;
    }
    assert_int_equal(end, params_count(shape));
    assert_int_equal(partition.buckets[0].layer, -1);
    assert_int_equal(partition.buckets[partition.n_buckets - 1].layer, shape->n_layers);
    assert_int_equal(partition.own_count, end); // a rank alone owns everything
    partition_release(&partition);
}

static void test_buckets_cover_the_flat_vector(void **state)
{
    (void)state;
    ModelShape large = with_large_embedding(), mla;
    assert_ok(shape_convert(&mla, &small, 1, 4, SVD_SPLIT));
    check_cover(&small);
    check_cover(&large);
    check_cover(&mla);
}

static void test_a_layer_is_a_bucket(void **state)
{
    (void)state;
    Partition partition;
    assert_ok(partition_create(&partition, &small, 2, 1));
    assert_int_equal(partition.n_buckets, 5); // embedding, three layers, norm and head
    for (int layer = 0; layer < 3; layer++) {
        int64_t first, count;
        params_layer_range(&small, layer, &first, &count);
        assert_int_equal(partition.buckets[layer + 1].first, first);
        assert_int_equal(partition.buckets[layer + 1].count, count);
    }
    partition_release(&partition);
}

static void test_large_tensors_are_cut(void **state)
{
    (void)state;
    Partition partition;
    ModelShape shape = with_large_embedding();
    assert_ok(partition_create(&partition, &shape, 1, 0));
    // 9.6 M floats of embedding and as many of the head, by 4 Mi: three each, and three layers.
    assert_int_equal(partition.n_buckets, 3 + 3 + 3);
    assert_int_equal(partition.buckets[0].count, COMM_LARGEST_BUCKET);
    partition_release(&partition);
}

// Every float of the vector has one owner.
static void check_owners(const ModelShape *shape, int n_ranks)
{
    int64_t total = params_count(shape);
    unsigned char *owners = calloc((size_t)total, 1);
    assert_non_null(owners);
    for (int rank = 0; rank < n_ranks; rank++) {
        Partition partition;
        assert_ok(partition_create(&partition, shape, n_ranks, rank));
        for (int i = 0; i < partition.n_buckets; i++) {
            const Bucket *bucket = &partition.buckets[i];
            assert_true(bucket->own_first >= bucket->first);
            assert_true(bucket->own_first + bucket->own_count <= bucket->first + bucket->count);
            for (int64_t j = 0; j < bucket->own_count; j++)
                owners[bucket->own_first + j]++;
        }
        partition_release(&partition);
    }
    for (int64_t i = 0; i < total; i++)
        assert_int_equal(owners[i], 1);
    free(owners);
}

// Trained and frozen tensors together are the flat vector; no bucket reaches into the other kind.
static void check_frozen(const ModelShape *shape, const Trainable *trained, int n_ranks, int rank,
                         unsigned char *owners)
{
    for (int frozen = 0; frozen < 2; frozen++) {
        Partition partition;
        if (frozen)
            assert_ok(partition_create_frozen(&partition, shape, trained, n_ranks, rank));
        else
            assert_ok(partition_create_trained(&partition, shape, trained, n_ranks, rank));
        assert_true(partition.n_buckets <= partition_max_buckets(shape));
        int64_t count = 0;
        for (int i = 0; i < partition.n_buckets; i++) {
            const Bucket *bucket = &partition.buckets[i];
            count += bucket->count;
            for (int64_t j = 0; j < bucket->own_count; j++)
                owners[bucket->own_first + j] =
                    (unsigned char)(owners[bucket->own_first + j] + (frozen ? 1 : 16));
        }
        assert_int_equal(count, frozen ? params_count(shape) - trainable_count(trained, shape)
                                       : trainable_count(trained, shape));
        partition_release(&partition);
    }
}

static void test_frozen_tensors_are_apart(void **state)
{
    (void)state;
    static char attention[] = "attention", odd[] = "*up_proj*", norm[] = "model.norm.weight";
    char *const patterns[] = {attention, odd, norm};
    for (int n = 1; n <= 3; n++) {
        const Trainable trained = {patterns, n};
        unsigned char *owners = calloc((size_t)params_count(&small), 1);
        assert_non_null(owners);
        for (int rank = 0; rank < MOST_RANKS; rank++)
            check_frozen(&small, &trained, MOST_RANKS, rank, owners);
        for (int t = 0; t < params_n_tensors(&small); t++) {
            const ParamInfo info = params_info(&small, t);
            for (int64_t i = 0; i < (int64_t)info.rows * info.cols; i++)
                assert_int_equal(owners[info.offset + i],
                                 trainable_has(&trained, info.name) ? 16 : 1);
        }
        free(owners);
    }
}

static void test_every_parameter_has_one_owner(void **state)
{
    (void)state;
    for (int n_ranks = 1; n_ranks <= MOST_RANKS; n_ranks++)
        check_owners(&small, n_ranks);
}

// What comm_reduce_scatter() leaves on a rank is what the partition says it owns.
static void test_shares_are_those_of_the_collectives(void **state)
{
    (void)state;
    for (int rank = 0; rank < 4; rank++) {
        Partition partition;
        assert_ok(partition_create(&partition, &small, 4, rank));
        for (int i = 0; i < partition.n_buckets; i++) {
            const Bucket *bucket = &partition.buckets[i];
            int64_t first, count;
            comm_share(bucket->count, rank, 4, &first, &count);
            assert_int_equal(bucket->own_first - bucket->first, first);
            assert_int_equal(bucket->own_count, count);
        }
        partition_release(&partition);
    }
}

static void test_moments_lie_side_by_side(void **state)
{
    (void)state;
    int64_t before = params_count(&small);
    for (int rank = 0; rank < MOST_RANKS; rank++) {
        Partition partition;
        assert_ok(partition_create(&partition, &small, MOST_RANKS, rank));
        int64_t end = 0;
        for (int i = 0; i < partition.n_buckets; i++) {
            assert_int_equal(partition.buckets[i].moments_first, end);
            end += partition.buckets[i].own_count;
        }
        assert_int_equal(end, partition.own_count);
        assert_true(end <= before); // rank 0 has the most: what the plan is made for
        before = end;
        partition_release(&partition);
    }
}

// The buckets' vectors are all numbers of the model's vectors and no others.
static void check_vectors(const ModelShape *shape)
{
    Partition partition;
    const int64_t total = params_count(shape);
    unsigned char *marks = calloc((size_t)total, 1);
    assert_non_null(marks);
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        if (info.is_vector)
            memset(marks + info.offset, 1, (size_t)info.rows);
    }
    assert_ok(partition_create(&partition, shape, 2, 0));
    for (int i = 0; i < partition.n_buckets; i++) {
        const Bucket *bucket = &partition.buckets[i];
        int64_t end = 0;
        for (int r = 0; r < bucket->n_vectors; r++) {
            const CommRange range = bucket->vectors[r];
            assert_true(range.first >= end && range.count > 0);
            end = range.first + range.count;
            assert_true(end <= bucket->count);
            for (int64_t j = range.first; j < end; j++)
                assert_int_equal(marks[bucket->first + j]--, 1);
        }
    }
    for (int64_t j = 0; j < total; j++)
        assert_int_equal(marks[j], 0);
    partition_release(&partition);
    free(marks);
}

static void test_vectors_are_known_in_every_bucket(void **state)
{
    (void)state;
    ModelShape large = with_large_embedding(), mla, cut = small;
    assert_ok(shape_convert(&mla, &small, 1, 4, SVD_SPLIT));
    check_vectors(&small);
    check_vectors(&large);
    check_vectors(&mla);
    // 4185 rows of 1002 before the second norm, which the end of the largest bucket cuts.
    cut.n_layers = 2;
    cut.d_model = 1002;
    cut.n_heads = 522;
    cut.head_dim = 4;
    Partition partition;
    assert_ok(partition_create(&partition, &cut, 1, 0));
    assert_int_equal(partition.buckets[1].n_vectors, 2);
    assert_int_equal(partition.buckets[2].n_vectors, 1);
    assert_int_equal(partition.buckets[2].vectors[0].first, 0);
    partition_release(&partition);
    check_vectors(&cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_cover_the_flat_vector),
        cmocka_unit_test(test_a_layer_is_a_bucket),
        cmocka_unit_test(test_large_tensors_are_cut),
        cmocka_unit_test(test_frozen_tensors_are_apart),
        cmocka_unit_test(test_every_parameter_has_one_owner),
        cmocka_unit_test(test_shares_are_those_of_the_collectives),
        cmocka_unit_test(test_moments_lie_side_by_side),
        cmocka_unit_test(test_vectors_are_known_in_every_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
