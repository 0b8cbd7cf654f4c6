// A context and its continuation as token ids, cut to what the model can take: what lm-eval and
// lighteval both do.
//
// White space at the end of the context goes to the front of the continuation. Both texts together
// are tokenized, and the context on its own; the continuation's tokens are those behind as many as
// the context has. Where none are left, as a token spans the border, it is the last one
// (lighteval's rule; lm-eval has none). At most max_length + 1 tokens are kept, cut on the left.
// Special tokens are those that the tokenizer puts itself. A context without text is the token
// that begins a text.
//
//     TaskRequest request = {0};
//     TRY(task_request_context(&request, &encoding, context, where));
//     for (each continuation) {
//         TRY(task_request_continue(&request, &encoding, continuation, where));
//         ... request.ids.ids[0 .. request.ids.count), the last request.n_scored of them ...
//     }
//     task_request_release(&request);
#ifndef MHA2MLA_EVAL_TASKS_TASK_REQUEST_H
#define MHA2MLA_EVAL_TASKS_TASK_REQUEST_H

#include "data/tokenizer/tokenizer.h"
#include "eval/tasks/task_text.h"

typedef struct TaskEncoding {
    const Tokenizer *tokenizer; // borrowed
    const char *model;          // borrowed: its name in errors
    int vocab_size;             // of the model
    int max_length;             // tokens that are run at most
    int32_t begin_id;           // what begins a text; -1: no token does
} TaskEncoding;

// Starts as {0}.
typedef struct TaskRequest {
    TokenBuffer ids; // owned: the context's and the continuation's, cut
    int n_scored;    // the last ones, of the continuation
    bool is_cut;
    TokenBuffer context, whole;  // owned
    Bytes text;                  // owned: context and continuation
    int64_t context_bytes;       // of `text`, without its white space at the end
    int64_t whole_context_bytes; // of `text`, with it
} TaskRequest;

// BAD_INPUT, named by `where`, if a token is not of the model's vocabulary, if nothing is left to
// begin with, or if a continuation has no token.
Status task_request_context(TaskRequest *request, const TaskEncoding *encoding, TextSpan context,
                            const char *where);
Status task_request_continue(TaskRequest *request, const TaskEncoding *encoding,
                             TextSpan continuation, const char *where);

void task_request_release(TaskRequest *request);

#endif
