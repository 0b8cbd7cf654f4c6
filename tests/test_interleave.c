// data/mixture and data/interleave: shares at every point, purity, epochs, shards, errors.
#include "tests/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "data/interleave.h"
#include "data/mixture.h"
#include "data/shard.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHA   "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

enum { T = 16, VOCAB = 1000 };

// The largest |count - share * i| over all sources and all i up to n_samples.
static double worst_share_error(const double *weights, int n, int64_t n_samples)
{
    int64_t counts[32] = {0};
    double sum = 0, worst = 0;
    for (int s = 0; s < n; s++)
        sum += weights[s];
    Interleave *turns;
    assert_ok(interleave_create(&turns, weights, n));
    for (int64_t i = 0; i < n_samples; i++) {
        int64_t nth;
        int source = interleave_at(turns, i, &nth);
        assert_int_equal(nth, counts[source]);
        counts[source]++;
        for (int s = 0; s < n; s++)
            worst = fmax(worst, fabs((double)counts[s] - weights[s] / sum * (double)(i + 1)));
    }
    interleave_destroy(turns);
    return worst;
}

static void test_shares_are_within_one_sample_at_every_point(void **state)
{
    (void)state;
    const double paper[] = {0.70, 0.15, 0.08, 0.06, 0.01};
    const double equal[] = {1, 1, 1, 1, 1, 1, 1};
    const double one[] = {3};
    const double steep[] = {1e6, 1, 1, 1e-3};
    double many[20];
    for (int i = 0; i < 20; i++)
        many[i] = (double)(random_bits(5, (uint64_t)i) >> 11);
    const double observed[] = {worst_share_error(paper, 5, 100000),
                               worst_share_error(equal, 7, 100000), worst_share_error(one, 1, 1000),
                               worst_share_error(steep, 4, 100000),
                               worst_share_error(many, 20, 100000)};
    // The theorem's bound is 1 - 1/(2k-2); seen 0.86, 0.857, 0, 0.2001, 0.97368.
    assert_true(observed[0] <= 1 - 1.0 / 8 + 1e-6);
    assert_true(observed[1] <= 1 - 1.0 / 12 + 1e-6);
    assert_true(observed[2] == 0);
    assert_true(observed[3] <= 1 - 1.0 / 6 + 1e-6);
    assert_true(observed[4] <= 1 - 1.0 / 38 + 1e-6);
}

static void test_many_random_weight_sets_keep_their_shares(void **state)
{
    (void)state;
    double worst = -1;
    for (uint64_t set = 0; set < 100; set++) {
        double weights[12];
        int n = 2 + (int)(set % 11);
        for (int i = 0; i < n; i++)
            weights[i] = pow(10, -3.0 * (double)(random_bits(set, (uint64_t)i) >> 11) * 0x1p-53);
        worst = fmax(worst, worst_share_error(weights, n, 3000) - (1 - 1.0 / (2 * n - 2)));
    }
    assert_true(worst <= 1e-6); // seen -2.6e-6
}

static void test_answers_do_not_depend_on_the_order_of_questions(void **state)
{
    (void)state;
    enum { N = 200000 };
    const double weights[] = {0.70, 0.15, 0.08, 0.06, 0.01};
    static int sources[N];
    static int64_t counts[N];
    Interleave *turns;
    assert_ok(interleave_create(&turns, weights, 5));
    for (int i = 0; i < N; i++)
        sources[i] = interleave_at(turns, i, &counts[i]);
    for (uint64_t q = 0; q < 60; q++) {
        int64_t index = (int64_t)(random_bits(9, q) % N), nth;
        assert_int_equal(interleave_at(turns, index, &nth), sources[index]);
        assert_int_equal(nth, counts[index]);
    }
    interleave_destroy(turns);
}

static void test_ten_million_samples_are_walked_quickly(void **state)
{
    (void)state;
    const double weights[] = {0.70, 0.15, 0.08, 0.06, 0.01};
    Interleave *turns;
    assert_ok(interleave_create(&turns, weights, 5));
    int64_t nth;
    double start = log_seconds();
    interleave_at(turns, 10000000, &nth);
    double elapsed_s = log_seconds() - start;
    interleave_destroy(turns);
    assert_true(elapsed_s < 10); // seen 0.3 to 0.4
}

