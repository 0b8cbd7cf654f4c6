#include "train/calibrate.h"

#include "base/log.h"
#include "data/batch.h"
#include "model/transformer.h"

#include <omp.h>

// One sequence at a time: the pass is as fast as with more, and needs the least memory.
static void place(Workspace *ws, Batch *batch, Arena *arena, const ModelShape *shape, int seq_len)
{
    transformer_place(ws, arena, arena, shape, 1, seq_len, omp_get_max_threads(), false);
    batch_place(batch, arena, 1, seq_len);
}

int64_t calibrate_bytes(const ModelShape *shape, int seq_len)
{
    Arena arena = arena_start("calibration");
    Workspace ws;
    Batch batch;
    place(&ws, &batch, &arena, shape, seq_len);
    return arena.peak_bytes;
}

static Status read_samples(RopeScores *scores, const Comm *comm, const Model *original,
                           Mixture *mixture, int n_samples, int seq_len)
{
    Arena arena = arena_start("calibration");
    Workspace ws;
    Batch batch;
    place(&ws, &batch, &arena, &original->shape, seq_len);
    TRY(arena_allocate(&arena));
    place(&ws, &batch, &arena, &original->shape, seq_len);
    transformer_start(&ws, original);
    Status status = OK;
    double start_s = log_seconds();
    for (int64_t i = comm->rank; i < n_samples; i += comm->size) {
        TRY_GOTO(release_arena, mixture_read(mixture, i, batch.sample));
        batch_set(&batch, 0);
        transformer_forward(&ws, original, batch.inputs, scores);
        if ((i / comm->size) % 64 == 63)
            log_info("calibration: %lld of %d samples, %.0f s", (long long)(i + 1), n_samples,
                     log_seconds() - start_s);
    }
release_arena:
    arena_release(&arena);
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
