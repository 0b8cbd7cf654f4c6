// Start and end of a cmocka program that runs under mpirun.
//
//     if (!testing_start_ranks(&comm))
//         return 1;
//     return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_RANKS_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_RANKS_H

#include "train/parallel/comm.h"

#include <stdbool.h>

// Ranks above 0 are silent from then on unless a test fails there. False: MPI did not start.
bool testing_start_ranks(Comm *comm);

// The exit status: 0 if no test failed on any rank.
int testing_stop_ranks(Comm *comm, int n_failed);

#endif
