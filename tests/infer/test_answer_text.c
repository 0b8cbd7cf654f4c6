// infer/answer_text: what is shown of an answer is the text of prompt and answer less the prompt's,
// however its characters and stop strings are divided into tokens.
#include "tests/support/testing.h"

#include "base/random.h"
#include "infer/answer_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Tokenizer *load(const char *name)
{
    char path[512];
    Tokenizer *tokenizer;
    snprintf(path, sizeof path, "%s/tokenizer/%s", GOLDEN_DIR, name);
    assert_ok(tokenizer_load(&tokenizer, path));
    return tokenizer;
}

// The answer's text, all of it, with the index of the stop string that ended it in *found.
static Bytes answer(int *found, const Tokenizer *tokenizer, const int32_t *ids, int64_t n_prompt,
                    int64_t n, const char *const *stops, int n_stops)
{
    Bytes got = {0};
    AnswerText text;
    assert_ok(answer_text_start(&text, tokenizer, ids, n_prompt, stops, n_stops));
    for (int64_t i = n_prompt; i <= n && text.stop.found < 0; i++) {
        if (i < n)
            assert_ok(answer_text_push(&text, ids[i]));
        else
            assert_ok(answer_text_finish(&text));
        assert_int_equal(text.n_new > 0 ? utf8_valid_bytes(text.new_text, text.n_new) : 0,
                         text.n_new);
        assert_ok(bytes_append(&got, text.new_text, text.n_new));
    }
    *found = text.stop.found;
    answer_text_release(&text);
    assert_ok(bytes_append(&got, "", 1));
    return got;
}

// At every border between prompt and answer the two texts are the whole one.
static void check_borders(const char *name, const char *sentence)
{
    Tokenizer *tokenizer = load(name);
    TokenBuffer buffer = {0};
    char *whole, *prompt;
    int64_t size, prompt_size;
    int found;
    assert_ok(tokenizer_encode(tokenizer, &buffer, sentence, (int64_t)strlen(sentence), true));
    assert_ok(tokenizer_decode(tokenizer, buffer.ids, buffer.count, &whole, &size, true));
    for (int64_t n_prompt = 1; n_prompt <= buffer.count; n_prompt++) {
        Bytes text = answer(&found, tokenizer, buffer.ids, n_prompt, buffer.count, NULL, 0);
        assert_ok(tokenizer_decode(tokenizer, buffer.ids, n_prompt, &prompt, &prompt_size, true));
        // A prompt that ends within a character has U+FFFD there, which the answer repairs: the
        // answer is then what follows the part that both have.
        int64_t same = 0;
        while (same < prompt_size && same < size && prompt[same] == whole[same])
            same++;
        while (same < size && ((unsigned char)whole[same] & 0xC0) == 0x80)
            same--;
        assert_string_equal(text.data, whole + same);
        free(prompt);
        bytes_release(&text);
    }
    free(whole);
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
}

static void test_prompt_and_answer_are_the_whole_text(void **state)
{
    (void)state;
    static const char sentence[] = "The caf\u00e9 \U0001f600\U0001f601 of \u4f60\u597d, the end.";
    check_borders("tiny_bytelevel", sentence);
    check_borders("tiny_spm", sentence);
    check_borders("tiny_llama3", sentence);
    check_borders("tiny_metaspace", "a sentence of words");
}

// Each stop string of up to six bytes at each place of a text ends it there.
static void test_stop_strings_end_it_across_tokens(void **state)
{
    (void)state;
    static const char sentence[] = "one two\n\nthree: four";
    Tokenizer *tokenizer = load("tiny_bytelevel");
    TokenBuffer buffer = {0};
    assert_ok(tokenizer_encode(tokenizer, &buffer, "x", 1, false));
    const int64_t n_prompt = buffer.count;
    assert_ok(tokenizer_encode(tokenizer, &buffer, sentence, (int64_t)strlen(sentence), false));
    for (size_t at = 0; at < strlen(sentence); at++) {
        for (size_t length = 1; length <= 6 && at + length <= strlen(sentence); length++) {
            char stop[8] = "", expected[64];
            memcpy(stop, sentence + at, length);
            const char *const stops[] = {"never", stop};
            const char *first = strstr(sentence, stop);
            snprintf(expected, sizeof expected, "%.*s", (int)(first - sentence), sentence);
            int found;
            Bytes text = answer(&found, tokenizer, buffer.ids, n_prompt, buffer.count, stops, 2);
            assert_string_equal(text.data, expected);
            assert_int_equal(found, 1);
            bytes_release(&text);
        }
    }
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_and_answer_are_the_whole_text),
        cmocka_unit_test(test_stop_strings_end_it_across_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
