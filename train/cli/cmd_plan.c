// mha2mla plan: what a run will need and take, on any number of ranks, before it is started.
// Memory is measured by the code that trains (train/plan/plan.h), time is a model of rates
// (train/plan/cost.h); the tables apply both to other numbers of ranks than those it runs on.
#include "base/log.h"
#include "train/agreement.h"
#include "train/cli/compute_options.h"
#include "train/cli/plan_serve.h"
#include "train/parallel/watch.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"
#include "train/plan/cost.h"

#include <omp.h>
#include <stdio.h>

enum { MAX_TABLE_RANKS = 1024, TIME_BYTES = 32 };

static const double GIB = 1024.0 * 1024.0 * 1024.0;

// The options, completed by run(). Rates that are 0 are measured. In the units that users know,
// which are those of data sheets; Rates has them in SI units.
typedef struct PlanRequest {
    const Comm *comm;
    int64_t n_ranks;            // 0 in options: those that the command runs on
    int64_t n_threads;          // 0 in options: OpenMP's
    int64_t ranks_per_host;     // 0: all
    double memory_gib;          // of a rank; 0: the machine's
    double gflops, gflops_bf16; // of float32 and bfloat16
    double memory_gb_s, bandwidth_gb_s, latency_us;
    double efficiency;   // share of the rate of products
    double step_seconds; // measured on n_ranks; 0: from that rate and efficiency
    bool serve;
    ComputeOptions compute; // its type with serve; a config has its own
    int64_t context, batch; // with serve; 0: not given
} PlanRequest;

// "1.2 ms", "3.4 s", "0:12:34", "27:01:02". Returns `out`.
static const char *print_time(char out[TIME_BYTES], double seconds)
{
    const long long whole = seconds < 1e15 ? (long long)(seconds + 0.5) : (long long)1e15;
    if (seconds < 1)
        snprintf(out, TIME_BYTES, "%.3g ms", seconds * 1e3);
    else if (seconds < 60)
        snprintf(out, TIME_BYTES, "%.1f s", seconds);
    else
        snprintf(out, TIME_BYTES, "%lld:%02d:%02d", whole / 3600, (int)(whole / 60 % 60),
                 (int)(whole % 60));
    return out;
}

static double peak_gib(const Plan *plan)
{
    return (double)plan_peak_bytes(plan) / GIB;
}

// Adapts the batch to n_ranks: the largest micro-batch, up to the config's own, of which every rank
// gets at least one. False if there are fewer sequences than ranks.
static bool fit_ranks(Config *config, int n_ranks)
{
    TrainConfig *train = &config->train;
    const bool is_whole = train->sum_groups == train->global_batch / train->micro_batch;
    if (n_ranks > train->global_batch)
        return false;
    while (train->global_batch % train->micro_batch != 0 ||
           train->global_batch / train->micro_batch < n_ranks)
        train->micro_batch--;
    if (is_whole || train->sum_groups < n_ranks)
        train->sum_groups = train->global_batch / train->micro_batch;
    return true;
}

// A plan in which the ranks of a host share the parameters as train.ranks_per_copy says.
static Status make_plan(Plan *out, const Config *config, int n_ranks, const PlanRequest *request)
{
    const int64_t host = request->ranks_per_host > 0 ? request->ranks_per_host : request->n_ranks;
    TRY(plan_make(out, config, n_ranks, (int)request->n_threads));
    out->n_sharers = plan_sharers(config, n_ranks, (int)host);
    return OK;
}

// ---- memory ------------------------------------------------------------------------------------

