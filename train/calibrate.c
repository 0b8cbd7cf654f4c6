#include "train/calibrate.h"

#include "base/log.h"
#include "eval/inference.h"

enum { PROGRESS_S = 10 }; // between lines

static Status read_samples(RopeScores *scores, const Comm *comm, const Model *original,
                           Mixture *mixture, int n_samples, int seq_len)
{
    Inference inference;
    TRY(inference_start(&inference, original, seq_len));
    Status status = OK;
    double start_s = log_seconds(), said_s = start_s;
    for (int64_t i = comm->rank; i < n_samples; i += comm->size) {
        TRY_GOTO(release, mixture_read(mixture, i, inference.batch.sample));
        batch_set(&inference.batch, 0);
        transformer_forward(&inference.ws, original, inference.batch.inputs, scores);
        double now_s = log_seconds();
        if (now_s - said_s < PROGRESS_S)
            continue;
        said_s = now_s;
        log_info("calibration: %lld of %d samples, %.0f s, %.0f s left", (long long)(i + 1),
                 n_samples, now_s - start_s,
                 (now_s - start_s) * (double)(n_samples - i - 1) / (double)(i + 1));
    }
release:
    inference_release(&inference);
    return status;
}

Status calibrate_run(RopeScores *out, const Comm *comm, const Model *original, Mixture *mixture,
                     int n_samples, int seq_len)
{
    RopeScores scores = {0};
    Status status = rope_scores_create(&scores, &original->shape);
    if (status == OK)
        status = read_samples(&scores, comm, original, mixture, n_samples, seq_len);
    TRY_GOTO(release_scores, comm_agree(comm, status));
    comm_sum_doubles(comm, scores.block, rope_scores_count(&original->shape));
    *out = scores;
    return OK;
release_scores:
    rope_scores_release(&scores);
    return status;
}
