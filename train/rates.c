#include "train/rates.h"

#include "base/arena.h"
#include "base/log.h"

#include <cblas.h>

enum {
    SGEMM_SIZE = 1024,
    TRIAD_FLOATS = 8 << 20, // 32 MiB each: beyond the caches
    N_PING_PONGS = 300,
};

static const double SHARE_S = 0.15; // how long each rate is measured at least
static const double SGEMM_S = 0.5;  // if it is the only one

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
    for (int64_t i = 0; i < n_floats; i++) // pages that were never written are all one page
        probe.a[i] = probe.b[i] = probe.c[i] = (float)(i % 7) - 3.0f;
    *out = probe;
    return OK;
}

static void product(const Probe *probe, const Comm *comm)
{
    (void)comm;
    const int n = SGEMM_SIZE;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1.0f, probe->a, n, probe->b, n,
                0.0f, probe->c, n);
}

static void triad(const Probe *probe, const Comm *comm)
{
    (void)comm;
    float *restrict a = probe->a;
    const float *restrict b = probe->b, *restrict c = probe->c;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < TRIAD_FLOATS; i++)
        a[i] = b[i] + 3.0f * c[i];
}

static void gather(const Probe *probe, const Comm *comm)
{
    comm_all_gather(comm, probe->a, COMM_LARGEST_BUCKET);
}

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

// Seconds of one call on the slowest rank; the first warms caches and connections. All ranks make
// the same number of calls, whatever their clocks say.
static double time_call(void (*call)(const Probe *, const Comm *), const Probe *probe,
                        const Comm *comm, double least_s)
{
    double seconds[2];
    call(probe, comm);
    int n_calls = 0;
    const double start_s = log_seconds();
    do {
        call(probe, comm);
        n_calls++;
        seconds[0] = seconds[1] = log_seconds() - start_s;
        comm_max_doubles(comm, seconds, 1);
    } while (seconds[0] < least_s);
    seconds[1] /= n_calls;
    comm_max_doubles(comm, seconds, 2);
    return seconds[1];
}

static void measure_network(Rates *rates, const Probe *probe, const Comm *comm)
{
    if (comm->size == 1) {
        rates->is_network_assumed = rates->network_bytes == 0 || rates->latency_s == 0;
        rates->network_bytes = rates->network_bytes == 0 ? 12.5e9 : rates->network_bytes;
        rates->latency_s = rates->latency_s == 0 ? 10e-6 : rates->latency_s;
        return;
    }
    if (rates->latency_s == 0)
        rates->latency_s = time_call(ping_pongs, probe, comm, SHARE_S) / (2 * N_PING_PONGS);
    if (rates->network_bytes > 0)
        return;
    const double bytes = (double)COMM_LARGEST_BUCKET * sizeof(float);
    rates->network_bytes =
        bytes * (comm->size - 1) / comm->size / time_call(gather, probe, comm, SHARE_S);
}

static double measure_sgemm(const Probe *probe, const Comm *comm, double least_s)
{
    const double n = SGEMM_SIZE;
    return 2 * n * n * n / time_call(product, probe, comm, least_s);
}

Status rates_measure(Rates *rates, const Comm *comm)
{
    Probe probe;
    TRY(start(&probe, TRIAD_FLOATS, comm));
    const double triad_bytes = 3.0 * TRIAD_FLOATS * sizeof(float);
    if (rates->sgemm_flops == 0)
        rates->sgemm_flops = measure_sgemm(&probe, comm, SHARE_S);
    if (rates->memory_bytes == 0)
        rates->memory_bytes = triad_bytes / time_call(triad, &probe, comm, SHARE_S);
    measure_network(rates, &probe, comm);
    arena_release(&probe.arena);
    return OK;
}

Status rates_measure_sgemm(double *flops, const Comm *comm)
{
    Probe probe;
    TRY(start(&probe, SGEMM_SIZE * SGEMM_SIZE, comm));
    *flops = measure_sgemm(&probe, comm, SGEMM_S);
    arena_release(&probe.arena);
    return OK;
}
