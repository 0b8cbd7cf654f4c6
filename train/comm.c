#include "train/comm.h"

#include "base/log.h"
#include "train/stall.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 2048, MESSAGE_BYTES = 1 << 28, PIECE_BYTES = 1 << 16 };

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

// A call in which the rank may wait for others, which the watchdog is told.
#define AWAIT(call, what)                                                                          \
    do {                                                                                           \
        stall_wait_begin();                                                                        \
        const int await_code_ = (call);                                                            \
        stall_wait_end();                                                                          \
        must(await_code_, what);                                                                   \
    } while (0)

Status comm_start(Comm *out)
{
    int provided = 0;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return fail(FAILED, "MPI does not start; run under mpirun or srun --mpi=pmix");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    Comm comm = {.message_bytes = MESSAGE_BYTES};
    must(MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank), "MPI_Comm_rank");
    must(MPI_Comm_size(MPI_COMM_WORLD, &comm.size), "MPI_Comm_size");
    if (gethostname(comm.host, sizeof comm.host) != 0)
        strcpy(comm.host, "?");
    comm.host[sizeof comm.host - 1] = '\0';
    comm.counts = malloc((size_t)comm.size * 4 * sizeof(int)); // all four in one block
    CHECK(comm.counts != NULL, "no memory for %d ranks", comm.size);
    comm.offsets = comm.counts + comm.size;
    comm.from_counts = comm.offsets + comm.size;
    comm.from_offsets = comm.from_counts + comm.size;
    status_set_rank(comm.rank);
    log_set_quiet(comm.rank != 0);
    *out = comm;
    return OK;
}

void comm_stop(Comm *comm, Status status)
{
    // Said before the ranks part: mpirun kills those that are left when one has exited with an
    // error.
    if (status != OK && status != STOPPED)
        log_failure();
    MPI_Finalize();
    free(comm->counts);
    *comm = (Comm){0};
}

Status comm_run(Status (*body)(const Comm *comm, int argc, char **argv), int argc, char **argv)
{
    Comm comm;
    TRY(comm_start(&comm));
    Status status = body(&comm, argc, argv);
    comm_stop(&comm, status);
    return status;
}

