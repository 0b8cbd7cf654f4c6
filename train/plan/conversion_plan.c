// Only leading terms are counted: products with a second moment or with all of a window's tokens.
// What is done element by element beside them is a part of the efficiency.
#include "train/plan/conversion_plan.h"

#include "base/file.h"
#include "base/intmath.h"
#include "eval/forward_pass.h"
#include "model/convert/convert.h"
#include "model/convert/refit/query_fit.h"
#include "model/convert/slot_mix.h"
#include "model/convert/statistics_file.h"
#include "train/calibrate_scores.h"
#include "train/calibrate_statistics.h"
#include "train/distill/distill.h"
#include "train/refit.h"

PlannedStatistics plan_statistics(const ModelShape *original, const Config *config)
{
    const ConvertConfig *convert = &config->model.convert;
    PlannedStatistics planned = {.n_pools = statistics_n_pools(original, convert->pool),
                                 .n_windows = convert->windows,
                                 .n_attention =
                                     min_int(convert->attention_windows, convert->windows),
                                 .T = min_int(convert->window_len, config->data.seq_len)};
    StatisticsFile file;
    if (convert->scores == NULL || !file_exists(convert->scores) ||
        statistics_file_open(&file, original, convert->scores) != OK)
        return planned;
    planned = (PlannedStatistics){file.info.n_pools, file.info.n_windows, file.info.n_attention,
                                  file.info.seq_len};
    statistics_file_close(&file);
    return planned;
}

// ---- memory ------------------------------------------------------------------------------------

// Of one layer, with the buffers of the file that they go to or come from.
static int64_t layer_statistics_bytes(const ModelShape *original, int n_pools)
{
    Arena arena = arena_start("statistics");
    layer_statistics_measure(&arena, original, n_pools);
    return arena.peak_bytes + statistics_file_bytes(original, n_pools);
}

// What LAPACK and BLAS in double precision page in and pack operands into, and HDF5 keeps for the
// scores' file. Seen: 6 MB more than before the conversion.
enum { REFIT_LIBRARY_BYTES = 5 << 20 };

// Methods other than the paper's: collecting the statistics, a layer's of them while it is
// converted, losses between which a stride is chosen, and the refit of attention.
static void measure_method(Plan *plan, const Config *config, PlannedStatistics of)
{
    const ConvertConfig *convert = &config->model.convert;
    const ModelShape *original = &plan->original;
    if (config_calibrates(config))
        plan->original_pass =
            max_int64(plan->original_pass,
                      statistics_file_bytes(original, of.n_pools) +
                          calibrate_statistics_bytes(original, of.n_windows, of.T, of.n_pools,
                                                     plan->n_ranks, plan->n_threads));
    if (recipe_needs_statistics(&convert->recipe))
        plan->conversion += layer_statistics_bytes(original, of.n_pools);
    if (convert->recipe.mixes)
        plan->conversion = max_int64(
            plan->conversion, calibration_loss_bytes(&plan->shape, of.n_windows, of.T, of.n_pools));
    if (convert->recipe.method != METHOD_CLOSED)
        return;
    plan->original_model = model_bytes(original);
    plan->refit = REFIT_LIBRARY_BYTES + refit_bytes(&plan->shape, of.n_windows, of.T, plan->n_ranks,
                                                    convert->recipe.refit);
}

// One layer's work at a time, in one arena.
void conversion_plan_memory(Plan *plan, const Config *config)
{
    const ConvertRecipe *recipe = &config->model.convert.recipe;
    const PlannedStatistics of = plan_statistics(&plan->original, config);
    Arena arena = arena_start("conversion");
    convert_measure(&arena, &plan->shape, recipe, of.n_pools);
    plan->conversion = arena.peak_bytes;
    if (config_reads_original(config)) {
        plan->original_model = model_bytes(&plan->original);
        plan->original_pass =
            forward_pass_bytes(&plan->original, config->data.seq_len, config->train.compute);
    }
    if (config_needs_statistics(config))
        measure_method(plan, config, of);
    if (config_distills(config)) {
        plan->original_model = model_bytes(&plan->original);
        plan->distill = distill_bytes(&plan->shape, &config->distill, config_distill_len(config),
                                      config->train.compute, plan->n_ranks, plan->n_threads);
    }
}

// ---- work --------------------------------------------------------------------------------------

enum { FLOAT64 = 2 }; // times the work of float32

static double share_of(int n, int n_ranks)
{
    return (n + n_ranks - 1) / n_ranks;
}

// A forward pass of one window through one layer.
static double layer_flops(const ModelShape *s, int T)
{
    const double outside = 6.0 * T * s->d_model * s->vocab_size;
    return (shape_train_flops(s, T) - outside) / 3 / s->n_layers;
}

// Attention weights twice, Gram matrices of features over half of all pairs of tokens, means of
// inputs and their second moments, of which a triangle is computed (statistics_window.c).
static double statistics_flops(const Plan *plan, const PlannedStatistics *of)
{
    const ModelShape *s = &plan->original;
    const double T = of->T, D = s->d_model, E = s->head_dim, S = statistics_features(s);
    const double head = 2 * 2 * T * T * E + T * T * E + S * S * T * T / 2 + T * T * D + T * D * D;
    const double attention = s->n_heads * head + of->n_pools * T * D * D;
    const double projections = 2 * T * D * (shape_dim(s, DIM_Q) + 2.0 * shape_dim(s, DIM_KV));
    const double window = FLOAT64 * T * D * D + projections + layer_flops(s, of->T);
    return s->n_layers *
           (share_of(of->n_attention, plan->n_ranks) * (FLOAT64 * attention + projections) +
            share_of(of->n_windows, plan->n_ranks) * window);
}

