// The exact BPE tokenizer of Hugging Face's tokenizer.json: the same ids and the same decoded text
// as the `tokenizers` library.
//
//     Tokenizer *tokenizer;
//     TRY(tokenizer_load(&tokenizer, "/models/SmolLM-135M"));
//     TokenBuffer buffer = {0};
//     TRY_GOTO(release, tokenizer_encode(tokenizer, &buffer, text, size_bytes, false));
//     ... buffer.ids[0 .. buffer.count) ...
//     buffer.count = 0; // the next document reuses the memory and the word cache
//     token_buffer_release(&buffer);
//     tokenizer_release(tokenizer);
//
// Loads what SmolLM, GPT-2, Llama-2, Llama-3, Mistral and Qwen2 have: BPE (also byte_fallback,
// ignore_merges) with the normalizers Prepend, Replace, NFC, NFD, NFKC, NFKD; the pre-tokenizers
// ByteLevel, Digits, Split, Metaspace; the post-processors ByteLevel, TemplateProcessing; the
// decoders Replace, ByteFallback, Fuse, Strip, ByteLevel, Metaspace; and Sequences of each.
// Anything else in tokenizer.json is refused by name and value (regular expressions:
// data/tokenizer/tokenizer_regex.h).
//
// A Tokenizer is read-only after loading: any number of threads may use it, each with a TokenBuffer
// of its own. Texts, vocabulary and merges are below 2^31 bytes or entries.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_H

#include "base/status.h"

#include <signal.h>
#include <stdint.h>

typedef struct Tokenizer Tokenizer;

// Token ids, growing, with the scratch memory and the word cache of the thread that fills it.
// Starts as {0}; the caller may set count back at any time.
typedef struct TokenBuffer {
    int32_t *ids; // owned
    int64_t count;
    int64_t capacity;
    struct TokenScratch *scratch;      // owned
    const volatile sig_atomic_t *stop; // borrowed; may be NULL. Set: encoding is FAILED
} TokenBuffer;

void token_buffer_release(TokenBuffer *buffer);

// Appends one id, such as a document's end. FAILED without memory.
Status token_buffer_append(TokenBuffer *buffer, int32_t id);

// Reads DIR/tokenizer.json or, if there is none, DIR/vocab.json and DIR/merges.txt (byte-level BPE
// of the GPT-2 kind). The id of eos comes from the first file that names it: tokenizer_config.json,
// special_tokens_map.json, config.json; if none does, from the added token </s> or <|endoftext|>.
// BAD_INPUT names file, key and value.
Status tokenizer_load(Tokenizer **out, const char *dir);
void tokenizer_release(Tokenizer *tokenizer); // NULL is fine

// Appends the ids of `text` [size_bytes] to `out`. Special tokens written in the text become their
// ids, as in the library; add_special_tokens also adds what the post-processor adds (such as <s>).
// Invalid UTF-8 is read as Python's errors="replace" reads it: each maximal invalid part becomes
// one U+FFFD. `out` is unchanged on errors: BAD_INPUT for 2 GiB and more, and where a normalizer
// multiplies the text without end; FAILED without memory.
Status tokenizer_encode(const Tokenizer *tokenizer, TokenBuffer *out, const char *text,
                        int64_t size_bytes, bool add_special_tokens);

// The text of ids [n] as the tokenizer's decoder gives it: valid UTF-8, zero-terminated, owned by
// the caller (free). Ids without a token are left out, as the library does. skip_special leaves
// out every special token (library 0.23 keeps those with "normalized": true).
Status tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, int64_t n, char **out_text,
                        int64_t *size, bool skip_special);

int tokenizer_vocab_size(const Tokenizer *tokenizer); // highest id + 1, added tokens included
int32_t tokenizer_eos_id(const Tokenizer *tokenizer); // -1 if unknown
bool tokenizer_puts_begin(
    const Tokenizer *tokenizer); // the post-processor puts tokens before a text
// SHA-256 over tokenizer.json, or over vocab.json followed by merges.txt; 64 hexadecimal digits.
const char *tokenizer_sha256(const Tokenizer *tokenizer);

// The id of a token as the vocabulary writes it, -1 if there is no such token.
int32_t tokenizer_find(const Tokenizer *tokenizer, const char *token);

#endif
