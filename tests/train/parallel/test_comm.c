// What the ranks say to each other, at every number of ranks CTest starts this with: expected
// values are computed by each rank alone. Rank 0 prints; a rank that fails makes all of them fail.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"

#include "model/kernels/half.h"
#include "train/parallel/comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Comm comm;

static Status fail_as(int rank, Status kind)
{
    return comm.rank == rank ? fail(kind, "disk %d is full", rank) : OK;
}

// ---- Agreement ----

static void test_agreement_on_success(void **state)
{
    (void)state;
    assert_ok(comm_agree(&comm, OK));
}

static void test_one_rank_that_failed_is_named_on_all(void **state)
{
    (void)state;
    if (comm.size == 1)
        skip();
    for (int rank = 0; rank < comm.size; rank++) {
        Status kind = rank % 2 == 0 ? FAILED : BAD_INPUT;
        char named[64], text[64];
        snprintf(named, sizeof named, "rank %d on ", rank);
        snprintf(text, sizeof text, ": disk %d is full", rank);
        assert_fails(kind, named, comm_agree(&comm, fail_as(rank, kind)));
        assert_non_null(strstr(fail_text(), text));
    }
}

static void test_host_of_the_rank_is_its_own(void **state)
{
    (void)state;
    if (comm.size == 1)
        skip();
    Comm elsewhere = comm; // borrows; as if every rank had a machine to itself
    snprintf(elsewhere.host, sizeof elsewhere.host, "node%d", comm.rank);
    int last = comm.size - 1;
    char named[64];
    snprintf(named, sizeof named, "rank %d on node%d: disk", last, last);
    assert_fails(FAILED, named, comm_agree(&elsewhere, fail_as(last, FAILED)));
}

static void test_lowest_of_two_that_failed_wins(void **state)
{
    (void)state;
    if (comm.size < 4)
        skip();
    Status own = comm.rank == 1 || comm.rank == 3 ? fail(FAILED, "cause %d", comm.rank) : OK;
    assert_fails(FAILED, ": cause 1", comm_agree(&comm, own));
    assert_memory_equal(fail_text(), "rank 1 on ", 10);
}

static void test_no_rank_is_named_if_all_failed(void **state)
{
    (void)state;
    Status own = fail(BAD_INPUT, "no such file");
    assert_int_equal(comm_agree(&comm, own), BAD_INPUT);
    assert_string_equal(fail_text(), "no such file");
}

static void test_what_only_some_did_and_all_of_them_failed_names_no_rank(void **state)
{
    (void)state;
    const bool takes_part = comm.rank % 2 == 0;
    const Status own = takes_part ? fail(BAD_INPUT, "no such file") : OK;
    assert_int_equal(comm_agree_of(&comm, takes_part, own), BAD_INPUT);
    assert_string_equal(fail_text(), "no such file");
    assert_ok(comm_agree_of(&comm, takes_part, OK));
}

static void test_longest_error_text_arrives(void **state)
{
    (void)state;
    char longest[4096];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    Status own = comm.rank == comm.size - 1 ? fail(FAILED, "%s", longest) : OK;
    assert_fails(FAILED, "xxxxxxxx", comm_agree(&comm, own));
    assert_true(strlen(fail_text()) > 2000);
}

// ---- Sums, maxima, copies ----

static void check_sums_and_maxima(int64_t count)
{
    double *sum = calloc((size_t)count + 1, sizeof *sum), *max = calloc((size_t)count + 1, 8);
    assert_non_null(sum);
    assert_non_null(max);
    for (int64_t i = 0; i < count; i++) {
        sum[i] = (double)(i + 1) * (comm.rank + 1);
        max[i] = (i + comm.rank) % comm.size == 0 ? (double)i : -1.0;
    }
    sum[count] = max[count] = 7; // nobody's
    comm_sum_doubles(&comm, sum, count);
    comm_max_doubles(&comm, max, count);
    const double ranks = comm.size * (comm.size + 1) / 2;
    for (int64_t i = 0; i < count; i++) {
        assert_true(sum[i] == (double)(i + 1) * ranks); // whole numbers: exact
        assert_true(max[i] == (double)i);
    }
    assert_true(sum[count] == 7 && max[count] == 7);
    free(sum);
    free(max);
}

static void check_broadcasts(int64_t size)
{
    unsigned char *bytes = malloc((size_t)size + 1);
    assert_non_null(bytes);
    for (int root = 0; root < comm.size; root++) {
        for (int64_t i = 0; i <= size; i++)
            bytes[i] = (unsigned char)(comm.rank == root ? 3 * i + root : 255);
        unsigned char after = bytes[size];
        comm_broadcast(&comm, bytes, size, root);
        for (int64_t i = 0; i < size; i++)
            assert_int_equal(bytes[i], (unsigned char)(3 * i + root));
        assert_int_equal(bytes[size], after);
    }
    free(bytes);
}

static void test_sums_and_maxima_are_the_same_everywhere(void **state)
{
    (void)state;
    check_sums_and_maxima(0);
    check_sums_and_maxima(1);
    check_sums_and_maxima(1000);
}

