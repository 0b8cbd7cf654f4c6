// The keys are those of the code's arguments: in v1.0 of IndexForNope and SvdInit
// (src/mha2mla/monkey_patch.py), in v1.2 of partial_rope_mask() and svd_low_rank_approx()
// (src/mha2mla/patch_func.py).
#include "model/paper/paper_config.h"

#include "model/hf/hf_config_keys.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_DIMS = 1 << 20 }; // of a key's value; shape_convert() knows the bounds

typedef enum Strategy {
    KEEP_ALL,
    KEEP_HIGH,
    KEEP_UNIFORM,
    KEEP_ENDS, // high and low
    KEEP_BY_RANKS,
    KEEP_LOW,
    N_STRATEGIES,
} Strategy;

// The names of v1.2, and those that v1.0 has for its numbers; 3 has none there.
static const char *const strategies[N_STRATEGIES] = {
    [KEEP_ALL] = "full-rope", [KEEP_HIGH] = "high",       [KEEP_UNIFORM] = "uniform",
    [KEEP_ENDS] = "high-low", [KEEP_BY_RANKS] = "2-norm", [KEEP_LOW] = "low",
};

const char *paper_version(PaperLayout layout)
{
    return layout == PAPER_V10 ? "v1.0" : "v1.2";
}

// A number of dims or pairs.
static Status get_count(int *out, const json_t *object, const char *where, const char *key,
                        int least)
{
    int64_t value;
    TRY(json_get_int(&value, object, where, key, least, MOST_DIMS));
    *out = (int)value;
    return OK;
}

static Status read_strategy(Strategy *out, const json_t *object, const char *where)
{
    static const char key[] = "partial_rope_version";
    const json_t *value = json_object_get(object, key);
    const char *name = json_string_value(value);
    for (int i = 0; i < N_STRATEGIES; i++) {
        if (name != NULL ? strcmp(name, strategies[i]) == 0
                         : json_is_integer(value) && json_integer_value(value) == i) {
            *out = (Strategy)i;
            return OK;
        }
    }
    return hf_config_refuse(object, where, key, "high, low, uniform or 2-norm, or 0 to 5");
}

// ---- dims that are kept ------------------------------------------------------------------------

static void keep_range(bool *is_kept, const ModelShape *s, int first, int end)
{
    const int half = s->head_dim / 2;
    for (int p = first; p < end; p++)
        is_kept[p] = is_kept[half + p] = true;
}

// Bounds by the dims of a head: nothing outside of it is kept.
static void keep_ends(bool *is_kept, const ModelShape *s, int n_high, int n_low)
{
    const int half = s->head_dim / 2;
    keep_range(is_kept, s, 0, n_high < half ? n_high : half);
    keep_range(is_kept, s, n_low < half ? half - n_low : 0, half);
}

static void keep_steps(bool *is_kept, const ModelShape *s, int start, int step)
{
    for (int dim = start; dim < s->head_dim; dim += step)
        is_kept[dim] = true;
}

// From the dims [E] to pairs [P]; *n is their number. BAD_INPUT if only one of a pair is kept.
static Status find_pairs(int32_t *pairs, int *n, const bool *is_kept, const ModelShape *s,
                         const char *where)
{
    const int half = s->head_dim / 2;
    *n = 0;
    for (int p = 0; p < half; p++) {
        if (is_kept[p] != is_kept[half + p])
            return fail(BAD_INPUT, "%s: of RoPE pair %d only one dim is kept; not supported", where,
                        p);
        if (is_kept[p])
            pairs[(*n)++] = p;
    }
    return OK;
}

