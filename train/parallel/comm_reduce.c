// Reduce-scatter of buckets and their transfers, declared in train/parallel/comm.h; all-gathers are
// in comm_gather.c. A transfer that waits is one that is begun and waited for, so both ways give
// the same bits.
#include "model/kernels/dtype.h"
#include "model/kernels/half.h"
#include "train/parallel/comm_mpi.h"

#include <stdlib.h>
#include <string.h>

// The first total mod n ranks get one element more than the others.
void comm_range(int64_t total, int rank, int n_ranks, int64_t *first, int64_t *count)
{
    int64_t each = total / n_ranks, rest = total % n_ranks;
    *first = each * rank + (rank < rest ? rank : rest);
    *count = each + (rank < rest);
}

// Shares are cut at whole blocks, so that a sum over one block is a sum on one rank whatever the
// number of ranks. Ranks without a block get an empty range at the end of the bucket.
void comm_share(int64_t count, int rank, int n_ranks, int64_t *first, int64_t *own_count)
{
    const int64_t blocks = (count + COMM_SHARE_BLOCK - 1) / COMM_SHARE_BLOCK;
    int64_t first_block, own_blocks;
    comm_range(blocks, rank, n_ranks, &first_block, &own_blocks);
    const int64_t end = (first_block + own_blocks) * COMM_SHARE_BLOCK;
    *first = first_block * COMM_SHARE_BLOCK < count ? first_block * COMM_SHARE_BLOCK : count;
    *own_count = (end < count ? end : count) - *first;
}

// Bytes of one number in a message.
static size_t item_bytes(bool as_bf16)
{
    return as_bf16 ? sizeof(uint16_t) : sizeof(float);
}

// Size of the bucket as bfloat16, which lies at the beginning of the buffer; what arrives follows
// it, 64-byte aligned.
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
    // MPI_Request is an opaque type of mpi.h, which the header must not include: hence a pointer to
    // one.
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

// Sets counts and displacements of every rank's share of a bucket, in floats.
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

// The heartbeat stops for as long as the wait lasts, which is what the watchdog measures.
void comm_transfer_wait(CommTransfer *transfer, const char *what)
{
    watchdog_wait_begin();
    // MPI_Wait sets the request to MPI_REQUEST_NULL, which makes the transfer reusable.
    const int code = MPI_Wait(transfer->request, MPI_STATUS_IGNORE);
    watchdog_wait_end();
    comm_check_code(code, what);
    atomic_fetch_sub(&comm_n_pending, 1);
}

// MPI_Test of a request that is done resets it, so the count of pending transfers falls once.
bool comm_transfer_is_done(CommTransfer *transfer)
{
    int is_done = 0;
    comm_check_code(MPI_Test(transfer->request, &is_done, MPI_STATUS_IGNORE), "transfer");
    if (is_done)
        atomic_fetch_sub(&comm_n_pending, 1);
    return is_done != 0;
}

// Floats that are added up or rounded at a time: 16 KiB of a sum stay in the first-level cache
// while the rows stream through it.
enum { BLOCK = 4096 };

// Rounds to nearest even. The packed copy stays in the buffer until the transfer is done: MPI reads
// it meanwhile.
static void pack(uint16_t *restrict packed, const float *restrict from, int64_t count)
{
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += BLOCK)
        dtype_narrow(packed + begin, DTYPE_BF16, from + begin,
                     count - begin < BLOCK ? count - begin : BLOCK);
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
            // Always in float32: bfloat16 is a format for sending only, and its 8 bits of mantissa
            // would lose the small addends.
            if (are_bf16)
                for (int64_t i = 0; i < n; i++)
                    sum[begin + i] += half_bf16_to_f32(halves[i]);
            else
                for (int64_t i = 0; i < n; i++)
                    sum[begin + i] += floats[i];
        }
    }
}

// On one rank: its bucket, rounded as if it had been sent. The sum may be the bucket itself.
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

// MPI's own reductions choose the order of additions by message size and number of ranks, and with
// it the bits. An all-to-all moves the same bytes as a reduce-scatter (every rank sends each other
// rank its share once) and leaves the additions to the owner of the share, in the order of the
// ranks.
void comm_reduce_begin(CommTransfer *transfer, const Comm *comm, const CommReduce *reduce)
{
    const bool as_bf16 = reduce->as_bf16;
    set_shares(transfer, comm, reduce->count);
    const int own = transfer->counts[comm->rank];
    for (int rank = 0; rank < comm->size; rank++) {
        const bool sends = rank < reduce->n_senders;
        transfer->from_counts[rank] = sends ? own : 0;
        transfer->from_offsets[rank] = sends ? rank * own : 0;
        if (comm->rank >= reduce->n_senders) // sends nothing, but receives its share
            transfer->counts[rank] = 0;
    }
    if (as_bf16 && comm->rank < reduce->n_senders)
        pack(reduce->buffer, reduce->bucket, reduce->count);
    const void *sent = as_bf16 ? reduce->buffer : (const void *)reduce->bucket;
    void *received = (char *)reduce->buffer + packed_bytes(reduce->count, as_bf16);
    const MPI_Datatype type = as_bf16 ? MPI_UINT16_T : MPI_FLOAT;
    atomic_fetch_add(&comm_n_pending, 1);
    comm_check_code(MPI_Ialltoallv(sent, transfer->counts, transfer->offsets, type, received,
                                   transfer->from_counts, transfer->from_offsets, type,
                                   MPI_COMM_WORLD, transfer->request),
                    "reduce-scatter");
}

// To be called once, after the transfer is done: it adds what has arrived to *sum.
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
