// Statistics of activations: against what PyTorch computes in double from the same models and
// tokens (golden/conversion/make_conversion_golden.py), on any number of ranks, and in their file.
#include "tests/support/testing.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_ranks.h"

#include "model/hf/hf.h"
#include "train/calibrate_statistics.h"
#include "train/stop.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Comm comm;

static const char *const cases[][2] = {
    {"conversion/gqa", "gqa_tied"},
    {"conversion/mha", "mha_untied"},
    {"conversion/mqa", "mqa_head_dim"},
    {"conversion/smollm3", "smollm3"},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

// A golden file with its model and tokens.
typedef struct Case {
    SafeTensors file;
    Model model;
    int32_t *tokens;
    StatisticsRequest request;
} Case;

static void open_case(Case *c, const char *name, const char *model, StatisticsPool pool)
{
    char path[128];
    int32_t how[4];
    snprintf(path, sizeof path, "%s.safetensors", name);
    assert_ok(safetensors_open(&c->file, testing_path(GOLDEN_DIR, path)));
    assert_ok(safetensors_read_i32(&c->file, "case", (int[]){4}, 1, how));
    c->model = golden_load_model(model);
    const TensorInfo *tokens = safetensors_find(&c->file, "tokens");
    assert_non_null(tokens);
    const int n = (int)tokens->dims[0], T = (int)tokens->dims[1];
    c->tokens = malloc((size_t)(n * T) * sizeof *c->tokens);
    assert_non_null(c->tokens);
    assert_ok(safetensors_read_i32(&c->file, "tokens", (int[]){n, T}, 2, c->tokens));
    c->request = (StatisticsRequest){c->tokens, n, how[2], T, pool};
}

static void close_case(Case *c)
{
    free(c->tokens);
    model_release(&c->model);
    safetensors_close(&c->file);
}

// `values` [count] against layer `layer` of the golden tensor.
static void check_layer(const SafeTensors *file, const char *name, int layer, int n_layers,
                        const double *values, int64_t count)
{
    const TensorInfo *tensor = safetensors_find(file, name);
    assert_non_null(tensor);
    int dims[4] = {0};
    for (int i = 0; i < tensor->n_dims; i++)
        dims[i] = (int)tensor->dims[i];
    float *expected = malloc((size_t)(n_layers * count) * sizeof *expected);
    float *got = malloc((size_t)count * sizeof *got);
    assert_non_null(expected);
    assert_non_null(got);
    assert_ok(safetensors_read_f32(file, name, dims, tensor->n_dims, expected));
    for (int64_t i = 0; i < count; i++)
        got[i] = (float)values[i];
    testing_assert_close(name, got, expected + layer * count, count, 5e-6); // seen 1.3e-6
    free(expected);
    free(got);
}

static Status compare_layer(void *context, int layer, const LayerStatistics *of)
{
    const Case *c = context;
    const ModelShape *s = &c->model.shape;
    const int64_t H = s->n_heads, D = s->d_model, E = s->head_dim, S = statistics_features(s);
    const int n = s->n_layers;
    check_layer(&c->file, "covariance", layer, n, of->covariance, D * D);
    check_layer(&c->file, "value", layer, n, of->value, H * D * D);
    check_layer(&c->file, "key", layer, n, of->key, H * D * D);
    check_layer(&c->file, "tau", layer, n, of->tau, H);
    check_layer(&c->file, "query", layer, n, of->query, H * E * E);
    check_layer(&c->file, "gram", layer, n, of->gram, H * S * S);
    return OK;
}

static void test_statistics_are_those_of_pytorch(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        Case c;
        open_case(&c, cases[i][0], cases[i][1], POOL_HEAD);
        assert_ok(calibrate_statistics(&c.request, &comm, &c.model, compare_layer, &c));
        close_case(&c);
    }
}

// All layers' statistics, one after another.
typedef struct Kept {
    const ModelShape *shape;
    double *values;
    int64_t count;
} Kept;

