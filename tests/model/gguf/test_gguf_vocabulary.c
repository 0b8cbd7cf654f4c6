// Tokenizers in a GGUF: tokens, types, merges, scores, the name of the split, special tokens; what
// llama.cpp does not have. tests/peer holds the ids that llama.cpp makes of it against the
// library's.
#include "tests/support/testing_gguf.h"

#include "base/json.h"
#include "base/log.h"
#include "model/gguf/gguf_vocabulary.h"

#include <string.h>

static void write(GgufRead *out, const char *dir, int vocab_size)
{
    const char *path = testing_path(testing_dir(), "vocabulary.gguf");
    const TensorList none = {0};
    GgufMeta meta;
    assert_ok(gguf_meta_create(&meta));
    assert_ok(gguf_put_vocabulary(&meta, dir, vocab_size));
    assert_ok(gguf_write(path, &meta, &none, NULL));
    gguf_meta_release(&meta);
    testing_gguf_read(out, path);
}

static void assert_refused(const char *dir, int vocab_size, const char *part)
{
    GgufMeta meta;
    assert_ok(gguf_meta_create(&meta));
    assert_fails(BAD_INPUT, part, gguf_put_vocabulary(&meta, dir, vocab_size));
    gguf_meta_release(&meta);
}

static int32_t int_at(const GgufRead *file, const char *name, int index)
{
    int32_t value;
    const GgufKey *key = testing_gguf_key(file, name);
    assert_non_null(key);
    assert_true(key->kind == 9 && (uint64_t)index < key->count);
    memcpy(&value, key->bytes + 4 * index, sizeof value);
    return value;
}

static float score_at(const GgufRead *file, int index)
{
    const int32_t bits = int_at(file, "tokenizer.ggml.scores", index);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool flag(const GgufRead *file, const char *name)
{
    const GgufKey *key = testing_gguf_key(file, name);
    assert_true(key != NULL && key->kind == 7);
    return key->bytes[0] != 0;
}

static void test_byte_level_tokens_and_merges(void **state)
{
    (void)state;
    GgufRead file;
    write(&file, GOLDEN_DIR "/tokenizer/tiny_qwen2", 410);
    testing_gguf_assert_text(&file, "tokenizer.ggml.model", "gpt2");
    testing_gguf_assert_text(&file, "tokenizer.ggml.pre", "qwen2");
    assert_int_equal(testing_gguf_key(&file, "tokenizer.ggml.tokens")->count, 410);
    testing_gguf_assert_element(&file, "tokenizer.ggml.tokens", 400, "<|endoftext|>");
    testing_gguf_assert_element(&file, "tokenizer.ggml.tokens", 403, "cafe\u0301!");
    testing_gguf_assert_element(&file, "tokenizer.ggml.tokens", 409, "[PAD409]");
    assert_int_equal(int_at(&file, "tokenizer.ggml.token_type", 5), 1);   // normal
    assert_int_equal(int_at(&file, "tokenizer.ggml.token_type", 400), 3); // control
    assert_int_equal(int_at(&file, "tokenizer.ggml.token_type", 403), 4); // user defined
    assert_int_equal(int_at(&file, "tokenizer.ggml.token_type", 404), 5); // unused
    assert_int_equal(testing_gguf_key(&file, "tokenizer.ggml.merges")->count, 144);
    testing_gguf_assert_element(&file, "tokenizer.ggml.merges", 0, "\u0120 t");
    testing_gguf_assert_element(&file, "tokenizer.ggml.merges", 1, "\u0120t h");
    testing_gguf_assert_u32(&file, "tokenizer.ggml.eos_token_id", 400); // by its usual text
    testing_gguf_assert_u32(&file, "tokenizer.ggml.bos_token_id", 400);
    assert_false(flag(&file, "tokenizer.ggml.add_bos_token"));
    testing_gguf_release(&file);
}

static void test_splits_have_their_names(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {GOLDEN_DIR "/tokenizer/tiny_bytelevel", "smollm"},
        {GOLDEN_DIR "/tokenizer/tiny_llama3", "llama-bpe"},
    };
    GgufRead file;
    for (int i = 0; i < 2; i++) {
        write(&file, cases[i][0], 512);
        testing_gguf_assert_text(&file, "tokenizer.ggml.pre", cases[i][1]);
        testing_gguf_release(&file);
    }
    write(&file, GOLDEN_DIR "/tokenizer/tiny_llama3", 512);
    assert_true(flag(&file, "tokenizer.ggml.add_bos_token"));
    testing_gguf_assert_u32(&file, "tokenizer.ggml.bos_token_id", 400);
    testing_gguf_release(&file);
}

