// infer/generator: answers do not depend on what is decoded beside them; each reason to end one.
#include "tests/support/testing.h"

#include "base/random.h"
#include "data/tokenizer/tokenizer_text.h"
#include "infer/generator.h"
#include "model/model.h"
#include "tests/support/testing_model.h"

#include <stdlib.h>
#include <string.h>

enum { N_PROMPTS = 7, N_SAMPLES = 3, N_ANSWERS = N_PROMPTS * N_SAMPLES, CONTEXT = 90, CHUNK = 16 };

// An answer as the events told it.
typedef struct Told {
    int32_t ids[CONTEXT];
    int64_t n_ids;
    Bytes text;
    AnswerEnd end;
    int stop;
    int n_ends;
} Told;

typedef struct World {
    Tokenizer *tokenizer;
    Model model;
    InferWeights weights;
    int32_t ids[N_PROMPTS][CONTEXT];
    GeneratorPrompt prompts[N_PROMPTS];
    Told told[N_ANSWERS];
    int n_polls, stop_at_poll; // is_stopped() is true from this call on; 0: never
    int64_t cache_bytes;       // what the sequences held at the end of the last run
} World;

static World *world; // is_stopped() has no argument

static Status on_text(void *context, const GeneratorPrompt *prompt, int sample, const char *text,
                      int64_t size)
{
    World *w = context;
    Told *told = &w->told[prompt->index * N_SAMPLES + sample];
    assert_int_equal(told->n_ends, 0);
    assert_true(size > 0);
    return bytes_append(&told->text, text, size);
}

static Status on_end(void *context, const Answer *answer)
{
    World *w = context;
    Told *told = &w->told[answer->prompt->index * N_SAMPLES + answer->sample];
    memcpy(told->ids, answer->ids, (size_t)answer->n_ids * sizeof *told->ids);
    told->n_ids = answer->n_ids;
    told->end = answer->end;
    told->stop = answer->stop;
    told->n_ends++;
    return OK;
}

static bool is_stopped(void)
{
    return ++world->n_polls >= world->stop_at_poll && world->stop_at_poll > 0;
}

static void forget_told(World *w)
{
    for (int i = 0; i < N_ANSWERS; i++)
        bytes_release(&w->told[i].text);
    memset(w->told, 0, sizeof w->told);
    w->n_polls = 0;
}

// A random MLA model of the tiny byte-level tokenizer's ids; prompts of 1 to 40 tokens.
static int start_world(void **state)
{
    World *w = calloc(1, sizeof *w);
    assert_non_null(w);
    assert_ok(tokenizer_load(&w->tokenizer, GOLDEN_DIR "/tokenizer/tiny_bytelevel"));
    const int V = tokenizer_vocab_size(w->tokenizer);
    const ModelShape shape = {.n_layers = 2,
                              .d_model = 32,
                              .n_heads = 4,
                              .n_kv_heads = 2,
                              .head_dim = 8,
                              .d_ffn = 40,
                              .vocab_size = V,
                              .max_positions = 128,
                              .rope_pairs = 2,
                              .d_kv = 6,
                              .rope_theta = 500,
                              .rms_eps = 1e-5};
    assert_ok(model_create(&w->model, &shape));
    model_init_random(&w->model, 0.25, 3);
    for (int i = 0; i < shape.n_layers * shape.n_kv_heads * shape.rope_pairs; i++)
        w->model.rope_pairs[i] = i % shape.rope_pairs;
    const WeightSource source = testing_model_weights(&w->model);
    assert_ok(
        infer_weights_read(&w->weights, &source, w->model.rope_pairs, DTYPE_F32, COMPUTE_FLOAT32));
    for (int p = 0; p < N_PROMPTS; p++) {
        const int n = p == 0 ? 1 : p * 6;
        for (int i = 0; i < n; i++)
            w->ids[p][i] = (int32_t)(random_bits((uint64_t)p, (uint64_t)i) % (uint64_t)V);
        w->prompts[p] =
            (GeneratorPrompt){.index = p, .ids = w->ids[p], .n_ids = n, .n_samples = N_SAMPLES};
    }
    world = w;
    *state = w;
    return 0;
}