static void test_bad_weights_are_refused(void **state)
{
    (void)state;
    Interleave *turns;
    const double zero[] = {1, 0}, negative[] = {-1}, nan[] = {NAN}, tiny[] = {1, 1e-13, 1};
    const double huge[] = {1e308, 1e308};
    assert_fails(BAD_INPUT, "source 1 has weight 0", interleave_create(&turns, zero, 2));
    assert_fails(BAD_INPUT, "source 0 has weight -1", interleave_create(&turns, negative, 1));
    assert_fails(BAD_INPUT, "source 0 has weight nan", interleave_create(&turns, nan, 1));
    assert_fails(BAD_INPUT, "too small a share", interleave_create(&turns, tiny, 3));
    assert_fails(BAD_INPUT, "too small a share", interleave_create(&turns, huge, 2));
}

// A shard whose token i is base + i.
static void make_shard(const char *dir, const char *name, int base, int n_tokens, const char *sha)
{
    ShardInfo info = {.vocab_size = 2 * VOCAB, .eos_id = -1};
    strcpy(info.tokenizer_sha256, sha);
    ShardWriter *writer;
    assert_ok(shard_create(&writer, testing_path(dir, name), &info));
    int32_t ids[VOCAB];
    for (int i = 0; i < n_tokens; i++)
        ids[i] = base + i;
    assert_ok(shard_append(writer, ids, n_tokens));
    assert_ok(shard_finish(writer));
}

typedef struct Fixture {
    char pattern_a[PATH_BYTES], path_b[PATH_BYTES];
    char *shards_a[1], *shards_b[1];
    SourceSpec specs[2];
} Fixture;

// Source a: shards of 3, 0 and 2 samples; source b: one of 4. Every token tells where it is from.
static void set_up(Fixture *f)
{
    const char *dir = testing_dir();
    make_shard(dir, "a-0.h5", 0, 3 * T + 5, SHA);
    make_shard(dir, "a-1.h5", 100, T, SHA);
    make_shard(dir, "a-2.h5", 200, 2 * T + 1, SHA);
    make_shard(dir, "b.h5", 500, 4 * T + 1, SHA);
    strcpy(f->pattern_a, testing_path(dir, "a-*.h5"));
    strcpy(f->path_b, testing_path(dir, "b.h5"));
    f->shards_a[0] = f->pattern_a;
    f->shards_b[0] = f->path_b;
    static char name_a[] = "web", name_b[] = "code";
    f->specs[0] = (SourceSpec){name_a, f->shards_a, 1, 3};
    f->specs[1] = (SourceSpec){name_b, f->shards_b, 1, 1};
}

static void test_samples_are_windows_within_shards(void **state)
{
    (void)state;
    Fixture f;
    set_up(&f);
    Mixture *mixture;
    assert_ok(mixture_open(&mixture, f.specs, 2, T, 1, SHA, VOCAB));
    assert_int_equal(mixture_n_samples(mixture), 9);
    // Weights 3 : 1, so 300 samples of a (60 epochs of 5) and 100 of b (25 epochs of 4).
    int seen[VOCAB] = {0}, n_a = 0;
    for (int64_t i = 0; i < 400; i++) {
        int32_t tokens[T + 1];
        assert_ok(mixture_read(mixture, i, tokens));
        for (int t = 1; t <= T; t++)
            assert_int_equal(tokens[t], tokens[0] + t);
        seen[tokens[0]]++;
        n_a += tokens[0] < 500;
    }
    assert_int_equal(n_a, 300);
    const int starts_a[] = {0, T, 2 * T, 200, 200 + T};
    for (int s = 0; s < 5; s++)
        assert_int_equal(seen[starts_a[s]], 60);
    for (int s = 0; s < 4; s++)
        assert_int_equal(seen[500 + s * T], 25);
    mixture_close(mixture);
}

static void test_every_epoch_has_each_sample_once_in_its_own_order(void **state)
{
    (void)state;
    Fixture f;
    set_up(&f);
    Mixture *mixture;
    assert_ok(mixture_open(&mixture, &f.specs[1], 1, T, 7, SHA, VOCAB));
    int distinct_orders = 0, before = -1;
    for (int64_t epoch = 0; epoch < 20; epoch++) {
        int order = 0, seen = 0;
        for (int64_t i = 0; i < 4; i++) {
            int32_t tokens[T + 1];
            assert_ok(mixture_read(mixture, 4 * epoch + i, tokens));
            seen |= 1 << (tokens[0] - 500) / T;
            order = 4 * order + (tokens[0] - 500) / T;
        }
        assert_int_equal(seen, 15);
        distinct_orders += order != before;
        before = order;
    }
    assert_true(distinct_orders >= 15); // of 20, with 24 orders to draw from; seen 20
    mixture_close(mixture);
}

