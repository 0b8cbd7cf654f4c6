// Shapes: the paper's tables (arXiv 2502.14837) from the shapes alone, every refusal, and the
// count of floating-point operations. No weights.
#include "tests/support/testing.h"

#include "model/params.h"
#include "model/shape.h"
#include "model/shape_fields.h"

#include <math.h>
#include <stdio.h>

// One model of the paper; d_kv are its three compressions.
typedef struct PaperModel {
    const char *name;
    ModelShape shape;
    int pairs; // E / 16
    int d_kv[3];
} PaperModel;

#define SMOLLM(layers, width, heads, kv_heads, ffn)                                                \
    {                                                                                              \
        .n_layers = (layers), .d_model = (width), .n_heads = (heads), .n_kv_heads = (kv_heads),    \
        .head_dim = 64, .d_ffn = (ffn), .vocab_size = 49152, .max_positions = 2048,                \
        .rope_pairs = 32, .tied_head = true, .rope_theta = 1e4, .rms_eps = 1e-5                    \
    }

static const PaperModel paper[] = {
    {"SmolLM-135M", SMOLLM(30, 576, 9, 3, 1536), 4, {32, 16, 8}},
    {"SmolLM-360M", SMOLLM(32, 960, 15, 5, 2560), 4, {32, 16, 8}},
    {"SmolLM-1.7B", SMOLLM(24, 2048, 32, 32, 8192), 4, {32, 16, 8}},
    {"Llama-2-7B",
     {.n_layers = 32,
      .d_model = 4096,
      .n_heads = 32,
      .n_kv_heads = 32,
      .head_dim = 128,
      .d_ffn = 11008,
      .vocab_size = 32000,
      .max_positions = 4096,
      .rope_pairs = 64,
      .rope_theta = 1e4,
      .rms_eps = 1e-5},
     8,
     {64, 32, 16}},
};
enum { M135, M360, M1700, M7B, N_PAPER };

// The model converted as the paper did, to the compression 0, 1 or 2.
static ModelShape converted(int model, int compression, SvdKind svd)
{
    ModelShape shape;
    const PaperModel *m = &paper[model];
    assert_ok(shape_convert(&shape, &m->shape, m->pairs, m->d_kv[compression], svd));
    return shape;
}

static void test_matrices_of_the_paper(void **state)
{
    (void)state;
    // Rows of W_kr, of W_dkv for the three d_kv, and of the matrix of the joint SVD.
    static const int expected[N_PAPER][5] = {{24, 96, 48, 24, 360},
                                             {40, 160, 80, 40, 600},
                                             {256, 1024, 512, 256, 3840},
                                             {512, 2048, 1024, 512, 7680}};
    for (int m = 0; m < N_PAPER; m++) {
        for (int c = 0; c < 3; c++) {
            ModelShape s = converted(m, c, SVD_JOINT);
            assert_int_equal(shape_dim(&s, DIM_K_ROPE), expected[m][0]);
            assert_int_equal(shape_dim(&s, DIM_LATENT), expected[m][1 + c]);
            assert_int_equal(shape_dim(&s, DIM_UP_INPUT), expected[m][1 + c]);
            assert_int_equal(shape_dim(&s, DIM_K_NOPE) + shape_dim(&s, DIM_KV), expected[m][4]);
            ModelShape split = converted(m, c, SVD_SPLIT);
            assert_int_equal(shape_dim(&split, DIM_LATENT), expected[m][1 + c]);
            assert_int_equal(shape_dim(&split, DIM_UP_INPUT), expected[m][1 + c] / 2);
        }
    }
}

// Millions with two digits, as the paper prints them.
static double hundredths(int64_t count, double unit)
{
    return round((double)count / unit * 100) / 100;
}

// The paper counts the 135M model as PyTorch does: every parameter once, the tied head with the
// embedding; joint factors.
static void test_parameters_of_the_135m_model(void **state)
{
    (void)state;
    static const double expected[] = {130.99, 129.64, 128.97};
    assert_int_equal(params_count(&paper[M135].shape), 134515008);
    assert_true(hundredths(params_count(&paper[M135].shape), 1e6) == 134.52);
    for (int c = 0; c < 3; c++) {
        ModelShape s = converted(M135, c, SVD_JOINT);
        assert_true(hundredths(params_count(&s), 1e6) == expected[c]);
    }
}

