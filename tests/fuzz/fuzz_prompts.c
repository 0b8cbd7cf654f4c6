// train/generate: a .jsonl file of prompts and a chat template are refused in one line, or become
// tokens. The first byte: odd, the rest is a template; even, it is prompts.
#include "tests/fuzz/fuzzing.h"

#include "train/generate/chat_template.h"
#include "train/generate/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Tokenizer *tokenizer;

static int check_template(const FuzzInput *input)
{
    ChatTemplate chat;
    char *text = malloc(input->size + 1);
    CHECK(text != NULL, "no memory");
    memcpy(text, input->bytes, input->size);
    text[input->size] = '\0';
    const Status status = chat_template_parse(&chat, text, "template");
    free(text);
    if (status != OK)
        return fuzz_check_refusal(status);
    CHECK(strstr(chat.before, "<|im_start|>user\n") != NULL, "before: %s", chat.before);
    CHECK(strlen(chat.before) < CHAT_TEXT_BYTES, "before is not closed");
    return 0;
}

static int check_prompts(const FuzzInput *input)
{
    PromptList list = {0};
    if (tokenizer == NULL)
        CHECK(tokenizer_load(&tokenizer, GOLDEN_DIR "/tokenizer/tiny_spm") == OK, "%s",
              fail_text());
    Status status =
        prompts_parse_jsonl(&list, (const char *)input->bytes, (int64_t)input->size, "prompts");
    if (status != OK)
        return fuzz_check_refusal(status);
    const PromptEncoding encoding = {.tokenizer = tokenizer,
                                     .begin_id = 1,
                                     .model = "model",
                                     .vocab_size = tokenizer_vocab_size(tokenizer),
                                     .context = 50,
                                     .context_name = "there are 50",
                                     .n_new = 10};
    CHECK(list.n > 0, "no prompts");
    status = prompts_encode(&list, &encoding);
    for (int64_t i = 0; i < list.n && status == OK; i++)
        CHECK(list.items[i].n_ids >= 1 && list.items[i].n_ids <= 40, "%lld ids",
              (long long)list.items[i].n_ids);
    prompts_release(&list);
    return status == OK ? 0 : fuzz_check_refusal(status);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = {data, size};
    return fuzz_take_byte(&input) % 2 == 1 ? check_template(&input) : check_prompts(&input);
}
