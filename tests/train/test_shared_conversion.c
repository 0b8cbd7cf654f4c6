// Conversion to the shared form, from statistics to the refitted outputs, against what PyTorch
// computes in double (golden/conversion/shared_reference.py), and of a pretrained model against
// losses that were found by another implementation.
#include "tests/support/testing.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_model.h"
#include "tests/support/testing_ranks.h"
#include "tests/support/testing_statistics.h"

#include "eval/forward_pass.h"
#include "model/convert/pair_choice.h"
#include "model/convert/slots.h"
#include "model/convert/statistics_file.h"
#include "model/hf/hf.h"
#include "train/calibrate_statistics.h"
#include "train/prepare.h"
#include "train/refit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Comm comm;
static CommGroup group;
static const ConvertRecipe closed = {METHOD_CLOSED, .1};

// A model with its statistics in a file.
typedef struct Setup {
    SafeTensors file;
    Model original;
    int32_t *tokens;
    StatisticsRequest request;
    char scores[PATH_BYTES];
} Setup;

static void start(Setup *s, const char *golden, Model original, int n_attention,
                  StatisticsPool pool)
{
    char path[128];
    int n, T;
    snprintf(path, sizeof path, "conversion/%s.safetensors", golden);
    assert_ok(safetensors_open(&s->file, testing_path(GOLDEN_DIR, path)));
    s->original = original;
    s->tokens = testing_read_tokens(&s->file, "tokens", &n, &T);
    s->request = (StatisticsRequest){s->tokens, n, n_attention, T, pool};
    testing_write_statistics(s->scores, &comm, &s->original, &s->request);
}

static void end(Setup *s)
{
    free(s->tokens);
    model_release(&s->original);
    safetensors_close(&s->file);
}

// Chooses slots [L, P], freed by the caller, and converts; without the refit of outputs.
static int32_t *convert_by(Replica *mla, const Setup *s, RopeStrategy strategy, int slots,
                           int latent, bool latent_norm, const ConvertRecipe *recipe)
{
    ModelShape shape;
    const WeightSource original = testing_model_weights(&s->original);
    assert_ok(shape_convert_shared(&shape, &s->original.shape, slots, latent, latent_norm));
    assert_ok(replica_create(mla, &comm, &group, &shape));
    int32_t *choice = malloc((size_t)model_n_pairs(&shape) * sizeof *choice);
    assert_non_null(choice);
    assert_ok(prepare_chosen_pairs(choice, &shape, strategy, recipe, s->scores));
    assert_ok(prepare_layers(mla, &original, recipe, choice, s->scores));
    return choice;
}

static int32_t *convert(Replica *mla, const Setup *s, int slots, int latent, bool latent_norm,
                        const ConvertRecipe *recipe)
{
    return convert_by(mla, s, ROPE_KL, slots, latent, latent_norm, recipe);
}

// ---- the models of the golden files ------------------------------------------------------------

typedef struct Case {
    const char *name, *model;
    StatisticsPool pool;
} Case;

static const Case cases[] = {{"gqa_shared", "gqa_tied", POOL_HEAD},
                             {"mha_shared", "mha_untied", POOL_LAYER},
                             {"mqa_shared", "mqa_head_dim", POOL_LAYER},
                             {"smollm3_shared", "smollm3", POOL_LAYER}};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static void start_case(Setup *s, const Case *of)
{
    start(s, of->name, golden_load_model(of->model), 4, of->pool);
}

static void read_case(int how[4], const Setup *s)
{
    assert_ok(safetensors_read_i32(&s->file, "case", (int[]){4}, 1, how));
    assert_int_equal(how[2], s->request.n_attention);
    assert_int_equal(how[3], statistics_n_pools(&s->original.shape, s->request.pool));
}

static void check_pairs(const Model *model, const Setup *s)
{
    const ModelShape *shape = &model->shape;
    const size_t bytes = (size_t)model_n_pairs(shape) * sizeof(int32_t);
    int32_t *expected = malloc(bytes);
    assert_non_null(expected);
    assert_ok(safetensors_read_i32(&s->file, "pairs", (int[]){shape->n_layers, shape->rope_pairs},
                                   2, expected));
    assert_memory_equal(model->rope_pairs, expected, bytes);
    free(expected);
}

static void run_model(float *logits, const Model *model, const int32_t *tokens, int n, int T)
{
    ForwardPass pass;
    assert_ok(forward_pass_start(&pass, model, T, COMPUTE_FLOAT32));
    for (int i = 0; i < n; i++) {
        transformer_forward(&pass.ws, model, tokens + (int64_t)i * T, NULL);
        transformer_logits(&pass.ws, model, 0, T,
                           logits + (int64_t)i * T * model->shape.vocab_size);
    }
    forward_pass_release(&pass);
}

