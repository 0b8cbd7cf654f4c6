// Conversions that use statistics of activations, from calibration to the refitted outputs, against
// what PyTorch computes in double (golden/conversion/make_conversion_golden.py), on any number of
// ranks.
#include "tests/support/testing.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_model.h"
#include "tests/support/testing_ranks.h"
#include "tests/support/testing_statistics.h"

#include "base/file.h"
#include "eval/forward_pass.h"
#include "model/convert/pair_select.h"
#include "train/calibrate_statistics.h"
#include "train/prepare.h"
#include "train/refit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Comm comm;
static CommGroup group;

typedef struct Case {
    const char *name, *model;
    StatisticsPool pool;
} Case;

static const Case cases[] = {
    {"gqa", "gqa_tied", POOL_LAYER},           {"gqa_pools", "gqa_tied", POOL_KV_HEAD},
    {"mha", "mha_untied", POOL_LAYER},         {"mqa", "mqa_head_dim", POOL_HEAD},
    {"gqa_all_pairs", "gqa_tied", POOL_LAYER}, {"smollm3", "smollm3", POOL_LAYER},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

// A golden case with its model in memory and its statistics in a file.
typedef struct Setup {
    SafeTensors file;
    Model original;
    int32_t *tokens;
    StatisticsRequest request;
    int P, d_kv;
    char scores[PATH_BYTES];
} Setup;

static void start(Setup *s, const Case *of)
{
    char path[128];
    int32_t how[4];
    int n, T;
    snprintf(path, sizeof path, "conversion/%s.safetensors", of->name);
    assert_ok(safetensors_open(&s->file, testing_path(GOLDEN_DIR, path)));
    assert_ok(safetensors_read_i32(&s->file, "case", (int[]){4}, 1, how));
    s->P = how[0];
    s->d_kv = how[1];
    s->original = golden_load_model(of->model);
    s->tokens = testing_read_tokens(&s->file, "tokens", &n, &T);
    s->request = (StatisticsRequest){s->tokens, n, how[2], T, of->pool};
    assert_int_equal(statistics_n_pools(&s->original.shape, of->pool), how[3]);
    testing_write_statistics(s->scores, &comm, &s->original, &s->request);
}

static void end(Setup *s)
{
    free(s->tokens);
    model_release(&s->original);
    safetensors_close(&s->file);
}

// Chooses pairs by kl, or slots, and converts by the recipe.
static void fill(Replica *mla, const Setup *s, const ConvertRecipe *recipe)
{
    const ModelShape *shape = &mla->model.shape;
    const WeightSource original = testing_model_weights(&s->original);
    int32_t *choice = malloc((size_t)model_n_pairs(shape) * sizeof *choice);
    assert_non_null(choice);
    assert_ok(prepare_chosen_pairs(choice, shape, ROPE_KL, recipe, s->scores));
    assert_ok(prepare_layers(mla, &original, recipe, choice, s->scores));
    free(choice);
}

// Converts by the recipe; the pairs are the golden ones of that name.
static void convert(Replica *mla, const Setup *s, const ConvertRecipe *recipe, const char *pairs)
{
    ModelShape shape;
    assert_ok(shape_convert(&shape, &s->original.shape, s->P, s->d_kv, SVD_JOINT));
    assert_ok(replica_create(mla, &comm, &group, &shape));
    const int dims[] = {shape.n_layers, shape.n_kv_heads, s->P};
    const size_t bytes = (size_t)(dims[0] * dims[1] * dims[2]) * sizeof(int32_t);
    int32_t *expected = malloc(bytes);
    assert_non_null(expected);
    assert_ok(safetensors_read_i32(&s->file, pairs, dims, 3, expected));
    fill(mla, s, recipe);
    assert_memory_equal(mla->model.rope_pairs, expected, bytes);
    free(expected);
}

// Logits of the probe against the golden ones.
static void check_logits(const Model *model, const Setup *s, const char *name, double tolerance)
{
    const int T = s->request.T, V = model->shape.vocab_size;
    int32_t *probe = malloc((size_t)(2 * T) * sizeof *probe);
    float *got = malloc((size_t)(2 * T) * (size_t)V * sizeof *got);
    float *expected = malloc((size_t)(2 * T) * (size_t)V * sizeof *expected);
    ForwardPass pass;
    assert_true(probe != NULL && got != NULL && expected != NULL);
    assert_ok(safetensors_read_i32(&s->file, "probe", (int[]){2, T}, 2, probe));
    assert_ok(safetensors_read_f32(&s->file, name, (int[]){2, T, V}, 3, expected));
    assert_ok(forward_pass_start(&pass, model, T, COMPUTE_FLOAT32));
    for (int i = 0; i < 2; i++) {
        transformer_forward(&pass.ws, model, probe + (int64_t)i * T, NULL);
        transformer_logits(&pass.ws, model, 0, T, got + (int64_t)i * T * V);
    }
    testing_assert_close(name, got, expected, 2 * (int64_t)T * V, tolerance);
    forward_pass_release(&pass);
    free(probe);
    free(got);
    free(expected);
}

static void test_whitened_is_pytorchs(void **state)
{
    (void)state;
    const ConvertRecipe recipe = {METHOD_WHITENED, .1};
    for (int i = 0; i < N_CASES; i++) {
        Setup s;
        Replica mla;
        start(&s, &cases[i]);
        convert(&mla, &s, &recipe, "plain");
        check_logits(&mla.model, &s, "whitened", 2e-5);
        replica_release(&mla);
        end(&s);
    }
}

static void test_closed_is_pytorchs(void **state)
{
    (void)state;
    const ConvertRecipe recipe = {METHOD_CLOSED, .1};
    for (int i = 0; i < N_CASES; i++) {
        Setup s;
        Replica mla;
        start(&s, &cases[i]);
        convert(&mla, &s, &recipe, "absorbed");
        check_logits(&mla.model, &s, "closed", 1e-3); // seen 2.1e-4
        assert_ok(refit_attention(&mla, &s.original, s.scores, REFIT_OUTPUTS));
        check_logits(&mla.model, &s, "ridge", 1e-3);
        replica_release(&mla);
        end(&s);
    }
}

// Parameters of a conversion by `closed` on these ranks.
static float *closed_parameters(const Comm *of, CommGroup *of_group, const Setup *s)
{
    const ConvertRecipe recipe = {METHOD_CLOSED, .1};
    ModelShape shape;
    Replica mla;
    assert_ok(shape_convert(&shape, &s->original.shape, s->P, s->d_kv, SVD_JOINT));
    assert_ok(replica_create(&mla, of, of_group, &shape));
    fill(&mla, s, &recipe);
    assert_ok(refit_attention(&mla, &s->original, s->scores, REFIT_ALL));
    const size_t bytes = (size_t)mla.model.params.count * sizeof(float);
    float *values = malloc(bytes);
    assert_non_null(values);
    memcpy(values, mla.model.params.flat, bytes);
    replica_release(&mla);
    return values;
}

static void test_closed_has_the_same_bits_on_any_number_of_ranks(void **state)
{
    (void)state;
    Setup s;
    Comm one = comm;
    CommGroup alone = {0};
    ModelShape shape;
    one.rank = 0;
    one.size = 1;
    start(&s, &cases[0]);
    assert_ok(shape_convert(&shape, &s.original.shape, s.P, s.d_kv, SVD_JOINT));
    float *together = closed_parameters(&comm, &group, &s);
    float *expected = closed_parameters(&one, &alone, &s);
    assert_memory_equal(together, expected, (size_t)params_count(&shape) * sizeof(float));
    free(together);
    free(expected);
    end(&s);
}

// Sets rows of a head to zero in queries and output: attention that does nothing.
static void kill_head(Model *model, int h)
{
    const ModelShape *s = &model->shape;
    const int64_t E = s->head_dim, D = s->d_model, Q = s->n_heads * E;
    for (int l = 0; l < s->n_layers; l++) {
        memset(model->params.layers[l].q + h * E * D, 0, (size_t)(E * D) * sizeof(float));
        for (int64_t d = 0; d < D; d++)
            memset(model->params.layers[l].o + d * Q + h * E, 0, (size_t)E * sizeof(float));
    }
}

// Converts by closed and runs the result: nothing may fail or be NaN.
static void check_runs(Setup *s)
{
    const int T = s->request.T, V = s->original.shape.vocab_size;
    const ConvertRecipe recipe = {METHOD_CLOSED, .1};
    float *logits = malloc((size_t)T * (size_t)V * sizeof *logits);
    ForwardPass pass;
    ModelShape shape;
    Replica mla;
    assert_non_null(logits);
    testing_write_statistics(s->scores, &comm, &s->original, &s->request);
    assert_ok(shape_convert(&shape, &s->original.shape, s->P, s->d_kv, SVD_JOINT));
    assert_ok(replica_create(&mla, &comm, &group, &shape));
    fill(&mla, s, &recipe);
    assert_ok(refit_attention(&mla, &s->original, s->scores, REFIT_ALL));
    assert_ok(forward_pass_start(&pass, &mla.model, T, COMPUTE_FLOAT32));
    transformer_forward(&pass.ws, &mla.model, s->tokens, NULL);
    transformer_logits(&pass.ws, &mla.model, 0, T, logits);
    for (int64_t i = 0; i < (int64_t)T * V; i++)
        assert_true(logits[i] - logits[i] == 0); // finite
    forward_pass_release(&pass);
    replica_release(&mla);
    free(logits);
}

static void test_dead_heads(void **state)
{
    (void)state;
    Setup s;
    start(&s, &cases[0]);
    kill_head(&s.original, 0);
    check_runs(&s);
    for (int h = 0; h < s.original.shape.n_heads; h++)
        kill_head(&s.original, h);
    check_runs(&s);
    end(&s);
}

// Fewer tokens than dims: second moments are not of full rank.
static void test_one_window(void **state)
{
    (void)state;
    Setup s;
    start(&s, &cases[0]);
    s.request.n_windows = s.request.n_attention = 1;
    s.request.T = 3;
    check_runs(&s);
    s.request.T = 1; // no attention to speak of
    check_runs(&s);
    end(&s);
}

static void test_tiny_and_huge_activations(void **state)
{
    (void)state;
    const float factors[] = {1e-12f, 1e12f};
    for (int i = 0; i < 2; i++) {
        Setup s;
        start(&s, &cases[0]);
        for (int l = 0; l < s.original.shape.n_layers; l++)
            for (int d = 0; d < s.original.shape.d_model; d++)
                s.original.params.layers[l].attn_norm[d] *= factors[i];
        check_runs(&s);
        end(&s);
    }
}

static void test_a_file_of_norms_alone_is_refused(void **state)
{
    (void)state;
    const ConvertRecipe recipe = {METHOD_WHITENED, .1};
    Setup s;
    ModelShape shape;
    Replica mla;
    RopeScores norms;
    start(&s, &cases[0]);
    const WeightSource original = testing_model_weights(&s.original);
    assert_ok(rope_scores_create(&norms, &s.original.shape));
    *norms.n_tokens = 1;
    if (comm.rank == 0)
        assert_ok(rope_scores_write(&norms, s.scores));
    assert_ok(comm_agree(&comm, OK));
    assert_ok(shape_convert(&shape, &s.original.shape, s.P, s.d_kv, SVD_JOINT));
    assert_ok(replica_create(&mla, &comm, &group, &shape));
    assert_fails(BAD_INPUT, "no statistics of activations",
                 prepare_layers(&mla, &original, &recipe, mla.model.rope_pairs, s.scores));
    replica_release(&mla);
    rope_scores_release(&norms);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whitened_is_pytorchs),
        cmocka_unit_test(test_closed_is_pytorchs),
        cmocka_unit_test(test_closed_has_the_same_bits_on_any_number_of_ranks),
        cmocka_unit_test(test_dead_heads),
        cmocka_unit_test(test_one_window),
        cmocka_unit_test(test_tiny_and_huge_activations),
        cmocka_unit_test(test_a_file_of_norms_alone_is_refused),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    int n_failed = comm_group_start(&group, &comm, 0) != OK;
    n_failed += cmocka_run_group_tests(tests, NULL, NULL);
    comm_group_end(&group);
    return testing_stop_ranks(&comm, n_failed);
}
