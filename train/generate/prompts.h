// Prompts of `generate`: a text, a file or standard input as one prompt, or a .jsonl file of many,
// and their tokens.
//
//     PromptList list = {0};
//     TRY(prompts_parse_jsonl(&list, bytes, size_bytes, "questions.jsonl"));
//     TRY_GOTO(release, prompts_encode(&list, &encoding));
//     ... list.items[i].ids ...
//     prompts_release(&list);
#ifndef MHA2MLA_TRAIN_GENERATE_PROMPTS_H
#define MHA2MLA_TRAIN_GENERATE_PROMPTS_H

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_text.h"
#include "train/generate/chat_template.h"

#include <jansson.h>

typedef struct Prompt {
    Bytes text;   // owned
    json_t *id;   // owned; the line's "id", NULL: it has none
    int64_t line; // of the .jsonl file; 0: the prompt is not from one
    int32_t *ids; // owned [n_ids], from prompts_encode()
    int64_t n_ids;
    int64_t max_new; // tokens of an answer at most; 0: as for all
} Prompt;

typedef struct PromptList {
    const char *where; // borrowed: what errors call their source
    Prompt *items;     // owned [n]
    int64_t n, capacity;
} PromptList;

void prompts_release(PromptList *list); // a zeroed one is allowed

// All of a file, or of standard input for "-"; the caller releases `out`.
Status prompts_read(Bytes *out, const char *path);

// One prompt, all of the text [size_bytes]. BAD_INPUT if it is not UTF-8, by offset.
Status prompts_parse_text(PromptList *out, const char *text, int64_t size_bytes, const char *where);

// One prompt a line, each a JSON string or an object with the string "prompt" and, if wanted, an
// "id" of any kind, which the answers repeat. Empty lines are skipped. BAD_INPUT names the line.
Status prompts_parse_jsonl(PromptList *out, const char *bytes, int64_t size_bytes,
                           const char *path);

typedef struct PromptEncoding {
    const Tokenizer *tokenizer;
    const ChatTemplate *chat; // NULL: the prompt as it is
    int32_t begin_id;         // what an empty prompt starts from; -1: it is refused
    bool puts_begin_id;       // before every prompt, though the tokenizer does not
    const char *model;        // names it in errors
    int vocab_size;           // V: ids of the tokenizer must be below
    int64_t context;          // tokens of prompt and answer at most
    const char *context_name; // "--ctx 256" or "the model has 512 positions"
    int64_t n_new;            // tokens of an answer that must fit; at least 1
} PromptEncoding;

// The tokens of all prompts, with what the tokenizer puts around a text. BAD_INPUT names the
// prompt that does not fit with the numbers.
Status prompts_encode(PromptList *list, const PromptEncoding *encoding);

#endif
