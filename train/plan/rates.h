// The machine's rates of arithmetic, memory and network, measured on all ranks at once in about two
// seconds; `mha2mla plan` computes times from them. Each rate is the median of several pieces,
// which are measured in turn with those of the other rates, so that neither a burst of other work
// nor the high clock of the first second decides.
//
//     Rates rates = {0};
//     TRY(rates_measure(&rates, &comm, COMPUTE_FLOAT32));         // collective
//     TRY(rates_measure_products(&flops, &comm, COMPUTE_FLOAT32)); // products alone, in 12 MiB
//     TRY(rates_measure_serving(&rates, &comm, COMPUTE_FLOAT32)); // products and reading
//
// A rate is that of the slowest rank. Rates that are given are not measured.
#ifndef MHA2MLA_TRAIN_PLAN_RATES_H
#define MHA2MLA_TRAIN_PLAN_RATES_H

#include "model/kernels/compute.h"
#include "train/parallel/comm.h"

typedef struct Rates {
    double product_flops;    // per rank and second: square matrices of 1024, all its threads,
                             // in float32 by sgemm, in bfloat16 by the program's own kernels
    double attention_flops;  // the same by sgemm with any products: serving's attention, conversion
    double memory_bytes;     // per rank and second: read and written by a triad
    double read_bytes;       // per rank and second: read alone, as decoding does
    double network_bytes;    // per rank and second: received in an all-gather of 16 MiB
    double latency_s;        // per message: half a ping-pong of the first and the last rank
    bool is_network_assumed; // there is one rank only, so nothing was measured
} Rates;

// Measures the rates of training with `compute` that are 0; attention_flops where the products are
// in bfloat16 and their rate is measured, too. With one rank only, those of the
// network are set to 100 Gbit/s Ethernet's. FAILED if memory is short.
Status rates_measure(Rates *rates, const Comm *comm, ComputeType compute);

// Rates.product_flops alone, in less memory. FAILED if memory is short.
Status rates_measure_products(double *flops, const Comm *comm, ComputeType compute);

// Measures product_flops of `compute`, attention_flops and read_bytes where they are 0, in 288 MiB.
// FAILED if memory is short.
Status rates_measure_serving(Rates *rates, const Comm *comm, ComputeType compute);

#endif
