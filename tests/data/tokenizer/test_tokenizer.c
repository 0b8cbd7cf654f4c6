// data/tokenizer: loading, looking tokens up, and the errors of malformed files and texts. Ids and
// decoded text are tested in test_tokenizer_golden.c.
#include "tests/support/testing.h"

#include "base/checksum.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "data/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINY_BYTELEVEL GOLDEN_DIR "/tokenizer/tiny_bytelevel"
#define TINY_SPM       GOLDEN_DIR "/tokenizer/tiny_spm"

static void test_tokens_can_be_looked_up(void **state)
{
    (void)state;
    Tokenizer *tokenizer;
    char sha256[SHA256_HEX_BYTES];
    assert_ok(tokenizer_load(&tokenizer, GOLDEN_DIR "/tokenizer/tiny_added"));
    assert_int_equal(tokenizer_vocab_size(tokenizer), 400 + 8);
    assert_int_equal(tokenizer_find(tokenizer, "[L]"), 400);
    assert_int_equal(tokenizer_find(tokenizer, "<0x00>"), 3);
    assert_int_equal(tokenizer_find(tokenizer, "no such token"), -1);
    assert_ok(checksum_sha256_file(sha256, GOLDEN_DIR "/tokenizer/tiny_added/tokenizer.json"));
    assert_string_equal(tokenizer_sha256(tokenizer), sha256);
    tokenizer_release(tokenizer);
}

static void assert_same_ids(const Tokenizer *tokenizer, const char *a, int64_t a_size,
                            const char *b, int64_t b_size)
{
    TokenBuffer x = {0}, y = {0};
    assert_ok(tokenizer_encode(tokenizer, &x, a, a_size, false));
    assert_ok(tokenizer_encode(tokenizer, &y, b, b_size, false));
    assert_int_equal(x.count, y.count);
    assert_memory_equal(x.ids, y.ids, (size_t)x.count * sizeof *x.ids);
    token_buffer_release(&x);
    token_buffer_release(&y);
}