// Prints the change that costs the least: the largest smaller micro-batch with which a rank fits,
// else the fewest additional ranks. Both leave the global batch, and so the result, as it is.
static Status suggest(const Config *config, const PlanRequest *request, double memory_gib)
{
    Plan plan;
    Config other = *config;
    TrainConfig *train = &other.train;
    double min_gib = 0;
    while (train->micro_batch > 1) {
        train->micro_batch--;
        if (!fit_ranks(&other, (int)request->n_ranks))
            break;
        TRY(make_plan(&plan, &other, (int)request->n_ranks, request));
        min_gib = peak_gib(&plan);
        if (min_gib > memory_gib)
            continue;
        printf("             --train.micro_batch=%d needs %.3g GiB: it fits\n", train->micro_batch,
               min_gib);
        return OK;
    }
    for (int64_t n = 2 * request->n_ranks; n <= MAX_TABLE_RANKS; n *= 2) {
        if (!fit_ranks(&other, (int)n))
            break;
        TRY(make_plan(&plan, &other, (int)n, request));
        min_gib = peak_gib(&plan);
        if (min_gib > memory_gib)
            continue;
        printf("             %lld ranks with --train.micro_batch=%d need %.3g GiB each: they fit\n",
               (long long)n, train->micro_batch, min_gib);
        return OK;
    }
    printf(
        "             smaller micro-batches and more ranks need %.3g GiB at least; take a shorter "
        "data.seq_len, fewer threads per rank, or more memory\n",
        min_gib > 0 ? min_gib : memory_gib);
    return OK;
}

static Status print_fit(const Plan *plan, const Config *config, const PlanRequest *request)
{
    const bool is_given = request->memory_gib > 0;
    const double memory_gib = is_given ? request->memory_gib : plan_machine_gib();
    const double needed_gib = peak_gib(plan);
    const char *whose = is_given ? "--memory" : "this machine's";
    if (needed_gib > memory_gib) {
        printf("fit          no: a rank needs %.3g GiB of %.3g GiB (%s)\n", needed_gib, memory_gib,
               whose);
        return suggest(config, request, memory_gib);
    }
    printf("fit          yes: a rank needs %.3g GiB of %.3g GiB (%s)", needed_gib, memory_gib,
           whose);
    if (!is_given)
        printf(", which holds %d such ranks", (int)(memory_gib / needed_gib));
    putchar('\n');
    return OK;
}

// FLOP per second; 0: to be measured.
static double given_flops(const PlanRequest *request, ComputeType compute)
{
    return 1e9 * (compute == COMPUTE_BFLOAT16 ? request->gflops_bf16 : request->gflops);
}

// ---- time --------------------------------------------------------------------------------------

// Each rate with where it comes from: a plan is no better than they are.
static void print_rates(const Rates *rates, const PlanRequest *request, ComputeType compute)
{
    const char *const measured = "measured", *const given = "given";
    printf("rates of a rank\n");
    printf("  %-9s  %9.1f GFLOP/s, %s; the model's products reach %.0f %% of it (%s)\n",
           compute == COMPUTE_BFLOAT16 ? "bfloat16" : "sgemm", rates->product_flops / 1e9,
           given_flops(request, compute) > 0 ? given : measured, 100 * request->efficiency,
           request->step_seconds > 0 ? "--step-seconds" : "--efficiency");
    printf("  memory     %9.1f GB/s, %s\n", rates->memory_bytes / 1e9,
           request->memory_gb_s > 0 ? given : measured);
    printf("  messages   %9.2f GB/s and %.3g us each, %s\n", rates->network_bytes / 1e9,
           rates->latency_s * 1e6,
           rates->is_network_assumed
               ? "assumed: give --bandwidth and --latency, or start under mpirun"
           : request->bandwidth_gb_s > 0 ? given
                                         : measured);
    if (request->comm->size > 1)
        printf("  measured on %d ranks at once, the slowest counts\n", request->comm->size);
}

