// The rows of a set as prompts of tokens, with what their answers are held against.
//
//     const LongbenchPrompting how = {tokenizer, "MODEL", vocab_size, 4096, 0};
//     LongbenchItems items;
//     TRY(longbench_read_items(&items, &file, &how));
//     ... items.items[i].ids ...
//     longbench_items_release(&items);
//
// A prompt is cut as JT-Ushio/MHA2MLA cuts it, for T tokens of prompt and answer. A context of more
// than 8 T characters keeps the first and last 4 T. Of the filled template's tokens, with those the
// tokenizer puts around a text, at most n = T - max_gen stay: the first n - n/2 and the last n/2.
// So no prompt is tokenized twice, and the answer always fits.
#ifndef MHA2MLA_EVAL_LONGBENCH_LONGBENCH_ITEMS_H
#define MHA2MLA_EVAL_LONGBENCH_LONGBENCH_ITEMS_H

#include "base/checksum.h"
#include "data/tokenizer/tokenizer.h"
#include "eval/longbench/longbench_files.h"

typedef struct LongbenchPrompting {
    const Tokenizer *tokenizer; // borrowed
    const char *model;          // names it in errors
    int vocab_size;             // V: ids are below
    int64_t max_length;         // T
    int64_t limit;              // rows of a set at most; 0: all
} LongbenchPrompting;

typedef struct LongbenchItem {
    int64_t row;                   // in its file, from 0
    char *id;                      // owned: "_id" or "index" of the row, else its number
    json_t *answers;               // owned: a list of texts, at least one
    json_t *classes;               // owned likewise: all_classes; NULL: none
    int32_t *ids;                  // owned [n_ids]: the prompt
    int64_t n_ids;                 // 1 to T - max_gen
    int64_t n_whole;               // tokens before they were cut
    bool is_cut;                   // by characters or by tokens
    char sha256[SHA256_HEX_BYTES]; // of the ids, little-endian and 32 bits each
} LongbenchItem;

typedef struct LongbenchItems {
    LongbenchItem *items; // owned [n]
    int64_t n, capacity;
    int64_t n_rows; // of the file, those beyond the limit included
} LongbenchItems;

// BAD_INPUT names file and line: a key that is missing, has another type or cannot be scored with,
// or a token that the model does not have; and a T that leaves no room for a prompt.
Status longbench_read_items(LongbenchItems *out, const LongbenchFile *file,
                            const LongbenchPrompting *how);
void longbench_items_release(LongbenchItems *items); // a zeroed one is allowed

// BAD_INPUT if T leaves no room for a prompt in some sets: all are named, and those that fit.
Status longbench_check_length(const LongbenchFiles *files, int64_t max_length);

// Of a prediction, 0 to 1.
typedef struct LongbenchItemScore {
    double score;
    double levenshtein; // with python-Levenshtein's ratio; NaN if the set's metric has no ratio
} LongbenchItemScore;

// Errors of answer_score().
Status longbench_score_item(LongbenchItemScore *out, const LongbenchSet *set,
                            const LongbenchItem *item, AnswerText prediction);

#endif
