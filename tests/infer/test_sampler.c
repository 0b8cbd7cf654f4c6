// infer/sampler: the filters against transformers' on the logits of a model, and the draws.
#include "tests/support/testing.h"

#include "base/json.h"
#include "infer/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V = 512, MAX_HISTORY = 64 };

static const SamplerOptions neutral = {
    .temperature = 1, .top_p = 1, .repetition_penalty = 1, .repeat_last_n = SAMPLER_WHOLE_HISTORY};

static int by_probability(const void *a, const void *b)
{
    const SamplerChoice *x = a, *y = b;
    return (x->probability < y->probability) - (x->probability > y->probability);
}

static void set_options(SamplerOptions *out, const json_t *params)
{
    const json_t *value;
    *out = neutral;
    if ((value = json_object_get(params, "temperature")) != NULL)
        out->temperature = json_number_value(value);
    if ((value = json_object_get(params, "top_k")) != NULL)
        out->top_k = (int)json_integer_value(value);
    if ((value = json_object_get(params, "top_p")) != NULL)
        out->top_p = json_number_value(value);
    if ((value = json_object_get(params, "min_p")) != NULL)
        out->min_p = json_number_value(value);
    if ((value = json_object_get(params, "repetition_penalty")) != NULL)
        out->repetition_penalty = json_number_value(value);
}

// The file lists the most likely 64 of those kept, with probabilities of seven decimals.
static void check_case(const json_t *item, const float *logits, const int32_t *history, int n)
{
    const json_t *ids = json_object_get(item, "ids"), *probs = json_object_get(item, "probs");
    SamplerOptions options;
    Sampler *sampler;
    const SamplerChoice *choices;
    set_options(&options, json_object_get(item, "params"));
    assert_ok(sampler_create(&sampler, &options, V));
    const int n_kept = sampler_filter(sampler, &choices, logits, history, n);
    assert_int_equal(n_kept, json_integer_value(json_object_get(item, "kept")));
    SamplerChoice sorted[V];
    memcpy(sorted, choices, (size_t)n_kept * sizeof *choices);
    qsort(sorted, (size_t)n_kept, sizeof *sorted, by_probability);
    double total = 0;
    for (int i = 0; i < n_kept; i++)
        total += sorted[i].probability;
    assert_true(fabs(total - 1) < 1e-12);
    assert_true((int)json_array_size(ids) == (n_kept < 64 ? n_kept : 64));
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const double expected = json_number_value(json_array_get(probs, i));
        // Equally likely ones are in another order.
        bool is_found = false;
        for (int k = 0; k < n_kept; k++)
            is_found |= sorted[k].id == json_integer_value(json_array_get(ids, i)) &&
                        fabs(sorted[k].probability - expected) < 2e-7; // seen 1.4e-7
        assert_true(is_found);
    }
    sampler_release(sampler);
}

static void test_filters_match_transformers(void **state)
{
    (void)state;
    json_t *golden;
    float logits[V];
    int32_t history[MAX_HISTORY];
    assert_ok(json_read(&golden, testing_asset("golden/sampling.json")));
    const json_t *values = json_object_get(golden, "logits");
    const json_t *context = json_object_get(golden, "context_ids");
    const json_t *cases = json_object_get(golden, "cases");
    assert_int_equal(json_array_size(values), V);
    for (size_t i = 0; i < V; i++)
        logits[i] = (float)json_number_value(json_array_get(values, i));
    const size_t n = json_array_size(context);
    for (size_t i = 0; i < n; i++)
        history[i] = (int32_t)json_integer_value(json_array_get(context, i));
    assert_int_equal(json_array_size(cases), 10);
    for (size_t i = 0; i < 10; i++)
        check_case(json_array_get(cases, i), logits, history, (int)n);
    json_decref(golden);
}

// Which ids of `logits` [n] are kept, as a bit mask.
static unsigned kept(const SamplerOptions *options, const float *logits, int n)
{
    Sampler *sampler;
    const SamplerChoice *choices;
    unsigned mask = 0;
    assert_ok(sampler_create(&sampler, options, n));
    const int n_kept = sampler_filter(sampler, &choices, logits, NULL, 0);
    for (int i = 0; i < n_kept; i++)
        mask |= 1u << choices[i].id;
    sampler_release(sampler);
    return mask;
}

static void test_ties_with_the_kth_are_kept(void **state)
{
    (void)state;
    const float logits[] = {1, 3, 2, 2, 2, 0};
    SamplerOptions options = neutral;
    options.top_k = 2;
    assert_int_equal(kept(&options, logits, 6), 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4);
    options.top_k = 5;
    assert_int_equal(kept(&options, logits, 6), 0x1f);
    options.top_k = 7; // more than there are
    assert_int_equal(kept(&options, logits, 6), 0x3f);
}

