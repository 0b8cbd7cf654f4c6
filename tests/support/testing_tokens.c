#include "tests/support/testing_tokens.h"

#include "base/random.h"
#include "data/tokenizer/token_stream.h"

#include <stdlib.h>
#include <string.h>

// Parts of n_part ids; 0: of 0 to 5.
static Status stream_parts(Bytes *text, const Tokenizer *tokenizer, const int32_t *ids, int64_t n,
                           int64_t n_part, bool skip_special)
{
    Status status;
    TokenStream *stream;
    TRY(token_stream_create(&stream, tokenizer, skip_special));
    uint64_t turn = 0;
    for (int64_t i = 0; i < n;) {
        int64_t count = n_part > 0 ? n_part : (int64_t)(random_bits((uint64_t)n, turn++) % 6);
        count = count < n - i ? count : n - i;
        const int64_t before = text->size;
        TRY_GOTO(release, token_stream_push(stream, text, ids + i, count));
        const int64_t size = text->size - before;
        CHECK(size == 0 || utf8_valid_bytes(text->data + before, size) == size,
              "a part of a character before id %lld of %lld", (long long)(i + count), (long long)n);
        i += count;
    }
    status = token_stream_finish(stream, text);
release:
    token_stream_release(stream);
    return status;
}

void testing_check_stream(const Tokenizer *tokenizer, const int32_t *ids, int64_t n)
{
    static const int64_t parts[] = {1, 3, 0};
    for (int k = 0; k < 6; k++) {
        char *whole = NULL;
        int64_t size = 0;
        Bytes text = {0};
        const Status expected = tokenizer_decode(tokenizer, ids, n, &whole, &size, k % 2 == 0);
        const Status got = stream_parts(&text, tokenizer, ids, n, parts[k / 2], k % 2 == 0);
        CHECK(got == expected, "status %d in parts, %d at once: %s", got, expected, fail_text());
        CHECK(got != OK ||
                  (text.size == size && (size == 0 || memcmp(text.data, whole, (size_t)size) == 0)),
              "in parts of %lld: '%.*s', at once: '%.*s'", (long long)parts[k / 2], (int)text.size,
              text.data, (int)size, whole);
        bytes_release(&text);
        free(whole);
    }
}