static void test_invalid_utf8_is_read_as_python_replaces_it(void **state)
{
    (void)state;
    // bytes.decode("utf-8", "replace") of the left side; U+FFFD is EF BF BD.
    static const struct {
        const char *bytes, *text;
    } pairs[] = {
        {"a\xFFz", "a\uFFFDz"},
        {"\x80\x80", "\uFFFD\uFFFD"},
        {"\xC0\xAF", "\uFFFD\uFFFD"},
        {"\xE2\x82", "\uFFFD"},
        {"\xE2\x82z", "\uFFFDz"},
        {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xE0\x9F\xBF", "\uFFFD\uFFFD\uFFFD"},
        {"\xF0\x9F\x98", "\uFFFD"},
        {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
        {"12345678\xE2\x82\xF0\x9F\x98\x80\xC3", "12345678\uFFFD\U0001F600\uFFFD"},
    };
    Tokenizer *tokenizer;
    assert_ok(tokenizer_load(&tokenizer, TINY_BYTELEVEL));
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        assert_same_ids(tokenizer, pairs[i].bytes, (int64_t)strlen(pairs[i].bytes), pairs[i].text,
                        (int64_t)strlen(pairs[i].text));
    tokenizer_release(tokenizer);
}

// A word of a million characters must not cost a million times a million steps: the test's time
// limit would end it (seen: 0.8 s of processor time for all of it).
static void test_long_words_are_merged_in_time(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    static const char *dirs[] = {TINY_BYTELEVEL, TINY_SPM, GOLDEN_DIR "/tokenizer/tiny_qwen2"};
    char *text = malloc(SIZE);
    assert_non_null(text);
    for (size_t d = 0; d < sizeof dirs / sizeof dirs[0]; d++) {
        Tokenizer *tokenizer;
        assert_ok(tokenizer_load(&tokenizer, dirs[d]));
        for (int k = 0; k < 3; k++) {
            TokenBuffer buffer = {0};
            char *decoded;
            int64_t size;
            for (int i = 0; i < SIZE; i++)
                text[i] = k == 0 ? ' ' : k == 1 ? 'e' : "the"[i % 3];
            assert_ok(tokenizer_encode(tokenizer, &buffer, text, SIZE, false));
            assert_ok(tokenizer_decode(tokenizer, buffer.ids, buffer.count, &decoded, &size, true));
            assert_int_equal(size, SIZE);
            assert_memory_equal(decoded, text, SIZE);
            free(decoded);
            token_buffer_release(&buffer);
        }
        tokenizer_release(tokenizer);
    }
    free(text);
}

// A million combining marks in the worst order, which NFC has to sort (seen: 0.13 s of processor
// time each way).
static void test_long_runs_of_marks_are_normalized_in_time(void **state)
{
    (void)state;
    enum { MARKS = 1 << 20 };
    Tokenizer *tokenizer;
    TokenBuffer buffer = {0}, sorted = {0};
    char *text = malloc(4 * MARKS), *expected = malloc(4 * MARKS);
    assert_non_null(text);
    assert_non_null(expected);
    for (int i = 0; i < MARKS; i++) { // U+0345 has class 240, U+0323 has 220
        memcpy(text + 2 * i, i % 2 == 0 ? "\u0345" : "\u0323", 2);
        memcpy(expected + 2 * i, i < MARKS / 2 ? "\u0323" : "\u0345", 2);
    }
    assert_ok(tokenizer_load(&tokenizer, GOLDEN_DIR "/tokenizer/tiny_qwen2"));
    assert_ok(tokenizer_encode(tokenizer, &buffer, text, 2 * MARKS, false));
    assert_ok(tokenizer_encode(tokenizer, &sorted, expected, 2 * MARKS, false));
    assert_int_equal(buffer.count, sorted.count);
    assert_memory_equal(buffer.ids, sorted.ids, (size_t)sorted.count * sizeof *sorted.ids);
    token_buffer_release(&buffer);
    token_buffer_release(&sorted);
    tokenizer_release(tokenizer);
    free(text);
    free(expected);
}

static void test_buffer_appends_and_changes_tokenizers(void **state)
{
    (void)state;
    Tokenizer *bytelevel, *spm;
    TokenBuffer alone = {0}, shared = {0};
    assert_ok(tokenizer_load(&bytelevel, TINY_BYTELEVEL));
    assert_ok(tokenizer_load(&spm, TINY_SPM));
    assert_ok(tokenizer_encode(bytelevel, &alone, "the model", 9, false));
    assert_ok(tokenizer_encode(spm, &shared, "the model", 9, false)); // fills the word cache
    int64_t n = shared.count;
    for (int i = 0; i < 2; i++) { // the second time from the cache
        shared.count = n;
        assert_ok(tokenizer_encode(bytelevel, &shared, "the model", 9, false));
        assert_int_equal(shared.count, n + alone.count);
        assert_memory_equal(shared.ids + n, alone.ids, (size_t)alone.count * sizeof *alone.ids);
    }
    token_buffer_release(&alone);
    token_buffer_release(&shared);
    tokenizer_release(bytelevel);
    tokenizer_release(spm);
}

static void test_ids_without_a_token_are_left_out_of_the_text(void **state)
{
    (void)state;
    Tokenizer *tokenizer;
    assert_ok(tokenizer_load(&tokenizer, TINY_BYTELEVEL));
    int32_t ids[] = {-1, tokenizer_find(tokenizer, "a"), INT32_MAX, tokenizer_find(tokenizer, "b")};
    char *text;
    int64_t size;
    assert_ok(tokenizer_decode(tokenizer, ids, 4, &text, &size, false));
    assert_string_equal(text, "ab");
    assert_int_equal(size, 2);
    free(text);
    tokenizer_release(tokenizer);
}

static const char *dir_with(const char *name, const char *text)
{
    const char *dir = testing_dir();
    assert_ok(file_write(testing_path(dir, name), text, (int64_t)strlen(text)));
    return dir;
}

static void assert_eos(const char *dir, int eos)
{
    Tokenizer *tokenizer;
    assert_ok(tokenizer_load(&tokenizer, dir));
    assert_int_equal(tokenizer_eos_id(tokenizer), eos);
    tokenizer_release(tokenizer);
}

static void test_eos_comes_from_the_first_file_that_names_it(void **state)
{
    (void)state;
    assert_eos(TINY_SPM, 2);
    assert_eos(TINY_BYTELEVEL, 0);
    const char *dir = dir_with("config.json", "{\"eos_token_id\": [8, 9]}");
    assert_ok(file_copy(TINY_SPM "/tokenizer.json", testing_path(dir, "tokenizer.json")));
    assert_eos(dir, 8);
    const char *map = "{\"eos_token\": \"none such\"}";
    assert_ok(file_write(testing_path(dir, "special_tokens_map.json"), map, (int64_t)strlen(map)));
    assert_eos(dir, 8);
    map = "{\"eos_token\": {\"content\": \"<0x00>\"}}";
    assert_ok(file_write(testing_path(dir, "special_tokens_map.json"), map, (int64_t)strlen(map)));
    assert_eos(dir, 3);
    // The length is what transformers writes of a tokenizer that has none.
    const char *config = "{\"eos_token\": \"</s>\", \"model_max_length\": "
                         "1000000000000000019884624838656, \"score\": NaN}";
    assert_ok(
        file_write(testing_path(dir, "tokenizer_config.json"), config, (int64_t)strlen(config)));
    assert_eos(dir, 2);
}

static void test_eos_outside_the_vocabulary_is_refused(void **state)
{
    (void)state;
    const char *dir = dir_with("config.json", "{\"eos_token_id\": 400}");
    assert_ok(file_copy(TINY_SPM "/tokenizer.json", testing_path(dir, "tokenizer.json")));
    Tokenizer *tokenizer;
    assert_fails(BAD_INPUT, "'eos_token_id' is 400, the tokenizer has ids 0 to 399",
                 tokenizer_load(&tokenizer, dir));
}

// As GPT-2's file is; and an unk_token that is an added token alone, which matters only where a
// text has something unknown.
static void test_model_without_type_and_unknown_without_token(void **state)
{
    (void)state;
    const char *model = "{\"model\": {\"unk_token\": \"<unk>\", \"vocab\": {\"a\": 0, \"b\": 1, "
                        "\"ab\": 2}, \"merges\": [\"a b\"]}, \"added_tokens\": [{\"id\": 3, "
                        "\"content\": \"<unk>\", \"special\": true, \"normalized\": false, "
                        "\"lstrip\": false, \"rstrip\": false, \"single_word\": false}]}";
    Tokenizer *tokenizer;
    TokenBuffer buffer = {0};
    assert_ok(tokenizer_load(&tokenizer, dir_with("tokenizer.json", model)));
    assert_ok(tokenizer_encode(tokenizer, &buffer, "ab<unk>a", 8, true));
    const int32_t expected[] = {2, 3, 0};
    assert_int_equal(buffer.count, 3);
    assert_memory_equal(buffer.ids, expected, sizeof expected);
    assert_fails(BAD_INPUT,
                 "the text has U+E9, which the tokenizer does not know, and its unk_token '<unk>' "
                 "is not in the model's vocabulary",
                 tokenizer_encode(tokenizer, &buffer, "ab\u00E9", 4, true));
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
}

// As if a signal came when about AT ids are made: the request to stop is the place of an id, which
// is 0 until encoding has come so far. It must not be after more than the ids of a word.
static void test_stop_is_seen_within_a_document(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20, AT = 1000, MARGIN = 16 };
    Tokenizer *tokenizer;
    TokenBuffer buffer = {0};
    char *text = malloc(SIZE);
    assert_non_null(text);
    for (int i = 0; i < SIZE; i++)
        text[i] = (char)(i % 4 == 3 ? ' ' : 'a' + i / 4 % 26);
    assert_ok(tokenizer_load(&tokenizer, TINY_BYTELEVEL));
    for (int i = 0; i < SIZE + MARGIN; i++) // so that the buffer stays where it is
        assert_ok(token_buffer_append(&buffer, 0));
    buffer.count = 0;
    buffer.stop = (const volatile sig_atomic_t *)&buffer.ids[AT];
    assert_fails(FAILED, "interrupted", tokenizer_encode(tokenizer, &buffer, text, SIZE, false));
    assert_int_equal(buffer.ids[AT + MARGIN], 0); // nothing was made behind it
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
    free(text);
}

// One word as long as the document, as models without splits make it.
static void test_stop_is_seen_within_a_word(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    Tokenizer *tokenizer;
    const volatile sig_atomic_t stop = 1;
    TokenBuffer buffer = {.stop = &stop};
    char *text = malloc(SIZE);
    assert_non_null(text);
    memset(text, 'a', SIZE);
    assert_ok(tokenizer_load(&tokenizer, TINY_SPM));
    assert_fails(FAILED, "interrupted", tokenizer_encode(tokenizer, &buffer, text, SIZE, false));
    assert_int_equal(buffer.count, 0);
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
    free(text);
}

static void test_vocab_and_merges_files(void **state)
{
    (void)state;
    const char *vocab = "{\"a\": 0, \"b\": 1, \"ab\": 2, \"\\u0120\": 3, \"<|endoftext|>\": 4}";
    const char *merges = "#version: 0.2\r\na b\r\n";
    const char *dir = dir_with("vocab.json", vocab);
    Tokenizer *tokenizer;
    assert_fails(BAD_INPUT, "has neither tokenizer.json nor vocab.json and merges.txt",
                 tokenizer_load(&tokenizer, dir));
    assert_ok(file_write(testing_path(dir, "merges.txt"), merges, (int64_t)strlen(merges)));
    assert_ok(tokenizer_load(&tokenizer, dir));
    TokenBuffer buffer = {0};
    assert_ok(tokenizer_encode(tokenizer, &buffer, "ab<|endoftext|>x a", 18, true));
    const int32_t expected[] = {2, 4, 3, 0}; // x has no token and is dropped
    assert_int_equal(buffer.count, 4);
    assert_memory_equal(buffer.ids, expected, sizeof expected);
    assert_int_equal(tokenizer_eos_id(tokenizer), 4);
    char both[256], sha256[SHA256_HEX_BYTES];
    int size = snprintf(both, sizeof both, "%s%s", vocab, merges);
    assert_ok(checksum_sha256_bytes(sha256, both, size));
    assert_string_equal(tokenizer_sha256(tokenizer), sha256);
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
}

static void test_damaged_merges_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *merges, *part;
    } damaged[] = {
        {"a b\n\n", "merge 1, '', is not two tokens with one space between"},
        {"a b c", "merge 0, 'a b c', is not two tokens"},
        {"b a", "merge 0, 'b' and 'a': the result is not in the vocabulary"},
        {"x a", "'x' and 'a': the left part is not"},
        {"a \xFF", "merges.txt: not valid UTF-8"},
    };
    const char *dir = dir_with("vocab.json", "{\"a\": 0, \"b\": 1, \"ab\": 2}");
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        Tokenizer *tokenizer;
        assert_ok(file_write(testing_path(dir, "merges.txt"), damaged[i].merges,
                             (int64_t)strlen(damaged[i].merges)));
        assert_fails(BAD_INPUT, damaged[i].part, tokenizer_load(&tokenizer, dir));
    }
}