static void keep(Kept *kept, const double *values, int64_t count)
{
    kept->values = realloc(kept->values, (size_t)(kept->count + count) * sizeof(double));
    assert_non_null(kept->values);
    memcpy(kept->values + kept->count, values, (size_t)count * sizeof(double));
    kept->count += count;
}

static Status keep_layer(void *context, int layer, const LayerStatistics *of)
{
    (void)layer;
    Kept *kept = context;
    const ModelShape *s = kept->shape;
    const int64_t H = s->n_heads, E = s->head_dim, S = statistics_features(s),
                  square = (int64_t)s->d_model * s->d_model;
    keep(kept, of->covariance, square);
    keep(kept, of->value, of->n_pools * square);
    keep(kept, of->key, of->n_pools * square);
    keep(kept, of->tau, H);
    keep(kept, of->query, H * E * E);
    keep(kept, of->gram, H * S * S);
    return OK;
}

static void test_the_same_bits_on_any_number_of_ranks(void **state)
{
    (void)state;
    for (int pool = POOL_LAYER; pool <= POOL_HEAD; pool++) {
        Case c;
        Comm one = comm;
        one.rank = 0;
        one.size = 1;
        open_case(&c, cases[0][0], cases[0][1], (StatisticsPool)pool);
        Kept together = {.shape = &c.model.shape}, alone = together;
        assert_ok(calibrate_statistics(&c.request, &comm, &c.model, keep_layer, &together));
        assert_ok(calibrate_statistics(&c.request, &one, &c.model, keep_layer, &alone));
        assert_true(together.count == alone.count);
        assert_memory_equal(together.values, alone.values,
                            (size_t)alone.count * sizeof *alone.values);
        free(together.values);
        free(alone.values);
        close_case(&c);
    }
}

// A pool's matrices are the means of its heads'.
static void test_pools_are_means_of_heads(void **state)
{
    (void)state;
    Case c;
    open_case(&c, cases[0][0], cases[0][1], POOL_HEAD);
    Kept heads = {.shape = &c.model.shape}, layer = heads;
    const int H = c.model.shape.n_heads, D = c.model.shape.d_model;
    assert_ok(calibrate_statistics(&c.request, &comm, &c.model, keep_layer, &heads));
    c.request.pool = POOL_LAYER;
    assert_ok(calibrate_statistics(&c.request, &comm, &c.model, keep_layer, &layer));
    const int64_t square = (int64_t)D * D; // layer 0: covariance, values, keys
    for (int of_keys = 0; of_keys < 2; of_keys++)
        for (int64_t i = 0; i < square; i++) {
            double sum = 0;
            for (int h = 0; h < H; h++)
                sum += heads.values[(1 + of_keys * H + h) * square + i];
            const double mean = layer.values[(1 + of_keys) * square + i];
            assert_true(fabs(sum / H - mean) <= 1e-9 * (1 + fabs(mean)));
        }
    free(heads.values);
    free(layer.values);
    close_case(&c);
}

// Multiplies every weight of a tensor of every layer.
static void scale_norms(Model *model, float factor)
{
    for (int l = 0; l < model->shape.n_layers; l++)
        for (int d = 0; d < model->shape.d_model; d++)
            model->params.layers[l].attn_norm[d] *= factor;
}

static Status check_finite(void *context, int layer, const LayerStatistics *of)
{
    const Model *model = context;
    double trace = 0;
    assert_ok(layer_statistics_check(of, &model->shape, layer));
    for (int64_t d = 0; d < model->shape.d_model; d++)
        trace += of->covariance[d * (model->shape.d_model + 1)];
    assert_true(trace > 0);
    return OK;
}

static void test_tiny_and_huge_inputs(void **state)
{
    (void)state;
    const float factors[] = {1e-15f, 1e15f};
    for (int i = 0; i < 2; i++) {
        Case c;
        open_case(&c, cases[0][0], cases[0][1], POOL_LAYER);
        scale_norms(&c.model, factors[i]);
        assert_ok(calibrate_statistics(&c.request, &comm, &c.model, check_finite, &c.model));
        close_case(&c);
    }
}

