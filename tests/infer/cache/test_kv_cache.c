// infer/cache/kv_cache: random operations on many sequences against plain lists of their tokens, in
// every format; sharing and its bytes; the limit.
#include "tests/support/testing.h"

#include "base/random.h"
#include "tests/support/testing_kv.h"

#include <stdlib.h>

enum { MAX_CHUNK = 200, MAX_SEQUENCES = 12 };

static const KvFormat formats[] = {
    {KV_FLOAT32},
    {KV_BFLOAT16},
    {KV_FLOAT32, KV_CHANNEL, .value_bits = 4, .key_bits = 4},
    {KV_BFLOAT16, KV_CHANNEL, .value_bits = 2, .key_bits = 3},
    {KV_BFLOAT16, KV_CHANNEL, .value_bits = 8, .key_bits = 8},
    {KV_BFLOAT16, KV_HQQ, .value_bits = 4, .key_bits = 2, .axis = 0},
    {KV_FLOAT32, KV_HQQ, .value_bits = 2, .key_bits = 4, .axis = 1},
    {KV_BFLOAT16, KV_QUANTO, .value_bits = 4, .key_bits = 4, .axis = 0},
    {KV_FLOAT32, KV_QUANTO, .value_bits = 2, .key_bits = 3, .axis = -1},
    {KV_FLOAT32, KV_HQQ, true, .value_bits = 4, .key_bits = 2, .axis = 0},
    {KV_BFLOAT16, KV_HQQ, true, .value_bits = 3, .key_bits = 4, .axis = 1},
    {KV_BFLOAT16, KV_QUANTO, true, .value_bits = 4, .key_bits = 4, .axis = 0},
    {KV_FLOAT32, KV_QUANTO, true, .value_bits = 2, .key_bits = 8, .axis = -1},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static KvCache *make_cache(int shape, const KvFormat *format, int64_t max_bytes)
{
    KvCache *cache;
    assert_ok(kv_cache_create(&cache, &testing_kv_shapes[shape], format, max_bytes));
    return cache;
}

static void start(TestSequence *s, KvCache *cache, int shape, const KvFormat *format)
{
    s->shape = &testing_kv_shapes[shape];
    s->format = format;
    s->length = s->n_points = 0;
    assert_ok(kv_sequence_create(&s->sequence, cache));
}

// Mostly single tokens, as in decoding, else up to several blocks, as far as the test's lists go.
static int draw_chunk(Draw *draw, const TestSequence *s)
{
    int n = draw_below(draw, 3) < 2 ? 1 : draw_below(draw, MAX_CHUNK + 1);
    return s->length + n <= TEST_KV_TOKENS ? n : 0;
}

// A random run: sequences and what they are made with.
typedef struct Run {
    KvCache *cache;
    int shape;
    const KvFormat *format;
    TestSequence sequences[MAX_SEQUENCES];
    int count;
    Draw draw;
} Run;

static void release_one(Run *run, int i)
{
    kv_sequence_release(run->sequences[i].sequence);
    run->sequences[i] = run->sequences[--run->count];
}

static void append(Run *run, TestSequence *s)
{
    int n = draw_chunk(&run->draw, s);
    assert_ok(kv_sequence_reserve(s->sequence, n));
    testing_kv_write(s, &run->draw, n);
    if (draw_below(&run->draw, 8) == 0)
        testing_kv_check(s, s->length + n);
    testing_kv_commit(s, n);
}

static void operate(Run *run)
{
    int kind = run->count == 0 ? 0 : draw_below(&run->draw, 12);
    TestSequence *s = &run->sequences[run->count == 0 ? 0 : draw_below(&run->draw, run->count)];
    bool has_room = run->count < MAX_SEQUENCES;
    if (kind == 0 && has_room)
        start(&run->sequences[run->count++], run->cache, run->shape, run->format);
    else if (kind == 1 && has_room)
        testing_kv_fork(&run->sequences[run->count++], s);
    else if (kind == 2)
        release_one(run, (int)(s - run->sequences));
    else if (kind == 3) // room that the next append uses, and that a fork has no part in
        assert_ok(kv_sequence_reserve(s->sequence, draw_chunk(&run->draw, s)));
    else if (kind == 4)
        testing_kv_check(s, s->length);
    else if (kind <= 6 && s->n_points == 0)
        testing_kv_end_prompt(s);
    else
        append(run, s);
}

static void test_random_operations(void **state)
{
    (void)state;
    static Run run;
    for (int i = 0; i < TEST_KV_SHAPES * N_FORMATS; i++) {
        run.shape = i / N_FORMATS;
        run.format = &formats[i % N_FORMATS];
        run.cache = make_cache(run.shape, run.format, 0);
        run.draw = (Draw){.key = random_key((uint64_t)i, "operations")};
        for (int step = 0; step < 120; step++)
            operate(&run);
        for (int s = 0; s < run.count; s++)
            testing_kv_check(&run.sequences[s], run.sequences[s].length);
        while (run.count > 0)
            release_one(&run, 0);
        assert_int_equal(kv_cache_bytes(run.cache), 0);
        kv_cache_release(run.cache);
    }
}

// Bytes of 64 tokens as rows and in codes, from shape_cache_numbers() and the bits alone.
static int64_t rows_bytes(int shape, KvType type)
{
    return KV_BLOCK_TOKENS * kv_type_bytes(type) * shape_cache_numbers(&testing_kv_shapes[shape]);
}

static int64_t codes_bytes(int shape, int bits)
{
    return shape_cache_numbers(&testing_kv_shapes[shape]) * (KV_BLOCK_TOKENS * bits + 32) / 8;
}

// Pages hold 64 positions of all layers and nothing else; a fork costs nothing until it is written,
// then one page.
static void test_bytes_and_sharing(void **state)
{
    (void)state;
    static TestSequence prompt, answers[4];
    const KvFormat *format = &formats[1];
    for (int i = 0; i < TEST_KV_SHAPES; i++) {
        KvCache *cache = make_cache(i, format, 0);
        const int64_t page = rows_bytes(i, KV_BFLOAT16);
        assert_true((double)page ==
                    KV_BLOCK_TOKENS * kv_format_bytes_per_token(format, &testing_kv_shapes[i]));
        Draw draw = {.key = 1};
        start(&prompt, cache, i, format);
        testing_kv_append(&prompt, &draw, 100);
        assert_int_equal(kv_cache_bytes(cache), 2 * page);
        for (int a = 0; a < 4; a++)
            testing_kv_fork(&answers[a], &prompt);
        assert_int_equal(kv_cache_bytes(cache), 2 * page);
        for (int a = 0; a < 4; a++)
            testing_kv_append(&answers[a], &draw, 10);
        assert_int_equal(kv_cache_bytes(cache), 6 * page);
        kv_sequence_release(prompt.sequence);
        for (int a = 0; a < 4; a++) {
            testing_kv_check(&answers[a], 110);
            kv_sequence_release(answers[a].sequence);
        }
        assert_int_equal(kv_cache_bytes(cache), 0);
        assert_int_equal(kv_cache_peak_bytes(cache), 6 * page);
        kv_cache_release(cache);
    }
}

// 64 to 127 tokens stay rows; the rest costs what the nominal formula says.
static void test_bytes_of_codes(void **state)
{
    (void)state;
    static TestSequence s;
    const KvFormat *format = &formats[2];
    for (int i = 0; i < TEST_KV_SHAPES; i++) {
        KvCache *cache = make_cache(i, format, 0);
        const int64_t rows = rows_bytes(i, KV_FLOAT32), codes = codes_bytes(i, 4);
        assert_true((double)codes ==
                    KV_BLOCK_TOKENS * kv_format_bytes_per_token(format, &testing_kv_shapes[i]));
        Draw draw = {.key = 1};
        start(&s, cache, i, format);
        testing_kv_append(&s, &draw, 127);
        assert_int_equal(kv_cache_bytes(cache), 2 * rows);
        testing_kv_append(&s, &draw, 1);
        assert_int_equal(kv_cache_bytes(cache), rows + codes);
        testing_kv_append(&s, &draw, 500);
        testing_kv_check(&s, 628);
        assert_int_equal(kv_cache_bytes(cache), 2 * rows + 8 * codes);
        kv_sequence_release(s.sequence);
        kv_cache_release(cache);
    }
}

// What kv_format_sequence_bytes() says is what the cache allocates, whatever the chunks.
static void test_bytes_of_a_sequence(void **state)
{
    (void)state;
    static TestSequence s;
    for (int f = 0; f < N_FORMATS && !formats[f].reference_policy; f++) {
        KvCache *cache = make_cache(f % TEST_KV_SHAPES, &formats[f], 0);
        Draw draw = {.key = (uint64_t)f};
        start(&s, cache, f % TEST_KV_SHAPES, &formats[f]);
        for (int step = 0; step < 8; step++) {
            testing_kv_append(&s, &draw, draw_below(&draw, 80));
            assert_int_equal(kv_cache_bytes(cache),
                             kv_format_sequence_bytes(&formats[f], s.shape, s.length));
        }
        kv_sequence_release(s.sequence);
        kv_cache_release(cache);
    }
}

// Forks that share rows share what these are quantized to.
static void test_codes_are_shared(void **state)
{
    (void)state;
    static TestSequence prompt, answers[4];
    const int64_t rows = rows_bytes(1, KV_FLOAT32), codes = codes_bytes(1, 4);
    KvCache *cache = make_cache(1, &formats[2], 0);
    Draw draw = {.key = 1};
    start(&prompt, cache, 1, &formats[2]);
    testing_kv_append(&prompt, &draw, 64 * 3 + 10); // codes, codes, rows, 10 rows
    for (int a = 0; a < 4; a++)
        testing_kv_fork(&answers[a], &prompt);
    kv_sequence_release(prompt.sequence);
    for (int a = 0; a < 4; a++)
        testing_kv_append(&answers[a], &draw, 60);
    assert_int_equal(kv_cache_bytes(cache), 3 * codes + 4 * 2 * rows);
    for (int a = 0; a < 4; a++) {
        testing_kv_check(&answers[a], answers[a].length);
        kv_sequence_release(answers[a].sequence);
    }
    assert_int_equal(kv_cache_bytes(cache), 0);
    kv_cache_release(cache);
}

// The parent fills and quantizes a page in which a fork has other tokens from some position on. The
// fork and its own fork must not be given the parent's codes.
static void test_codes_of_a_page_that_went_on(void **state)
{
    (void)state;
    static TestSequence parent, child, grandchild;
    KvCache *cache = make_cache(1, &formats[2], 0);
    Draw draw = {.key = 1};
    start(&parent, cache, 1, &formats[2]);
    testing_kv_append(&parent, &draw, 10);
    assert_ok(kv_sequence_reserve(parent.sequence, 150)); // room in the page that is then shared
    testing_kv_fork(&child, &parent);
    testing_kv_write(&parent, &draw, 150);
    testing_kv_commit(&parent, 150);
    testing_kv_check(&child, 10); // the parent's rows behind its own are not seen
    testing_kv_append(&child, &draw, 60);
    testing_kv_fork(&grandchild, &child);
    testing_kv_append(&child, &draw, 70);
    testing_kv_append(&grandchild, &draw, 80);
    TestSequence *all[] = {&parent, &child, &grandchild};
    for (int i = 0; i < 3; i++) {
        testing_kv_check(all[i], all[i]->length);
        kv_sequence_release(all[i]->sequence);
    }
    kv_cache_release(cache);
}

// A refused reservation leaves the sequences as they were, and what another releases is enough.
static void test_limit(void **state)
{
    (void)state;
    static TestSequence a, b;
    const KvFormat *format = &formats[0];
    const int64_t page = rows_bytes(1, KV_FLOAT32);
    KvCache *cache;
    assert_fails(BAD_INPUT, "64 tokens of one sequence",
                 kv_cache_create(&cache, &testing_kv_shapes[1], format, page - 1));
    cache = make_cache(1, format, 4 * page);
    Draw draw = {.key = 2};
    start(&a, cache, 1, format);
    testing_kv_append(&a, &draw, 170);
    testing_kv_fork(&b, &a);
    testing_kv_append(&b, &draw, 1);
    assert_int_equal(kv_cache_bytes(cache), 4 * page);
    assert_fails(FAILED, "MiB more are needed", kv_sequence_reserve(a.sequence, 30));
    testing_kv_append(&a, &draw, 22);
    assert_fails(FAILED, "in use", kv_sequence_reserve(a.sequence, 1));
    testing_kv_check(&a, 192);
    testing_kv_check(&b, 171);
    kv_sequence_release(b.sequence);
    testing_kv_append(&a, &draw, 64);
    testing_kv_check(&a, 256);
    assert_int_equal(kv_cache_peak_bytes(cache), 4 * page);
    kv_sequence_release(a.sequence);
    kv_cache_release(cache);
}

// Room for rows includes that for their codes: a commit after it cannot fail, and nothing of a
// refused reservation stays behind.
static void test_limit_with_codes(void **state)
{
    (void)state;
    static TestSequence s;
    const int64_t rows = rows_bytes(0, KV_FLOAT32), codes = codes_bytes(0, 4);
    KvCache *cache = make_cache(0, &formats[2], 2 * rows + codes);
    Draw draw = {.key = 3};
    start(&s, cache, 0, &formats[2]);
    assert_fails(FAILED, "are in use", kv_sequence_reserve(s.sequence, 129));
    assert_int_equal(kv_cache_bytes(cache), 0);
    testing_kv_append(&s, &draw, 127);
    testing_kv_append(&s, &draw, 1);
    assert_int_equal(kv_cache_bytes(cache), rows + codes);
    testing_kv_append(&s, &draw, 1);
    testing_kv_append(&s, &draw, 62);
    assert_fails(FAILED, "are in use", kv_sequence_reserve(s.sequence, 1));
    testing_kv_check(&s, 191);
    kv_sequence_release(s.sequence);
    kv_cache_release(cache);
}

// Rows that a sequence has left unused make room for another's codes: their memory goes back to the
// system, and comes again as good as new.
static void test_unused_memory_makes_room(void **state)
{
    (void)state;
    static TestSequence s, other;
    const int64_t rows = rows_bytes(0, KV_FLOAT32), codes = codes_bytes(0, 4);
    KvCache *cache = make_cache(0, &formats[2], 5 * rows);
    Draw draw = {.key = 5};
    for (int round = 0; round < 2; round++) {
        start(&s, cache, 0, &formats[2]);
        start(&other, cache, 0, &formats[2]);
        testing_kv_append(&s, &draw, 127);
        testing_kv_append(&other, &draw, 100);
        testing_kv_check(&other, 100);
        kv_sequence_release(other.sequence);
        while (s.length < 600)
            testing_kv_append(&s, &draw, 43);
        testing_kv_check(&s, s.length);
        assert_int_equal(kv_cache_bytes(cache), 2 * rows + 8 * codes);
        kv_sequence_release(s.sequence);
    }
    kv_cache_release(cache);
}

// A prompt for whose codes there is no room beside its rows stays rows, and can be quantized once
// there is.
static void test_limit_of_the_reference_policy(void **state)
{
    (void)state;
    static TestSequence s, other;
    const KvFormat format = {KV_FLOAT32, KV_HQQ, true, .value_bits = 4, .key_bits = 4};
    const int64_t rows = rows_bytes(1, KV_FLOAT32);
    KvCache *cache = make_cache(1, &format, 4 * rows);
    Draw draw = {.key = 4};
    start(&other, cache, 1, &format);
    testing_kv_append(&other, &draw, 1);
    start(&s, cache, 1, &format);
    testing_kv_append(&s, &draw, 130);
    assert_fails(FAILED, "are in use", kv_sequence_end_prompt(s.sequence));
    testing_kv_check(&s, 130);
    assert_int_equal(kv_cache_bytes(cache), 4 * rows);
    kv_sequence_release(other.sequence);
    testing_kv_end_prompt(&s);
    testing_kv_check(&s, 130);
    // The page of positions 128 to 191, and 64 codes of 4 bits with a scale and a zero of 32 for
    // each begun 64 of the 130 x 12 key numbers and the 130 x 15 of the latent.
    assert_int_equal(kv_cache_bytes(cache), rows + 3 * (25 + 31) * (32 + 8));
    kv_sequence_release(s.sequence);
    assert_int_equal(kv_cache_bytes(cache), 0);
    kv_cache_release(cache);
}

// A commit that cannot quantize changes nothing; once there is memory the step can be done again.
static void test_commit_that_fails(void **state)
{
    (void)state;
    static TestSequence s, other;
    const KvFormat format = {KV_BFLOAT16, KV_QUANTO, true, .value_bits = 8, .key_bits = 8};
    const int64_t rows = rows_bytes(1, KV_BFLOAT16);
    KvCache *cache = make_cache(1, &format, 5 * rows);
    Draw draw = {.key = 6};
    start(&other, cache, 1, &format);
    testing_kv_append(&other, &draw, 64);
    start(&s, cache, 1, &format);
    testing_kv_append(&s, &draw, 20);
    testing_kv_end_prompt(&s);
    for (int i = 0; i < 127; i++)
        testing_kv_append(&s, &draw, 1);
    assert_ok(kv_sequence_reserve(s.sequence, 1));
    testing_kv_write(&s, &draw, 1);
    assert_fails(FAILED, "are in use", kv_sequence_commit(s.sequence, 1));
    testing_kv_check(&s, 148);
    kv_sequence_release(other.sequence);
    testing_kv_append(&s, &draw, 1);
    assert_int_equal(s.n_points, 2);
    testing_kv_check(&s, 148);
    kv_sequence_release(s.sequence);
    kv_cache_release(cache);
}

// All lines of a block are asked for, once, in as many slices; more slices ask for nothing.
static void test_slices_of_a_fetch_cover_the_block(void **state)
{
    (void)state;
    enum { CHANNELS = 5, N_SLICES = 3 };
    static uint16_t rows[CHANNELS * KV_BLOCK_TOKENS];
    const KvBlock block = {.kind = KV_ROWS,
                           .key_part = {1, 2},
                           .value_part = {1, CHANNELS - 2},
                           .type = KV_BFLOAT16,
                           .key = rows,
                           .value = rows + 2 * KV_BLOCK_TOKENS};
    KvFetch fetch = kv_block_fetch(&block, N_SLICES);
    assert_int_equal(fetch.n_lines, sizeof rows / 64);
    for (int slice = 0; slice < N_SLICES; slice++)
        kv_fetch_slice(&fetch);
    assert_int_equal(fetch.n_lines, 0);
    assert_ptr_equal(fetch.at, (const char *)rows + sizeof rows);
    kv_fetch_slice(&fetch);
    assert_int_equal(fetch.n_lines, 0);
    assert_ptr_equal(fetch.at, (const char *)rows + sizeof rows);
}

// ---- factors of normed keys --------------------------------------------------------------------

enum { N_FACTORS = 3 };

// Of head j of a token, in a sequence whose tokens from 150 on are `branch`.
static float factor_of(int position, int layer, int j, int branch)
{
    return (float)(position + 1) / 3 + (float)(100 * layer + 10 * j) +
           (position < 150 ? 0 : 0.25f * (float)branch);
}

static void append_factors(KvSequence *sequence, const ModelShape *shape, int n, int branch)
{
    const int n_key = kv_part_channels(kv_key_part(shape)),
              n_value = kv_part_channels(kv_value_part(shape)), ld = n_value + N_FACTORS;
    const int first = kv_sequence_length(sequence);
    float *key = test_calloc((size_t)(n * n_key), sizeof *key),
          *value = test_calloc((size_t)(n * ld), sizeof *value);
    assert_ok(kv_sequence_reserve(sequence, n));
    for (int layer = 0; layer < shape->n_layers; layer++) {
        for (int i = 0; i < n * N_FACTORS; i++)
            value[i / N_FACTORS * ld + n_value + i % N_FACTORS] =
                factor_of(first + i / N_FACTORS, layer, i % N_FACTORS, branch);
        kv_write(sequence, layer, key, n_key, value, ld, n);
    }
    assert_ok(kv_sequence_commit(sequence, n));
    test_free(key);
    test_free(value);
}

static void expect_factors(const KvSequence *sequence, const ModelShape *shape, int branch)
{
    const int length = kv_sequence_length(sequence);
    for (int layer = 0; layer < shape->n_layers; layer++)
        for (int t = 0; t < length; t++) {
            const KvBlock block = kv_block(sequence, layer, t / 64);
            for (int j = 0; j < N_FACTORS; j++)
                assert_true(block.key_factor[j * 64 + t % 64] == factor_of(t, layer, j, branch));
        }
}

// A fork in the middle of a block, both going on until what they share and what they do not is in
// codes.
static void factors_are_exact_in_every_format(void **state)
{
    (void)state;
    static const KvFormat all[] = {{KV_FLOAT32},
                                   {KV_BFLOAT16},
                                   {KV_BFLOAT16, KV_CHANNEL, false, 2, 4, 0},
                                   {KV_FLOAT32, KV_HQQ, false, 3, 3, 0}};
    ModelShape shape = testing_kv_shapes[1];
    shape.qk_norm = true;
    assert_int_equal(shape_key_factors(&shape), N_FACTORS);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        KvCache *cache;
        KvSequence *parent, *fork;
        assert_ok(kv_cache_create(&cache, &shape, &all[i], 0));
        assert_ok(kv_sequence_create(&parent, cache));
        append_factors(parent, &shape, 97, 0);
        append_factors(parent, &shape, 53, 0);
        assert_ok(kv_sequence_fork(&fork, parent));
        for (int t = 0; t < 120; t++) {
            append_factors(parent, &shape, 1, 0);
            append_factors(fork, &shape, 1, 1);
        }
        expect_factors(parent, &shape, 0);
        expect_factors(fork, &shape, 1);
        kv_sequence_release(fork);
        kv_sequence_release(parent);
        kv_cache_release(cache);
    }
    const KvFormat reference = {KV_FLOAT32, KV_HQQ, true, 4, 4, 0};
    assert_fails(BAD_INPUT, "factors of a converted model's normed keys",
                 kv_format_check(&reference, &shape));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_bytes_and_sharing),
        cmocka_unit_test(test_bytes_of_codes),
        cmocka_unit_test(test_bytes_of_a_sequence),
        cmocka_unit_test(test_codes_are_shared),
        cmocka_unit_test(test_codes_of_a_page_that_went_on),
        cmocka_unit_test(test_slices_of_a_fetch_cover_the_block),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_limit_with_codes),
        cmocka_unit_test(test_unused_memory_makes_room),
        cmocka_unit_test(test_limit_of_the_reference_policy),
        cmocka_unit_test(test_commit_that_fails),
        cmocka_unit_test(factors_are_exact_in_every_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