// tiny_llama3 with other steps, as tokenizer.json has them.
static void assert_words(const char *pre_tokenizer, bool ignores_merges, const char *name)
{
    char dir[PATH_BYTES], path[PATH_BYTES];
    json_t *root, *steps;
    GgufRead file;
    snprintf(dir, sizeof dir, "%s", testing_dir());
    snprintf(path, sizeof path, "%s", testing_path(dir, "tokenizer.json"));
    assert_ok(json_read(&root, GOLDEN_DIR "/tokenizer/tiny_llama3/tokenizer.json"));
    assert_ok(json_parse(&steps, pre_tokenizer, (int64_t)strlen(pre_tokenizer), "steps"));
    json_object_set_new(root, "pre_tokenizer", steps);
    json_object_set_new(json_object_get(root, "model"), "ignore_merges",
                        json_boolean(ignores_merges));
    assert_ok(json_write(root, path));
    json_decref(root);
    if (name == NULL) {
        assert_refused(dir, 512, "splits a text into words in a way that");
        return;
    }
    write(&file, dir, 512);
    testing_gguf_assert_text(&file, "tokenizer.ggml.pre", name);
    testing_gguf_release(&file);
}

#define SEQUENCE(steps) "{\"type\": \"Sequence\", \"pretokenizers\": [" steps "]}"
#define SPLIT(regex)                                                                               \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" regex "\"}, \"behavior\": \"Isolated\", "  \
    "\"invert\": false}, "
#define BYTE_LEVEL(use_regex)                                                                      \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "              \
    "\"use_regex\": " use_regex "}"

// DeepSeek's with its line ends as they are in its file, and as escapes.
#define DEEPSEEK(end)                                                                              \
    SEQUENCE(SPLIT("\\\\p{N}{1,3}") SPLIT("[一-龥\u3040-ゟ゠-ヿ]+")                                \
                 SPLIT("[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^" end  \
                       "\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[" end  \
                       "]*|\\\\s*[" end "]+|\\\\s+(?!\\\\S)|\\\\s+") BYTE_LEVEL("false"))

static void test_splits_are_told_by_their_steps(void **state)
{
    (void)state;
    static const char llama3[] = SEQUENCE(
        SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
              "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+")
            BYTE_LEVEL("false"));
    assert_words(llama3, true, "llama-bpe");
    assert_words(llama3, false, "dbrx");
    assert_words(BYTE_LEVEL("true"), false, "gpt-2");
    assert_words(BYTE_LEVEL("true"), true, NULL);
    assert_words(DEEPSEEK("\\r\\n"), false, "deepseek-v3");
    assert_words(DEEPSEEK("\\\\r\\\\n"), false, "deepseek-v3");
    assert_words(SEQUENCE(SPLIT("\\\\p{N}{1,3}") BYTE_LEVEL("true")), false, NULL);
    assert_words(SEQUENCE(SPLIT("\\\\p{N}") BYTE_LEVEL("true")), false, "smollm");
}

