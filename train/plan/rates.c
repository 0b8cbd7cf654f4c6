// Every measurement is a function that all ranks call at the same time, the same number of times.
// One that needs no messages is measured so too: the ranks of a host share its memory bandwidth,
// its power and its caches, and what counts is what each of them gets while all of them work.
#include "train/plan/rates.h"

#include "base/arena.h"
#include "base/log.h"
#include "base/median.h"
#include "base/simd.h"
#include "model/kernels/gemm.h"

#include <cblas.h>
#include <stdlib.h>

enum {
    PRODUCT_SIZE = 1024,
    TRIAD_FLOATS = 8 << 20, // 32 MiB per array: beyond most caches
    READ_FLOATS = 24 << 20, // 96 MiB per array, all three of which are read
    N_PING_PONGS = 100,
    N_PIECES = 9,
};

typedef enum Measured { PRODUCTS, TRIAD, GATHER, PING_PONG, READ, ATTENTION, N_CALLS } Measured;

static const double PIECE_S = 0.05; // least duration of a piece

typedef struct Probe {
    Arena arena;
    int64_t n_floats;
    float *a, *b, *c; // [n_floats] each
} Probe;

static void place(Probe *probe)
{
    probe->a = arena_floats(&probe->arena, probe->n_floats);
    probe->b = arena_floats(&probe->arena, probe->n_floats);
    probe->c = arena_floats(&probe->arena, probe->n_floats);
}

// Collective.
static Status start(Probe *out, int64_t n_floats, const Comm *comm)
{
    Probe probe = {.arena = arena_start("measurement"), .n_floats = n_floats};
    place(&probe);
    TRY(comm_agree(comm, arena_allocate(&probe.arena)));
    place(&probe);
    // Pages that were never written are all mapped to one page of zeros, which stays in the cache.
    for (int64_t i = 0; i < n_floats; i++)
        probe.a[i] = probe.b[i] = probe.c[i] = (float)(i % 7) - 3.0f;
    *out = probe;
    return OK;
}

static void product_f32(const Probe *probe, const Comm *comm)
{
    (void)comm;
    const int n = PRODUCT_SIZE;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1.0f, probe->a, n, probe->b, n,
                0.0f, probe->c, n);
}

// Operands that are bfloat16 already; their values do not matter.
static void product_bf16(const Probe *probe, const Comm *comm)
{
    (void)comm;
    const int n = PRODUCT_SIZE;
    uint16_t *a = (uint16_t *)probe->a, *b = (uint16_t *)probe->b;
    gemm(COMPUTE_BFLOAT16, rows_f32(probe->c, n), gemm_rows(rows_bf16(a, n)),
         gemm_rows_transposed(rows_bf16(b, n)), n, n, n, false);
}

// STREAM's triad (McCalpin): two arrays read, one written; bytes are counted as STREAM does,
// without the read that a store to a cold line causes.
static void triad(const Probe *probe, const Comm *comm)
{
    (void)comm;
    float *restrict a = probe->a;
    const float *restrict b = probe->b, *restrict c = probe->c;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < TRIAD_FLOATS; i++)
        a[i] = b[i] + 3.0f * c[i];
}

// Enough sums beside each other that the latency of an addition does not limit the rate.
enum { READ_LANES = 64 };

HOT static float sum(const float *values, int64_t count)
{
    float lanes[READ_LANES] = {0}, total = 0;
    for (int64_t i = 0; i < count; i += READ_LANES)
        for (int lane = 0; lane < READ_LANES; lane++)
            lanes[lane] += values[i + lane];
    for (int lane = 0; lane < READ_LANES; lane++)
        total += lanes[lane];
    return total;
}

// Weights and cache are read once for a token and nothing is written beside them.
static void read_all(const Probe *probe, const Comm *comm)
{
    (void)comm;
    enum { CHUNK = 1 << 16 };
    const float *arrays[] = {probe->a, probe->b, probe->c};
    const int64_t per_array = probe->n_floats / CHUNK;
    float total = 0;
#pragma omp parallel for schedule(static) reduction(+ : total)
    for (int64_t i = 0; i < 3 * per_array; i++)
        total += sum(arrays[i / per_array] + i % per_array * CHUNK, CHUNK);
    CHECK(total <= 0 || total > 0, "sums of small numbers are finite"); // and so are not left out
}

// A bucket of the largest size, as training exchanges them.
static void gather(const Probe *probe, const Comm *comm)
{
    const CommGather gather = {.bucket = probe->a, .count = COMM_LARGEST_BUCKET};
    comm_all_gather(comm, &gather);
}

// Between the first and the last rank, which lie on different hosts if the job has several. Half of
// a round trip is one message's latency.
static void ping_pongs(const Probe *probe, const Comm *comm)
{
    const int last = comm->size - 1;
    for (int i = 0; i < N_PING_PONGS; i++) {
        if (comm->rank == 0) {
            comm_send(comm, probe->a, sizeof(float), last);
            comm_receive(comm, probe->a, sizeof(float), last);
        } else if (comm->rank == last) {
            comm_receive(comm, probe->a, sizeof(float), 0);
            comm_send(comm, probe->a, sizeof(float), 0);
        }
    }
}

typedef void Call(const Probe *probe, const Comm *comm);

