// Saves checkpoints beside the training. Parameters and moments change only in the update at the
// end of a step, so a thread writes them from where they are while the next step computes, and the
// loop waits for it before that update, if at all: no copy is made.
//
//     TRY(saver_open(&saver, &comm, run_dir, &context, &model, &shard));
//     TRY(saver_begin(&saver, &state, OK));    // of the state that is in memory now
//     ... forward, backward, ...
//     TRY(saver_poll(&saver));                    // publishes it when all ranks have written
//     TRY(saver_finish(&saver));                  // waits, publishes: before anything changes
//     saver_close(&saver);
//
// A save that fails leaves the last good checkpoint as it is, and older ones only if
// checkpoint.keep would keep them beside it: on a full disk they make room for a second attempt.
// checkpoint.on_error says whether the run continues where that fails, too. With a HDF5 library
// that is not thread-safe the writing is done in saver_begin(). All functions but saver_close() are
// collective.
#ifndef MHA2MLA_TRAIN_CHECKPOINT_SAVER_H
#define MHA2MLA_TRAIN_CHECKPOINT_SAVER_H

#include "train/checkpoint/checkpoint_shard.h"
#include "train/parallel/comm.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct Saver {
    const Comm *comm; // borrowed, as all that follows
    const char *run_dir;
    const Model *model;
    CheckpointContext context;
    int saved_step; // of the newest checkpoint that is complete; -1: none
    int n_failed;   // saves that this process could not complete
    bool is_active; // a save is under way, on all ranks alike
    bool is_needed; // set before saver_begin(): its failure is an error whatever is configured
    RunState state; // what is being saved
    CheckpointShard shard;
    char dir[PATH_BYTES];
    CheckpointFile *files; // owned [comm->size]; while writing, only this rank's at [rank]
    double *exchanged;     // owned [2 * comm->size], scratch of the sum over ranks
    pthread_t thread;
    bool has_thread;
    atomic_bool is_written;
    Status status; // of the writing, with its text
    char text[1024];
    double started_s, written_s, waited_s;
} Saver;

// `shard` is what this rank writes of the model, without step and ranks.
Status saver_open(Saver *out, const Comm *comm, const char *run_dir,
                  const CheckpointContext *context, const Model *model,
                  const CheckpointShard *shard);

// Finishes the save before, if one is under way, then starts one. `ready`, agreed on by the ranks,
// is whether what the checkpoint counts on is on the disk; if not, this save has failed.
Status saver_begin(Saver *saver, const RunState *state, Status ready);

// After an error (its text is current) that a full disk may have caused: removes the checkpoints
// that checkpoint.keep would remove once `step` is saved. true, on all ranks, if there were any:
// what has failed is worth another attempt.
bool saver_make_room(Saver *saver, int step);

// Both do nothing if no save is under way. FAILED, with checkpoint.on_error: stop, if it failed.
Status saver_poll(Saver *saver);
Status saver_finish(Saver *saver);

// Waits for a thread that still writes; its files are no checkpoint without saver_finish().
void saver_close(Saver *saver);

#endif
