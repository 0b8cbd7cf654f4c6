// What must not change the whole model's loss and gradients: threads, micro-batches, logits, what
// is frozen, what is computed again, the way that attention takes; and how far bfloat16 may change
// them.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"
#include "tests/support/testing_transformer.h"

#include "model/kernels/gemm.h"
#include "model/trainable.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = TESTING_MODEL_THREADS, B = 2 };

// The ways of attention: MLA expands keys and values unless its latent is narrow. The shared form
// without and with a norm. Last those whose heads have norms.
typedef enum Form {
    ORIGINAL,
    MLA,
    NARROW_MLA,
    SHARED,
    NARROW_SHARED,
    NORMED,
    NORMED_MLA,
    N_FORMS
} Form;

// Large enough that OpenBLAS uses its threads and attention more than one tile.
static Model make_model(Form form, bool tied_head)
{
    const int head_dim = form == NARROW_MLA || form == NARROW_SHARED ? 32 : 16;
    ModelShape shape = {.n_layers = 2,
                        .d_model = 96,
                        .n_heads = 6,
                        .n_kv_heads = 2,
                        .head_dim = head_dim,
                        .d_ffn = 200,
                        .vocab_size = 301,
                        .max_positions = 512,
                        .rope_pairs = head_dim / 2,
                        .tied_head = tied_head,
                        .rope_theta = 1e4,
                        .rms_eps = 1e-5,
                        .qk_norm = form == NORMED || form == NORMED_MLA};
    if (form == SHARED)
        assert_ok(shape_convert_shared(&shape, &shape, 9, 30, false));
    else if (form == NARROW_SHARED)
        assert_ok(shape_convert_shared(&shape, &shape, 3, 5, true));
    else if (form != ORIGINAL && form != NORMED)
        assert_ok(shape_convert(&shape, &shape, 3, form == NARROW_MLA ? 2 : 10, SVD_JOINT));
    Model model;
    assert_ok(model_create(&model, &shape));
    model_init_random(&model, 0.08, 1);
    return model;
}

enum { LONG_T = 150 };

static void fill_tokens(int32_t *tokens, int count, int vocab_size)
{
    for (int i = 0; i < count; i++)
        tokens[i] = (int32_t)((i * 7919LL + i / 3 * 31LL) % vocab_size);
}