static void test_broadcast_from_every_root(void **state)
{
    (void)state;
    check_broadcasts(0);
    check_broadcasts(1);
    check_broadcasts(5000);
}

// What is larger than MPI can count goes in several messages: here 40 bytes are the most.
static void test_messages_beyond_the_largest(void **state)
{
    (void)state;
    const int64_t usual = comm.message_bytes;
    assert_true(usual >= 1 << 20 && usual <= INT32_MAX);
    comm.message_bytes = 40;
    const int64_t counts[] = {4, 5, 6, 10, 1003};
    for (int i = 0; i < 5; i++) {
        check_sums_and_maxima(counts[i]);
        check_broadcasts(counts[i] * 8);
        check_broadcasts(counts[i] * 8 + 1);
    }
    comm.message_bytes = usual;
}

// ---- Shares ----

static void test_ranges_cut_exactly(void **state)
{
    (void)state;
    const int64_t totals[] = {0, 1, 2, 7, 8, 1000003, INT64_C(1) << 40};
    for (int t = 0; t < 7; t++)
        for (int n = 1; n <= 9; n++) {
            int64_t end = 0, least = totals[t] / n;
            for (int rank = 0; rank < n; rank++) {
                int64_t first, count;
                comm_range(totals[t], rank, n, &first, &count);
                assert_int_equal(first, end);
                assert_true(count == least || count == least + 1);
                end = first + count;
            }
            assert_int_equal(end, totals[t]);
        }
}

static void test_shares_are_whole_blocks(void **state)
{
    (void)state;
    const int64_t counts[] = {0, 1, 1024, 1025, 100003, COMM_LARGEST_BUCKET};
    for (int c = 0; c < 6; c++)
        for (int n = 1; n <= 9; n++) {
            int64_t end = 0;
            for (int rank = 0; rank < n; rank++) {
                int64_t first, count;
                comm_share(counts[c], rank, n, &first, &count);
                assert_int_equal(first, end);
                assert_true(first % COMM_SHARE_BLOCK == 0 || count == 0);
                assert_true(count >= 0);
                end = first + count;
                assert_true(rank < n - 1 ? end % COMM_SHARE_BLOCK == 0 || end == counts[c]
                                         : end == counts[c]);
            }
        }
}

// What group g adds to place i: numbers whose sum depends on the order in which they are added.
static float part(int group, int64_t i)
{
    return (float)((double)((i * 7919 + group * 104729) % 1000003 - 500000) *
                   pow(10, (double)(i % 9 - 4)));
}

static float sum_in_order(int n_groups, int64_t i, bool as_bf16)
{
    float sum = 0;
    for (int group = 0; group < n_groups; group++) {
        const float own = part(group, i);
        sum += as_bf16 ? half_bf16_to_f32(half_f32_to_bf16(own)) : own;
    }
    return sum;
}

// Sums n_groups buckets in rounds of as many as there are ranks, in place if one round will do.
static float *sum_groups(float *bucket, float *apart, void *buffer, int64_t count, int n_groups,
                         bool as_bf16)
{
    int64_t first, own;
    comm_share(count, comm.rank, comm.size, &first, &own);
    float *sum = n_groups > comm.size ? apart : bucket + first;
    for (int begin = 0; begin < n_groups; begin += comm.size) {
        int senders = n_groups - begin < comm.size ? n_groups - begin : comm.size;
        for (int64_t i = 0; i < count; i++) // a rank without a group has other numbers there
            bucket[i] = comm.rank < senders ? part(begin + comm.rank, i) : 1e30f;
        const CommReduce reduce = {sum, bucket, count, senders, begin == 0, as_bf16, buffer};
        comm_reduce_scatter(&comm, &reduce);
    }
    return sum;
}

static void check_bucket(int64_t count, int n_groups, bool as_bf16)
{
    int64_t bytes = comm_reduce_bytes(count, comm.size, comm.size, as_bf16), first, own;
    float *bucket = malloc((size_t)(count + 1) * sizeof(float));
    float *apart = malloc((size_t)(count + 1) * sizeof(float));
    unsigned char *buffer = malloc((size_t)bytes + 1);
    assert_non_null(bucket);
    assert_non_null(apart);
    assert_non_null(buffer);
    bucket[count] = buffer[bytes] = 7;
    const float *sum = sum_groups(bucket, apart, buffer, count, n_groups, as_bf16);
    comm_share(count, comm.rank, comm.size, &first, &own);
    for (int64_t i = 0; i < own; i++)
        assert_true(sum[i] == sum_in_order(n_groups, first + i, as_bf16));
    // An update of the own share, and the gathering of all.
    for (int64_t i = first; i < first + own; i++)
        bucket[i] = (float)(i + comm.rank * 100000);
    const CommGather gather = {.bucket = bucket, .count = count};
    comm_all_gather(&comm, &gather);
    for (int rank = 0; rank < comm.size; rank++) {
        comm_share(count, rank, comm.size, &first, &own);
        for (int64_t i = first; i < first + own; i++)
            assert_true(bucket[i] == (float)(i + rank * 100000));
    }
    assert_true(bucket[count] == 7 && buffer[bytes] == 7);
    free(buffer);
    free(apart);
    free(bucket);
}