// Marks the dims that the strategy keeps. In v1.2 one key says for all strategies how many pairs;
// in v1.0 each has keys of its own, and n_pairs is 0.
static Status keep(bool *is_kept, Strategy strategy, const PaperConfig *paper, const json_t *object,
                   const char *where, int n_pairs)
{
    const ModelShape *s = &paper->shape; // the original's
    const bool is_v10 = paper->layout == PAPER_V10;
    int n_high = n_pairs, n_low = n_pairs, start, step;
    if (is_v10 && (strategy == KEEP_HIGH || strategy == KEEP_ENDS))
        TRY(get_count(&n_high, object, where, "top_k_rope_dim", 0));
    if (is_v10 && (strategy == KEEP_LOW || strategy == KEEP_ENDS))
        TRY(get_count(&n_low, object, where, "last_k_rope_dim", 0));
    if (strategy == KEEP_UNIFORM) {
        TRY(get_count(&start, object, where, "uniform_start_point", 0));
        step = n_pairs > 0 ? s->head_dim / (2 * n_pairs) : 0;
        if (is_v10)
            TRY(get_count(&step, object, where, "uniform_step", 1));
        if (step > 0)
            keep_steps(is_kept, s, start, step);
        return OK;
    }
    keep_ends(is_kept, s,
              strategy == KEEP_ALL   ? s->head_dim / 2
              : strategy == KEEP_LOW ? 0
                                     : n_high,
              strategy == KEEP_LOW || strategy == KEEP_ENDS ? n_low : 0);
    return OK;
}

// The pairs of a strategy that is a formula, and their number.
static Status read_pairs(PaperConfig *paper, int *n_pairs, Strategy strategy, const json_t *object,
                         const char *where)
{
    const ModelShape *s = &paper->shape;
    const int stated = *n_pairs;
    bool *is_kept = calloc((size_t)s->head_dim, sizeof *is_kept);
    paper->pairs = malloc((size_t)s->head_dim * sizeof *paper->pairs);
    Status status = OK;
    if (is_kept == NULL || paper->pairs == NULL) {
        status = fail(FAILED, "no memory for RoPE pairs");
        goto release;
    }
    TRY_GOTO(release, keep(is_kept, strategy, paper, object, where, stated));
    TRY_GOTO(release, find_pairs(paper->pairs, n_pairs, is_kept, s, where));
    if (paper->layout == PAPER_V12 && *n_pairs != stated)
        status = fail(BAD_INPUT, "%s: 'rope_dim_for_mla' is %d, but '%s' keeps %d dims of %d",
                      where, 2 * stated, strategies[strategy], 2 * *n_pairs, s->head_dim);
release:
    free(is_kept);
    return status;
}

// ---- layouts -----------------------------------------------------------------------------------

static Status copy_path(PaperConfig *paper, const json_t *object, const char *where)
{
    const char *path = "";
    if (json_has(object, "qk_tensor_path"))
        TRY(json_get_line(&path, object, where, "qk_tensor_path"));
    if (snprintf(paper->ranks_path, sizeof paper->ranks_path, "%s", path) >= PATH_BYTES)
        return fail(BAD_INPUT, "%s: 'qk_tensor_path' is longer than %d bytes", where, PATH_BYTES);
    return OK;
}

typedef struct Widths {
    int n_pairs, low_rank;
    SvdKind svd;
} Widths;

static Status read_v12(Widths *out, PaperConfig *paper, const json_t *config, const char *path)
{
    static const char *const flags[] = {"is_baseline", "is_gqa2mha2mla"};
    const json_t *block = json_object_get(config, "mha2mla");
    char where[PATH_BYTES + 16];
    const char *svd;
    int n_dims;
    snprintf(where, sizeof where, "%s: mha2mla", path);
    for (int i = 0; i < 2; i++) {
        bool is_set;
        TRY(json_get_bool_or(&is_set, block, where, flags[i], false));
        if (is_set)
            return hf_config_refuse(block, where, flags[i], "false");
    }
    TRY(get_count(&n_dims, block, where, "rope_dim_for_mla", 2));
    if (n_dims % 2 != 0)
        return hf_config_refuse(block, where, "rope_dim_for_mla", "an even number");
    TRY(get_count(&out->low_rank, block, where, "low_rank", 1));
    TRY(json_get_string(&svd, block, where, "svd_init_method"));
    if (!shape_svd_parse(&out->svd, svd))
        return hf_config_refuse(block, where, "svd_init_method", "\"joint\" or \"split\"");
    out->n_pairs = n_dims / 2;
    Strategy strategy;
    TRY(read_strategy(&strategy, block, where));
    paper->strategy = strategies[strategy];
    paper->is_by_ranks = strategy == KEEP_BY_RANKS;
    TRY(copy_path(paper, block, where));
    return paper->is_by_ranks ? OK : read_pairs(paper, &out->n_pairs, strategy, block, where);
}