static void test_activations_that_overflow_are_refused(void **state)
{
    (void)state;
    Case c;
    open_case(&c, cases[0][0], cases[0][1], POOL_LAYER);
    scale_norms(&c.model, 1e30f);
    const LayerParams *layer = &c.model.params.layers[0];
    for (int64_t i = 0; i < (int64_t)c.model.shape.d_model * c.model.shape.d_model; i++)
        layer->q[i] *= 1e30f;
    assert_fails(BAD_INPUT, "layer 0",
                 calibrate_statistics(&c.request, &comm, &c.model, check_finite, &c.model));
    close_case(&c);
}

static void test_all_ranks_stop_when_one_is_asked_to(void **state)
{
    (void)state;
    Case c;
    stop_install();
    open_case(&c, cases[0][0], cases[0][1], POOL_LAYER);
    if (comm.rank == comm.size - 1)
        raise(SIGUSR1);
    assert_fails(STOPPED, "SIGUSR1",
                 calibrate_statistics(&c.request, &comm, &c.model, check_finite, &c.model));
    close_case(&c);
    stop_install();
}

// What an independent implementation has of a pretrained model.
typedef struct Stories {
    const Model *model;
    bool is_seen;
} Stories;

static double trace(const double *square, int side)
{
    double sum = 0;
    for (int64_t i = 0; i < side; i++)
        sum += square[i * (side + 1)];
    return sum;
}

static void check_value(const char *what, double got, double expected)
{
    if (!(fabs(got / expected - 1) <= 1e-4))
        fail_msg("%s is %.8g, expected %.8g", what, got, expected);
}

static Status check_stories(void *context, int layer, const LayerStatistics *of)
{
    Stories *stories = context;
    const ModelShape *s = &stories->model->shape;
    const int64_t S = statistics_features(s);
    if (layer > 0)
        return fail(FAILED, "enough"); // the first layer is what is known
    check_value("trace of the covariance", trace(of->covariance, s->d_model), 294.139);
    check_value("trace of values", trace(of->value, s->d_model), 70.485);
    check_value("trace of keys", trace(of->key, s->d_model) / of->tau[0], 214.009);
    check_value("tau", of->tau[0], .0219857);
    check_value("trace of queries", trace(of->query, s->head_dim), 1.81591);
    check_value("t0 t0", of->gram[0], 5.148355e-03);
    check_value("t9 t9", of->gram[9 * (S + 1)], 9.635210e-01);
    check_value("f1_0 f1_0", of->gram[16 * (S + 1)], 4.279594e-03);
    stories->is_seen = true;
    return OK;
}

static void test_a_pretrained_model(void **state)
{
    (void)state;
    enum { N = 40, T = 256 };
    const char *dir = testing_asset("models/stories3M");
    int32_t *tokens = malloc(sizeof(int32_t[N][T]));
    SafeTensors file;
    Model model;
    assert_non_null(tokens);
    assert_ok(
        safetensors_open(&file, testing_path(GOLDEN_DIR, "conversion/stories3M.safetensors")));
    assert_ok(safetensors_read_i32(&file, "tokens", (int[]){N, T}, 2, tokens));
    assert_ok(hf_load(&model, dir));
    const StatisticsRequest request = {tokens, N, 12, T, POOL_HEAD};
    Stories stories = {.model = &model};
    assert_fails(FAILED, "enough",
                 calibrate_statistics(&request, &comm, &model, check_stories, &stories));
    assert_true(stories.is_seen);
    model_release(&model);
    safetensors_close(&file);
    free(tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics_are_those_of_pytorch),
        cmocka_unit_test(test_the_same_bits_on_any_number_of_ranks),
        cmocka_unit_test(test_pools_are_means_of_heads),
        cmocka_unit_test(test_tiny_and_huge_inputs),
        cmocka_unit_test(test_activations_that_overflow_are_refused),
        cmocka_unit_test(test_all_ranks_stop_when_one_is_asked_to),
        cmocka_unit_test(test_a_pretrained_model),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