static void test_buckets_are_summed_in_one_order_and_gathered_by_shares(void **state)
{
    (void)state;
    const int64_t counts[] = {0, 1, 3, 1024, 5000, 100003};
    for (int c = 0; c < 6; c++)
        for (int n_groups = 1; n_groups <= 9; n_groups += 2) { // divides by no number of ranks
            check_bucket(counts[c], n_groups, false);
            check_bucket(counts[c], n_groups, true);
        }
}

static void test_largest_bucket(void **state)
{
    (void)state;
    check_bucket(COMM_LARGEST_BUCKET, 2, false);
}

// ---- All-gathers as bfloat16 ----

// Number i of the owner's share: neither whole nor of 8 bits; some that have no near neighbours.
static float master(int64_t i)
{
    static const float special[] = {-0.0f, 0x1p-140f, INFINITY, 0x1.fffffep127f, NAN};
    return i % 97 < 5 ? special[i % 97] : (float)(i % 2003 - 1000) * 0x1.234568p-7f;
}

static bool is_in(const CommRange *ranges, int n_ranges, int64_t i)
{
    for (int r = 0; r < n_ranges; r++)
        if (i >= ranges[r].first && i < ranges[r].first + ranges[r].count)
            return true;
    return false;
}

static bool same_bits(float a, float b)
{
    return half_bits_of(a) == half_bits_of(b);
}

// The others' shares are rounded but for the exact ranges, the own one is as it was.
static void check_bf16_gather(int64_t count, const CommRange *exact, int n_exact)
{
    float *bucket = malloc((size_t)(count + 1) * sizeof(float));
    CommGather gather = {bucket, count, .as_bf16 = true, .exact = exact, .n_exact = n_exact};
    const int64_t bytes = comm_gather_bytes(&gather);
    int64_t first, own, n_exact_numbers = 0;
    for (int r = 0; r < n_exact; r++)
        n_exact_numbers += exact[r].count;
    assert_int_equal(bytes, 2 * count + 2 * n_exact_numbers);
    unsigned char *buffer = malloc((size_t)bytes + 1);
    assert_true(bucket != NULL && buffer != NULL);
    gather.buffer = buffer;
    comm_share(count, comm.rank, comm.size, &first, &own);
    for (int64_t i = 0; i < count; i++)
        bucket[i] = i >= first && i < first + own ? master(i) : 77;
    bucket[count] = buffer[bytes] = 7;
    comm_all_gather(&comm, &gather);
    for (int64_t i = 0; i < count; i++) {
        const bool is_kept = (i >= first && i < first + own) || is_in(exact, n_exact, i);
        const float rounded = half_bf16_to_f32(half_f32_to_bf16(master(i)));
        assert_true(same_bits(bucket[i], is_kept ? master(i) : rounded));
    }
    assert_true(bucket[count] == 7 && buffer[bytes] == 7);
    free(buffer);
    free(bucket);
}

static void test_as_bf16_only_others_matrices_are_rounded(void **state)
{
    (void)state;
    enum { COUNT = 100003 };
    const CommRange some[] = {{0, 48}, {1000, 2000}, {3000, 1}, {50001, 40000}, {99999, 4}};
    const CommRange all = {0, COUNT}, none_of_first_blocks = {70000, 5};
    check_bf16_gather(0, NULL, 0);
    check_bf16_gather(1, NULL, 0);
    check_bf16_gather(COUNT, NULL, 0);
    check_bf16_gather(COUNT, some, 5);
    check_bf16_gather(COUNT, &all, 1);
    check_bf16_gather(COUNT, &none_of_first_blocks, 1);
    check_bf16_gather(COMM_LARGEST_BUCKET, some, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agreement_on_success),
        cmocka_unit_test(test_one_rank_that_failed_is_named_on_all),
        cmocka_unit_test(test_host_of_the_rank_is_its_own),
        cmocka_unit_test(test_lowest_of_two_that_failed_wins),
        cmocka_unit_test(test_no_rank_is_named_if_all_failed),
        cmocka_unit_test(test_what_only_some_did_and_all_of_them_failed_names_no_rank),
        cmocka_unit_test(test_longest_error_text_arrives),
        cmocka_unit_test(test_sums_and_maxima_are_the_same_everywhere),
        cmocka_unit_test(test_broadcast_from_every_root),
        cmocka_unit_test(test_messages_beyond_the_largest),
        cmocka_unit_test(test_ranges_cut_exactly),
        cmocka_unit_test(test_shares_are_whole_blocks),
        cmocka_unit_test(test_buckets_are_summed_in_one_order_and_gathered_by_shares),
        cmocka_unit_test(test_largest_bucket),
        cmocka_unit_test(test_as_bf16_only_others_matrices_are_rounded),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
