#define _GNU_SOURCE // memmem
// data/tokenizer: any bytes as text, in the small tokenizers of tests/golden. What each kind
// promises about decode(encode(text)) must hold, and ids may depend neither on the word cache nor
// on what is on the other side of a special token. Two bytes of settings, then the text.
#include "tests/fuzz/fuzzing.h"

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// What decoding gives of a text without added tokens.
typedef enum Promise {
    SAME,          // the text, added tokens or not
    SAME_IN_NFC,   // the text in NFC
    SAME_IN_WORDS, // the text but for spaces
    SAME_IF_PLAIN, // the text, unless it has U+2581 itself
    NOTHING,       // unknown characters get lost
} Promise;

typedef struct Kind {
    const char *dir;
    const char *separator; // an added token that only cuts the text; NULL: none
    Promise promise;
} Kind;

static const Kind kinds[] = {
    {GOLDEN_DIR "/tokenizer/tiny_bytelevel", "<|endoftext|>", SAME},
    {GOLDEN_DIR "/tokenizer/tiny_llama3", "<|eot_id|>", SAME},
    {GOLDEN_DIR "/tokenizer/tiny_qwen2", "<|im_end|>", SAME_IN_NFC},
    {GOLDEN_DIR "/tokenizer/tiny_prefix", "<|endoftext|>", SAME_IN_WORDS},
    {GOLDEN_DIR "/tokenizer/tiny_metaspace", NULL, SAME_IN_WORDS},
    {GOLDEN_DIR "/tokenizer/tiny_spm", "</s>", SAME_IF_PLAIN},
    {GOLDEN_DIR "/tokenizer/tiny_added", NULL, NOTHING},
};

enum { N_KINDS = sizeof kinds / sizeof kinds[0], COLD = 35 };

static Tokenizer *tokenizers[N_KINDS];
// Warm, with the words of all inputs before; not shared, for a cache belongs to one tokenizer.
static TokenBuffer buffers[N_KINDS], others[N_KINDS];
static int64_t n_fronts[N_KINDS], n_arounds[N_KINDS]; // special tokens before, and in all

// The special tokens around "a", which are those around any text.
static void count_special_tokens(int kind)
{
    TokenBuffer plain = {0}, all = {0};
    CHECK(tokenizer_encode(tokenizers[kind], &plain, "a", 1, false) == OK, "%s", fail_text());
    CHECK(tokenizer_encode(tokenizers[kind], &all, "a", 1, true) == OK, "%s", fail_text());
    n_arounds[kind] = all.count - plain.count;
    while (n_fronts[kind] < n_arounds[kind] && all.ids[n_fronts[kind]] != plain.ids[0])
        n_fronts[kind]++;
    token_buffer_release(&plain);
    token_buffer_release(&all);
}

static void load_all(void)
{
    for (int k = 0; k < N_KINDS && tokenizers[k] == NULL; k++) {
        CHECK(tokenizer_load(&tokenizers[k], kinds[k].dir) == OK, "%s", fail_text());
        count_special_tokens(k);
    }
}

static void encode(int kind, TokenBuffer *out, const char *text, int64_t size)
{
    Status status = tokenizer_encode(tokenizers[kind], out, text, size, false);
    CHECK(status == OK, "%s: %s", kinds[kind].dir, fail_text());
}

static void check_same_ids(const TokenBuffer *a, const int32_t *ids, int64_t n, const char *what)
{
    CHECK(a->count == n, "%s: %lld and %lld ids", what, (long long)a->count, (long long)n);
    for (int64_t i = 0; i < n; i++)
        CHECK(a->ids[i] == ids[i], "%s: id %lld is %d and %d", what, (long long)i, (int)a->ids[i],
              (int)ids[i]);
}

static void check_cold_cache(int kind, const Bytes *text, const TokenBuffer *warm)
{
    TokenBuffer cold = {0};
    encode(kind, &cold, text->data, text->size);
    check_same_ids(warm, cold.ids, cold.count, "without the cache");
    token_buffer_release(&cold);
}

static void check_special_tokens(int kind, const Bytes *text, const TokenBuffer *plain)
{
    TokenBuffer *all = &others[kind];
    all->count = 0;
    Status status = tokenizer_encode(tokenizers[kind], all, text->data, text->size, true);
    CHECK(status == OK, "%s", fail_text());
    int64_t n = all->count - n_arounds[kind];
    check_same_ids(plain, n > 0 ? all->ids + n_fronts[kind] : NULL, n, "with special tokens");
}

