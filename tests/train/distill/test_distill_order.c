// Windows of steps and ranks: each window is one rank's, and every step reads a window of each
// slot.
#include "tests/support/testing.h"

#include "train/distill/distill_order.h"

#include <string.h>

enum { MAX_WINDOWS = 40, MAX_RANKS = 11 };

static void test_each_window_has_one_owner(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_WINDOWS; n++)
        for (int n_ranks = 1; n_ranks <= MAX_RANKS; n_ranks++) {
            int held[MAX_WINDOWS] = {0};
            for (int rank = 0; rank < n_ranks; rank++) {
                const WindowShare share = window_share(n, rank, n_ranks);
                int last = -1;
                for (int own = 0; own < share.n_own; own++) {
                    const int window = window_of(&share, own);
                    assert_in_range(window, last + 1, n - 1);
                    assert_int_equal(window_place(&share, window), own);
                    assert_int_equal(window_owner(&share, window), rank);
                    held[window]++;
                    last = window;
                }
            }
            for (int window = 0; window < n; window++)
                assert_int_equal(held[window], 1);
        }
}

// Each slot's windows come once an epoch, in an order that changes.
static void test_epochs_of_slots(void **state)
{
    (void)state;
    enum { N = 43, BATCH = 8, N_EPOCHS = 3 };
    for (int slot = 0; slot < BATCH; slot++) {
        const int n = (N - slot + BATCH - 1) / BATCH;
        int orders[N_EPOCHS][N];
        for (int epoch = 0; epoch < N_EPOCHS; epoch++) {
            int seen[N] = {0};
            for (int i = 0; i < n; i++) {
                const int window = distill_order(17, 1 + epoch * n + i, slot, BATCH, N);
                assert_in_range(window, 0, N - 1);
                assert_int_equal(window % BATCH, slot);
                assert_int_equal(seen[window]++, 0);
                orders[epoch][i] = window;
            }
        }
        assert_true(memcmp(orders[0], orders[1], (size_t)n * sizeof(int)) != 0 ||
                    memcmp(orders[0], orders[2], (size_t)n * sizeof(int)) != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_window_has_one_owner),
        cmocka_unit_test(test_epochs_of_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
