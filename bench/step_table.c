#include "bench/step_table.h"

#include "bench/timing.h"
#include "model/attention/attention_form.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

const char *step_attention_name(const ModelShape *shape)
{
    return !shape_is_mla(shape) ? "mha" : shape_is_shared(shape) ? "shared" : "mla";
}

// Median over the rounds of the double at `offset` in a StepRound.
static double median(const StepRound *rounds, int n_rounds, size_t offset)
{
    double values[STEP_MAX_ROUNDS];
    for (int i = 0; i < n_rounds; i++)
        memcpy(&values[i], (const char *)&rounds[i] + offset, sizeof(double));
    return timing_median(values, n_rounds);
}

static double stage_s(const StepRound *rounds, int n_rounds, StepStage stage)
{
    return median(rounds, n_rounds, offsetof(StepRound, stages_s) + (size_t)stage * sizeof(double));
}

// FLOP per second of one rank's square products, the measure of everything else.
typedef struct SquareRates {
    double sgemm, bf16; // bf16: NaN if it was not measured
} SquareRates;

static SquareRates square_rates(const StepSetting *setting, const StepRound *rounds)
{
    const double size = setting->sgemm_size, flops = 2 * size * size * size;
    const int n = setting->n_rounds;
    const double bf16_s = median(rounds, n, offsetof(StepRound, bf16_s));
    return (SquareRates){flops / median(rounds, n, offsetof(StepRound, sgemm_s)),
                         bf16_s > 0 ? flops / bf16_s : NAN};
}

// The rate of products like the step's.
static double own_rate(const SquareRates *rates)
{
    return isnan(rates->bf16) ? rates->sgemm : rates->bf16;
}

// Forward's FLOP of one part; backward's are twice as many.
static double forward_flops(const ModelShape *s, int T, StepPart part)
{
    double D = s->d_model, Q = shape_dim(s, DIM_Q), query = shape_dim(s, DIM_QUERY),
           L = s->n_layers;
    double tokens = 2.0 * T;
    switch (part) {
    case STEP_INPUT:
        return tokens * L * D *
               (query + (shape_is_mla(s) ? shape_dim(s, DIM_K_ROPE) + shape_dim(s, DIM_LATENT)
                                         : 2 * shape_dim(s, DIM_KV)));
    case STEP_UP:
        return shape_is_mla(s) ? tokens * L * shape_dim(s, DIM_UP_INPUT) *
                                     (shape_dim(s, DIM_K_NOPE) + shape_dim(s, DIM_UP_VALUE))
                               : 0;
    case STEP_ATTENTION:
        return tokens * L * 0.5 * (query + Q) * (T + 1.0);
    case STEP_OUTPUT:
        return tokens * L * Q * D;
    case STEP_FFN:
        return tokens * L * 3 * D * s->d_ffn;
    case STEP_HEAD:
        return tokens * D * s->vocab_size;
    default:
        return 0;
    }
}

typedef struct Row {
    const char *name;
    double flops, seconds;
} Row;

// Rates as shares of the square products'.
static void print_shares(double flops, double seconds, const SquareRates *rates)
{
    printf(" %9.3f", flops / seconds / rates->sgemm);
    if (!isnan(rates->bf16))
        printf(" %9.3f", flops / seconds / rates->bf16);
    putchar('\n');
}

// Columns: GFLOP, seconds, share of the step, rate as a share of sgemm's, then of bfloat16's.
static void print_row(const Row *row, double step_s, const SquareRates *rates)
{
    printf("%-24s %9.2f %9.3f %7.1f%%", row->name, row->flops / 1e9, row->seconds,
           100 * row->seconds / step_s);
    if (row->flops > 0)
        print_shares(row->flops, row->seconds, rates);
    else
        printf(" %9s%s\n", "-", isnan(rates->bf16) ? "" : "         -");
}

