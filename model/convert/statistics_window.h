// The sums behind LayerStatistics, window by window: sequences that ranks may share in any way.
//
//     StatisticsScratch scratch;                       // placed twice, base/arena.h
//     statistics_sums_start(&sums, norm_weight, &shape);
//     for every window:
//         statistics_window_read(&scratch, x, layer_weights, layer, &sums, &shape);
//         statistics_window_heads(&heads, &scratch, ...)     // tau, query, gram: small
//     ... heads of all windows are added up in the order of the windows ...
//     for every window:
//         statistics_window_read(&scratch, x, layer_weights, layer, &sums, &shape);
//         statistics_window_moments(&sums, &scratch, tau, ...);
//     ... sums are added up in any order ...
//     statistics_finish(&statistics, &sums, tau, ...);
//
// The large sums have the same bits in whatever order their parts are added: inputs are scaled by
// powers of two to at most 1, which RMSNorm's bound |x_d| <= sqrt(D) |w_d| allows, and every part,
// a tile of one window and head, is rounded to multiples of one power of two that doubles add
// exactly. The small ones are to be added in the order of the windows.
//
// Products within a window are OpenBLAS's, each by one thread, so the bits do not depend on the
// number of threads.
#ifndef MHA2MLA_MODEL_CONVERT_STATISTICS_WINDOW_H
#define MHA2MLA_MODEL_CONVERT_STATISTICS_WINDOW_H

#include "model/convert/statistics.h"
#include "model/params.h"

// One window's inputs of a layer's attention, and memory to work in.
typedef struct StatisticsScratch {
    int T, n_threads;
    bool rotates;                 // the layer of the window that was read
    float *cos_table, *sin_table; // [T, E/2]
    float *normed, *inv_rms;      // [T, D], [T]
    float *qkv;                   // [T, H E + 2 K E] before RoPE, after norms of heads
    float *head;                  // [E] with qk_norm
    double *x;                    // [T, D] normed, scaled
    double *means;                // [n_threads, T, D] xbar of as many heads
    double *masses;               // [H, T] sum over i of a_ij
    double *scaled_tau, *mass;    // [H], [T] weights of the keys' moments
    double *weights;              // [n_threads, T, T] attention weights
    double *turned;               // [n_threads, 2, T, E] rotated queries and keys
    double *features;             // [n_threads, T + 1, S] of a query's keys, and their mean
    double *squares;              // [n_threads, E, E]
    double *tiles;                // exact_tile_doubles() for each thread
} StatisticsScratch;

void statistics_scratch_place(StatisticsScratch *scratch, Arena *arena, const ModelShape *shape,
                              int T, int n_threads);
// Fills the RoPE tables; once after placing.
void statistics_scratch_start(StatisticsScratch *scratch, const ModelShape *shape);

// The large sums of a layer, in one block for one reduction.
typedef struct StatisticsSums {
    int n_pools;
    double quantum;      // parts are multiples of it
    int *exponents;      // [D] x is scaled by 2^-exponent
    double *covariance;  // [D, D] the upper tiles, as the others
    double *value, *key; // [n_pools, D, D]
    double *block;       // the three
    int64_t count;       // doubles in the block
} StatisticsSums;

void statistics_sums_place(StatisticsSums *sums, Arena *arena, const ModelShape *shape,
                           int n_pools);

// Zeros, for a layer whose input norm has the weights norm [D], and n_tokens in all.
void statistics_sums_start(StatisticsSums *sums, const float *norm, const ModelShape *shape,
                           int64_t n_tokens);

// The small sums, of one window or of several: tau, query and gram in one block.
typedef struct HeadSums {
    double *tau, *query, *gram; // as in LayerStatistics
    double *block;
} HeadSums;

int64_t statistics_head_count(const ModelShape *shape); // doubles in the block
HeadSums statistics_head_sums(double *block, const ModelShape *shape);

// Reads a window: x [T, D] is the layer's input, before its norm.
void statistics_window_read(StatisticsScratch *scratch, const float *x, const LayerParams *weights,
                            int layer, const StatisticsSums *sums, const ModelShape *shape);

// heads = the sums of the window just read.
void statistics_window_heads(HeadSums *heads, StatisticsScratch *scratch,
                             const LayerParams *weights, const ModelShape *shape);

// sums.covariance += the window just read; with tau [H] (sums over all windows) value and key, too.
void statistics_window_moments(StatisticsSums *sums, StatisticsScratch *scratch,
                               const double *tau, // NULL: the covariance alone
                               const ModelShape *shape);

// Means of the sums over n_tokens, and over n_attention_tokens for all but the covariance.
void statistics_finish(LayerStatistics *out, const StatisticsSums *sums, const HeadSums *heads,
                       const ModelShape *shape, int64_t n_tokens, int64_t n_attention_tokens);

#endif
