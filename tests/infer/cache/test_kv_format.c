// infer/cache/kv_format: bytes per token of the paper's models, parsing, every refusal.
#include "tests/support/testing.h"

#include "infer/cache/kv_format.h"

#include <math.h>

static const ModelShape smollm_135m = {.n_layers = 30,
                                       .d_model = 576,
                                       .n_heads = 9,
                                       .n_kv_heads = 3,
                                       .head_dim = 64,
                                       .d_ffn = 1536,
                                       .vocab_size = 49152,
                                       .max_positions = 2048,
                                       .rope_pairs = 32,
                                       .rope_theta = 1e4,
                                       .rms_eps = 1e-5};

static ModelShape converted(int d_kv, SvdKind svd)
{
    ModelShape shape;
    assert_ok(shape_convert(&shape, &smollm_135m, 4, d_kv, svd));
    return shape;
}

static ModelShape converted_shared(int slots, int latent)
{
    ModelShape shape;
    assert_ok(shape_convert_shared(&shape, &smollm_135m, slots, latent, true));
    return shape;
}

static void test_parts(void **state)
{
    (void)state;
    ModelShape mla = converted(16, SVD_SPLIT);
    KvPart key = kv_key_part(&smollm_135m), value = kv_value_part(&smollm_135m);
    assert_int_equal(key.n_heads * 1000 + key.width, 3064);
    assert_int_equal(value.n_heads * 1000 + value.width, 3064);
    key = kv_key_part(&mla);
    value = kv_value_part(&mla);
    assert_int_equal(key.n_heads * 1000 + key.width, 3008);
    assert_int_equal(value.n_heads * 1000 + value.width, 1048);
    const ModelShape shared = converted_shared(12, 24);
    key = kv_key_part(&shared);
    value = kv_value_part(&shared);
    assert_int_equal(key.n_heads * 1000 + key.width, 1024);
    assert_int_equal(value.n_heads * 1000 + value.width, 1024);
}

static void test_plain_bytes_are_the_shapes_numbers(void **state)
{
    (void)state;
    static const int d_kvs[] = {32, 16, 8};
    for (int type = KV_FLOAT32; type <= KV_BFLOAT16; type++)
        for (int i = -1; i < 3; i++) {
            ModelShape shape = i < 0 ? smollm_135m : converted(d_kvs[i], SVD_JOINT);
            KvFormat format = kv_format_plain((KvType)type);
            double expected = (double)shape_cache_numbers(&shape) * (type == KV_FLOAT32 ? 4 : 2);
            assert_true(kv_format_bytes_per_token(&format, &shape) == expected);
            if (i < 0)
                continue;
            shape.qk_norm = true; // a float32 for each KV head
            expected += shape.n_layers * shape.n_kv_heads * 4;
            assert_true(kv_format_bytes_per_token(&format, &shape) == expected);
        }
}

// SmolLM-135M in KiB per token, bfloat16: 22.5 whole, 7.03, 4.22 and 2.81 with d_kv 32, 16 and 8.
// In 4 bits the ratio is 4.5 / 16.
static void test_bytes_of_smollm_135m(void **state)
{
    (void)state;
    static const double bfloat16_kib[] = {22.5, 7.03125, 4.21875, 2.8125};
    for (int i = 0; i < 4; i++) {
        ModelShape shape = i == 0 ? smollm_135m : converted(64 >> i, SVD_JOINT);
        KvFormat format = kv_format_plain(KV_BFLOAT16);
        assert_true(kv_format_bytes_per_token(&format, &shape) / 1024 == bfloat16_kib[i]);
        assert_ok(kv_format_parse_bits(&format, "4", "--kv-bits"));
        double four = kv_format_bytes_per_token(&format, &shape) / 1024;
        assert_true(fabs(four - bfloat16_kib[i] * 4.5 / 16) < 1e-12);
    }
    // c [48] at 2 bits and k_r [3][8] at 4, each with half a bit of scale and zero.
    ModelShape shape = converted(16, SVD_JOINT);
    KvFormat format = kv_format_plain(KV_BFLOAT16);
    assert_ok(kv_format_parse_bits(&format, "2,4", "--kv-bits"));
    double bytes = kv_format_bytes_per_token(&format, &shape);
    assert_true(bytes == 30 * (48 * 2.5 + 24 * 4.5) / 8);
    // The shared form of 12 slots and a latent of 24 takes what d_kv 8 does.
    shape = converted_shared(12, 24);
    bytes = kv_format_bytes_per_token(&format, &shape);
    assert_true(bytes == 30 * (24 * 2.5 + 24 * 4.5) / 8);
    format = kv_format_plain(KV_BFLOAT16);
    assert_true(kv_format_bytes_per_token(&format, &shape) / 1024 == bfloat16_kib[3]);
}

static void test_parse_bits(void **state)
{
    (void)state;
    char text[KV_FORMAT_TEXT_BYTES];
    KvFormat format = kv_format_plain(KV_BFLOAT16);
    assert_ok(kv_format_parse_bits(&format, "3", "--kv-bits"));
    assert_int_equal(format.value_bits, 3);
    assert_int_equal(format.key_bits, 3);
    assert_string_equal(kv_format_describe(text, &format), "channel 3 bits");
    format.scheme = KV_HQQ;
    format.reference_policy = true;
    assert_ok(kv_format_parse_bits(&format, "2,8", "--kv-bits"));
    assert_string_equal(kv_format_describe(text, &format),
                        "hqq 2 bits, keys 8 bits, reference policy");
    assert_ok(kv_format_parse_bits(&format, "16", "--kv-bits"));
    assert_string_equal(kv_format_describe(text, &format), "bfloat16");
    assert_ok(kv_format_parse_bits(&format, "32", "--kv-bits"));
    assert_string_equal(kv_format_describe(text, &format), "float32");

    static const char *const wrong[] = {"", "5", "1", "44", "4,", ",4", "2,5", "4;2", "2,4,", "-4"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_fails(BAD_INPUT, "--kv-bits", kv_format_parse_bits(&format, wrong[i], "--kv-bits"));
}

static void test_refusals(void **state)
{
    (void)state;
    const KvFormat good = {KV_BFLOAT16, KV_HQQ, true, 4, 2, 1};
    assert_ok(kv_format_check(&good, &smollm_135m));
    KvFormat format = good;
    format.key_bits = 5;
    assert_fails(BAD_INPUT, "4 bits for values and 5 for keys",
                 kv_format_check(&format, &smollm_135m));
    format = good;
    format.axis = -1;
    assert_fails(BAD_INPUT, "allowed are 0 and 1", kv_format_check(&format, &smollm_135m));
    format = good;
    format.scheme = KV_CHANNEL;
    format.axis = 0;
    assert_fails(BAD_INPUT, "no reference policy", kv_format_check(&format, &smollm_135m));
    format = good;
    format.scheme = KV_PLAIN;
    assert_fails(BAD_INPUT, "choose a scheme", kv_format_check(&format, &smollm_135m));
    ModelShape damaged = smollm_135m;
    damaged.n_layers = 0;
    assert_fails(BAD_INPUT, "KV cache", kv_format_check(&good, &damaged));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_plain_bytes_are_the_shapes_numbers),
        cmocka_unit_test(test_bytes_of_smollm_135m),
        cmocka_unit_test(test_parse_bits),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
