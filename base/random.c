// Each number is a hash of a key and a counter instead of a state that is advanced: any thread or
// rank computes its part of a sequence alone, and a resumed run needs no saved generator.
#include "base/random.h"

#include <math.h>

// SplitMix64's finalizer: a bijection of 64 bits in which every input bit flips about half of the
// output's. The two multipliers are those of its variant 13 (Stafford).
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t random_bits(uint64_t key, uint64_t counter)
{
    // The odd step is 2^64 / golden ratio: neighbouring counters become far apart. The key enters
    // twice, so that two streams are not shifted copies of each other.
    return mix(mix(key + 0x9e3779b97f4a7c15u * (counter + 1)) ^ key);
}

// One round of mixing per letter: "init" and "inti" give unrelated keys.
uint64_t random_key(uint64_t seed, const char *purpose)
{
    uint64_t key = mix(seed + 0x9e3779b97f4a7c15u);
    for (const char *c = purpose; *c != '\0'; c++)
        key = mix(key ^ (uint64_t)(unsigned char)*c);
    return key;
}

double random_normal(uint64_t key, uint64_t counter)
{
    const double unit = 0x1p-53; // a double's significand: 53 bits, from the 64 above
    double u = ((double)(random_bits(key, 2 * counter) >> 11) + 0.5) * unit; // in (0, 1)
    double v = (double)(random_bits(key, 2 * counter + 1) >> 11) * unit;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
