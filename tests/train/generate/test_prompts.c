// train/generate/prompts: where prompts come from, what is refused, and what tokens they become.
#include "tests/support/testing.h"

#include "train/generate/prompts.h"

#include <stdio.h>
#include <string.h>

static Status parse(PromptList *out, const char *lines)
{
    return prompts_parse_jsonl(out, lines, (int64_t)strlen(lines), "p.jsonl");
}

static void test_lines_are_strings_or_objects(void **state)
{
    (void)state;
    PromptList list;
    assert_ok(parse(&list,
                    "\"one\"\n\n  \n{\"id\": 7, \"prompt\": \"two\\nlines\", \"more\": []}\r\n"
                    "{\"prompt\": \"\", \"id\": {\"a\": null}}"));
    assert_int_equal(list.n, 3);
    assert_int_equal(list.items[0].text.size, 3);
    assert_memory_equal(list.items[0].text.data, "one", 3);
    assert_null(list.items[0].id);
    assert_memory_equal(list.items[1].text.data, "two\nlines", 9);
    assert_int_equal(json_integer_value(list.items[1].id), 7);
    assert_int_equal(list.items[1].line, 4);
    assert_int_equal(list.items[2].text.size, 0);
    assert_true(json_is_object(list.items[2].id));
    prompts_release(&list);
}

static void test_bad_lines_are_named(void **state)
{
    (void)state;
    PromptList list;
    assert_fails(BAD_INPUT, "p.jsonl:2: not valid JSON at column",
                 parse(&list, "\"a\"\n{\"prompt\""));
    assert_fails(BAD_INPUT, "p.jsonl:1: neither a string nor an object with the string 'prompt'",
                 parse(&list, "{\"text\": \"a\"}"));
    assert_fails(BAD_INPUT, "p.jsonl:1: neither a string", parse(&list, "{\"prompt\": 3}"));
    assert_fails(BAD_INPUT, "p.jsonl:1: byte 0xE9 at column 5 is not UTF-8",
                 parse(&list, "\"caf\xe9\""));
    assert_fails(BAD_INPUT, "p.jsonl: has no prompts", parse(&list, "\n \n"));
    assert_fails(BAD_INPUT, "p.jsonl: has no prompts", parse(&list, ""));
}

static void test_a_text_that_is_not_utf8_is_refused(void **state)
{
    (void)state;
    PromptList list;
    assert_fails(BAD_INPUT, "x.txt: byte 0xFF at offset 2 is not UTF-8; convert it",
                 prompts_parse_text(&list, "ab\xff", 3, "x.txt"));
}

// The tiny sentencepiece tokenizer puts <s> (1) before a text and </s> behind it; the byte-level one
// nothing.
static Tokenizer *load(const char *name)
{
    char path[512];
    Tokenizer *tokenizer;
    snprintf(path, sizeof path, "%s/tokenizer/%s", GOLDEN_DIR, name);
    assert_ok(tokenizer_load(&tokenizer, path));
    return tokenizer;
}

static PromptEncoding encoding_of(const Tokenizer *tokenizer)
{
    return (PromptEncoding){.tokenizer = tokenizer,
                            .begin_id = -1,
                            .model = "MODEL",
                            .vocab_size = tokenizer_vocab_size(tokenizer),
                            .context = 100,
                            .context_name = "MODEL has positions for 100",
                            .n_new = 1};
}

// The ids of one prompt; the list is released.
static Status encode(int64_t *n, int32_t *first, const char *text, const PromptEncoding *encoding)
{
    PromptList list;
    assert_ok(prompts_parse_text(&list, text, (int64_t)strlen(text), "--prompt"));
    const Status status = prompts_encode(&list, encoding);
    if (status == OK) {
        *n = list.items[0].n_ids;
        *first = list.items[0].ids[0];
    }
    prompts_release(&list);
    return status;
}

static void test_what_begins_a_text(void **state)
{
    (void)state;
    int64_t n;
    int32_t first;
    Tokenizer *spm = load("tiny_spm"), *bytes = load("tiny_bytelevel");
    PromptEncoding encoding = encoding_of(spm);
    assert_ok(encode(&n, &first, "", &encoding));
    assert_int_equal(n, 2);
    assert_int_equal(first, 1);
    assert_ok(encode(&n, &first, "a", &encoding));
    assert_true(n >= 3);
    assert_int_equal(first, 1);

    encoding = encoding_of(bytes);
    assert_fails(BAD_INPUT, "--prompt: the prompt is empty, and MODEL names no token",
                 encode(&n, &first, "", &encoding));
    encoding.begin_id = 5;
    assert_ok(encode(&n, &first, "", &encoding));
    assert_int_equal(n, 1);
    assert_int_equal(first, 5);
    assert_ok(encode(&n, &first, "a", &encoding));
    assert_true(first != 5);
    encoding.puts_begin_id = true;
    assert_ok(encode(&n, &first, "a", &encoding));
    assert_int_equal(first, 5);
    tokenizer_release(spm);
    tokenizer_release(bytes);
}

static void test_prompts_that_do_not_fit_are_refused_with_the_numbers(void **state)
{
    (void)state;
    int64_t n;
    int32_t first;
    Tokenizer *tokenizer = load("tiny_spm");
    PromptEncoding encoding = encoding_of(tokenizer);
    assert_ok(encode(&n, &first, "a b c", &encoding));
    encoding.context = n;
    char text[128];
    snprintf(text, sizeof text, "--prompt: the prompt has %d tokens, MODEL has positions for 100",
             (int)n);
    assert_fails(BAD_INPUT, text, encode(&n, &first, "a b c", &encoding));
    encoding.context = n + 3;
    encoding.n_new = 3;
    assert_ok(encode(&n, &first, "a b c", &encoding));
    encoding.n_new = 4;
    assert_fails(BAD_INPUT, "or give --max-new-tokens 3", encode(&n, &first, "a b c", &encoding));
    encoding.n_new = 1;
    encoding.vocab_size = 2;
    assert_fails(BAD_INPUT, "the model has ids 0 to 1: the tokenizer in MODEL is another model's",
                 encode(&n, &first, "a b c", &encoding));
    tokenizer_release(tokenizer);
}

static void test_a_chat_template_is_around_the_prompt(void **state)
{
    (void)state;
    Tokenizer *tokenizer = load("tiny_qwen2");
    PromptEncoding encoding = encoding_of(tokenizer);
    const ChatTemplate chat = {.before = "<|im_start|>user\n", .after = "<|im_end|>\n"};
    static const char whole[] = "<|im_start|>user\nHello<|im_end|>\n";
    PromptList list;
    TokenBuffer expected = {0};
    encoding.chat = &chat;
    assert_ok(prompts_parse_text(&list, "Hello", 5, "--prompt"));
    assert_ok(prompts_encode(&list, &encoding));
    assert_ok(tokenizer_encode(tokenizer, &expected, whole, (int64_t)strlen(whole), false));
    assert_int_equal(list.items[0].n_ids, expected.count);
    assert_memory_equal(list.items[0].ids, expected.ids,
                        (size_t)expected.count * sizeof *expected.ids);
    token_buffer_release(&expected);
    prompts_release(&list);
    tokenizer_release(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_strings_or_objects),
        cmocka_unit_test(test_bad_lines_are_named),
        cmocka_unit_test(test_a_text_that_is_not_utf8_is_refused),
        cmocka_unit_test(test_what_begins_a_text),
        cmocka_unit_test(test_prompts_that_do_not_fit_are_refused_with_the_numbers),
        cmocka_unit_test(test_a_chat_template_is_around_the_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
