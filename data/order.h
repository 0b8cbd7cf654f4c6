// A keyed permutation of 0..n-1 in no memory: the order of a source's samples in one epoch.
//
//     uint64_t key = random_key(seed, "order/fineweb-edu-dedup/epoch 0");
//     int64_t sample = order_at(key, n_samples, i);    // i-th sample of the epoch
//
// A pure function of (key, n, i), the same on every machine. Format-preserving encryption: a
// Feistel network over the smallest even number of bits that holds n, walked along its cycle until
// it falls below n (Black and Rogaway, CT-RSA 2002), at most four steps on average.
#ifndef MHA2MLA_DATA_ORDER_H
#define MHA2MLA_DATA_ORDER_H

#include <stdint.h>

// Where i in 0..n-1 goes, n >= 1.
int64_t order_at(uint64_t key, int64_t n, int64_t i);

#endif