// Logits of the probe against the golden ones.
static void check_logits(const Model *model, Setup *s, const char *name, double tolerance)
{
    int n, T;
    int32_t *probe = testing_read_tokens(&s->file, "probe", &n, &T);
    const int64_t count = (int64_t)n * T * model->shape.vocab_size;
    float *got = malloc((size_t)count * sizeof *got);
    float *expected = malloc((size_t)count * sizeof *expected);
    assert_true(got != NULL && expected != NULL);
    assert_ok(
        safetensors_read_f32(&s->file, name, (int[]){n, T, model->shape.vocab_size}, 3, expected));
    run_model(got, model, probe, n, T);
    testing_assert_close(name, got, expected, count, tolerance);
    free(probe);
    free(got);
    free(expected);
}

static void test_closed_is_pytorchs(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        Setup s;
        Replica mla;
        int how[4];
        start_case(&s, &cases[i]);
        read_case(how, &s);
        free(convert(&mla, &s, how[0], how[1], false, &closed));
        check_pairs(&mla.model, &s);
        check_logits(&mla.model, &s, "closed", 1e-3);
        assert_ok(refit_attention(&mla, &s.original, s.scores, REFIT_OUTPUTS));
        check_logits(&mla.model, &s, "ridge", 1e-3);
        replica_release(&mla);
        end(&s);
    }
}

// ---- the form ----------------------------------------------------------------------------------

// Models with biases, on tokens of another's file.
static const Case biased[] = {{"gqa_shared", "qwen2", POOL_HEAD},
                              {"gqa_shared", "llama_bias", POOL_LAYER}};

// The first window's logits of a converted model against the original's.
static void assert_is_original(const char *what, const Replica *mla, const Setup *s,
                               double tolerance)
{
    const int T = s->request.T;
    const int64_t count = (int64_t)T * s->original.shape.vocab_size;
    float *got = malloc((size_t)count * sizeof *got);
    float *expected = malloc((size_t)count * sizeof *expected);
    assert_true(got != NULL && expected != NULL);
    run_model(got, &mla->model, s->tokens, 1, T);
    run_model(expected, &s->original, s->tokens, 1, T);
    testing_assert_close(what, got, expected, count, tolerance);
    free(got);
    free(expected);
}

// All pairs of all KV heads and a latent of full rank: the original in another form, by every
// method.
static void test_full_rank_is_the_original(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES + 2; i++)
        for (int method = METHOD_PAPER; method <= METHOD_CLOSED; method++) {
            Setup s;
            Replica mla;
            const ConvertRecipe recipe = {(ConvertMethod)method, 1};
            const Case *of = i < N_CASES ? &cases[i] : &biased[i - N_CASES];
            start_case(&s, of);
            const ModelShape *shape = &s.original.shape;
            const int KE = shape_dim(shape, DIM_KV), D = shape->d_model;
            free(convert(&mla, &s, KE / 2, KE < D ? KE : D, false, &recipe));
            assert_is_original(of->model, &mla, &s, 1e-4);
            if (i >= N_CASES && method == METHOD_CLOSED) {
                assert_ok(refit_attention(&mla, &s.original, s.scores, REFIT_ALL));
                assert_is_original("refitted", &mla, &s, 1e-4); // seen 4.6e-7
            }
            replica_release(&mla);
            end(&s);
        }
}

static void test_frequencies_alike_for_all_heads_are_refused(void **state)
{
    (void)state;
    Setup s;
    ModelShape shape;
    int32_t choice[64];
    start_case(&s, &cases[0]);
    assert_ok(shape_convert_shared(&shape, &s.original.shape, 2, 3, false));
    assert_fails(BAD_INPUT, "the shared form takes 2-norm, kl or",
                 prepare_chosen_pairs(choice, &shape, ROPE_UNIFORM, &closed, s.scores));
    end(&s);
}

// Mixtures with all frequencies and all components would be the original; with one component of all
// KV heads this is so where there is one KV head.
static void test_mixed_slots_of_one_kv_head_are_the_original(void **state)
{
    (void)state;
    const Case *const of[] = {&cases[2], &biased[1]};
    const ConvertRecipe recipe = {METHOD_WHITENED, 0, .mixes = true};
    for (int i = 0; i < 2; i++) {
        Setup s;
        Replica mla;
        start_case(&s, of[i]);
        const ModelShape *shape = &s.original.shape;
        const int KE = shape_dim(shape, DIM_KV), D = shape->d_model;
        assert_int_equal(shape->n_kv_heads, 1);
        free(convert_by(&mla, &s, ROPE_SHARED_UNIFORM, KE / 2, KE < D ? KE : D, false, &recipe));
        assert_is_original("mixed", &mla, &s, 1e-4);
        replica_release(&mla);
        end(&s);
    }
}

