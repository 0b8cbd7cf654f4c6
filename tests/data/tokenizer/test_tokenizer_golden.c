// data/tokenizer: ids and decoded text against goldens of the `tokenizers` library, made by
// golden/make_tokenizer_golden.py.
#include "tests/support/testing.h"
#include "tests/support/testing_tokens.h"

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "data/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_ids(const char *what, const TokenBuffer *got, const json_t *expected)
{
    int64_t n = (int64_t)json_array_size(expected);
    for (int64_t i = 0; i < n && i < got->count; i++) {
        int64_t id = json_integer_value(json_array_get(expected, (size_t)i));
        if (got->ids[i] != id)
            fail_msg("%s: id %lld is %d, expected %lld", what, (long long)i, (int)got->ids[i],
                     (long long)id);
    }
    if (got->count != n)
        fail_msg("%s: %lld ids, expected %lld", what, (long long)got->count, (long long)n);
}

static void check_case(const Tokenizer *tokenizer, TokenBuffer *buffer, const json_t *item,
                       const char *what)
{
    const json_t *text = json_object_get(item, "text"), *ids = json_object_get(item, "ids");
    const json_t *special = json_object_get(item, "special");
    const json_t *decoded = json_object_get(item, "decoded");
    const char *bytes = json_string_value(text);
    int64_t size = (int64_t)json_string_length(text);
    buffer->count = 0;
    assert_ok(tokenizer_encode(tokenizer, buffer, bytes, size, false));
    assert_ids(what, buffer, ids);
    buffer->count = 0;
    assert_ok(tokenizer_encode(tokenizer, buffer, bytes, size, true));
    assert_ids(what, buffer, special != NULL ? special : ids);

    char *got;
    int64_t got_size;
    assert_ok(tokenizer_decode(tokenizer, buffer->ids, buffer->count, &got, &got_size, true));
    const json_t *expected = decoded != NULL ? decoded : text;
    if (got_size != (int64_t)json_string_length(expected) ||
        memcmp(got, json_string_value(expected), (size_t)got_size) != 0)
        fail_msg("%s: decoded '%s', expected '%s'", what, got, json_string_value(expected));
    assert_int_equal(got[got_size], '\0');
    free(got);
    testing_check_stream(tokenizer, buffer->ids, buffer->count);
}

// Ids in an order that no text has: cut characters, byte tokens that are none, special tokens.
static void check_random_ids(const Tokenizer *tokenizer)
{
    enum { N_IDS = 64 };
    int32_t ids[N_IDS];
    for (uint64_t k = 0; k < 200; k++) {
        // In half of the trials low ids, where single bytes and special tokens are.
        uint64_t n_ids = (uint64_t)tokenizer_vocab_size(tokenizer) + 1;
        n_ids = k % 2 == 0 && n_ids > 300 ? 300 : n_ids;
        for (uint64_t i = 0; i < N_IDS; i++)
            ids[i] = (int32_t)(random_bits(k, i) % n_ids);
        testing_check_stream(tokenizer, ids, (int64_t)(random_bits(k, N_IDS) % N_IDS));
    }
}

static json_t *load_golden(const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/tokenizer/%s.json", GOLDEN_DIR, name);
    json_error_t error;
    json_t *golden = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (golden == NULL)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return golden;
}

static void check_cases(const char *name, const char *dir, const json_t *cases)
{
    Tokenizer *tokenizer;
    TokenBuffer buffer = {0};
    assert_ok(tokenizer_load(&tokenizer, dir));
    for (size_t i = 0; i < json_array_size(cases); i++) {
        char what[128];
        snprintf(what, sizeof what, "%s case %zu", name, i);
        check_case(tokenizer, &buffer, json_array_get(cases, i), what);
    }
    check_random_ids(tokenizer);
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
}

static void check_golden(const char *name, const char *dir)
{
    json_t *golden = load_golden(name);
    const json_t *cases = json_object_get(golden, "cases");
    assert_true(json_array_size(cases) >= 300);
    check_cases(name, dir, cases);
    json_decref(golden);
}

static void test_tiny_bytelevel_matches_the_library(void **state)
{
    (void)state;
    check_golden("tiny_bytelevel", GOLDEN_DIR "/tokenizer/tiny_bytelevel");
}

static void test_tiny_spm_matches_the_library(void **state)
{
    (void)state;
    check_golden("tiny_spm", GOLDEN_DIR "/tokenizer/tiny_spm");
}

static void test_flags_of_added_tokens_match_the_library(void **state)
{
    (void)state;
    check_golden("tiny_added", GOLDEN_DIR "/tokenizer/tiny_added");
}

static void test_prefix_space_whole_words_and_templates_match_the_library(void **state)
{
    (void)state;
    check_golden("tiny_prefix", GOLDEN_DIR "/tokenizer/tiny_prefix");
}

static void test_smollm_matches_the_library(void **state)
{
    (void)state;
    check_golden("smollm", testing_asset("tokenizers/smollm"));
}

static void test_gpt2_files_match_the_library(void **state)
{
    (void)state;
    check_golden("gpt2", testing_asset("tokenizers/gpt2"));
}

