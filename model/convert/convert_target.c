// Widths are chosen here and checked by shape_convert().
#include "model/convert/convert_target.h"

#include "base/intmath.h"

#include <stdio.h>

const char *const convert_form_names[] = {
    [FORM_PER_HEAD] = "per-head", [FORM_SHARED] = "shared", [FORM_AUTO] = "auto", NULL};

// Numbers per token and layer; shares such as 18.75 % come as binary fractions, which may be just
// below.
static int budget_of(const ModelShape *original, double cache)
{
    return (int)(cache * 2 * shape_dim(original, DIM_KV) + 1e-9);
}

static Status check_share(int numbers, const ModelShape *original, const ConvertTarget *target)
{
    const int all = 2 * shape_dim(original, DIM_KV);
    if (target->cache == 0 || numbers == budget_of(original, target->cache))
        return OK;
    return fail(BAD_INPUT,
                "conversion: the widths make %d of %d numbers per token and layer (%.4g %%), the "
                "cache is %.4g %%; leave one of them out",
                numbers, all, 100.0 * numbers / all, 100 * target->cache);
}

static Status fail_missing(const ModelShape *original, const ConvertTarget *target,
                           const char *widths)
{
    if (target->cache == 0)
        return fail(BAD_INPUT, "conversion: %s are needed, or the share of the cache to keep",
                    widths);
    return fail(BAD_INPUT,
                "conversion: a cache of %.4g %% is %d of %d numbers per token and layer, too few "
                "for %s",
                100 * target->cache, budget_of(original, target->cache),
                2 * shape_dim(original, DIM_KV), widths);
}

static Status per_head_shape(ModelShape *out, const ModelShape *original,
                             const ConvertTarget *target)
{
    const int K = original->n_kv_heads, n_factors = original->qk_norm; // of each
    const int n = budget_of(original, target->cache) / K - n_factors;
    int P = target->rope_pairs, d_kv = target->d_kv;
    if (target->slots > 0 || target->latent > 0 || target->latent_norm)
        return fail(BAD_INPUT, "conversion: slots, latent and latent_norm are of the shared form; "
                               "the form is per-head");
    if (target->cache > 0 && P == 0)
        P = d_kv > 0 ? (n - d_kv) / 2 : max_int(original->head_dim / 16, 1);
    if (target->cache > 0 && d_kv == 0)
        d_kv = n - 2 * P;
    if (P < 1 || d_kv < 1)
        return fail_missing(original, target, "rope_pairs and d_kv");
    // What is left of the budget is less than a number for every KV head.
    if (target->cache > 0 && 2 * P + d_kv != n)
        TRY(check_share(K * (2 * P + d_kv + n_factors), original, target));
    return shape_convert(out, original, P, d_kv, target->svd);
}

// Two fifths of the numbers are rotated. With a half the loss right after conversion may be lower,
// but a wider latent gains more by distillation (docs/conversion.md).
static void choose_shared(int *P, int *R, const ModelShape *original, int n)
{
    const int max_latent = min_int(2 * shape_dim(original, DIM_KV), original->d_model);
    *P = max_int(min_int(n / 5, shape_dim(original, DIM_KV) / 8), 1);
    if (n - 2 * *P > max_latent)
        *P = (n - max_latent + 1) / 2;
    *R = n - 2 * *P;
}

static Status shared_shape(ModelShape *out, const ModelShape *original, const ConvertTarget *target)
{
    const int n = budget_of(original, target->cache);
    int P = target->slots, R = target->latent;
    if (target->rope_pairs > 0 || target->d_kv > 0 || target->svd != SVD_JOINT)
        return fail(BAD_INPUT, "conversion: rope_pairs, d_kv and svd split are of the form "
                               "per-head; the form is shared");
    if (target->cache > 0 && P == 0 && R == 0)
        choose_shared(&P, &R, original, n);
    else if (target->cache > 0 && P == 0)
        P = (n - R) / 2;
    else if (target->cache > 0 && R == 0)
        R = n - 2 * P;
    if (P < 1 || R < 1)
        return fail_missing(original, target, "slots and latent");
    TRY(check_share(2 * P + R, original, target));
    return shape_convert_shared(out, original, P, R, target->latent_norm);
}

Status convert_target_shape(ModelShape *out, const ModelShape *original,
                            const ConvertTarget *target)
{
    return target->form == FORM_SHARED ? shared_shape(out, original, target)
                                       : per_head_shape(out, original, target);
}

void convert_target_describe(char out[TARGET_TEXT_BYTES], const ModelShape *s)
{
    char widths[TARGET_TEXT_BYTES / 2];
    const ModelShape original = shape_original(s);
    const int64_t left = shape_cache_numbers(s), all = shape_cache_numbers(&original);
    if (shape_is_shared(s))
        snprintf(widths, sizeof widths, "shared form: %d slots and a latent of %d%s", s->rope_pairs,
                 s->latent, s->latent_norm ? " with a norm" : "");
    else
        snprintf(widths, sizeof widths, "%d pairs and d_kv %d of every KV head", s->rope_pairs,
                 s->d_kv);
    snprintf(out, TARGET_TEXT_BYTES, "%s, %lld of %lld numbers per token and layer (%.4g %%)",
             widths, (long long)(left / s->n_layers), (long long)(all / s->n_layers),
             100.0 * (double)left / (double)all);
}