static void print_times(const Cost *cost, const Config *config)
{
    char products[TIME_BYTES], memory[TIME_BYTES], messages[TIME_BYTES], exposed[TIME_BYTES],
        step[TIME_BYTES], steps[TIME_BYTES], validation[TIME_BYTES], original[TIME_BYTES],
        statistics[TIME_BYTES], conversion[TIME_BYTES], distillation[TIME_BYTES], run[TIME_BYTES];
    printf("step         %.4g GFLOP in %s: products %s, memory %s, messages %s, exposed %s\n",
           cost->step_flops / 1e9, print_time(step, cost->step_s),
           print_time(products, cost->products_s), print_time(memory, cost->memory_s),
           print_time(messages, cost->messages_s), print_time(exposed, cost->exposed_s));
    printf("run          %s: %d steps %s, validation %s", print_time(run, cost->run_s),
           config->train.steps, print_time(steps, cost->steps_s),
           print_time(validation, cost->validation_s));
    if (config->model.convert.given)
        printf(", original model before its conversion %s", print_time(original, cost->original_s));
    if (cost->statistics_s > 0)
        printf(", statistics %s", print_time(statistics, cost->statistics_s));
    if (config->model.convert.given)
        printf(", conversion %s", print_time(conversion, cost->convert_s));
    if (cost->distill_s > 0)
        printf(", distillation %s", print_time(distillation, cost->distill_s));
    putchar('\n');
}

static void print_row(const Plan *plan, const Cost *cost, const Config *config, double first_s)
{
    char step[TIME_BYTES], run[TIME_BYTES];
    const double tokens = (double)config->train.global_batch * config->data.seq_len;
    printf("%6d %6d %10s %9.0f %% %9.0f %% %11.4g %8.1fx %12s %10.1f\n", plan->n_ranks,
           config->train.micro_batch, print_time(step, cost->step_s),
           100 * cost->memory_s / cost->step_s, 100 * cost->exposed_s / cost->step_s,
           tokens / cost->step_s, first_s / cost->run_s, print_time(run, cost->run_s),
           (double)plan_peak_bytes(plan) / (1 << 20));
}

// The same run on 1, 2, 4 ... ranks, the global batch as it is (strong scaling). The micro-batch
// shrinks where there would be fewer micro-batches than ranks.
static Status print_table(const Config *config, const Rates *rates, const PlanRequest *request,
                          int64_t process_bytes)
{
    int n_dominated = 0; // the fewest ranks at which half of a step is exposed communication
    double first_s = 0;
    printf("strong scaling: %d sequences per step\n", config->train.global_batch);
    printf("%6s %6s %10s %11s %11s %11s %9s %12s %10s\n", "ranks", "micro", "step", "memory",
           "exposed", "tokens/s", "speed-up", "run", "MiB/rank");
    for (int n = 1; n <= MAX_TABLE_RANKS; n *= 2) {
        Plan plan;
        Cost cost;
        Config own = *config;
        if (!fit_ranks(&own, n)) {
            printf("%6d ranks and more need a train.global_batch above %d\n", n,
                   config->train.global_batch);
            break;
        }
        TRY(make_plan(&plan, &own, n, request));
        plan.process = process_bytes; // as it was before the rates were measured
        TRY(cost_make(&cost, &plan, &own, rates, request->efficiency));
        first_s = n == 1 ? cost.run_s : first_s;
        print_row(&plan, &cost, &own, first_s > 0 ? first_s : 1);
        if (n_dominated == 0 && 2 * cost.exposed_s > cost.step_s)
            n_dominated = n;
    }
    if (n_dominated > 0)
        printf("communication dominates from %d ranks on: more than half of a step is exposed\n",
               n_dominated);
    else
        printf("communication stays below half of a step\n");
    return OK;
}

