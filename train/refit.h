// The last part of the method `closed`: every output projection is refitted to what the layer's
// original attention gives on calibration text (model/convert/ridge.h). Original and converted
// model are both in memory; the windows are those of the scores file and go through the original
// layer by layer. Every rank gets the same bits, whatever the number of ranks.
//
//     TRY(refit_outputs(&mla, &original, "scores.h5"));
#ifndef MHA2MLA_TRAIN_REFIT_H
#define MHA2MLA_TRAIN_REFIT_H

#include "train/replica.h"

// BAD_INPUT if the file has no statistics of this model; STOPPED if a stop is requested.
// Collective.
Status refit_outputs(Replica *mla, const Model *original, const char *scores);

// Bytes that a rank of n_ranks takes for it besides both models.
int64_t refit_bytes(const ModelShape *mla, int n_windows, int T, int n_ranks);

#endif
