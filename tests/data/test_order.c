// data/order: the keyed permutation of a source's samples.
#include "tests/support/testing.h"

#include "base/random.h"
#include "data/order.h"

#include <math.h>
#include <stdlib.h>

static void check_bijection(int64_t n)
{
    char *seen = calloc((size_t)n, 1);
    assert_non_null(seen);
    for (uint64_t key = 0; key < 3; key++) {
        for (int64_t i = 0; i < n; i++) {
            int64_t to = order_at(random_key(key, "bijection"), n, i);
            assert_in_range(to, 0, n - 1);
            assert_int_equal(seen[to], key);
            seen[to]++;
        }
    }
    free(seen);
}

static void test_is_a_bijection(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 1000, 6, 13, 101, 7919, 65521}; // the last ones are primes
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        check_bijection(sizes[s]);
    for (int k = 1; k <= 16; k++)
        for (int64_t off = -1; off <= 1; off++)
            check_bijection((INT64_C(1) << k) + off);
}

static void test_large_sizes_stay_in_range(void **state)
{
    (void)state;
    static const int64_t sizes[] = {INT64_C(1) << 31, (INT64_C(1) << 40) + 1, INT64_MAX};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int upper = 0;
        for (int64_t i = 0; i < 1000; i++) {
            int64_t to = order_at(7, sizes[s], sizes[s] - 1 - i);
            assert_true(to >= 0 && to < sizes[s]);
            upper += to >= sizes[s] / 2;
        }
        assert_in_range(upper, 400, 600); // standard deviation 16; seen 481 to 515
    }
}

static void test_keys_give_unrelated_orders(void **state)
{
    (void)state;
    const int64_t n = 4097;
    int same = 0;
    for (int64_t i = 0; i < n; i++)
        same += order_at(random_key(42, "a"), n, i) == order_at(random_key(42, "b"), n, i);
    assert_in_range(same, 0, 6); // Poisson with mean 1; seen 1
}

// Mean and spread of |to - i| are n/3 and n/sqrt(18) for random permutations.
static void test_displacement_is_that_of_a_random_permutation(void **state)
{
    (void)state;
    const int64_t n = 100003;
    double sum = 0, fixed = 0, successors = 0;
    int64_t before = -2;
    for (int64_t i = 0; i < n; i++) {
        int64_t to = order_at(random_key(1, "displacement"), n, i);
        sum += fabs((double)(to - i));
        fixed += to == i;
        successors += to == before + 1;
        before = to;
    }
    // Standard error n / sqrt(18 n) = 0.00075 n.
    assert_true(fabs(sum / (double)n / (double)n - 1.0 / 3) < 0.003); // seen 0.00086
    assert_true(fixed <= 6);                                          // Poisson with mean 1; seen 1
    assert_true(successors <= 6);                                     // likewise; seen 2
}

// Every place of a short order is reached from every place about equally often over the keys.
static void test_short_orders_are_uniform_over_keys(void **state)
{
    (void)state;
    enum { N = 5, KEYS = 20000 };
    int counts[N][N] = {{0}};
    for (uint64_t key = 0; key < KEYS; key++)
        for (int i = 0; i < N; i++)
            counts[i][order_at(random_key(key, "uniform"), N, i)]++;
    double worst = 0;
    for (int i = 0; i < N * N; i++)
        worst = fmax(worst, fabs(counts[i / N][i % N] - KEYS / (double)N));
    assert_true(worst < 250); // standard deviation 57; seen 137
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_a_bijection),
        cmocka_unit_test(test_large_sizes_stay_in_range),
        cmocka_unit_test(test_keys_give_unrelated_orders),
        cmocka_unit_test(test_displacement_is_that_of_a_random_permutation),
        cmocka_unit_test(test_short_orders_are_uniform_over_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