// Weak scaling: every rank keeps the work that it has on --ranks, so the global batch grows.
static Status print_weak_table(const Config *config, const Rates *rates, const PlanRequest *request)
{
    const TrainConfig *train = &config->train;
    const int n_ranks = (int)request->n_ranks;
    const int micro_batches = train->global_batch / train->micro_batch / n_ranks;
    const int groups = (train->sum_groups + n_ranks - 1) / n_ranks;
    double first_rate = 0;
    printf("weak scaling: %d sequences per rank and step\n", micro_batches * train->micro_batch);
    printf("%6s %9s %10s %11s %11s %11s %11s\n", "ranks", "batch", "step", "messages", "exposed",
           "tokens/s", "efficiency");
    for (int n = 1; n <= MAX_TABLE_RANKS; n *= 2) {
        Plan plan;
        Cost cost;
        char step[TIME_BYTES];
        Config own = *config;
        own.train.global_batch = micro_batches * train->micro_batch * n;
        own.train.sum_groups = (groups < micro_batches ? groups : micro_batches) * n;
        TRY(make_plan(&plan, &own, n, request));
        TRY(cost_make(&cost, &plan, &own, rates, request->efficiency));
        const double tokens_per_s =
            (double)own.train.global_batch * config->data.seq_len / cost.step_s;
        first_rate = n == 1 ? tokens_per_s : first_rate;
        printf("%6d %9d %10s %9.0f %% %9.0f %% %11.4g %9.0f %%\n", n, own.train.global_batch,
               print_time(step, cost.step_s), 100 * cost.messages_s / cost.step_s,
               100 * cost.exposed_s / cost.step_s, tokens_per_s,
               100 * tokens_per_s / (n * first_rate));
    }
    return OK;
}

// What the model of time leaves out, printed with every plan.
static void print_assumptions(const Config *config)
{
    const TrainConfig *train = &config->train;
    const char *dtype = train->reduce_dtype == REDUCE_BFLOAT16 ? "bfloat16" : "float32";
    const char *gathered = train->compute == COMPUTE_BFLOAT16 ? "bfloat16" : "float32";
    const char *overlap = train->overlap ? "they overlap forward and backward of a micro-batch, "
                                           "except those of the embedding"
                                         : "nothing overlaps (train.overlap)";
    printf(
        "assumed\n"
        "  messages   a reduce-scatter of all gradients in %s for each round of micro-batches\n"
        "             (%d groups, one per rank and round), and an all-gather of all parameters\n"
        "             in %s per step, between the copies (train.ranks_per_copy): of each\n"
        "             (N-1)/N, in buckets of a layer of at most 16 MiB, N-1 messages per bucket;\n"
        "             %s\n"
        "  rates      every rank has them, also where several share a machine\n"
        "  not counted: loading, checkpoints, export\n",
        dtype, train->sum_groups, gathered, overlap);
}

// ---- the command -------------------------------------------------------------------------------

// Only on rank 0, as it writes to stdout.
static Status print_all(const Plan *plan, const Config *config, const Rates *rates,
                        PlanRequest *request)
{
    Cost cost;
    if (request->step_seconds > 0)
        TRY(cost_efficiency(&request->efficiency, plan, config, rates, request->step_seconds));
    TRY(cost_make(&cost, plan, config, rates, request->efficiency));
    plan_print(stdout, plan, config);
    TRY(print_fit(plan, config, request));
    print_rates(rates, request, config->train.compute);
    print_times(&cost, config);
    TRY(print_table(config, rates, request, plan->process));
    TRY(print_weak_table(config, rates, request));
    print_assumptions(config);
    return OK;
}

// Collective.
static Status make_and_print(const Config *config, PlanRequest *request)
{
    const Comm *comm = request->comm;
    Plan plan;
    const ComputeType compute = config->train.compute;
    Rates rates = {.product_flops = given_flops(request, compute),
                   .memory_bytes = request->memory_gb_s * 1e9,
                   .network_bytes = request->bandwidth_gb_s * 1e9,
                   .latency_s = request->latency_us * 1e-6};
    const Status status = make_plan(&plan, config, (int)request->n_ranks, request);
    TRY(agreement_shapes(comm, &plan.original, &plan.shape, status));
    TRY(rates_measure(&rates, comm, compute));
    return comm_agree(comm, comm->rank == 0 ? print_all(&plan, config, &rates, request) : OK);
}