static void test_threads_change_nothing_in_forward_and_rounding_in_gradients(void **state)
{
    (void)state;
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    int threads = omp_get_max_threads();
    for (Form form = ORIGINAL; form < N_FORMS; form++) {
        Model model = make_model(form, true);
        ModelRun one = testing_run_model(&model, B, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32),
                 two = testing_run_model(&model, B, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
        omp_set_num_threads(1);
        double loss_one = testing_add_gradients(&one, tokens, tokens + 1, 0.01f);
        omp_set_num_threads(2);
        double loss_two = testing_add_gradients(&two, tokens, tokens + 1, 0.01f);
        omp_set_num_threads(threads);
        size_t bytes = (size_t)B * LONG_T * (size_t)model.shape.d_model * sizeof(float);
        assert_memory_equal(one.ws.hidden, two.ws.hidden, bytes);
        assert_true(loss_one == loss_two);
        testing_assert_close("gradients", two.grads.params.flat, one.grads.params.flat,
                             model.params.count, 2e-6); // seen 0; with the dims of SmolLM-135M 8e-7
        if (gemm_kernel_name() != NULL)
            assert_memory_equal(two.grads.params.flat, one.grads.params.flat,
                                (size_t)model.params.count * sizeof(float));
        testing_release_model_run(&one);
        testing_release_model_run(&two);
        model_release(&model);
    }
}

// Gradients of some tensors alone are those of all.
static void check_frozen(const Model *model, const ModelRun *all, const int32_t *tokens,
                         const Trainable *trained)
{
    const ModelShape *s = &model->shape;
    ModelRun some = testing_run_model(model, B, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
    float *flat = some.grads.params.flat;
    params_release(&some.grads.params);
    assert_ok(trainable_place(&some.grads.params, s, trained, flat));
    testing_add_gradients(&some, tokens, tokens + 1, 0.01f);
    for (int t = 0; t < params_n_tensors(s); t++) {
        const ParamInfo info = params_info(s, t);
        const int64_t count = trainable_tensor_gradients(trained, s, t);
        const float *expected = all->grads.params.flat + info.offset;
        assert_true(count > 0 || !trainable_has(trained, info.name));
        testing_assert_close(info.name, flat, expected, count, 1e-6); // seen 0
        if (gemm_kernel_name() != NULL)
            assert_memory_equal(flat, expected, (size_t)count * sizeof(float));
        flat += count;
    }
    testing_release_model_run(&some);
}

static void test_frozen_tensors_change_no_other_gradient(void **state)
{
    (void)state;
    static char attention[] = "attention", ffn[] = "*.mlp.*", embed[] = "model.embed_tokens.*",
                norms[] = "*norm*", head[] = "lm_head.weight", q[] = "*.0.self_attn.q_proj.*";
    char *const patterns[] = {attention, ffn, embed, norms, q, head};
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    for (Form form = ORIGINAL; form < N_FORMS; form++)
        for (int tied = 0; tied < 2; tied++) {
            Model model = make_model(form, tied == 1);
            ModelRun all = testing_run_model(&model, B, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
            testing_add_gradients(&all, tokens, tokens + 1, 0.01f);
            for (int p = 0; p < (tied ? 5 : 6); p++)
                check_frozen(&model, &all, tokens, &(Trainable){&patterns[p], 1});
            testing_release_model_run(&all);
            model_release(&model);
        }
}

static void test_two_micro_batches_add_up_to_one_batch(void **state)
{
    (void)state;
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    for (Form form = ORIGINAL; form < N_FORMS; form++) {
        Model model = make_model(form, false);
        ModelRun whole = testing_run_model(&model, 2, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32),
                 half = testing_run_model(&model, 1, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
        double loss = testing_add_gradients(&whole, tokens, tokens + 1, 0.01f);
        double sum = testing_add_gradients(&half, tokens, tokens + 1, 0.01f);
        sum += testing_add_gradients(&half, tokens + LONG_T, tokens + LONG_T + 1, 0.01f);
        ref_assert_error("loss", fabs(sum / loss - 1.0), 1e-7); // seen 4e-16
        testing_assert_close("gradients", half.grads.params.flat, whole.grads.params.flat,
                             model.params.count, 1e-5); // seen 8.6e-7
        testing_release_model_run(&whole);
        testing_release_model_run(&half);
        model_release(&model);
    }
}

// Rows of `narrow` columns -> the first of `wide` columns.
static void pad(float *to, int wide, const float *from, int narrow, int rows)
{
    for (int i = 0; i < rows; i++)
        memcpy(to + i * wide, from + i * narrow, (size_t)narrow * sizeof(float));
}

// The narrow model with zeros added to its latent: the same function, too wide for the latent
// space.
static Model widen(const Model *narrow)
{
    ModelShape shape = narrow->shape;
    shape.d_kv = 14;
    Model wide;
    assert_ok(model_create(&wide, &shape));
    memcpy(wide.rope_pairs, narrow->rope_pairs,
           (size_t)(shape.n_layers * shape.n_kv_heads * shape.rope_pairs) * sizeof(int32_t));
    for (int i = 0; i < params_n_tensors(&shape); i++) {
        const ParamInfo to = params_info(&shape, i), from = params_info(&narrow->shape, i);
        pad(wide.params.flat + to.offset, to.cols, narrow->params.flat + from.offset, from.cols,
            from.rows);
    }
    return wide;
}

static void test_attention_in_the_latent_space_is_the_same_function(void **state)
{
    (void)state;
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    Model narrow = make_model(NARROW_MLA, true), wide = widen(&narrow);
    ModelRun latent = testing_run_model(&narrow, B, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32),
             expanded = testing_run_model(&wide, B, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
    assert_ptr_equal(latent.ws.form, &attention_forms[ATTENTION_MLA_LATENT]);
    assert_ptr_equal(expanded.ws.form, &attention_forms[ATTENTION_MLA_EXPANDED]);
    const double loss = testing_add_gradients(&latent, tokens, tokens + 1, 0.01f);
    ref_assert_error("loss",
                     fabs(testing_add_gradients(&expanded, tokens, tokens + 1, 0.01f) / loss - 1.0),
                     1e-7); // seen 1e-10
    for (int i = 0; i < params_n_tensors(&narrow.shape); i++) {
        const ParamInfo got = params_info(&narrow.shape, i), with = params_info(&wide.shape, i);
        const int64_t count = (int64_t)got.rows * got.cols;
        float *expected = ref_nans(count);
        for (int row = 0; row < got.rows; row++)
            memcpy(expected + (int64_t)row * got.cols,
                   expanded.grads.params.flat + with.offset + (int64_t)row * with.cols,
                   (size_t)got.cols * sizeof(float));
        testing_assert_close(got.name, latent.grads.params.flat + got.offset, expected, count,
                             1e-5); // seen 1.4e-6
        free(expected);
    }
    testing_release_model_run(&latent);
    testing_release_model_run(&expanded);
    model_release(&narrow);
    model_release(&wide);
}

static void test_fresh_gradients_are_written_over_whatever_was_there(void **state)
{
    (void)state;
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 301);
    for (int kind = 0; kind < 2 * N_FORMS; kind++) {
        Model model = make_model((Form)(kind / 2), kind % 2 == 1);
        ModelRun added = testing_run_model(&model, 1, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32),
                 fresh = testing_run_model(&model, 1, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
        testing_add_gradients(&added, tokens, tokens + 1, 0.01f);
        for (int64_t i = 0; i < model.params.count; i++)
            fresh.grads.params.flat[i] = NAN;
        fresh.ws.fresh_gradients = true;
        testing_add_gradients(&fresh, tokens, tokens + 1, 0.01f);
        for (int64_t i = 0; i < model.params.count; i++) // 0 + g may be a zero of the other sign
            assert_true(fresh.grads.params.flat[i] == added.grads.params.flat[i]);
        testing_release_model_run(&added);
        testing_release_model_run(&fresh);
        model_release(&model);
    }
}

// A model whose own head holds the embedding's numbers computes the same, and the two gradients
// together are the tied one's.
static void test_tied_gradient_is_the_sum_of_head_and_embedding(void **state)
{
    (void)state;
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 40); // tokens occur several times
    Model tied = make_model(ORIGINAL, true), untied = make_model(ORIGINAL, false);
    int64_t embed_floats = (int64_t)tied.shape.vocab_size * tied.shape.d_model;
    memcpy(untied.params.flat, tied.params.flat, (size_t)tied.params.count * sizeof(float));
    memcpy(untied.params.head, tied.params.embed, (size_t)embed_floats * sizeof(float));
    ModelRun run_tied = testing_run_model(&tied, 1, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32),
             run_untied = testing_run_model(&untied, 1, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
    assert_true(testing_add_gradients(&run_tied, tokens, tokens + 1, 0.01f) ==
                testing_add_gradients(&run_untied, tokens, tokens + 1, 0.01f));
    float *sum = run_untied.grads.params.embed;
    for (int64_t i = 0; i < embed_floats; i++)
        sum[i] += run_untied.grads.params.head[i];
    testing_assert_close("embedding", run_tied.grads.params.embed, sum, embed_floats,
                         1e-6); // seen 1.2e-7
    testing_release_model_run(&run_tied);
    testing_release_model_run(&run_untied);
    model_release(&tied);
    model_release(&untied);
}

static void test_logits_between_loss_and_backward_change_nothing(void **state)
{
    (void)state;
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 301);
    Model model = make_model(MLA, true);
    ModelRun plain = testing_run_model(&model, 1, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32),
             asked = testing_run_model(&model, 1, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32);
    testing_add_gradients(&plain, tokens, tokens + 1, 0.01f);
    float *logits = ref_nans(4 * 301);
    transformer_forward(&asked.ws, &model, tokens, NULL);
    transformer_loss(&asked.ws, &model, tokens + 1, 0.01f, &asked.grads.params);
    transformer_logits(&asked.ws, &model, LONG_T - 4, 4, logits);
    transformer_backward(&asked.ws, &model, tokens, &asked.grads.params);
    assert_memory_equal(asked.grads.params.flat, plain.grads.params.flat,
                        (size_t)model.params.count * sizeof(float));
    free(logits);
    testing_release_model_run(&plain);
    testing_release_model_run(&asked);
    model_release(&model);
}

static void test_workspace_without_training_gives_the_same_loss(void **state)
{
    (void)state;
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 301);
    Model model = make_model(MLA, false);
    ModelRun training = testing_run_model(&model, 1, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32),
             plain = testing_run_model(&model, 1, LONG_T, FORWARD_ONLY, COMPUTE_FLOAT32);
    transformer_forward(&training.ws, &model, tokens, NULL);
    transformer_forward(&plain.ws, &model, tokens, NULL);
    double with = transformer_loss(&training.ws, &model, tokens + 1, 1.0f, &training.grads.params);
    assert_true(transformer_loss(&plain.ws, &model, tokens + 1, 1.0f, NULL) == with);
    assert_true(plain.activations.size_bytes < training.activations.size_bytes);
    testing_release_model_run(&training);
    testing_release_model_run(&plain);
    model_release(&model);
}

// ---- Recomputing ----

static void check_recomputing(Form form, ComputeType compute)
{
    int32_t tokens[LONG_T + 1];
    fill_tokens(tokens, LONG_T + 1, 401);
    Model model = make_model(form, true);
    static const ActivationPolicy policies[] = {RECOMPUTE_NONE, RECOMPUTE_ATTENTION,
                                                RECOMPUTE_LAYER};
    static const int forms[N_FORMS] = {ATTENTION_MHA,           ATTENTION_MLA_EXPANDED,
                                       ATTENTION_MLA_LATENT,    ATTENTION_MLA_EXPANDED,
                                       ATTENTION_SHARED_LATENT, ATTENTION_MHA,
                                       ATTENTION_MLA_EXPANDED};
    ModelRun runs[3];
    double losses[3];
    for (int i = 0; i < 3; i++) {
        runs[i] = testing_run_model(&model, 1, LONG_T, policies[i], compute);
        assert_ptr_equal(runs[i].ws.form, &attention_forms[forms[form]]);
        losses[i] = testing_add_gradients(&runs[i], tokens, tokens + 1, 1.0f);
    }
    size_t bytes = (size_t)model.params.count * sizeof(float);
    for (int i = 1; i < 3; i++) {
        assert_true(losses[i] == losses[0]);
        assert_memory_equal(runs[i].grads.params.flat, runs[0].grads.params.flat, bytes);
        assert_true(runs[i].activations.size_bytes < runs[i - 1].activations.size_bytes);
    }
    for (int i = 0; i < 3; i++)
        testing_release_model_run(&runs[i]);
    model_release(&model);
}

static void test_recomputing_gives_the_same_bits_in_less_memory(void **state)
{
    (void)state;
    for (Form form = ORIGINAL; form < N_FORMS; form++)
        check_recomputing(form, COMPUTE_FLOAT32);
}

// ---- bfloat16 ----

// Two sequences, several tiles of attention: loss and gradients beside those of float32.
static void compare_with_float32(Form form)
{
    int32_t tokens[B * LONG_T + 1];
    fill_tokens(tokens, B * LONG_T + 1, 301);
    Model model = make_model(form, true);
    ModelRun exact = testing_run_model(&model, B, LONG_T, RECOMPUTE_NONE, COMPUTE_FLOAT32),
             rounded = testing_run_model(&model, B, LONG_T, RECOMPUTE_NONE, COMPUTE_BFLOAT16);
    assert_true(rounded.activations.size_bytes < exact.activations.size_bytes);
    const double loss = testing_add_gradients(&exact, tokens, tokens + 1, 0.01f);
    ref_assert_error("loss",
                     fabs(testing_add_gradients(&rounded, tokens, tokens + 1, 0.01f) / loss - 1.0),
                     5e-4); // seen 9.3e-5
    for (int i = 0; i < params_n_tensors(&model.shape); i++) {
        const ParamInfo info = params_info(&model.shape, i);
        testing_assert_close(info.name, rounded.grads.params.flat + info.offset,
                             exact.grads.params.flat + info.offset, (int64_t)info.rows * info.cols,
                             4e-2); // seen 0.020
    }
    testing_release_model_run(&exact);
    testing_release_model_run(&rounded);
    model_release(&model);
}

static void test_bfloat16_by_every_kernel_of_this_machine(void **state)
{
    (void)state;
    // Norms of heads run on no kernel of their own.
    const Form end = TESTING_IS_SANITIZED ? NORMED : N_FORMS;
    for (int kernel = -1; testing_next_kernel(&kernel);) {
        for (Form form = ORIGINAL; form < end; form++) {
            compare_with_float32(form);
            check_recomputing(form, COMPUTE_BFLOAT16);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_change_nothing_in_forward_and_rounding_in_gradients),
        cmocka_unit_test(test_frozen_tensors_change_no_other_gradient),
        cmocka_unit_test(test_two_micro_batches_add_up_to_one_batch),
        cmocka_unit_test(test_attention_in_the_latent_space_is_the_same_function),
        cmocka_unit_test(test_fresh_gradients_are_written_over_whatever_was_there),
        cmocka_unit_test(test_tied_gradient_is_the_sum_of_head_and_embedding),
        cmocka_unit_test(test_logits_between_loss_and_backward_change_nothing),
        cmocka_unit_test(test_workspace_without_training_gives_the_same_loss),
        cmocka_unit_test(test_recomputing_gives_the_same_bits_in_less_memory),
        cmocka_unit_test(test_bfloat16_by_every_kernel_of_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
