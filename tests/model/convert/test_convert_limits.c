// Conversions at the limits of shapes, weights and statistics: whatever they are, a layer is
// converted to finite numbers.
#include "tests/support/testing.h"
#include "tests/support/testing_model.h"

#include "base/random.h"
#include "model/convert/pair_choice.h"
#include "model/convert/refit/ridge.h"
#include "model/convert/slot_mix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// One layer of width 12 with heads of any number and width.
static ModelShape shape_of(int H, int K, int E)
{
    ModelShape s = testing_tiny_shape;
    s.d_model = 12;
    s.n_heads = H;
    s.n_kv_heads = K;
    s.head_dim = E;
    s.rope_pairs = E / 2;
    return s;
}

// GQA, MHA, MQA; an odd number of pairs, a single pair; heads wider than the model.
static const struct {
    int H, K, E;
} heads[] = {{4, 2, 4}, {3, 3, 6}, {2, 1, 10}, {6, 6, 2}, {2, 2, 14}};

enum { N_HEADS = TESTING_IS_SANITIZED ? 3 : sizeof heads / sizeof heads[0] };

// ---- statistics --------------------------------------------------------------------------------

typedef enum Kind {
    FULL,
    RANK_ONE,
    NOTHING,
    NOTHING_OF_FIRST, // pool, and query head
    NOT_DEFINITE,     // by rounding
    N_KINDS
} Kind;