// A rate of the other number format would be ignored. Where the rate of bfloat16 is given, the plan
// is for machines that have it, whatever this one is. Collective.
static Status check_compute(const PlanRequest *request, ComputeType compute)
{
    const bool is_bf16 = compute == COMPUTE_BFLOAT16;
    if (is_bf16 && request->gflops > 0)
        return fail(BAD_INPUT, "plan: --gflops is a rate of float32, train.compute is bfloat16; "
                               "give --gflops-bf16");
    if (!is_bf16 && request->gflops_bf16 > 0)
        return fail(BAD_INPUT, "plan: --gflops-bf16 is a rate of bfloat16, train.compute is "
                               "float32; add --train.compute=bfloat16");
    if (is_bf16 && request->gflops_bf16 > 0 && !request->compute.emulate)
        return OK;
    const Status status =
        compute_check(request->comm, compute, request->compute.emulate, "train.compute");
    return status != BAD_INPUT ? status
                               : fail(BAD_INPUT,
                                      "%s; or --gflops-bf16 with the rate of the "
                                      "machines that the run is for",
                                      fail_text());
}

// Collective. Threads are set for the measurement; the plan itself has them as an argument.
static Status load_and_plan(PlanRequest *request, const char *path, char *const *overrides,
                            int n_overrides)
{
    const Comm *comm = request->comm;
    Config config = {0};
    Status status = config_load(&config, path, overrides, n_overrides);
    TRY_GOTO(release_config, agreement_config(comm, &config, status));
    TRY_GOTO(release_config,
             watch_ranks(comm, NULL, config.run.stall_minutes, "run.stall_minutes"));
    TRY_GOTO(release_config, blas_check(comm));
    TRY_GOTO(release_config, check_compute(request, config.train.compute));
    omp_set_num_threads((int)request->n_threads);
    status = make_and_print(&config, request);
release_config: // also on a rank that has read it where another could not
    config_release(&config);
    return status;
}

