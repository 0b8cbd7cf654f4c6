// The answers of `generate` on their way to standard output: they arrive in any order, in parts,
// and are printed in the order of prompts and samples. The answer whose turn it is is streamed.
//
//     Answers answers;
//     TRY(answers_start(&answers, &options));
//     TRY(answers_add_text(&answers, index, text, size));   // index = prompt * n_samples + sample
//     TRY(answers_end(&answers, index, &end));              // it is complete
//     ...
//     TRY(answers_finish(&answers));                        // prints what waits for others
//     answers_release(&answers);
#ifndef MHA2MLA_TRAIN_GENERATE_ANSWERS_H
#define MHA2MLA_TRAIN_GENERATE_ANSWERS_H

#include "infer/generator.h"
#include "train/generate/prompts.h"

#include <stdio.h>

typedef struct AnswersOptions {
    FILE *out; // borrowed; NULL: nothing is printed, answers stay until answers_forget()
    const PromptList *prompts; // borrowed
    int n_samples;
    bool as_json;             // one object a line, else text
    const char *const *stops; // borrowed: names what an answer stopped at
} AnswersOptions;

// How an answer ended.
typedef struct AnswerEnding {
    AnswerEnd end;
    int stop;           // ANSWER_STOP: the index in stops
    const int32_t *ids; // [n_ids]
    int64_t n_ids;
} AnswerEnding;

typedef struct AnswerRecord {
    Bytes text;   // owned; what is not printed yet
    int32_t *ids; // owned [n_ids]
    int64_t n_ids;
    AnswerEnd end;
    int stop;
    bool is_done;
} AnswerRecord;

typedef struct Answers {
    AnswersOptions options;
    AnswerRecord *records; // owned [n]
    int64_t n;
    int64_t next;       // the answer whose turn it is
    bool next_is_begun; // some of its text is printed
    bool ends_in_line;  // the last character printed was a line end
    int64_t n_done;
} Answers;

Status answers_start(Answers *out, const AnswersOptions *options);
void answers_release(Answers *answers); // a zeroed one is allowed

// FAILED if memory is short or standard output cannot be written.
Status answers_add_text(Answers *answers, int64_t index, const char *text, int64_t size);
Status answers_end(Answers *answers, int64_t index, const AnswerEnding *ending);

// Releases an answer that is not to be printed.
void answers_forget(Answers *answers, int64_t index);

// No more come: those that are done are printed, though others before them are missing.
Status answers_finish(Answers *answers);

// The names of AnswerEnd in JSON.
extern const char *const answer_end_names[];

#endif
