// The pass that collects model/convert/statistics.h: all ranks' windows go through the original
// model layer by layer, so that memory holds the residual stream of a rank's windows and the sums
// of one layer. Every rank gets the same statistics, bit by bit, whatever the number of ranks.
//
//     const StatisticsRequest request = {.tokens = tokens, .n_windows = 40, .n_attention = 12,
//                                        .T = 256, .pool = POOL_LAYER};
//     TRY(calibrate_statistics(&request, &comm, &original, write_layer, &file));
#ifndef MHA2MLA_TRAIN_CALIBRATE_STATISTICS_H
#define MHA2MLA_TRAIN_CALIBRATE_STATISTICS_H

#include "model/convert/statistics.h"
#include "model/model.h"
#include "train/parallel/comm.h"

typedef struct StatisticsRequest {
    const int32_t *tokens; // [n_windows, T]
    int n_windows;         // of the covariance
    int n_attention;       // of all else: the first ones, 1..n_windows
    int T;
    StatisticsPool pool;
} StatisticsRequest;

// Takes a layer's statistics; called on every rank, layer 0 first. May fail on one rank alone.
typedef Status (*StatisticsSink)(void *context, int layer, const LayerStatistics *statistics);

// BAD_INPUT if activations are not finite; STOPPED if a stop is requested; errors of the sink.
// Collective.
Status calibrate_statistics(const StatisticsRequest *request, const Comm *comm,
                            const Model *original, StatisticsSink sink, void *context);

// Bytes that a rank of n_ranks takes for it besides the model.
int64_t calibrate_statistics_bytes(const ModelShape *shape, int n_windows, int T, int n_pools,
                                   int n_ranks, int n_threads);

#endif
