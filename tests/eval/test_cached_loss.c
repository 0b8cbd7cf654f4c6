// eval/cached_loss: the loss over a KV cache against that of single steps, and without rounding
// against the forward of training.
#include "tests/support/testing.h"

#include "eval/cached_loss.h"
#include "eval/forward_pass.h"
#include "tests/support/testing_model.h"

#include <math.h>
#include <stdlib.h>

enum { T = 290, V = 61, PROMPT = 128 }; // PROMPT: half of T in whole blocks

static const ModelShape shape = {
    .n_layers = 2,
    .d_model = 32,
    .n_heads = 4,
    .n_kv_heads = 2,
    .head_dim = 8,
    .d_ffn = 40,
    .vocab_size = V,
    .max_positions = 512,
    .rope_pairs = 1,
    .d_kv = 5,
    .svd = SVD_JOINT,
    .rope_theta = 1000,
    .rms_eps = 1e-5,
};

typedef struct Case {
    Model model;
    InferWeights weights;
    int32_t sample[T + 1];
} Case;

static void start_case(Case *c)
{
    *c = (Case){0};
    assert_ok(model_create(&c->model, &shape));
    model_init_random(&c->model, 0.3, 3);
    for (int i = 0; i < shape.n_layers * shape.n_kv_heads * shape.rope_pairs; i++)
        c->model.rope_pairs[i] = i % 3;
    const WeightSource source = testing_model_weights(&c->model);
    assert_ok(
        infer_weights_read(&c->weights, &source, c->model.rope_pairs, DTYPE_F32, COMPUTE_FLOAT32));
    for (int t = 0; t <= T; t++)
        c->sample[t] = (t * 29 + t * t * 5) % V;
}

static void end_case(Case *c)
{
    infer_weights_release(&c->weights);
    model_release(&c->model);
}

static double cached_loss(const Case *c, const KvFormat *format)
{
    CachedLoss *cached;
    double first, second;
    assert_ok(cached_loss_create(&cached, &c->weights, format, T));
    assert_ok(cached_loss_window(&first, cached, c->sample));
    assert_ok(cached_loss_window(&second, cached, c->sample)); // nothing stays of a window
    cached_loss_release(cached);
    assert_true(first == second);
    return first;
}

static double loss_of_logits(const float *logits, int32_t target)
{
    double sum = 0;
    for (int v = 0; v < V; v++)
        sum += exp((double)logits[v]);
    return log(sum) - (double)logits[target];
}

// Token by token from the beginning; the prompt ends where cached_loss has its end.
static double stepped_loss(const Case *c, const KvFormat *format)
{
    KvCache *cache;
    KvSequence *sequence;
    Infer *infer;
    double sum = 0;
    assert_ok(kv_cache_create(&cache, &shape, format, 0));
    assert_ok(kv_sequence_create(&sequence, cache));
    assert_ok(infer_create(&infer, &c->weights, 1, 1));
    for (int t = 0; t < T; t++) {
        float logits[V];
        if (t == PROMPT)
            assert_ok(kv_sequence_end_prompt(sequence));
        assert_ok(infer_forward(infer, &(InferSegment){sequence, &c->sample[t], 1}, 1));
        infer_logits(infer, logits, infer_hidden(infer, -1), 1);
        sum += loss_of_logits(logits, c->sample[t + 1]);
    }
    infer_release(infer);
    kv_sequence_release(sequence);
    kv_cache_release(cache);
    return sum;
}

static double full_loss(const Case *c)
{
    ForwardPass pass;
    assert_ok(forward_pass_start(&pass, &c->model, T, COMPUTE_FLOAT32));
    transformer_forward(&pass.ws, &c->model, c->sample, NULL);
    double sum = transformer_loss(&pass.ws, &c->model, c->sample + 1, 0, NULL);
    forward_pass_release(&pass);
    return sum;
}

static void without_rounding_it_is_the_loss_of_the_forward(void **state)
{
    (void)state;
    Case c;
    start_case(&c);
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    double got = cached_loss(&c, &format), expected = full_loss(&c);
    if (!(fabs(got - expected) <= 1e-5 * expected)) // observed 2e-8
        fail_msg("%.9g, forward %.9g", got, expected);
    end_case(&c);
}

static void every_position_reads_what_single_steps_do(void **state)
{
    (void)state;
    static const KvFormat formats[] = {
        {.type = KV_BFLOAT16},
        {.type = KV_BFLOAT16, .scheme = KV_CHANNEL, .value_bits = 2, .key_bits = 3},
        {.type = KV_FLOAT32, .scheme = KV_QUANTO, .value_bits = 2, .key_bits = 2},
        {KV_FLOAT32, KV_QUANTO, true, 2, 2, 0},
        {KV_FLOAT32, KV_HQQ, true, 2, 2, 1},
    };
    Case c;
    start_case(&c);
    const double exact = full_loss(&c);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        double got = cached_loss(&c, &formats[i]), expected = stepped_loss(&c, &formats[i]);
        char text[KV_FORMAT_TEXT_BYTES];
        if (!(fabs(got - expected) <= 1e-5 * expected)) // observed 1e-7
            fail_msg("%s: %.9g, in single steps %.9g", kv_format_describe(text, &formats[i]), got,
                     expected);
        // The rounding is there: it changes the loss by more than the order of sums does.
        assert_true(fabs(got - exact) > 2e-5 * exact);
    }
    end_case(&c);
}

static void windows_without_a_prompt_are_refused(void **state)
{
    (void)state;
    Case c;
    CachedLoss *cached;
    const KvFormat format = {KV_FLOAT32, KV_HQQ, true, 4, 4, 0};
    start_case(&c);
    assert_fails(BAD_INPUT, "needs 128 at least",
                 cached_loss_create(&cached, &c.weights, &format, 127));
    end_case(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_rounding_it_is_the_loss_of_the_forward),
        cmocka_unit_test(every_position_reads_what_single_steps_do),
        cmocka_unit_test(windows_without_a_prompt_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
