// Everything is read from the environment, because the first check has to come before MPI_Init: an
// MPI without the right PMI may hang or abort there. The variables are those of Slurm (sbatch(1),
// srun(1)), of Open MPI's and MPICH's mpirun, and of the PMI libraries.
#define _GNU_SOURCE // for setenv
#include "train/parallel/launcher.h"

#include "base/file.h"
#include "base/log.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// 0 where the variable is missing or is no number.
static int number_of(const char *variable)
{
    const char *text = getenv(variable);
    return text != NULL ? (int)strtol(text, NULL, 10) : 0;
}

static bool is_one_set(const char *const *variables)
{
    for (; *variables != NULL; variables++)
        if (getenv(*variables) != NULL)
            return true;
    return false;
}

// Open MPI's mpirun, Hydra's and those that are made like them start their daemons by srun, whose
// variables the ranks inherit: the step is the daemons' then.
static bool is_under_mpirun(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS",
                                            "HYDI_CONTROL_FD", NULL};
    return is_one_set(variables);
}

// By which MPI finds the other tasks of a step: PMIx, and PMI 1 and 2.
static bool has_pmi(void)
{
    static const char *const variables[] = {"PMIX_RANK", "PMI_RANK", "PMI_FD", NULL};
    return is_one_set(variables);
}

// One message for the job, although every task is rank 0 to itself: only Slurm's first task speaks.
static Status refuse(int n_tasks)
{
    if (number_of("SLURM_PROCID") != 0)
        log_set_quiet(true);
    return fail(BAD_INPUT,
                "started by srun as 1 of %d tasks, but MPI sees one rank: use srun --mpi=pmix",
                n_tasks);
}

Status launcher_check(void)
{
    const int n_tasks = number_of("SLURM_STEP_NUM_TASKS");
    return n_tasks > 1 && !is_under_mpirun() && !has_pmi() ? refuse(n_tasks) : OK;
}

// A PMI may be there and still be none that this MPI knows, which only shows after MPI_Init.
Status launcher_check_size(int n_ranks)
{
    const int n_tasks = number_of("SLURM_STEP_NUM_TASKS");
    return n_ranks == 1 && n_tasks > 1 && !is_under_mpirun() ? refuse(n_tasks) : OK;
}

// Open MPI's name for the directory is that of the host and the user, which all of the user's
// processes share: the last to leave removes it, even while another is making its own directory in
// it, and that one then fails in MPI_Init. The variable is one of Open MPI 2 to 4; others do not
// read it. One that the user has set stays.
void launcher_own_session_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    char dir[PATH_BYTES];
    if (is_under_mpirun() || has_pmi())
        return;
    const int length = snprintf(dir, sizeof dir, "%s/ompi.mha2mla.%ld",
                                tmp != NULL && tmp[0] == '/' ? tmp : "/tmp", (long)getpid());
    if (length < (int)sizeof dir)
        setenv("OMPI_MCA_orte_top_session_dir", dir, 0);
}