static void test_penalty_looks_back_as_far_as_asked(void **state)
{
    (void)state;
    const float logits[] = {4, 3.9f, 3.8f, -1};
    const int32_t history[] = {0, 1, 1, 3};
    SamplerStream stream = {0};
    SamplerOptions options = neutral;
    options.temperature = 0;
    options.repetition_penalty = 2;
    static const struct {
        int last_n;
        int32_t id;
    } cases[] = {{SAMPLER_WHOLE_HISTORY, 2}, {0, 0}, {3, 0}, {4, 2}, {100, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Sampler *sampler;
        options.repeat_last_n = cases[i].last_n;
        assert_ok(sampler_create(&sampler, &options, 4));
        assert_int_equal(sampler_draw(sampler, &stream, logits, history, 4), cases[i].id);
        sampler_release(sampler);
    }
    assert_int_equal(stream.n_drawn, 0); // greedy uses no random numbers
}

// 20,000 draws from three tokens: each share within four standard deviations.
static void test_draws_have_the_probabilities(void **state)
{
    (void)state;
    enum { N = 20000 };
    const float logits[] = {logf(0.6f), -INFINITY, logf(0.3f), logf(0.1f)};
    const double expected[] = {0.6, 0, 0.3, 0.1};
    int counts[4] = {0};
    Sampler *sampler;
    SamplerStream stream = {.key = sampler_key(42, 3, 1)};
    assert_ok(sampler_create(&sampler, &neutral, 4));
    for (int i = 0; i < N; i++)
        counts[sampler_draw(sampler, &stream, logits, NULL, 0)]++;
    for (int i = 0; i < 4; i++) {
        const double p = expected[i], deviation = sqrt(p * (1 - p) * N);
        assert_true(fabs(counts[i] - p * N) <= 4 * deviation);
    }
    assert_int_equal(stream.n_drawn, N);
    sampler_release(sampler);
}

static void test_streams_differ_by_seed_prompt_and_sample(void **state)
{
    (void)state;
    const uint64_t key = sampler_key(1, 0, 0);
    assert_true(key != sampler_key(2, 0, 0));
    assert_true(key != sampler_key(1, 1, 0));
    assert_true(key != sampler_key(1, 0, 1));
    assert_true(sampler_key(1, 1, 0) != sampler_key(1, 0, 1));
    assert_true(key == sampler_key(1, 0, 0));
}

// A temperature that is nearly 0 is greedy, without overflow.
static void test_small_temperatures_do_not_overflow(void **state)
{
    (void)state;
    const float logits[] = {-1e30f, 2, 1.9f, -INFINITY};
    static const double temperatures[] = {1e-3, 1e-30, 1e-310};
    for (size_t i = 0; i < 3; i++) {
        SamplerStream stream = {.key = 7};
        SamplerOptions options = neutral;
        Sampler *sampler;
        options.temperature = temperatures[i];
        options.top_k = 3;
        options.top_p = 0.9;
        assert_ok(sampler_create(&sampler, &options, 4));
        assert_int_equal(sampler_draw(sampler, &stream, logits, NULL, 0), 1);
        sampler_release(sampler);
    }
}

static void test_logits_that_are_no_numbers_are_told(void **state)
{
    (void)state;
    const float bad[][2] = {{0, NAN}, {INFINITY, 0}, {-INFINITY, -INFINITY}};
    for (int temperature = 0; temperature < 2; temperature++) {
        SamplerOptions options = neutral;
        Sampler *sampler;
        options.temperature = temperature;
        assert_ok(sampler_create(&sampler, &options, 2));
        for (int i = 0; i < 3; i++) {
            SamplerStream stream = {0};
            assert_int_equal(sampler_draw(sampler, &stream, bad[i], NULL, 0), -1);
        }
        sampler_release(sampler);
    }
}

static void test_options_out_of_bounds_are_named(void **state)
{
    (void)state;
    SamplerOptions options = neutral;
    assert_ok(sampler_check(&options));
    options.temperature = -1;
    assert_fails(BAD_INPUT, "temperature is -1, allowed are 0 and more", sampler_check(&options));
    options = neutral;
    options.top_p = 0;
    assert_fails(BAD_INPUT, "top-p is 0, allowed are more than 0", sampler_check(&options));
    options = neutral;
    options.min_p = 1.5;
    assert_fails(BAD_INPUT, "min-p is 1.5, allowed are 0 to 1", sampler_check(&options));
    options = neutral;
    options.repetition_penalty = 0;
    assert_fails(BAD_INPUT, "repetition-penalty is 0", sampler_check(&options));
    options = neutral;
    options.repeat_last_n = -2;
    assert_fails(BAD_INPUT, "repeat-last-n is -2", sampler_check(&options));
    options = neutral;
    options.top_k = -1;
    assert_fails(BAD_INPUT, "top-k is -1", sampler_check(&options));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filters_match_transformers),
        cmocka_unit_test(test_ties_with_the_kth_are_kept),
        cmocka_unit_test(test_penalty_looks_back_as_far_as_asked),
        cmocka_unit_test(test_draws_have_the_probabilities),
        cmocka_unit_test(test_streams_differ_by_seed_prompt_and_sample),
        cmocka_unit_test(test_small_temperatures_do_not_overflow),
        cmocka_unit_test(test_logits_that_are_no_numbers_are_told),
        cmocka_unit_test(test_options_out_of_bounds_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
