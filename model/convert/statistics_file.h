// The statistics in a scores file of version 2, layer by layer: neither writing nor reading holds
// more than one. The file also has the windows they were collected from, so that a conversion can
// read them again.
//
//     /statistics          attributes d_model, n_pools, n_windows, n_attention, seq_len
//       tokens             int32 [n_windows, T]
//       layer-0, ...       covariance [n], value, key [n_pools, n]: upper triangles by rows,
//                          n = D (D + 1) / 2; tau [H], query [H, E, E], gram [H, S, S]
//
//     StatisticsWriter writer;
//     TRY(statistics_writer_open(&writer, &scores, &info, tokens, "scores.h5"));
//     for (...)
//         TRY_GOTO(abandon, statistics_writer_add(&writer, layer, &statistics));
//     return statistics_writer_publish(&writer);      // renames
//     abandon: statistics_writer_abandon(&writer);    // removes
//
//     StatisticsFile file;
//     TRY(statistics_file_open(&file, &shape, "scores.h5"));
//     TRY(statistics_file_read(&file, layer, &statistics));    // created with file.info.n_pools
//     statistics_file_close(&file);
#ifndef MHA2MLA_MODEL_CONVERT_STATISTICS_FILE_H
#define MHA2MLA_MODEL_CONVERT_STATISTICS_FILE_H

#include "base/file.h"
#include "model/convert/rope_scores.h"
#include "model/convert/statistics.h"

typedef struct StatisticsInfo {
    int n_pools;
    int n_windows;   // of the covariance
    int n_attention; // of all else
    int seq_len;     // T
} StatisticsInfo;

typedef struct StatisticsWriter {
    char path[PATH_BYTES], temporary[PATH_BYTES];
    ModelShape shape;
    int64_t file, group; // HDF5's identifiers
    double *packed;      // owned [n_pools, D (D + 1) / 2]
} StatisticsWriter;

// The norms are written at once. FAILED with HDF5's reason; then nothing is left to close.
Status statistics_writer_open(StatisticsWriter *out, const RopeScores *scores,
                              const StatisticsInfo *info, const int32_t *tokens, const char *path);
Status statistics_writer_add(StatisticsWriter *writer, int layer,
                             const LayerStatistics *statistics);
Status statistics_writer_publish(StatisticsWriter *writer);
void statistics_writer_abandon(StatisticsWriter *writer);

typedef struct StatisticsFile {
    char path[PATH_BYTES];
    ModelShape shape;
    StatisticsInfo info;
    int64_t file, group;
    double *packed; // owned
} StatisticsFile;

// BAD_INPUT if the file is damaged, of another model, or has no statistics; then nothing is open.
Status statistics_file_open(StatisticsFile *out, const ModelShape *shape, const char *path);
void statistics_file_close(StatisticsFile *file); // a zeroed one is allowed

// BAD_INPUT if they are damaged or not finite.
Status statistics_file_read(StatisticsFile *file, int layer, LayerStatistics *out);
Status statistics_file_read_gram(StatisticsFile *file, int layer, double *gram); // [H, S, S]

// tokens [n_windows, T]. BAD_INPUT also for one that is not in the model's vocabulary.
Status statistics_file_tokens(const StatisticsFile *file, int32_t *tokens);

// Bytes that writing or reading takes besides LayerStatistics.
int64_t statistics_file_bytes(const ModelShape *shape, int n_pools);

#endif