static const char *const part_names[N_STEP_PARTS][2] = {
    [STEP_EMBEDDING] = {"embedding", "embedding back"},
    [STEP_NORM] = {"rmsnorm, residual", "rmsnorm back"},
    [STEP_INPUT] = {"q | k | v", "q | k | v back"},
    [STEP_UP] = {"up_k | up_v", "up_k | up_v back"},
    [STEP_ROPE] = {"rope, sorting", "rope, sorting back"},
    [STEP_ATTENTION] = {"attention", "attention back"},
    [STEP_OUTPUT] = {"o", "o back"},
    [STEP_FFN] = {"gate | up, down", "gate | up, down back"},
    [STEP_SWIGLU] = {"swiglu", "swiglu back"},
    [STEP_HEAD] = {"head + loss, both ways", ""},
};

static const char *const stage_names[N_STAGES] = {
    [STAGE_REDUCE] = "reduce",
    [STAGE_CLIP] = "norm for clipping",
    [STAGE_ADAMW] = "AdamW",
    [STAGE_GATHER] = "gather",
};

// The row of a part; false if the shape does not have it.
static bool part_row(Row *row, const StepSetting *setting, const StepRound *rounds, StepPart part,
                     StepDirection direction)
{
    const ModelShape *shape = &setting->shape;
    size_t offset = offsetof(StepRound, parts_s) + (size_t)(2 * part + direction) * sizeof(double);
    double factor = part == STEP_HEAD ? 3 : direction == STEP_BACKWARD ? 2 : 1;
    *row = (Row){
        .name = part_names[part][direction],
        .flops = factor * forward_flops(shape, setting->T, part),
        .seconds = median(rounds, setting->n_rounds, offset),
    };
    if (part == STEP_INPUT && shape_is_mla(shape))
        row->name = direction == STEP_FORWARD ? "q | k_r | down_kv" : "q | k_r | down_kv back";
    const AttentionForm *form = attention_form(shape, setting->compute, setting->T);
    if (part == STEP_ATTENTION && (form == &attention_forms[ATTENTION_MLA_LATENT] ||
                                   form == &attention_forms[ATTENTION_SHARED_LATENT])) {
        // The up-projections are done within, and their FLOP counted as those of expanded keys.
        row->name = direction == STEP_FORWARD ? "up, attention" : "up, attention back";
        row->flops += factor * forward_flops(shape, setting->T, STEP_UP);
    }
    return row->seconds > 0;
}

// Returns the FLOP of all parts. Backward's FLOP are twice forward's: the gradients of the input
// and of the weights. The head is timed both ways at once, hence three times.
static double print_parts(const StepSetting *setting, const StepRound *rounds, double step_s,
                          const SquareRates *rates)
{
    double counted = 0;
    for (int i = 0; i < 2 * N_STEP_PARTS; i++) {
        Row row;
        StepDirection direction = i < N_STEP_PARTS ? STEP_FORWARD : STEP_BACKWARD;
        if (!part_row(&row, setting, rounds, (StepPart)(i % N_STEP_PARTS), direction))
            continue;
        counted += row.flops;
        print_row(&row, step_s, rates);
    }
    return counted;
}

// One rank neither reduces nor gathers.
static void print_stages(const StepSetting *setting, const StepRound *rounds, double step_s,
                         const SquareRates *rates)
{
    for (int stage = 0; stage < N_STAGES; stage++) {
        if (setting->n_ranks == 1 && (stage == STAGE_REDUCE || stage == STAGE_GATHER))
            continue;
        Row row = {stage_names[stage], 0, stage_s(rounds, setting->n_rounds, (StepStage)stage)};
        print_row(&row, step_s, rates);
    }
    if (setting->n_ranks == 1)
        return;
    Row waits = {"waiting for other ranks", 0,
                 median(rounds, setting->n_rounds, offsetof(StepRound, waits_s))};
    print_row(&waits, step_s, rates);
}