// Sets the member at a path such as "model.vocab.a" to JSON text; a number is a list's index.
static void set_member(json_t *root, const char *path, const char *value)
{
    char copy[128], *key = copy, *dot;
    snprintf(copy, sizeof copy, "%s", path);
    json_t *at = root, *made = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(made);
    for (; (dot = strchr(key, '.')) != NULL; key = dot + 1) {
        *dot = '\0';
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    }
    if (json_is_array(at))
        assert_int_equal(json_array_set_new(at, (size_t)atoi(key), made), 0);
    else
        assert_int_equal(json_object_set_new(at, key, made), 0);
}

#define SPLIT(pattern, behavior)                                                                   \
    "{\"type\": \"Split\", \"pattern\": " pattern ", \"behavior\": \"" behavior                    \
    "\", \"invert\": false}"
#define METASPACE(replacement) "{\"type\": \"Metaspace\", \"replacement\": " replacement "}"
#define DIGITS                 "{\"type\": \"Digits\", \"individual_digits\": true}"
#define TWO_STEPS(a, b)        "{\"type\": \"Sequence\", \"pretokenizers\": [" a ", " b "]}"

static const struct {
    const char *path, *value, *part;
} refused[] = {
    {"version", "\"2.0\"", "version '2.0' is not supported"},
    {"extra", "1", "key 'extra' is not supported"},
    {"truncation", "{}", "'truncation' is set"},
    {"padding", "{}", "'padding' is set"},
    {"model", "null", "'model' is missing"},
    {"model", "{\"vocab\": {\"a\": 0}}", "model: has neither a 'type' nor the 'merges' of BPE"},
    {"model.type", "null", "model: 'type' is missing"},
    {"model.type", "\"Unigram\"", "model: type 'Unigram' is not supported"},
    {"model.surprise", "1", "model: key 'surprise' is not supported"},
    {"model.dropout", "0.1", "'dropout' is 0.1"},
    {"model.end_of_word_suffix", "\"</w>\"", "'end_of_word_suffix' is \"</w>\""},
    {"model.continuing_subword_prefix", "\"##\"", "'continuing_subword_prefix' is \"##\""},
    {"model.fuse_unk", "\"yes\"", "'fuse_unk' is not true or false"},
    {"model.vocab", "[]", "the vocabulary is not an object"},
    {"model.vocab", "{}", "the vocabulary is empty"},
    {"model.vocab.a", "\"7\"", "the id of token 'a' is not a whole number"},
    {"model.vocab.a", "-1", "token 'a' has id -1, allowed are 0 to 4194303"},
    {"model.vocab.a", "4194304", "token 'a' has id 4194304"},
    {"model.vocab.<s>", "2", "both have id 2"},
    {"model.vocab.x\ny", "2", "tokens '</s>' and 'x?y' both have id 2"},
    {"model.merges", "{}", "'merges' is missing or not a list"},
    {"model.merges.0", "7", "merge 0 is neither \"a b\" nor"},
    {"model.merges.0", "[\"a\"]", "merge 0 is neither \"a b\" nor"},
    {"model.merges.0", "\"a\"", "merge 0, 'a', is not two tokens"},
    {"model.merges.0", "[\"a\", \"?\"]", "the right part is not in the vocabulary"},
    {"normalizer", "{\"type\": \"Lowercase\"}", "normalizer: type 'Lowercase' is not supported"},
    {"normalizer", "{\"type\": \"NFC\", \"x\": 1}", "normalizer: key 'x' is not supported"},
    {"normalizer", "{\"type\": \"Sequence\"}", "'normalizers' is missing or not a list"},
    {"normalizer.normalizers.1.pattern", "{\"Regex\": \"a*\"}", "'a*' can match the empty text"},
    {"normalizer.normalizers.1.pattern", "{\"Glob\": \"a\"}", "key 'Glob' is not supported"},
    {"normalizer.normalizers.1.pattern", "{}", "'pattern' is not one String or Regex"},
    {"pre_tokenizer", SPLIT("{\"Regex\": \"(\"}", "Isolated"), "regex '(': ( without )"},
    {"pre_tokenizer", SPLIT("{\"String\": \"\"}", "Isolated"), "has an empty pattern"},
    {"pre_tokenizer", SPLIT("{\"String\": \"a\"}", "isolated"), "behavior 'isolated' is not"},
    {"pre_tokenizer", "{\"type\": \"Split\", \"pattern\": \"a\"}", "pre_tokenizer: not an object"},
    {"pre_tokenizer", METASPACE("\"ab\""), "'replacement' is not one character"},
    {"pre_tokenizer", METASPACE("\"_\", \"prepend_scheme\": \"last\""), "'last' is not supported"},
    {"pre_tokenizer",
     METASPACE("\"_\", \"prepend_scheme\": \"first\", \"add_prefix_space\": false"),
     "'add_prefix_space' is false, but 'prepend_scheme' is 'first'"},
    {"pre_tokenizer", METASPACE("\"_\", \"prepend_scheme\": \"first\""),
     "after a normalizer that prepends or removes is not supported"},
    {"pre_tokenizer", TWO_STEPS(METASPACE("\"_\""), METASPACE("\"_\"")), "a second Metaspace"},
    {"pre_tokenizer", TWO_STEPS(DIGITS, METASPACE("\"_\", \"prepend_scheme\": \"first\"")),
     "'first' after another step is not supported"},
    {"normalizer.normalizers.1.pattern", "{\"String\": \"\"}", "has an empty pattern"},
    {"pre_tokenizer", "{\"type\": \"Whitespace\"}", "type 'Whitespace' is not supported"},
    {"pre_tokenizer", "{\"type\": \"Digits\"}", "'individual_digits' is missing"},
    {"post_processor", "{\"type\": \"BertProcessing\"}", "type 'BertProcessing' is not"},
    {"post_processor.single", "[]", "'single' is not one sequence A and special tokens"},
    {"post_processor.single.0", "{\"Sequence\": {\"id\": \"A\"}}", "is not one sequence A"},
    {"post_processor.single.0.SpecialToken.id", "\"<x>\"", "'<x>' of the template is not"},
    {"post_processor.special_tokens.<s>.ids", "[400]", "has an id of no token (400)"},
    {"decoder", "{\"type\": \"WordPiece\"}", "decoder: type 'WordPiece' is not supported"},
    {"decoder.decoders.3.content", "\"ab\"", "Strip's 'content' is not one character"},
    {"decoder.decoders.3.start", "-1", "'start' is -1, allowed are 0 to"},
    {"added_tokens", "{}", "added_tokens: not a list"},
    {"added_tokens.0", "7", "added_tokens: not an object"},
    {"added_tokens.0.special", "null", "'special' is missing"},
    {"added_tokens.1.id", "5", "'<s>' has id 5, but 1 in the vocabulary"},
    {"added_tokens.1.content", "\"new\"", "'new' has id 1, but the next free id is 400"},
    {"added_tokens.1",
     "{\"id\": 2, \"content\": \"</s>\", \"single_word\": false, \"lstrip\": false, "
     "\"rstrip\": false, \"normalized\": false, \"special\": true}",
     "'</s>' occurs twice"},
};