static int stop_world(void **state)
{
    World *w = *state;
    forget_told(w);
    infer_weights_release(&w->weights);
    model_release(&w->model);
    tokenizer_release(w->tokenizer);
    free(w);
    return 0;
}

static GeneratorOptions sampled(int batch)
{
    return (GeneratorOptions){.sampling = {.temperature = 0.9,
                                           .top_p = 0.95,
                                           .repetition_penalty = 1.1,
                                           .repeat_last_n = SAMPLER_WHOLE_HISTORY},
                              .seed = 11,
                              .max_new = 20,
                              .context = CONTEXT,
                              .batch = batch};
}

static Status run(World *w, const GeneratorOptions *options, const GeneratorPrompt *prompts,
                  int64_t n, int64_t max_bytes, GeneratorCounts *counts)
{
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const GeneratorEvents events = {.context = w, .on_text = on_text, .on_end = on_end};
    Infer *infer;
    KvCache *cache;
    Generator *generator;
    forget_told(w);
    assert_ok(infer_create(&infer, &w->weights, CHUNK, options->batch));
    assert_ok(kv_cache_create(&cache, &w->weights.shape, &format, max_bytes));
    const GeneratorModel model = {.infer = infer,
                                  .cache = cache,
                                  .tokenizer = w->tokenizer,
                                  .vocab_size = w->weights.shape.vocab_size,
                                  .max_tokens = CHUNK};
    assert_ok(generator_create(&generator, &model, options));
    const Status status = generator_run(generator, prompts, n, &events);
    *counts = generator_counts(generator);
    generator_release(generator);
    w->cache_bytes = kv_cache_bytes(cache);
    kv_cache_release(cache);
    infer_release(infer);
    return status;
}

// The text told is that of prompt and answer less the prompt's.
static void check_text(const World *w, int answer)
{
    const GeneratorPrompt *prompt = &w->prompts[answer / N_SAMPLES];
    const Told *told = &w->told[answer];
    int32_t all[2 * CONTEXT];
    char *whole, *start;
    int64_t whole_size, start_size;
    memcpy(all, prompt->ids, (size_t)prompt->n_ids * sizeof *all);
    memcpy(all + prompt->n_ids, told->ids, (size_t)told->n_ids * sizeof *all);
    assert_ok(tokenizer_decode(w->tokenizer, all, prompt->n_ids + told->n_ids, &whole, &whole_size,
                               true));
    assert_ok(tokenizer_decode(w->tokenizer, all, prompt->n_ids, &start, &start_size, true));
    // Random ids may cut a character at the border; its repair is the answer's.
    assert_true(told->text.size <= whole_size);
    assert_memory_equal(told->text.data, whole + whole_size - told->text.size,
                        (size_t)told->text.size);
    free(whole);
    free(start);
}

static void test_answers_do_not_depend_on_the_batch(void **state)
{
    World *w = *state;
    static Told first[N_ANSWERS];
    GeneratorCounts counts;
    GeneratorOptions options = sampled(1);
    assert_ok(run(w, &options, w->prompts, N_PROMPTS, 0, &counts));
    memcpy(first, w->told, sizeof first);
    for (int i = 0; i < N_ANSWERS; i++) {
        assert_int_equal(first[i].n_ends, 1);
        assert_int_equal(first[i].end, ANSWER_LENGTH);
        assert_int_equal(first[i].n_ids, 20);
        check_text(w, i);
        // Samples of a prompt part from each other.
        assert_true(i % N_SAMPLES == 0 ||
                    memcmp(first[i].ids, first[i - 1].ids, 20 * sizeof(int32_t)) != 0);
    }
    assert_int_equal(counts.n_answers, N_ANSWERS);
    assert_int_equal(counts.prompt_tokens, 1 + 6 * 21);
    assert_int_equal(counts.new_tokens, 20 * N_ANSWERS);
    assert_int_equal(counts.n_decoded, 19 * N_ANSWERS);
    assert_int_equal(w->cache_bytes, 0);
    static const int batches[] = {2, 4, 16, 40};
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        options.batch = batches[b];
        if (batches[b] > CHUNK)
            options.batch = CHUNK;
        assert_ok(run(w, &options, w->prompts, N_PROMPTS, 0, &counts));
        for (int i = 0; i < N_ANSWERS; i++) {
            assert_int_equal(w->told[i].n_ids, 20);
            assert_memory_equal(w->told[i].ids, first[i].ids, 20 * sizeof(int32_t));
        }
    }
    // Prompts and samples may be divided: numbers name the random numbers.
    GeneratorPrompt one = w->prompts[4];
    one.first_sample = 2;
    one.n_samples = 1;
    assert_ok(run(w, &options, &one, 1, 0, &counts));
    assert_memory_equal(w->told[4 * N_SAMPLES + 2].ids, first[4 * N_SAMPLES + 2].ids,
                        20 * sizeof(int32_t));
}

