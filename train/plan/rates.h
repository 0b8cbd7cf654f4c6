// What this machine does per second, measured on all ranks at once in about two seconds: what
// `mha2mla plan` computes times from. Each rate is the median of pieces, all rates in turn, so that
// neither a burst of other work nor the first second of a fast clock decides.
//
//     Rates rates = {0};
//     TRY(rates_measure(&rates, &comm));   // collective
//     TRY(rates_measure_sgemm(&flops, &comm)); // collective: that of a rank alone, in 12 MiB
//
// The slowest rank counts. Rates that are known already are not measured.
#ifndef MHA2MLA_TRAIN_PLAN_RATES_H
#define MHA2MLA_TRAIN_PLAN_RATES_H

#include "train/parallel/comm.h"

typedef struct Rates {
    double sgemm_flops;      // of a rank, per s: square matrices of 1024, all its threads
    double memory_bytes;     // of a rank, per s: read and written by a triad
    double network_bytes;    // of a rank, per s: received in an all-gather of 16 MiB
    double latency_s;        // of a message: half a ping-pong of the first and the last rank
    bool is_network_assumed; // alone there is nobody to send to
} Rates;

// Fills what is 0 in *rates; the network's, if there is one rank only, with 100 Gbit/s Ethernet's.
// FAILED if memory is short.
Status rates_measure(Rates *rates, const Comm *comm);

// Rates.sgemm_flops by itself, longer, in less memory. FAILED if memory is short.
Status rates_measure_sgemm(double *flops, const Comm *comm);

#endif