static void test_what_is_not_supported_is_refused_by_name(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        json_t *root;
        Tokenizer *tokenizer;
        assert_ok(json_read(&root, TINY_SPM "/tokenizer.json"));
        set_member(root, refused[i].path, refused[i].value);
        assert_ok(json_write(root, testing_path(dir, "tokenizer.json")));
        assert_fails(BAD_INPUT, refused[i].part, tokenizer_load(&tokenizer, dir));
        json_decref(root);
    }
}

static void test_sequences_we_cannot_run_are_refused(void **state)
{
    (void)state;
    json_t *root;
    Tokenizer *tokenizer;
    const char *dir = testing_dir();
    assert_ok(json_read(&root, GOLDEN_DIR "/tokenizer/tiny_prefix/tokenizer.json"));
    json_t *processors = json_object_get(json_object_get(root, "post_processor"), "processors");
    json_array_append(processors, json_array_get(processors, 1));
    assert_ok(json_write(root, testing_path(dir, "tokenizer.json")));
    assert_fails(BAD_INPUT, "a second TemplateProcessing is not supported",
                 tokenizer_load(&tokenizer, dir));
    set_member(root, "pre_tokenizer.pretokenizers.0",
               "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}");
    assert_ok(json_write(root, testing_path(dir, "tokenizer.json")));
    assert_fails(BAD_INPUT, "type 'ByteLevel' after ByteLevel is not supported",
                 tokenizer_load(&tokenizer, dir));
    json_decref(root);
}

