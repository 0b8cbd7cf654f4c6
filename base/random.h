// Counter-based random numbers: pure functions of (key, counter), the same on every rank and in any
// order of evaluation. SplitMix64's finalizer over key and counter (Steele et al., OOPSLA 2014).
#ifndef MHA2MLA_BASE_RANDOM_H
#define MHA2MLA_BASE_RANDOM_H

#include <stdint.h>

// 64 well-mixed bits.
uint64_t random_bits(uint64_t key, uint64_t counter);

// A key for a purpose, derived from the run's seed: random_key(seed, "init").
uint64_t random_key(uint64_t seed, const char *purpose);

// Standard normal deviate (Box-Muller).
double random_normal(uint64_t key, uint64_t counter);

#endif