// The Gram matrix of the shorter side, its reduction to a tridiagonal one, whose products go at a
// quarter of the rate of larger ones, and the vectors.
static double factorize_flops(double m, double D, double R)
{
    const double side = m < D ? m : D, other = m < D ? D : m;
    return side * side * other + 4 * 4.0 / 3 * side * side * side + 2 * side * side * R +
           2 * FLOAT64 * m * D * R;
}

// Six sweeps of ten steps, each of which multiplies [R, D] with every moment and with a
// preconditioner; the equations of a sweep do so twice more (alternating.c).
static double alternation_flops(const ModelShape *s, int n_pools)
{
    enum { SWEEPS = 6, STEPS = 11, EQUATIONS = 2 };
    const double D = s->d_model, R = shape_dim(s, DIM_LATENT);
    const double n_moments = 2.0 * min_int(n_pools, shape_up_heads(s));
    const double rows = shape_up_heads(s) * (double)(shape_head_nope(s) + s->head_dim);
    const double product = 2 * R * D * D + 2 * R * R * D;
    return FLOAT64 * SWEEPS *
           ((STEPS + EQUATIONS) * n_moments * product + STEPS * product + 2 * 2 * rows * R * D +
            n_moments * D * D + D * D * D / 3);
}

static double layer_conversion_flops(const Plan *plan, const ConvertRecipe *recipe, int n_pools)
{
    const ModelShape *s = &plan->shape;
    const double D = s->d_model, KV = shape_dim(s, DIM_KV), R = shape_dim(s, DIM_LATENT);
    const double rows = 2 * KV - (shape_is_shared(s) ? 0 : shape_dim(s, DIM_K_ROPE));
    double flops = factorize_flops(rows, D, R);
    if (recipe_needs_statistics(recipe))
        flops += FLOAT64 * (D * D * D / 3 + rows * D * D + R * D * D);
    if (recipe->mixes)
        flops += FLOAT64 * 4.0 * s->rope_pairs * s->n_kv_heads * D * D;
    if (recipe->method == METHOD_CLOSED)
        flops += alternation_flops(s, n_pools);
    return flops;
}

// The queries of a rank's heads, both models' attention, sums of products of its outputs, and the
// solution.
static double refit_flops(const Plan *plan, const PlannedStatistics *of, RefitParts parts)
{
    const double Q = shape_dim(&plan->shape, DIM_Q), D = plan->shape.d_model;
    const double window = layer_flops(&plan->original, of->T) + layer_flops(&plan->shape, of->T) +
                          2 * FLOAT64 * 2 * Q * Q * of->T;
    const double queries = parts == REFIT_ALL
                               ? query_fit_flops(&plan->shape, of->n_windows, of->T) *
                                     share_of(plan->shape.n_heads, plan->n_ranks)
                               : 0;
    return plan->shape.n_layers * (queries + share_of(of->n_windows, plan->n_ranks) * window +
                                   FLOAT64 * (Q * Q * Q / 3 + 4 * D * Q * Q) / plan->n_ranks);
}

// Every pair that can be taken and, in about two rounds, every swap is tried on every head by
// solving a system, whose small products go at a quarter of the rate. Each rank does all of it.
static double choice_flops(const ModelShape *s, RopeStrategy rope, bool absorb)
{
    const double half = s->head_dim / 2, unknowns = 2 * half;
    const double slots = shape_is_shared(s) ? (double)s->rope_pairs / s->n_kv_heads : s->rope_pairs;
    const double trial =
        (absorb ? unknowns * unknowns * unknowns / 3 : 0) + 3 * unknowns * unknowns;
    if (rope != ROPE_KL)
        return 0;
    return 4.0 * FLOAT64 * s->n_layers * s->n_heads * (shape_is_shared(s) ? 3 : 1) * 3 * slots *
           half * trial;
}

ConversionWork conversion_plan_work(const Plan *plan, const Config *config)
{
    const ConvertConfig *convert = &config->model.convert;
    const ModelShape *s = &plan->shape;
    const ConvertRecipe *recipe = &convert->recipe;
    const PlannedStatistics of = plan_statistics(&plan->original, config);
    const double layers =
        share_of(s->n_layers, plan->n_ranks) * layer_conversion_flops(plan, recipe, of.n_pools);
    const int strides = recipe->mixes ? slot_mix_max_stride(s, s->rope_pairs) : 1;
    const double losses = share_of(calibration_loss_windows(of.n_windows), plan->n_ranks) *
                          shape_train_flops(s, of.T) / 3;
    ConversionWork work = {.layers = layers};
    if (strides > 1) // the best is made again
        work.layers = (strides + 1) * layers + strides * losses;
    work.layers += choice_flops(s, convert->rope, recipe->method == METHOD_CLOSED);
    if (recipe->method == METHOD_CLOSED)
        work.layers += refit_flops(plan, &of, recipe->refit);
    if (config_calibrates(config) && config_needs_statistics(config))
        work.statistics = statistics_flops(plan, &of);
    return work;
}