// Seconds of one call on the slowest rank. The ranks agree on the time after every call, so that
// all make the same number of calls whatever their clocks say.
static double time_piece(Call *call, const Probe *probe, const Comm *comm)
{
    double seconds;
    int n_calls = 0;
    const double start_s = log_seconds();
    do {
        call(probe, comm);
        n_calls++;
        seconds = log_seconds() - start_s;
        comm_max_doubles(comm, &seconds, 1);
    } while (seconds < PIECE_S);
    return seconds / n_calls;
}

// Median seconds of each call that is not NULL. Piece -1 is not timed: it warms up caches and opens
// connections.
static void time_calls(double *seconds, Call *const *calls, int n_calls, const Probe *probe,
                       const Comm *comm)
{
    double pieces[N_CALLS][N_PIECES];
    for (int piece = -1; piece < N_PIECES; piece++)
        for (int c = 0; c < n_calls; c++) {
            if (calls[c] == NULL)
                continue;
            if (piece < 0)
                calls[c](probe, comm);
            else
                pieces[c][piece] = time_piece(calls[c], probe, comm);
        }
    for (int c = 0; c < n_calls; c++)
        if (calls[c] != NULL)
            seconds[c] = median_take(pieces[c], N_PIECES);
}

static Call *product_of(ComputeType compute)
{
    return compute == COMPUTE_BFLOAT16 ? product_bf16 : product_f32;
}

// A multiply-add counts as two.
static double product_flops(void)
{
    return 2.0 * PRODUCT_SIZE * PRODUCT_SIZE * PRODUCT_SIZE;
}

// Rates that were given are not measured again. Without a network the assumed one is 100 Gbit/s and
// 10 us.
Status rates_measure(Rates *rates, const Comm *comm, ComputeType compute)
{
    Probe probe;
    double seconds[N_CALLS];
    const bool has_network = comm->size > 1;
    const bool measures_float32 =
        compute != COMPUTE_FLOAT32 && rates->product_flops == 0 && rates->attention_flops == 0;
    Call *const calls[N_CALLS] = {
        [PRODUCTS] = rates->product_flops == 0 ? product_of(compute) : NULL,
        [ATTENTION] = measures_float32 ? product_f32 : NULL,
        [TRIAD] = rates->memory_bytes == 0 ? triad : NULL,
        [GATHER] = has_network && rates->network_bytes == 0 ? gather : NULL,
        [PING_PONG] = has_network && rates->latency_s == 0 ? ping_pongs : NULL,
    };
    TRY(start(&probe, TRIAD_FLOATS, comm));
    time_calls(seconds, calls, N_CALLS, &probe, comm);
    arena_release(&probe.arena);
    if (calls[PRODUCTS] != NULL)
        rates->product_flops = product_flops() / seconds[PRODUCTS];
    if (calls[ATTENTION] != NULL)
        rates->attention_flops = product_flops() / seconds[ATTENTION];
    if (calls[TRIAD] != NULL)
        rates->memory_bytes = 3.0 * TRIAD_FLOATS * sizeof(float) / seconds[TRIAD];
    if (calls[GATHER] != NULL)
        rates->network_bytes = (double)COMM_LARGEST_BUCKET * sizeof(float) * (comm->size - 1) /
                               comm->size / seconds[GATHER];
    if (calls[PING_PONG] != NULL)
        rates->latency_s = seconds[PING_PONG] / (2 * N_PING_PONGS);
    rates->is_network_assumed =
        !has_network && (rates->network_bytes == 0 || rates->latency_s == 0);
    rates->network_bytes = rates->network_bytes == 0 ? 12.5e9 : rates->network_bytes;
    rates->latency_s = rates->latency_s == 0 ? 10e-6 : rates->latency_s;
    return OK;
}

Status rates_measure_serving(Rates *rates, const Comm *comm, ComputeType compute)
{
    Probe probe;
    double seconds[N_CALLS];
    const bool is_float32 = compute == COMPUTE_FLOAT32;
    Call *const calls[N_CALLS] = {
        [PRODUCTS] = rates->product_flops == 0 ? product_of(compute) : NULL,
        [READ] = rates->read_bytes == 0 ? read_all : NULL,
        [ATTENTION] = rates->attention_flops == 0 && !is_float32 ? product_f32 : NULL,
    };
    TRY(start(&probe, READ_FLOATS, comm));
    time_calls(seconds, calls, N_CALLS, &probe, comm);
    arena_release(&probe.arena);
    if (calls[PRODUCTS] != NULL)
        rates->product_flops = product_flops() / seconds[PRODUCTS];
    if (calls[READ] != NULL)
        rates->read_bytes = 3.0 * READ_FLOATS * sizeof(float) / seconds[READ];
    if (calls[ATTENTION] != NULL)
        rates->attention_flops = product_flops() / seconds[ATTENTION];
    if (is_float32)
        rates->attention_flops = rates->product_flops;
    return OK;
}

// The same product with less memory, for a run's own start.
Status rates_measure_products(double *flops, const Comm *comm, ComputeType compute)
{
    Probe probe;
    double seconds;
    Call *const calls[] = {product_of(compute)};
    TRY(start(&probe, PRODUCT_SIZE * PRODUCT_SIZE, comm));
    time_calls(&seconds, calls, 1, &probe, comm);
    arena_release(&probe.arena);
    *flops = product_flops() / seconds;
    return OK;
}
