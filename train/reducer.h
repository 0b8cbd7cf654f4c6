// The exchange between ranks in a training step: gradients go to the rank that owns each share of
// them, where they are summed (reduce-scatter), and updated parameters come back (all-gather), as
// in ZeRO stage 1 (Rajbhandari et al., arXiv 1910.02054). The reducer decides what is sent when;
// train/parallel/exchange.h sends it while the ranks compute.
//
//     for (int round = 0; round < schedule.n_rounds; round++) {
//         ... forward of the first micro-batch of this rank's group ...
//         if (round > 0)
//             TRY(reducer_finish_round(&reducer, own_status));
//         reducer_begin_round(&reducer, round);        // gradient memory is free
//         ... backward, and the other micro-batches of the group; in the last backward:
//             ws.after_backward = reducer_callback(&reducer) ...
//         reducer_end_round(&reducer);                 // what the callback has not sent
//     }
//     TRY(reducer_finish_round(&reducer, own_status)); // reducer_own_sum() of all buckets
//     for (int i = 0; i < partition.n_buckets; i++) {
//         ... update this rank's share of bucket i ...
//         reducer_send_parameters(&reducer, i);
//     }
//     ... the next forward waits for the parameters of each layer by itself ...
//     reducer_wait_all(&reducer);                      // before any other call of comm.h
//
// Order of sums. A rank adds up the gradients of one group of micro-batches (train/parallel/
// batch_schedule.h) in one flat vector. The owner of a share adds the groups of all ranks in the
// order of the groups, round after round, so the bits do not depend on the number of ranks.
//
// Overlap, with train.overlap. A bucket (a layer, the embedding, or the head with the last norm) is
// sent as soon as the last backward of the round has made its gradients final, from the last layer
// down to the embedding; the last buckets of a round travel behind the first forward of the next
// round. Updated parameters travel behind the next step's forward, in the order in which that reads
// them. What stays exposed is the embedding: if it is tied to the head, its gradient is final last,
// and its parameters are needed first.
//
// Three waits keep this correct:
// - before backward writes gradients, all sums of the round before are done
//   (reducer_finish_round());
// - before forward enters a layer whose activations reuse gradient memory (model/transformer/
//   gradient_reuse.h), the buckets that lie there have been sent;
// - before forward enters a layer, its updated parameters have arrived.
// The last two are the workspace's callback before_layer, which reducer_start() sets.
//
// While anything is on its way MPI belongs to the exchange, so no other collective call may be made
// until reducer_finish_round() or reducer_wait_all() has returned.
#ifndef MHA2MLA_TRAIN_REDUCER_H
#define MHA2MLA_TRAIN_REDUCER_H

#include "train/memory.h"
#include "train/metrics/phases.h"
#include "train/parallel/batch_schedule.h"
#include "train/parallel/exchange.h"
#include "train/parallel/partition.h"
#include "train/replica.h"

// What the reducer works on; all borrowed until reducer_stop().
typedef struct ReducerContext {
    const Comm *comm;
    const TrainConfig *config;
    const BatchSchedule *schedule;
    const Partition *partition;
    TrainerMemory *memory;
    Replica *replica;
    bool sends_bf16; // updated parameters, but for vectors (train/replica.h)
    Phases *phases;  // waits are counted as PHASE_REDUCE and PHASE_GATHER
} ReducerContext;

typedef struct GradientReducer {
    ReducerContext context;
    Exchange *exchange;   // owned
    int round;            // of the step at hand
    int n_unsent;         // the first n_unsent buckets of this round have not been sent yet
    int64_t reuse_ticket; // the newest exchange that reads gradients whose memory activations
                          // reuse; -1: there was none
} GradientReducer;

// Starts the exchange. FAILED: no memory or no thread. Not collective.
Status reducer_start(GradientReducer *out, const ReducerContext *context);

// Waits for what is on its way; {0} does nothing.
void reducer_stop(GradientReducer *reducer);

// Whether buckets are exchanged while the ranks compute.
bool reducer_overlaps(const GradientReducer *reducer);

// From here on backward may write gradients. The round before must be finished.
void reducer_begin_round(GradientReducer *reducer, int round);

// For the last backward of the round: sends each bucket once its gradients are final. Without
// overlap it does nothing: all buckets wait for reducer_end_round().
LayerCallback reducer_callback(GradientReducer *reducer);

// Sends the buckets that have not been sent yet. A rank without micro-batches in this round calls
// it, too: it receives its shares.
void reducer_end_round(GradientReducer *reducer);

// Waits for the sums of the round. All ranks return OK, or the first status that is not, as
// comm_agree(). Collective.
Status reducer_finish_round(GradientReducer *reducer, Status own);

// This rank's share [own_count] of the step's gradient in a bucket, after the last round.
float *reducer_own_sum(const GradientReducer *reducer, const Bucket *bucket);

// Sums of squares of the shares of all ranks' gradients: this rank fills its blocks of
// squares [partition_n_blocks()].
void reducer_sum_squares(const GradientReducer *reducer, double *squares);

// Sends this rank's updated share of a bucket to the other ranks. Called for every bucket, from the
// first to the last; without overlap the last call exchanges all of them.
void reducer_send_parameters(GradientReducer *reducer, int bucket);

// Waits until all parameters have arrived and nothing is on its way.
void reducer_wait_all(GradientReducer *reducer);

#endif