// The 7B model has an untied head, but the paper counts only one of embedding and head:
// 6.61B instead of 6.74B.
static void test_parameters_of_the_7b_model(void **state)
{
    (void)state;
    static const double expected[] = {6.37, 5.99, 5.79};
    const int64_t head = 32000LL * 4096;
    assert_int_equal(params_count(&paper[M7B].shape), 6738415616LL);
    assert_true(hundredths(params_count(&paper[M7B].shape) - head, 1e9) == 6.61);
    for (int c = 0; c < 3; c++) {
        ModelShape s = converted(M7B, c, SVD_JOINT);
        assert_true(hundredths(params_count(&s) - head, 1e9) == expected[c]);
    }
}

static void test_parameters_of_the_other_models(void **state)
{
    (void)state;
    assert_int_equal(params_count(&paper[M360].shape), 361821120);
    assert_int_equal(params_count(&paper[M1700].shape), 1711376384);
}

static void test_caches_of_the_paper(void **state)
{
    (void)state;
    static const int64_t original[] = {30 * 2 * 3 * 64, 32 * 2 * 5 * 64, 24 * 2 * 32 * 64,
                                       32 * 2 * 32 * 128};
    static const double saved[] = {0.6875, 0.8125, 0.875};
    for (int m = 0; m < N_PAPER; m++) {
        assert_int_equal(shape_cache_numbers(&paper[m].shape), original[m]);
        for (int c = 0; c < 3; c++) {
            ModelShape joint = converted(m, c, SVD_JOINT), split = converted(m, c, SVD_SPLIT);
            assert_true((double)shape_cache_numbers(&joint) ==
                        (1 - saved[c]) * (double)original[m]);
            assert_int_equal(shape_cache_numbers(&split), shape_cache_numbers(&joint));
        }
    }
}

static void test_conversion_changes_the_attention_alone(void **state)
{
    (void)state;
    const ModelShape *a = &paper[M7B].shape;
    ModelShape b = converted(M7B, 1, SVD_SPLIT);
    assert_true(shape_is_mla(&b) && !shape_is_mla(a));
    assert_int_equal(b.rope_pairs, 8);
    assert_int_equal(b.d_kv, 32);
    assert_int_equal(b.svd, SVD_SPLIT);
    assert_memory_equal(&b, a, offsetof(ModelShape, rope_pairs)); // all other dims
    assert_int_equal(b.tied_head, a->tied_head);
    assert_true(b.rope_theta == a->rope_theta && b.rms_eps == a->rms_eps);
    assert_ok(shape_check(a, "x"));
}

static void test_pairs_out_of_range_are_refused(void **state)
{
    (void)state;
    const ModelShape *s = &paper[M135].shape;
    ModelShape out;
    assert_fails(BAD_INPUT, "rope_pairs is 0, allowed are 1 to 32 (head width 64)",
                 shape_convert(&out, s, 0, 8, SVD_JOINT));
    assert_fails(BAD_INPUT, "rope_pairs is 33, allowed are 1 to 32",
                 shape_convert(&out, s, 33, 8, SVD_JOINT));
    assert_fails(BAD_INPUT, "rope_pairs is -1", shape_convert(&out, s, -1, 8, SVD_JOINT));
}

// The largest d_kv is taken; what is out of range is refused with the range in the text.
static void assert_largest(const ModelShape *s, int pairs, int most, SvdKind svd)
{
    const int refused[] = {most + 1, 0, -1};
    ModelShape out;
    assert_ok(shape_convert(&out, s, pairs, most, svd));
    for (int i = 0; i < 3; i++) {
        char text[128];
        snprintf(text, sizeof text, "d_kv is %d, allowed are 1 to %d with rope_pairs %d and %s SVD",
                 refused[i], most, pairs, shape_svd_name(svd));
        assert_fails(BAD_INPUT, text, shape_convert(&out, s, pairs, refused[i], svd));
    }
}

static void test_latents_wider_than_the_rank_are_refused(void **state)
{
    (void)state;
    assert_largest(&paper[M135].shape, 4, 120, SVD_JOINT);  // 168 + 192 rows, 576 wide, 3 KV heads
    assert_largest(&paper[M135].shape, 32, 64, SVD_JOINT);  // 192 rows of values alone
    assert_largest(&paper[M1700].shape, 4, 64, SVD_JOINT);  // 3840 rows, 2048 wide, 32 KV heads
    assert_largest(&paper[M135].shape, 4, 112, SVD_SPLIT);  // twice the 168 rows of keys
    assert_largest(&paper[M1700].shape, 4, 112, SVD_SPLIT); // twice 1792 rows, 2048 wide
}

