// The last part of the method `closed`, on calibration text: the queries of every layer are refitted
// to the scores of the original attention (model/convert/refit/query_fit.h), if they are to be, and
// then its output projection to what that gives (model/convert/refit/ridge.h). Original and
// converted model are both in memory; the windows are those of the scores file and go through the
// original layer by layer. Every rank gets the same bits, whatever the number of ranks.
//
//     TRY(refit_attention(&mla, &original, "scores.h5", REFIT_ALL));
#ifndef MHA2MLA_TRAIN_REFIT_H
#define MHA2MLA_TRAIN_REFIT_H

#include "model/convert/recipe.h"
#include "train/replica.h"

// BAD_INPUT if the file has no statistics of this model; STOPPED if a stop is requested.
// Collective.
Status refit_attention(Replica *mla, const Model *original, const char *scores, RefitParts parts);

// Bytes that a rank of n_ranks takes for it besides both models.
int64_t refit_bytes(const ModelShape *mla, int n_windows, int T, int n_ranks, RefitParts parts);

#endif