// Ids of two texts with a separating token between are those of each by itself.
static void check_separated(int kind, const Bytes *text, int64_t cut)
{
    TokenBuffer *all = &others[kind];
    Bytes both = {0};
    const char *separator = kinds[kind].separator;
    int64_t size = (int64_t)strlen(separator);
    CHECK(bytes_append(&both, text->data, cut) == OK, "%s", fail_text());
    CHECK(bytes_append(&both, separator, size) == OK, "%s", fail_text());
    CHECK(bytes_append(&both, text->data + cut, text->size - cut) == OK, "%s", fail_text());
    all->count = 0;
    encode(kind, all, both.data, both.size);
    int64_t n = all->count;
    encode(kind, all, text->data, cut);
    encode(kind, all, separator, size);
    encode(kind, all, text->data + cut, text->size - cut);
    CHECK(all->count == 2 * n, "%lld ids, %lld apart", (long long)n, (long long)(all->count - n));
    CHECK(memcmp(all->ids, all->ids + n, (size_t)n * sizeof *all->ids) == 0, "other ids apart");
    bytes_release(&both);
}

// Added tokens have these ids in every one of them, other tokens in some.
static bool has_added_token(const TokenBuffer *buffer)
{
    for (int64_t i = 0; i < buffer->count; i++)
        if (buffer->ids[i] <= 2 || buffer->ids[i] >= 400)
            return true;
    return false;
}

static int64_t without_spaces(char *text, int64_t size)
{
    int64_t n = 0;
    for (int64_t i = 0; i < size; i++)
        if (text[i] != ' ')
            text[n++] = text[i];
    return n;
}

static void replace_by_nfc(Bytes *text)
{
    utf8proc_uint8_t *normal = NULL;
    int64_t size = utf8proc_map((const utf8proc_uint8_t *)text->data, text->size, &normal,
                                UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    CHECK(size >= 0, "utf8proc: %s", utf8proc_errmsg(size));
    text->size = 0;
    CHECK(bytes_append(text, (const char *)normal, size) == OK, "%s", fail_text());
    free(normal);
}

// `text` is valid UTF-8; it is changed.
static void check_decoded(int kind, Bytes *text, const TokenBuffer *buffer)
{
    char *decoded;
    int64_t size;
    Promise promise = kinds[kind].promise;
    Status status =
        tokenizer_decode(tokenizers[kind], buffer->ids, buffer->count, &decoded, &size, false);
    CHECK(status == OK, "%s", fail_text());
    CHECK(utf8_valid_bytes(decoded, size) == size, "decoded to bytes that are no UTF-8");
    bool has_mark = text->size > 0 && memmem(text->data, (size_t)text->size, "\u2581", 3) != NULL;
    bool is_promised = promise == SAME || !has_added_token(buffer);
    if (promise == NOTHING || (promise != SAME_IN_NFC && promise != SAME && has_mark))
        is_promised = false;
    if (is_promised && promise == SAME_IN_NFC)
        replace_by_nfc(text);
    if (is_promised && promise == SAME_IN_WORDS) {
        size = without_spaces(decoded, size);
        text->size = without_spaces(text->data, text->size);
    }
    CHECK(!is_promised || (size == text->size && memcmp(decoded, text->data, (size_t)size) == 0),
          "%s: '%.*s' came back as '%.*s'", kinds[kind].dir, (int)text->size, text->data, (int)size,
          decoded);
    free(decoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = {data, size};
    uint8_t choice = fuzz_take_byte(&input), cut = fuzz_take_byte(&input);
    int kind = choice % N_KINDS;
    TokenBuffer *buffer = &buffers[kind];
    Bytes text = {0}, repaired = {0};
    load_all();
    CHECK(bytes_append(&text, (const char *)input.bytes, (int64_t)input.size) == OK, "no memory");
    CHECK(bytes_append(&text, "", 1) == OK && text.size-- > 0, "no memory");
    CHECK(utf8_append_repaired(&repaired, text.data, text.size) == OK, "no memory");
    CHECK(bytes_append(&repaired, "", 1) == OK && repaired.size-- > 0, "no memory");
    buffer->count = 0;
    encode(kind, buffer, text.data, text.size);
    if (choice / N_KINDS == COLD)
        check_cold_cache(kind, &repaired, buffer);
    check_special_tokens(kind, &text, buffer);
    if (kinds[kind].separator != NULL)
        check_separated(kind, &text, cut < text.size ? cut : text.size);
    check_decoded(kind, &repaired, buffer);
    bytes_release(&text);
    bytes_release(&repaired);
    return 0;
}
