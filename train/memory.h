// The memory of a rank while it trains: arenas that are placed twice by the same code, first to
// measure them (train/plan/plan.h), then to use them.
//
//     TrainerMemory memory;
//     TRY(memory_allocate(&memory, &shape, NULL, &partition, &schedule, &config));
//     ... memory.ws, memory.flat_grads ...
//     memory_release(&memory);
//
//     gradients      [ flat_grads: trainable_gradients() | own_sums: own_count, with several rounds
//     ]
//                          ^ activations, too, as far as backward writes there after reading them
//     moments        [ m: own_count | v: own_count ]
//     activations    [ what the workspace keeps from forward to backward and does not put there ]
//     scratch        [ the workspace's scratch | batch | micro-batches read ahead ]
//     communication  [ buffers of the exchange | sums of the step ]
//     teacher        [ what a pass of the teacher keeps ], with train/teacher/teacher.h
//     teacher_scratch
//
// The parameters themselves are the replica's (train/replica.h).
#ifndef MHA2MLA_TRAIN_MEMORY_H
#define MHA2MLA_TRAIN_MEMORY_H

#include "base/arena.h"
#include "data/batch.h"
#include "data/prefetch.h"
#include "model/transformer/transformer.h"
#include "train/config/config.h"
#include "train/parallel/batch_schedule.h"
#include "train/parallel/exchange.h"
#include "train/parallel/partition.h"
#include "train/step_sums.h"
#include "train/teacher/teacher.h"

typedef struct TrainerMemory {
    Arena gradients, moments, activations, scratch, communication, teacher, teacher_scratch;
    float *flat_grads; // [trainable_gradients()] of a group of micro-batches; ws.reuse: activations
                       // in it
    float *own_sums;   // [partition.own_count] over rounds; NULL with one round: in flat_grads
    float *m, *v;      // [partition.own_count]
    void *buffers;     // [exchange_n_buffers()][buffer_bytes]
    int64_t buffer_bytes;
    StepSums sums;
    Workspace ws;
    TeacherPass teaching; // {0} without a teacher
    Batch batch;          // for validation
    PrefetchMemory ahead;
} TrainerMemory;

// Places everything in the arenas, which measure or are allocated. `teacher` is the teacher's
// shape; NULL: there is none.
void memory_place(TrainerMemory *memory, const ModelShape *shape, const ModelShape *teacher,
                  const Partition *partition, const BatchSchedule *schedule, const Config *config,
                  int n_threads);

// Measures, allocates and places, for this process's threads. FAILED: no memory; the caller
// releases what was allocated, also then.
Status memory_allocate(TrainerMemory *memory, const ModelShape *shape, const ModelShape *teacher,
                       const Partition *partition, const BatchSchedule *schedule,
                       const Config *config);
void memory_release(TrainerMemory *memory);

#endif
