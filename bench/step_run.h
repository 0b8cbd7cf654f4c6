// Runs and times the step that `mha2mla train` makes, on a model of random weights: every rank one
// sequence of tokens of its own, gradients and parameters exchanged by the calls of training.
//
//     StepSetting setting = {.shape_name = "smollm-135m", .shape = shape, .T = 2048, ...};
//     StepRound rounds[3];
//     TRY(step_run(rounds, &setting, &comm));
//     if (comm.rank == 0)
//         step_table_print(&setting, rounds);
#ifndef MHA2MLA_BENCH_STEP_RUN_H
#define MHA2MLA_BENCH_STEP_RUN_H

#include "bench/step_table.h"
#include "train/parallel/comm.h"

// Side of the square matrices whose product is the measure: 16 MiB each, beyond a core's caches.
enum { STEP_SGEMM_SIZE = 2048 };

// Fills the rounds, means over the ranks, and setting's peaks and core_share; the rest of `setting`
// says what to run. Collective. FAILED, before anything is allocated, if the ranks, all on this
// machine, need more memory than it has to give.
Status step_run(StepRound *rounds, // [n_rounds]
                StepSetting *setting, const Comm *comm);

#endif
