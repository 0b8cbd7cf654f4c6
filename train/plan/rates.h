// The machine's rates of arithmetic, memory and network, measured on all ranks at once in about two
// seconds; `mha2mla plan` computes times from them. Each rate is the median of several pieces,
// which are measured in turn with those of the other rates, so that neither a burst of other work
// nor the high clock of the first second decides.
//
//     Rates rates = {0};
//     TRY(rates_measure(&rates, &comm));   // collective
//     TRY(rates_measure_sgemm(&flops, &comm)); // collective: only sgemm, in 12 MiB
//     TRY(rates_measure_serving(&rates, &comm)); // collective: sgemm and reading
//
// A rate is that of the slowest rank. Rates that are given are not measured.
#ifndef MHA2MLA_TRAIN_PLAN_RATES_H
#define MHA2MLA_TRAIN_PLAN_RATES_H

#include "train/parallel/comm.h"

typedef struct Rates {
    double sgemm_flops;      // per rank and second: square matrices of 1024, all its threads
    double memory_bytes;     // per rank and second: read and written by a triad
    double read_bytes;       // per rank and second: read alone, as decoding does
    double network_bytes;    // per rank and second: received in an all-gather of 16 MiB
    double latency_s;        // per message: half a ping-pong of the first and the last rank
    bool is_network_assumed; // there is one rank only, so nothing was measured
} Rates;

// Measures the rates of training that are 0. With one rank only, those of the network are set to
// 100 Gbit/s Ethernet's. FAILED if memory is short.
Status rates_measure(Rates *rates, const Comm *comm);

// Rates.sgemm_flops alone, in less memory. FAILED if memory is short.
Status rates_measure_sgemm(double *flops, const Comm *comm);

// Measures sgemm_flops and read_bytes where they are 0, in 288 MiB. FAILED if memory is short.
Status rates_measure_serving(Rates *rates, const Comm *comm);

#endif
