// Rank 0 alone has the file open; the others take part in what is collected.
#include "train/calibrate_scores.h"

#include "model/convert/statistics_file.h"
#include "train/calibrate.h"
#include "train/calibrate_statistics.h"
#include "train/sample_windows.h"

#include <stdlib.h>

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

// The writer is NULL on ranks that write nothing.
static Status add_layer(void *writer, int layer, const LayerStatistics *statistics)
{
    return writer != NULL ? statistics_writer_add(writer, layer, statistics) : OK;
}

static Status write_statistics(const RopeScores *scores, const StatisticsRequest *request,
                               const char *path, const Comm *comm, const Model *original)
{
    const StatisticsInfo info = {statistics_n_pools(&original->shape, request->pool),
                                 request->n_windows, request->n_attention, request->T};
    StatisticsWriter file = {0}, *writer = comm->rank == 0 ? &file : NULL;
    Status status = OK;
    if (writer != NULL)
        status = statistics_writer_open(writer, scores, &info, request->tokens, path);
    TRY(comm_agree(comm, status));
    TRY_GOTO(abandon, calibrate_statistics(request, comm, original, add_layer, writer));
    return comm_agree(comm, writer != NULL ? statistics_writer_publish(writer) : OK);
abandon:
    if (writer != NULL)
        statistics_writer_abandon(writer);
    return status;
}

Status calibrate_scores(const char *path, const CalibrationSettings *settings, const Comm *comm,
                        const Model *original, Mixture *mixture)
{
    const int n = settings->windows, seq_len = settings->seq_len;
    StatisticsRequest request = {.n_windows = n,
                                 .n_attention = min_int(settings->attention_windows, n),
                                 .T = min_int(settings->window_len, seq_len),
                                 .pool = settings->pool};
    RopeScores scores = {0};
    int32_t *windows = NULL;
    Status status;
    TRY_GOTO(release, calibrate_run(&scores, comm, original, mixture, settings->samples, seq_len,
                                    settings->compute));
    if (n == 0) {
        status = comm_agree(comm, comm->rank == 0 ? rope_scores_write(&scores, path) : OK);
        goto release;
    }
    TRY_GOTO(release,
             comm_agree(comm, sample_windows_read(&windows, mixture, n, request.T, seq_len)));
    request.tokens = windows;
    status = write_statistics(&scores, &request, path, comm, original);
release:
    free(windows);
    rope_scores_release(&scores);
    return status;
}
