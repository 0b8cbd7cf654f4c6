// How this process was started, as far as MPI needs to be told or cannot tell: whether the
// processes of a job know of each other, and where a process without a launcher keeps MPI's files.
// Under srun without a PMI that this MPI speaks, every task takes itself for the only rank of a job
// of its own: all of them would do all of the work and write the same files.
//
//     TRY(launcher_check());                     // before MPI starts
//     launcher_own_session_dir();
//     ... MPI_Init, MPI_Comm_size ...
//     TRY(launcher_check_size(comm.size));
//
// What counts is the number of tasks of the srun step that this process is in. SLURM_NTASKS is that
// of the job, which a batch script without srun has, too. Not collective.
#ifndef MHA2MLA_TRAIN_PARALLEL_LAUNCHER_H
#define MHA2MLA_TRAIN_PARALLEL_LAUNCHER_H

#include "base/status.h"

// BAD_INPUT if srun has started several tasks and gave none of them a way to find the others; said
// by the first task, the others are quiet from then on (base/log.h).
Status launcher_check(void);

// The same where MPI has started all the same, with n_ranks = 1.
Status launcher_check_size(int n_ranks);

// Before MPI starts: gives a process that neither mpirun nor srun started a session directory of
// its own for Open MPI, so that several may start and end at once on a host.
void launcher_own_session_dir(void);

#endif
