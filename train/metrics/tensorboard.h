// Scalars for TensorBoard: an event file of our own beside metrics.jsonl, which has all of it and
// more.
//
//     TensorBoard board = {0};                          // closed: nothing is written
//     TRY(tensorboard_open(&board, run_dir, host, now_s, resumed_step + 1));
//     tensorboard_write(&board, now_s, step, &(TensorBoardScalar){"train/loss", 2.5f}, 1);
//     tensorboard_close(&board);
//
// Every life of a run has its file, RUN/events.out.tfevents.<seconds>.<host>, which begins with the
// format's version and with a session's start at the step that comes next: TensorBoard drops what
// earlier files have of that step and later ones, as metrics.jsonl is cut.
//
// Records are written at once. A file that cannot be written any more is closed with a warning: the
// training does not depend on it.
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

enum { TENSORBOARD_TAG_BYTES = 64, TENSORBOARD_MOST_SCALARS = 8 };

// Starts a file; `wall_s` in seconds since 1970. FAILED if it cannot be made.
Status tensorboard_open(TensorBoard *out, const char *run_dir, const char *host, double wall_s,
                        int64_t first_step);

// Writes one event of at most TENSORBOARD_MOST_SCALARS.
void tensorboard_write(TensorBoard *board, double wall_s, int64_t step,
                       const TensorBoardScalar *scalars, size_t n_scalars);

void tensorboard_close(TensorBoard *board);

#endif