Status comm_agree(const Comm *comm, Status own)
{
    if (comm->size == 1)
        return own;
    // The lowest rank that failed, or else was stopped, and whether one had no trouble.
    int ranks[2] = {own == OK        ? INT_MAX
                    : own == STOPPED ? comm->size + comm->rank
                                     : comm->rank,
                    own == OK ? -1 : 0};
    AWAIT(MPI_Allreduce(MPI_IN_PLACE, ranks, 2, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "agreement");
    if (ranks[0] == INT_MAX)
        return OK;
    const int first = ranks[0] % comm->size;
    const bool all_failed = ranks[1] == 0;
    struct {
        int kind;
        char text[TEXT_BYTES];
    } cause = {.kind = (int)own};
    if (comm->rank == first) {
        if (!all_failed && own != STOPPED) // what all ranks see is not one rank's trouble
            fail_write_prefix("rank %d on %s", comm->rank, comm->host);
        snprintf(cause.text, sizeof cause.text, "%s", fail_text());
    }
    AWAIT(MPI_Bcast(&cause, (int)sizeof cause, MPI_BYTE, first, MPI_COMM_WORLD), "agreement");
    return fail((Status)cause.kind, "%s", cause.text);
}

bool comm_all(const Comm *comm, bool own)
{
    int all = own;
    if (comm->size > 1)
        AWAIT(MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "agreement");
    return all != 0;
}

void comm_gather_hosts(const Comm *comm, char (*hosts)[COMM_HOST_BYTES])
{
    AWAIT(MPI_Allgather(comm->host, COMM_HOST_BYTES, MPI_CHAR, hosts, COMM_HOST_BYTES, MPI_CHAR,
                        MPI_COMM_WORLD),
          "gathering of hosts");
}

static void reduce_doubles(const Comm *comm, double *values, int64_t count, MPI_Op op)
{
    if (comm->size == 1)
        return;
    const int64_t most = comm->message_bytes / (int64_t)sizeof(double);
    for (int64_t first = 0; first < count; first += most) {
        int n = (int)(count - first < most ? count - first : most);
        AWAIT(MPI_Allreduce(MPI_IN_PLACE, values + first, n, MPI_DOUBLE, op, MPI_COMM_WORLD),
              "all-reduce");
    }
}

void comm_sum_doubles(const Comm *comm, double *values, int64_t count)
{
    reduce_doubles(comm, values, count, MPI_SUM);
}

void comm_max_doubles(const Comm *comm, double *values, int64_t count)
{
    reduce_doubles(comm, values, count, MPI_MAX);
}

void comm_broadcast(const Comm *comm, void *bytes, int64_t size_bytes, int root)
{
    if (comm->size == 1)
        return;
    const int64_t most = comm->message_bytes;
    for (int64_t first = 0; first < size_bytes; first += most) {
        int n = (int)(size_bytes - first < most ? size_bytes - first : most);
        AWAIT(MPI_Bcast((char *)bytes + first, n, MPI_BYTE, root, MPI_COMM_WORLD), "broadcast");
    }
}

// Both sides cut alike, so that a receiver can drop what it has no memory for.
static int piece_of(int64_t size_bytes, int64_t first)
{
    return (int)(size_bytes - first < PIECE_BYTES ? size_bytes - first : PIECE_BYTES);
}

void comm_send(const Comm *comm, const void *bytes, int64_t size_bytes, int to)
{
    CHECK(to != comm->rank, "rank %d sends to itself", to);
    for (int64_t first = 0; first < size_bytes; first += PIECE_BYTES)
        AWAIT(MPI_Send((const char *)bytes + first, piece_of(size_bytes, first), MPI_BYTE, to, 0,
                       MPI_COMM_WORLD),
              "send");
}

void comm_receive(const Comm *comm, void *bytes, int64_t size_bytes, int from)
{
    char dropped[PIECE_BYTES];
    CHECK(from != comm->rank, "rank %d receives from itself", from);
    for (int64_t first = 0; first < size_bytes; first += PIECE_BYTES)
        AWAIT(MPI_Recv(bytes != NULL ? (char *)bytes + first : dropped, piece_of(size_bytes, first),
                       MPI_BYTE, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
              "receive");
}

int comm_sender(const Comm *comm, bool wait)
{
    MPI_Status found;
    int is_there = 1;
    if (comm->size == 1)
        return -1;
    if (wait)
        AWAIT(MPI_Probe(MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, &found), "probe");
    else
        must(MPI_Iprobe(MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, &is_there, &found), "probe");
    return is_there ? found.MPI_SOURCE : -1;
}

void comm_range(int64_t total, int rank, int n_ranks, int64_t *first, int64_t *count)
{
    int64_t each = total / n_ranks, rest = total % n_ranks;
    *first = each * rank + (rank < rest ? rank : rest);
    *count = each + (rank < rest);
}

void comm_share(int64_t count, int rank, int n_ranks, int64_t *first, int64_t *own_count)
{
    const int64_t blocks = (count + COMM_SHARE_BLOCK - 1) / COMM_SHARE_BLOCK;
    int64_t first_block, own_blocks;
    comm_range(blocks, rank, n_ranks, &first_block, &own_blocks);
    const int64_t end = (first_block + own_blocks) * COMM_SHARE_BLOCK;
    *first = first_block * COMM_SHARE_BLOCK < count ? first_block * COMM_SHARE_BLOCK : count;
    *own_count = (end < count ? end : count) - *first;
}

int64_t comm_received_floats(int64_t count, int n_ranks, int n_senders)
{
    if (n_ranks == 1)
        return 0;
    int64_t first, share;
    comm_share(count, 0, n_ranks, &first, &share); // the largest
    return share * n_senders;
}

// Counts and displacements of every rank's share of a bucket.
static void set_shares(const Comm *comm, int64_t count)
{
    CHECK(count <= COMM_LARGEST_BUCKET, "bucket of %lld floats", (long long)count);
    for (int rank = 0; rank < comm->size; rank++) {
        int64_t first, own;
        comm_share(count, rank, comm->size, &first, &own);
        comm->counts[rank] = (int)own;
        comm->offsets[rank] = (int)first;
    }
}

// sum = or += rows [n_rows, count], the first row first.
static void add_rows(float *sum, const float *rows, int64_t count, int n_rows, bool fresh)
{
    enum { BLOCK = 4096 }; // of the sum stays in the first cache while the rows pass by
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        const int64_t n = count - begin < BLOCK ? count - begin : BLOCK;
        if (fresh)
            memset(sum + begin, 0, (size_t)n * sizeof(float));
        for (int row = 0; row < n_rows; row++) {
            const float *from = rows + row * count + begin;
            for (int64_t i = 0; i < n; i++)
                sum[begin + i] += from[i];
        }
    }
}

// MPI's own reductions choose their order by size and number of ranks. Here every share travels
// once, as in a reduce-scatter, and is added where it belongs.
void comm_reduce_scatter(const Comm *comm, float *sum, const float *bucket, int64_t count,
                         int n_senders, bool fresh, float *received)
{
    if (comm->size == 1) {
        if (sum != bucket)
            add_rows(sum, bucket, count, 1, fresh);
        return;
    }
    set_shares(comm, count);
    const int own = comm->counts[comm->rank];
    for (int rank = 0; rank < comm->size; rank++) {
        comm->from_counts[rank] = rank < n_senders ? own : 0;
        comm->from_offsets[rank] = rank < n_senders ? rank * own : 0;
        if (comm->rank >= n_senders)
            comm->counts[rank] = 0;
    }
    AWAIT(MPI_Alltoallv(bucket, comm->counts, comm->offsets, MPI_FLOAT, received, comm->from_counts,
                        comm->from_offsets, MPI_FLOAT, MPI_COMM_WORLD),
          "reduce-scatter");
    add_rows(sum, received, own, n_senders, fresh);
}

void comm_all_gather(const Comm *comm, float *bucket, int64_t count)
{
    if (comm->size == 1)
        return;
    set_shares(comm, count);
    AWAIT(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, bucket, comm->counts, comm->offsets,
                         MPI_FLOAT, MPI_COMM_WORLD),
          "all-gather");
}
