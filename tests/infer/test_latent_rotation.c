// infer/latent_rotation: another latent, the same model.
#include "tests/support/testing.h"

#include "infer/infer.h"
#include "infer/latent_rotation.h"
#include "model/model.h"
#include "tests/support/testing_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = 40, V = 53 };

#define SHAPE(h, k, e, p, d, kind, ...)                                                            \
    {                                                                                              \
        .n_layers = 2, .d_model = 40, .n_heads = (h), .n_kv_heads = (k), .head_dim = (e),          \
        .d_ffn = 56, .vocab_size = V, .max_positions = 64, .rope_pairs = (p), .d_kv = (d),         \
        .svd = (kind), .rope_theta = 500, .rms_eps = 1e-5, __VA_ARGS__                             \
    }

// Latents of 8, 12 = 4 x 3, 27 and twice 6 = 2 x 3 channels; shared of 20 = 4 x 5, normalized or
// not.
static const ModelShape shapes[] = {
    SHAPE(6, 2, 8, 1, 4, SVD_JOINT),
    SHAPE(6, 2, 8, 2, 6, SVD_JOINT),
    SHAPE(3, 3, 12, 2, 9, SVD_JOINT),
    SHAPE(6, 2, 8, 2, 6, SVD_SPLIT),
    SHAPE(6, 2, 8, 3, 0, SVD_JOINT, .latent = 20),
    SHAPE(6, 2, 8, 3, 0, SVD_JOINT, .latent = 20, .latent_norm = true),
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static Model random_model(const ModelShape *shape)
{
    Model model;
    assert_ok(model_create(&model, shape));
    model_init_random(&model, 0.2, 5);
    for (int l = 0; l < shape->n_layers && shape->latent_norm; l++)
        for (int i = 0; i < shape->latent; i++) // 1/4 to 5
            model.params.layers[l].latent_norm[i] = 0.25f * (float)(1 + (7 * i + l) % 20);
    return model;
}

static InferWeights rotated_weights(const Model *model)
{
    InferWeights weights;
    LatentRotation *rotation;
    const WeightSource source = testing_model_weights(model);
    assert_ok(latent_rotation_create(&rotation, &source));
    const WeightSource rotated = latent_rotation_weights(rotation);
    assert_ok(
        infer_weights_read(&weights, &rotated, model->rope_pairs, DTYPE_F32, COMPUTE_FLOAT32));
    latent_rotation_release(rotation);
    return weights;
}

// Logits of all tokens, and the last token's latent in the first layer, divided by the norm's
// weight.
static void run(float *logits, float *latent, const InferWeights *weights)
{
    const ModelShape *s = &weights->shape;
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    KvCache *cache;
    KvSequence *sequence;
    Infer *infer;
    int32_t tokens[T];
    for (int t = 0; t < T; t++)
        tokens[t] = (t * 7 + t * t * 3) % V;
    assert_ok(kv_cache_create(&cache, s, &format, 0));
    assert_ok(kv_sequence_create(&sequence, cache));
    assert_ok(infer_create(&infer, weights, T, 1));
    assert_ok(infer_forward(infer, &(InferSegment){sequence, tokens, T}, 1));
    infer_logits(infer, logits, infer_hidden(infer, 0), T);
    const KvBlock block = kv_block(sequence, 0, 0);
    const int R = shape_dim(s, DIM_LATENT);
    const float *norm = weights->layers[0].latent_norm;
    for (int i = 0; i < R; i++)
        latent[i] = ((const float *)block.value)[(T - 1) * R + i] / (norm != NULL ? norm[i] : 1);
    infer_release(infer);
    kv_sequence_release(sequence);
    kv_cache_release(cache);
}

static double norm_of(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static void logits_stay_and_the_latent_turns(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++) {
        Model model = random_model(&shapes[i]);
        InferWeights plain, turned = rotated_weights(&model);
        const WeightSource source = testing_model_weights(&model);
        assert_ok(
            infer_weights_read(&plain, &source, model.rope_pairs, DTYPE_F32, COMPUTE_FLOAT32));
        float logits[2][T * V], latent[2][32];
        const int R = shape_dim(&shapes[i], DIM_LATENT);
        run(logits[0], latent[0], &plain);
        run(logits[1], latent[1], &turned);
        testing_assert_close("logits", logits[1], logits[0], T * V, 2e-5); // observed 2e-6
        // As long as it was, and elsewhere.
        assert_true(fabs(norm_of(latent[1], R) / norm_of(latent[0], R) - 1) < 1e-5);
        assert_true(testing_error(latent[1], latent[0], R, 1e-6) > 0.1);
        infer_weights_release(&plain);
        infer_weights_release(&turned);
        model_release(&model);
    }
}

static void original_attention_stays_as_it_is(void **state)
{
    (void)state;
    static const ModelShape original = SHAPE(6, 2, 8, 4, 0, SVD_JOINT);
    Model model = random_model(&original);
    InferWeights plain, turned = rotated_weights(&model);
    const WeightSource source = testing_model_weights(&model);
    assert_ok(infer_weights_read(&plain, &source, model.rope_pairs, DTYPE_F32, COMPUTE_FLOAT32));
    assert_int_equal(plain.size_bytes, turned.size_bytes);
    assert_memory_equal(plain.arena.block, turned.arena.block, (size_t)plain.size_bytes);
    infer_weights_release(&plain);
    infer_weights_release(&turned);
    model_release(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_stay_and_the_latent_turns),
        cmocka_unit_test(original_attention_stays_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
