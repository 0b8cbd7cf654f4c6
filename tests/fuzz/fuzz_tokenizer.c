// data/tokenizer: a tokenizer.json is refused in one line, or encodes and decodes any text.
#include "tests/fuzz/fuzzing.h"
#include "tests/support/testing_tokens.h"

#include "data/tokenizer/tokenizer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// Ids up to 4M are allowed, and a table has an entry for each id up to the highest: such inputs say
// nothing new and cost a hundred times the others.
static bool has_large_number(const uint8_t *data, size_t size)
{
    size_t n_digits = 0;
    for (size_t i = 0; i < size; i++) {
        n_digits = isdigit(data[i]) ? n_digits + 1 : 0;
        if (n_digits >= 5)
            return true;
    }
    return false;
}

static void check_utf8(const char *text, int64_t size)
{
    for (int64_t at = 0; at < size;) {
        int32_t code;
        int64_t length = utf8proc_iterate((const utf8proc_uint8_t *)text + at, size - at, &code);
        CHECK(length > 0, "decoded to bytes that are no UTF-8 from %lld on", (long long)at);
        at += length;
    }
}

// A pattern that backtracks too long fails, a normalizer that makes 2 GiB of text refuses: the
// text's encoding alone.
static void check_text(const Tokenizer *tokenizer, TokenBuffer *buffer, const char *text)
{
    buffer->count = 0;
    if (tokenizer_encode(tokenizer, buffer, text, (int64_t)strlen(text), true) != OK) {
        CHECK(buffer->count == 0, "%lld ids of a text that fails", (long long)buffer->count);
        return;
    }
    for (int64_t i = 0; i < buffer->count; i++)
        CHECK(buffer->ids[i] >= 0 && buffer->ids[i] < tokenizer_vocab_size(tokenizer), "id %d",
              (int)buffer->ids[i]);
    testing_check_stream(tokenizer, buffer->ids, buffer->count);
    char *decoded;
    int64_t size;
    if (tokenizer_decode(tokenizer, buffer->ids, buffer->count, &decoded, &size, false) != OK)
        return;
    CHECK(decoded[size] == '\0', "decoded text of %lld bytes has no end", (long long)size);
    check_utf8(decoded, size);
    free(decoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const texts[] = {
        "the they're <s>a b</s> 12 34\n\n  \u2581x caf\u00e9 e\u0301\u0323 \U0001f600 [L] [R] ",
        " a\xff\xe2\x82",
        "",
    };
    if (has_large_number(data, size))
        return 0;
    fuzz_file("tokenizer.json", data, size);
    Tokenizer *tokenizer;
    Status status = tokenizer_load(&tokenizer, fuzz_dir());
    if (status != OK)
        return fuzz_check_refusal(status);
    TokenBuffer buffer = {0};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        check_text(tokenizer, &buffer, texts[i]);
    token_buffer_release(&buffer);
    tokenizer_release(tokenizer);
    return 0;
}
