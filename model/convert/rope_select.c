// Which pairs of each KV head keep their rotation (MHA2MLA, arXiv 2502.14837, section 3.1): by
// frequency, the same for all heads (high, low, uniform), or by score, each head its own (2-norm).
// Scores are checked before use: they come from files.
#include "model/convert/rope_select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const strategy_names[] = {"high",   "low", "uniform",
                                             "2-norm", "kl",  "shared-uniform"};
enum { N_STRATEGIES = sizeof strategy_names / sizeof strategy_names[0] };

Status rope_strategy_parse(RopeStrategy *out, const char *name)
{
    for (int i = 0; i < N_STRATEGIES; i++) {
        if (strcmp(name, strategy_names[i]) == 0) {
            *out = (RopeStrategy)i;
            return OK;
        }
    }
    return fail(BAD_INPUT,
                "RoPE strategy is '%.64s', allowed are high, low, uniform, 2-norm, kl and "
                "shared-uniform",
                name);
}

const char *rope_strategy_name(RopeStrategy strategy)
{
    CHECK((int)strategy >= 0 && (int)strategy < N_STRATEGIES, "strategy %d", (int)strategy);
    return strategy_names[strategy];
}

// Scores may come from a file, so bad ones are the user's fault, not ours; those of another model
// are refused by rope_scores_read().
Status rope_select_check(const RopeScores *scores, const ModelShape *s)
{
    if (scores == NULL)
        return fail(BAD_INPUT, "2-norm needs RoPE scores; make them with 'mha2mla score'");
    CHECK(scores->shape.n_layers == s->n_layers && scores->shape.n_heads == s->n_heads &&
              scores->shape.n_kv_heads == s->n_kv_heads && scores->shape.head_dim == s->head_dim,
          "scores of another model");
    if (!(isfinite(*scores->n_tokens) && *scores->n_tokens >= 1))
        return fail(BAD_INPUT, "RoPE scores are of %g tokens; make them again with more data",
                    *scores->n_tokens);
    // The mean of float norms is below 1e39. So no product of means below is infinite or NaN.
    const double n = *scores->n_tokens;
    for (int64_t i = 0; i < rope_scores_count(s) - 1; i++)
        if (!(scores->block[i] >= 0 && scores->block[i] <= 1e39 * n))
            return fail(BAD_INPUT,
                        "RoPE score %lld is %g, not a sum of %g norms; check the model's weights "
                        "and make the scores again",
                        (long long)i, scores->block[i], n);
    return OK;
}

// score[p] of one KV head: the sum over its query heads of E|q_p| E|k_p|.
void rope_select_scores(double *score, const RopeScores *scores, int layer, int kv_head)
{
    const ModelShape *s = &scores->shape;
    const int half = s->head_dim / 2, G = s->n_heads / s->n_kv_heads;
    const double *k = scores->k_norm + ((int64_t)layer * s->n_kv_heads + kv_head) * half;
    const double *q = scores->q_norm + ((int64_t)layer * s->n_heads + (int64_t)kv_head * G) * half;
    const double n = *scores->n_tokens;
    for (int p = 0; p < half; p++) {
        // Means rather than sums, so that the bound of rope_select_check() holds for any number of
        // tokens.
        double q_mean = 0;
        for (int g = 0; g < G; g++)
            q_mean += q[(int64_t)g * half + p] / n;
        score[p] = q_mean * (k[p] / n);
    }
}

// Indices of the P largest scores, ascending; of equal scores the lower index goes first. A pair is
// kept if fewer than P pairs go before it: quadratic in E/2, which is 32 to 128, and without a sort
// whose ties would need care.
static void keep_largest(int32_t *pairs, int P, const double *score, int half)
{
    int kept = 0;
    for (int p = 0; p < half; p++) {
        int before = 0;
        for (int other = 0; other < half; other++)
            before += score[other] > score[p] || (score[other] == score[p] && other < p);
        if (before < P)
            pairs[kept++] = p;
    }
    CHECK(kept == P, "%d of %d pairs kept", kept, P);
}

static Status select_2norm(int32_t *pairs, const ModelShape *s, int P, const RopeScores *scores)
{
    TRY(rope_select_check(scores, s));
    double *score = malloc((size_t)(s->head_dim / 2) * sizeof *score);
    if (score == NULL)
        return fail(FAILED, "no memory for %d RoPE scores", s->head_dim / 2);
    for (int layer = 0; layer < s->n_layers; layer++) {
        for (int head = 0; head < s->n_kv_heads; head++) {
            rope_select_scores(score, scores, layer, head);
            keep_largest(pairs, P, score, s->head_dim / 2);
            pairs += P;
        }
    }
    free(score);
    return OK;
}

Status rope_select(int32_t *pairs, const ModelShape *s, int P, RopeStrategy strategy,
                   const RopeScores *scores)
{
    const int half = s->head_dim / 2;
    if (P < 1 || P > half)
        return fail(BAD_INPUT, "rope_pairs is %d, allowed are 1 to %d (head width %d)", P, half,
                    s->head_dim);
    CHECK(strategy != ROPE_KL, "pairs by norms alone");
    if (strategy == ROPE_SHARED_UNIFORM)
        return fail(BAD_INPUT, "RoPE strategy is shared-uniform, which is of the form shared; the "
                               "form is per-head");
    if (strategy == ROPE_2NORM)
        return select_2norm(pairs, s, P, scores);
    // Pair 0 turns fastest, pair E/2 - 1 slowest: high frequencies are the first P.
    for (int64_t row = 0; row < (int64_t)s->n_layers * s->n_kv_heads; row++)
        for (int i = 0; i < P; i++)
            pairs[row * P + i] = (int32_t)(strategy == ROPE_HIGH  ? i
                                           : strategy == ROPE_LOW ? half - P + i
                                                                  : (int64_t)i * half / P);
    return OK;
}
