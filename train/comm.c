#include "train/comm.h"

#include "base/log.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 2048, CHUNK_BYTES = 1 << 28 };

// A failed MPI call: peers may be gone, so there is nobody left to agree with.
static void must(int code, const char *what)
{
    if (code == MPI_SUCCESS)
        return;
    char reason[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, reason, &length);
    fprintf(stderr, "mha2mla: %s failed: %.*s\n", what, length, reason);
    MPI_Abort(MPI_COMM_WORLD, FAILED);
}

Status comm_start(Comm *out)
{
    int provided = 0;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return fail(FAILED, "MPI does not start; run under mpirun or srun --mpi=pmix");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    Comm comm;
    must(MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank), "MPI_Comm_rank");
    must(MPI_Comm_size(MPI_COMM_WORLD, &comm.size), "MPI_Comm_size");
    if (gethostname(comm.host, sizeof comm.host) != 0)
        strcpy(comm.host, "?");
    comm.host[sizeof comm.host - 1] = '\0';
    status_set_rank(comm.rank);
    log_set_quiet(comm.rank != 0);
    *out = comm;
    return OK;
}

void comm_stop(Comm *comm)
{
    MPI_Finalize();
    *comm = (Comm){0};
}

Status comm_agree(const Comm *comm, Status own)
{
    // The lowest rank that failed, and whether one did not.
    int ranks[2] = {own == OK ? INT_MAX : comm->rank, own == OK ? -1 : 0};
    must(MPI_Allreduce(MPI_IN_PLACE, ranks, 2, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "agreement");
    const int first = ranks[0];
    const bool all_failed = ranks[1] == 0;
    if (first == INT_MAX)
        return OK;
    struct {
        int kind;
        char text[TEXT_BYTES];
    } cause = {.kind = (int)own};
    if (comm->rank == first) {
        if (!all_failed) // what all ranks see is not one rank's trouble
            fail_write_prefix("rank %d on %s", comm->rank, comm->host);
        snprintf(cause.text, sizeof cause.text, "%s", fail_text());
    }
    must(MPI_Bcast(&cause, (int)sizeof cause, MPI_BYTE, first, MPI_COMM_WORLD), "agreement");
    return fail((Status)cause.kind, "%s", cause.text);
}

static void reduce_doubles(double *values, int64_t count, MPI_Op op)
{
    const int64_t chunk = CHUNK_BYTES / (int64_t)sizeof(double);
    for (int64_t first = 0; first < count; first += chunk) {
        int n = (int)(count - first < chunk ? count - first : chunk);
        must(MPI_Allreduce(MPI_IN_PLACE, values + first, n, MPI_DOUBLE, op, MPI_COMM_WORLD),
             "all-reduce");
    }
}

void comm_sum_doubles(const Comm *comm, double *values, int64_t count)
{
    if (comm->size > 1)
        reduce_doubles(values, count, MPI_SUM);
}

void comm_max_doubles(const Comm *comm, double *values, int64_t count)
{
    if (comm->size > 1)
        reduce_doubles(values, count, MPI_MAX);
}

void comm_broadcast(const Comm *comm, void *bytes, int64_t size_bytes, int root)
{
    if (comm->size == 1)
        return;
    for (int64_t first = 0; first < size_bytes; first += CHUNK_BYTES) {
        int n = (int)(size_bytes - first < CHUNK_BYTES ? size_bytes - first : CHUNK_BYTES);
        must(MPI_Bcast((char *)bytes + first, n, MPI_BYTE, root, MPI_COMM_WORLD), "broadcast");
    }
}

void comm_range(int64_t total, int rank, int n_ranks, int64_t *first, int64_t *count)
{
    int64_t each = total / n_ranks, rest = total % n_ranks;
    *first = each * rank + (rank < rest ? rank : rest);
    *count = each + (rank < rest);
}

// Counts and displacements of every rank's share of a bucket.
typedef struct Shares {
    int *counts, *offsets; // [size], owned
} Shares;

static Shares make_shares(const Comm *comm, int64_t count)
{
    CHECK(count <= COMM_LARGEST_BUCKET, "bucket of %lld floats", (long long)count);
    Shares shares = {malloc((size_t)comm->size * sizeof(int)),
                     malloc((size_t)comm->size * sizeof(int))};
    CHECK(shares.counts != NULL && shares.offsets != NULL, "no memory for %d shares", comm->size);
    for (int rank = 0; rank < comm->size; rank++) {
        int64_t first, own;
        comm_range(count, rank, comm->size, &first, &own);
        shares.counts[rank] = (int)own;
        shares.offsets[rank] = (int)first;
    }
    return shares;
}

static void release_shares(Shares *shares)
{
    free(shares->counts);
    free(shares->offsets);
}

void comm_reduce_scatter(const Comm *comm, float *bucket, int64_t count)
{
    if (comm->size == 1)
        return;
    Shares shares = make_shares(comm, count);
    must(
        MPI_Reduce_scatter(MPI_IN_PLACE, bucket, shares.counts, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD),
        "reduce-scatter");
    // In place, the sum arrives at the beginning; its place is the rank's share.
    memmove(bucket + shares.offsets[comm->rank], bucket,
            (size_t)shares.counts[comm->rank] * sizeof(float));
    release_shares(&shares);
}

void comm_all_gather(const Comm *comm, float *bucket, int64_t count)
{
    if (comm->size == 1)
        return;
    Shares shares = make_shares(comm, count);
    must(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, bucket, shares.counts, shares.offsets,
                        MPI_FLOAT, MPI_COMM_WORLD),
         "all-gather");
    release_shares(&shares);
}
