// The calibration pass: the original model reads samples, shared by all ranks, and sums up how much
// each RoPE pair of queries and keys contributes to attention. Every rank ends with the same sums,
// bit by bit, whatever the number of ranks.
//
//     RopeScores scores;
//     TRY(calibrate_run(&scores, &comm, &original, mixture, n_samples, seq_len,
//                       COMPUTE_FLOAT32));
//     ... rope_select(pairs, ..., &scores) ...
//     rope_scores_release(&scores);
#ifndef MHA2MLA_TRAIN_CALIBRATE_H
#define MHA2MLA_TRAIN_CALIBRATE_H

#include "data/mixture.h"
#include "model/convert/rope_scores.h"
#include "model/kernels/compute.h"
#include "model/model.h"
#include "train/parallel/comm.h"

// Reads samples 0 .. n_samples - 1 of the mixture, seq_len tokens each, with products in `compute`.
// STOPPED if a stop is requested meanwhile; errors of mixture_read(). The caller releases *out.
// Collective.
Status calibrate_run(RopeScores *out, const Comm *comm, const Model *original, Mixture *mixture,
                     int n_samples, int seq_len, ComputeType compute);

#endif