static void test_stories260k_matches_the_library(void **state)
{
    (void)state;
    check_golden("stories260K", testing_asset("models/stories260K"));
}

static void test_stories3m_matches_the_library(void **state)
{
    (void)state;
    check_golden("stories3M", testing_asset("models/stories3M"));
}

// Copies text [size] with each space as a no-break space; returns the new end of out.
static char *put_no_break(char *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ')
            *out++ = '\xC2';
        *out++ = text[i] == ' ' ? '\xA0' : text[i];
    }
    *out = '\0';
    return out;
}

// Some copies of Llama-2's file have lost their no-break spaces, and the library and we refuse
// them: "   " is no merge. Writes a whole one into a new directory, as the golden script does.
static const char *repaired_llama2(const char *path)
{
    json_t *root;
    assert_ok(json_read(&root, path));
    json_t *model = json_object_get(root, "model"), *vocab = json_object(), *id;
    json_t *merges = json_object_get(model, "merges"), *merge;
    const char *token;
    char text[512];
    json_object_foreach(json_object_get(model, "vocab"), token, id)
    {
        assert_true(strlen(token) < sizeof text / 2);
        put_no_break(text, token, strlen(token));
        json_object_set(vocab, text, id);
    }
    json_object_set_new(model, "vocab", vocab);
    size_t i;
    json_array_foreach(merges, i, merge)
    {
        const char *line = json_string_value(merge), *space = strchr(line, ' ');
        if (strchr(space + 1, ' ') == NULL)
            continue;
        size_t size = strlen(line), cut = space == line ? size / 2 : (size_t)(space - line);
        char *end = put_no_break(text, line, cut);
        *end++ = ' ';
        put_no_break(end, line + cut + 1, size - cut - 1);
        json_array_set_new(merges, i, json_string(text));
    }
    const char *dir = testing_dir();
    assert_ok(json_write(root, testing_path(dir, "tokenizer.json")));
    json_decref(root);
    return dir;
}

static void test_llama2_matches_the_library(void **state)
{
    (void)state;
    check_golden("llama2", repaired_llama2(testing_asset("tokenizers/llama2/tokenizer.json")));
}

static void test_llama3_kind_matches_the_library(void **state)
{
    (void)state;
    check_golden("tiny_llama3", GOLDEN_DIR "/tokenizer/tiny_llama3");
}

static void test_qwen2_kind_matches_the_library(void **state)
{
    (void)state;
    check_golden("tiny_qwen2", GOLDEN_DIR "/tokenizer/tiny_qwen2");
}

static void test_metaspace_kind_matches_the_library(void **state)
{
    (void)state;
    check_golden("tiny_metaspace", GOLDEN_DIR "/tokenizer/tiny_metaspace");
}

// Tokenizers that are `base` (a path) with other parts in place of its own.
static void check_variants(const char *name, const char *base, size_t min_variants)
{
    json_t *golden = load_golden(name), *root, *part;
    const json_t *variants = json_object_get(golden, "variants");
    const char *dir = testing_dir(), *key;
    assert_true(json_array_size(variants) >= min_variants);
    for (size_t i = 0; i < json_array_size(variants); i++) {
        const json_t *variant = json_array_get(variants, i);
        assert_ok(json_read(&root, base));
        json_object_foreach(json_object_get(variant, "parts"), key, part)
        {
            json_object_set(root, key, part);
        }
        assert_ok(json_write(root, testing_path(dir, "tokenizer.json")));
        json_decref(root);
        char what[64];
        snprintf(what, sizeof what, "%s %zu", name, i);
        check_cases(what, dir, json_object_get(variant, "cases"));
    }
    json_decref(golden);
}

// Each behavior of Split, scheme of Metaspace, normalization form.
static void test_variants_of_steps_match_the_library(void **state)
{
    (void)state;
    check_variants("variants", GOLDEN_DIR "/tokenizer/tiny_spm/tokenizer.json", 45);
}

// Split patterns of models, and each class of characters that patterns may name.
static void test_split_patterns_match_the_library(void **state)
{
    (void)state;
    check_variants("splits", GOLDEN_DIR "/tokenizer/tiny_bytelevel/tokenizer.json", 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_bytelevel_matches_the_library),
        cmocka_unit_test(test_tiny_spm_matches_the_library),
        cmocka_unit_test(test_flags_of_added_tokens_match_the_library),
        cmocka_unit_test(test_prefix_space_whole_words_and_templates_match_the_library),
        cmocka_unit_test(test_smollm_matches_the_library),
        cmocka_unit_test(test_gpt2_files_match_the_library),
        cmocka_unit_test(test_stories260k_matches_the_library),
        cmocka_unit_test(test_stories3m_matches_the_library),
        cmocka_unit_test(test_llama2_matches_the_library),
        cmocka_unit_test(test_llama3_kind_matches_the_library),
        cmocka_unit_test(test_qwen2_kind_matches_the_library),
        cmocka_unit_test(test_metaspace_kind_matches_the_library),
        cmocka_unit_test(test_variants_of_steps_match_the_library),
        cmocka_unit_test(test_split_patterns_match_the_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