// Weights are the root mean square of the latent: of the closed form 1, else the down-projection's
// size in the norm that it was found in, here that of the weights.
static void test_a_norm_of_the_latent_starts_from_its_size(void **state)
{
    (void)state;
    for (int method = METHOD_PAPER; method <= METHOD_CLOSED; method++) {
        Setup s;
        Replica mla;
        const ConvertRecipe recipe = {(ConvertMethod)method, .1};
        start_case(&s, &cases[0]);
        free(convert(&mla, &s, 3, 7, true, &recipe));
        const LayerParams *layer = &mla.model.params.layers[0];
        double sum = 0;
        for (int i = 0; i < 7 * s.original.shape.d_model; i++)
            sum += (double)layer->down_kv[i] * layer->down_kv[i];
        for (int i = 0; i < 7; i++) {
            assert_true(layer->latent_norm[i] > 0 &&
                        layer->latent_norm[i] == layer->latent_norm[0]);
            if (method == METHOD_CLOSED)
                assert_true(layer->latent_norm[i] == 1);
            else if (method == METHOD_PAPER)
                assert_true(fabs(layer->latent_norm[i] / sqrt(sum / 7) - 1) < 1e-5);
        }
        replica_release(&mla);
        end(&s);
    }
}

// Attention that does nothing, one window of three tokens: nothing may fail or be NaN.
static void test_statistics_that_say_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        Setup s;
        Replica mla;
        start_case(&s, &cases[0]);
        const ModelShape *shape = &s.original.shape;
        const int64_t count = (int64_t)s.request.T * shape->vocab_size;
        float *logits = malloc((size_t)count * sizeof *logits);
        assert_non_null(logits);
        if (i == 0)
            for (int l = 0; l < shape->n_layers; l++)
                memset(s.original.params.layers[l].o, 0,
                       (size_t)shape_dim(shape, DIM_Q) * (size_t)shape->d_model * sizeof(float));
        else
            s.request.n_windows = s.request.n_attention = 1, s.request.T = 3;
        testing_write_statistics(s.scores, &comm, &s.original, &s.request);
        free(convert(&mla, &s, 3, 7, false, &closed));
        assert_ok(refit_attention(&mla, &s.original, s.scores, REFIT_ALL));
        run_model(logits, &mla.model, s.tokens, 1, s.request.T);
        for (int64_t k = 0; k < (int64_t)s.request.T * shape->vocab_size; k++)
            assert_true(isfinite(logits[k]));
        free(logits);
        replica_release(&mla);
        end(&s);
    }
}

// ---- a pretrained model ------------------------------------------------------------------------

enum { N_LAYERS = 6, N_VALID = 24 };

typedef struct Level {
    int slots, latent;
    double pairs_error;             // of layer 0
    double closed_loss, ridge_loss; // of 24 windows
} Level;

static const Level levels[] = {{4, 8, 2.55021, 4.5646, 3.9473},
                               {6, 12, 1.83283, 3.8724, 3.2894},
                               {8, 24, 1.26402, 2.9494, 2.4423}};

// Of KV heads by layer, four slots a layer; closed by -1.
static const int four_slots[N_LAYERS][2][4] = {{{9, -1}, {2, 5, 9, -1}},  {{3, 9, -1}, {6, 10, -1}},
                                               {{9, -1}, {3, 4, 9, -1}},  {{5, 9, -1}, {5, 10, -1}},
                                               {{4, 9, -1}, {9, 10, -1}}, {{6, 9, -1}, {4, 9, -1}}};

static double loss_of(const Model *model, const int32_t *valid, int n, int T)
{
    ForwardPass pass;
    double sum = 0;
    assert_ok(forward_pass_start(&pass, model, T - 1, COMPUTE_FLOAT32));
    for (int i = 0; i < n; i++) {
        transformer_forward(&pass.ws, model, valid + (int64_t)i * T, NULL);
        sum += transformer_loss(&pass.ws, model, valid + (int64_t)i * T + 1, 0, NULL);
    }
    forward_pass_release(&pass);
    return sum / (n * (T - 1));
}

// Better is as good: the other implementation started from another first latent.
static void check_loss(const char *what, double got, double found, double tolerance)
{
    if (!(got <= found + tolerance && got >= found - .1))
        fail_msg("%s is %.6g, found were %.6g", what, got, found);
}

