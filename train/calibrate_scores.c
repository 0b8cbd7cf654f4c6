// Rank 0 alone has the file open; the others take part in what is collected.
#include "train/calibrate_scores.h"

#include "eval/forward_pass.h"
#include "model/convert/statistics_file.h"
#include "train/calibrate.h"
#include "train/calibrate_statistics.h"
#include "train/sample_windows.h"
#include "train/stop.h"

#include <math.h>
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

// ---- the loss on a file's windows ---------------------------------------------------------------

int calibration_loss_windows(int n_windows)
{
    enum { MOST = 16 };
    return min_int(n_windows, MOST);
}

int64_t calibration_loss_bytes(const ModelShape *mla, int n_windows, int T, int n_pools)
{
    return forward_pass_bytes(mla, T - 1, COMPUTE_FLOAT32) + statistics_file_bytes(mla, n_pools) +
           (int64_t)n_windows * T * (int64_t)sizeof(int32_t);
}

// Sum over this rank's windows, i mod N, and the number of all of them. Losses are rounded to
// multiples of 2^-20, which doubles add exactly in any order.
static Status sum_losses(double *sum, int *n_windows, int *T, const Replica *mla,
                         StatisticsFile *file)
{
    const Comm *comm = mla->comm;
    ForwardPass pass = {0};
    Status status;
    *T = file->info.seq_len;
    *n_windows = calibration_loss_windows(file->info.n_windows);
    *sum = 0;
    if (*T < 2)
        return fail(BAD_INPUT,
                    "%s: windows of one token have no loss; make the scores of longer "
                    "ones (--window-len)",
                    file->path);
    int32_t *tokens = malloc((size_t)file->info.n_windows * (size_t)*T * sizeof *tokens);
    if (tokens == NULL)
        return fail(FAILED, "no memory for %d windows", file->info.n_windows);
    TRY_GOTO(release, statistics_file_tokens(file, tokens));
    TRY_GOTO(release, forward_pass_start(&pass, &mla->model, *T - 1, COMPUTE_FLOAT32));
    for (int i = comm->rank; i < *n_windows; i += comm->size) {
        const int32_t *window = tokens + (int64_t)i * *T;
        TRY_GOTO(release, stop_check());
        transformer_forward(&pass.ws, &mla->model, window, NULL);
        *sum += nearbyint(transformer_loss(&pass.ws, &mla->model, window + 1, 0, NULL) * 0x1p20) *
                0x1p-20;
    }
release:
    forward_pass_release(&pass);
    free(tokens);
    return status;
}

Status calibration_loss(double *out, const Replica *mla, const char *scores)
{
    const ModelShape original = shape_original(&mla->model.shape);
    StatisticsFile file;
    double sum;
    int n_windows, T;
    TRY(comm_agree(mla->comm, statistics_file_open(&file, &original, scores)));
    const Status status = comm_agree(mla->comm, sum_losses(&sum, &n_windows, &T, mla, &file));
    statistics_file_close(&file);
    TRY(status);
    comm_sum_doubles(mla->comm, &sum, 1);
    *out = sum / ((double)n_windows * (T - 1));
    return OK;
}
