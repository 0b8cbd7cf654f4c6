#include "train/parallel/comm.h"

#include "base/log.h"
#include "model/kernels/half.h"
#include "train/parallel/comm_mpi.h"
#include "train/parallel/contract.h"
#include "train/parallel/launcher.h"
#include "train/parallel/watch.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 2048, MESSAGE_BYTES = 1 << 28, PIECE_BYTES = 1 << 16 };

atomic_int comm_n_under_way;

void comm_must(int code, const char *what)
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
    TRY(launcher_check());
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS)
        return fail(FAILED, "MPI does not start; run under mpirun or srun --mpi=pmix");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    Comm comm = {.message_bytes = MESSAGE_BYTES, .may_overlap = provided >= MPI_THREAD_SERIALIZED};
    comm_must(MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank), "MPI_Comm_rank");
    comm_must(MPI_Comm_size(MPI_COMM_WORLD, &comm.size), "MPI_Comm_size");
    const Status is_alone = launcher_check_size(comm.size);
    if (is_alone != OK) {
        MPI_Finalize();
        return is_alone;
    }
    if (gethostname(comm.host, sizeof comm.host) != 0)
        strcpy(comm.host, "?");
    comm.host[sizeof comm.host - 1] = '\0';
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
    // Said before the ranks part: mpirun kills those that are left when one has exited with an
    // error.
    if (status != OK && status != STOPPED)
        log_failure();
    // It waits for the other ranks, too.
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

Status comm_agree_of(const Comm *comm, bool takes_part, Status own)
{
    if (comm->size == 1)
        return own;
    // The lowest rank that failed, or else was stopped, and whether one had no trouble.
    int ranks[2] = {own == OK        ? INT_MAX
                    : own == STOPPED ? comm->size + comm->rank
                                     : comm->rank,
                    own == OK && takes_part ? -1 : 0};
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
        comm_must(MPI_Iprobe(MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, &is_there, &found), "probe");
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

// Of the packed bucket and of what arrives, each.
static size_t item_bytes(bool as_bf16)
{
    return as_bf16 ? sizeof(uint16_t) : sizeof(float);
}

static int64_t packed_bytes(int64_t count, bool as_bf16)
{
    return as_bf16 ? (count * (int64_t)sizeof(uint16_t) + 63) / 64 * 64 : 0;
}

int64_t comm_reduce_bytes(int64_t count, int n_ranks, int n_senders, bool as_bf16)
{
    if (n_ranks == 1)
        return 0;
    int64_t first, share;
    comm_share(count, 0, n_ranks, &first, &share); // the largest
    return packed_bytes(count, as_bf16) + share * n_senders * (int64_t)item_bytes(as_bf16);
}

Status comm_transfer_create(CommTransfer *out, const Comm *comm)
{
    const size_t size = (size_t)comm->size;
    MPI_Request *request = malloc(sizeof *request);
    int *counts = malloc(size * 4 * sizeof *counts); // all four in one block
    if (request == NULL || counts == NULL) {
        free(request);
        free(counts);
        return fail(FAILED, "no memory for transfers among %d ranks", comm->size);
    }
    *request = MPI_REQUEST_NULL;
    *out = (CommTransfer){request, counts, counts + size, counts + 2 * size, counts + 3 * size};
    return OK;
}

void comm_transfer_release(CommTransfer *transfer)
{
    free(transfer->request);
    free(transfer->counts);
    *transfer = (CommTransfer){0};
}

// Counts and displacements of every rank's share of a bucket.
static void set_shares(CommTransfer *transfer, const Comm *comm, int64_t count)
{
    CHECK(count <= COMM_LARGEST_BUCKET, "bucket of %lld floats", (long long)count);
    for (int rank = 0; rank < comm->size; rank++) {
        int64_t first, own;
        comm_share(count, rank, comm->size, &first, &own);
        transfer->counts[rank] = (int)own;
        transfer->offsets[rank] = (int)first;
    }
}

void comm_transfer_wait(CommTransfer *transfer, const char *what)
{
    watchdog_wait_begin();
    const int code = MPI_Wait(transfer->request, MPI_STATUS_IGNORE);
    watchdog_wait_end();
    comm_must(code, what);
    atomic_fetch_sub(&comm_n_under_way, 1);
}

bool comm_transfer_is_done(CommTransfer *transfer)
{
    int is_done = 0;
    comm_must(MPI_Test(transfer->request, &is_done, MPI_STATUS_IGNORE), "transfer");
    if (is_done)
        atomic_fetch_sub(&comm_n_under_way, 1);
    return is_done != 0;
}

enum { BLOCK = 4096 }; // of a sum stays in the first cache while the rows pass by

static void pack(uint16_t *restrict packed, const float *restrict from, int64_t count)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++)
        packed[i] = half_f32_to_bf16(from[i]);
}

