// Cycle walking over a Feistel network: no table of n entries is made or shuffled, so an epoch of
// 10^9 samples starts at once and any index costs the same.
#include "data/order.h"

#include "base/random.h"
#include "base/status.h"

// Four rounds make a Feistel network a strong pseudo-random permutation (Luby and Rackoff, 1988);
// with halves of very few bits that theorem says little, so small n get the same extra rounds.
enum { N_ROUNDS = 8 };

// Each round replaces the left half by left XOR f(right) and swaps: a bijection whatever f is.
static uint64_t feistel(uint64_t key, int half_bits, uint64_t x)
{
    const uint64_t mask = (UINT64_C(1) << half_bits) - 1;
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint64_t round = 0; round < N_ROUNDS; round++) {
        // half_bits <= 32, so round and half never overlap in the counter.
        uint64_t mixed = left ^ (random_bits(key, round << 32 | right) & mask);
        left = right;
        right = mixed;
    }
    return left << half_bits | right;
}

int64_t order_at(uint64_t key, int64_t n, int64_t i)
{
    CHECK(n >= 1 && i >= 0 && i < n, "n = %lld, i = %lld", (long long)n, (long long)i);
    // The network permutes 2 * half_bits bits: the fewest that hold n - 1, less than 4 n values.
    int half_bits = 1;
    while (half_bits < 32 && ((uint64_t)n - 1) >> (2 * half_bits) != 0)
        half_bits++;
    uint64_t x = (uint64_t)i;
    do {
        x = feistel(key, half_bits, x);
        // The cycle through i comes back below n, at the latest at i itself.
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}
