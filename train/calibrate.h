// The calibration pass: the original model reads samples, all ranks share them, and every rank ends
// with the same sums of pair norms.
#ifndef MHA2MLA_TRAIN_CALIBRATE_H
#define MHA2MLA_TRAIN_CALIBRATE_H

#include "data/mixture.h"
#include "model/convert/rope_scores.h"
#include "model/model.h"
#include "train/parallel/comm.h"

// Reads samples 0 .. n_samples - 1 of the mixture, seq_len tokens each. STOPPED if a
// stop is requested meanwhile. Collective. The caller
// releases *out.
Status calibrate_run(RopeScores *out, const Comm *comm, const Model *original, Mixture *mixture,
                     int n_samples, int seq_len);

#endif