// sum = or += rows [n_rows, count], the first row first.
static void add_rows(float *sum, const void *rows, int64_t count, int n_rows, bool fresh,
                     bool are_bf16)
{
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        const int64_t n = count - begin < BLOCK ? count - begin : BLOCK;
        if (fresh)
            memset(sum + begin, 0, (size_t)n * sizeof(float));
        for (int row = 0; row < n_rows; row++) {
            const float *floats = (const float *)rows + row * count + begin;
            const uint16_t *halves = (const uint16_t *)rows + row * count + begin;
            if (are_bf16)
                for (int64_t i = 0; i < n; i++)
                    sum[begin + i] += half_bf16_to_f32(halves[i]);
            else
                for (int64_t i = 0; i < n; i++)
                    sum[begin + i] += floats[i];
        }
    }
}

// The one rank's bucket, rounded as if it had travelled. The sum may be the bucket itself.
static void add_own(const CommReduce *reduce)
{
    float *sum = reduce->sum;
    const float *bucket = reduce->bucket;
    const bool fresh = reduce->fresh;
    if (sum == bucket && !reduce->as_bf16)
        return;
    if (!reduce->as_bf16) {
        add_rows(sum, bucket, reduce->count, 1, fresh, false);
        return;
    }
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < reduce->count; i++)
        sum[i] = (fresh ? 0.0f : sum[i]) + half_bf16_to_f32(half_f32_to_bf16(bucket[i]));
}

// MPI's own reductions choose their order by size and number of ranks. Here every share travels
// once, as in a reduce-scatter, and is added where it belongs.
void comm_reduce_begin(CommTransfer *transfer, const Comm *comm, const CommReduce *reduce)
{
    const bool as_bf16 = reduce->as_bf16;
    set_shares(transfer, comm, reduce->count);
    const int own = transfer->counts[comm->rank];
    for (int rank = 0; rank < comm->size; rank++) {
        const bool sends = rank < reduce->n_senders;
        transfer->from_counts[rank] = sends ? own : 0;
        transfer->from_offsets[rank] = sends ? rank * own : 0;
        if (comm->rank >= reduce->n_senders)
            transfer->counts[rank] = 0;
    }
    if (as_bf16 && comm->rank < reduce->n_senders)
        pack(reduce->buffer, reduce->bucket, reduce->count);
    const void *sent = as_bf16 ? reduce->buffer : (const void *)reduce->bucket;
    void *received = (char *)reduce->buffer + packed_bytes(reduce->count, as_bf16);
    const MPI_Datatype type = as_bf16 ? MPI_UINT16_T : MPI_FLOAT;
    atomic_fetch_add(&comm_n_under_way, 1);
    comm_must(MPI_Ialltoallv(sent, transfer->counts, transfer->offsets, type, received,
                             transfer->from_counts, transfer->from_offsets, type, MPI_COMM_WORLD,
                             transfer->request),
              "reduce-scatter");
}

void comm_reduce_end(const Comm *comm, const CommReduce *reduce)
{
    int64_t first, own;
    comm_share(reduce->count, comm->rank, comm->size, &first, &own);
    const char *received = (char *)reduce->buffer + packed_bytes(reduce->count, reduce->as_bf16);
    add_rows(reduce->sum, received, own, reduce->n_senders, reduce->fresh, reduce->as_bf16);
}

void comm_reduce_scatter(const Comm *comm, const CommReduce *reduce)
{
    if (comm->size == 1) {
        add_own(reduce);
        return;
    }
    comm_reduce_begin(comm->blocking, comm, reduce);
    comm_transfer_wait(comm->blocking, "reduce-scatter");
    comm_reduce_end(comm, reduce);
}

void comm_gather_begin(CommTransfer *transfer, const Comm *comm, float *bucket, int64_t count)
{
    set_shares(transfer, comm, count);
    atomic_fetch_add(&comm_n_under_way, 1);
    comm_must(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, bucket, transfer->counts,
                              transfer->offsets, MPI_FLOAT, MPI_COMM_WORLD, transfer->request),
              "all-gather");
}

void comm_all_gather(const Comm *comm, float *bucket, int64_t count)
{
    if (comm->size == 1)
        return;
    comm_gather_begin(comm->blocking, comm, bucket, count);
    comm_transfer_wait(comm->blocking, "all-gather");
}