static void test_split_without_keys_is_refused(void **state)
{
    (void)state;
    ModelShape out;
    assert_fails(BAD_INPUT, "split SVD has no keys left to compress with rope_pairs 32",
                 shape_convert(&out, &paper[M135].shape, 32, 8, SVD_SPLIT));
}

static void test_split_of_an_odd_latent_is_refused(void **state)
{
    (void)state;
    ModelShape out;
    assert_fails(BAD_INPUT, "d_kv is 7, split SVD needs an even d_kv x 3 KV heads",
                 shape_convert(&out, &paper[M135].shape, 4, 7, SVD_SPLIT));
    assert_ok(shape_convert(&out, &paper[M1700].shape, 4, 7, SVD_SPLIT)); // 7 x 32 is even
    assert_ok(shape_convert(&out, &paper[M135].shape, 4, 7, SVD_JOINT));
}

static void test_converting_twice_is_refused(void **state)
{
    (void)state;
    ModelShape mla = converted(M135, 2, SVD_JOINT), out;
    assert_fails(BAD_INPUT, "the model has latent attention already (d_kv 8)",
                 shape_convert(&out, &mla, 4, 4, SVD_JOINT));
}

// SmolLM-135M at 12.5 % of its cache: 30 layers of 2 x 12 + 24 numbers instead of 2 x 3 x 64.
static void test_shared_form(void **state)
{
    (void)state;
    const ModelShape *original = &paper[M135].shape;
    ModelShape s, again;
    assert_ok(shape_convert_shared(&s, original, 12, 24, false));
    assert_true(shape_is_mla(&s) && shape_is_shared(&s) && !shape_is_shared(original));
    assert_int_equal(shape_dim(&s, DIM_QUERY), 9 * (24 + 64));
    assert_int_equal(shape_dim(&s, DIM_Q), 9 * 64);
    assert_int_equal(shape_dim(&s, DIM_K_ROPE), 24);
    assert_int_equal(shape_dim(&s, DIM_K_NOPE), 9 * 64);
    assert_int_equal(shape_dim(&s, DIM_UP_VALUE), 9 * 64);
    assert_int_equal(shape_dim(&s, DIM_LATENT), 24);
    assert_int_equal(shape_dim(&s, DIM_UP_INPUT), 24);
    assert_int_equal(shape_dim(&s, DIM_NORM), 0);
    assert_int_equal(shape_cache_numbers(&s), 30 * 48);
    assert_int_equal(8 * shape_cache_numbers(&s), shape_cache_numbers(original));
    const int64_t attention = 576LL * (9 * 88 + 24 + 24 + 9 * 64) + 2 * 9 * 64 * 24;
    assert_int_equal(params_count(&s) - params_count(original),
                     30 * (attention - 576LL * (2 * 9 * 64 + 2 * 3 * 64)));
    assert_ok(shape_convert_shared(&again, original, 96, 384, true));
    assert_int_equal(shape_dim(&again, DIM_NORM), 384);
    again = shape_original(&again);
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        assert_true(shape_field_is_same(&shape_fields[i], &again, original));
}

static void test_shared_form_refuses(void **state)
{
    (void)state;
    const ModelShape *original = &paper[M135].shape;
    ModelShape s, out;
    assert_fails(BAD_INPUT, "rope_pairs is 0, allowed are 1 to 96 slots",
                 shape_convert_shared(&out, original, 0, 24, false));
    assert_fails(BAD_INPUT, "rope_pairs is 97, allowed are 1 to 96 slots",
                 shape_convert_shared(&out, original, 97, 24, false));
    assert_fails(BAD_INPUT, "latent is 0, allowed are 1 to 384",
                 shape_convert_shared(&out, original, 12, 0, false));
    assert_fails(BAD_INPUT, "latent is 385, allowed are 1 to 384",
                 shape_convert_shared(&out, original, 12, 385, true));
    assert_ok(shape_convert_shared(&s, original, 12, 24, true));
    assert_fails(BAD_INPUT, "latent attention already (latent 24)",
                 shape_convert_shared(&out, &s, 12, 24, true));
    assert_fails(BAD_INPUT, "latent attention already (latent 24)",
                 shape_convert(&out, &s, 4, 4, SVD_JOINT));
    out = s, out.d_kv = 8;
    assert_fails(BAD_INPUT, "c.json: latent is 24, but d_kv is 8", shape_check(&out, "c.json"));
    out = s, out.svd = SVD_SPLIT;
    assert_fails(BAD_INPUT, "svd split; the shared form", shape_check(&out, "c.json"));
    out = converted(M135, 0, SVD_JOINT), out.latent_norm = true;
    assert_fails(BAD_INPUT, "latent_norm is true, but latent is 0", shape_check(&out, "c.json"));
    out = *original, out.latent_norm = true;
    assert_fails(BAD_INPUT, "latent_norm is true, but the attention is the original",
                 shape_check(&out, "c.json"));
}

