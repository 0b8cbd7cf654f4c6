// All-gather of buckets, declared in train/parallel/comm.h: in place, or as messages in which
// matrix numbers have 2 bytes and those of exact ranges 4. Where a share lies in such a message
// every rank computes from the ranges alone, so nothing but numbers is sent.
#include "model/kernels/dtype.h"
#include "train/parallel/comm_mpi.h"

#include <string.h>

// Numbers that are converted at a time: 16 KiB of floats stay in the first-level cache, and a core
// has several pieces of a bucket.
enum { BLOCK = 4096 };

// Numbers of exact ranges among the first `end` of the bucket.
static int64_t n_exact_before(const CommGather *gather, int64_t end)
{
    int64_t n = 0;
    for (int i = 0; i < gather->n_exact && gather->exact[i].first < end; i++) {
        const int64_t left = end - gather->exact[i].first;
        n += left < gather->exact[i].count ? left : gather->exact[i].count;
    }
    return n;
}

// Where number i of the bucket lies in the message, in units of 2 bytes.
static int64_t place_of(const CommGather *gather, int64_t i)
{
    return i + n_exact_before(gather, i);
}

int64_t comm_gather_bytes(const CommGather *gather)
{
    return gather->as_bf16 ? place_of(gather, gather->count) * (int64_t)sizeof(uint16_t) : 0;
}

// The end of the numbers from `first` on that are of one kind, at most `end`.
static int64_t end_of_kind(const CommGather *gather, int64_t first, int64_t end, bool *is_exact)
{
    *is_exact = false;
    for (int i = 0; i < gather->n_exact && gather->exact[i].first < end; i++) {
        const int64_t exact_first = gather->exact[i].first;
        const int64_t exact_end = exact_first + gather->exact[i].count;
        if (exact_end <= first)
            continue;
        *is_exact = exact_first <= first;
        if (!*is_exact)
            return exact_first;
        return exact_end < end ? exact_end : end;
    }
    return end;
}

// Numbers [first, end) of one kind, between the bucket and their place in the message.
static void convert(const CommGather *gather, int64_t first, int64_t end, bool is_exact, bool packs)
{
    float *numbers = gather->bucket + first;
    uint16_t *message = (uint16_t *)gather->buffer + place_of(gather, first);
    const int64_t count = end - first;
    if (is_exact && packs)
        memcpy(message, numbers, (size_t)count * sizeof *numbers);
    else if (is_exact)
        memcpy(numbers, message, (size_t)count * sizeof *numbers);
    else if (packs)
        dtype_narrow(message, DTYPE_BF16, numbers, count);
    else
        dtype_widen(numbers, message, DTYPE_BF16, count);
}

// Rounds a share into the message, or writes to the bucket what is in the message of it.
static void convert_share(const CommGather *gather, int rank, int n_ranks, bool packs)
{
    int64_t share_first, count;
    comm_share(gather->count, rank, n_ranks, &share_first, &count);
    const int64_t share_end = share_first + count;
#pragma omp parallel for schedule(static)
    for (int64_t begin = share_first; begin < share_end; begin += BLOCK) {
        const int64_t end = share_end - begin < BLOCK ? share_end : begin + BLOCK;
        for (int64_t first = begin; first < end;) {
            bool is_exact;
            const int64_t next = end_of_kind(gather, first, end, &is_exact);
            convert(gather, first, next, is_exact, packs);
            first = next;
        }
    }
}

// In place: this rank's share is at its offset already, as MPI_IN_PLACE demands.
void comm_gather_begin_among(CommTransfer *transfer, const Comm *comm, const CommGather *gather,
                             const int *ranks, int n, MPI_Comm members)
{
    const bool as_bf16 = gather->as_bf16;
    CHECK(gather->count <= COMM_LARGEST_BUCKET, "bucket of %lld floats", (long long)gather->count);
    for (int i = 0; i < n; i++) {
        int64_t first, own;
        comm_share(gather->count, ranks != NULL ? ranks[i] : i, comm->size, &first, &own);
        const int64_t begin = as_bf16 ? place_of(gather, first) : first;
        const int64_t end = as_bf16 ? place_of(gather, first + own) : first + own;
        transfer->counts[i] = (int)(end - begin);
        transfer->offsets[i] = (int)begin;
    }
    if (as_bf16)
        convert_share(gather, comm->rank, comm->size, true);
    atomic_fetch_add(&comm_n_pending, 1);
    comm_check_code(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL,
                                    as_bf16 ? gather->buffer : gather->bucket, transfer->counts,
                                    transfer->offsets, as_bf16 ? MPI_UINT16_T : MPI_FLOAT, members,
                                    transfer->request),
                    "all-gather");
}

// The own share stays as it is: AdamW goes on from numbers that were never rounded.
void comm_gather_end_among(const Comm *comm, const CommGather *gather, const int *ranks, int n)
{
    for (int i = 0; i < n && gather->as_bf16; i++) {
        const int rank = ranks != NULL ? ranks[i] : i;
        if (rank != comm->rank)
            convert_share(gather, rank, comm->size, false);
    }
}

void comm_gather_begin(CommTransfer *transfer, const Comm *comm, const CommGather *gather)
{
    comm_gather_begin_among(transfer, comm, gather, NULL, comm->size, MPI_COMM_WORLD);
}

void comm_gather_end(const Comm *comm, const CommGather *gather)
{
    comm_gather_end_among(comm, gather, NULL, comm->size);
}

void comm_all_gather(const Comm *comm, const CommGather *gather)
{
    if (comm->size == 1)
        return;
    comm_gather_begin(comm->blocking, comm, gather);
    comm_transfer_wait(comm->blocking, "all-gather");
    comm_gather_end(comm, gather);
}
