// Writes scalars for TensorBoard into an event file beside metrics.jsonl, which has them all and
// more.
//
//     TensorBoard board = {0};                          // closed: nothing is written
//     TRY(tensorboard_open(&board, run_dir, host, now_s, resumed_step + 1));
//     tensorboard_write(&board, now_s, step, &(TensorBoardScalar){"train/loss", 2.5f}, 1);
//     tensorboard_close(&board);
//
// Every start of a run has its own file, RUN/events.out.tfevents.<seconds>.<host>. It begins with
// the version of the format and with the start of a session at the next step: TensorBoard then
// drops what earlier files have of that step and later ones, as lines of metrics.jsonl are removed.
//
// Records are flushed at once. A file that cannot be written is closed with a warning, and the
// training continues.
#ifndef MHA2MLA_TRAIN_METRICS_TENSORBOARD_H
#define MHA2MLA_TRAIN_METRICS_TENSORBOARD_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct TensorBoard {
    FILE *file; // owned; NULL: closed
} TensorBoard;

typedef struct TensorBoardScalar {
    const char *tag; // at most TENSORBOARD_TAG_BYTES - 1 characters
    float value;
} TensorBoardScalar;

enum { TENSORBOARD_TAG_BYTES = 64, TENSORBOARD_MAX_SCALARS = 8 };

// Creates a file; `wall_s` in seconds since 1970. FAILED if it cannot be created or written.
Status tensorboard_open(TensorBoard *out, const char *run_dir, const char *host, double wall_s,
                        int64_t first_step);

// Writes one event of at most TENSORBOARD_MAX_SCALARS.
void tensorboard_write(TensorBoard *board, double wall_s, int64_t step,
                       const TensorBoardScalar *scalars, size_t n_scalars);

void tensorboard_close(TensorBoard *board);

#endif