static void test_check_refuses_dims_that_do_not_fit(void **state)
{
    (void)state;
    ModelShape s = paper[M135].shape;
    s.head_dim = 63;
    assert_fails(BAD_INPUT, "c.json: head width is 63", shape_check(&s, "c.json"));
    s.head_dim = 0;
    assert_fails(BAD_INPUT, "c.json: head_dim is 0, allowed are 2 to 4096",
                 shape_check(&s, "c.json"));
    s = paper[M135].shape, s.n_kv_heads = 4;
    assert_fails(BAD_INPUT, "c.json: 9 query heads do not divide among 4 KV heads",
                 shape_check(&s, "c.json"));
    s = converted(M135, 0, SVD_JOINT), s.d_kv = 500;
    assert_fails(BAD_INPUT, "c.json: d_kv is 500", shape_check(&s, "c.json"));
    s = paper[M135].shape, s.rope_pairs = 31;
    assert_fails(BAD_INPUT, "c.json: rope_pairs is 31, original attention (d_kv 0) keeps all 32",
                 shape_check(&s, "c.json"));
}

// Each field just below, just above and far outside of its bounds, with all others as they are.
static void test_check_holds_every_field_to_its_bounds(void **state)
{
    (void)state;
    const ModelShape good = converted(M135, 0, SVD_JOINT);
    assert_ok(shape_check(&good, "c.json"));
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        const double outside[] = {field->least - 1, field->most + 1, -INT32_MAX, INT32_MAX};
        const bool is_number = field->kind == SHAPE_INT || field->kind == SHAPE_REAL;
        for (int j = 0; is_number && j < 4; j++) {
            char text[64];
            ModelShape s = good;
            if (outside[j] >= field->least && outside[j] <= field->most) // of rope_theta
                continue;
            shape_field_set(field, &s, outside[j]);
            snprintf(text, sizeof text, "c.json: %s is ", field->name);
            assert_fails(BAD_INPUT, text, shape_check(&s, "c.json"));
        }
    }
    ModelShape s = good;
    s.rope_theta = NAN;
    assert_fails(BAD_INPUT, "c.json: rope_theta is nan, allowed are 1 to 1e+15",
                 shape_check(&s, "c.json"));
    s = good, s.n_kv_heads = 0; // what others are divided by
    assert_fails(BAD_INPUT, "c.json: n_kv_heads is 0, allowed are 1 to 4096",
                 shape_check(&s, "c.json"));
}

// The largest dims that pass: sizes are still what they are in floating point.
static void test_no_shape_overflows(void **state)
{
    (void)state;
    ModelShape s = {.tied_head = false, .rope_theta = 1e4, .rms_eps = 1e-6}, mla;
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        if (shape_fields[i].kind == SHAPE_INT && shape_fields[i].owner == SHAPE_OF_MODEL)
            shape_field_set(&shape_fields[i], &s, shape_fields[i].most);
    s.rope_pairs = s.head_dim / 2;
    assert_ok(shape_check(&s, "x"));
    assert_ok(shape_convert(&mla, &s, 1, 2 * s.d_model / s.n_kv_heads, SVD_SPLIT));
    assert_ok(shape_check(&mla, "x"));
    const double D = s.d_model, all_heads = 4096.0 * 4096, R = 2 * D;
    const double expected =
        2 * D * s.vocab_size +
        s.n_layers * (3 * D * s.d_ffn + 2 * D * all_heads + 4096.0 * 2 * D + D * R + all_heads * R);
    assert_true(fabs((double)params_count(&mla) / expected - 1) < 1e-3);
    assert_true(shape_cache_numbers(&mla) == 1000LL * 4096 * (2 + 2 * s.d_model / 4096));

    const int slots = (int)shape_fields[SHAPE_ROPE_PAIRS].most;
    assert_ok(shape_convert_shared(&mla, &s, slots, s.d_model, true));
    const double query = all_heads + 4096.0 * 2 * slots,
                 shared = query + all_heads + 2.0 * slots + D;
    assert_true(fabs((double)params_count(&mla) /
                         (2 * D * s.vocab_size +
                          s.n_layers * (3 * D * s.d_ffn + D * shared + 2 * all_heads * D)) -
                     1) < 1e-3);
    assert_true(shape_cache_numbers(&mla) == 1000LL * (2 * slots + s.d_model));
}

