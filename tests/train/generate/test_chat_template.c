// train/generate/chat_template: ChatML is honoured in the ways that models write it, other
// templates are refused by what they begin with.
#include "tests/support/testing.h"

#include "base/file.h"
#include "train/generate/chat_template.h"

#include <stdio.h>
#include <string.h>

#define LOOP                                                                                       \
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"     \
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
#define CHATML "{% for message in messages %}" LOOP
#define SMOLLM2                                                                                    \
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "      \
    "'<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging "       \
    "Face<|im_end|>\\n' }}{% endif %}" LOOP

static void test_chatml_and_its_system_message(void **state)
{
    (void)state;
    ChatTemplate chat;
    assert_ok(chat_template_parse(&chat, CHATML, "x"));
    assert_string_equal(chat.before, "<|im_start|>user\n");
    assert_string_equal(chat.after, "<|im_end|>\n<|im_start|>assistant\n");
    assert_ok(chat_template_parse(&chat, SMOLLM2 "\n", "x"));
    assert_string_equal(chat.before,
                        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained "
                        "by Hugging Face<|im_end|>\n<|im_start|>user\n");
}

// Line ends in the strings may be written out.
static void test_line_ends_may_be_themselves(void **state)
{
    (void)state;
    char text[1024];
    ChatTemplate escaped, plain;
    size_t n = 0;
    for (const char *c = SMOLLM2; *c != '\0'; c++) {
        const bool is_escape = c[0] == '\\' && c[1] == 'n';
        text[n++] = is_escape ? '\n' : *c;
        c += is_escape;
    }
    text[n] = '\0';
    assert_ok(chat_template_parse(&escaped, SMOLLM2, "x"));
    assert_ok(chat_template_parse(&plain, text, "x"));
    assert_string_equal(plain.before, escaped.before);
}

static void test_other_templates_are_refused(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        "{{ bos_token }}{% for message in messages %}",
        CHATML "{{ eos_token }}",
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
        "'<|im_start|>system\\nIt\\'s' }}{% endif %}" LOOP,
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '",
    };
    ChatTemplate chat;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_fails(BAD_INPUT, "x: the chat template is none that is known here",
                     chat_template_parse(&chat, others[i], "x"));
    char large[8192];
    memset(large, '{', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    assert_fails(BAD_INPUT, "it begins with '{{{", chat_template_parse(&chat, large, "x"));
}

static void write_config(const char *dir, const char *json)
{
    assert_ok(file_write(testing_path(dir, "tokenizer_config.json"), json, (int64_t)strlen(json)));
}

static void test_where_a_directory_has_it(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    ChatTemplate chat;
    assert_fails(BAD_INPUT, "tokenizer_config.json is missing", chat_template_load(&chat, dir));
    write_config(dir, "{\"bos_token\": \"<s>\"}");
    assert_fails(BAD_INPUT, "has no 'chat_template'", chat_template_load(&chat, dir));
    write_config(dir, "{\"chat_template\": \"{{ x }}\"}");
    assert_fails(BAD_INPUT, "tokenizer_config.json: the chat template is none",
                 chat_template_load(&chat, dir));
    write_config(dir, "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}, {\"name\": "
                      "\"default\", \"template\": \"{{ y }}\"}]}");
    assert_fails(BAD_INPUT, "it begins with '{{ y }}'", chat_template_load(&chat, dir));
    assert_ok(file_write(testing_path(dir, "chat_template.jinja"), CHATML,
                         (int64_t)strlen(CHATML))); // it comes first
    assert_ok(chat_template_load(&chat, dir));
    assert_string_equal(chat.before, "<|im_start|>user\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chatml_and_its_system_message),
        cmocka_unit_test(test_line_ends_may_be_themselves),
        cmocka_unit_test(test_other_templates_are_refused),
        cmocka_unit_test(test_where_a_directory_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