// A score is the rank of the first merge that makes the token: higher ones merge first.
static void test_sentencepiece_has_scores(void **state)
{
    (void)state;
    GgufRead file;
    int32_t first = -1, second = -1;
    write(&file, GOLDEN_DIR "/tokenizer/tiny_spm", 400);
    testing_gguf_assert_text(&file, "tokenizer.ggml.model", "llama");
    assert_int_equal(int_at(&file, "tokenizer.ggml.token_type", 0), 2); // <unk>
    assert_int_equal(int_at(&file, "tokenizer.ggml.token_type", 1), 3);
    assert_int_equal(int_at(&file, "tokenizer.ggml.token_type", 3), 6); // <0x00>
    testing_gguf_assert_element(&file, "tokenizer.ggml.tokens", 3, "<0x00>");
    for (int i = 0; i < 400; i++) {
        first = score_at(&file, i) == 0 ? i : first;
        second = score_at(&file, i) == -1 ? i : second;
    }
    testing_gguf_assert_element(&file, "tokenizer.ggml.tokens", first, "\u2581t");
    testing_gguf_assert_element(&file, "tokenizer.ggml.tokens", second, "\u2581th");
    assert_true(score_at(&file, 3) == -78); // after all 78 merges
    testing_gguf_assert_u32(&file, "tokenizer.ggml.unknown_token_id", 0);
    testing_gguf_assert_u32(&file, "tokenizer.ggml.bos_token_id", 1);
    testing_gguf_assert_u32(&file, "tokenizer.ggml.eos_token_id", 2);
    assert_true(flag(&file, "tokenizer.ggml.add_bos_token"));
    assert_true(flag(&file, "tokenizer.ggml.add_eos_token"));
    assert_true(flag(&file, "tokenizer.ggml.add_space_prefix"));
    testing_gguf_release(&file);
}

static void copy_tokenizer(const char *dir)
{
    assert_ok(file_copy(GOLDEN_DIR "/tokenizer/tiny_bytelevel/tokenizer.json",
                        testing_path(dir, "tokenizer.json")));
}

static void write_text(const char *dir, const char *name, const char *text)
{
    assert_ok(file_write(testing_path(dir, name), text, (int64_t)strlen(text)));
}

static void test_a_chat_template_is_written_as_it_is(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    GgufRead file;
    snprintf(dir, sizeof dir, "%s", testing_dir());
    copy_tokenizer(dir);
    write(&file, dir, 300);
    assert_null(testing_gguf_key(&file, "tokenizer.chat_template"));
    testing_gguf_release(&file);
    write_text(dir, "tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"a\"}, {\"name\": "
               "\"default\", \"template\": \"{{ b }}\"}], \"eos_token\": \"<|im_end|>\"}");
    write(&file, dir, 300);
    testing_gguf_assert_text(&file, "tokenizer.chat_template", "{{ b }}");
    testing_gguf_assert_u32(&file, "tokenizer.ggml.eos_token_id", 2);
    testing_gguf_release(&file);
    write_text(dir, "chat_template.jinja", "{{ c }}\n");
    write(&file, dir, 300);
    testing_gguf_assert_text(&file, "tokenizer.chat_template", "{{ c }}\n");
    testing_gguf_release(&file);
}

static void warn_of_tiny_spm(void)
{
    GgufMeta meta;
    log_set_quiet(false);
    assert_ok(gguf_meta_create(&meta));
    assert_ok(gguf_put_vocabulary(&meta, GOLDEN_DIR "/tokenizer/tiny_spm", 400));
    gguf_meta_release(&meta);
    log_set_quiet(true);
}

// "▁t" and "he", "▁th" and "ey" are tokens together, but do not merge.
static void test_other_merges_are_warned_of(void **state)
{
    (void)state;
    char said[1024];
    testing_capture(said, sizeof said, warn_of_tiny_spm);
    if (strstr(said, "makes 2 of the tokenizer's 400 tokens from other parts") == NULL)
        fail_msg("%s", said);
}

static void test_what_llama_cpp_does_not_have_is_refused(void **state)
{
    (void)state;
    GgufRead file;
    assert_refused(GOLDEN_DIR "/tokenizer/tiny_qwen2", 403, "ids up to 403, the model's embedding");
    assert_refused(GOLDEN_DIR "/tokenizer/tiny_prefix", 512, "puts 3 tokens before a text");
    assert_refused(GOLDEN_DIR "/tokenizer/tiny_added", 512, "neither byte-level nor SentencePiece");
    write(&file, testing_dir(), 31); // no tokenizer is no error
    testing_gguf_assert_text(&file, "tokenizer.ggml.model", "none");
    testing_gguf_release(&file);
}

int main(void)
{
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_level_tokens_and_merges),
        cmocka_unit_test(test_splits_have_their_names),
        cmocka_unit_test(test_splits_are_told_by_their_steps),
        cmocka_unit_test(test_sentencepiece_has_scores),
        cmocka_unit_test(test_a_chat_template_is_written_as_it_is),
        cmocka_unit_test(test_other_merges_are_warned_of),
        cmocka_unit_test(test_what_llama_cpp_does_not_have_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
