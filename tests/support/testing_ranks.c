#include "tests/support/testing_ranks.h"

#include <stdio.h>

bool testing_start_ranks(Comm *comm)
{
    if (comm_start(comm) != OK)
        return false;
    // cmocka writes failures to stderr.
    if (comm->rank > 0)
        CHECK(freopen("/dev/null", "w", stdout) != NULL, "no /dev/null");
    return true;
}

int testing_stop_ranks(Comm *comm, int n_failed)
{
    double failed = n_failed;
    comm_max_doubles(comm, &failed, 1);
    comm_stop(comm, OK);
    return failed != 0;
}
