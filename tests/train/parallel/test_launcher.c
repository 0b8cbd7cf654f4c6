// By the variables that Slurm 22.05 and Open MPI 4.1 set; tests/slurm/slurm_launch.sh starts them.
#define _GNU_SOURCE // setenv
#include "tests/support/testing.h"

#include "base/log.h"
#include "train/parallel/launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const variables[] = {
    "SLURM_NTASKS",         "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "PMIX_RANK", "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE", "PMI_FD",
};

// "NAME=VALUE" of each, and none of the others.
static void set_environment(const char *const *settings)
{
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    for (; *settings != NULL; settings++) {
        char name[64];
        const char *equals = strchr(*settings, '=');
        assert_non_null(equals);
        snprintf(name, sizeof name, "%.*s", (int)(equals - *settings), *settings);
        setenv(name, equals + 1, 1);
    }
}

#define ENVIRONMENT(...) set_environment((const char *const[]){__VA_ARGS__, NULL})

static const char refusal[] =
    "started by srun as 1 of 4 tasks, but MPI sees one rank: use srun --mpi=pmix";

static void test_tasks_without_pmi_are_refused(void **state)
{
    (void)state;
    ENVIRONMENT("SLURM_NTASKS=4", "SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=4");
    assert_fails(BAD_INPUT, refusal, launcher_check());
}

static void test_tasks_whose_pmi_this_mpi_does_not_speak_are_refused(void **state)
{
    (void)state;
    ENVIRONMENT("SLURM_PROCID=0", "SLURM_STEP_NUM_TASKS=4", "PMI_RANK=1", "PMI_FD=13");
    assert_ok(launcher_check()); // it may be one that does
    assert_ok(launcher_check_size(4));
    assert_fails(BAD_INPUT, refusal, launcher_check_size(1));
}

static void expect_good(int n_ranks)
{
    assert_ok(launcher_check());
    assert_ok(launcher_check_size(n_ranks));
}

static void test_other_starts_are_good(void **state)
{
    (void)state;
    ENVIRONMENT(NULL); // no Slurm
    expect_good(1);
    ENVIRONMENT("SLURM_NTASKS=4", "SLURM_PROCID=0"); // a batch script without srun
    expect_good(1);
    ENVIRONMENT("SLURM_NTASKS=4", "SLURM_STEP_NUM_TASKS=4", "PMIX_RANK=2"); // srun --mpi=pmix
    expect_good(4);
    ENVIRONMENT("SLURM_NTASKS=4", "SLURM_STEP_NUM_TASKS=1"); // srun -n 1 in a larger job
    expect_good(1);
    // Under mpirun, whose daemons are tasks of a step.
    ENVIRONMENT("SLURM_STEP_NUM_TASKS=2", "OMPI_COMM_WORLD_SIZE=1", "PMIX_RANK=0");
    expect_good(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tasks_without_pmi_are_refused),
        cmocka_unit_test(test_tasks_whose_pmi_this_mpi_does_not_speak_are_refused),
        cmocka_unit_test(test_other_starts_are_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
