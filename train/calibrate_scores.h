// A scores file from a model and data: the norms of RoPE pairs (train/calibrate.h) and, where asked
// for, the statistics of train/calibrate_statistics.h.
//
//     const CalibrationSettings settings = {.samples = 1024, .seq_len = 2048, .windows = 40,
//                                           .attention_windows = 12, .window_len = 512};
//     TRY(calibrate_scores("scores.h5", &settings, &comm, &original, mixture));
#ifndef MHA2MLA_TRAIN_CALIBRATE_SCORES_H
#define MHA2MLA_TRAIN_CALIBRATE_SCORES_H

#include "data/mixture.h"
#include "model/convert/statistics.h"
#include "model/kernels/compute.h"
#include "model/model.h"
#include "train/parallel/comm.h"
#include "train/replica.h"

typedef struct CalibrationSettings {
    int samples, seq_len;  // of the norms; the mixture's seq_len
    int windows;           // of the statistics: the first tokens of as many samples; 0: none
    int attention_windows; // of those that need attention weights; more than windows: all
    int window_len;        // tokens of a window at most
    StatisticsPool pool;
    ComputeType compute; // of the norms' products; those of the statistics are in float32
} CalibrationSettings;

// Rank 0 writes `path`. Errors of mixture_read() and of the passes; FAILED if the file cannot be
// written. Collective.
Status calibrate_scores(const char *path, const CalibrationSettings *settings, const Comm *comm,
                        const Model *original, Mixture *mixture);

// The loss of a converted model on the windows of such a file, by which conversions of one model
// are compared: mean over the first 16 at most, nats per token, the same bits on any number of
// ranks. BAD_INPUT if the file has no statistics of this model; STOPPED if a stop is requested.
// Collective.
Status calibration_loss(double *out, const Replica *mla, const char *scores);

// Windows that it reads of so many, and bytes that it takes.
int calibration_loss_windows(int n_windows);
int64_t calibration_loss_bytes(const ModelShape *mla, int n_windows, int T, int n_pools);

#endif
