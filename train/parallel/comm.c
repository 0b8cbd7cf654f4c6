// Blocking operations over all ranks. Everything uses MPI_COMM_WORLD and tag 0, as a process has
// one job and one conversation at a time; the groups of a host have communicators of their own
// (comm_shared.c). Long vectors are sent in pieces, since MPI 3 counts elements in an int.
#include "train/parallel/comm.h"

#include "base/intmath.h"
#include "base/log.h"
#include "train/parallel/comm_mpi.h"
#include "train/parallel/contract.h"
#include "train/parallel/launcher.h"
#include "train/parallel/watch.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TEXT_BYTES = 2048,       // of an error that all ranks are to have
    MESSAGE_BYTES = 1 << 28, // far below what an int counts, far above what fills a network
    REDUCED_BYTES = 1 << 20, // of a reduction: MPI allocates as much for what it receives
    PIECE_BYTES = 1 << 16    // of a message between two ranks
};

atomic_int comm_n_pending;

void comm_check_code(int code, const char *what)
{
    if (code == MPI_SUCCESS)
        return;
    char reason[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, reason, &length);
    // The library's own description. Printed directly: log_error() is silent above rank 0, and the
    // rank that sees the error may be any.
    fprintf(stderr, "mha2mla: %s failed: %.*s\n", what, length, reason);
    MPI_Abort(MPI_COMM_WORLD, FAILED);
}

// MPI_THREAD_SERIALIZED: the exchange's thread calls MPI while the first thread computes, never
// both at once. More would make MPI take locks in every call.
Status comm_start(Comm *out)
{
    int provided = 0;
    TRY(launcher_check());
    launcher_own_session_dir();
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS)
        return fail(FAILED, "MPI does not start; run under mpirun or srun --mpi=pmix");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD,
                            MPI_ERRORS_RETURN); // comm_check_code() says what failed
    Comm comm = {.message_bytes = MESSAGE_BYTES, .may_overlap = provided >= MPI_THREAD_SERIALIZED};
    comm_check_code(MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank), "MPI_Comm_rank");
    comm_check_code(MPI_Comm_size(MPI_COMM_WORLD, &comm.size), "MPI_Comm_size");
    // No other rank exists where this fails, so MPI_Finalize waits for nobody.
    const Status is_alone = launcher_check_size(comm.size);
    if (is_alone != OK) {
        MPI_Finalize();
        return is_alone;
    }
    if (gethostname(comm.host, sizeof comm.host) != 0)
        strcpy(comm.host, "?");
    comm.host[sizeof comm.host - 1] = '\0';
    // One transfer for all blocking calls, so that these allocate nothing during a step.
    comm.blocking = malloc(sizeof *comm.blocking);
    CHECK(comm.blocking != NULL && comm_transfer_create(comm.blocking, &comm) == OK,
          "no memory for %d ranks", comm.size);
    status_set_rank(comm.rank);
    log_set_quiet(comm.rank != 0);
    *out = comm;
    return OK;
}

void comm_stop(Comm *comm, Status status)
{
    // Before any rank leaves: mpirun kills the others as soon as one has exited with an error.
    if (status != OK && status != STOPPED)
        log_failure();
    // MPI_Finalize waits for the other ranks, so the watchdog stays until it returns.
    watchdog_wait_begin();
    MPI_Finalize();
    watchdog_wait_end();
    watchdog_stop();
    comm_transfer_release(comm->blocking);
    free(comm->blocking);
    *comm = (Comm){0};
}

// Before anything that another version of the program may do otherwise.
static Status agree_on_program(const Comm *comm, const char *program)
{
    Contract contract = {0};
    contract_add(&contract, "the program", "%s", program);
    return contract_agree(&contract, comm, OK, "start the same one on every rank");
}

Status comm_run(const char *program, Status (*body)(const Comm *comm, void *context), void *context)
{
    Comm comm;
    TRY(comm_start(&comm));
    Status status;
    TRY_GOTO(stop, agree_on_program(&comm, program));
    TRY_GOTO(stop, watch_command(&comm));
    status = body(&comm, context);
stop:
    comm_stop(&comm, status);
    return status;
}

Status comm_agree(const Comm *comm, Status own)
{
    return comm_agree_of(comm, true, own);
}