// Of its methods 2 and 3 keep keys and values apart; the others differ in how they begin.
static Status read_v10(Widths *out, PaperConfig *paper, const json_t *config, const char *path)
{
    const json_t *rope = json_object_get(config, "RoPE"), *svd = json_object_get(config, "SVD");
    char of_rope[PATH_BYTES + 16], of_svd[PATH_BYTES + 16];
    int64_t method;
    snprintf(of_rope, sizeof of_rope, "%s: RoPE", path);
    snprintf(of_svd, sizeof of_svd, "%s: SVD", path);
    TRY(json_get_int(&method, svd, of_svd, "method", 1, 7));
    TRY(get_count(&out->low_rank, svd, of_svd, "low_rank", 1));
    out->svd = method == 2 || method == 3 ? SVD_SPLIT : SVD_JOINT;
    Strategy strategy;
    TRY(read_strategy(&strategy, rope, of_rope));
    paper->strategy = strategies[strategy];
    paper->is_by_ranks = strategy == KEEP_BY_RANKS;
    TRY(copy_path(paper, rope, of_rope));
    out->n_pairs = 0;
    return paper->is_by_ranks ? get_count(&out->n_pairs, rope, of_rope, "top_k_rope_dim", 1)
                              : read_pairs(paper, &out->n_pairs, strategy, rope, of_rope);
}

static Status read_layout(PaperConfig *paper, const json_t *config, const char *path)
{
    Widths widths;
    const ModelShape original = paper->shape;
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (type == NULL || strcmp(type, "llama") != 0)
        return hf_config_refuse(config, path, "model_type", "\"llama\"");
    if (original.attention_bias != BIAS_NONE)
        return hf_config_refuse(config, path, "attention_bias", "a model without it");
    TRY(paper->layout == PAPER_V12 ? read_v12(&widths, paper, config, path)
                                   : read_v10(&widths, paper, config, path));
    // Split SVD has a latent of low_rank for each of both, ours is both together.
    const int d_kv = widths.svd == SVD_SPLIT ? 2 * widths.low_rank : widths.low_rank;
    const Status status = shape_convert(&paper->shape, &original, widths.n_pairs, d_kv, widths.svd);
    return status == OK ? OK : fail_within(status, "%s", path);
}

Status paper_config_read(PaperConfig *out, const char *dir)
{
    PaperConfig paper = {.pairs = NULL};
    char path[PATH_BYTES];
    json_t *config;
    Status status = OK;
    TRY(hf_config_read_original(&config, &paper.shape, dir));
    TRY_GOTO(release, file_join(path, dir, "config.json"));
    paper.layout = hf_config_layout(config);
    if (paper.layout == PAPER_NONE) {
        status =
            fail(BAD_INPUT,
                 "%s: has neither an object 'mha2mla' as MHA2MLA v1.2 writes it nor 'RoPE' and "
                 "'SVD' of v1.0; it needs no import",
                 path);
        goto release;
    }
    TRY_GOTO(release, read_layout(&paper, config, path));
    json_decref(config);
    *out = paper;
    return OK;
release:
    paper_config_release(&paper);
    json_decref(config);
    return status;
}

void paper_config_release(PaperConfig *paper)
{
    free(paper->pairs);
    paper->pairs = NULL;
}