// Options of one kind of plan would be ignored by the other.
static Status check_serving(const PlanRequest *request)
{
    const struct {
        const char *name;
        bool is_given, is_for_serving;
    } options[] = {
        {"context", request->context > 0, true},
        {"batch", request->batch > 0, true},
        {"ranks", request->n_ranks > 0, false},
        {"ranks-per-host", request->ranks_per_host > 0, false},
        {"step-seconds", request->step_seconds > 0, false},
        {"bandwidth", request->bandwidth_gb_s > 0, false},
        {"latency", request->latency_us > 0, false},
        {"compute", request->compute.type != COMPUTE_FLOAT32, true},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (options[i].is_given && options[i].is_for_serving != request->serve)
            return fail(BAD_INPUT, "plan: --%s is for a plan %s --serve", options[i].name,
                        request->serve ? "without" : "with");
    if (request->serve && request->gflops_bf16 > 0 && request->compute.type == COMPUTE_FLOAT32)
        return fail(BAD_INPUT, "plan: --gflops-bf16 is for a plan --serve with --compute bfloat16");
    return OK;
}

static Status run_serving(const PlanRequest *request, const CommandLine *line)
{
    const ComputeType compute = request->compute.type;
    const PlanServeRequest serving = {.context = request->context,
                                      .batch = request->batch > 0 ? request->batch : 1,
                                      .n_threads = request->n_threads,
                                      .memory_gib = request->memory_gib,
                                      .efficiency = request->efficiency,
                                      .compute = request->compute.type,
                                      .emulate = request->compute.emulate,
                                      .rates = {.product_flops = given_flops(request, compute),
                                                .attention_flops = request->gflops * 1e9,
                                                .read_bytes = request->memory_gb_s * 1e9}};
    return plan_serve(&serving, line);
}

static const PlanRequest defaults = {.efficiency = 0.7};

static const Option options[] = {
    {"ranks", OPTION_INT, offsetof(PlanRequest, n_ranks), "N", "plan for this many ranks", 1,
     1 << 20, .derived = "the ranks that plan runs on"},
    {"threads", OPTION_INT, offsetof(PlanRequest, n_threads), "M", "threads of each rank", 1, 1024,
     .derived = "OMP_NUM_THREADS or the cores"},
    {"ranks-per-host", OPTION_INT, offsetof(PlanRequest, ranks_per_host), "K",
     "ranks of a host, which share one copy of the parameters", 1, 1 << 20,
     .derived = "all of --ranks"},
    {"memory", OPTION_POSITIVE, offsetof(PlanRequest, memory_gib), "GIB",
     "memory that a rank may use", .max = 1 << 20, .derived = "all of this machine's"},
    {"efficiency", OPTION_POSITIVE, offsetof(PlanRequest, efficiency), "SHARE",
     "share of the rate of products that those of the model reach", .max = 1},
    {"step-seconds", OPTION_POSITIVE, offsetof(PlanRequest, step_seconds), "S",
     "measured time of a step on --ranks without communication; replaces --efficiency",
     .max = 1000000, .derived = "from the rate of products"},
    {"gflops", OPTION_POSITIVE, offsetof(PlanRequest, gflops), "RATE",
     "sgemm rate of a rank in GFLOP/s", .max = 1000000000, .derived = "measured"},
    {"gflops-bf16", OPTION_POSITIVE, offsetof(PlanRequest, gflops_bf16), "RATE",
     "rate of a rank's products in bfloat16, for train.compute=bfloat16 or --compute; with it the "
     "plan is for machines that have them, made on any",
     .max = 1000000000, .derived = "measured"},
    {"memory-bandwidth", OPTION_POSITIVE, offsetof(PlanRequest, memory_gb_s), "GB/S",
     "memory bandwidth of a rank", .max = 1000000, .derived = "measured"},
    {"bandwidth", OPTION_POSITIVE, offsetof(PlanRequest, bandwidth_gb_s), "GB/S",
     "network bandwidth of a rank", .max = 1000000, .derived = "measured under mpirun"},
    {"latency", OPTION_POSITIVE, offsetof(PlanRequest, latency_us), "US",
     "latency of a message in microseconds", .max = 1000000, .derived = "measured under mpirun"},
    {"compute", OPTION_CHOICE, offsetof(PlanRequest, compute.type), "TYPE",
     "with --serve: number format of the operands of matrix products", .choices = compute_names},
    EMULATE_OPTION(PlanRequest, compute.emulate),
    {"serve", OPTION_FLAG, offsetof(PlanRequest, serve), NULL,
     "plan decoding with a model, or with what CONFIG makes, instead of training"},
    {"context", OPTION_INT, offsetof(PlanRequest, context), "S",
     "with --serve: tokens of a sequence in the cache", 1, 1 << 28,
     .derived = "the model's longest"},
    {"batch", OPTION_INT, offsetof(PlanRequest, batch), "B",
     "with --serve: sequences decoded together", 1, 1 << 16, .derived = "1"},
};

// Options that are 0 stand for what this start of the program has.
static Status run(const CommandLine *line)
{
    PlanRequest request = *(const PlanRequest *)line->options;
    request.comm = line->comm;
    TRY(check_serving(&request));
    if (request.n_threads == 0)
        request.n_threads = omp_get_max_threads();
    if (request.serve)
        return run_serving(&request, line);
    if (request.n_ranks == 0)
        request.n_ranks = line->comm->size;
    return load_and_plan(&request, line->words[0], line->overrides, line->n_overrides);
}

const Command cmd_plan = {
    .name = "plan",
    .summary = "say what a run, or serving a model, needs and how long it takes",
    .description = "Prints the memory of each rank, whether it fits, the time of a step and of the "
                   "run, and how both scale with ranks. Rates that are not given are measured on "
                   "the ranks that plan runs on, in about two seconds. With --serve, CONFIG may be "
                   "a model's directory: weights, KV cache in every width, the largest batch and "
                   "tokens per second, of the original attention and of several latent widths.",
    COMMAND_OPTIONS(PlanRequest, options, defaults),
    .words = {"CONFIG", 1, 1, "*.yaml"},
    .is_on_ranks = true,
    .takes_overrides = true,
    .examples = (const char *const[]){"mha2mla plan --serve runs/demo-dkv8/model --context 256 "
                                      "--batch 16 --memory 1",
                                      "mha2mla plan configs/demo.yaml --ranks 4 --memory 4 "
                                      "--gflops 80 --bandwidth 12.5 --latency 2",
                                      NULL},
    .run = run,
};