static void test_seeds_give_other_orders_and_the_same_seed_the_same(void **state)
{
    (void)state;
    Fixture f;
    set_up(&f);
    Mixture *one, *again, *other;
    assert_ok(mixture_open(&one, f.specs, 2, T, 1, SHA, VOCAB));
    assert_ok(mixture_open(&again, f.specs, 2, T, 1, NULL, VOCAB));
    assert_ok(mixture_open(&other, f.specs, 2, T, 2, SHA, VOCAB));
    int same = 0;
    for (int64_t i = 99; i >= 0; i--) {
        int32_t a[T + 1], b[T + 1], c[T + 1];
        assert_ok(mixture_read(one, i, a));
        assert_ok(mixture_read(again, 99 - i, b)); // in the other direction
        assert_ok(mixture_read(again, i, b));
        assert_ok(mixture_read(other, i, c));
        assert_memory_equal(a, b, sizeof a);
        same += a[0] == c[0];
    }
    assert_in_range(same, 5, 45); // chances of 1/5 and 1/4: 21 expected, sd 4.6; seen 32
    mixture_close(one);
    mixture_close(again);
    mixture_close(other);
}

static void test_describe_names_the_sample(void **state)
{
    (void)state;
    Fixture f;
    set_up(&f);
    Mixture *mixture;
    assert_ok(mixture_open(&mixture, &f.specs[1], 1, T, 7, SHA, VOCAB));
    int32_t tokens[T + 1];
    char text[PATH_BYTES + 100], expected[100];
    assert_ok(mixture_read(mixture, 6, tokens));
    const int first = tokens[0] - 500;
    snprintf(expected, sizeof expected, "code epoch 1 sample %d (tokens %d.. of ", first / T,
             first);
    mixture_describe(mixture, 6, text, sizeof text);
    assert_memory_equal(text, expected, strlen(expected));
    mixture_close(mixture);
}

static void check_refused(Fixture *f, const char *text, int seq_len, const char *sha)
{
    Mixture *mixture;
    assert_fails(BAD_INPUT, text, mixture_open(&mixture, f->specs, 2, seq_len, 1, sha, VOCAB));
}

static void test_bad_sources_are_refused(void **state)
{
    (void)state;
    Fixture f;
    set_up(&f);
    check_refused(&f, "source 'web': no shard holds a sample of 60 + 1 tokens", 60, SHA);
    check_refused(&f, "a-0.h5: made with tokenizer 0123456789ab, the model has fedcba987654", T,
                  OTHER);
    check_refused(&f, "seq_len 0", 0, SHA);
    f.specs[1].n_shards = 0;
    check_refused(&f, "source 'code': no shards are named", T, SHA);
    f.specs[1].n_shards = 1;
    strcat(f.path_b, ".*.no");
    check_refused(&f, "b.h5.*.no: no such file", T, SHA);
    f.specs[0].weight = 0;
    check_refused(&f, "source 0 has weight 0", T, SHA);
}

static void test_shards_of_two_tokenizers_do_not_mix(void **state)
{
    (void)state;
    Fixture f;
    set_up(&f);
    const char *slash = strrchr(f.path_b, '/');
    char dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%.*s", (int)(slash - f.path_b), f.path_b);
    make_shard(dir, "b.h5", 500, 4 * T + 1, OTHER);
    check_refused(&f, "b.h5: made with tokenizer fedcba987654, ", T, NULL);
}

static void test_ids_beyond_the_model_are_refused_when_read(void **state)
{
    (void)state;
    Fixture f;
    set_up(&f);
    Mixture *mixture;
    assert_ok(mixture_open(&mixture, &f.specs[1], 1, 4 * T, 1, SHA, 520));
    int32_t tokens[4 * T + 1];
    assert_fails(BAD_INPUT, "b.h5: token 20 is 520, the model's vocabulary has 520",
                 mixture_read(mixture, 0, tokens));
    mixture_close(mixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_are_within_one_sample_at_every_point),
        cmocka_unit_test(test_many_random_weight_sets_keep_their_shares),
        cmocka_unit_test(test_answers_do_not_depend_on_the_order_of_questions),
        cmocka_unit_test(test_ten_million_samples_are_walked_quickly),
        cmocka_unit_test(test_bad_weights_are_refused),
        cmocka_unit_test(test_samples_are_windows_within_shards),
        cmocka_unit_test(test_every_epoch_has_each_sample_once_in_its_own_order),
        cmocka_unit_test(test_seeds_give_other_orders_and_the_same_seed_the_same),
        cmocka_unit_test(test_describe_names_the_sample),
        cmocka_unit_test(test_bad_sources_are_refused),
        cmocka_unit_test(test_shards_of_two_tokenizers_do_not_mix),
        cmocka_unit_test(test_ids_beyond_the_model_are_refused_when_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