// Two collectives at most: a minimum that finds the rank to report, in the usual case the only one,
// and, after an error, a broadcast of its kind and text. Doing both always would cost a second
// message in every phase of every run.
Status comm_agree_of(const Comm *comm, bool takes_part, Status own)
{
    if (comm->size == 1)
        return own;
    // Both are minima over the ranks: the lowest rank that failed, or, beyond all of these, the
    // lowest that was stopped; and -1 if any rank had no error.
    int ranks[2] = {own == OK        ? INT_MAX
                    : own == STOPPED ? comm->size + comm->rank
                                     : comm->rank,
                    own == OK && takes_part ? -1 : 0};
    BLOCKING(MPI_Allreduce(MPI_IN_PLACE, ranks, 2, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "agreement");
    if (ranks[0] == INT_MAX)
        return OK;
    // Both encodings of the first number are the rank modulo size.
    const int first = ranks[0] % comm->size;
    const bool all_failed = ranks[1] == 0;
    // The text travels with the status: only the rank that failed has it.
    struct {
        int kind;
        char text[TEXT_BYTES];
    } cause = {.kind = (int)own};
    if (comm->rank == first) {
        if (!all_failed && own != STOPPED) // what all ranks see is not one rank's trouble
            fail_write_prefix("rank %d on %s", comm->rank, comm->host);
        snprintf(cause.text, sizeof cause.text, "%s", fail_text());
    }
    BLOCKING(MPI_Bcast(&cause, (int)sizeof cause, MPI_BYTE, first, MPI_COMM_WORLD), "agreement");
    return fail((Status)cause.kind, "%s", cause.text);
}

// The minimum of 0s and 1s is their logical and.
bool comm_all(const Comm *comm, bool own)
{
    int all = own;
    if (comm->size > 1)
        BLOCKING(MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD),
                 "agreement");
    return all != 0;
}

void comm_gather_hosts(const Comm *comm, char (*hosts)[COMM_HOST_BYTES])
{
    BLOCKING(MPI_Allgather(comm->host, COMM_HOST_BYTES, MPI_CHAR, hosts, COMM_HOST_BYTES, MPI_CHAR,
                           MPI_COMM_WORLD),
             "gathering of hosts");
}

// MPI itself reduces doubles, in an order of its choice. Where bits matter callers sum whole
// numbers or vectors in which all ranks but one have 0, which no order changes.
static void reduce_doubles(const Comm *comm, double *values, int64_t count, MPI_Op op)
{
    if (comm->size == 1)
        return;
    const int64_t piece = min_int64(comm->message_bytes, REDUCED_BYTES) / (int64_t)sizeof(double);
    for (int64_t first = 0; first < count; first += piece) {
        int n = (int)(count - first < piece ? count - first : piece);
        BLOCKING(MPI_Allreduce(MPI_IN_PLACE, values + first, n, MPI_DOUBLE, op, MPI_COMM_WORLD),
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
    const int64_t piece = comm->message_bytes;
    for (int64_t first = 0; first < size_bytes; first += piece) {
        int n = (int)(size_bytes - first < piece ? size_bytes - first : piece);
        BLOCKING(MPI_Bcast((char *)bytes + first, n, MPI_BYTE, root, MPI_COMM_WORLD), "broadcast");
    }
}

// Both sides cut a message into the same pieces, so that a receiver without memory for all of it
// can take it piece by piece and drop it.
static int piece_of(int64_t size_bytes, int64_t first)
{
    return (int)(size_bytes - first < PIECE_BYTES ? size_bytes - first : PIECE_BYTES);
}

void comm_send(const Comm *comm, const void *bytes, int64_t size_bytes, int to)
{
    CHECK(to != comm->rank, "rank %d sends to itself", to);
    for (int64_t first = 0; first < size_bytes; first += PIECE_BYTES)
        BLOCKING(MPI_Send((const char *)bytes + first, piece_of(size_bytes, first), MPI_BYTE, to, 0,
                          MPI_COMM_WORLD),
                 "send");
}

void comm_receive(const Comm *comm, void *bytes, int64_t size_bytes, int from)
{
    char dropped[PIECE_BYTES];
    CHECK(from != comm->rank, "rank %d receives from itself", from);
    for (int64_t first = 0; first < size_bytes; first += PIECE_BYTES)
        BLOCKING(MPI_Recv(bytes != NULL ? (char *)bytes + first : dropped,
                          piece_of(size_bytes, first), MPI_BYTE, from, 0, MPI_COMM_WORLD,
                          MPI_STATUS_IGNORE),
                 "receive");
}

// MPI keeps the messages inside collectives apart from these, so a probe never sees one of them.
int comm_probe(const Comm *comm, bool wait)
{
    MPI_Status found;
    int is_there = 1;
    if (comm->size == 1)
        return -1;
    if (wait)
        BLOCKING(MPI_Probe(MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, &found), "probe");
    else
        comm_check_code(MPI_Iprobe(MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, &is_there, &found), "probe");
    return is_there ? found.MPI_SOURCE : -1;
}