// Random damage gives a tokenizer that works or one line that says what is wrong.
static void test_damaged_files_never_crash(void **state)
{
    (void)state;
    static const char *paths[] = {GOLDEN_DIR "/tokenizer/tiny_added/tokenizer.json",
                                  GOLDEN_DIR "/tokenizer/tiny_prefix/tokenizer.json",
                                  GOLDEN_DIR "/tokenizer/tiny_qwen2/tokenizer.json",
                                  GOLDEN_DIR "/tokenizer/tiny_metaspace/tokenizer.json"};
    const char *dir = testing_dir();
    for (uint64_t trial = 0; trial < 200; trial++) {
        FileMap map;
        assert_ok(file_map(&map, paths[trial % 4]));
        char *bytes = malloc((size_t)map.size_bytes);
        assert_non_null(bytes);
        memcpy(bytes, map.bytes, (size_t)map.size_bytes);
        for (uint64_t k = 0; k < 1 + trial % 5; k++) {
            uint64_t bits = random_bits(trial, k);
            bytes[bits % (uint64_t)map.size_bytes] = "0123456789\"{}[],:ab <"[(bits >> 40) % 21];
        }
        assert_ok(file_write(testing_path(dir, "tokenizer.json"), bytes, map.size_bytes));
        Tokenizer *tokenizer;
        Status status = tokenizer_load(&tokenizer, dir);
        if (status == OK) {
            TokenBuffer buffer = {0};
            assert_ok(tokenizer_encode(tokenizer, &buffer, bytes, map.size_bytes, true));
            token_buffer_release(&buffer);
            tokenizer_release(tokenizer);
        } else {
            assert_int_equal(status, BAD_INPUT);
            assert_null(strchr(fail_text(), '\n'));
        }
        free(bytes);
        file_unmap(&map);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens_can_be_looked_up),
        cmocka_unit_test(test_invalid_utf8_is_read_as_python_replaces_it),
        cmocka_unit_test(test_long_words_are_merged_in_time),
        cmocka_unit_test(test_long_runs_of_marks_are_normalized_in_time),
        cmocka_unit_test(test_buffer_appends_and_changes_tokenizers),
        cmocka_unit_test(test_ids_without_a_token_are_left_out_of_the_text),
        cmocka_unit_test(test_eos_comes_from_the_first_file_that_names_it),
        cmocka_unit_test(test_eos_outside_the_vocabulary_is_refused),
        cmocka_unit_test(test_model_without_type_and_unknown_without_token),
        cmocka_unit_test(test_stop_is_seen_within_a_document),
        cmocka_unit_test(test_stop_is_seen_within_a_word),
        cmocka_unit_test(test_vocab_and_merges_files),
        cmocka_unit_test(test_damaged_merges_files_are_refused),
        cmocka_unit_test(test_what_is_not_supported_is_refused_by_name),
        cmocka_unit_test(test_sequences_we_cannot_run_are_refused),
        cmocka_unit_test(test_damaged_files_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