// Samples share the tokens of their prompt, so that the peak counts these once.
static void test_shared_tokens_count_once(void **state)
{
    World *w = *state;
    GeneratorCounts counts;
    GeneratorOptions options = sampled(N_SAMPLES);
    assert_ok(run(w, &options, &w->prompts[6], 1, 0, &counts));
    assert_int_equal(counts.peak_tokens, 36 + N_SAMPLES * 19);
}

static void test_the_context_ends_answers(void **state)
{
    World *w = *state;
    GeneratorCounts counts;
    GeneratorOptions options = sampled(4);
    options.max_new = -1;
    options.context = 50;
    assert_ok(run(w, &options, w->prompts, N_PROMPTS, 0, &counts));
    for (int i = 0; i < N_ANSWERS; i++) {
        assert_int_equal(w->told[i].end, ANSWER_CONTEXT);
        assert_int_equal(w->told[i].n_ids + w->prompts[i / N_SAMPLES].n_ids, 50);
    }
}

static void test_a_prompt_has_a_length_of_its_own(void **state)
{
    World *w = *state;
    GeneratorCounts counts;
    GeneratorOptions options = sampled(4);
    GeneratorPrompt prompts[N_PROMPTS];
    memcpy(prompts, w->prompts, sizeof prompts);
    prompts[1].max_new = 3;
    prompts[2].max_new = 1;
    assert_ok(run(w, &options, prompts, N_PROMPTS, 0, &counts));
    for (int i = 0; i < N_ANSWERS; i++) {
        const int64_t max_new = prompts[i / N_SAMPLES].max_new;
        assert_int_equal(w->told[i].end, ANSWER_LENGTH);
        assert_int_equal(w->told[i].n_ids, max_new > 0 ? max_new : 20);
    }
}

// A token of some answers as their end: they stop with it, the others do not have it.
static void test_end_tokens(void **state)
{
    World *w = *state;
    static Told first[N_ANSWERS];
    GeneratorCounts counts;
    GeneratorOptions options = sampled(4);
    assert_ok(run(w, &options, w->prompts, N_PROMPTS, 0, &counts));
    memcpy(first, w->told, sizeof first);
    const int32_t end_ids[] = {first[3].ids[9], first[5].ids[0]};
    options.end_ids = end_ids;
    options.n_end_ids = 2;
    assert_ok(run(w, &options, w->prompts, N_PROMPTS, 0, &counts));
    assert_int_equal(w->told[5].n_ids, 1);
    assert_int_equal(w->told[5].text.size, 0);
    for (int i = 0; i < N_ANSWERS; i++) {
        const Told *told = &w->told[i];
        int64_t n = 0;
        while (n < 20 && first[i].ids[n] != end_ids[0] && first[i].ids[n] != end_ids[1])
            n++;
        assert_int_equal(told->end, n < 20 ? ANSWER_END_TOKEN : ANSWER_LENGTH);
        assert_int_equal(told->n_ids, n < 20 ? n + 1 : 20);
        assert_memory_equal(told->ids, first[i].ids, (size_t)told->n_ids * sizeof(int32_t));
    }
}