// square [n, n] = the second moment of n_vectors random ones.
static void fill_square(double *square, int n, int n_vectors, double size, uint64_t seed)
{
    memset(square, 0, (size_t)n * (size_t)n * sizeof *square);
    for (int v = 0; v < n_vectors; v++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                square[i * n + j] += size * random_normal(seed, (uint64_t)(v * n + i)) *
                                     random_normal(seed, (uint64_t)(v * n + j));
}

static void fill_squares(double *squares, int count, int n, Kind kind, double size, uint64_t seed)
{
    for (int c = 0; c < count; c++) {
        double *square = squares + (int64_t)c * n * n;
        const bool is_nothing = kind == NOTHING || (kind == NOTHING_OF_FIRST && c == 0);
        fill_square(square, n, is_nothing ? 0 : kind == FULL ? n + 3 : 1, size, seed + (uint64_t)c);
        for (int i = 0; i < n && kind == NOT_DEFINITE; i++)
            square[i * n + i] *= 1 - 1e-9;
    }
}

static LayerStatistics statistics_of(const ModelShape *s, StatisticsPool pool, Kind kind,
                                     double size)
{
    LayerStatistics of;
    assert_ok(layer_statistics_create(&of, s, statistics_n_pools(s, pool)));
    fill_squares(of.covariance, 1, s->d_model, kind, size, 100);
    fill_squares(of.value, of.n_pools, s->d_model, kind, size, 200);
    fill_squares(of.key, of.n_pools, s->d_model, kind, size, 300);
    fill_squares(of.query, s->n_heads, s->head_dim, kind, size, 400);
    fill_squares(of.gram, s->n_heads, statistics_features(s), kind, size, 500);
    for (int h = 0; h < s->n_heads; h++)
        of.tau[h] = kind == NOTHING || (kind == NOTHING_OF_FIRST && h == 0) ? 0 : size;
    return of;
}

// ---- a conversion ------------------------------------------------------------------------------

static void check_finite(const Model *mla, const char *what)
{
    for (int64_t i = 0; i < mla->params.count; i++)
        if (!isfinite(mla->params.flat[i]))
            fail_msg("%s: parameter %lld is %g", what, (long long)i, mla->params.flat[i]);
}

// Pairs of every KV head by kl, or slots: of mixtures, or of the first KV heads alone, so that the
// last have none.
static void choose(int32_t *choice, Model *mla, const ConvertRecipe *recipe,
                   const LayerStatistics *statistics)
{
    const ModelShape *s = &mla->shape;
    const int G = s->n_heads / s->n_kv_heads, S = statistics_features(s);
    PairChoice pairs;
    if (recipe->mixes)
        slot_mix_uniform(choice, s->rope_pairs, 1);
    else if (shape_is_shared(s))
        for (int i = 0; i < s->rope_pairs; i++)
            choice[i] = i;
    else {
        assert_ok(pair_choice_start(&pairs, s->head_dim / 2));
        for (int j = 0; j < s->n_kv_heads; j++)
            pair_choice(mla->rope_pairs + j * s->rope_pairs, &pairs,
                        statistics->gram + (int64_t)j * G * S * S, G, s->rope_pairs,
                        recipe->method == METHOD_CLOSED);
        pair_choice_end(&pairs);
    }
}

static void check_conversion(const Model *original, const ModelShape *shape,
                             const ConvertRecipe *recipe, LayerStatistics *statistics)
{
    const WeightSource source = testing_model_weights(original);
    int32_t choice[128];
    char what[160];
    Model mla;
    assert_ok(model_create(&mla, shape));
    assert_true(model_n_pairs(shape) <= 128);
    choose(choice, &mla, recipe, statistics);
    snprintf(what, sizeof what, "%s, %d heads, %d KV heads of %d, %d pairs, %s, latent %d",
             convert_method_names[recipe->method], shape->n_heads, shape->n_kv_heads,
             shape->head_dim, shape->rope_pairs, shape_is_shared(shape) ? "shared" : "per head",
             shape_dim(shape, DIM_LATENT));
    assert_ok(convert_outside_layers(&mla, &source));
    if (convert_layer(&mla, &source, 0, recipe, shape_is_shared(shape) ? choice : NULL,
                      recipe_needs_statistics(recipe) ? statistics : NULL) != OK)
        fail_msg("%s: %s", what, fail_text());
    check_finite(&mla, what);
    model_release(&mla);
}

// Least and most widths of both forms, by all methods.
static void check_all(const Model *original, StatisticsPool pool, Kind kind, double size)
{
    const ModelShape *s = &original->shape;
    const int half = s->head_dim / 2, KE = shape_dim(s, DIM_KV);
    const int most = 2 * KE < s->d_model ? 2 * KE : s->d_model;
    for (int i = 0; i < 2 * 2 * 3 * 3; i++) {
        const bool all_pairs = i % 2, is_wide = i / 2 % 2;
        const int form = i / 4 % 3; // per head, shared, mixed
        const ConvertMethod method = (ConvertMethod)(i / 12);
        const ConvertRecipe recipe = {method, method == METHOD_CLOSED ? .1 : 0, form == 2};
        ModelShape shape;
        const int P = !all_pairs ? 1 : form == 1 ? s->n_kv_heads * half : half;
        const Status status =
            form == 0 ? shape_convert(&shape, s, P, is_wide ? most / s->n_kv_heads : 1, SVD_JOINT)
                      : shape_convert_shared(&shape, s, P, is_wide ? most : 1, true);
        if (status != OK)
            continue; // too wide with all pairs
        LayerStatistics statistics = statistics_of(s, pool, kind, size);
        check_conversion(original, &shape, &recipe, &statistics);
        layer_statistics_release(&statistics);
    }
}

static Model random_model(int i)
{
    const ModelShape shape = shape_of(heads[i].H, heads[i].K, heads[i].E);
    Model model;
    assert_ok(model_create(&model, &shape));
    model_init_random(&model, .3, 7);
    return model;
}

static void test_statistics_of_any_kind(void **state)
{
    (void)state;
    for (int i = 0; i < N_HEADS; i++) {
        Model original = random_model(i);
        for (int kind = 0; kind < N_KINDS; kind++)
            for (int pool = POOL_LAYER; pool <= POOL_HEAD; pool++)
                check_all(&original, (StatisticsPool)pool, (Kind)kind, 1);
        model_release(&original);
    }
}

static void test_statistics_of_any_size(void **state)
{
    (void)state;
    static const double sizes[] = {1e-60, 1e60}; // of activations of 1e-30 and 1e30
    for (int i = 0; i < N_HEADS; i++) {
        Model original = random_model(i);
        for (int size = 0; size < 2; size++)
            for (int kind = FULL; kind <= RANK_ONE; kind++)
                check_all(&original, POOL_LAYER, (Kind)kind, sizes[size]);
        model_release(&original);
    }
}

static void clear(float *weights, int64_t count)
{
    memset(weights, 0, (size_t)count * sizeof *weights);
}

// Queries, keys, values, outputs, and all of them.
static void test_weights_of_zero(void **state)
{
    (void)state;
    for (int i = 0; i < N_HEADS; i++)
        for (int which = 1; which < 16; which = which < 8 ? 2 * which : 15) {
            Model original = random_model(i);
            const ModelShape *s = &original.shape;
            LayerParams *layer = &original.params.layers[0];
            const int64_t D = s->d_model, Q = shape_dim(s, DIM_Q), KV = shape_dim(s, DIM_KV);
            if (which & 1)
                clear(layer->q, Q * D);
            if (which & 2)
                clear(layer->q + Q * D, KV * D);
            if (which & 4)
                clear(layer->q + (Q + KV) * D, KV * D);
            if (which & 8)
                clear(layer->o, D * Q);
            check_all(&original, POOL_LAYER, FULL, 1);
            check_all(&original, POOL_KV_HEAD, NOTHING, 1);
            model_release(&original);
            if (which == 15)
                break;
        }
}

// No sum of squares: errors are negative, and alike for several pairs.
static void test_choice_of_pairs_ends(void **state)
{
    (void)state;
    enum { HALF = 4, S = 3 * HALF };
    double gram[S * S] = {0};
    int32_t kept[HALF];
    PairChoice pairs;
    gram[2 * S + 3] = gram[3 * S + 2] = -1;
    assert_ok(pair_choice_start(&pairs, HALF));
    for (int absorb = 0; absorb < 2; absorb++) {
        assert_true(pair_choice(kept, &pairs, gram, 1, 1, absorb) == -2);
        assert_int_equal(kept[0], 0);
    }
    pair_choice_end(&pairs);
}

static void test_refits_of_any_size(void **state)
{
    (void)state;
    enum { D = 5, Q = 4 };
    static const double sizes[] = {0, 1e-300, 1e-60, 1, 1e60, 1e300};
    for (int i = 0; i < 6; i++)
        for (int n_vectors = 1; n_vectors < 6; n_vectors += 4) {
            double gram[Q * Q], cross[Q * Q];
            float o[D * Q];
            fill_square(gram, Q, n_vectors, sizes[i], 1);
            memcpy(cross, gram, sizeof cross);
            for (int k = 0; k < D * Q; k++)
                o[k] = (float)random_normal(3, (uint64_t)k);
            assert_ok(ridge_refit(o, gram, cross, D, Q));
            // Nothing has changed, so nothing is to be mended.
            for (int k = 0; k < D * Q; k++)
                assert_true(fabs(o[k] - random_normal(3, (uint64_t)k)) < 1e-5);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics_of_any_kind),
        cmocka_unit_test(test_statistics_of_any_size),
        cmocka_unit_test(test_weights_of_zero),
        cmocka_unit_test(test_choice_of_pairs_ends),
        cmocka_unit_test(test_refits_of_any_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