// Seconds, tokens per second and GFLOP/s of all ranks, and the rate of a rank as shares of the
// square products'.
static void print_whole(const StepSetting *setting, const char *name, double flops, double seconds,
                        const SquareRates *rates)
{
    printf("%-24s %9.3f s %9.1f tokens/s %9.1f GFLOP/s %7.3f of sgemm", name, seconds,
           setting->n_ranks * setting->T / seconds, setting->n_ranks * flops / seconds / 1e9,
           flops / seconds / rates->sgemm);
    if (!isnan(rates->bf16))
        printf(", %.3f of bf16", flops / seconds / rates->bf16);
    putchar('\n');
}

// The parts must add up to the step's FLOP as model/shape.h counts them: a part that is forgotten
// or counted twice stops the benchmark.
void step_table_print(const StepSetting *setting, const StepRound *rounds)
{
    const int n = setting->n_rounds;
    const SquareRates rates = square_rates(setting, rounds);
    const double GiB = 1 << 30;
    const double flops = shape_train_flops(&setting->shape, setting->T);
    const double step_s = median(rounds, n, offsetof(StepRound, step_s));
    printf("%-24s %9s %9s %8s %9s%s\n", "part", "GFLOP", "s", "of step", "of sgemm",
           isnan(rates.bf16) ? "" : "   of bf16");
    const double counted = print_parts(setting, rounds, step_s, &rates);
    print_stages(setting, rounds, step_s, &rates);
    CHECK(counted > 0.9999 * flops && counted < 1.0001 * flops, "parts have %g FLOP, the step %g",
          counted, flops);
    print_whole(setting, "forward", flops / 3, median(rounds, n, offsetof(StepRound, forward_s)),
                &rates);
    print_whole(setting, "forward + backward", flops,
                median(rounds, n, offsetof(StepRound, passes_s)), &rates);
    print_whole(setting, "step", flops, step_s, &rates);
    printf("sgemm %.1f GFLOP/s, ", setting->n_ranks * rates.sgemm / 1e9);
    if (!isnan(rates.bf16))
        printf("bf16 %.1f GFLOP/s, ", setting->n_ranks * rates.bf16 / 1e9);
    printf("peak %.2f GiB", setting->peak_sum_bytes / GiB);
    if (setting->n_ranks > 1)
        printf(" on all ranks, %.2f on the largest", setting->peak_bytes / GiB);
    printf(", threads ran %.0f%% of the time\n", 100 * setting->core_share);
}

// The columns of bench_all.sh's table, in Markdown. The rate is that of products like the step's.
void step_table_write_row(FILE *file, const StepSetting *setting, const StepRound *rounds)
{
    const int n = setting->n_rounds;
    const double flops = shape_train_flops(&setting->shape, setting->T);
    const double step_s = median(rounds, n, offsetof(StepRound, step_s));
    const SquareRates rates = square_rates(setting, rounds);
    const double rate = own_rate(&rates);
    fprintf(file, "| %s, %d layer%s | %s | %d | %dx%d |", setting->shape_name,
            setting->shape.n_layers, setting->shape.n_layers == 1 ? "" : "s",
            step_attention_name(&setting->shape), setting->T, setting->n_ranks, setting->n_threads);
    fprintf(file, " %.3f | %.3f | %.3f | %.3f | %.3f | %.3f |",
            median(rounds, n, offsetof(StepRound, forward_s)),
            median(rounds, n, offsetof(StepRound, passes_s)), stage_s(rounds, n, STAGE_REDUCE),
            stage_s(rounds, n, STAGE_ADAMW), stage_s(rounds, n, STAGE_GATHER), step_s);
    fprintf(file, " %.1f | %.3f | %.1f | %.2f | %.2f |\n", setting->n_ranks * setting->T / step_s,
            flops / step_s / rate, setting->n_ranks * rate / 1e9,
            setting->peak_sum_bytes / (1 << 30), setting->core_share);
}