static void test_stop_strings(void **state)
{
    World *w = *state;
    char stop[16] = "";
    GeneratorCounts counts;
    GeneratorOptions options = sampled(4);
    assert_ok(run(w, &options, w->prompts, N_PROMPTS, 0, &counts));
    // Some letters from the middle of an answer.
    const Bytes *text = &w->told[7].text;
    int64_t at = text->size / 2;
    while (at > 0 && ((unsigned char)text->data[at] & 0xC0) == 0x80)
        at--;
    int64_t n = 3;
    while (n < 6 && ((unsigned char)text->data[at + n] & 0xC0) == 0x80)
        n++;
    memcpy(stop, text->data + at, (size_t)n);
    const char *const stops[] = {"\x01never\x02", stop};
    options.stops = stops;
    options.n_stops = 2;
    assert_ok(run(w, &options, w->prompts, N_PROMPTS, 0, &counts));
    assert_int_equal(w->told[7].end, ANSWER_STOP);
    assert_int_equal(w->told[7].stop, 1);
    assert_true(w->told[7].text.size <= at);
    for (int i = 0; i < N_ANSWERS; i++) {
        assert_ok(bytes_append(&w->told[i].text, "", 1));
        assert_null(strstr(w->told[i].text.data, stop));
    }
}

// After some steps, and within the first prompt.
static void test_a_request_to_stop_ends_what_has_begun(void **state)
{
    World *w = *state;
    GeneratorCounts counts;
    GeneratorOptions options = sampled(4);
    options.is_stopped = is_stopped;
    static const int polls[] = {1, 12, 30};
    for (int k = 0; k < 3; k++) {
        int n_interrupted = 0, n_ended = 0;
        w->stop_at_poll = polls[k];
        assert_int_equal(run(w, &options, w->prompts, N_PROMPTS, 0, &counts), STOPPED);
        for (int i = 0; i < N_ANSWERS; i++) {
            n_ended += w->told[i].n_ends;
            n_interrupted += w->told[i].n_ends > 0 && w->told[i].end == ANSWER_INTERRUPTED;
        }
        assert_int_equal(n_interrupted, k == 0 ? 0 : 4);
        assert_true(n_ended < N_ANSWERS);
        assert_int_equal(counts.n_answers, n_ended);
        assert_int_equal(w->cache_bytes, 0);
    }
    w->stop_at_poll = 0;
}

static void test_a_cache_that_is_full_is_told(void **state)
{
    World *w = *state;
    GeneratorCounts counts;
    GeneratorOptions options = sampled(4);
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const double page = KV_BLOCK_TOKENS * kv_format_bytes_per_token(&format, &w->weights.shape);
    assert_int_equal(run(w, &options, w->prompts, N_PROMPTS, (int64_t)(2.5 * page), &counts),
                     FAILED);
    assert_int_equal(w->cache_bytes, 0);
}

static Status fail_on_text(void *context, const GeneratorPrompt *prompt, int sample,
                           const char *text, int64_t size)
{
    (void)context, (void)prompt, (void)sample, (void)text, (void)size;
    return fail(FAILED, "nobody reads it");
}

static void test_an_event_that_fails_ends_the_run(void **state)
{
    World *w = *state;
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const GeneratorEvents events = {.context = w, .on_text = fail_on_text, .on_end = on_end};
    const GeneratorOptions options = sampled(2);
    Infer *infer;
    KvCache *cache;
    Generator *generator;
    assert_ok(infer_create(&infer, &w->weights, CHUNK, 2));
    assert_ok(kv_cache_create(&cache, &w->weights.shape, &format, 0));
    const GeneratorModel model = {infer, cache, w->tokenizer, w->weights.shape.vocab_size, CHUNK};
    assert_ok(generator_create(&generator, &model, &options));
    assert_fails(FAILED, "nobody reads it",
                 generator_run(generator, w->prompts, N_PROMPTS, &events));
    generator_release(generator);
    kv_cache_release(cache);
    infer_release(infer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_do_not_depend_on_the_batch),
        cmocka_unit_test(test_shared_tokens_count_once),
        cmocka_unit_test(test_the_context_ends_answers),
        cmocka_unit_test(test_a_prompt_has_a_length_of_its_own),
        cmocka_unit_test(test_end_tokens),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_a_request_to_stop_ends_what_has_begun),
        cmocka_unit_test(test_a_cache_that_is_full_is_told),
        cmocka_unit_test(test_an_event_that_fails_ends_the_run),
    };
    return cmocka_run_group_tests(tests, start_world, stop_world);
}