static void test_fields_read_back_what_they_write(void **state)
{
    (void)state;
    ModelShape shape = converted(M135, 1, SVD_SPLIT), back = {0};
    layer_set_put(&shape.no_rope, 0, true);
    layer_set_put(&shape.no_rope, 29, true);
    char text[2][SHAPE_TEXT_BYTES];
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        const ShapeField *field = &shape_fields[i];
        json_t *object = json_object();
        json_object_set_new(object, field->key, shape_field_to_json(field, &shape));
        assert_ok(shape_field_read(&back, field, object, field->key, "x"));
        assert_string_equal(shape_field_format(text[0], field, &shape),
                            shape_field_format(text[1], field, &back));
        assert_true(shape_field_is_same(field, &shape, &back));
        json_object_set_new(object, field->key, json_array());
        assert_fails(BAD_INPUT, field->key,
                     shape_field_read(&back, field, object, field->key, "x"));
        json_decref(object);
    }
    json_t *object = json_pack("{s:s}", "svd", "banana");
    assert_fails(BAD_INPUT, "x: 'svd' is \"banana\", allowed are \"joint\" and \"split\"",
                 shape_field_read(&back, &shape_fields[SHAPE_SVD], object, "svd", "x"));
    json_decref(object);
}

// Multiply-adds of one forward pass, counted one matrix and one pair of positions at a time.
static double count_forward(const ModelShape *s, int T)
{
    double n = 0;
    for (int i = 0; i < params_n_tensors(s); i++) {
        ParamInfo info = params_info(s, i);
        bool is_lookup = i == 0 && !s->tied_head; // an embedding of its own multiplies nothing
        if (!info.is_vector && !is_lookup)
            n += (double)T * info.rows * info.cols;
    }
    for (int query = 0; query < T; query++)
        for (int key = 0; key <= query; key++)
            n += (double)s->n_layers * s->n_heads * (s->head_dim + s->head_dim); // q k, and p v
    return n;
}

static void test_train_flops_are_three_forward_passes(void **state)
{
    (void)state;
    for (int m = 0; m < N_PAPER; m++) {
        ModelShape shapes[] = {paper[m].shape, converted(m, 1, SVD_JOINT),
                               converted(m, 1, SVD_SPLIT)};
        for (int i = 0; i < 3; i++) {
            double direct = 3 * 2 * count_forward(&shapes[i], 128); // two operations each
            assert_true(fabs(shape_train_flops(&shapes[i], 128) / direct - 1) < 1e-14); // seen 0
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrices_of_the_paper),
        cmocka_unit_test(test_parameters_of_the_135m_model),
        cmocka_unit_test(test_parameters_of_the_7b_model),
        cmocka_unit_test(test_parameters_of_the_other_models),
        cmocka_unit_test(test_caches_of_the_paper),
        cmocka_unit_test(test_conversion_changes_the_attention_alone),
        cmocka_unit_test(test_pairs_out_of_range_are_refused),
        cmocka_unit_test(test_latents_wider_than_the_rank_are_refused),
        cmocka_unit_test(test_split_without_keys_is_refused),
        cmocka_unit_test(test_split_of_an_odd_latent_is_refused),
        cmocka_unit_test(test_converting_twice_is_refused),
        cmocka_unit_test(test_shared_form),
        cmocka_unit_test(test_shared_form_refuses),
        cmocka_unit_test(test_check_refuses_dims_that_do_not_fit),
        cmocka_unit_test(test_check_holds_every_field_to_its_bounds),
        cmocka_unit_test(test_no_shape_overflows),
        cmocka_unit_test(test_fields_read_back_what_they_write),
        cmocka_unit_test(test_train_flops_are_three_forward_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