static void check_four_slots(const int32_t *choice, const ModelShape *s)
{
    for (int l = 0; l < N_LAYERS; l++)
        for (int j = 0; j < s->n_kv_heads; j++) {
            int32_t kept[16];
            const int *expected = four_slots[l][j];
            const int n = slots_of_kv_head(kept, choice + l * 4, 4, j, s);
            for (int i = 0; i < n; i++)
                assert_int_equal(kept[i], expected[i]);
            assert_int_equal(expected[n], -1);
        }
}

// Sum of the errors of all query heads of layer 0.
static double pairs_error(const Setup *s, const int32_t *choice, int P)
{
    const ModelShape *shape = &s->original.shape;
    const int64_t S = statistics_features(shape);
    StatisticsFile file;
    PairChoice pairs;
    double map[32], error = 0;
    double *gram = malloc((size_t)(shape->n_heads * S * S) * sizeof *gram);
    assert_non_null(gram);
    assert_ok(statistics_file_open(&file, shape, s->scores));
    assert_ok(statistics_file_read_gram(&file, 0, gram));
    assert_ok(pair_choice_start(&pairs, shape->head_dim / 2));
    for (int h = 0; h < shape->n_heads; h++) {
        int32_t kept[16];
        const int n =
            slots_of_kv_head(kept, choice, P, h / (shape->n_heads / shape->n_kv_heads), shape);
        error += pair_choice_map(map, &pairs, gram + h * S * S, kept, n, true);
    }
    pair_choice_end(&pairs);
    statistics_file_close(&file);
    free(gram);
    return error;
}

// Slots that all layers share, whitened and balanced: 3.446 of another implementation on 33 windows
// and other calibration text.
static void check_uniform(Setup *s, const int32_t *valid, int n, int T)
{
    const ConvertRecipe recipe = {METHOD_WHITENED, 0, .mixes = true};
    Replica mla;
    free(convert_by(&mla, s, ROPE_SHARED_UNIFORM, 4, 32, false, &recipe));
    for (int i = 0; i < 4; i++)
        assert_int_equal(mla.model.rope_pairs[i], 3 * i);
    check_loss("loss of mixed slots", loss_of(&mla.model, valid, n, T), 3.446, .1);
    replica_release(&mla);
}

static void check_level(Setup *s, const Level *level, const int32_t *valid, int n, int T)
{
    Replica mla;
    int32_t *choice = convert(&mla, s, level->slots, level->latent, false, &closed);
    if (level->slots == 4)
        check_four_slots(choice, &s->original.shape);
    const double error = pairs_error(s, choice, level->slots);
    if (!(fabs(error / level->pairs_error - 1) <= 1e-4))
        fail_msg("error of layer 0's pairs is %.6g, expected %.6g", error, level->pairs_error);
    check_loss("loss", loss_of(&mla.model, valid, n, T), level->closed_loss, .03); // seen .0213
    assert_ok(refit_attention(&mla, &s->original, s->scores, REFIT_OUTPUTS));
    check_loss("loss after the refit", loss_of(&mla.model, valid, n, T), level->ridge_loss, .02);
    free(choice);
    replica_release(&mla);
}

static void test_a_pretrained_model(void **state)
{
    (void)state;
    Setup s;
    Model model;
    int n, T;
    // The other tests see that ranks agree, and run the same code on small models.
    if (comm.size > 1 || TESTING_IS_SANITIZED)
        skip();
    assert_ok(hf_load(&model, testing_asset("models/stories3M")));
    start(&s, "stories3M", model, 12, POOL_HEAD);
    int32_t *valid = testing_read_tokens(&s.file, "valid", &n, &T);
    assert_int_equal(n, N_VALID);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        check_level(&s, &levels[i], valid, n, T);
    check_uniform(&s, valid, n, T);
    free(valid);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_is_pytorchs),
        cmocka_unit_test(test_full_rank_is_the_original),
        cmocka_unit_test(test_frequencies_alike_for_all_heads_are_refused),
        cmocka_unit_test(test_mixed_slots_of_one_kv_head_are_the_original),
        cmocka_unit_test(test_a_norm_of_the_latent_starts_from_its_size),
        cmocka_unit_test(test_statistics_that_say_nothing),
        cmocka_unit_test(test_a_pretrained_model),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    int n_failed = comm_group_start(&group, &comm, 0) != OK;
    n_failed += cmocka_run_group_tests(tests, NULL, NULL);
    comm_group_end(&group);
    return testing_stop_ranks(&comm, n_failed);
}
